// SPDX-License-Identifier: MIT OR Apache-2.0
//! One network namespace's path manager: the engine joined to the kernel.
//!
//! It never waits and has no thread: whoever owns it steps it, whenever its
//! event socket is readable or a timer of the engine is due, and else when it
//! pleases. What can wait for a socket's lock it hands out as [`Job`]s, which
//! the owner has done by [`Hands`], on the spot or in a thread, and reports.

mod call;
mod hands;
mod rolls;
mod subscribers;

pub use call::{Answer, Call, Facts, Leave, Servers};
pub use hands::{CallId, Found, Hands, Job, Lane, Work};
pub use rolls::Roll;
pub use subscribers::{SubscriberId, Tiding, Told};

use crate::addr;
use crate::engine::{
    Action, Connection, Engine, Entry, Event, Key, Notice, Outcome, Phase, Request, RequestId, Saved, Seen,
    Settings, Time,
};
use crate::error::{Errno, Error, Result};
use crate::kernel::diag::Diag;
use crate::kernel::latch::Fault;
use crate::kernel::netlink::Refusal;
use crate::kernel::sockopt::Listed;
use crate::kernel::{pm, process, sockopt};
use crate::quick::{Map, Set};
use crate::stream::{Stage, is_up};
use call::{Asked, Settled, Sight};
use hands::{Census, Look};
use rolls::Rolls;
use std::collections::{HashSet, VecDeque};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use subscribers::Subscribers;

/// Who decides about a socket's paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// It can't be told.
    Unknown,
    /// The in-kernel path manager.
    Kernel,
    /// This library, for the one connection.
    Connection,
}

/// How the first subflow of a socket is to be bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// As it is: bound by the application, or free.
    AsIs,
    /// To one of these local addresses, best first.
    From(Vec<SocketAddr>),
}

/// What is done for connections that nobody asked for: what the in-kernel path
/// manager would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Service {
    /// Nothing.
    #[default]
    Claimed,
    /// Those that a switch has caught.
    Strays,
    /// All: the namespace is in userspace mode.
    All,
}

/// What was done to an unconnected socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Prepared {
    /// It is under the userspace path manager.
    pub switched: bool,
    /// It was never disconnected, which the kernel shows.
    pub virgin: bool,
    /// Where it comes to listen, the namespace may be put in userspace mode for
    /// its list.
    pub may_serve: bool,
}

/// A listening socket of our own, for joins only.
#[derive(Debug)]
struct JoinListener {
    socket: OwnedFd,
    addr: SocketAddr,
    /// SO_COOKIE of the application's socket that it serves.
    cookie: u64,
    /// Its own.
    own_cookie: u64,
}

/// An application's call that is under way.
#[derive(Debug)]
struct Calling {
    key: Key,
    call: Call,
    leave: Leave,
    adopted: bool,
    /// What connect(2) is to begin from can be told already.
    shown: bool,
    /// What we have bound the socket to.
    late: Option<SocketAddr>,
    /// The list to go back to, once the engine has been asked; what is left to
    /// do to a socket that is not connected.
    before: Option<Vec<Entry>>,
    /// Why it fails, while it is undone.
    failure: Option<Error>,
}

/// What waits in a lane. Calls are described when their turn comes: what is
/// known can change until then.
#[derive(Debug)]
enum Todo {
    Work(Work),
    Prepare(CallId),
    Settle(CallId),
    /// Tell a call's end: what it asked for has been carried out before.
    Finish(CallId, Result<Answer>),
}

/// Between two surveys: what changes during one takes another.
const SURVEY_PAUSE: Time = Time::from_millis(20);
/// For so long endpoints are taken to be what they were; nothing tells when
/// they change.
const ENDPOINTS_LAST: Time = Time::from_millis(10);
/// Between two looks at which sockets listen: whether our own are still of use
/// and, where the kernel doesn't tell, whether any has come or gone.
const JOINS_PAUSE: Time = Time::from_secs(1);

/// The path manager of one network namespace.
#[derive(Debug)]
pub struct Manager {
    namespace: u64,
    events: pm::Events,
    events_cookie: u64,
    /// For looks that take no lock.
    diag: Diag,
    diag_cookie: u64,
    engine: Engine,
    prepared: Map<Key, Prepared>,
    joins: Vec<JoinListener>,
    joins_checked: Time,
    /// The kernel tells of sockets that begin or cease to listen.
    tells_listeners: bool,
    calls: Map<CallId, Calling>,
    asking: Map<RequestId, CallId>,
    outcomes: VecDeque<(CallId, Result<Answer>)>,
    numbers: u64,
    lanes: Map<Lane, VecDeque<Todo>>,
    /// Lanes with something to do that nobody is at, in order.
    ready: VecDeque<Lane>,
    /// Those among them that take a thread of this namespace.
    away: Vec<Lane>,
    sweep_at: usize,
    /// Events were lost and not all has been looked at since.
    unsure: bool,
    surveying: bool,
    /// Not again before.
    survey_at: Time,
    /// Connections that something was heard of since the survey began.
    touched: Set<u32>,
    /// Those that the last step heard of: there just now.
    fresh: Set<u32>,
    /// The socket that was connected last, and its token: most often the next
    /// that is told of.
    connected: Option<(Key, u32)>,
    subscribers: Subscribers,
    rolls: Rolls,
    service: Service,
    /// When the in-kernel path manager's endpoints were looked at.
    endpoints_at: Option<Time>,
    /// What the namespace said before it was put in userspace mode.
    held: Option<String>,
}

impl Manager {
    /// Opens the calling thread's network namespace, whose cookie is
    /// `namespace` and whose path manager's family `family`. EPERM without
    /// CAP_NET_ADMIN over it; EOPNOTSUPP where the kernel can't show its
    /// Multipath TCP sockets.
    pub fn open(namespace: u64, family: pm::Family) -> Result<Self> {
        let events = pm::Events::open(family).map_err(|errno| match errno {
            Errno(libc::EPERM) => no_privilege(),
            _ => Error::kernel(errno, "listening to path-manager events"),
        })?;
        Self::with_events(namespace, events)
    }

