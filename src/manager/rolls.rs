// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rolls of sockets that somebody asks about and that are not connected, or
//! connected without Multipath TCP: no event tells that such a socket is closed.
//!
//! An epoll descriptor does: it forgets a socket when the last descriptor of it
//! is closed, in whatever process that is, and keeps none of it; and /proc shows
//! which ones it knows. So the sockets are entered in one, and as long as any is
//! waited for somebody looks, once a second.
//!
//! A socket can't be taken off the roll without a descriptor of it, and by then
//! there is none. So rolls are short, and go when nobody on them is waited for.

use super::Time;
use crate::engine::Key;
use crate::error::{Errno, KernelResult};
use crate::kernel::{poll, process};
use crate::quick::Set;
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Between two looks.
const PAUSE: Time = Time::from_secs(1);
/// The same for each socket on a user's rolls, where they are many: a look
/// costs one or two microseconds for each.
const PAUSE_EACH: Time = Time::from_micros(100);
/// Sockets on a roll, unless there may be no more rolls.
const SHORT: usize = 64;
/// The same in any case: what epoll descriptors watch is counted for all users
/// together.
const LONG: usize = 1024;
/// Rolls of a user: each takes two descriptors.
const ROLLS: usize = 64;

/// Some sockets. Who waits for one of them holds the roll.
#[derive(Debug, Default)]
pub struct Roll {
    list: Mutex<List>,
    /// How many are on it.
    len: AtomicUsize,
}

#[derive(Debug, Default)]
struct List {
    page: Page,
    keys: Set<Key>,
}

#[derive(Debug, Default)]
enum Page {
    #[default]
    Blank,
    Open(Descriptors),
    /// The program has closed them: they are not ours.
    Lost,
}

#[derive(Debug)]
struct Descriptors {
    /// The epoll descriptor, which knows each socket by its cookie; and a mark
    /// that it knows as well, to be known by itself.
    fds: Option<(OwnedFd, OwnedFd)>,
    /// What it knows the mark by; no cookie is so great.
    name: u64,
}

impl Descriptors {
    fn open() -> KernelResult<Self> {
        let (epoll, mark) = (poll::epoll()?, poll::always()?);
        let name = !(process::monotonic().as_nanos() as u64);
        poll::watch(epoll.as_raw_fd(), mark.as_fd(), false, name)?;
        Ok(Self { fds: Some((epoll, mark)), name })
    }

    /// The epoll descriptor, if both are still the ones that were opened.
    fn epoll(&self) -> Option<RawFd> {
        let (epoll, mark) = self.fds.as_ref()?;
        poll::knows(epoll.as_raw_fd(), mark.as_fd()).then_some(epoll.as_raw_fd())
    }

    /// What shows which of its sockets are open.
    fn index(&self) -> Option<Index> {
        Some(Index { epoll: self.fds.as_ref()?.0.as_raw_fd(), name: self.name })
    }
}

/// The number of an epoll descriptor, and what it knows its mark by.
#[derive(Clone, Copy, Debug)]
struct Index {
    epoll: RawFd,
    name: u64,
}

impl Index {
    /// The sockets that are open.
    fn present(self) -> Option<Set<Key>> {
        let known = poll::known(self.epoll)?;
        let ours = known.iter().any(|known| known.number == self.name);
        ours.then(|| known.iter().map(|known| Key { cookie: known.number, inode: known.inode }).collect())
    }
}

impl Drop for Descriptors {
    fn drop(&mut self) {
        if self.epoll().is_none() {
            std::mem::forget(self.fds.take());
        }
    }
}

