// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients, their questions, and what they may: the broker between its
//! programs and the manager. Nothing here waits or takes a socket's lock, and
//! nothing that came from outside is closed here: that is what tasks are for.

use crate::crew::{Crew, Late, NOBODY};
use crate::journal::{Item, Journal, Owner, Past};
use crate::links::Links;
use crate::log::log;
use crate::policy::Policy;
use crate::subscriptions::{Flow, Subscriptions, Who};
use crate::turns::Turns;
use crate::warden::Windows;
use mptcpapi::engine::{self, Key, Phase};
use mptcpapi::events;
use mptcpapi::kernel::latch::Fault;
use mptcpapi::kernel::{sockopt, unix};
use mptcpapi::manager::{
    self, Call, CallId, Found, Hands, Job, Lane, Leave, Manager, Roll, Servers, Service,
};
use mptcpapi::stream::{self, Socket};
use mptcpapi::wire::{self, Ask, Reply, Request, Told};
use mptcpapi::{Errno, Error};
use nix::sys::epoll::{Epoll, EpollEvent, EpollFlags};
use nix::sys::eventfd::EventFd;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

type Time = Duration;
type ClientId = u64;

/// What a thread is to do.
pub enum Task {
    /// A manager's job.
    Job {
        /// Which.
        job: Box<Job>,
        /// The descriptor of the call that it is part of.
        fd: Option<Arc<OwnedFd>>,
        /// For whom.
        user: u32,
        /// The cookie of the socket that it is about.
        socket: Option<u64>,
        /// Where the call's socket is to be noted first, which can wait for who
        /// looks at the others there.
        roll: Option<(Arc<Roll>, Key)>,
    },
    /// Close descriptors that came from outside; then an answer can be given.
    Close(u32, Vec<OwnedFd>, Option<Box<Parting>>),
}

/// What a client is told once its descriptor is closed here: who then closes
/// its own has closed the socket, and its port is free.
pub struct Parting {
    client: ClientId,
    tag: u32,
    told: Told,
}

/// A call that has ended.
pub struct Ended {
    user: u32,
    fd: Arc<OwnedFd>,
    parting: Parting,
}

impl Ended {
    /// Closes the descriptor, which can wait.
    pub fn close(self) -> Parting {
        self.parting
    }
}

impl Task {
    /// For whom it is done.
    pub fn user(&self) -> u32 {
        match self {
            Self::Job { user, .. } | Self::Close(user, ..) => *user,
        }
    }

    /// The socket whose lock it may have to wait for.
    pub fn socket(&self) -> Option<u64> {
        match self {
            Self::Job { socket, .. } => *socket,
            Self::Close(..) => None,
        }
    }
}

/// A connection of a program.
struct Client {
    fd: OwnedFd,
    uid: u32,
    pid: i32,
    /// Its sockets that are not connected yet, and some that were not.
    waiting: HashSet<Key>,
    /// Looked through when they are so many.
    tidy_at: usize,
}

impl Client {
    /// Forgets those of its sockets that are connected or gone: what is
    /// somebody's and no connection is waited for.
    fn tidy(&mut self, manager: &Manager, owners: &HashMap<u64, Owner>) {
        self.waiting.retain(|key| match manager.engine().by_key(key) {
            Some(c) => c.phase == Phase::Prepared,
            None => owners.contains_key(&key.cookie),
        });
        self.tidy_at = 64 + 2 * self.waiting.len();
    }
}

/// A question that is being answered.
struct Pending {
    client: ClientId,
    tag: u32,
    fd: Arc<OwnedFd>,
    key: Key,
    uid: u32,
    deadline: Time,
    /// It waits for the network.
    long: bool,
    /// Where the socket is to be noted.
    roll: Option<Arc<Roll>>,
}

#[derive(Default)]
struct User {
    clients: u32,
    sockets: u32,
    /// Questions of it that are being answered, with a descriptor each.
    calls: usize,
    /// Descriptors of it that wait to be closed.
    scrap: usize,
    /// Requests left, and when that was.
    tokens: f64,
    counted: Time,
}

impl User {
    /// Whether its clients are: each message can bring descriptors.
    fn is_heard(&self, share: usize) -> bool {
        self.scrap < SCRAP && self.calls + self.scrap < share
    }
}

/// What a broker begins with.
pub struct Start {
    /// The namespace's.
    pub manager: Manager,
    /// For looks that take no lock.
    pub look: Hands,
    /// Who may what.
    pub policy: Policy,
    /// Reads it again.
    pub reread: Box<dyn Fn() -> Result<Policy, String> + Send>,
    /// Where clients come.
    pub listener: OwnedFd,
    /// SIGTERM, SIGINT, SIGHUP.
    pub signals: SignalFd,
    /// What is to last, and what there was.
    pub journal: Option<(Journal, Past)>,
    /// Tells brokers of one namespace apart.
    pub name: u16,
}

/// The broker.
pub struct Broker {
    /// Who is at what.
    pub crew: Crew,
    manager: Manager,
    look: Hands,
    links: Links,
    policy: Policy,
    reread: Box<dyn Fn() -> Result<Policy, String> + Send>,
    epoll: Arc<Epoll>,
    listener: OwnedFd,
    signals: SignalFd,
    rouse: EventFd,
    windows: Arc<Windows>,
    clients: HashMap<ClientId, Client>,
    subscriptions: Subscriptions,
    numbers: ClientId,
    users: HashMap<u32, User>,
    /// Whose a socket is, from the first request to its end, by cookie.
    owners: HashMap<u64, Owner>,
    journal: Option<Journal>,
    noted_held: Option<String>,
    /// Sockets not connected whose client is gone, since when.
    orphans: HashMap<Key, (i32, Time)>,
    /// Sockets that are not connected, of users who have many: no event tells
    /// that such a one is closed, nor of a connection that ends before its
    /// begin is read whose it was.
    rolls: HashMap<Key, Arc<Roll>>,
    calls: HashMap<CallId, Pending>,
    /// Those that were given up and whose descriptor a task still has: their
    /// users.
    left: HashMap<CallId, u32>,
    deadlines: BTreeSet<(Time, CallId)>,
    /// Clients that have said something.
    calling: Turns<ClientId>,
    tasks: Turns<Task>,
    /// Jobs that nobody waits for: looks.
    chores: Turns<Task>,
    /// What is to be closed, when nothing better is to be done.
    rubbish: Turns<Task>,
    taken: u64,
    /// Descriptors that this process may have.
    room: usize,
    /// Those among them that wait to be closed.
    scrap: usize,
    /// Nobody is accepted before.
    admit_at: Option<Time>,
    /// When it was last told that there is no room.
    complained: Option<Time>,
    /// When the leader looks again by itself.
    until: Option<Time>,
    swept: Time,
}

