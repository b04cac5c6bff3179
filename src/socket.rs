// SPDX-License-Identifier: MIT OR Apache-2.0
//! The abstract operations of RFC 6897 section 5.3 on a borrowed descriptor.
//!
//! Queries need no privilege and no state: each asks the kernel afresh, so a
//! fallback to TCP is seen the moment it happens.

use crate::addr;
use crate::engine::Entry;
use crate::error::{Errno, Error, Result};
use crate::kernel::sockopt::{self, Listed};
use crate::kernel::{diag, route, uapi};
use crate::options;
use crate::path::{self, PathControl};
use crate::pending;
use crate::stream::{Socket, Stage, is_up, no_mptcp_socket};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// A subflow of a connection: RFC 6897 section 5.3.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subflow {
    /// Local address and port; IPv4-mapped ones as IPv4.
    pub local: SocketAddr,
    /// Remote address and port, of the same family.
    pub remote: SocketAddr,
    /// The kernel's number for it, in order of creation from 1; 0 not known.
    pub id: u32,
    /// It is the connection's first.
    pub initial: bool,
    /// The connection is plain TCP: this pair is all there is.
    pub fallback: bool,
}

/// How added addresses may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Their subflows are for backup only.
    pub backup: bool,
    /// The peer may be told of them.
    pub advertise: bool,
    /// Subflows are opened from them.
    pub subflow: bool,
}

impl Default for Usage {
    fn default() -> Self {
        Self { backup: false, advertise: true, subflow: true }
    }
}

pub(crate) fn is_unsupported(errno: Errno) -> bool {
    matches!(errno, Errno(libc::EOPNOTSUPP | libc::ENOPROTOOPT))
}

/// TCP_MULTIPATH_ENABLE get. On a connection: whether it speaks Multipath TCP
/// now, false after a fallback to TCP; before it: what was asked for; after
/// its end: the last truth known.
pub fn enabled(fd: impl AsFd) -> Result<bool> {
    let fd = fd.as_fd();
    pending::settle(fd);
    path::touch();
    match sockopt::get_int(fd, libc::IPPROTO_TCP, uapi::TCP_IS_MPTCP) {
        Ok(value) => Ok(value != 0),
        // Before 6.10, or no TCP socket.
        Err(_) => {
            let socket = Socket::of(fd)?;
            Ok(socket.mptcp
                && match sockopt::info(fd) {
                    Ok(_) => true,
                    // It fell back, where the kernel can be asked at all; also
                    // one that is over by now.
                    Err(_) if answers_mptcp_info() => false,
                    Err(_) if socket.stage()? != Stage::Connected => true,
                    // Before 5.16 nothing but inet_diag tells.
                    Err(_) => diagnosed(fd).is_ok_and(|subflows| !subflows.is_empty()),
                })
        }
    }
}

/// Whether the kernel has the options of SOL_MPTCP (5.16): it answers them on
/// a fresh socket.
pub(crate) fn answers_mptcp_info() -> bool {
    sockopt::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, libc::IPPROTO_MPTCP)
        .is_ok_and(|fresh| sockopt::info(fresh.as_fd()).is_ok())
}

fn diagnosed(fd: BorrowedFd<'_>) -> Result<Vec<Listed>> {
    let (inode, _) = sockopt::stat(fd).map_err(|e| Error::kernel(e, "asking the socket's inode"))?;
    let mut diag = diag::Diag::open().map_err(|e| Error::kernel(e, "opening inet_diag"))?;
    diag.listing(inode).map_err(|refusal| Error::kernel(refusal.errno, "asking inet_diag"))
}

/// TCP_MULTIPATH_SUBFLOWS: the established subflows, one consistent snapshot
/// in order of creation. A plain TCP connection shows its one pair. ENOTCONN;
/// EOPNOTSUPP before Linux 5.16 without inet_diag.
pub fn subflows(fd: impl AsFd) -> Result<Vec<Subflow>> {
    let fd = fd.as_fd();
    pending::settle(fd);
    path::touch();
    let collected = sockopt::with_full_info(fd, |info, tcp| {
        let entries =
            info.iter().zip(tcp).filter_map(|(sf, [state, ..])| sockopt::entry(sf.id, &sf.addrs, *state));
        established(entries)
    });
    let up = match collected {
        Ok(up) => up,
        Err(errno) if is_unsupported(errno) => {
            let socket = Socket::of(fd)?;
            if sockopt::info(fd).is_err() {
                return without_mptcp_info(&socket);
            }
            established(socket.listed()?.into_iter())
        }
        Err(errno) => {
            Socket::of(fd)?;
            return Err(Error::kernel(errno, "listing the subflows"));
        }
    };
    if up.is_empty() && sockopt::peername(fd).is_err() {
        return Err(Socket::of(fd)?.not_connected());
    }
    Ok(up)
}

