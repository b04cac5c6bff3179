// SPDX-License-Identifier: MIT OR Apache-2.0
//! Events (RFC 6897 REQ14): what happens to connections, told by a descriptor
//! that a program polls with its others.
//!
//! [`subscribe`] gives the descriptor. When it is readable, [`next`] gives one
//! event after the other, or [`dispatch`] all of them. Nothing is missed
//! silently: where events were lost, an [`What::Overflow`] stands in their
//! place.

use crate::error::{Error, Result};
use crate::path;
use crate::stream::Socket;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum What {
    /// A further subflow is established.
    SubflowUp,
    /// A subflow was closed, refused or given up.
    SubflowDown,
    /// A subflow is for backup, or not any more, by either side's wish.
    Priority,
    /// The peer announced an address.
    PeerAddr,
    /// The peer withdrew an address.
    PeerAddrGone,
    /// The connection is plain TCP now.
    Fallback,
    /// A connection is established; the subflow is its initial one.
    Up,
    /// A connection ended; its last event.
    Down,
    /// Something that was asked for and accepted can't be done (yet).
    RequestFailed,
    /// Events were lost here.
    Overflow,
}

impl What {
    /// Its bit in a mask, MPTCP_EV_* of the C interface.
    pub const fn bit(self) -> u32 {
        match self {
            Self::SubflowUp => 0x1,
            Self::SubflowDown => 0x2,
            Self::Priority => 0x4,
            Self::PeerAddr => 0x8,
            Self::PeerAddrGone => 0x10,
            Self::Fallback => 0x20,
            Self::Up => 0x40,
            Self::Down => 0x80,
            Self::RequestFailed => 0x100,
            Self::Overflow => 0x8000_0000,
        }
    }
}

/// Every event, those of later versions included.
pub const ALL: u32 = 0x0fff_ffff;
/// First tell what is there: an [`What::Up`], and a [`What::SubflowUp`] for
/// each further subflow.
pub const CURRENT: u32 = 0x4000_0000;

/// Who was the cause, as far as that is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Origin {
    /// It can't be told.
    #[default]
    Unknown,
    /// A call of this interface.
    App,
    /// The library, the broker, or the in-kernel path manager, by itself.
    Policy,
    /// The other end.
    Peer,
    /// Something between the two, or the loss of an address.
    Network,
}

/// Which subflow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pair {
    /// Canonical; `None` where it plays no part.
    #[serde(with = "crate::wire::scoped")]
    pub local: Option<SocketAddr>,
    /// Canonical.
    #[serde(with = "crate::wire::scoped")]
    pub remote: SocketAddr,
    /// The connection's first.
    pub initial: bool,
    /// Both wishes for backup are known: the next two.
    pub priority_known: bool,
    /// This end wants it for backup only.
    pub backup: bool,
    /// The peer wants it for backup only.
    pub peer_backup: bool,
}

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// What happened.
    pub what: What,
    /// To which connection: [`crate::connection_id`].
    pub connection: u32,
    /// When it was noticed, by CLOCK_MONOTONIC.
    pub time: Duration,
    /// To which subflow; of [`What::PeerAddr`] the remote address only.
    pub subflow: Option<Pair>,
    /// errno of a failure, 0 none.
    pub error: i32,
    /// Why the peer reset a subflow (RFC 8684 3.6), 0 not known.
    pub reset_reason: u32,
    /// The peer's id for an address that it announced or withdrew.
    pub addr_id: u8,
    /// Interface, 0 not known.
    pub ifindex: u32,
    /// Who was the cause.
    pub origin: Origin,
    /// How many were lost, 0 not known.
    pub lost: u32,
}

impl Event {
    /// One of this kind, nothing else known.
    pub fn new(what: What, connection: u32, time: Duration) -> Self {
        Self {
            what,
            connection,
            time,
            subflow: None,
            error: 0,
            reset_reason: 0,
            addr_id: 0,
            ifindex: 0,
            origin: Origin::Unknown,
            lost: 0,
        }
    }
}

/// What a subscription is about.
#[derive(Clone, Copy, Debug)]
pub enum About<'a> {
    /// One connection, or a socket still to be connected; of a listener every
    /// connection accepted from then on.
    Socket(BorrowedFd<'a>),
    /// All connections that this process has made known to the library.
    Process,
}

/// A descriptor that is readable when there is something to be read by [`next`],
/// or to be done by it. `events` are bits of [`What`], with [`CURRENT`] perhaps;
/// 0: nothing is told, but [`dispatch`] does what there is to do.
///
/// It is non-blocking and CLOEXEC, and fits into poll(2), select(2) and epoll.
/// Closing it is all that is needed to end the subscription.
pub fn subscribe(about: About<'_>, events: u32) -> Result<OwnedFd> {
    let socket = match about {
        About::Socket(fd) => Some(Socket::of(fd)?),
        About::Process => None,
    };
    if events & !(ALL | CURRENT | What::Overflow.bit()) != 0 {
        return Err(Error::new(libc::EINVAL, format!("events {events:#x}: a bit that is none")));
    }
    let control = match &socket {
        Some(socket) => path::control_of(socket)?,
        None => path::control()?,
    };
    control.subscribe(socket.as_ref(), events)
}

/// What a subscription has to tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// This.
    Event(Event),
    /// Nothing now.
    Nothing,
    /// Nothing any more.
    End,
}