impl Roll {
    fn lock(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn len(&self) -> usize {
        self.len.load(Ordering::Relaxed)
    }

    /// Enters a socket, the descriptor's. EDQUOT where that is too many.
    pub fn enter(&self, fd: BorrowedFd<'_>, key: Key) -> KernelResult<()> {
        let mut list = self.lock();
        if list.keys.contains(&key) {
            return Ok(());
        }
        if list.keys.len() >= LONG {
            return Err(Errno(libc::EDQUOT));
        }
        if let Page::Blank = list.page {
            list.page = Page::Open(Descriptors::open()?);
        }
        let epoll = match &list.page {
            Page::Open(descriptors) => descriptors.epoll(),
            _ => None,
        };
        match epoll {
            Some(epoll) => poll::watch(epoll, fd, false, key.cookie).map_err(|errno| match errno {
                // The user's limit of what epoll descriptors watch.
                Errno(libc::ENOSPC) => Errno(libc::ENOMEM),
                errno => errno,
            })?,
            None => list.page = Page::Lost,
        }
        list.keys.insert(key);
        self.len.store(list.keys.len(), Ordering::Relaxed);
        Ok(())
    }

    /// Takes those off that are closed. `open` gives the inodes of the open
    /// ones, for where the roll's own descriptors were closed.
    pub fn take_closed(&self, open: impl FnOnce() -> Option<HashSet<u64>>) -> Vec<Key> {
        let (mut closed, index) = {
            let list = self.lock();
            let index = match &list.page {
                Page::Open(descriptors) => descriptors.index(),
                _ => None,
            };
            (list.keys.clone(), index)
        };
        // Without the lock: who enters a socket must not wait for this, and what
        // is entered meanwhile is none of those.
        match index.and_then(Index::present) {
            Some(present) => closed.retain(|key| !present.contains(key)),
            None => match open() {
                Some(open) => closed.retain(|key| !open.contains(&key.inode)),
                None => closed.clear(),
            },
        }
        let mut list = self.lock();
        let closed: Vec<Key> = closed.into_iter().filter(|key| list.keys.remove(key)).collect();
        self.len.store(list.keys.len(), Ordering::Relaxed);
        closed
    }
}

/// All rolls, by their users: nobody waits for another's.
#[derive(Debug, Default)]
pub struct Rolls(HashMap<u32, Own>);

/// A user's.
#[derive(Debug)]
struct Own {
    rolls: Vec<Weak<Roll>>,
    due: Time,
    /// Somebody is looking.
    looking: bool,
}

impl Own {
    fn is_used(&self) -> bool {
        self.rolls.iter().any(|roll| roll.strong_count() > 0)
    }

    fn used(&self) -> Vec<Arc<Roll>> {
        self.rolls.iter().filter_map(Weak::upgrade).collect()
    }
}

impl Rolls {
    /// One that has room for another socket of this user.
    pub fn roll(&mut self, user: u32, now: Time) -> Arc<Roll> {
        let own = self.0.entry(user).or_insert(Own { rolls: Vec::new(), due: now, looking: false });
        own.rolls.retain(|roll| roll.strong_count() > 0);
        let rolls = own.used();
        if rolls.is_empty() {
            own.due = now.saturating_add(PAUSE);
        }
        // The newest: older ones are to go.
        let room = rolls.iter().rev().find(|roll| roll.len() < SHORT);
        let room =
            room.or_else(|| rolls.iter().min_by_key(|roll| roll.len()).filter(|_| rolls.len() >= ROLLS));
        if let Some(roll) = room {
            return Arc::clone(roll);
        }
        let fresh = Arc::new(Roll::default());
        own.rolls.push(Arc::downgrade(&fresh));
        fresh
    }

    /// When to look again.
    pub fn next_timeout(&self) -> Option<Time> {
        let due = |own: &Own| (!own.looking && own.is_used()).then_some(own.due);
        self.0.values().filter_map(due).min()
    }

    /// Those that are to be looked at now, by whose they are;
    /// [`Rolls::looked`] must follow.
    pub fn due(&mut self, now: Time) -> Vec<(u32, Vec<Arc<Roll>>)> {
        self.0.retain(|_, own| own.looking || own.is_used());
        let due = |(user, own): (&u32, &mut Own)| {
            let due = !own.looking && own.due <= now;
            own.looking |= due;
            due.then(|| (*user, own.used()))
        };
        self.0.iter_mut().filter_map(due).collect()
    }

