// SPDX-License-Identifier: MIT OR Apache-2.0
//! The descriptors by which a process that has the direct backend learns that
//! there is something to do.
//!
//! Each is an epoll descriptor: it fits into poll(2), select(2) and other
//! epolls, and needs nobody to write to it when the kernel has something to
//! tell. It knows the manager's event socket and timer, and an eventfd that is
//! readable for ever, which it watches while there is something to be read.
//!
//! Waking every one of thousands for each event would take the kernel
//! milliseconds (and it allows 500), so that the event socket is watched by
//! those [`LEADERS`] only that were used last. Whoever serves one of them
//! serves all: what is there for others makes theirs readable.

use crate::error::{Errno, KernelResult};
use crate::kernel::poll;
use std::collections::{HashMap, HashSet, VecDeque};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

/// So many watch the event socket; the same number shares an eventfd.
pub const LEADERS: usize = 32;

/// Names a descriptor of this module; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Name {
    slot: u32,
    generation: u32,
}

/// What is readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// The eventfd: something is to be read.
    Ready,
    /// The event socket, or the timer: something is to be done.
    Work,
}

impl Name {
    /// As a number.
    pub fn id(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot)
    }

    /// From such a number.
    pub fn from_id(id: u64) -> Self {
        Self { slot: id as u32, generation: (id >> 32) as u32 }
    }

    fn data(self, part: Part) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.slot) << 1 | u64::from(part == Part::Work)
    }

    fn of(data: u64) -> (Self, Part) {
        let part = if data & 1 == 1 { Part::Work } else { Part::Ready };
        (Self { slot: (data as u32) >> 1, generation: (data >> 32) as u32 }, part)
    }
}

#[derive(Debug)]
struct Slot {
    generation: u32,
    /// The number it was last used by: the application may close it and never
    /// says so.
    number: RawFd,
    ready: bool,
}

/// What a descriptor shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shown {
    /// Whose it is; `None` where nothing is readable, so that it can't be told.
    pub name: Option<Name>,
    /// The event socket or the timer is readable.
    pub work: bool,
}

/// Looks at a descriptor, without knowing whose it is: EINVAL where it is none
/// of this module's kind.
pub fn look(fd: BorrowedFd<'_>) -> KernelResult<Shown> {
    let (found, len) = poll::look(fd)?;
    let mut shown = Shown { name: None, work: false };
    for data in found.iter().take(len) {
        let (name, part) = Name::of(*data);
        shown.name = Some(name);
        shown.work |= part == Part::Work;
    }
    Ok(shown)
}

/// Whose a descriptor can be, by what it watches.
pub fn names(fd: BorrowedFd<'_>) -> Vec<Name> {
    let known = poll::numbers(fd.as_raw_fd()).unwrap_or_default();
    known.into_iter().map(|data| Name::of(data).0).collect()
}

/// All of one namespace.
#[derive(Debug)]
pub struct Watchers {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    by_number: HashMap<RawFd, u32>,
    generation: u32,
    /// For every [`LEADERS`] slots.
    always: Vec<OwnedFd>,
    /// Those that watch the event socket, the one used last behind.
    leaders: VecDeque<u32>,
    timer: Option<OwnedFd>,
    timer_at: Option<Duration>,
    sweep_at: usize,
    closed: Vec<Name>,
}

