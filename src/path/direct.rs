// SPDX-License-Identifier: MIT OR Apache-2.0
//! The direct backend: this process has CAP_NET_ADMIN and steps a manager
//! inside the application's own calls.

use super::watchers::{self, Name, Watchers};
use super::{Abilities, Backend, Control, Open, PathControl, Start};
use crate::engine::{Entry, Key, Request, Setting, Settings, Time};
use crate::error::{Errno, Error, Result};
use crate::events::{self, Next, Queue};
use crate::kernel::process::{self, PerProcess};
use crate::kernel::sockopt;
use crate::manager::{Answer, Call, CallId, Facts, Hands, Leave, Manager, SubscriberId, Tiding, Told};
use crate::stream::{self, Socket, Stage};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

struct State {
    namespaces: Mutex<Vec<Namespace>>,
    stepped: AtomicU64,
}

static STATE: PerProcess<State> = PerProcess::new();
static DIRECT: Direct = Direct;

struct Direct;

/// How long REMOVE waits for an alternative subflow on a blocking socket.
const PATIENCE: Time = Time::from_secs(2);

/// The manager of one network namespace, and hands that do its jobs at once.
struct Namespace {
    manager: Manager,
    hands: Hands,
    /// Ends of calls whose callers have not come for them yet.
    ended: HashMap<CallId, Result<Answer>>,
    watchers: Watchers,
    subscriptions: HashMap<SubscriberId, Subscription>,
    /// Those among them that are about all connections.
    of_all: Vec<SubscriberId>,
}

/// What somebody wants to hear, and what he has not read yet.
struct Subscription {
    events: u32,
    queue: Queue,
}

/// Events that may wait: of one connection, of many.
const FEW: usize = 256;
const MANY: usize = 65536;

impl Namespace {
    fn open(namespace: u64) -> Result<Self> {
        let mut hands = Hands::open(namespace, false)?;
        let manager = Manager::open(namespace, hands.family())?;
        hands.in_userspace_mode();
        let watchers = Watchers::new(namespace ^ process::monotonic().as_nanos() as u64);
        Ok(Self {
            manager,
            hands,
            ended: HashMap::new(),
            watchers,
            subscriptions: HashMap::new(),
            of_all: Vec::new(),
        })
    }

    fn is(&self, namespace: u64) -> bool {
        self.manager.namespace() == namespace
    }

    fn intact(&self) -> bool {
        self.manager.intact() && self.hands.intact()
    }

    /// A program has closed descriptors of ours: opens everything anew.
    fn renew(&mut self) -> Result<()> {
        let hands = Hands::open(self.manager.namespace(), false)?;
        self.manager.renew(hands.family())?;
        std::mem::forget(std::mem::replace(&mut self.hands, hands));
        let renewed = self.watchers.renew(self.manager.event_fd());
        renewed.map_err(|e| Error::kernel(e, "opening descriptors anew"))
    }

    fn step(&mut self) {
        self.manager.step();
        self.manager.sweep(process::open_sockets);
        self.work(None);
    }

    fn set_timer(&mut self) {
        if self.watchers.len() > 0 {
            self.watchers.set_timer(self.manager.next_timeout());
        }
    }

    /// The same after the event socket or the timer was readable.
    fn serve(&mut self) -> Result<()> {
        if !self.manager.hears() {
            self.renew()?;
        }
        self.manager.step();
        if (self.manager.has_jobs() || self.manager.homesick()) && !self.hands.commands_intact() {
            self.renew()?;
        }
        self.manager.sweep(process::open_sockets);
        self.work(None);
        Ok(())
    }

    /// Does every job; `fd` is the descriptor of the call that is being made.
    fn work(&mut self, fd: Option<BorrowedFd<'_>>) {
        let mut at_home = false;
        loop {
            let Some(job) = self.manager.poll_job(at_home) else {
                // Most jobs can be done from anywhere: asking takes a socket.
                if at_home || !self.manager.homesick() || !self.hands.at_home() {
                    break;
                }
                at_home = true;
                continue;
            };
            let found = self.hands.run(job.work, fd);
            self.manager.report(job.lane, job.call, found);
        }
        while let Some((id, result)) = self.manager.outcome() {
            self.ended.insert(id, result);
        }
        self.deliver();
        self.set_timer();
    }

