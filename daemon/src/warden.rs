// SPDX-License-Identifier: MIT OR Apache-2.0
//! Closes the path manager's switch after a millisecond or two, whatever keeps
//! the thread that opened it, and at the end, whatever threads are about to do.

use mptcpapi::KernelResult;
use mptcpapi::kernel::latch::{Fault, Undo, Warden};
use mptcpapi::manager::Manager;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const LONGEST: Duration = Duration::from_millis(1);

/// The window that is open, one at a time, and how to close it. Whoever watches
/// the threads looks at it too: a window takes microseconds, so a timer for each
/// would cost more than all the rest.
#[derive(Debug)]
pub struct Windows {
    state: Mutex<State>,
    name: u16,
}

#[derive(Debug, Default)]
struct State {
    open: Option<Window>,
    /// So many were opened.
    numbers: u64,
    /// Those that were closed because they took too long, since that was asked.
    cut: u64,
    /// None is to be opened any more.
    over: bool,
}

#[derive(Debug)]
struct Window {
    number: u64,
    until: Duration,
    undo: Undo,
}

impl Windows {
    /// Of the broker of this name.
    pub fn new(name: u16) -> Self {
        Self { state: Mutex::default(), name }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes what has been open for too long.
    pub fn look(&self, now: Duration) {
        let mut state = self.lock();
        if let Some(late) = state.open.take_if(|window| window.until <= now) {
            state.cut += 1;
            // With the lock held: whoever opened it must not think it still is.
            let _ = late.undo.undo();
        }
    }

    /// How many had to be closed since this was last asked.
    pub fn cut(&self) -> u64 {
        std::mem::take(&mut self.lock().cut)
    }

    /// Closes what is open, for good: the process is about to end, wherever its
    /// threads are.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.over = true;
        if let Some(window) = state.open.take() {
            let _ = window.undo.undo();
        }
    }
}

impl Warden for Windows {
    fn open(&self, undo: Undo, open: &mut dyn FnMut() -> KernelResult<()>) -> Result<u64, Fault> {
        // With the lock held: there is no moment in which a window is open and
        // nobody would close it.
        let mut state = self.lock();
        if state.over {
            return Err(Fault::Cut);
        }
        open().map_err(Fault::ReadOnly)?;
        state.numbers += 1;
        let number = state.numbers;
        state.open = Some(Window { number, until: Manager::now().saturating_add(LONGEST), undo });
        Ok(number)
    }

    fn close(&self, number: u64) -> Result<(), Fault> {
        let mut state = self.lock();
        let window = state.open.take_if(|window| window.number == number).ok_or(Fault::Cut)?;
        window.undo.restore()
    }

    fn name(&self) -> u16 {
        self.name
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use mptcpapi::kernel::latch::Latch;
    use mptcpapi::kernel::sockopt;
    use std::os::fd::AsFd;
    use std::sync::Arc;

    /// Keeps what would undo a window.
    #[derive(Debug, Default)]
    struct Keeper(Mutex<Option<Undo>>);

    impl Warden for Keeper {
        fn open(&self, undo: Undo, open: &mut dyn FnMut() -> KernelResult<()>) -> Result<u64, Fault> {
            *self.0.lock().unwrap() = Some(undo);
            open().map(|()| 0).map_err(Fault::ReadOnly)
        }

        fn close(&self, _: u64) -> Result<(), Fault> {
            Ok(())
        }

        fn name(&self) -> u16 {
            0
        }
    }

    /// Of a window in which nothing is changed.
    fn undo() -> Undo {
        let keeper = Arc::new(Keeper::default());
        let mut latch = Latch::open(sockopt::thread_netns().unwrap()).unwrap();
        latch.watch(Arc::clone(&keeper) as Arc<dyn Warden>);
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
        let socket = sockopt::socket(libc::AF_INET, kind, libc::IPPROTO_TCP).unwrap();
        latch.release(socket.as_fd()).unwrap();
        keeper.0.lock().unwrap().take().unwrap()
    }

    #[test]
    fn who_comes_too_late_closes_nobody_elses_window() {
        let windows = Windows::new(1);
        let open = || windows.open(undo(), &mut || Ok(()));
        let late = open().unwrap();
        windows.look(Manager::now().saturating_add(2 * LONGEST));
        assert_eq!(windows.cut(), 1);
        let next = open().unwrap();
        assert_eq!(windows.close(late), Err(Fault::Cut));
        assert_eq!(windows.close(next), Ok(()));
        assert_eq!(windows.close(next), Err(Fault::Cut));
        windows.stop();
        assert_eq!(open(), Err(Fault::Cut));
    }
}
