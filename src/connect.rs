// SPDX-License-Identifier: MIT OR Apache-2.0
//! connectx: one peer, several addresses, in turn; the first subflow starts
//! where the list says.

use crate::addr;
use crate::engine::Key;
use crate::error::{Errno, Error, KernelResult, Result};
use crate::kernel::process::{self, PerProcess};
use crate::kernel::{route, sockopt, uapi};
use crate::path::{self, Start};
use crate::stream::{Socket, Stage};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Where a connection attempt in steps has got to.
#[derive(Clone, Debug)]
struct Position {
    peers: Vec<SocketAddr>,
    at: usize,
}

static POSITIONS: PerProcess<Mutex<HashMap<Key, Position>>> = PerProcess::new();

/// Attempts whose socket was closed half-way are never finished; no more than
/// these are remembered.
const POSITIONS_MAX: usize = 65536;

fn positions() -> Result<MutexGuard<'static, HashMap<Key, Position>>> {
    let map = POSITIONS.get_or_init(|| Mutex::new(HashMap::new()));
    let map = map.map_err(|e| Error::kernel(e, "making room for state"))?;
    Ok(map.lock().unwrap_or_else(PoisonError::into_inner))
}

fn remember(key: Key, position: Position) -> Result<()> {
    let mut positions = positions()?;
    if positions.len() >= POSITIONS_MAX
        && let Some(any) = positions.keys().next().copied()
    {
        positions.remove(&any);
    }
    positions.insert(key, position);
    Ok(())
}

fn recall(key: &Key) -> Option<Position> {
    POSITIONS.get()?;
    positions().ok()?.get(key).cloned()
}

fn forget(key: &Key) {
    if POSITIONS.get().is_some()
        && let Ok(mut positions) = positions()
    {
        positions.remove(key);
    }
}

/// Connects to the first of these addresses of *one* peer that answers; the
/// others get subflows as the engine can. The connection id, 0 for plain TCP.
///
/// On a non-blocking socket: EINPROGRESS; when the socket is writable call
/// again with the same list. EINTR: call again.
pub fn connect(fd: impl AsFd, peers: &[SocketAddr]) -> Result<u32> {
    connect_to(&Socket::of(fd.as_fd())?, peers)
}

/// [`connect`] of a socket that has been looked at.
pub(crate) fn connect_to(socket: &Socket<'_>, peers: &[SocketAddr]) -> Result<u32> {
    if peers.is_empty() || peers.len() > addr::LIST_MAX {
        return Err(Error::new(libc::EINVAL, format!("one to {} addresses of the peer", addr::LIST_MAX)));
    }
    let peers = addr::checked(peers.iter().copied().map(addr::canonical).collect())?;
    for peer in &peers {
        socket.check_family(peer)?;
    }
    let key = socket.key()?;
    let mut at = match socket.stage()? {
        Stage::Connected => return connected(socket, key, &peers),
        Stage::Listening => return Err(Error::new(libc::EISCONN, "the socket listens")),
        Stage::Connecting if sockopt::nonblocking(socket.fd) => {
            return Err(Error::new(libc::EALREADY, "the connection attempt is still under way"));
        }
        Stage::Connecting => {
            let position = recall(&key).filter(|position| position.peers == peers);
            let at = position.map_or(0, |position| position.at);
            match wait(socket, &peers, at) {
                Ok(()) => return connected(socket, key, &peers),
                // SO_SNDTIMEO ended the wait, not the attempt.
                Err(Errno(libc::EALREADY)) => {
                    return Err(Error::new(libc::EINPROGRESS, "the connection attempt is still under way"));
                }
                Err(errno) => next(socket, key, &peers, at, errno)?,
            }
        }
        Stage::Unconnected | Stage::Ended => match recall(&key).filter(|position| position.peers == peers) {
            None => 0,
            // The attempt that was under way has failed.
            Some(position) => {
                let errno = sockopt::get_int(socket.fd, libc::SOL_SOCKET, libc::SO_ERROR);
                let errno = errno.ok().filter(|errno| *errno != 0).unwrap_or(libc::ECONNREFUSED);
                next(socket, key, &peers, position.at, Errno(errno))?
            }
        },
    };
    // A single attempt is bounded by the kernel itself.
    let deadline = if peers.len() > 1 { deadline(socket) } else { None };
    loop {
        let left = peers.get(at..).unwrap_or_default();
        let Some(peer) = left.first() else {
            return Err(Error::new(libc::EINVAL, "no address left to try"));
        };
        if let Err(error) = start(socket, left, peer) {
            if error.errno() == libc::EADDRNOTAVAIL && left.len() > 1 {
                // Not from here; the list may have an address that reaches another.
                at += 1;
                continue;
            }
            forget(&key);
            return Err(error);
        }
        match attempt(socket, peer, deadline, left.len()) {
            Ok(()) => {
                forget(&key);
                return begun(socket, key);
            }
            Err(Errno(libc::EINPROGRESS))
                if deadline.is_some_and(|d| process::milliseconds() < d) && left.len() > 1 =>
            {
                // Its share of SO_SNDTIMEO is over; a blocking socket goes on.
                at = next(socket, key, &peers, at, Errno(libc::ETIMEDOUT))?;
            }
            Err(errno @ Errno(libc::EINPROGRESS | libc::EINTR)) => {
                remember(key, Position { peers: peers.clone(), at })?;
                return Err(Error::kernel(errno, &format!("connecting to {peer}")));
            }
            Err(errno) => at = next(socket, key, &peers, at, errno)?,
        }
    }
}