    /// Gives what there is to tell to those who asked.
    fn deliver(&mut self) {
        let mut touched = Vec::new();
        while let Some(Tiding { mut to, only, event, .. }) = self.manager.poll_tiding() {
            if !only {
                to.extend(&self.of_all);
            }
            for id in to {
                let Some(subscription) = self.subscriptions.get_mut(&id) else { continue };
                match event {
                    Told::Event(event) if subscription.events & event.what.bit() == 0 => continue,
                    Told::Event(event) => subscription.queue.push(event),
                    Told::Doubt(time) => subscription.queue.doubt(time),
                    Told::End => subscription.queue.end(),
                }
                touched.push(id);
            }
        }
        for id in touched {
            self.watchers.set_ready(Name::from_id(id), true);
        }
    }

    /// Makes a descriptor for events.
    fn open_watcher(&mut self) -> Result<(Name, OwnedFd)> {
        self.watchers.sweep();
        let opened = self.watchers.open(self.manager.event_fd());
        self.clear();
        self.set_timer();
        opened.map_err(|e| Error::kernel(e, "making a descriptor for events"))
    }

    /// Forgets subscriptions whose descriptors were found closed.
    fn clear(&mut self) {
        while let Some(gone) = self.watchers.poll_closed() {
            if self.subscriptions.remove(&gone.id()).is_some() {
                self.of_all.retain(|id| *id != gone.id());
                self.manager.unsubscribe(gone.id());
            }
        }
    }

    /// Somebody is to hear of a socket, or of all.
    fn subscribe(&mut self, socket: Option<(BorrowedFd<'_>, Key, bool)>, events: u32) -> Result<OwnedFd> {
        let (name, fd) = self.open_watcher()?;
        let id = name.id();
        if events & events::ALL == 0 {
            return Ok(fd);
        }
        let current = events & events::CURRENT != 0;
        let limit = if socket.is_some_and(|(_, _, listens)| !listens) { FEW } else { MANY };
        self.subscriptions.insert(id, Subscription { events, queue: Queue::new(limit) });
        let begun = match socket {
            None => {
                self.of_all.push(id);
                self.manager.subscribe_all(id, current, |_, _, _| true);
                self.deliver();
                // There are connections to look at that were not before.
                self.set_timer();
                Ok(())
            }
            Some((fd, key, _)) => {
                let roll = self.manager.roll(0);
                match self.call(key, Call::Subscribe { id, current, roll }, fd) {
                    Ok(result) => result.map(drop),
                    Err(call) => {
                        self.manager.abandon(call);
                        Err(Error::new(libc::ENOTRECOVERABLE, "the subscription was never answered"))
                    }
                }
            }
        };
        if begun.is_err() {
            self.subscriptions.remove(&id);
            self.watchers.close(name);
        }
        begun.map(|()| fd)
    }

    /// Takes an event out.
    fn next(&mut self, name: Name) -> Next {
        let Some(subscription) = self.subscriptions.get_mut(&name.id()) else { return Next::Nothing };
        let next = subscription.queue.pop();
        let readable = subscription.queue.is_readable();
        self.watchers.set_ready(name, readable);
        next
    }

    /// Makes a call; its end, or what to ask for later.
    fn call(
        &mut self,
        key: Key,
        call: Call,
        fd: BorrowedFd<'_>,
    ) -> std::result::Result<Result<Answer>, CallId> {
        if let Call::BeforeConnect(_) = call {
            self.manager.expect(key, 0);
        }
        let id = self.manager.call(key, call, Leave { peers: true, ..Leave::default() });
        self.work(Some(fd));
        self.ended.remove(&id).ok_or(id)
    }
}

/// The backend, if this process may.
pub fn available() -> Result<&'static dyn PathControl> {
    let namespace = thread_namespace()?;
    let managed = STATE.get().is_some_and(|state| lock(state).iter().any(|n| n.is(namespace)));
    if !managed {
        with(namespace, |_| Ok(()))?;
    }
    Ok(&DIRECT)
}

/// The backend, if it has been used in this process.
pub fn existing() -> Option<&'static dyn PathControl> {
    STATE.get().map(|_| &DIRECT as &dyn PathControl)
}

/// Steps what is managed, if nobody else is at it and it was not done within
/// this millisecond. One atomic load where nothing is managed.
pub fn touch() {
    let Some(state) = STATE.get() else { return };
    let now = process::milliseconds();
    if state.stepped.swap(now, Ordering::Relaxed) == now {
        return;
    }
    let Ok(mut namespaces) = state.namespaces.try_lock() else { return };
    namespaces.iter_mut().filter(|n| n.intact()).for_each(Namespace::step);
}