    /// They have been looked at.
    pub fn looked(&mut self, user: u32, now: Time) {
        if let Some(own) = self.0.get_mut(&user) {
            own.looking = false;
            let len: usize = own.used().iter().map(|roll| roll.len()).sum();
            let pause = PAUSE_EACH.saturating_mul(u32::try_from(len).unwrap_or(u32::MAX));
            own.due = now.saturating_add(pause.max(PAUSE));
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::kernel::sockopt;
    use crate::stream::key_of;

    fn socket() -> (OwnedFd, Key) {
        let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
        let socket = sockopt::socket(libc::AF_INET, kind, libc::IPPROTO_TCP).unwrap();
        let key = key_of(socket.as_fd()).unwrap();
        (socket, key)
    }

    fn unasked() -> Option<HashSet<u64>> {
        panic!("the roll knows")
    }

    #[test]
    fn a_socket_is_on_the_roll_until_its_last_descriptor_is_closed() {
        let roll = Roll::default();
        assert_eq!(roll.take_closed(|| None), []);
        let ((one, its), (other, others)) = (socket(), socket());
        roll.enter(one.as_fd(), its).unwrap();
        roll.enter(other.as_fd(), others).unwrap();
        let copy = sockopt::duplicate(one.as_fd()).unwrap();
        drop(one);
        roll.enter(copy.as_fd(), its).unwrap();
        assert_eq!((roll.take_closed(unasked), roll.len()), (vec![], 2));
        drop(copy);
        assert_eq!((roll.take_closed(unasked), roll.len()), (vec![its], 1));
        assert_eq!(roll.take_closed(unasked), []);
        drop(other);
        assert_eq!(roll.take_closed(unasked), [others]);
    }

    /// A program has closed descriptors that it doesn't know, and others have
    /// their numbers.
    #[test]
    fn what_has_the_rolls_numbers_is_left_alone() {
        let roll = Roll::default();
        let ((one, its), (other, others)) = (socket(), socket());
        roll.enter(one.as_fd(), its).unwrap();
        let numbers = match &roll.lock().page {
            Page::Open(Descriptors { fds: Some((epoll, mark)), .. }) => [epoll.as_raw_fd(), mark.as_raw_fd()],
            page => panic!("{page:?}"),
        };
        for number in numbers {
            nix::unistd::close(number).unwrap();
        }
        let theirs: Vec<OwnedFd> = (0..8).map(|_| poll::epoll().unwrap()).collect();
        let known = || theirs.iter().filter(|fd| poll::known(fd.as_raw_fd()) == Some(vec![])).count();
        assert_eq!(roll.take_closed(|| None), []);
        assert_eq!(roll.take_closed(|| Some(HashSet::from([its.inode]))), []);
        roll.enter(other.as_fd(), others).unwrap();
        assert_eq!(known(), 8);
        assert_eq!(roll.take_closed(|| Some(HashSet::from([others.inode]))), [its]);
        drop(roll);
        assert_eq!(known(), 8);
    }

    #[test]
    fn rolls_are_short_and_a_users_own() {
        let mut rolls = Rolls::default();
        let mut waiting = Vec::new();
        let enter = |roll: &Roll, count: u64| {
            let mut list = roll.lock();
            let from = list.keys.len() as u64;
            list.keys.extend((from..from + count).map(|cookie| Key { cookie, inode: 1 }));
            roll.len.store(list.keys.len(), Ordering::Relaxed);
        };
        for _ in 0..ROLLS {
            let roll = rolls.roll(7, Time::ZERO);
            assert!(waiting.iter().all(|known| !Arc::ptr_eq(known, &roll)));
            assert!(Arc::ptr_eq(&roll, &rolls.roll(7, Time::ZERO)));
            enter(&roll, SHORT as u64);
            waiting.push(roll);
        }
        // No more than so many: the shortest.
        enter(&waiting[0], 1);
        assert!(Arc::ptr_eq(&rolls.roll(7, Time::ZERO), &waiting[1]));
        assert_eq!(rolls.roll(8, Time::ZERO).len(), 0);

        // Nobody holds user 8's.
        assert_eq!(rolls.next_timeout(), Some(PAUSE));
        assert!(rolls.due(Time::ZERO).is_empty());
        let due = rolls.due(PAUSE);
        assert_eq!(due.iter().map(|(user, own)| (*user, own.len())).collect::<Vec<_>>(), [(7, ROLLS)]);
        assert_eq!((rolls.next_timeout(), rolls.due(PAUSE).len()), (None, 0));
        drop(due);
        rolls.looked(7, PAUSE);
        assert_eq!(rolls.next_timeout(), Some(2 * PAUSE));
        let (one, key) = socket();
        waiting[1].enter(one.as_fd(), key).unwrap();
        enter(&waiting[1], LONG as u64);
        let (other, key) = socket();
        assert_eq!(waiting[1].enter(other.as_fd(), key), Err(Errno(libc::EDQUOT)));
        enter(&waiting[0], 50_000);
        rolls.looked(7, PAUSE);
        assert!(rolls.next_timeout() > Some(5 * PAUSE));
        drop(waiting);
        assert_eq!((rolls.next_timeout(), rolls.due(9 * PAUSE).len()), (None, 0));
        assert!(rolls.0.is_empty());
    }
}