/// Plain TCP, fallen back, or a kernel that can't be asked this way.
fn without_mptcp_info(socket: &Socket<'_>) -> Result<Vec<Subflow>> {
    let fd = socket.fd;
    if socket.stage()? != Stage::Connected {
        return Err(socket.not_connected());
    }
    if socket.mptcp
        && !answers_mptcp_info()
        && let Ok(listed) = diagnosed(fd)
        && !listed.is_empty()
    {
        return Ok(established(listed.into_iter()));
    }
    let asking = |errno| match errno {
        Errno(libc::ENOTCONN) => socket.not_connected(),
        errno => Error::kernel(errno, "asking the socket's addresses"),
    };
    let mut state = [0u8; 1];
    sockopt::get(fd, libc::IPPROTO_TCP, libc::TCP_INFO, &mut state).map_err(asking)?;
    let [state] = state;
    let pair = Listed {
        id: 0,
        state,
        local: sockopt::sockname(fd).map_err(asking)?,
        remote: sockopt::peername(fd).map_err(asking)?,
    };
    Ok(if is_up(state) { vec![shown(&pair, true, true)] } else { Vec::new() })
}

/// Of all that the kernel lists, the initial one first, those that are up.
fn established(listed: impl Iterator<Item = Listed>) -> Vec<Subflow> {
    let mut up = Vec::with_capacity(listed.size_hint().1.unwrap_or(0));
    up.extend(
        listed
            .enumerate()
            .filter(|(_, entry)| is_up(entry.state))
            .map(|(at, entry)| shown(&entry, at == 0, false)),
    );
    up
}

/// An entry of the kernel's listing as callers see it.
pub(crate) fn shown(entry: &Listed, initial: bool, fallback: bool) -> Subflow {
    let mut subflow = Subflow {
        local: addr::canonical(entry.local),
        remote: addr::canonical(entry.remote),
        id: entry.id,
        initial,
        fallback,
    };
    // The kernel's listing lacks the scope of link-local addresses.
    if let SocketAddr::V6(local) = &mut subflow.local
        && addr::is_link_local(local.ip())
        && local.scope_id() == 0
    {
        let scope = route::holder(&(*local.ip()).into()).unwrap_or(0);
        local.set_scope_id(scope);
        if let SocketAddr::V6(remote) = &mut subflow.remote
            && addr::is_link_local(remote.ip())
        {
            remote.set_scope_id(scope);
        }
    }
    subflow
}

/// TCP_MULTIPATH_CONNID: the connection's token, unique among this host's
/// live connections. ENOTCONN; EOPNOTSUPP for plain TCP.
pub fn connection_id(fd: impl AsFd) -> Result<u32> {
    let fd = fd.as_fd();
    pending::settle(fd);
    path::touch();
    match sockopt::info(fd) {
        Ok(info)
            if info.token != 0
                && info.flags & uapi::INFO_REMOTE_KEY != 0
                && sockopt::peername(fd).is_ok() =>
        {
            Ok(info.token)
        }
        Ok(_) => Err(Socket::of(fd)?.not_connected()),
        Err(errno) => {
            let socket = Socket::of(fd)?;
            if !is_unsupported(errno) {
                return Err(Error::kernel(errno, "asking for the token"));
            }
            match socket.stage()? {
                Stage::Connected => Err(socket.no_mptcp()),
                _ => Err(socket.not_connected()),
            }
        }
    }
}

/// TCP_MULTIPATH_ADD: allow, use and advertise these local addresses; before
/// the connection these and no others. Port 0 is any port.
pub fn add(fd: impl AsFd, addrs: Vec<SocketAddr>, usage: Usage) -> Result<()> {
    add_to(&Socket::of(fd.as_fd())?, addrs, usage)
}