/// A descriptor that tells of a socket, or of all connections that are known.
fn subscribe(socket: Option<&Socket<'_>>, events: u32) -> Result<OwnedFd> {
    let fd = match socket {
        Some(socket) => {
            let listens = socket.stage()? == Stage::Listening;
            on(socket, |namespace, key| namespace.subscribe(Some((socket.fd, key, listens)), events))
        }
        None => with(thread_namespace()?, |namespace| namespace.subscribe(None, events)),
    }?;
    if let Some(state) = STATE.get() {
        // One with this number that was another namespace's has been closed.
        for namespace in lock(state).iter_mut() {
            namespace.watchers.lose(fd.as_raw_fd());
            namespace.clear();
        }
    }
    Ok(fd)
}

/// Does what there is to do, and then `act`, if this is a descriptor of
/// [`subscribe`]'s: EINVAL where it isn't.
fn at<T>(fd: BorrowedFd<'_>, act: impl FnOnce(&mut Namespace, Name) -> T) -> Result<T> {
    let stranger =
        || Error::new(libc::EINVAL, "the descriptor is not one of mptcp_subscribe(), or of another process");
    let shown = watchers::look(fd).map_err(|errno| match errno {
        Errno(libc::EINVAL) => stranger(),
        errno => Error::kernel(errno, "looking for events"),
    })?;
    let mut namespaces = lock(STATE.get().ok_or_else(stranger)?);
    let number = fd.as_raw_fd();
    // Where nothing is readable only the number tells, or a look at what the
    // descriptor watches.
    let mut known = Vec::from_iter(shown.name);
    if known.is_empty() {
        known.extend(namespaces.iter().find_map(|namespace| namespace.watchers.idle_at(number)));
    }
    if known.is_empty() {
        known = watchers::names(fd);
    }
    let found = namespaces.iter_mut().find_map(|namespace| {
        let name = known.iter().find(|name| namespace.watchers.has(**name))?;
        Some((*name, namespace))
    });
    let Some((name, namespace)) = found else { return Err(stranger()) };
    if shown.name.is_some() {
        namespace.watchers.used(name, fd, namespace.manager.event_fd());
    }
    if shown.work {
        namespace.serve().map_err(|error| Error::new(libc::EIO, error.to_string()))?;
    }
    Ok(act(namespace, name))
}

/// Does what there is to do; EINVAL where it is no descriptor of [`subscribe`]'s.
pub fn serve(fd: BorrowedFd<'_>) -> Result<()> {
    at(fd, |_, _| ())
}

/// The same, and takes an event out.
pub fn next_event(fd: BorrowedFd<'_>) -> Result<Next> {
    at(fd, Namespace::next)
}

fn thread_namespace() -> Result<u64> {
    match sockopt::thread_netns() {
        Ok(cookie) => Ok(cookie),
        // Before 5.14 namespaces can't be told apart.
        Err(Errno(libc::ENOPROTOOPT)) => Ok(0),
        Err(errno) => Err(Error::kernel(errno, "asking for the network namespace")),
    }
}

fn lock(state: &State) -> MutexGuard<'_, Vec<Namespace>> {
    state.namespaces.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `act` on the manager of a namespace, stepped, and made at first use.
fn with<T>(namespace: u64, act: impl FnOnce(&mut Namespace) -> Result<T>) -> Result<T> {
    let state = match STATE.get() {
        Some(state) => state,
        None => {
            // Where it fails nothing is kept: the next call may find the broker.
            let first = Namespace::open(namespace)?;
            let make = || State { namespaces: Mutex::new(vec![first]), stepped: AtomicU64::new(0) };
            STATE.get_or_init(make).map_err(|e| Error::kernel(e, "making room for state"))?
        }
    };
    let mut namespaces = lock(state);
    if let Some(broken) = namespaces.iter_mut().find(|n| n.is(namespace) && !n.intact()) {
        broken.renew()?;
    }
    let at = match namespaces.iter().position(|n| n.is(namespace)) {
        Some(at) => at,
        None => {
            namespaces.push(Namespace::open(namespace)?);
            namespaces.len() - 1
        }
    };
    let Some(found) = namespaces.get_mut(at) else {
        return Err(Error::new(libc::ENOTRECOVERABLE, "no manager"));
    };
    found.step();
    act(found)
}

