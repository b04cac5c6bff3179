// SPDX-License-Identifier: MIT OR Apache-2.0
//! Closes the path manager's switch after a millisecond, whatever keeps the
//! thread that opened it, and at the end, whatever threads are about to do.

use mptcpapi::KernelResult;
use mptcpapi::kernel::latch::{Fault, Undo, Warden};
use mptcpapi::manager::Manager;
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const LONGEST: Duration = Duration::from_millis(1);

/// A timer, and what to undo when it ends: one window is open at a time.
///
/// A window takes microseconds, so it would cost much to set the timer for
/// each: it runs on, and when it ends it closes the window that it was set for
/// or is set again for a later one.
#[derive(Debug)]
pub struct Timer {
    timer: TimerFd,
    state: Mutex<State>,
    name: u16,
}

#[derive(Debug, Default)]
struct State {
    open: Option<(Duration, Undo)>,
    running: bool,
    /// No window is to be opened any more.
    over: bool,
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }
}

impl Timer {
    /// A timer that doesn't run, of the broker of this name.
    pub fn new(name: u16) -> nix::Result<Self> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Self { timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?, state: Mutex::default(), name })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, state: &mut State, time: Duration) {
        let once = Expiration::OneShot(TimeSpec::from_duration(time));
        state.running = self.timer.set(once, TimerSetTimeFlags::empty()).is_ok();
    }

    /// The timer has ended; whether a window had to be closed.
    pub fn ended(&self) -> bool {
        // Read only where it has ended, so this waits for nothing.
        let _ = self.timer.wait();
        let mut state = self.lock();
        state.running = false;
        let Some((until, late)) = state.open.take() else { return false };
        let left = until.saturating_sub(Manager::now());
        if !left.is_zero() {
            state.open = Some((until, late));
            self.set(&mut state, left);
            return false;
        }
        // With the lock held: whoever opened it must not think it still is.
        let _ = late.undo();
        true
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

impl Warden for Timer {
    fn open(&self, undo: Undo, open: &mut dyn FnMut() -> KernelResult<()>) -> Result<(), Fault> {
        // With the lock held: there is no moment in which a window is open and
        // nobody would close it.
        let mut state = self.lock();
        if state.over {
            return Err(Fault::Cut);
        }
        open().map_err(Fault::ReadOnly)?;
        state.open = Some((Manager::now().saturating_add(LONGEST), undo));
        if !state.running {
            self.set(&mut state, LONGEST);
        }
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