    /// The same with an event socket that is there already.
    pub fn with_events(namespace: u64, events: pm::Events) -> Result<Self> {
        let cookie = |fd: BorrowedFd<'_>| {
            sockopt::cookie(fd).map_err(|e| Error::kernel(e, "asking a socket's cookie"))
        };
        let mut diag = Diag::open().map_err(|e| Error::kernel(e, "opening inet_diag"))?;
        // Without it no connection can be recognised, and none be controlled.
        if let Err(Refusal { errno: Errno(libc::ENOENT), .. }) = diag.listeners() {
            return Err(Error::new(
                libc::EOPNOTSUPP,
                "this kernel can't show its Multipath TCP sockets: CONFIG_INET_MPTCP_DIAG, module mptcp_diag",
            ));
        }
        let (events_cookie, diag_cookie) = (cookie(events.as_fd())?, cookie(diag.as_fd())?);
        Ok(Self {
            namespace,
            events,
            events_cookie,
            diag,
            diag_cookie,
            engine: Engine::default(),
            prepared: Map::default(),
            joins: Vec::new(),
            joins_checked: Time::ZERO,
            tells_listeners: process::release() >= Some((6, 2)),
            calls: Map::default(),
            asking: Map::default(),
            outcomes: VecDeque::new(),
            numbers: 0,
            lanes: Map::default(),
            ready: VecDeque::new(),
            away: Vec::new(),
            sweep_at: 64,
            unsure: false,
            surveying: false,
            survey_at: Time::ZERO,
            touched: Set::default(),
            fresh: Set::default(),
            connected: None,
            subscribers: Subscribers::default(),
            rolls: Rolls::default(),
            service: Service::Claimed,
            endpoints_at: None,
            held: None,
        })
    }

    /// Cookie of its network namespace.
    pub fn namespace(&self) -> u64 {
        self.namespace
    }

    /// What the engine knows and decides.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What the namespace said before a listener's list put it in userspace
    /// mode, if that is so.
    pub fn held(&self) -> Option<&str> {
        self.held.as_deref()
    }

    /// Ends userspace mode where no listener with a list is left.
    pub fn end_hold(&mut self) {
        let Some(original) = self.held.clone() else { return };
        let Ok(listeners) = self.diag.listeners() else { return };
        let listed =
            |cookie| self.engine.any(|c| c.key.cookie == cookie && c.listed && c.phase == Phase::Prepared);
        let asked = self.calls.values().any(|calling| matches!(calling.call, Call::Ask(Request::Add(_))));
        if !asked && !listeners.iter().any(|listener| listed(listener.cookie)) {
            self.submit(Lane::Namespace, Todo::Work(Work::Unhold(original)));
        }
    }

    /// What [`Manager::held`] tells, known from before a restart.
    pub fn set_held(&mut self, original: Option<String>) {
        self.held = original;
    }

    /// The cookies of the sockets that listen now, if they can be told.
    pub fn listening(&mut self) -> Option<HashSet<u64>> {
        Some(self.diag.listeners().ok()?.iter().map(|listener| listener.cookie).collect())
    }

    /// Whether all its descriptors are still the ones it opened: a program may
    /// close those that it doesn't know, all or some, and what has their
    /// numbers then must not be read, written or accepted from.
    pub fn intact(&self) -> bool {
        let own = |fd: BorrowedFd<'_>, cookie| sockopt::cookie(fd) == Ok(cookie);
        self.hears()
            && own(self.diag.as_fd(), self.diag_cookie)
            && self.joins.iter().all(|join| own(join.socket.as_fd(), join.own_cookie))
    }

    /// The same for the event socket alone.
    pub fn hears(&self) -> bool {
        sockopt::cookie(self.events.as_fd()) == Ok(self.events_cookie)
    }

    /// Opens everything anew and keeps what is known. The old descriptors are
    /// given up without closing them: the numbers are somebody else's now.
    pub fn renew(&mut self, family: pm::Family) -> Result<()> {
        let fresh = Self::open(self.namespace, family)?;
        std::mem::forget(std::mem::replace(&mut self.events, fresh.events));
        std::mem::forget(std::mem::replace(&mut self.diag, fresh.diag));
        std::mem::forget(std::mem::take(&mut self.joins));
        (self.events_cookie, self.diag_cookie) = (fresh.events_cookie, fresh.diag_cookie);
        // Nobody listened meanwhile.
        self.unsure = true;
        Ok(())
    }

    /// Readable when there is something to do.
    pub fn event_fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    /// The time as the engine counts it.
    pub fn now() -> Time {
        process::monotonic()
    }

    /// Events may have been missed: everything is to be looked at.
    pub fn doubt(&mut self) {
        self.unsure = true;
    }

    /// When to step again if nothing is heard before.
    pub fn next_timeout(&self) -> Option<Time> {
        let survey = (self.unsure && !self.surveying).then_some(self.survey_at);
        let looks = !self.joins.is_empty() || (!self.tells_listeners && self.cares_for_listeners());
        let joins = looks.then_some(self.joins_checked.saturating_add(JOINS_PAUSE));
        let looks = self.subscribers.next_timeout();
        let rolls = self.rolls.next_timeout();
        [survey, joins, looks, rolls, self.engine.next_timeout()].into_iter().flatten().min()
    }

    /// Reads what happened and decides.
    pub fn step(&mut self) {
        let mut heard = Vec::new();
        let overrun = self.events.drain(|event| heard.push(event)) == Err(Errno(libc::ENOBUFS));
        self.go_on(heard, overrun);
    }

    /// Decides where nothing has happened since [`Manager::step`].
    pub fn tick(&mut self) {
        self.go_on(Vec::new(), false);
    }

    fn go_on(&mut self, heard: Vec<pm::Event>, overrun: bool) {
        let mut listeners_changed = false;
        self.fresh.clear();
        for event in heard {
            self.fresh.extend(event.token());
            listeners_changed |=
                matches!(event, pm::Event::ListenerUp { .. } | pm::Event::ListenerDown { .. });
            self.translate(event);
            if self.surveying
                && let Some(token) = event.token().filter(|token| self.engine.by_token(*token).is_some())
            {
                self.touched.insert(token);
            }
        }
        let now = Self::now();
        if overrun {
            self.unsure = true;
            self.fresh.clear();
            self.subscribers.doubt(now);
        }
        for token in self.subscribers.due(now) {
            if let Some(key) = self.subscribers.key(token) {
                self.submit(Lane::Connection(token), Todo::Work(Work::Check { token, key }));
            }
        }
        for (user, rolls) in self.rolls.due(now) {
            self.submit(Lane::Rolls(user), Todo::Work(Work::Rolls { user, rolls }));
        }
        if self.unsure && !self.surveying && self.survey_at <= now {
            (self.unsure, self.surveying) = (false, true);
            self.survey_at = now.saturating_add(SURVEY_PAUSE);
            self.touched.clear();
            self.submit(Lane::Namespace, Todo::Work(Work::Survey));
        }
        self.engine.handle(Event::Tick, Self::now());
        self.run();
        self.tend_joins(listeners_changed || overrun);
    }

    fn tell(&mut self, event: Event) {
        self.engine.handle(event, Self::now());
    }

    /// Gives an event to the engine in its own words.
    fn translate(&mut self, event: pm::Event) {
        let seen = |pair: &pm::Pair, initial| Seen {
            local: scoped(pair.local, pair.ifindex),
            remote: scoped(pair.remote, pair.ifindex),
            local_id: pair.local_id,
            remote_id: pair.remote_id,
            up: true,
            initial,
            backup: None,
        };
        let key = match event {
            pm::Event::Created { token, server, .. } => self.awaited(token, server),
            _ => None,
        };
        self.subscribers.heard(&event, key, &self.engine, Self::now());
        match event {
            pm::Event::Created { token, pair, server } => {
                let initial = seen(&pair, true);
                match key.filter(|key| self.engine.knows_cookie(key.cookie)) {
                    Some(key) => {
                        // What it was made ready for has come. A listener goes on.
                        if !server {
                            self.prepared.remove(&key);
                        }
                        self.tell(Event::Created { token, key, initial, server });
                    }
                    None => self.strange(token, initial, server),
                }
            }
            pm::Event::Established { token } => self.tell(Event::Established { token }),
            pm::Event::Closed { token } => {
                if let Some(key) = self.engine.by_token(token).map(|c| c.key) {
                    self.prepared.remove(&key);
                }
                self.tell(Event::Closed { token });
            }
            pm::Event::Announced { token, id, addr } => self.tell(Event::Announced { token, id, addr }),
            pm::Event::Withdrawn { token, id } => self.tell(Event::Withdrawn { token, id }),
            pm::Event::SubflowUp { token, pair } => {
                let subflow = seen(&pair, false);
                self.tell(Event::SubflowUp { token, subflow });
                self.see_to_backup(token, &subflow);
            }
            pm::Event::SubflowDown { token, pair } => {
                let subflow = seen(&pair, false);
                if self.reborn(token, &subflow) {
                    return;
                }
                let (local, remote) = (subflow.local, subflow.remote);
                self.tell(Event::SubflowDown { token, local, remote, error: pair.error });
            }
            pm::Event::Priority { .. } | pm::Event::ListenerUp { .. } | pm::Event::ListenerDown { .. } => {}
        }
    }

    /// Linux before 6.2 takes SUBFLOW_CREATE without its flags: a subflow asked
    /// for as backup is none, and must be made one.
    fn see_to_backup(&mut self, token: u32, subflow: &Seen) {
        let (local, remote) = (subflow.local, subflow.remote);
        if self.engine.by_token(token).is_some_and(|c| c.has_backup(&local, &remote)) {
            let work = Work::Backup { token, local, remote };
            self.submit(Lane::Connection(token), Todo::Work(work));
        }
    }

    /// Whether a subflow said to be closed is up: a new one on the same ports,
    /// made before the kernel told of the old one's end.
    fn reborn(&mut self, token: u32, subflow: &Seen) -> bool {
        let Some(connection) = self.engine.by_token(token) else { return false };
        let inode = connection.key.inode;
        let up = connection.has_up(&subflow.local, &subflow.remote);
        up && matches!(
            self.diag.tuple(&subflow.local, &subflow.remote),
            Ok(Some(record)) if is_up(record.state) && record.inode == inode
        )
    }

    /// The user whose socket a connection is, as the kernel has it; nobody's
    /// before it is accepted.
    pub fn holder(&mut self, token: u32) -> Option<u32> {
        let record = self.diag.connection(token).ok()??;
        (record.inode != 0).then_some(record.uid)
    }

    /// One who asked about the socket of a connection, if anybody did.
    pub fn subscriber(&self, token: u32) -> Option<SubscriberId> {
        self.subscribers.of(token)
    }

    /// The socket behind a new token, if it can be one of ours, or one that
    /// somebody asks about.
    fn awaited(&mut self, token: u32, server: bool) -> Option<Key> {
        if self.engine.waiting() == 0 && !self.subscribers.awaits() {
            return None;
        }
        let key = match self.connected.filter(|(_, known)| *known == token) {
            Some((key, _)) => {
                self.connected = None;
                key
            }
            None => {
                let Ok(Some(record)) = self.diag.connection(token) else {
                    if !server {
                        self.subscribers.missed();
                    }
                    return None;
                };
                Key { cookie: record.cookie, inode: record.inode }
            }
        };
        let concerns = self.engine.knows_cookie(key.cookie) || self.subscribers.awaits_cookie(key.cookie);
        concerns.then_some(key)
    }

    /// A connection that nobody asked for.
    fn strange(&mut self, token: u32, initial: Seen, server: bool) {
        let now = Self::now();
        let fresh = self.endpoints_at.is_some_and(|at| now.saturating_sub(at) < ENDPOINTS_LAST);
        if !fresh {
            self.look_at_endpoints();
        }
        let wanted = match self.service {
            Service::Claimed => false,
            // Else nothing would be done for it.
            Service::Strays => !fresh || self.engine.has_endpoints(server),
            Service::All => true,
        };
        let Some(record) = wanted.then(|| self.diag.connection(token).ok().flatten()).flatten() else {
            return;
        };
        let key = Key { cookie: record.cookie, inode: record.inode };
        let event = Event::Created { token, key, initial, server };
        if self.service == Service::All {
            self.tell(event);
        } else {
            self.submit(Lane::Connection(token), Todo::Work(Work::Stray { event }));
        }
    }

    /// Says what is to be done for connections that nobody asked for.
    pub fn serve(&mut self, service: Service) {
        self.service = service;
        self.look_at_endpoints();
    }

    /// Nothing tells when endpoints change: the owner has them looked at.
    pub fn look_at_endpoints(&mut self) {
        let mut waiting = self.lanes.get(&Lane::Namespace).into_iter().flatten();
        let asked = waiting.any(|todo| matches!(todo, Todo::Work(Work::Endpoints)));
        if self.service != Service::Claimed && !asked {
            self.submit(Lane::Namespace, Todo::Work(Work::Endpoints));
        }
    }

    fn submit(&mut self, lane: Lane, todo: Todo) {
        let waiting = self.lanes.entry(lane).or_insert_with(|| {
            self.ready.push_back(lane);
            // Thousands may wait, most of them alone.
            VecDeque::with_capacity(1)
        });
        waiting.push_back(todo);
    }

    /// The next thing of a lane that is being worked in.
    fn submit_next(&mut self, lane: Lane, todo: Todo) {
        match self.lanes.get_mut(&lane) {
            Some(waiting) => waiting.push_front(todo),
            None => self.submit(lane, todo),
        }
    }

    /// A job for a pair of hands; [`Manager::report`] must follow. Some take a
    /// thread of this network namespace: `at_home` says whether the caller is
    /// one.
    pub fn poll_job(&mut self, at_home: bool) -> Option<Job> {
        if at_home {
            self.ready.extend(self.away.drain(..));
        }
        loop {
            let lane = self.ready.pop_front()?;
            let Some(waiting) = self.lanes.get_mut(&lane) else { continue };
            if !at_home && waiting.front().is_some_and(homely) {
                // A thread of another namespace steps us; one of ours will too.
                self.away.push(lane);
                continue;
            }
            let (work, call) = match waiting.pop_front() {
                Some(Todo::Work(work)) => (Some(work), None),
                Some(Todo::Prepare(id)) => (self.asked(id).map(Work::Prepare), Some(id)),
                Some(Todo::Settle(id)) => (self.asked(id).map(Work::Settle), Some(id)),
                Some(Todo::Finish(id, result)) => {
                    self.finish(id, result);
                    (None, None)
                }
                None => (None, None),
            };
            match work {
                Some(work) => return Some(Job { lane, call, work }),
                // The call was given up.
                None => self.leave(lane),
            }
        }
    }

    /// Whether [`Manager::poll_job`] has one that can be done from anywhere.
    pub fn has_jobs(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Whether something waits for a thread of this network namespace.
    pub fn homesick(&self) -> bool {
        !self.away.is_empty()
    }

    /// Nobody works in this lane any more.
    fn leave(&mut self, lane: Lane) {
        while let Some(waiting) = self.lanes.get_mut(&lane)
            && let Some(Todo::Finish(..)) = waiting.front()
            && let Some(Todo::Finish(id, result)) = waiting.pop_front()
        {
            self.finish(id, result);
        }
        match self.lanes.get(&lane) {
            Some(waiting) if waiting.is_empty() => drop(self.lanes.remove(&lane)),
            Some(_) => self.ready.push_back(lane),
            None => {}
        }
    }

    fn asked(&self, id: CallId) -> Option<Box<Asked>> {
        let calling = self.calls.get(&id)?;
        Some(Box::new(Asked {
            key: calling.key,
            call: calling.call.clone(),
            known: self.engine.by_key(&calling.key).cloned(),
            prepared: self.prepared(&calling.key),
            adopted: calling.adopted,
            leave: calling.leave,
        }))
    }

    /// Takes what came of a job.
    pub fn report(&mut self, lane: Lane, call: Option<CallId>, found: Found) {
        // A survey can be older than what a command has done since.
        if self.surveying
            && let (Lane::Connection(token), Found::Event(Event::Done { .. })) = (lane, &found)
        {
            self.touched.insert(token);
        }
        match found {
            Found::Nothing => {}
            Found::Event(event) => self.tell(event),
            Found::Events(events) => events.into_iter().for_each(|event| self.tell(event)),
            Found::Listener { tag, key, socket, addr } => {
                let outcome = match sockopt::cookie(socket.as_fd()) {
                    Ok(own_cookie) => {
                        self.joins.push(JoinListener { socket, addr, cookie: key.cookie, own_cookie });
                        Outcome::Taken
                    }
                    Err(errno) => Outcome::Refused(errno.0),
                };
                self.tell(Event::Done { tag, outcome });
            }
            Found::Census(census) => {
                self.surveying = false;
                match census {
                    Ok(census) => self.resynchronise(census),
                    Err(_) => self.unsure = true,
                }
            }
            Found::Held(original) => {
                if original.is_some() {
                    self.held = original;
                }
            }
            Found::Unheld => self.held = None,
            Found::Closed { user, keys } => {
                self.rolls.looked(user, Self::now());
                if !keys.is_empty() {
                    // What has connected before is told of in any case.
                    self.step();
                }
                for key in keys {
                    self.subscribers.closed(&key, Self::now());
                }
            }
            Found::Checked { token, key, condition } => {
                self.subscribers.checked(token, key, condition, Self::now());
            }
            Found::Endpoints(endpoints, limits) => {
                self.endpoints_at = Some(Self::now());
                let serve = self.service != Service::Claimed;
                if !self.engine.has(&endpoints, limits, serve) {
                    self.tell(Event::Endpoints { endpoints, limits, serve });
                }
            }
            Found::Snapshot { event, look } => self.looked(event, look),
            Found::Identified { event, pairs } => self.identified(event, pairs),
            Found::Prepared(result) => {
                if let Some(id) = call {
                    match result {
                        Ok(call::Seen::Socket(sight)) => self.sighted(id, *sight),
                        Ok(call::Seen::Token(token)) => self.adopt(id, token),
                        Err(error) => self.finish(id, Err(error)),
                    }
                }
            }
            Found::Settled(settled) => {
                if let Some(id) = call {
                    self.settled(id, settled);
                }
            }
        }
        self.run();
        self.leave(lane);
    }

    /// Begins a call on a socket; its end is told by [`Manager::outcome`].
    pub fn call(&mut self, key: Key, call: Call, leave: Leave) -> CallId {
        self.numbers += 1;
        let id = self.numbers;
        if let Call::Subscribe { id, .. } = call {
            self.subscribers.begin(id, key);
            self.engine.keep_incidents(true);
        }
        self.calls.insert(
            id,
            Calling {
                key,
                call,
                leave,
                adopted: false,
                shown: false,
                late: None,
                before: None,
                failure: None,
            },
        );
        self.submit(Lane::Socket(key), Todo::Prepare(id));
        id
    }

    /// A call that has ended, and how.
    pub fn outcome(&mut self) -> Option<(CallId, Result<Answer>)> {
        self.outcomes.pop_front()
    }

    /// Nobody waits for this call any more. What it has asked for stays asked.
    pub fn abandon(&mut self, id: CallId) {
        if let Some(Calling { call: Call::Subscribe { id, .. }, .. }) = self.calls.remove(&id) {
            self.unsubscribe(id);
        }
    }

    fn finish(&mut self, id: CallId, result: Result<Answer>) {
        if let Some(calling) = self.calls.remove(&id) {
            if let (Call::Subscribe { id, .. }, Err(_)) = (&calling.call, &result) {
                self.unsubscribe(*id);
            }
            self.outcomes.push_back((id, result));
        }
    }

    /// An accepted connection is known by its token until its descriptor shows
    /// up.
    fn adopt(&mut self, id: CallId, token: u32) {
        let Some(calling) = self.calls.get_mut(&id) else { return };
        calling.adopted = true;
        let key = calling.key;
        self.engine.adopt(token, key);
        self.submit_next(Lane::Socket(key), Todo::Prepare(id));
    }

    /// Goes on with a call whose socket has been looked at.
    fn sighted(&mut self, id: CallId, sight: Sight) {
        // Whoever waits for the call or no more.
        if sight.held.is_some() {
            self.held = sight.held;
        }
        let Some(calling) = self.calls.get_mut(&id) else { return };
        let (key, call, leave) = (calling.key, calling.call.clone(), calling.leave);
        (calling.shown, calling.late) = (sight.switched.is_some_and(|switched| switched.shown), sight.late);
        if sight.lost {
            self.forget(key);
        }
        let unconnected = sight.stage == Stage::Unconnected;
        if let Some(switched) = sight.switched {
            let prepared = self.prepared.entry(key).or_default();
            (prepared.switched, prepared.virgin) = (true, switched.virgin);
        }
        if unconnected && matches!(call, Call::Ask(Request::Add(_))) && leave.servers == Servers::Allowed {
            self.prepared.entry(key).or_default().may_serve = true;
        }
        if let Some((bound, device)) = sight.binding {
            self.tell(Event::Binding { key, bound, device });
        }
        if let Some(snapshot) = sight.snapshot {
            self.tell(snapshot);
        }
        let on = leave.fate_sharing;
        if !call.is_query() && self.engine.by_key(&key).is_some_and(|c| c.fate_default() != on) {
            self.tell(Event::FateSharing { key, on });
        }
        match call {
            Call::Ask(Request::Close { .. }) if sight.closed => self.finish(id, Ok(Answer::Done)),
            Call::Ask(request) => {
                let led = match request {
                    Request::Open { remote, .. } => self.reachable(&key, remote, leave.peers),
                    _ => Ok(()),
                };
                match led {
                    Ok(()) => self.ask(id, key, request, unconnected),
                    Err(error) => self.finish(id, Err(error)),
                }
            }
            Call::RespectBinding | Call::Take => self.finish(id, Ok(Answer::Done)),
            Call::BeforeConnect(peers) => {
                let start = match sight.switched {
                    None => Start::AsIs,
                    Some(_) => {
                        if leave.peers {
                            let addrs = peers.into_iter().skip(1).collect();
                            self.tell(Event::PeerAddresses { key, addrs });
                        }
                        self.start(&key, sight.host)
                    }
                };
                self.finish(id, Ok(Answer::Start(start)));
            }
            Call::Settings => {
                let settings = match self.engine.by_key(&key) {
                    Some(c) => Settings { fate_sharing: Some(c.shares_fate()), ..c.settings() },
                    None => Settings { fate_sharing: Some(leave.fate_sharing), ..Settings::default() },
                };
                self.finish(id, Ok(Answer::Settings(settings)));
            }
            Call::Control => self.finish(id, Ok(Answer::Control(sight.control))),
            Call::Subscribe { id: subscriber, current, .. } => {
                if let Some(shown) = sight.shown {
                    self.subscribers.arrived(subscriber, shown, current, &self.engine, Self::now());
                }
                self.finish(id, Ok(Answer::Done));
            }
            Call::Facts => self.finish(id, Ok(Answer::Facts(self.facts(&key)))),
        }
    }

    /// What is known of a socket, without a look at it.
    pub fn facts(&self, key: &Key) -> Facts {
        match self.engine.by_key(key) {
            Some(c) => Facts { list: c.list(), peers: c.peers.iter().map(|p| p.addr).collect() },
            None => Facts::default(),
        }
    }

    /// Whether a subflow may lead there: to an address that the peer has shown,
    /// or where its user may say what is the peer's.
    fn reachable(&self, key: &Key, remote: Option<SocketAddr>, peers: bool) -> Result<()> {
        let shown = |remote: &SocketAddr| {
            self.engine.by_key(key).is_some_and(|c| c.peers.iter().any(|peer| peer.shows(remote)))
        };
        match remote {
            Some(remote) if !peers && !shown(&remote) => Err(Error::new(
                libc::EACCES,
                format!(
                    "the broker's policy lets this user open subflows only to addresses that the peer has shown: \
                     {remote} is none"
                ),
            )),
            _ => Ok(()),
        }
    }

    /// Where a socket under control, and not connected, begins by its list; and
    /// what was done to it.
    pub fn planned(&self, key: &Key) -> Option<(Start, Prepared)> {
        let prepared = self.prepared.get(key).filter(|prepared| prepared.switched)?;
        Some((self.by_list(key)?, *prepared))
    }

    /// The same, if the list is all that counts: what a socket was bound to
    /// before it can be bound to no more.
    fn by_list(&self, key: &Key) -> Option<Start> {
        let alone = |c: &&Connection| c.listed && c.bound.is_none() && c.device.is_none();
        let connection = self.engine.by_key(key).filter(alone)?;
        (connection.phase == Phase::Prepared).then(|| Start::From(connection.first_choices()))
    }

    fn start(&self, key: &Key, host: Vec<SocketAddr>) -> Start {
        match self.engine.by_key(key) {
            Some(c) if c.bound.is_none() && c.restricted() => Start::From(c.first_choices()),
            Some(c) if c.bound.is_none() => {
                Start::From(host.into_iter().filter(|addr| c.allows(addr)).collect())
            }
            _ => Start::AsIs,
        }
    }

    /// Puts a call's request to the engine. Where the socket isn't connected,
    /// its binding follows the list.
    fn ask(&mut self, id: CallId, key: Key, request: Request, settle: bool) {
        let before = self.engine.by_key(&key).map(|c| c.entries.clone()).unwrap_or_default();
        if let Some(calling) = self.calls.get_mut(&id) {
            calling.before = settle.then_some(before);
        }
        self.numbers += 1;
        self.asking.insert(self.numbers, id);
        self.tell(Event::Request { id: self.numbers, key, request });
    }

    fn answered(&mut self, request: RequestId, result: Result<()>) {
        let Some(id) = self.asking.remove(&request) else { return };
        let Some(calling) = self.calls.get(&id) else { return };
        let key = calling.key;
        match result {
            Ok(()) if calling.before.is_some() => {
                let known = self.engine.by_key(&key);
                let unsettled = known.is_some_and(|c| call::is_unsettled(c, calling.late));
                if unsettled || calling.failure.is_some() {
                    self.submit_next(Lane::Socket(key), Todo::Settle(id));
                } else {
                    self.succeed(id);
                }
            }
            result => {
                // It is answered when its commands have been carried out.
                let lane = self.engine.by_key(&key).and_then(|c| c.token).map(Lane::Connection);
                let result = result.map(|()| Answer::Done);
                match lane.and_then(|lane| self.lanes.get_mut(&lane)) {
                    Some(waiting) => waiting.push_back(Todo::Finish(id, result)),
                    None => self.finish(id, result),
                }
            }
        }
    }

    /// Goes on with a call whose socket has been bound or given back.
    fn settled(&mut self, id: CallId, settled: Settled) {
        let Some(calling) = self.calls.get_mut(&id) else { return };
        let key = calling.key;
        let before = calling.before.clone().unwrap_or_default();
        let failure = calling.failure.take();
        if settled.released {
            self.forget(key);
        }
        match (failure, settled.result) {
            (Some(error), _) => self.finish(id, Err(error)),
            (None, Ok(())) => self.succeed(id),
            (None, Err(error)) if before.is_empty() => self.finish(id, Err(error)),
            (None, Err(error)) => {
                if let Some(calling) = self.calls.get_mut(&id) {
                    calling.failure = Some(error);
                }
                self.ask(id, key, Request::Add(before), true);
            }
        }
    }

    /// Ends a call on a socket that is not connected.
    fn succeed(&mut self, id: CallId) {
        let told = self
            .calls
            .get(&id)
            .filter(|calling| calling.shown && calling.leave.owner)
            .filter(|calling| matches!(calling.call, Call::Ask(Request::Add(_))));
        let start = told.and_then(|calling| self.by_list(&calling.key));
        self.finish(id, Ok(start.map_or(Answer::Done, Answer::Start)));
    }

    /// Looks at every connection again, after events were lost, and for those
    /// that began unheard.
    fn resynchronise(&mut self, census: Census) {
        let pairs = |inode: u64| -> Vec<Listed> {
            let records = census.by_inode.get(&inode).map(Vec::as_slice).unwrap_or_default();
            records
                .iter()
                .map(|r| Listed { id: 0, state: r.state, local: r.local, remote: r.remote })
                .collect()
        };
        let looks: Vec<Look> = self
            .engine
            .connections()
            .filter_map(|c| {
                let (token, initial) = (c.token?, c.initial?);
                let pairs = pairs(c.key.inode);
                Some(Look { token, key: c.key, server: c.server, initial, pairs, heard: c.heard })
            })
            .filter(|look| !self.touched.contains(&look.token))
            .filter(|look| {
                let up = look.pairs.iter().filter(|pair| is_up(pair.state));
                let up: Vec<_> = up.map(|pair| (pair.local, pair.remote)).collect();
                let settled = self.engine.by_token(look.token).is_some_and(|c| c.is_settled_with(&up));
                !(settled && up.len() == look.pairs.len())
            })
            .collect();
        // Those of which something was heard meanwhile: the survey may be older.
        self.unsure |= !self.touched.is_empty();

        for look in looks {
            self.submit(Lane::Connection(look.token), Todo::Work(Work::Look(look)));
        }
        let mut waiting: Set<u64> =
            self.engine.connections().filter(|c| c.phase == Phase::Prepared).map(|c| c.key.cookie).collect();
        waiting.extend(self.subscribers.cookies());
        if waiting.is_empty() {
            return;
        }
        let known: Set<Key> =
            self.engine.connections().filter(|c| c.token.is_some()).map(|c| c.key).collect();
        for record in census.connections.iter().filter(|r| waiting.contains(&r.cookie)) {
            let key = Key { cookie: record.cookie, inode: record.inode };
            if record.inode != 0 && known.contains(&key) {
                continue;
            }
            let pairs = if record.inode == 0 { Vec::new() } else { pairs(record.inode) };
            self.submit(Lane::Socket(key), Todo::Work(Work::Identify { record: *record, pairs }));
        }
    }

    fn identified(&mut self, event: Event, pairs: Vec<Listed>) {
        let Event::Created { token, key, initial, server } = event else { return };
        let ends = (addr::canonical(initial.local), addr::canonical(initial.remote));
        self.subscribers.appeared(token, key, ends, server, &self.engine, Self::now());
        if self.engine.by_token(token).is_some() {
            return;
        }
        self.tell(event);
        if let Some((key, initial)) = self.engine.by_token(token).and_then(|c| Some((c.key, c.initial?))) {
            let heard = self.engine.by_token(token).map_or(0, |c| c.heard);
            let look = Look { token, key, server, initial, pairs, heard };
            self.submit(Lane::Connection(token), Todo::Work(Work::Look(look)));
        }
    }

    /// Takes a look at a connection, unless something was heard of it since.
    fn looked(&mut self, event: Event, look: Look) {
        match self.engine.by_token(look.token) {
            Some(c) if c.heard != look.heard => self.unsure = true,
            Some(_) => self.tell(event),
            None => {}
        }
    }

    /// What lasts of a socket or connection.
    pub fn save(&self, key: &Key) -> Option<(Saved, Prepared)> {
        Some((self.engine.save(key)?, self.prepared(key)))
    }

    /// Makes known what was so before a restart. All of it is looked at anew.
    pub fn restore(&mut self, saved: Saved, prepared: Prepared) {
        if prepared != Prepared::default() {
            self.prepared.insert(saved.key, prepared);
        }
        self.tell(Event::Restore(Box::new(saved)));
        self.unsure = true;
    }

    /// A local address can be used, or can't.
    pub fn address(&mut self, addr: std::net::IpAddr, usable: bool) {
        self.tell(if usable { Event::Usable { addr } } else { Event::Unusable { addr } });
        self.run();
    }

    /// From now on [`Manager::poll_changed`] tells what has changed.
    pub fn watch_changes(&mut self) {
        self.engine.keep_changes(true);
    }

    /// A socket or connection of which something lasting has changed, or that
    /// is gone.
    pub fn poll_changed(&mut self) -> Option<Key> {
        self.engine.poll_changed()
    }

    /// What was done to this socket.
    pub fn prepared(&self, key: &Key) -> Prepared {
        self.prepared.get(key).copied().unwrap_or_default()
    }

    /// Notes what the application's own connect(2) has shown.
    pub fn note_connected(&mut self, key: Key, token: u32) {
        self.connected = Some((key, token));
    }

    /// Notes that somebody is about to connect a socket, for those who ask
    /// about all that is his.
    pub fn expect(&mut self, key: Key, whose: u64) {
        self.subscribers.expect(key, whose);
    }

    /// Notes that he doesn't ask about that any more.
    pub fn expect_no_more(&mut self, whose: u64) {
        self.subscribers.expect_no_more(whose);
    }

    /// Whether somebody waits to hear of this socket's connection.
    pub fn waits_for(&self, key: &Key) -> bool {
        self.subscribers.waits_for(key)
    }

    /// Notes that it is connected, and plain TCP.
    pub fn note_plain(&mut self, key: Key, ends: (SocketAddr, SocketAddr)) {
        let ends = (addr::canonical(ends.0), addr::canonical(ends.1));
        self.subscribers.is_plain(key, ends, Self::now());
    }

    /// Notes a socket that was made under control.
    pub fn note_switched(&mut self, key: Key) {
        self.prepared.entry(key).or_default().switched = true;
    }

    /// Notes that a socket must be switched again before it connects.
    pub fn note_unswitched(&mut self, key: &Key) {
        if let Some(prepared) = self.prepared.get_mut(key) {
            prepared.switched = false;
        }
    }

    /// The socket starts afresh or is gone.
    pub fn forget(&mut self, key: Key) {
        self.prepared.remove(&key);
        self.tell(Event::Forget { key });
    }

    /// The initial pair of a connection, and its inode.
    fn initial(&self, token: u32) -> Option<(SocketAddr, SocketAddr, u64)> {
        let connection = self.engine.by_token(token)?;
        connection.initial.map(|(local, remote)| (local, remote, connection.key.inode))
    }

    /// Takes the engine's commands and answers.
    fn run(&mut self) {
        while let Some(command) = self.engine.poll_command() {
            let lane = Lane::Connection(command.token);
            if let Action::Watch { .. } = command.action {
                match self.lanes.get_mut(&lane).and_then(VecDeque::back_mut) {
                    Some(Todo::Work(Work::Watch(commands))) => commands.push(command),
                    _ => self.submit(lane, Todo::Work(Work::Watch(vec![command]))),
                }
                continue;
            }
            let initial = match command.action {
                Action::Listen { local } if self.joins.iter().any(|join| join.addr == local) => {
                    self.tell(Event::Done { tag: command.tag, outcome: Outcome::Taken });
                    continue;
                }
                Action::Destroy { local, remote } => {
                    let pair = Some((addr::canonical(local), addr::canonical(remote)));
                    self.initial(command.token).filter(|(local, remote, _)| pair == Some((*local, *remote)))
                }
                Action::End => self.initial(command.token),
                _ => None,
            };
            let fresh = self.fresh.contains(&command.token);
            let work = Work::Command { command, initial, fresh };
            self.submit(Lane::Connection(command.token), Todo::Work(work));
        }
        while let Some(Notice::Answer { id, result }) = self.engine.poll_notification() {
            self.answered(id, result);
        }
        while let Some(incident) = self.engine.poll_incident() {
            self.subscribers.noticed(incident, &self.engine, Self::now());
        }
    }

    /// The next thing to tell a subscriber.
    pub fn poll_tiding(&mut self) -> Option<Tiding> {
        self.subscribers.poll()
    }

    /// Somebody is to be told of all connections that are known here and that
    /// `mine` says; of what is there as well if `current`.
    pub fn subscribe_all(
        &mut self,
        id: SubscriberId,
        current: bool,
        mine: impl Fn(&Key, Option<u64>, &[SubscriberId]) -> bool,
    ) {
        self.subscribers.add_all(id, current, mine, &self.engine, Self::now());
        self.engine.keep_incidents(true);
    }

    /// For [`Call::Subscribe`]: where it is noted whether a socket is closed.
    /// Users wait for nobody's but their own.
    pub fn roll(&mut self, user: u32) -> Arc<Roll> {
        self.rolls.roll(user, Self::now())
    }

    /// Somebody is to be told no more.
    pub fn unsubscribe(&mut self, id: SubscriberId) {
        self.subscribers.remove(id);
        self.engine.keep_incidents(!self.subscribers.is_empty());
    }

    /// Puts the namespace in userspace mode where a socket that had a list
    /// before has come to listen; where that fails, again when the next one
    /// listens.
    fn serve_lists(&mut self, listening: &HashSet<u64>) {
        let serves = |(key, prepared): (&Key, &Prepared)| {
            prepared.may_serve
                && listening.contains(&key.cookie)
                && self.engine.by_key(key).is_some_and(|c| c.listed && c.phase == Phase::Prepared)
        };
        if self.held.is_none() && self.prepared.iter().any(serves) {
            self.submit(Lane::Namespace, Todo::Work(Work::Hold));
        }
    }

    /// Whether it matters which sockets listen.
    fn cares_for_listeners(&self) -> bool {
        self.subscribers.has_listeners() || self.prepared.values().any(|p| p.may_serve)
    }

    /// Takes notice of sockets that began or ceased to listen, sends strangers
    /// away from our own, and ends those whose application's is gone.
    fn tend_joins(&mut self, listeners_changed: bool) {
        let now = Self::now();
        let due = now.saturating_sub(self.joins_checked) >= JOINS_PAUSE;
        if (listeners_changed || (due && !self.tells_listeners))
            && self.cares_for_listeners()
            && let Some(cookies) = self.listening()
        {
            self.serve_lists(&cookies);
            self.subscribers.listening(&cookies);
        }
        for join in &self.joins {
            while let Ok(stranger) = sockopt::accept(join.socket.as_fd()) {
                let reset = [1i32.to_ne_bytes(), 0i32.to_ne_bytes()].concat();
                let _ = sockopt::set(stranger.as_fd(), libc::SOL_SOCKET, libc::SO_LINGER, &reset);
            }
        }
        if !(listeners_changed || due) {
            return;
        }
        self.joins_checked = now;
        if self.joins.is_empty() {
            return;
        }
        let Some(listening) = self.listening() else { return };
        let engine = &self.engine;
        self.joins.retain(|join| {
            listening.contains(&join.cookie)
                || engine.any(|c| c.key.cookie == join.cookie && !c.server && c.token.is_some())
        });
    }

    /// Forgets unconnected sockets that are closed, which no event tells of:
    /// `open` gives the inodes of those that are not.
    pub fn sweep(&mut self, open: impl FnOnce() -> Option<HashSet<u64>>) {
        let known = |manager: &Self| manager.engine.waiting().max(manager.prepared.len());
        if known(self) < self.sweep_at {
            return;
        }
        let Some(open) = open() else {
            self.sweep_at += 64;
            return;
        };
        let gone: Vec<Key> = self
            .engine
            .connections()
            .filter(|c| c.phase == Phase::Prepared && !open.contains(&c.key.inode))
            .map(|c| c.key)
            .collect();
        for key in gone {
            self.forget(key);
        }
        let engine = &self.engine;
        self.prepared.retain(|key, _| open.contains(&key.inode) || engine.by_key(key).is_some());
        self.sweep_at = 64 + 2 * known(self);
    }
}

