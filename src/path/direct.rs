// SPDX-License-Identifier: MIT OR Apache-2.0
//! The direct backend: this process has CAP_NET_ADMIN and steps a manager
//! inside the application's own calls.

use super::{Abilities, Backend, Control, PathControl, Start};
use crate::addr::{self, LIST_MAX};
use crate::engine::{Connection, Device, Entry, Key, Phase, Request, Time};
use crate::error::{Errno, Error, Result};
use crate::kernel::process::{self, PerProcess};
use crate::kernel::{route, sockopt};
use crate::manager::{self, Manager};
use crate::socket::{Socket, Stage};
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

struct State {
    managers: Mutex<Vec<Manager>>,
    stepped: AtomicU64,
}

static STATE: PerProcess<State> = PerProcess::new();
static DIRECT: Direct = Direct;

struct Direct;

/// How long REMOVE waits for an alternative subflow on a blocking socket.
const PATIENCE: Time = Time::from_secs(2);

/// The backend, if this process may.
pub fn available() -> Result<&'static dyn PathControl> {
    let namespace = thread_namespace()?;
    let managed = STATE.get().is_some_and(|state| lock(state).iter().any(|m| m.namespace() == namespace));
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
    let Ok(mut managers) = state.managers.try_lock() else { return };
    managers.iter_mut().filter(|m| m.intact()).for_each(Manager::step);
}

fn thread_namespace() -> Result<u64> {
    match sockopt::thread_netns() {
        Ok(cookie) => Ok(cookie),
        // Before 5.14 namespaces can't be told apart.
        Err(Errno(libc::ENOPROTOOPT)) => Ok(0),
        Err(errno) => Err(Error::kernel(errno, "asking for the network namespace")),
    }
}

fn lock(state: &State) -> MutexGuard<'_, Vec<Manager>> {
    state.managers.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs `act` on the manager of a namespace, stepped, and made at first use.
fn with<T>(namespace: u64, act: impl FnOnce(&mut Manager) -> Result<T>) -> Result<T> {
    let make = || State { managers: Mutex::new(Vec::new()), stepped: AtomicU64::new(0) };
    let state = STATE.get_or_init(make).map_err(|e| Error::kernel(e, "making room for state"))?;
    let mut managers = lock(state);
    if let Some(broken) = managers.iter_mut().find(|m| m.namespace() == namespace && !m.intact()) {
        broken.renew()?;
    }
    let at = match managers.iter().position(|m| m.namespace() == namespace) {
        Some(at) => at,
        None => {
            managers.push(Manager::open(namespace)?);
            managers.len() - 1
        }
    };
    let Some(manager) = managers.get_mut(at) else {
        return Err(Error::new(libc::ENOTRECOVERABLE, "no manager"));
    };
    manager.step();
    act(manager)
}

/// The same for a socket, which must be of the calling thread's namespace.
fn on<T>(socket: &Socket<'_>, act: impl FnOnce(&mut Manager, Key) -> Result<T>) -> Result<T> {
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
    let key = manager::key_of(socket.fd)?;
    with(thread, |manager| {
        disconnected_unseen(manager, socket, key);
        act(manager, key)
    })
}

/// connect(AF_UNSPEC) drops list and control, and nothing tells of it where
/// there was no connection.
fn disconnected_unseen(manager: &mut Manager, socket: &Socket<'_>, key: Key) {
    let waiting = manager.engine().by_key(&key).is_some_and(|c| c.phase == Phase::Prepared);
    if waiting && manager.lost(socket.fd, &key) && socket.stage() == Ok(Stage::Unconnected) {
        manager.forget(key);
    }
}

/// The same, only where something is managed already.
fn peek<T>(socket: &Socket<'_>, look: impl FnOnce(&mut Manager, &Connection) -> Option<T>) -> Option<T> {
    let state = STATE.get()?;
    let namespace = sockopt::netns_cookie(socket.fd).unwrap_or(0);
    let key = manager::key_of(socket.fd).ok()?;
    let mut managers = lock(state);
    let manager = managers.iter_mut().find(|m| m.namespace() == namespace && m.intact())?;
    if manager.engine().by_key(&key).is_none() {
        // Its beginning may not have been read yet.
        manager.step();
        adopt(manager, socket, key);
    }
    disconnected_unseen(manager, socket, key);
    let connection = manager.engine().by_key(&key)?.clone();
    look(manager, &connection)
}