/// [`add`] for a socket that has been looked at.
pub(crate) fn add_to(socket: &Socket<'_>, addrs: Vec<SocketAddr>, usage: Usage) -> Result<()> {
    if !usage.advertise && !usage.subflow {
        return Err(Error::new(libc::EINVAL, "an address neither advertised nor used is no use"));
    }
    let addrs = addr::checked(addrs)?;
    let entries = addrs
        .into_iter()
        .map(|addr| Entry { addr, backup: usage.backup, advertise: usage.advertise, subflow: usage.subflow })
        .collect::<Vec<_>>();
    for entry in &entries {
        socket.check_family(&entry.addr)?;
    }
    steerable(socket)?.add(socket, entries)
}

/// TCP_MULTIPATH_REMOVE: use these local addresses no longer, tell the peer,
/// and close their subflows. Port 0 names every port of the address.
pub fn remove(fd: impl AsFd, addrs: Vec<SocketAddr>) -> Result<()> {
    remove_from(&Socket::of(fd.as_fd())?, addrs)
}

/// [`remove`] for a socket that has been looked at.
pub(crate) fn remove_from(socket: &Socket<'_>, addrs: Vec<SocketAddr>) -> Result<()> {
    let addrs = addr::checked(addrs)?;
    for addr in &addrs {
        socket.check_family(addr)?;
    }
    steerable(socket)?.remove(socket, addrs)
}