/// How long a question may take; the library waits a second.
const PATIENCE: Time = Time::from_millis(900);
const SWEEP: Time = Time::from_secs(5);
const LISTENER: u64 = 0;
const SIGNALS: u64 = 1;
const ROUSE: u64 = 2;
const EVENTS: u64 = 3;
const LINKS: u64 = 4;
/// Accepted at a time.
const ACCEPT: usize = 64;
/// Messages read at a time.
const HEED: usize = 64;
/// How long, at a time: what has been asked is to be done too.
const HEED_TIME: Time = Time::from_millis(2);
/// Descriptors of a user that may wait to be closed.
const SCRAP: usize = 256;
/// This part of the sockets that a user may have is many.
const MANY: u32 = 4;
/// Subflows of a user that may be waited for: each takes a descriptor here.
const WAITING: usize = 32;
/// How long nobody is accepted where there is no room.
const PAUSE: Time = Time::from_millis(100);

impl Broker {
    /// A broker on these; all is watched from now on.
    pub fn new(start: Start, epoll: Arc<Epoll>) -> Result<Self, Error> {
        let Start { manager, look, policy, reread, listener, signals, journal, name } = start;
        let failed = |errno: nix::Error| Error::kernel(Errno(errno as i32), "watching descriptors");
        let rouse = EventFd::from_value_and_flags(
            0,
            nix::sys::eventfd::EfdFlags::EFD_CLOEXEC | nix::sys::eventfd::EfdFlags::EFD_NONBLOCK,
        )
        .map_err(failed)?;
        let links = Links::open()?;
        let readable = |data| EpollEvent::new(EpollFlags::EPOLLIN, data);
        epoll.add(&listener, readable(LISTENER)).map_err(failed)?;
        epoll.add(&signals, readable(SIGNALS)).map_err(failed)?;
        epoll.add(&rouse, readable(ROUSE)).map_err(failed)?;
        epoll.add(manager.event_fd(), readable(EVENTS)).map_err(failed)?;
        epoll.add(&links, readable(LINKS)).map_err(failed)?;
        let mut broker = Self {
            crew: Crew::default(),
            manager,
            look,
            links,
            policy,
            reread,
            epoll,
            listener,
            signals,
            rouse,
            windows: Arc::new(Windows::new(name)),
            clients: HashMap::new(),
            subscriptions: Subscriptions::default(),
            numbers: 16,
            users: HashMap::new(),
            owners: HashMap::new(),
            journal: None,
            noted_held: None,
            orphans: HashMap::new(),
            rolls: HashMap::new(),
            calls: HashMap::new(),
            left: HashMap::new(),
            deadlines: BTreeSet::new(),
            calling: Turns::default(),
            tasks: Turns::default(),
            chores: Turns::default(),
            rubbish: Turns::default(),
            taken: 0,
            room: getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(soft, _)| soft as usize),
            scrap: 0,
            admit_at: None,
            complained: None,
            until: None,
            swept: Manager::now(),
        };
        broker.links.look(&mut broker.manager);
        let windows = broker.windows();
        broker.look.latch().watch(windows);
        if let Some((journal, past)) = journal {
            broker.recall(past);
            broker.journal = Some(journal);
        }
        // One that died before it could note what it had done.
        if broker.manager.held().is_none()
            && let Ok(held) = broker.look.latch().held()
        {
            broker.manager.set_held(held);
        }
        broker.manager.watch_changes();
        broker.manage();
        broker.serve_others();
        Ok(broker)
    }

    /// Puts the namespace in userspace mode where the policy says so. What a
    /// broker before this one has found is what it goes back to.
    fn manage(&mut self) {
        if !self.policy.manage {
            return;
        }
        match self.look.latch().hold() {
            Ok(Some(original)) => self.manager.set_held(Some(original)),
            Ok(None) => {}
            Err(fault) => log!(Error, "userspace mode: {fault:?}"),
        }
    }

    /// Takes up what a broker before this one knew.
    fn recall(&mut self, past: Past) {
        let now = Manager::now();
        if !past.items.is_empty() {
            log!(Notice, "taking up {} sockets from before", past.items.len());
        }
        if past.held.is_some()
            && let Err(fault) = self.look.latch().hold()
        {
            log!(Error, "userspace mode, for server lists: {fault:?}");
        }
        self.manager.set_held(past.held);
        for item in past.items {
            let key = item.saved.key;
            if let Some(owner) = item.owner
                && self.owners.insert(key.cookie, owner).is_none()
            {
                self.users.entry(owner.uid).or_default().sockets += 1;
            }
            if item.saved.initial.is_none() {
                self.orphans.insert(key, (item.owner.map_or(0, |owner| owner.pid), now));
            }
            self.manager.restore(item.saved, item.prepared);
        }
    }

    /// Puts the namespace back to what it was. The journal stays: a broker that
    /// starts again goes on where this one stopped.
    pub fn stop(&mut self) {
        self.flush();
        // Also what a thread has done that is not back to tell.
        let held = self.manager.held().map(str::to_owned);
        let held = held.or_else(|| self.look.latch().held().ok().flatten());
        if let Some(original) = held
            && self.look.latch().unhold(&original).is_err()
        {
            log!(Error, "the network namespace could not be put back to path manager {original}");
        }
    }

    /// Notes in the journal what is to be known of a socket after a restart.
    fn note(&mut self, key: &Key) {
        let Some(journal) = &mut self.journal else { return };
        match self.manager.save(key) {
            Some((saved, prepared)) => {
                journal.put(Item { saved, prepared, owner: self.owners.get(&key.cookie).copied() });
            }
            None => journal.gone(*key),
        }
    }

    /// Writes what was noted; before anybody is told that it is so.
    pub fn flush(&mut self) {
        let Some(journal) = &mut self.journal else { return };
        if !journal.flush() {
            return;
        }
        let keys: Vec<Key> = self.manager.engine().connections().map(|c| c.key).collect();
        let items: Vec<Item> = keys
            .iter()
            .filter_map(|key| {
                let (saved, prepared) = self.manager.save(key)?;
                Some(Item { saved, prepared, owner: self.owners.get(&key.cookie).copied() })
            })
            .collect();
        if let Err(words) = journal.rewrite(items.iter(), self.manager.held()) {
            log!(Error, "{words}");
        }
    }

    /// Who closes windows that stay open.
    pub fn windows(&self) -> Arc<Windows> {
        Arc::clone(&self.windows)
    }

    /// Something was to be done sooner than the leader thinks.
    pub fn is_sooner(&self) -> bool {
        match (self.due(), self.until) {
            (Some(due), Some(until)) => due < until,
            (Some(_), None) => true,
            _ => false,
        }
    }

    /// Wakes the leader.
    pub fn rouse(&self) {
        let _ = self.rouse.write(1);
    }

    fn due(&self) -> Option<Time> {
        if self.has_callers() {
            return Some(Time::ZERO);
        }
        let call = self.deadlines.first().map(|(at, _)| *at);
        let sweep = Some(self.swept + SWEEP);
        let engine = self.manager.next_timeout();
        [call, sweep, engine, self.admit_at].into_iter().flatten().min()
    }

    /// How long the leader may wait.
    pub fn timeout(&mut self) -> Option<Time> {
        let now = Manager::now();
        self.until = self.due();
        self.until.map(|until| until.saturating_sub(now))
    }

    /// The next task that may begin.
    pub fn next_task(&mut self) -> Option<Task> {
        self.fill();
        let room = |user| self.crew.has_room(user);
        self.taken += 1;
        // Now and then the others, whatever there is to do.
        let first = match self.taken % 16 {
            0 => self.rubbish.pop(room),
            4 | 8 | 12 => self.chores.pop(room),
            _ => None,
        };
        first
            .or_else(|| self.tasks.pop(room))
            .or_else(|| self.chores.pop(room))
            .or_else(|| self.rubbish.pop(room))
    }

    /// Whether there is one.
    pub fn has_tasks(&mut self) -> bool {
        self.fill();
        let room = |user| self.crew.has_room(user);
        self.tasks.any(room) || self.chores.any(room) || self.rubbish.any(room)
    }

    /// Takes the manager's jobs.
    fn fill(&mut self) {
        while let Some(job) = self.manager.poll_job(true) {
            let mut pending = job.call.and_then(|id| self.calls.get_mut(&id));
            let roll = pending.as_mut().and_then(|pending| Some((pending.roll.take()?, pending.key)));
            let pending = pending.map(|pending| &*pending);
            let fd = pending.map(|pending| Arc::clone(&pending.fd));
            let key = match (pending, job.lane) {
                (Some(pending), _) => Some(pending.key),
                (None, Lane::Socket(key)) => Some(key),
                (None, Lane::Connection(token)) => self.manager.engine().by_token(token).map(|c| c.key),
                (None, Lane::Rolls(_) | Lane::Namespace) => None,
            };
            let socket = key.map(|key| key.cookie);
            let owner = socket.and_then(|cookie| self.owners.get(&cookie)).map(|owner| owner.uid);
            let user = match (pending, job.lane) {
                (Some(pending), _) => pending.uid,
                (None, Lane::Connection(token)) => owner.unwrap_or_else(|| self.user_behind(token)),
                (None, Lane::Rolls(user)) => user,
                (None, _) => owner.unwrap_or(NOBODY),
            };
            let queue = if job.work.is_look() { &mut self.chores } else { &mut self.tasks };
            queue.push(user, Task::Job { job: Box::new(job), fd, user, socket, roll });
        }
    }

    /// How many clients there can be. One user leaves an eighth to others.
    fn places(&self) -> usize {
        self.room / 8 * 5
    }

    /// Whose a connection is that nobody has asked anything for: whoever holds
    /// it can keep the thread that looks at it.
    fn user_behind(&mut self, token: u32) -> u32 {
        let subscriber = self.manager.subscriber(token).and_then(|id| self.clients.get(&id));
        match subscriber {
            Some(client) => client.uid,
            None => self.manager.holder(token).map_or(NOBODY, |uid| self.policy.owner(uid)),
        }
    }

    /// Has descriptors closed that came from outside.
    fn scrap(&mut self, user: u32, fds: Vec<OwnedFd>) {
        self.count_scrap(user, fds.len());
        self.rubbish.push(user, Task::Close(user, fds, None));
    }

    /// Has a descriptor closed, then the answer given. Where all threads that
    /// the user may have are busy it is given now.
    fn part(&mut self, user: u32, fd: OwnedFd, parting: Parting) {
        if !self.crew.has_room(user) {
            self.give(&parting);
            return self.scrap(user, vec![fd]);
        }
        self.count_scrap(user, 1);
        self.tasks.push(user, Task::Close(user, vec![fd], Some(Box::new(parting))));
    }

    fn count_scrap(&mut self, user: u32, count: usize) {
        self.scrap += count;
        self.users.entry(user).or_default().scrap += count;
    }

    /// Gives an answer.
    pub fn give(&mut self, parting: &Parting) {
        self.answer(parting.client, parting.tag, &parting.told);
    }

    /// They are closed.
    pub fn scrapped(&mut self, user: u32, count: usize) {
        self.scrap = self.scrap.saturating_sub(count);
        if let Some(user) = self.users.get_mut(&user) {
            user.scrap = user.scrap.saturating_sub(count);
        }
    }

    /// The next client to be heard. One of a user whose descriptors can't be
    /// closed has to wait for that: each message can bring many more.
    fn next_caller(&mut self) -> Option<ClientId> {
        let (users, full, share) = (&self.users, self.is_full(), self.share());
        self.calling.pop(|user| !full && users.get(&user).is_none_or(|user| user.is_heard(share)))
    }

    fn has_callers(&self) -> bool {
        let (users, share) = (&self.users, self.share());
        let heard = |user| users.get(&user).is_none_or(|user: &User| user.is_heard(share));
        !self.is_full() && self.calling.any(heard)
    }

    /// Descriptors of sockets take a quarter of all that there may be.
    fn is_full(&self) -> bool {
        self.calls.len() + self.scrap >= self.room / 4
    }

    /// How many of them can be one user's, who leaves an eighth to others.
    fn share(&self) -> usize {
        self.room / 4 / 8 * 7
    }

    fn owner(&self, cookie: u64) -> u32 {
        self.owners.get(&cookie).map_or(NOBODY, |owner| owner.uid)
    }

    /// Takes what has happened.
    pub fn turn(&mut self, events: &[EpollEvent]) {
        let mut happened = false;
        for event in events {
            match event.data() {
                LISTENER => self.admit(),
                SIGNALS => self.signalled(),
                ROUSE => drop(self.rouse.read()),
                EVENTS => happened = true,
                LINKS => self.links.read(&mut self.manager),
                client => {
                    self.tell(client);
                    if let Some(uid) = self.clients.get(&client).map(|client| client.uid) {
                        self.calling.push(uid, client);
                    }
                }
            }
        }
        let until = Manager::now() + HEED_TIME;
        for _ in 0..HEED {
            let Some(client) = self.next_caller() else { break };
            self.heed(client);
            if Manager::now() >= until {
                break;
            }
        }
        if happened {
            self.manager.step();
        } else {
            self.manager.tick();
        }
        self.tell_subscribers();
        for Ended { user, fd, parting } in self.finish_calls() {
            match Arc::try_unwrap(fd) {
                Ok(fd) => self.part(user, fd, parting),
                // A thread has it still, which then closes it.
                Err(_) => self.give(&parting),
            }
        }
        let now = Manager::now();
        if self.admit_at.is_some_and(|at| at <= now) {
            self.admit_at = None;
            let mut event = EpollEvent::new(EpollFlags::EPOLLIN, LISTENER);
            let _ = self.epoll.modify(&self.listener, &mut event);
        }
        self.expire(now);
        if now.saturating_sub(self.swept) >= SWEEP {
            self.swept = now;
            self.sweep(now);
        }
    }

    /// Takes what came of a job; which calls have ended by it. Their
    /// descriptors are to be closed, away from here, and the answers given.
    pub fn report(&mut self, lane: Lane, call: Option<CallId>, found: Found) -> Vec<Ended> {
        let closed = match &found {
            Found::Closed { keys, .. } => keys.clone(),
            _ => Vec::new(),
        };
        self.manager.report(lane, call, found);
        self.tell_subscribers();
        for key in closed {
            let waits = self.manager.engine().by_key(&key).is_none_or(|c| c.phase == Phase::Prepared);
            if self.rolls.remove(&key).is_some() && waits {
                self.forget(key);
            }
        }
        self.finish_calls()
    }

    fn signalled(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            match Signal::try_from(signal.ssi_signo as i32) {
                Ok(Signal::SIGHUP) => self.reread(),
                _ => self.crew.done = true,
            }
        }
    }

    /// A new policy counts for what is asked from now on.
    fn reread(&mut self) {
        match (self.reread)() {
            Ok(policy) => {
                self.policy = policy;
                self.manage();
                self.serve_others();
                log!(Notice, "the policy was read again");
            }
            Err(words) => log!(Error, "the policy stays as it was: {words}"),
        }
    }

    /// Leaves those who connect where they are for a while.
    fn admit_nobody(&mut self, why: &str) {
        let now = Manager::now();
        let mut nothing = EpollEvent::new(EpollFlags::empty(), LISTENER);
        if self.epoll.modify(&self.listener, &mut nothing).is_ok() {
            self.admit_at = Some(now + PAUSE);
        }
        if self.complained.is_none_or(|at| now.saturating_sub(at) >= Time::from_secs(60)) {
            self.complained = Some(now);
            log!(Warning, "no client can be accepted: {why}");
        }
    }

    fn admit(&mut self) {
        for _ in 0..ACCEPT {
            if self.clients.len() >= self.places() || self.is_full() {
                return self.admit_nobody("this process has as many clients as it can");
            }
            let fd = match unix::accept(self.listener.as_fd()) {
                Ok(fd) => fd,
                Err(Errno(libc::EAGAIN)) => return,
                Err(errno) => return self.admit_nobody(&errno.to_string()),
            };
            let Ok(mut who) = unix::credentials(fd.as_fd()) else { continue };
            who.uid = self.policy.owner(who.uid);
            let rights = self.policy.rights(who.uid);
            let most = (rights.clients as usize).min(self.places() / 8 * 7);
            let user = self.users.entry(who.uid).or_default();
            if !rights.allow || user.clients as usize >= most {
                let many = "this user has too many connections to the broker";
                let many = || Told::Refused { errno: libc::EDQUOT, words: many.into() };
                say(&fd, 0, &if rights.allow { many() } else { not_allowed() });
                // Closing it can wait for what is in its queue.
                if !unix::drain(fd.as_fd()) {
                    self.scrap(who.uid, vec![fd]);
                }
                continue;
            }
            self.numbers += 1;
            let id = self.numbers;
            if self.epoll.add(&fd, EpollEvent::new(listen_once(), id)).is_err() {
                self.scrap(who.uid, vec![fd]);
                continue;
            }
            user.clients += 1;
            self.clients
                .insert(id, Client { fd, uid: who.uid, pid: who.pid, waiting: HashSet::new(), tidy_at: 64 });
        }
    }

    /// Reads one message of a client. It is not listened to again until that
    /// is answered.
    fn heed(&mut self, id: ClientId) {
        let Some(client) = self.clients.get(&id) else { return };
        let uid = client.uid;
        let mut buffer = [0u8; wire::LIMIT + 1];
        let mut received = match unix::receive(client.fd.as_fd(), &mut buffer, true) {
            Ok(received) if received.len > 0 => received,
            Err(Errno(libc::EAGAIN)) => return self.listen_to(id),
            _ => return self.dismiss(id),
        };
        let fds = std::mem::take(&mut received.fds);
        if !self.policy.rights(uid).allow {
            // The policy has changed since it came.
            if let Some(client) = self.clients.get(&id) {
                say(&client.fd, 0, &not_allowed());
            }
            self.scrap(uid, fds);
            return self.dismiss(id);
        }
        if self.subscriptions.is_active(id) {
            // It has nothing to say.
            if !fds.is_empty() {
                self.scrap(uid, fds);
            }
            return self.dismiss(id);
        }
        let bytes = buffer.get(..received.len).unwrap_or_default();
        let request = if received.truncated { Err(wire::Flaw::Shape) } else { wire::decode(bytes) };
        let well = match &request {
            Ok(Request { ask, .. }) => fds.len() == usize::from(ask.wants_descriptor()),
            Err(_) => false,
        };
        match request {
            Ok(Request { tag, ask }) if well => {
                let refused = match fds.into_iter().next() {
                    Some(fd) => self.asked(id, uid, tag, ask, fd),
                    None => {
                        let told = self.told(id, uid, tag, ask);
                        self.answer(id, tag, &told);
                        None
                    }
                };
                if let Some((error, fd)) = refused {
                    self.part(uid, fd, Parting { client: id, tag, told: Told::from(Err(error)) });
                }
            }
            _ => {
                let words = match request {
                    Err(wire::Flaw::Version) => "the broker does not speak this version of the protocol",
                    _ if received.fds_lost => "the broker has no room for a descriptor",
                    _ => "the broker does not understand this message",
                };
                if let Some(client) = self.clients.get(&id) {
                    let errno = if received.fds_lost { libc::ENFILE } else { libc::EPROTO };
                    say(&client.fd, 0, &Told::Refused { errno, words: words.into() });
                }
                if !fds.is_empty() {
                    self.scrap(uid, fds);
                }
                self.dismiss(id);
            }
        }
    }

    /// What is asked without a socket.
    fn told(&mut self, id: ClientId, uid: u32, tag: u32, ask: Ask) -> Told {
        match ask {
            Ask::SubscribeAll { events } => match self.subscribe_all(id, uid, tag, events) {
                Ok(()) => Told::Done,
                Err(error) => Told::from(Err(error)),
            },
            Ask::Closed(keys) => {
                // What has connected meanwhile goes on: others may have it.
                self.manager.step();
                let closed = keys.into_iter().map(Key::from).filter(|key| {
                    let waits = |c: &mptcpapi::engine::Connection| c.phase == Phase::Prepared;
                    let waits = self.manager.engine().by_key(key).is_none_or(waits);
                    waits && self.owner(key.cookie) == uid
                });
                let closed: HashSet<Key> = closed.collect();
                let others = self.others_with(&closed, self.who(id));
                for key in closed {
                    if let Some(client) = self.clients.get_mut(&id) {
                        client.waiting.remove(&key);
                    }
                    match others.get(&key) {
                        // Another program has it, and keeps it.
                        Some(other) => {
                            self.owners.insert(key.cookie, Owner { uid, pid: *other });
                            self.note(&key);
                        }
                        None => self.forget(key),
                    }
                }
                self.notice_changes();
                self.flush();
                Told::Done
            }
            _ => {
                let servers = self.policy.rights(uid).servers || self.look.userspace_mode();
                Told::Welcome {
                    namespace: self.manager.namespace(),
                    switch: self.look.switchable().is_ok(),
                    listen: servers,
                }
            }
        }
    }

    /// What is asked of a socket. A refusal gives the descriptor back.
    fn asked(
        &mut self,
        id: ClientId,
        uid: u32,
        tag: u32,
        mut ask: Ask,
        fd: OwnedFd,
    ) -> Option<(Error, OwnedFd)> {
        let key = match self.examine(uid, &mut ask, &fd) {
            Ok(key) => key,
            Err(error) => return Some((error, fd)),
        };
        let call = match ask {
            Ask::Disconnected => {
                self.manager.note_unswitched(&key);
                self.note(&key);
                None
            }
            Ask::Forget => {
                self.forget(key);
                self.notice_changes();
                None
            }
            Ask::Subscribe { events } => match self.subscribe(id, uid, key, &fd, tag, events) {
                Ok(call) => Some(call),
                Err(error) => return Some((error, fd)),
            },
            ask => match ask.into_call() {
                Some(Ok(call)) => Some(call),
                Some(Err(error)) => return Some((error, fd)),
                None => None,
            },
        };
        let Some(call) = call else {
            self.flush();
            self.part(uid, fd, Parting { client: id, tag, told: Told::Done });
            return None;
        };
        if let (Call::BeforeConnect(_), Some(who)) = (&call, self.who(id))
            && self.subscriptions.is_wide(who)
        {
            self.manager.expect(key, who.number());
        }
        let fresh = !call.is_query() && !self.owners.contains_key(&key.cookie);
        if !call.is_query()
            && let Err(error) = self.register(id, uid, key)
        {
            return Some((error, fd));
        }
        let patience = call.patience();
        let long = call.is_long();
        if long && self.calls.values().filter(|pending| pending.long && pending.uid == uid).count() >= WAITING
        {
            let words = "this user waits for too many subflows at once: wait for events instead";
            return Some((Error::new(libc::EDQUOT, words), fd));
        }
        let rights = self.policy.rights(uid);
        let servers = if rights.servers { Servers::Allowed } else { Servers::Forbidden };
        let local = match &call {
            Call::Ask(engine::Request::Add(entries)) => {
                entries.iter().all(|entry| self.links.has(&entry.addr))
            }
            _ => false,
        };
        let fate_sharing = rights.fate_sharing;
        let owner = self.owners.get(&key.cookie).map(|owner| Who { uid: owner.uid, pid: owner.pid });
        let owner = owner == self.who(id);
        let leave = Leave { servers, peers: rights.peers, local, owner, fate_sharing };
        let deadline = Manager::now() + PATIENCE + patience;
        let number = self.manager.call(key, call, leave);
        self.deadlines.insert((deadline, number));
        let roll = if fresh { self.roll(uid, key) } else { None };
        let fd = Arc::new(fd);
        self.users.entry(uid).or_default().calls += 1;
        self.calls.insert(number, Pending { client: id, tag, fd, key, uid, deadline, long, roll });
        None
    }

    /// Whether this may be asked of this descriptor, by looks that take no
    /// lock.
    fn examine(&mut self, uid: u32, ask: &mut Ask, fd: &OwnedFd) -> Result<Key, Error> {
        Socket::of(fd.as_fd())?;
        match sockopt::netns_cookie(fd.as_fd()) {
            Ok(namespace) if namespace != self.manager.namespace() && self.manager.namespace() != 0 => {
                return Err(Error::new(
                    libc::EOPNOTSUPP,
                    "the socket belongs to another network namespace than the broker's",
                ));
            }
            _ => {}
        }

        let key = stream::key_of(fd.as_fd())?;
        if let Some(Late::Held(_)) = self.crew.stuck(uid) {
            return Err(held_up());
        }
        self.charge(uid)?;
        let rights = self.policy.rights(uid);
        let forbidden = |addr: &std::net::SocketAddr, what: &str| {
            Error::new(libc::EACCES, format!("the broker's policy forbids this user to {what} {}", addr.ip()))
        };
        if let Ask::Add(entries) = ask {
            let listens = || sockopt::get_int(fd.as_fd(), libc::SOL_SOCKET, libc::SO_ACCEPTCONN) == Ok(1);
            for entry in entries {
                let ip = entry.addr.ip().to_canonical();
                let interface = self.links.holder(&entry.addr);
                if entry.subflow && !rights.may_use(ip, interface) {
                    return Err(forbidden(&entry.addr, "use"));
                }
                if entry.advertise && !rights.may_advertise(ip, interface) {
                    if !entry.subflow || listens() {
                        return Err(forbidden(&entry.addr, "advertise"));
                    }
                    // A client's list need not be advertised.
                    entry.advertise = false;
                }
            }
        }
        if let Ask::Open { local: Some(local), .. } = ask
            && !rights.may_use(local.ip().to_canonical(), self.links.holder(local))
        {
            return Err(forbidden(local, "use"));
        }
        Ok(key)
    }

    /// Takes one request from what this user may make in a second.
    fn charge(&mut self, uid: u32) -> Result<(), Error> {
        let rate = f64::from(self.policy.rights(uid).requests);
        let now = Manager::now();
        let user = self.users.entry(uid).or_default();
        if user.counted.is_zero() {
            (user.tokens, user.counted) = (2.0 * rate, now);
        }
        let passed = now.saturating_sub(user.counted).as_secs_f64();
        user.tokens = (user.tokens + passed * rate).min(2.0 * rate);
        user.counted = now;
        if user.tokens < 1.0 {
            return Err(Error::new(
                libc::EDQUOT,
                "this user makes more requests than the broker's policy allows",
            ));
        }
        user.tokens -= 1.0;
        Ok(())
    }

    /// Notes whose socket it is.
    fn register(&mut self, id: ClientId, uid: u32, key: Key) -> Result<(), Error> {
        let Some(client) = self.clients.get_mut(&id) else {
            return Err(Error::new(libc::EIO, "the client is gone"));
        };
        if !self.owners.contains_key(&key.cookie) {
            let limit = self.policy.rights(uid).sockets;
            let user = self.users.entry(uid).or_default();
            if user.sockets >= limit {
                return Err(Error::new(
                    libc::EDQUOT,
                    format!("this user has {limit} sockets under the broker's control, as many as it may"),
                ));
            }
            user.sockets += 1;
            self.owners.insert(key.cookie, Owner { uid, pid: client.pid });
        }
        if client.waiting.len() >= client.tidy_at {
            client.tidy(&self.manager, &self.owners);
        }
        client.waiting.insert(key);
        self.orphans.remove(&key);
        Ok(())
    }

    /// The roll for a socket whose user has many: he is to have room as soon as
    /// some are closed. Others do without, and the library tells.
    fn roll(&mut self, uid: u32, key: Key) -> Option<Arc<Roll>> {
        let sockets = self.users.get(&uid).map_or(0, |user| user.sockets);
        if sockets <= self.policy.rights(uid).sockets / MANY {
            return None;
        }
        let roll = self.manager.roll(uid);
        self.rolls.insert(key, Arc::clone(&roll));
        Some(roll)
    }

    /// What has ended.
    fn finish_calls(&mut self) -> Vec<Ended> {
        let mut ended = Vec::new();
        while let Some((number, result)) = self.manager.outcome() {
            let Some(pending) = self.take_call(number) else { continue };
            self.deadlines.remove(&(pending.deadline, number));
            self.note(&pending.key);
            ended.push((pending, result));
        }
        self.notice_changes();
        if !ended.is_empty() {
            self.flush();
        }
        for (pending, _) in &ended {
            self.release_unknown(&pending.key);
        }
        let ended = ended.into_iter().map(|(Pending { client, tag, fd, uid, .. }, result)| {
            let parting = Parting { client, tag, told: Told::from(result) };
            Ended { user: uid, fd, parting }
        });
        ended.collect()
    }

    fn take_call(&mut self, number: CallId) -> Option<Pending> {
        let pending = self.calls.remove(&number)?;
        if let Some(user) = self.users.get_mut(&pending.uid) {
            user.calls = user.calls.saturating_sub(1);
        }
        Some(pending)
    }

    /// Gives up what takes too long.
    fn expire(&mut self, now: Time) {
        while let Some((at, number)) = self.deadlines.first().copied()
            && at <= now
        {
            self.deadlines.pop_first();
            self.manager.abandon(number);
            let Some(pending) = self.take_call(number) else { continue };
            let error = match (self.crew.at(pending.key.cookie), self.crew.stuck(pending.uid)) {
                (Some(Late::Barred), _) | (None, Some(Late::Barred)) => manager::fault(Fault::Locked),
                (None, Some(Late::Held(_))) => held_up(),
                _ => Error::new(libc::EIO, "the socket does not answer: it may be busy in another call"),
            };
            self.answer(pending.client, pending.tag, &Told::from(Err(error)));
            self.release_unknown(&pending.key);
            self.discard(number, pending.uid, pending.fd);
        }
    }

    /// Has the descriptor of a call that was given up closed. Where a task has it
    /// still, that does; until then it counts.
    fn discard(&mut self, call: CallId, user: u32, fd: Arc<OwnedFd>) {
        match Arc::try_unwrap(fd) {
            Ok(fd) => self.scrap(user, vec![fd]),
            Err(_) => {
                self.count_scrap(user, 1);
                self.left.insert(call, user);
            }
        }
    }

    /// The task of a call is done, and the call's descriptor closed if it was
    /// given up.
    pub fn left(&mut self, call: Option<CallId>) {
        if let Some(user) = call.and_then(|call| self.left.remove(&call)) {
            self.scrapped(user, 1);
        }
    }

    fn answer(&mut self, id: ClientId, tag: u32, told: &Told) {
        let Some(client) = self.clients.get(&id) else { return };
        // One that doesn't read its answers is none.
        if !say(&client.fd, tag, told) {
            return self.dismiss(id);
        }
        if self.subscriptions.has(id) {
            if *told == Told::Done {
                self.subscriptions.activate(id);
            } else {
                self.unsubscribe(id);
            }
        }
        self.listen_to(id);
        self.tell(id);
    }

    /// Which of these sockets other programs than this one have asked for, and
    /// wait for; one program each.
    fn others_with(&self, keys: &HashSet<Key>, who: Option<Who>) -> HashMap<Key, i32> {
        let others = |client: &&Client| Some(Who { uid: client.uid, pid: client.pid }) != who;
        let of = |client: &'_ Client| {
            let pid = client.pid;
            client.waiting.intersection(keys).map(move |key| (*key, pid)).collect::<Vec<_>>()
        };
        if keys.is_empty() {
            return HashMap::new();
        }
        self.clients.values().filter(others).flat_map(of).collect()
    }

    fn who(&self, id: ClientId) -> Option<Who> {
        self.clients.get(&id).map(|client| Who { uid: client.uid, pid: client.pid })
    }

    /// A client is to be told of what happens to a socket: the call that looks
    /// at it.
    fn subscribe(
        &mut self,
        id: ClientId,
        uid: u32,
        key: Key,
        fd: &OwnedFd,
        tag: u32,
        events: u32,
    ) -> Result<Call, Error> {
        let Some(client) = self.clients.get(&id) else {
            return Err(Error::new(libc::EIO, "the client is gone"));
        };
        let listens = sockopt::get_int(fd.as_fd(), libc::SOL_SOCKET, libc::SO_ACCEPTCONN) == Ok(1);
        let who = Who { uid, pid: client.pid };
        self.subscriptions.add(id, &client.fd, who, Some(key), listens, tag, events)?;
        let roll = self.manager.roll(uid);
        Ok(Call::Subscribe { id, current: events & events::CURRENT != 0, roll })
    }

    /// A client is to be told of all that its process has made known.
    fn subscribe_all(&mut self, id: ClientId, uid: u32, tag: u32, events: u32) -> Result<(), Error> {
        self.charge(uid)?;
        let Some(client) = self.clients.get(&id) else {
            return Err(Error::new(libc::EIO, "the client is gone"));
        };
        let who = Who { uid, pid: client.pid };
        self.subscriptions.add(id, &client.fd, who, None, true, tag, events)?;
        let (subscriptions, owners) = (&self.subscriptions, &self.owners);
        self.manager.subscribe_all(id, events & events::CURRENT != 0, |key, whose, to| {
            let owner = owners.get(&key.cookie).map(|owner| Who { uid: owner.uid, pid: owner.pid });
            subscriptions.is_mine(who, owner, to) || whose == Some(who.number())
        });
        self.tell_subscribers();
        Ok(())
    }

    fn unsubscribe(&mut self, id: ClientId) {
        let Some(who) = self.subscriptions.remove(id) else { return };
        self.manager.unsubscribe(id);
        if !self.subscriptions.is_wide(who) {
            self.manager.expect_no_more(who.number());
        }
    }

    /// Gives what there is to tell to those who asked.
    fn tell_subscribers(&mut self) {
        let mut touched = BTreeSet::new();
        while let Some(tiding) = self.manager.poll_tiding() {
            let owner = self.owners.get(&tiding.key.cookie);
            let owner = owner.map(|owner| Who { uid: owner.uid, pid: owner.pid });
            touched.extend(self.subscriptions.take(tiding, owner));
        }
        for id in touched {
            self.tell(id);
        }
    }

    /// Tells a client what waits for it.
    fn tell(&mut self, id: ClientId) {
        let Some(client) = self.clients.get(&id) else { return };
        let was_blocked = self.subscriptions.is_blocked(id);
        match self.subscriptions.tell(id, &client.fd) {
            Flow::Done => {}
            Flow::Blocked if was_blocked => {}
            Flow::Blocked => self.listen_to(id),
            Flow::Over => self.dismiss(id),
        }
    }

    fn listen_to(&mut self, id: ClientId) {
        let Some(client) = self.clients.get(&id) else { return };
        let mut flags = listen_once();
        if self.subscriptions.is_blocked(id) {
            flags |= EpollFlags::EPOLLOUT;
        }
        let mut event = EpollEvent::new(flags, id);
        if self.epoll.modify(&client.fd, &mut event).is_err() {
            self.dismiss(id);
        }
    }

    /// A client is gone, or sent away.
    fn dismiss(&mut self, id: ClientId) {
        let Some(mut client) = self.clients.remove(&id) else { return };
        client.tidy(&self.manager, &self.owners);
        self.unsubscribe(id);
        let _ = self.epoll.delete(&client.fd);
        if let Some(user) = self.users.get_mut(&client.uid) {
            user.clients = user.clients.saturating_sub(1);
        }
        let now = Manager::now();
        self.orphans.extend(client.waiting.into_iter().map(|key| (key, (client.pid, now))));
        self.scrap(client.uid, vec![client.fd]);
    }

    /// Sees to what the engine has changed.
    fn notice_changes(&mut self) {
        let mut held = self.manager.held().map(str::to_owned);
        if held != self.noted_held {
            if let Some(journal) = &mut self.journal {
                journal.held(held.as_deref());
            }
            std::mem::swap(&mut self.noted_held, &mut held);
        }
        while let Some(key) = self.manager.poll_changed() {
            self.note(&key);
            match self.manager.engine().by_key(&key).map(|c| c.phase) {
                None => self.release(&key),
                Some(Phase::Open) => {
                    self.orphans.remove(&key);
                    self.rolls.remove(&key);
                }
                Some(Phase::Prepared) => {}
            }
        }
    }

    /// A socket starts afresh or is gone, whatever was known of it: where that
    /// was only that it was switched, the engine tells of no change.
    fn forget(&mut self, key: Key) {
        self.manager.forget(key);
        self.release(&key);
    }

    /// A call has ended: where nothing came of it the socket is nobody's.
    fn release_unknown(&mut self, key: &Key) {
        if self.manager.engine().by_key(key).is_none() && !self.manager.prepared(key).switched {
            self.release(key);
        }
    }

    /// A socket is nobody's any more; where something is being asked of it, not
    /// before that is answered.
    fn release(&mut self, key: &Key) {
        self.orphans.remove(key);
        if self.manager.engine().knows_cookie(key.cookie)
            || self.calls.values().any(|pending| pending.key.cookie == key.cookie)
        {
            return;
        }
        self.rolls.remove(key);
        // Its end is its owner's to hear of.
        self.tell_subscribers();
        if let Some(owner) = self.owners.remove(&key.cookie)
            && let Some(user) = self.users.get_mut(&owner.uid)
        {
            user.sockets = user.sockets.saturating_sub(1);
        }
    }

    /// In userspace mode the in-kernel path manager serves nobody: so we do in
    /// its place. Else only those that a switch has caught.
    fn serve_others(&mut self) {
        // What a window of ours makes it say is not for all.
        let userspace = || self.windows.unless_open(|| self.look.userspace_mode()).unwrap_or(false);
        let all = self.policy.manage || self.manager.held().is_some() || userspace();
        self.manager.serve(if all { Service::All } else { Service::Strays });
    }

    /// Forgets unconnected sockets whose programs are gone: who asked last, who
    /// asked first, and any other that asked. Somebody has a listening one, who
    /// need not have asked.
    fn forget_orphans(&mut self, now: Time) {
        let grace = self.policy.grace;
        let first = |key: &Key| self.owners.get(&key.cookie).is_some_and(|owner| alive(owner.pid));
        let late = |(key, (pid, since)): &(&Key, &(i32, Time))| {
            now.saturating_sub(*since) >= grace && !alive(*pid) && !first(key)
        };
        let gone: HashSet<Key> = self.orphans.iter().filter(late).map(|(key, _)| *key).collect();
        if gone.is_empty() {
            return;
        }
        let others = self.others_with(&gone, None);
        let Some(listening) = self.manager.listening() else { return };
        for key in gone {
            if !others.contains_key(&key) && !listening.contains(&key.cookie) {
                self.forget(key);
            }
        }
    }

    /// Forgets sockets whose program is gone, connected or not.
    fn sweep(&mut self, now: Time) {
        if !self.policy.manage {
            self.manager.end_hold();
        }
        self.serve_others();
        match self.windows.cut() {
            0 => {}
            cut => {
                log!(Info, "{cut} switches of the path manager took over a millisecond and were done again")
            }
        }
        self.forget_orphans(now);
        self.notice_changes();
        for client in self.clients.values_mut() {
            client.tidy(&self.manager, &self.owners);
        }
        self.users.retain(|_, user| {
            user.clients > 0
                || user.sockets > 0
                || user.calls > 0
                || user.scrap > 0
                || now.saturating_sub(user.counted) < Time::from_secs(10)
        });
    }
}

fn alive(pid: i32) -> bool {
    use nix::sys::signal::kill;
    // EPERM: it is there, and somebody else's.
    pid > 0 && kill(nix::unistd::Pid::from_raw(pid), None) != Err(nix::Error::ESRCH)
}

fn listen_once() -> EpollFlags {
    EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT
}

/// Why a user is served no more who has all the threads that it may have.
fn held_up() -> Error {
    Error::new(libc::EDQUOT, "a socket of this user holds the broker up: nothing more until it lets go")
}

/// There is no broker for this user.
fn not_allowed() -> Told {
    Told::Refused { errno: libc::EACCES, words: "the broker's policy lets this user do nothing".into() }
}

/// Sends a reply; whether that was possible.
fn say(fd: &OwnedFd, tag: u32, told: &Told) -> bool {
    let reply = Reply { tag, told: told.clone() };
    wire::encode(&reply).is_ok_and(|bytes| unix::send(fd.as_fd(), &bytes, None, true).is_ok())
}