/// An accepted connection is known by its token until its descriptor shows up.
fn adopt(manager: &mut Manager, socket: &Socket<'_>, key: Key) {
    if manager.engine().by_key(&key).is_none()
        && let Ok(info) = sockopt::info(socket.fd)
        && info.token != 0
    {
        manager.adopt(info.token, key);
    }
}

/// What the application bound an unconnected socket to: an address, a device.
fn binding(manager: &Manager, socket: &Socket<'_>, key: &Key) -> (Option<SocketAddr>, Option<Device>) {
    let ours = manager.prepared(key).bound;
    let name = sockopt::sockname(socket.fd).ok().map(addr::canonical);
    let bound = name.filter(|name| {
        // Ours has no port yet: the application's always has one.
        let by_us = name.port() == 0 && ours.is_some_and(|ours| addr::same_ip(&ours, name));
        !addr::is_wildcard(name) && !by_us
    });
    (bound, socket.device())
}

/// Every address must be of this host and of a family the socket can use, and
/// its port free; one that the socket has already was checked before.
fn check(socket: &Socket<'_>, known: Option<&Connection>, entries: &[Entry], listening: bool) -> Result<()> {
    for entry in entries {
        socket.check_family(&entry.addr)?;
        if known.is_some_and(|c| c.entries.iter().any(|e| e.addr == entry.addr)) {
            continue;
        }
        let own = sockopt::sockname(socket.fd).ok().map(addr::canonical);
        let probe = match own {
            Some(own) if listening || own == entry.addr => addr::with_port(entry.addr, 0),
            _ => entry.addr,
        };
        route::bindable(&probe).map_err(|errno| cannot_bind(errno, &entry.addr))?;
    }
    let known = known.map(|c| c.entries.as_slice()).unwrap_or_default();
    let fresh = entries.iter().filter(|e| !known.iter().any(|k| k.addr == e.addr)).count();
    if known.len() + fresh > LIST_MAX {
        return Err(Error::new(libc::ENOSPC, format!("a socket's list holds {LIST_MAX} addresses at most")));
    }
    Ok(())
}

fn cannot_bind(errno: Errno, addr: &SocketAddr) -> Error {
    match errno {
        Errno(libc::EADDRNOTAVAIL | libc::ENODEV | libc::EINVAL | libc::ENXIO) => {
            Error::new(libc::EADDRNOTAVAIL, format!("{} is not an address of this host", addr.ip()))
        }
        Errno(libc::EADDRINUSE) => {
            Error::new(libc::EADDRINUSE, format!("port {} of {} is taken", addr.port(), addr.ip()))
        }
        Errno(libc::EACCES) => Error::new(
            libc::EACCES,
            format!("port {} of {} needs CAP_NET_BIND_SERVICE", addr.port(), addr.ip()),
        ),
        Errno(libc::EAFNOSUPPORT) => Error::new(libc::EOPNOTSUPP, "IPv6 is off on this host"),
        errno => Error::kernel(errno, &format!("binding to {addr}")),
    }
}

/// Makes the connection behind a connected socket known.
fn known_connection(manager: &mut Manager, socket: &Socket<'_>, key: Key) -> Result<()> {
    let info = sockopt::info(socket.fd).map_err(|_| socket.no_mptcp())?;
    adopt(manager, socket, key);
    if manager.engine().by_key(&key).is_some_and(|c| c.phase == Phase::Open && c.token == Some(info.token)) {
        return Ok(());
    }
    let pairs = socket.listed()?;
    manager.discover(socket.fd, key, info.token, &pairs)
}

/// Without late binding the initial subflow is routing's choice; so where one
/// address is all there is, the socket is bound to it, in a way that the
/// application can still bind it itself.
fn adjust_bind(manager: &mut Manager, socket: &Socket<'_>, key: Key) {
    let Some(connection) = manager.engine().by_key(&key) else { return };
    let ours = manager.prepared(&key).bound;
    let listed = |addr: &SocketAddr| connection.entries.iter().any(|e| addr::same_ip(&e.addr, addr));
    let only = match connection.entries.as_slice() {
        [entry]
            if entry.subflow
                && entry.addr.port() == 0
                && connection.bound.is_none()
                && connection.device.is_none()
                && socket.only_family(&entry.addr) =>
        {
            Some(entry.addr)
        }
        _ => None,
    };
    let keep = ours.is_some_and(|ours| listed(&ours));
    if ours.is_some() && !keep {
        let _ = socket.late_bind(&socket.wildcard());
        manager.note_bound(key, None);
    }
    let unbound = || {
        sockopt::sockname(socket.fd)
            .is_ok_and(|name| addr::is_wildcard(&addr::canonical(name)) && name.port() == 0)
    };
    if let Some(only) = only
        && !keep
        && unbound()
        && socket.late_bind(&only).is_ok()
    {
        manager.note_bound(key, Some(only));
    }
}

