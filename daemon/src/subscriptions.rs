// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients that are told of events. Each has a connection of its own to the
//! broker, on which nothing else is said; what it doesn't read waits in the
//! kernel and then here, both bounded, and nobody waits for it.

use mptcpapi::engine::Key;
use mptcpapi::events::{Next, Queue};
use mptcpapi::kernel::{sockopt, unix};
use mptcpapi::manager::{Tiding, Told as Tells};
use mptcpapi::wire::{self, Reply, Told};
use mptcpapi::{Errno, Error};
use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};

type ClientId = u64;

/// A process of a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Who {
    /// The user.
    pub uid: u32,
    /// The process.
    pub pid: i32,
}

impl Who {
    /// As a number.
    pub fn number(self) -> u64 {
        u64::from(self.uid) << 32 | u64::from(self.pid as u32)
    }

    /// From such a number.
    pub fn from_number(number: u64) -> Self {
        Self { uid: (number >> 32) as u32, pid: number as u32 as i32 }
    }
}

/// One that is told.
#[derive(Debug)]
struct Subscription {
    who: Who,
    /// `None`: all that its process has made known.
    key: Option<Key>,
    tag: u32,
    events: u32,
    queue: Queue,
    /// It has been answered: what follows is events.
    active: bool,
    blocked: bool,
}

/// What came of telling one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// All that there is is told.
    Done,
    /// The rest is told when it has read some.
    Blocked,
    /// Nothing will follow, or nothing can.
    Over,
}

/// Events that may wait here: of one connection, of many.
const FEW: usize = 64;
const MANY: usize = 4096;
/// In the kernel, in bytes, of one connection: two or three dozen.
const BUFFER: i32 = 16 << 10;
/// Subscriptions to one socket: each event of it is sent so often.
const EACH: usize = 16;

/// All of them.
#[derive(Debug, Default)]
pub struct Subscriptions {
    all: HashMap<ClientId, Subscription>,
    by_key: HashMap<Key, usize>,
    /// Those that are about all that a process has made known.
    by_process: HashMap<Who, Vec<ClientId>>,
}

impl Subscriptions {
    /// Takes one in; it is told nothing before [`Subscriptions::activate`].
    /// EDQUOT where as many ask the same.
    #[expect(clippy::too_many_arguments, reason = "all that a subscription is")]
    pub fn add(
        &mut self,
        id: ClientId,
        fd: &OwnedFd,
        who: Who,
        key: Option<Key>,
        many: bool,
        tag: u32,
        events: u32,
    ) -> Result<(), Error> {
        if self.all.contains_key(&id) {
            return Err(Error::new(libc::EINVAL, "one subscription on a connection to the broker"));
        }
        let count = match key {
            Some(key) => self.by_key.get(&key).copied().unwrap_or(0),
            None => self.by_process.get(&who).map_or(0, Vec::len),
        };
        if count >= EACH {
            return Err(Error::new(libc::EDQUOT, format!("{EACH} subscriptions to the same at most")));
        }
        match key {
            Some(key) => *self.by_key.entry(key).or_default() += 1,
            None => self.by_process.entry(who).or_default().push(id),
        }
        if !many {
            let _ = sockopt::set_int(fd.as_fd(), libc::SOL_SOCKET, libc::SO_SNDBUF, BUFFER);
        }
        let queue = Queue::new(if many { MANY } else { FEW });
        let subscription = Subscription { who, key, tag, events, queue, active: false, blocked: false };
        self.all.insert(id, subscription);
        Ok(())
    }

    /// It is gone; whose it was, if it was one.
    pub fn remove(&mut self, id: ClientId) -> Option<Who> {
        let gone = self.all.remove(&id)?;
        match gone.key {
            Some(key) => {
                if let Some(count) = self.by_key.get_mut(&key) {
                    *count -= 1;
                    if *count == 0 {
                        self.by_key.remove(&key);
                    }
                }
            }
            None => {
                if let Some(ids) = self.by_process.get_mut(&gone.who) {
                    ids.retain(|known| *known != id);
                    if ids.is_empty() {
                        self.by_process.remove(&gone.who);
                    }
                }
            }
        }
        Some(gone.who)
    }

    /// Whether this client is one.
    pub fn has(&self, id: ClientId) -> bool {
        self.all.contains_key(&id)
    }

    /// Whether this client waits to be able to read more.
    pub fn is_blocked(&self, id: ClientId) -> bool {
        self.all.get(&id).is_some_and(|subscription| subscription.blocked)
    }

    /// Whether this client is told of events, and says nothing any more.
    pub fn is_active(&self, id: ClientId) -> bool {
        self.all.get(&id).is_some_and(|subscription| subscription.active)
    }

    /// Whether somebody of this process asks about all that it makes known.
    pub fn is_wide(&self, who: Who) -> bool {
        self.by_process.contains_key(&who)
    }

    /// Whether a connection is this process's, by who owns it and who asked
    /// about it.
    pub fn is_mine(&self, who: Who, owner: Option<Who>, to: &[ClientId]) -> bool {
        owner == Some(who) || to.iter().any(|id| self.all.get(id).is_some_and(|s| s.who == who))
    }

    /// It has been answered.
    pub fn activate(&mut self, id: ClientId) {
        if let Some(subscription) = self.all.get_mut(&id) {
            subscription.active = true;
        }
    }