/// The connection is there: to a peer of the list?
fn connected(socket: &Socket<'_>, key: Key, peers: &[SocketAddr]) -> Result<u32> {
    forget(&key);
    let peer = sockopt::peername(socket.fd).map(addr::canonical);
    let peer = peer.map_err(|e| Error::kernel(e, "asking for the peer"))?;
    if !peers.iter().any(|known| addr::same(known, &peer)) {
        return Err(Error::new(
            libc::EISCONN,
            format!("the socket is connected to {peer}, not to one of the list"),
        ));
    }
    begun(socket, key)
}

/// The connection to a peer of the list is there.
fn begun(socket: &Socket<'_>, key: Key) -> Result<u32> {
    let token = match sockopt::info(socket.fd) {
        Ok(info) if info.flags & uapi::INFO_REMOTE_KEY != 0 => info.token,
        _ => 0,
    };
    if socket.mptcp
        && let Some(control) = path::existing(socket)
    {
        control.connected(socket, key, token);
    }
    Ok(token)
}

/// The position after a failed attempt; the last attempt's error where there
/// is none.
fn next(socket: &Socket<'_>, key: Key, peers: &[SocketAddr], at: usize, errno: Errno) -> Result<usize> {
    if matches!(errno, Errno(libc::EINTR | libc::EINPROGRESS)) {
        return Err(Error::kernel(errno, "connecting"));
    }
    let peer = peers.get(at).map(SocketAddr::to_string).unwrap_or_default();
    // What is left of the attempt; without it the next connect(2) would only
    // report the old failure.
    let _ = sockopt::disconnect(socket.fd);
    if socket.mptcp
        && let Some(control) = path::existing(socket)
    {
        control.disconnected(socket);
    }
    let errno = match errno {
        // Not of connect(2)'s table: a local address that can't be used.
        Errno(libc::EINVAL) => Errno(libc::EADDRNOTAVAIL),
        errno => errno,
    };
    if at + 1 < peers.len() {
        return Ok(at + 1);
    }
    forget(&key);
    let more = if peers.len() > 1 { ", the last of the list" } else { "" };
    Err(Error::kernel(errno, &format!("connecting to {peer}{more}")))
}

/// Makes the socket ready for an attempt: under control where it is bound or
/// has a list, and bound to the list's address that routes to the peer.
fn start(socket: &Socket<'_>, left: &[SocketAddr], peer: &SocketAddr) -> Result<()> {
    if !socket.mptcp {
        return Ok(());
    }
    let choices = match path::control_of(socket) {
        Ok(control) => match control.before_connect(socket, left) {
            Ok(Start::From(choices)) => choices,
            Ok(Start::AsIs) => return Ok(()),
            // Nothing was promised for a socket without a list.
            Err(error) if matches!(error.errno(), libc::EPERM | libc::EOPNOTSUPP) && !listed(socket) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        },
        // A list binds also where its backend can't be asked just now (EMFILE).
        Err(error) if listed(socket) => return Err(error),
        Err(_) => return Ok(()),
    };
    bind(socket, &towards(socket, &choices, peer)?)
}

/// Of these local addresses the one that routes to the peer.
fn towards(socket: &Socket<'_>, choices: &[SocketAddr], peer: &SocketAddr) -> Result<SocketAddr> {
    let preferred = route::source(peer).ok();
    let fits = |choice: &&SocketAddr| addr::pair(choice, peer);
    let routed = choices.iter().filter(fits).find(|c| preferred.is_some_and(|p| addr::same_ip(&p, c)));
    let chosen = routed
        .or_else(|| choices.iter().filter(fits).find(|choice| route::reaches(choice, peer)))
        // Another namespace's routes tell nothing.
        .or_else(|| choices.iter().find(fits).filter(|_| !at_home(socket)));
    chosen
        .copied()
        .ok_or_else(|| Error::new(libc::EADDRNOTAVAIL, format!("no address of the list routes to {peer}")))
}

/// Binds a socket without path control to the one of these local addresses
/// that routes to the peer.
pub(crate) fn bind_towards(socket: &Socket<'_>, choices: &[SocketAddr], peer: &SocketAddr) -> Result<()> {
    bind(socket, &towards(socket, choices, peer)?)
}

/// The socket will be closed: nothing is to be remembered of its attempt.
pub(crate) fn abandon(socket: &Socket<'_>) {
    if let Ok(key) = socket.key() {
        forget(&key);
    }
}