/// Whether a piece of work takes a thread of the namespace.
fn homely(todo: &Todo) -> bool {
    matches!(
        todo,
        Todo::Work(Work::Command { command, .. })
            if matches!(command.action, Action::Route { .. } | Action::Listen { .. })
    )
}

/// A link-local address with the interface it belongs to.
fn scoped(addr: SocketAddr, ifindex: u32) -> SocketAddr {
    match addr {
        SocketAddr::V6(mut v6) if addr::is_link_local(v6.ip()) && v6.scope_id() == 0 => {
            v6.set_scope_id(ifindex);
            v6.into()
        }
        _ => addr,
    }
}

fn refused(refusal: &Refusal, doing: &str) -> Error {
    let errno = refusal.errno;
    match errno {
        Errno(libc::EPERM) => no_privilege(),
        _ if refusal.text.is_empty() => Error::kernel(errno, doing),
        _ => Error::new(errno.0, format!("{doing}: {errno} ({})", refusal.text)),
    }
}

/// Nobody may act.
pub fn no_privilege() -> Error {
    Error::new(libc::EPERM, "controlling paths needs CAP_NET_ADMIN over this network namespace")
}

/// What stands in the way of the switch, in words.
pub fn fault(fault: Fault) -> Error {
    match fault {
        Fault::NoSysctl(_) => Error::new(
            libc::EOPNOTSUPP,
            "net.mptcp.path_manager can't be read: no such kernel option, or /proc is not mounted",
        ),
        Fault::ReadOnly(Errno(libc::EPERM | libc::EACCES)) => no_privilege(),
        Fault::ReadOnly(errno) => Error::new(
            libc::EOPNOTSUPP,
            format!(
                "net.mptcp.path_manager can't be written ({errno}): start this network namespace \
                 with net.mptcp.path_manager=userspace"
            ),
        ),
        Fault::NoLock(errno) => Error::new(
            libc::EPERM,
            format!("no lock file could be made in /run/mptcpapi or XDG_RUNTIME_DIR ({errno})"),
        ),
        Fault::Locked => Error::new(
            libc::EIO,
            "another process holds the lock of the path-manager switch of this network namespace",
        ),
        Fault::Cut => Error::new(libc::EIO, "the switch of the path manager was interrupted again and again"),
        Fault::Kernel(Errno(libc::EISCONN)) => Error::new(
            libc::EOPNOTSUPP,
            "another thread connected the socket meanwhile, before it could be put under path control",
        ),
        Fault::Kernel(errno) => Error::kernel(errno, "putting the socket under path control"),
    }
}
