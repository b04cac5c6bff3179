// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sockets that were made multipath here and are not connected yet: a bind(2)
//! that the application makes after ENABLE counts from the next call on the
//! socket, a query too. One atomic load where there are none.

use crate::engine::Key;
use crate::kernel::process::{self, PerProcess};
use crate::socket;
use crate::stream::{self, Socket, Stage};
use std::collections::HashSet;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

#[derive(Debug, Default)]
struct Pending {
    sockets: Mutex<HashSet<Key>>,
    count: AtomicUsize,
    misses: AtomicUsize,
    /// The closed ones are dropped when there are so many.
    limit: AtomicUsize,
}

static PENDING: PerProcess<Pending> = PerProcess::new();

/// After so many looks in vain, or as many as there are, the closed ones are
/// dropped.
const SWEEP: usize = 64;

impl Pending {
    fn lock(&self) -> MutexGuard<'_, HashSet<Key>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut HashSet<Key>)) {
        let mut sockets = self.lock();
        change(&mut sockets);
        self.count.store(sockets.len(), Ordering::Relaxed);
    }
}

/// Notes a socket.
pub fn note(fd: BorrowedFd<'_>) {
    if let Ok(key) = stream::key_of(fd)
        && let Ok(pending) = PENDING.get_or_init(Pending::default)
    {
        if pending.count.load(Ordering::Relaxed) >= pending.limit.load(Ordering::Relaxed).max(SWEEP) {
            sweep(pending);
        }
        pending.change(|sockets| {
            sockets.insert(key);
        });
    }
}

/// Looks whether the application has bound the socket meanwhile, and brings it
/// under the restriction if so.
pub fn settle(fd: BorrowedFd<'_>) {
    let Some(pending) = PENDING.get() else { return };
    if pending.count.load(Ordering::Relaxed) == 0 {
        return;
    }
    let Ok(key) = stream::key_of(fd) else { return };
    if !pending.lock().contains(&key) {
        let misses = pending.misses.fetch_add(1, Ordering::Relaxed);
        if misses >= pending.count.load(Ordering::Relaxed).max(SWEEP) {
            pending.misses.store(0, Ordering::Relaxed);
            sweep(pending);
        }
        return;
    }
    let Ok(socket) = Socket::of(fd) else { return };
    let done = match socket.stage() {
        // Nobody asked for this just now, so nobody hears of a failure; the
        // next ADD or connectx will.
        Ok(Stage::Unconnected) => {
            socket.mptcp
                && socket::restrict_to_binding(&socket).unwrap_or_else(|error| {
                    // What passes is tried again at the next call.
                    !matches!(error.errno(), libc::EIO | libc::EMFILE | libc::ENFILE | libc::ENOMEM)
                })
        }
        _ => true,
    };
    if done {
        pending.change(|sockets| {
            sockets.remove(&key);
        });
    }
}

fn sweep(pending: &Pending) {
    let Some(open) = process::open_sockets() else { return };
    pending.change(|sockets| sockets.retain(|key| open.contains(&key.inode)));
    // Looking at every descriptor takes its time: not before there are twice
    // as many.
    pending.limit.store(SWEEP + 2 * pending.count.load(Ordering::Relaxed), Ordering::Relaxed);
}