/// Whether the socket is of the calling thread's network namespace.
fn at_home(socket: &Socket<'_>) -> bool {
    match (sockopt::netns_cookie(socket.fd), sockopt::thread_netns()) {
        (Ok(own), Ok(threads)) => own == threads,
        _ => true,
    }
}

fn listed(socket: &Socket<'_>) -> bool {
    path::list(socket).is_some()
}

fn bind(socket: &Socket<'_>, local: &SocketAddr) -> Result<()> {
    let name = sockopt::sockname(socket.fd).map(addr::canonical);
    if name.as_ref().is_ok_and(|name| addr::covers(local, name) && name.port() != 0) {
        return Ok(());
    }
    if let Ok(name) = name
        && addr::is_wildcard(&name)
        && name.port() != 0
    {
        return Err(Error::new(
            libc::EINVAL,
            format!(
                "the socket is bound to port {} already, and can't be to {} as well",
                name.port(),
                local.ip()
            ),
        ));
    }
    let bound = if local.port() == 0 {
        // Without late binding a port is chosen now, and kept.
        socket.late_bind(local).or_else(|_| sockopt::bind(socket.fd, &socket.native(*local)))
    } else {
        sockopt::bind(socket.fd, &socket.native(*local))
    };
    bound.map_err(|errno| match errno {
        Errno(libc::EADDRINUSE) => Error::new(libc::EADDRINUSE, format!("{local} is taken")),
        Errno(libc::EACCES) => Error::new(libc::EACCES, format!("{local} needs CAP_NET_BIND_SERVICE")),
        Errno(libc::EADDRNOTAVAIL) => {
            Error::new(libc::EADDRNOTAVAIL, format!("{} is not an address of this host any more", local.ip()))
        }
        errno => Error::kernel(errno, &format!("binding to {local}")),
    })?;
    Ok(())
}

/// When SO_SNDTIMEO ends it, on a blocking socket.
fn deadline(socket: &Socket<'_>) -> Option<u64> {
    if sockopt::nonblocking(socket.fd) {
        return None;
    }
    send_timeout(socket).map(|millis| process::milliseconds().saturating_add(millis))
}

/// SO_SNDTIMEO in milliseconds, `None` where it is not set.
pub(crate) fn send_timeout(socket: &Socket<'_>) -> Option<u64> {
    let mut bytes = [0u8; 16];
    let len = sockopt::get(socket.fd, libc::SOL_SOCKET, libc::SO_SNDTIMEO, &mut bytes).ok()?;
    let (seconds, micros) = bytes.get(..len)?.split_at_checked(len / 2)?;
    let number = |b: &[u8]| match b.len() {
        8 => b.try_into().ok().map(u64::from_ne_bytes),
        4 => b.try_into().ok().map(u32::from_ne_bytes).map(u64::from),
        _ => None,
    };
    let millis = number(seconds)?.saturating_mul(1000).saturating_add(number(micros)?.div_ceil(1000));
    (millis > 0).then_some(millis)
}

/// One connect(2); with a deadline and others to try, for its share of it.
fn attempt(socket: &Socket<'_>, peer: &SocketAddr, deadline: Option<u64>, left: usize) -> KernelResult<()> {
    let target = socket.native(*peer);
    let Some(deadline) = deadline else { return sockopt::connect(socket.fd, &target) };
    let remaining = deadline.saturating_sub(process::milliseconds());
    let share = (remaining / left.max(1) as u64).max(1);
    with_timeout(socket, share, || sockopt::connect(socket.fd, &target))
}

/// SO_SNDTIMEO is what bounds connect(2); the application's own value comes
/// back after it.
fn with_timeout(
    socket: &Socket<'_>,
    millis: u64,
    act: impl FnOnce() -> KernelResult<()>,
) -> KernelResult<()> {
    let mut own = [0u8; 16];
    let len = sockopt::get(socket.fd, libc::SOL_SOCKET, libc::SO_SNDTIMEO, &mut own)?;
    let own = own.get(..len).unwrap_or_default();
    let (seconds, micros) = (millis / 1000, millis % 1000 * 1000);
    let share = match len {
        16 => [seconds.to_ne_bytes(), micros.to_ne_bytes()].concat(),
        _ => [(seconds as u32).to_ne_bytes(), (micros as u32).to_ne_bytes()].concat(),
    };
    sockopt::set(socket.fd, libc::SOL_SOCKET, libc::SO_SNDTIMEO, &share)?;
    let result = act();
    sockopt::set(socket.fd, libc::SOL_SOCKET, libc::SO_SNDTIMEO, own)?;
    result
}

/// Waits for the attempt that is under way: connect(2) on a connecting socket
/// does.
fn wait(socket: &Socket<'_>, peers: &[SocketAddr], at: usize) -> KernelResult<()> {
    let peer = peers.get(at).or(peers.first()).ok_or(Errno(libc::EINVAL))?;
    match sockopt::connect(socket.fd, &socket.native(*peer)) {
        Err(Errno(libc::EISCONN)) => Ok(()),
        other => other,
    }
}
