// SPDX-License-Identifier: MIT OR Apache-2.0
//! Closes the path manager's switch after a millisecond, whatever keeps the
//! thread that opened it.

use mptcpapi::kernel::latch::{Undo, Warden};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

const LONGEST: Duration = Duration::from_millis(1);

/// A timer, and what to undo when it ends: one window is open at a time.
#[derive(Debug)]
pub struct Timer {
    timer: TimerFd,
    open: Mutex<Option<Undo>>,
    name: u16,
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
        Ok(Self { timer: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?, open: Mutex::new(None), name })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Undo>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The timer has ended; whether a window had to be closed.
    pub fn ended(&self) -> bool {
        // Read only where it has ended, so this waits for nothing.
        let _ = self.timer.wait();
        let mut open = self.lock();
        let late = open.take();
        let was_open = late.is_some();
        // With the lock held: whoever opened it must not think it still is.
        if let Some(late) = late {
            late.undo();
        }
        was_open
    }
}

impl Warden for Timer {
    fn opened(&self, undo: Undo) {
        *self.lock() = Some(undo);
        let once = Expiration::OneShot(TimeSpec::from_duration(LONGEST));
        let _ = self.timer.set(once, TimerSetTimeFlags::empty());
    }

    fn closed(&self) -> bool {
        let open = self.lock().take().is_some();
        let _ = self.timer.unset();
        open
    }

    fn name(&self) -> u16 {
        self.name
    }
}