    /// Takes something to tell; whom it concerns is to be told.
    pub fn take(&mut self, tiding: Tiding, owner: Option<Who>) -> Vec<ClientId> {
        let Tiding { mut to, only, event, whose, .. } = tiding;
        if !only && !self.by_process.is_empty() {
            let asked = to.iter().filter_map(|id| Some(self.all.get(id)?.who));
            let mut processes: Vec<Who> = asked.chain(owner).chain(whose.map(Who::from_number)).collect();
            processes.sort_unstable_by_key(|who| who.number());
            processes.dedup();
            to.extend(processes.iter().filter_map(|who| self.by_process.get(who)).flatten());
        }
        to.retain(|id| {
            let Some(subscription) = self.all.get_mut(id) else { return false };
            match event {
                Tells::Event(event) if subscription.events & event.what.bit() == 0 => return false,
                Tells::Event(event) => subscription.queue.push(event),
                Tells::Doubt(time) => subscription.queue.doubt(time),
                Tells::End => subscription.queue.end(),
            }
            true
        });
        to
    }

    /// Tells one what waits for it, as far as that can be done at once.
    pub fn tell(&mut self, id: ClientId, fd: &OwnedFd) -> Flow {
        let Some(subscription) = self.all.get_mut(&id) else { return Flow::Done };
        if !subscription.active {
            return Flow::Done;
        }
        subscription.blocked = false;
        loop {
            let (told, last) = match subscription.queue.peek() {
                Next::Nothing => return Flow::Done,
                Next::Event(event) => (Told::Happened(event), false),
                Next::End => (Told::Over, true),
            };
            let Ok(bytes) = wire::encode(&Reply { tag: subscription.tag, told }) else { return Flow::Over };
            match unix::send(fd.as_fd(), &bytes, None, true) {
                Ok(()) if last => return Flow::Over,
                Ok(()) => drop(subscription.queue.pop()),
                Err(Errno(libc::EAGAIN | libc::ENOBUFS)) => {
                    subscription.blocked = true;
                    return Flow::Blocked;
                }
                Err(_) => return Flow::Over,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mptcpapi::engine::Time;
    use mptcpapi::events::{ALL, Event, What};

    /// A line to the broker, its end first.
    fn pair(name: &str) -> (OwnedFd, OwnedFd) {
        let name = format!("@mptcpapid-test-{}-{name}", std::process::id());
        let listener = unix::listen(name.as_ref(), 0o600).unwrap();
        let line = unix::connect(name.as_ref()).unwrap();
        assert!(unix::is_connected_to(line.as_fd(), name.as_ref()));
        assert!(!unix::is_connected_to(line.as_fd(), format!("{name}x").as_ref()));
        (unix::accept(listener.as_fd()).unwrap(), line)
    }

    fn tiding(to: Vec<ClientId>, connection: u32) -> Tiding {
        let event = Tells::Event(Event::new(What::Up, connection, Time::ZERO));
        Tiding { to, key: Key::default(), whose: None, only: false, event }
    }

    fn read(fd: &OwnedFd) -> Option<Event> {
        let mut buffer = [0; wire::LIMIT];
        let received = unix::receive(fd.as_fd(), &mut buffer, true).ok()?;
        match wire::decode::<Reply>(buffer.get(..received.len)?).unwrap().told {
            Told::Happened(event) => Some(event),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn events_go_to_the_process_that_they_concern() {
        let mut subscriptions = Subscriptions::default();
        let (fd, _peer) = pair("process");
        let (a, b) = (Who { uid: 1, pid: 10 }, Who { uid: 2, pid: 10 });
        let key = Key { cookie: 5, inode: 6 };
        subscriptions.add(1, &fd, a, None, true, 0, ALL).unwrap();
        subscriptions.add(2, &fd, b, None, true, 0, ALL).unwrap();
        subscriptions.add(3, &fd, b, Some(key), false, 0, What::Down.bit()).unwrap();
        assert_eq!(subscriptions.take(tiding(vec![], 7), Some(a)), [1]);
        assert_eq!(subscriptions.take(tiding(vec![], 7), Some(b)), [2]);
        assert_eq!(subscriptions.take(tiding(vec![], 7), None), [0; 0]);
        // One of a process asks about it: so all of it concerns that process.
        assert_eq!(subscriptions.take(tiding(vec![3], 7), None), [2]);
        assert_eq!((subscriptions.remove(2), subscriptions.remove(2)), (Some(b), None));
        assert_eq!(subscriptions.take(tiding(vec![3], 7), Some(b)), [0; 0]);
        assert!(!subscriptions.is_wide(b) && subscriptions.is_wide(a));
        for id in 4..4 + EACH as u64 - 1 {
            subscriptions.add(id, &fd, a, Some(key), false, 0, ALL).unwrap();
        }
        assert_eq!(
            subscriptions.add(99, &fd, a, Some(key), false, 0, ALL).unwrap_err().errno(),
            libc::EDQUOT
        );
    }

    #[test]
    fn one_that_does_not_read_is_told_how_many_it_missed() {
        let mut subscriptions = Subscriptions::default();
        let (fd, peer) = pair("slow");
        subscriptions.add(1, &fd, Who { uid: 1, pid: 1 }, Some(Key::default()), false, 9, ALL).unwrap();
        assert_eq!(subscriptions.take(tiding(vec![1], 0), None), [1]);
        assert_eq!(subscriptions.tell(1, &fd), Flow::Done);
        assert_eq!(read(&peer), None, "nothing before the answer");
        subscriptions.activate(1);
        for connection in 1..1000 {
            subscriptions.take(tiding(vec![1], connection), None);
            subscriptions.tell(1, &fd);
        }
        assert!(subscriptions.is_blocked(1));
        let mut expected = 0;
        while expected < 1000 {
            while let Some(event) = read(&peer) {
                assert!(
                    event.what == What::Overflow || event.connection == expected,
                    "{event:?}, {expected}"
                );
                expected += event.lost.max(1);
            }
            subscriptions.tell(1, &fd);
        }
        assert_eq!(expected, 1000);
        assert!(!subscriptions.is_blocked(1));
    }
}