/// The next event. EIO once when the broker has gone; EINVAL where the
/// descriptor is none of [`subscribe`]'s.
pub fn next(fd: impl AsFd) -> Result<Next> {
    path::next_event(fd.as_fd())
}

/// Does what there is to do and takes no event; costs next to nothing when that
/// is nothing.
pub fn serve(fd: impl AsFd) -> Result<()> {
    path::serve(fd.as_fd())
}

/// Does what there is to do, and gives each event to `tell` until there are no
/// more or it returns `false`. How many there were.
pub fn dispatch(fd: impl AsFd, mut tell: impl FnMut(&Event) -> bool) -> Result<usize> {
    let fd = fd.as_fd();
    let mut told = 0;
    loop {
        match next(fd) {
            Ok(Next::Event(event)) => {
                told += 1;
                if !tell(&event) {
                    return Ok(told);
                }
            }
            Ok(Next::Nothing | Next::End) => return Ok(told),
            Err(error) if told == 0 => return Err(error),
            // What was told counts; the error comes again.
            Err(_) => {
                path::untold(fd);
                return Ok(told);
            }
        }
    }
}

/// Events that wait to be read, no more than a certain number: for what doesn't
/// fit one [`What::Overflow`] stands in its place.
#[derive(Debug)]
pub struct Queue {
    events: VecDeque<Event>,
    limit: usize,
    ended: bool,
}

impl Queue {
    /// An empty one.
    pub fn new(limit: usize) -> Self {
        Self { events: VecDeque::new(), limit: limit.max(1), ended: false }
    }

    /// Appends an event.
    pub fn push(&mut self, event: Event) {
        if self.ended {
            return;
        }
        // The end of a connection is told in any case, behind what was lost.
        if self.events.len() < self.limit || (event.what == What::Down && self.events.len() <= self.limit + 1)
        {
            self.events.push_back(event);
            return;
        }
        match self.events.back_mut() {
            Some(last) if last.what == What::Overflow => {
                // 0: it is not known how many.
                if last.lost != 0 {
                    last.lost = last.lost.saturating_add(1);
                }
            }
            _ => {
                let lost = Event { lost: 1, ..Event::new(What::Overflow, 0, event.time) };
                self.events.push_back(lost);
            }
        }
    }

    /// Notes that events may have been lost, nobody knows how many.
    pub fn doubt(&mut self, time: Duration) {
        if self.ended {
            return;
        }
        match self.events.back_mut() {
            Some(last) if last.what == What::Overflow => last.lost = 0,
            _ => self.events.push_back(Event::new(What::Overflow, 0, time)),
        }
    }

    /// Nothing follows.
    pub fn end(&mut self) {
        self.ended = true;
    }

    /// Takes the first out.
    pub fn pop(&mut self) -> Next {
        match self.events.pop_front() {
            Some(event) => Next::Event(event),
            None if self.ended => Next::End,
            None => Next::Nothing,
        }
    }

    /// What is first.
    pub fn peek(&self) -> Next {
        match self.events.front() {
            Some(event) => Next::Event(*event),
            None if self.ended => Next::End,
            None => Next::Nothing,
        }
    }

    /// Whether there is something to be read; the end is.
    pub fn is_readable(&self) -> bool {
        self.ended || !self.events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn event(connection: u32) -> Event {
        Event::new(What::SubflowUp, connection, Duration::ZERO)
    }

    proptest! {
        /// Every event is told once and in order, or counted where it was lost;
        /// no more than the limit wait.
        #[test]
        fn all_is_told_or_counted(limit in 1usize..6, steps in proptest::collection::vec(any::<bool>(), 0..200)) {
            let mut queue = Queue::new(limit);
            let (mut pushed, mut expected) = (0u32, 0u32);
            let mut take = |queue: &mut Queue| match queue.pop() {
                Next::Event(Event { what: What::Overflow, lost, .. }) => {
                    assert!(lost > 0);
                    expected += lost;
                    true
                }
                Next::Event(event) => {
                    assert_eq!(event.connection, expected);
                    expected += 1;
                    true
                }
                _ => false,
            };
            for push in steps {
                if push {
                    queue.push(event(pushed));
                    pushed += 1;
                } else {
                    take(&mut queue);
                }
                prop_assert!(queue.events.len() <= limit + 1);
            }
            while take(&mut queue) {}
            prop_assert_eq!(expected, pushed);
            prop_assert!(!queue.is_readable());
        }
    }

    #[test]
    fn the_end_is_told_even_where_there_is_no_room() {
        let mut queue = Queue::new(1);
        queue.push(event(1));
        queue.push(event(2));
        queue.push(event(3));
        queue.push(Event::new(What::Down, 3, Duration::ZERO));
        queue.end();
        queue.push(event(4));
        let told: Vec<Next> = std::iter::repeat_with(|| queue.pop()).take(5).collect();
        let lost = |next: &Next| matches!(next, Next::Event(Event { what: What::Overflow, lost: 2, .. }));
        assert_eq!(told[0], Next::Event(event(1)));
        assert!(lost(&told[1]), "{told:?}");
        assert!(matches!(told[2], Next::Event(Event { what: What::Down, .. })));
        assert_eq!((&told[3], &told[4]), (&Next::End, &Next::End));
    }
}