/// Puts an unconnected socket under control and tells the engine of it.
fn prepare(manager: &mut Manager, socket: &Socket<'_>, key: Key) -> Result<()> {
    let (bound, device) = binding(manager, socket, &key);
    manager.switch(socket.fd, key)?;
    manager.binding(key, bound, device);
    Ok(())
}

/// Makes a request; what its answer waits for, if anything.
fn ask(manager: &mut Manager, key: Key, request: Request) -> Result<Option<u64>> {
    let id = manager.request(key, request);
    match manager.answer(id) {
        Some(result) => result.map(|()| None),
        None => Ok(Some(id)),
    }
}

/// Waits for an answer; the lock is free meanwhile.
fn answer(socket: &Socket<'_>, request: Option<u64>, patience: Time) -> Result<()> {
    let Some(request) = request else { return Ok(()) };
    let deadline = process::milliseconds() + patience.as_millis() as u64 + 100;
    loop {
        let (answer, events) = on(socket, |manager, _| {
            let events = sockopt::duplicate(manager.event_fd()).ok();
            Ok((manager.answer(request), events))
        })?;
        if let Some(result) = answer {
            return result;
        }
        let left = deadline.saturating_sub(process::milliseconds());
        if left == 0 {
            return Err(Error::new(libc::ENOTRECOVERABLE, "the request was never answered"));
        }
        if let Some(events) = events {
            let _ = sockopt::poll(events.as_fd(), libc::POLLIN, left.min(50) as i32);
        }
    }
}

fn listening_needs_namespace() -> Error {
    Error::new(
        libc::EOPNOTSUPP,
        "accepted connections are the in-kernel path manager's: a server's list needs \
         net.mptcp.path_manager=userspace in this network namespace",
    )
}

impl PathControl for Direct {
    fn add(&self, socket: &Socket<'_>, entries: Vec<Entry>) -> Result<()> {
        let request = on(socket, |manager, key| {
            let stage = socket.stage()?;
            match stage {
                Stage::Ended => return Err(socket.not_connected()),
                Stage::Unconnected => {
                    check(socket, manager.engine().by_key(&key), &entries, false)?;
                    prepare(manager, socket, key)?;
                }
                Stage::Listening => {
                    if !manager.userspace_mode() {
                        return Err(listening_needs_namespace());
                    }
                    check(socket, manager.engine().by_key(&key), &entries, true)?;
                    let (_, device) = binding(manager, socket, &key);
                    manager.binding(key, None, device);
                }
                Stage::Connecting => {
                    if !manager.engine().by_key(&key).is_some_and(|c| c.listed) {
                        return Err(Error::new(
                            libc::EOPNOTSUPP,
                            "the socket is connecting without a list: ADD before connect(2), or after it",
                        ));
                    }
                    check(socket, manager.engine().by_key(&key), &entries, false)?;
                }
                Stage::Connected => {
                    known_connection(manager, socket, key)?;
                    check(socket, manager.engine().by_key(&key), &entries, false)?;
                }
            }
            let request = ask(manager, key, Request::Add(entries))?;
            if stage == Stage::Unconnected {
                adjust_bind(manager, socket, key);
            }
            Ok(request)
        })?;
        answer(socket, request, Time::ZERO)
    }

    fn remove(&self, socket: &Socket<'_>, addrs: Vec<SocketAddr>) -> Result<()> {
        let patience = if sockopt::nonblocking(socket.fd) { Time::ZERO } else { PATIENCE };
        let request = on(socket, |manager, key| {
            for addr in &addrs {
                socket.check_family(addr)?;
            }
            let stage = socket.stage()?;
            match stage {
                Stage::Connected => known_connection(manager, socket, key)?,
                Stage::Listening if !manager.userspace_mode() => return Err(listening_needs_namespace()),
                Stage::Connecting if !manager.engine().by_key(&key).is_some_and(|c| c.listed) => {
                    return Err(Error::new(libc::EOPNOTSUPP, "the socket is connecting without a list"));
                }
                _ => {}
            }
            if !manager.engine().by_key(&key).is_some_and(Connection::restricted) {
                for addr in &addrs {
                    let probe = addr::with_port(*addr, 0);
                    route::bindable(&probe).map_err(|errno| cannot_bind(errno, addr))?;
                }
            }
            if stage == Stage::Unconnected {
                prepare(manager, socket, key)?;
            }
            let before = manager.engine().by_key(&key).map(|c| c.entries.clone()).unwrap_or_default();
            let request = ask(manager, key, Request::Remove { addrs: addrs.clone(), patience })?;
            if stage == Stage::Unconnected {
                adjust_bind(manager, socket, key);
                if !manager.engine().by_key(&key).is_some_and(Connection::steers)
                    && let Err(error) = manager.release(socket.fd, key)
                {
                    if !before.is_empty() {
                        ask(manager, key, Request::Add(before))?;
                        adjust_bind(manager, socket, key);
                    }
                    return Err(error);
                }
            }
            Ok(request)
        })?;
        answer(socket, request, patience)
    }