impl Watchers {
    /// None yet. `seed` makes their names unlike those of others.
    pub fn new(seed: u64) -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            by_number: HashMap::new(),
            generation: (seed ^ seed >> 32) as u32,
            always: Vec::new(),
            leaders: VecDeque::new(),
            timer: None,
            timer_at: None,
            sweep_at: 64,
            closed: Vec::new(),
        }
    }

    /// How many there are, closed ones that nobody told of included.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Makes one that watches this event socket.
    pub fn open(&mut self, events: BorrowedFd<'_>) -> KernelResult<(Name, OwnedFd)> {
        let fd = poll::epoll()?;
        if self.timer.is_none() {
            self.timer = Some(poll::timer()?);
        }
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.slots.len()).map_err(|_| Errno(libc::ENOMEM))?;
                if self.slots.len() == self.always.len() * LEADERS {
                    self.always.push(poll::always()?);
                }
                self.slots.push(None);
                slot
            }
        };
        self.generation = self.generation.wrapping_add(1);
        let name = Name { slot, generation: self.generation };
        let number = fd.as_raw_fd();
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Some(Slot { generation: name.generation, number, ready: false });
        }
        self.found_at(name, number);
        let watched = match self.always.get(slot as usize / LEADERS) {
            Some(always) => poll::watch(number, always.as_fd(), false, name.data(Part::Ready)),
            None => Err(Errno(libc::EMFILE)),
        };
        match watched.and_then(|()| self.lead(name, fd.as_fd(), events)) {
            Ok(()) => Ok((name, fd)),
            Err(errno) => {
                self.close(name);
                Err(errno)
            }
        }
    }

    /// One that was found closed.
    pub fn poll_closed(&mut self) -> Option<Name> {
        self.closed.pop()
    }

    fn names(&self) -> Vec<Name> {
        let name =
            |(slot, at): (u32, &Option<Slot>)| Some(Name { slot, generation: at.as_ref()?.generation });
        (0u32..).zip(&self.slots).filter_map(name).collect()
    }

    fn get(&self, name: Name) -> Option<&Slot> {
        self.slots.get(name.slot as usize)?.as_ref().filter(|slot| slot.generation == name.generation)
    }

    fn get_mut(&mut self, name: Name) -> Option<&mut Slot> {
        self.slots.get_mut(name.slot as usize)?.as_mut().filter(|slot| slot.generation == name.generation)
    }

    /// Whether it is one of these.
    pub fn has(&self, name: Name) -> bool {
        self.get(name).is_some()
    }

    /// The one that has this number.
    pub fn at(&self, number: RawFd) -> Option<Name> {
        let slot = *self.by_number.get(&number)?;
        let generation = self.slots.get(slot as usize)?.as_ref()?.generation;
        // It can be another descriptor's by now.
        let always = self.always.get(slot as usize / LEADERS)?;
        poll::knows(number, always.as_fd()).then_some(Name { slot, generation })
    }

    /// The same, if it is as unreadable as it has shown.
    pub fn idle_at(&self, number: RawFd) -> Option<Name> {
        self.at(number).filter(|name| self.get(*name).is_some_and(|slot| !slot.ready))
    }

    /// Forgets the one that had this number, if it is another descriptor's now.
    pub fn lose(&mut self, number: RawFd) {
        if self.at(number).is_none()
            && let Some(slot) = self.by_number.remove(&number)
        {
            self.vacate(slot);
        }
    }

    /// Notes that the descriptor with this number is this one.
    fn found_at(&mut self, name: Name, number: RawFd) {
        let Some(slot) = self.get_mut(name) else { return };
        let old = std::mem::replace(&mut slot.number, number);
        if old != number && self.by_number.get(&old) == Some(&name.slot) {
            self.by_number.remove(&old);
        }
        if let Some(other) = self.by_number.insert(number, name.slot).filter(|other| *other != name.slot) {
            // That has been closed.
            self.vacate(other);
        }
    }

    /// Has one watch the event socket, in place of the one that was used
    /// longest ago. `fd` is known to be this one.
    fn lead(&mut self, name: Name, fd: BorrowedFd<'_>, events: BorrowedFd<'_>) -> KernelResult<()> {
        if self.leaders.back() == Some(&name.slot) {
            return Ok(());
        }
        if let Some(at) = self.leaders.iter().position(|slot| *slot == name.slot) {
            self.leaders.remove(at);
            self.leaders.push_back(name.slot);
            return Ok(());
        }
        self.watch(name, fd.as_raw_fd(), events)?;
        if self.leaders.len() > LEADERS
            && let Some(last) = self.leaders.pop_front()
            && let Some(Some(slot)) = self.slots.get(last as usize)
        {
            self.unwatch(slot.number, events);
        }
        Ok(())
    }

    fn watch(&mut self, name: Name, number: RawFd, events: BorrowedFd<'_>) -> KernelResult<()> {
        poll::watch(number, events, true, name.data(Part::Work))?;
        if let Some(timer) = &self.timer {
            poll::watch(number, timer.as_fd(), true, name.data(Part::Work))?;
        }
        self.leaders.push_back(name.slot);
        Ok(())
    }

    /// A number that is not this module's any more knows neither descriptor.
    fn unwatch(&self, number: RawFd, events: BorrowedFd<'_>) {
        let _ = poll::unwatch(number, events);
        if let Some(timer) = &self.timer {
            let _ = poll::unwatch(number, timer.as_fd());
        }
    }

    /// Notes that it is being served; `fd` has shown this name.
    pub fn used(&mut self, name: Name, fd: BorrowedFd<'_>, events: BorrowedFd<'_>) {
        self.found_at(name, fd.as_raw_fd());
        let _ = self.lead(name, fd, events);
    }

    /// Makes it readable, or not, as far as it goes by what is to be read.
    pub fn set_ready(&mut self, name: Name, ready: bool) {
        let Some(slot) = self.get_mut(name).filter(|slot| slot.ready != ready) else { return };
        slot.ready = ready;
        let number = slot.number;
        if let Some(always) = self.always.get(name.slot as usize / LEADERS) {
            let _ = poll::change(number, always.as_fd(), ready, name.data(Part::Ready));
        }
    }

    /// When something is to be done though nothing is heard.
    pub fn set_timer(&mut self, at: Option<Duration>) {
        if self.timer_at != at
            && let Some(timer) = &self.timer
            && poll::set_timer(timer.as_fd(), at).is_ok()
        {
            self.timer_at = at;
        }
    }

    /// Forgets one; the descriptor itself is the application's.
    pub fn close(&mut self, name: Name) {
        if let Some(slot) = self.get(name) {
            let number = slot.number;
            if self.by_number.get(&number) == Some(&name.slot) {
                self.by_number.remove(&number);
            }
            self.vacate(name.slot);
        }
    }

    fn vacate(&mut self, slot: u32) {
        if let Some(place) = self.slots.get_mut(slot as usize)
            && let Some(gone) = place.take()
        {
            self.free.push(slot);
            self.closed.push(Name { slot, generation: gone.generation });
        }
        self.leaders.retain(|leader| *leader != slot);
    }

    /// Forgets those that were closed, now and then.
    pub fn sweep(&mut self) {
        if self.len() < self.sweep_at {
            return;
        }
        let Some(open) = poll::epolls() else {
            self.sweep_at += 64;
            return;
        };
        let mut alive = HashSet::new();
        for (number, known) in open {
            for (name, _) in known.into_iter().map(Name::of) {
                if self.has(name) && alive.insert(name) {
                    self.found_at(name, number);
                }
            }
        }
        for name in self.names() {
            if !alive.contains(&name) {
                self.close(name);
            }
        }
        self.sweep_at = 64 + 2 * self.len();
    }

    /// Goes on with another event socket, after the program has closed
    /// descriptors that it doesn't know: the old ones are given up.
    pub fn renew(&mut self, events: BorrowedFd<'_>) -> KernelResult<()> {
        let fresh = poll::timer()?;
        std::mem::forget(self.timer.replace(fresh));
        self.timer_at = None;
        for always in &mut self.always {
            let fresh = poll::always()?;
            std::mem::forget(std::mem::replace(always, fresh));
        }
        self.leaders.clear();
        for name in self.names() {
            let Some(slot) = self.get_mut(name) else { continue };
            let (number, ready) = (slot.number, slot.ready);
            // One of ours knows nothing else, and perhaps nothing any more.
            let ours = |known: Vec<u64>| known.into_iter().all(|data| Name::of(data).0 == name);
            let ours = poll::numbers(number).is_some_and(ours);
            if !ours {
                self.close(name);
                continue;
            }
            if let Some(always) = self.always.get(name.slot as usize / LEADERS) {
                let _ = poll::watch(number, always.as_fd(), ready, name.data(Part::Ready));
            }
            if self.leaders.len() < LEADERS {
                self.watch(name, number, events)?;
            }
        }
        Ok(())
    }
}