/// The same for a socket, which must be of the calling thread's namespace.
fn on<T>(socket: &Socket<'_>, act: impl FnOnce(&mut Namespace, Key) -> Result<T>) -> Result<T> {
    let thread = thread_namespace()?;
    let of_socket = match sockopt::netns_cookie(socket.fd) {
        Ok(cookie) => cookie,
        Err(Errno(libc::ENOPROTOOPT)) => thread,
        Err(errno) => return Err(Error::kernel(errno, "asking for the socket's network namespace")),
    };
    if of_socket != thread {
        return Err(Error::new(
            libc::EOPNOTSUPP,
            "the socket belongs to another network namespace than the calling thread",
        ));
    }
    let key = socket.key()?;
    with(thread, |namespace| act(namespace, key))
}

/// Makes a call and waits for its end, as long as it can take; the lock is
/// free meanwhile.
fn call(socket: &Socket<'_>, call: Call) -> Result<Answer> {
    let (interruptible, patience) = (call.is_long(), call.patience());
    let id = match on(socket, |namespace, key| Ok(namespace.call(key, call, socket.fd)))? {
        Ok(result) => return result,
        Err(id) => id,
    };
    let patience = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX).saturating_add(500);
    let deadline = process::milliseconds().saturating_add(patience);
    loop {
        let (ended, events) = on(socket, |namespace, _| {
            namespace.work(Some(socket.fd));
            let events = sockopt::duplicate(namespace.manager.event_fd()).ok();
            Ok((namespace.ended.remove(&id), events))
        })?;
        if let Some(result) = ended {
            return result;
        }
        let left = deadline.saturating_sub(process::milliseconds());
        let abandon = || {
            let _ = on(socket, |namespace, _| {
                namespace.manager.abandon(id);
                Ok(())
            });
        };
        if left == 0 {
            abandon();
            return Err(Error::new(libc::ENOTRECOVERABLE, "the request was never answered"));
        }
        if let Some(events) = events
            && sockopt::poll(events.as_fd(), libc::POLLIN, left.min(50) as i32) == Err(Errno(libc::EINTR))
            && interruptible
        {
            abandon();
            return Err(Error::new(libc::EINTR, "a signal came; the subflow is being opened"));
        }
    }
}

/// Where a connection is to begin, if the socket is as its list has made it:
/// what [`Call::BeforeConnect`] would say, without a look at anything else.
fn planned(socket: &Socket<'_>) -> Option<Start> {
    let of_socket = sockopt::netns_cookie(socket.fd).unwrap_or(0);
    let key = socket.key().ok()?;
    let namespaces = lock(STATE.get()?);
    let namespace = namespaces.iter().find(|namespace| namespace.is(of_socket))?;
    let (start, prepared) = namespace.manager.planned(&key)?;
    let unbound = || socket.bound_by_application().is_none() && !socket.on_device();
    // Routing is asked in the thread's namespace.
    let here = || sockopt::thread_netns().map_or(true, |thread| thread == of_socket);
    (!namespace.hands.lost(socket.fd, &prepared) && unbound() && here()).then_some(start)
}

/// What is known of a socket, for a thread of another namespace too: a list
/// binds whoever connects it.
fn known(socket: &Socket<'_>) -> Option<Facts> {
    let of_socket = sockopt::netns_cookie(socket.fd).ok()?;
    let key = socket.key().ok()?;
    let namespaces = lock(STATE.get()?);
    let namespace = namespaces.iter().find(|namespace| namespace.is(of_socket))?;
    Some(namespace.manager.facts(&key))
}

/// Whether the socket's namespace has a manager.
fn managed(socket: &Socket<'_>) -> bool {
    STATE.get().is_some_and(|state| {
        let of_socket = sockopt::netns_cookie(socket.fd).unwrap_or(0);
        lock(state).iter().any(|namespace| namespace.is(of_socket))
    })
}

fn done(socket: &Socket<'_>, what: Call) -> Result<()> {
    call(socket, what).map(drop)
}

fn ask(socket: &Socket<'_>, request: Request) -> Result<()> {
    done(socket, Call::Ask(request))
}

impl PathControl for Direct {
    fn add(&self, socket: &Socket<'_>, entries: Vec<Entry>) -> Result<()> {
        ask(socket, Request::Add(entries))
    }