    fn respect_binding(&self, socket: &Socket<'_>) -> Result<()> {
        on(socket, |manager, key| {
            let (bound, device) = binding(manager, socket, &key);
            if bound.is_some() || device.is_some() {
                prepare(manager, socket, key)?;
            }
            Ok(())
        })
    }

    fn before_connect(&self, socket: &Socket<'_>, peers: &[SocketAddr]) -> Result<Start> {
        on(socket, |manager, key| {
            let (bound, device) = binding(manager, socket, &key);
            let steered = manager.engine().by_key(&key).is_some_and(Connection::steers);
            if !(steered || bound.is_some() || device.is_some() || peers.len() > 1) {
                return Ok(Start::AsIs);
            }
            prepare(manager, socket, key)?;
            manager.peers(key, peers.iter().copied().skip(1).collect());
            Ok(match manager.engine().by_key(&key) {
                Some(c) if bound.is_none() && c.restricted() => Start::From(c.first_choices()),
                // Routing's choice, made now: a switched socket that is not
                // bound can get another address id than 0 for it.
                Some(c) if bound.is_none() => {
                    let host = route::host_addresses().unwrap_or_default().into_iter().map(|host| host.addr);
                    Start::From(host.filter(|addr| c.allows(addr)).collect())
                }
                _ => Start::AsIs,
            })
        })
    }

    fn has_bound(&self, socket: &Socket<'_>) -> bool {
        peek(socket, |manager, connection| {
            let ours = manager.prepared(&connection.key).bound.is_some();
            (ours && binding(manager, socket, &connection.key).0.is_none()).then_some(())
        })
        .is_some()
    }

    fn bound_by_us(&self, socket: &Socket<'_>, local: SocketAddr) {
        let _ = on(socket, |manager, key| {
            manager.note_bound(key, Some(local));
            Ok(())
        });
    }

    fn disconnected(&self, socket: &Socket<'_>) {
        let _ = on(socket, |manager, key| {
            manager.note_unswitched(&key);
            Ok(())
        });
    }

    fn make_socket(&self, domain: i32, kind: i32) -> Result<OwnedFd> {
        with(thread_namespace()?, |manager| manager.socket(domain, kind))
    }

    fn forget(&self, socket: &Socket<'_>) {
        let _ = on(socket, |manager, key| {
            manager.forget(key);
            Ok(())
        });
    }

    fn list(&self, socket: &Socket<'_>) -> Option<Vec<SocketAddr>> {
        peek(socket, |_, connection| connection.list())
    }

    fn peers(&self, socket: &Socket<'_>) -> Vec<SocketAddr> {
        peek(socket, |_, connection| Some(connection.peers.iter().map(|peer| peer.addr).collect()))
            .unwrap_or_default()
    }

    fn control(&self, socket: &Socket<'_>) -> Result<Control> {
        on(socket, |manager, key| {
            adopt(manager, socket, key);
            let ours = match manager.engine().by_key(&key) {
                Some(c) if c.phase == Phase::Open => Some(!c.foreign),
                _ if manager.prepared(&key).switched => Some(true),
                _ => None,
            };
            let token = sockopt::info(socket.fd).map_or(0, |info| info.token);
            let ours = match ours {
                Some(ours) => ours,
                None if token != 0 && socket.stage() == Ok(Stage::Connected) => manager.controls(token)?,
                None => manager.userspace_mode(),
            };
            Ok(if ours { Control::Connection } else { Control::Kernel })
        })
    }

    fn abilities(&self) -> Abilities {
        let look = |manager: &mut Manager| {
            Ok(Abilities { switch: manager.switchable().is_ok(), listen: manager.userspace_mode() })
        };
        let none = Abilities { switch: false, listen: false };
        thread_namespace().and_then(|namespace| with(namespace, look)).unwrap_or(none)
    }

    fn backend(&self) -> Backend {
        Backend::Direct
    }
}
