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
    open: Option<Open>,
    /// The number of the last one.
    last: u64,
    /// Those that were closed because they took too long, since that was asked.
    cut: u64,
    /// None is to be opened any more.
    over: bool,
}

#[derive(Debug)]
struct Open {
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
        if let Some(open) = state.open.take_if(|open| open.until <= now) {
            state.cut += 1;
            // With the lock held: whoever opened it must not think it still is.
            let _ = open.undo.undo();
        }
    }

    /// How many had to be closed since this was last asked.
    pub fn cut(&self) -> u64 {
        std::mem::take(&mut self.lock().cut)
    }

    /// Looks at what a window changes, where none does.
    pub fn unless_open<T>(&self, look: impl FnOnce() -> T) -> Option<T> {
        let state = self.lock();
        let changed = state.open.as_ref().is_some_and(|open| open.undo.changes());
        (!changed).then(look)
    }

    /// Closes what is open, for good: the process is about to end, wherever its
    /// threads are.
    pub fn stop(&self) {
        let mut state = self.lock();
        state.over = true;
        if let Some(open) = state.open.take() {
            let _ = open.undo.undo();
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
        state.last += 1;
        let number = state.last;
        state.open = Some(Open { number, until: Manager::now().saturating_add(LONGEST), undo });
        Ok(number)
    }

    fn close(&self, window: u64) -> Result<(), Fault> {
        let mut state = self.lock();
        // Another thread's can be open: this one was cut, and held up until now.
        let open = state.open.take_if(|open| open.number == window).ok_or(Fault::Cut)?;
        open.undo.restore()
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
    use nix::sched::{CloneFlags, unshare};
    use std::sync::Arc;

    /// Does something whenever a window has been opened.
    struct After<F>(Arc<Windows>, F);

    impl<F> std::fmt::Debug for After<F> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            self.0.fmt(f)
        }
    }

    impl<F: Fn(u64) + Send + Sync> Warden for After<F> {
        fn open(&self, undo: Undo, open: &mut dyn FnMut() -> KernelResult<()>) -> Result<u64, Fault> {
            self.0.open(undo, open).inspect(|number| self.1(*number))
        }

        fn close(&self, window: u64) -> Result<(), Fault> {
            self.0.close(window)
        }

        fn name(&self) -> u16 {
            self.0.name()
        }
    }

    fn socket(windows: &Arc<Windows>, after: impl Fn(u64) + Send + Sync + 'static) -> Result<(), Fault> {
        let mut latch = Latch::open(sockopt::thread_netns().unwrap()).unwrap();
        latch.watch(Arc::new(After(Arc::clone(windows), after)));
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
        latch.socket(libc::AF_INET, kind, libc::IPPROTO_MPTCP).map(drop)
    }

    /// Runs in a network namespace that ends with it.
    fn alone(act: impl FnOnce() + Send) {
        let inside = || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            act();
        };
        std::thread::scope(|scope| {
            if let Err(panic) = scope.spawn(inside).join() {
                std::panic::resume_unwind(panic);
            }
        });
    }

    #[test]
    fn one_who_comes_late_closes_nobody_elses_window() {
        alone(|| {
            let windows = Arc::new(Windows::new(1));
            let (seen, both) = (Arc::clone(&windows), Arc::clone(&windows));
            let late = socket(&windows, move |first| {
                seen.look(Manager::now() + 2 * LONGEST);
                // Meanwhile another opens one, in which the first comes back.
                let back = Arc::clone(&both);
                let other = socket(&both, move |_| assert_eq!(back.close(first), Err(Fault::Cut)));
                assert_eq!(other, Ok(()));
            });
            assert_eq!((late, windows.cut()), (Err(Fault::Cut), 1));
        });
    }

    #[test]
    fn none_is_opened_after_the_end() {
        alone(|| {
            let windows = Arc::new(Windows::new(1));
            let mut latch = Latch::open(sockopt::thread_netns().unwrap()).unwrap();
            latch.watch(Arc::clone(&windows) as Arc<dyn Warden>);
            let original = latch.hold().unwrap().unwrap();
            assert_eq!((latch.userspace(), latch.held()), (Ok(true), Ok(Some(original.clone()))));
            latch.unhold(&original).unwrap();
            windows.stop();
            assert_eq!(socket(&windows, |_| ()), Err(Fault::Cut));
            assert_eq!(
                (latch.hold(), latch.userspace(), latch.held()),
                (Err(Fault::Cut), Ok(false), Ok(None))
            );
        });
    }
}