    fn remove(&self, socket: &Socket<'_>, addrs: Vec<SocketAddr>) -> Result<()> {
        let patience = if sockopt::nonblocking(socket.fd) { Time::ZERO } else { PATIENCE };
        ask(socket, Request::Remove { addrs, patience })
    }

    fn respect_binding(&self, socket: &Socket<'_>) -> Result<()> {
        done(socket, Call::RespectBinding)
    }

    fn before_connect(&self, socket: &Socket<'_>, peers: &[SocketAddr]) -> Result<Start> {
        if let [_] = peers
            && let Some(start) = planned(socket)
        {
            return Ok(start);
        }
        match call(socket, Call::BeforeConnect(peers.to_vec()))? {
            Answer::Start(start) => Ok(start),
            _ => Ok(Start::AsIs),
        }
    }

    fn connected(&self, socket: &Socket<'_>, key: Key, token: u32) {
        let Some(state) = STATE.get() else { return };
        let of_socket = sockopt::netns_cookie(socket.fd).unwrap_or(0);
        let mut namespaces = lock(state);
        let Some(namespace) = namespaces.iter_mut().find(|n| n.is(of_socket)) else { return };
        if token != 0 {
            namespace.manager.note_connected(key, token);
        } else if namespace.manager.waits_for(&key)
            && let (Ok(local), Ok(remote)) = (sockopt::sockname(socket.fd), sockopt::peername(socket.fd))
        {
            namespace.manager.note_plain(key, (local, remote));
            namespace.deliver();
        }
    }

    fn disconnected(&self, socket: &Socket<'_>) {
        let _ = on(socket, |namespace, key| {
            namespace.manager.note_unswitched(&key);
            Ok(())
        });
    }

    fn make_socket(&self, domain: i32, kind: i32) -> Result<OwnedFd> {
        with(thread_namespace()?, |namespace| {
            let socket = namespace.hands.socket(domain, kind)?;
            namespace.manager.note_switched(stream::key_of(socket.as_fd())?);
            Ok(socket)
        })
    }

    fn forget(&self, socket: &Socket<'_>) {
        let _ = on(socket, |namespace, key| {
            namespace.manager.forget(key);
            Ok(())
        });
    }

    fn facts(&self, socket: &Socket<'_>) -> Facts {
        match managed(socket).then(|| call(socket, Call::Facts)) {
            Some(Ok(Answer::Facts(facts))) => facts,
            Some(Err(_)) => known(socket).unwrap_or_default(),
            _ => Facts::default(),
        }
    }

    fn settings(&self, socket: &Socket<'_>) -> Result<Settings> {
        match managed(socket).then(|| call(socket, Call::Settings)) {
            Some(Ok(Answer::Settings(settings))) => Ok(settings),
            Some(Err(error)) => Err(error),
            _ => Ok(Settings::default()),
        }
    }

    fn set(&self, socket: &Socket<'_>, setting: Setting) -> Result<()> {
        ask(socket, Request::Set(setting))
    }

    fn open(&self, socket: &Socket<'_>, open: &Open) -> Result<()> {
        let Open { local, remote, backup, wait } = *open;
        ask(socket, Request::Open { local, remote, backup, wait })
    }

    fn close(&self, socket: &Socket<'_>, local: SocketAddr, remote: SocketAddr) -> Result<()> {
        ask(socket, Request::Close { local, remote })
    }

    fn pin(&self, socket: &Socket<'_>, local: SocketAddr, remote: SocketAddr, backup: bool) -> Result<()> {
        ask(socket, Request::Pin { local, remote, backup })
    }

    fn control(&self, socket: &Socket<'_>) -> Result<Control> {
        match call(socket, Call::Control)? {
            Answer::Control(control) => Ok(control),
            _ => Ok(Control::Unknown),
        }
    }

    fn subscribe(&self, socket: Option<&Socket<'_>>, events: u32) -> Result<OwnedFd> {
        subscribe(socket, events)
    }

    fn abilities(&self) -> Abilities {
        let look = |namespace: &mut Namespace| {
            let hands = &mut namespace.hands;
            Ok(Abilities { switch: hands.switchable().is_ok(), listen: hands.userspace_mode() })
        };
        let none = Abilities { switch: false, listen: false };
        thread_namespace().and_then(|namespace| with(namespace, look)).unwrap_or(none)
    }

    fn backend(&self) -> Backend {
        Backend::Direct
    }
}