/// The backend for a socket whose paths can be steered at all.
pub(crate) fn steerable(socket: &Socket<'_>) -> Result<&'static dyn PathControl> {
    let stage = socket.stage()?;
    let fallen_back = stage == Stage::Connected && sockopt::info(socket.fd).is_err();
    if !socket.mptcp || fallen_back {
        return Err(socket.no_mptcp());
    }
    if stage == Stage::Ended {
        return Err(socket.not_connected());
    }
    path::control_of(socket)
}

/// Local addresses: the list; without one, before the connection the address
/// the socket is bound to, on it those of the established subflows.
pub fn local_addresses(fd: impl AsFd) -> Result<Vec<SocketAddr>> {
    let socket = Socket::of(fd.as_fd())?;
    pending::settle(socket.fd);
    path::touch();
    if let Some(list) = path::list(&socket) {
        return Ok(list);
    }
    if socket.stage()? == Stage::Connected {
        return Ok(distinct(subflows(socket.fd)?.into_iter().map(|s| s.local)));
    }
    let name = sockopt::sockname(socket.fd).map_err(|e| Error::kernel(e, "asking the socket's name"))?;
    let name = addr::canonical(name);
    Ok(if addr::is_wildcard(&name) { Vec::new() } else { vec![name] })
}

/// Remote addresses of the established subflows, then those that the peer
/// announced and the backend knows of. ENOTCONN before the connection.
pub fn peer_addresses(fd: impl AsFd) -> Result<Vec<SocketAddr>> {
    let socket = Socket::of(fd.as_fd())?;
    let used = subflows(socket.fd)?.into_iter().map(|s| s.remote);
    let announced = path::existing(&socket).map(|control| control.facts(&socket).peers).unwrap_or_default();
    Ok(distinct(used.chain(announced)))
}

fn distinct(addrs: impl Iterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut seen = Vec::new();
    for addr in addrs {
        if !seen.contains(&addr) {
            seen.push(addr);
        }
    }
    seen
}

/// TCP_MULTIPATH_ENABLE set, before connect and listen: the descriptor's
/// socket becomes one of MPTCP, or of plain TCP again, with everything that
/// was set on it. EISCONN; EOPNOTSUPP where that can't be, and then it stays
/// the usable socket it was.
pub fn enable(fd: impl AsFd, on: bool) -> Result<()> {
    let socket = Socket::of(fd.as_fd())?;
    if !matches!(socket.stage()?, Stage::Unconnected | Stage::Ended) {
        return Err(Error::new(libc::EISCONN, "Multipath TCP is chosen before connect(2) and listen(2)"));
    }
    if on != socket.mptcp {
        let fresh = fresh_socket(&socket, on)?;
        let control = path::existing(&socket).filter(|_| !on);
        // What ADD has bound goes with the list.
        options::carry(&socket, fresh.as_fd(), socket.bound_late().is_none())?;
        // What can fail comes before the descriptor changes; the new socket's
        // identity stays what it is.
        let next = Socket::known(fresh.as_fd(), socket.v6, on);
        let free = on && !restrict_to_binding(&next)?;
        if let Some(control) = control {
            control.forget(&socket);
        }
        replace(&socket, fresh)?;
        if free {
            pending::note(socket.fd);
        }
    } else if on && !restrict_to_binding(&socket)? {
        pending::note(socket.fd);
    }
    Ok(())
}

fn bound_to_something(socket: &Socket<'_>) -> bool {
    let name = sockopt::sockname(socket.fd).map(addr::canonical);
    name.is_ok_and(|name| !addr::is_wildcard(&name))
        || sockopt::get_int(socket.fd, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX).is_ok_and(|index| index != 0)
}

/// RFC 6897 5.3.2: a socket that is bound uses nothing else. Without a backend
/// nobody can see to that, and getcaps says so. False: it is not bound.
pub(crate) fn restrict_to_binding(socket: &Socket<'_>) -> Result<bool> {
    if !bound_to_something(socket) {
        return Ok(false);
    }
    if let Ok(control) = path::control_of(socket)
        && let Err(error) = control.respect_binding(socket)
        && !matches!(error.errno(), libc::EPERM | libc::EOPNOTSUPP)
    {
        return Err(error);
    }
    Ok(true)
}

fn fresh_socket(socket: &Socket<'_>, mptcp: bool) -> Result<OwnedFd> {
    // Where namespaces can't be told apart (before 5.14) there is one.
    if let (Ok(own), Ok(thread)) = (sockopt::netns_cookie(socket.fd), sockopt::thread_netns())
        && own != thread
    {
        return Err(Error::new(
            libc::EOPNOTSUPP,
            "the socket belongs to another network namespace than the calling thread",
        ));
    }
    let nonblock = if sockopt::nonblocking(socket.fd) { libc::SOCK_NONBLOCK } else { 0 };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | nonblock;
    if !mptcp {
        return sockopt::socket(socket.domain(), kind, libc::IPPROTO_TCP)
            .map_err(|e| Error::kernel(e, "making a TCP socket"));
    }
    // One that is bound will be restricted: made under control, its first
    // subflow has address id 0 (KERNEL: a switch can lose that).
    if bound_to_something(socket)
        && let Ok(control) = path::control_of(socket)
        && let Ok(fresh) = control.make_socket(socket.domain(), kind)
    {
        return Ok(fresh);
    }
    sockopt::socket(socket.domain(), kind, libc::IPPROTO_MPTCP).map_err(no_mptcp_socket)
}

fn replace(socket: &Socket<'_>, fresh: OwnedFd) -> Result<()> {
    let cloexec = sockopt::fcntl(socket.fd, libc::F_GETFD, 0).is_ok_and(|f| f & libc::FD_CLOEXEC != 0);
    let flags = sockopt::fcntl(socket.fd, libc::F_GETFL, 0).unwrap_or(0);
    let replacing = |e| Error::kernel(e, "putting the new socket under the descriptor's number");
    sockopt::replace(fresh.as_fd(), socket.fd, cloexec).map_err(replacing)?;
    if flags & libc::O_ASYNC != 0 {
        // Only now: the signal names the descriptor's number.
        sockopt::fcntl(socket.fd, libc::F_SETFL, flags).map_err(replacing)?;
    }
    Ok(())
}

/// socket(2), but a stream socket of AF_INET or AF_INET6 with protocol 0,
/// IPPROTO_TCP or IPPROTO_MPTCP is of Multipath TCP where there is any, else
/// of TCP. [`enabled`] tells which.
pub fn socket(domain: i32, kind: i32, protocol: i32) -> Result<OwnedFd> {
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let stream = kind & !flags == libc::SOCK_STREAM;
    let inet = domain == libc::AF_INET || domain == libc::AF_INET6;
    let ours = matches!(protocol, 0 | libc::IPPROTO_TCP | libc::IPPROTO_MPTCP);
    if inet && stream && ours {
        if let Ok(socket) = sockopt::socket(domain, kind, libc::IPPROTO_MPTCP) {
            pending::note(socket.as_fd());
            return Ok(socket);
        }
        return sockopt::socket(domain, kind, libc::IPPROTO_TCP).map_err(|e| Error::kernel(e, "socket"));
    }
    sockopt::socket(domain, kind, protocol).map_err(|e| Error::kernel(e, "socket"))
}
