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
    open: Option<(Duration, Undo)>,
    /// Those that were closed because they took too long, since that was asked.
    cut: u64,
    /// None is to be opened any more.
    over: bool,
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
        if let Some((_, undo)) = state.open.take_if(|(until, _)| *until <= now) {
            state.cut += 1;
            // With the lock held: whoever opened it must not think it still is.
            let _ = undo.undo();
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
        if let Some((_, undo)) = state.open.take() {
            let _ = undo.undo();
        }
    }
}

impl Warden for Windows {
    fn open(&self, undo: Undo, open: &mut dyn FnMut() -> KernelResult<()>) -> Result<(), Fault> {
        // With the lock held: there is no moment in which a window is open and
        // nobody would close it.
        let mut state = self.lock();
        if state.over {
            return Err(Fault::Cut);
        }
        open().map_err(Fault::ReadOnly)?;
        state.open = Some((Manager::now().saturating_add(LONGEST), undo));
        Ok(())
    }

    fn close(&self) -> Result<(), Fault> {
        let mut state = self.lock();
        let (_, undo) = state.open.take().ok_or(Fault::Cut)?;
        undo.restore()
    }

    fn name(&self) -> u16 {
        self.name
    }
}
