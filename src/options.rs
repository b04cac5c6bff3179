// SPDX-License-Identifier: MIT OR Apache-2.0
//! What moves along when a descriptor's socket is replaced (ENABLE): every
//! option that was changed, the bound address, the owner of its signals.
//!
//! An option was changed where it differs from a fresh socket of the same
//! kind. One that was changed and can't be set on the new socket ends the
//! attempt: an option is never lost in silence.

use crate::addr;
use crate::error::{Errno, Error, KernelResult, Result};
use crate::kernel::{sockopt, uapi};
use crate::stream::Socket;
use std::os::fd::{AsFd, BorrowedFd};

/// An option and how it may be treated.
struct Opt {
    level: i32,
    name: i32,
    label: &'static str,
}

const fn opt(level: i32, name: i32, label: &'static str) -> Opt {
    Opt { level, name, label }
}

const S: i32 = libc::SOL_SOCKET;
const T: i32 = libc::IPPROTO_TCP;
const I: i32 = libc::IPPROTO_IP;
const V: i32 = libc::IPPROTO_IPV6;

/// In the order in which they are set: what bind(2) depends on comes first.
#[rustfmt::skip]
const OPTIONS: &[Opt] = &[
    opt(V, libc::IPV6_V6ONLY, "IPV6_V6ONLY"),
    opt(S, libc::SO_BINDTOIFINDEX, "SO_BINDTODEVICE"),
    opt(S, libc::SO_REUSEADDR, "SO_REUSEADDR"),
    opt(S, libc::SO_REUSEPORT, "SO_REUSEPORT"),
    opt(I, libc::IP_FREEBIND, "IP_FREEBIND"),
    opt(I, libc::IP_TRANSPARENT, "IP_TRANSPARENT"),
    opt(I, libc::IP_BIND_ADDRESS_NO_PORT, "IP_BIND_ADDRESS_NO_PORT"),
    opt(I, 51, "IP_LOCAL_PORT_RANGE"),
    opt(V, libc::IPV6_FREEBIND, "IPV6_FREEBIND"),
    opt(V, libc::IPV6_TRANSPARENT, "IPV6_TRANSPARENT"),

    opt(S, libc::SO_DEBUG, "SO_DEBUG"),
    opt(S, libc::SO_DONTROUTE, "SO_DONTROUTE"),
    opt(S, libc::SO_KEEPALIVE, "SO_KEEPALIVE"),
    opt(S, libc::SO_OOBINLINE, "SO_OOBINLINE"),
    opt(S, libc::SO_PRIORITY, "SO_PRIORITY"),
    opt(S, libc::SO_LINGER, "SO_LINGER"),
    opt(S, libc::SO_RCVLOWAT, "SO_RCVLOWAT"),
    opt(S, libc::SO_RCVTIMEO, "SO_RCVTIMEO"),
    opt(S, libc::SO_SNDTIMEO, "SO_SNDTIMEO"),
    opt(S, libc::SO_TIMESTAMP, "SO_TIMESTAMP"),
    opt(S, libc::SO_TIMESTAMPNS, "SO_TIMESTAMPNS"),
    opt(S, 63, "SO_TIMESTAMP_NEW"),
    opt(S, 64, "SO_TIMESTAMPNS_NEW"),
    opt(S, libc::SO_TIMESTAMPING, "SO_TIMESTAMPING"),
    opt(S, 65, "SO_TIMESTAMPING_NEW"),
    opt(S, libc::SO_MARK, "SO_MARK"),
    opt(S, libc::SO_PEEK_OFF, "SO_PEEK_OFF"),
    opt(S, libc::SO_BUSY_POLL, "SO_BUSY_POLL"),
    opt(S, libc::SO_PREFER_BUSY_POLL, "SO_PREFER_BUSY_POLL"),
    opt(S, libc::SO_BUSY_POLL_BUDGET, "SO_BUSY_POLL_BUDGET"),
    opt(S, libc::SO_MAX_PACING_RATE, "SO_MAX_PACING_RATE"),
    opt(S, libc::SO_INCOMING_CPU, "SO_INCOMING_CPU"),
    opt(S, libc::SO_ZEROCOPY, "SO_ZEROCOPY"),
    opt(S, libc::SO_TXTIME, "SO_TXTIME"),
    opt(S, 73, "SO_RESERVE_MEM"),
    opt(S, 74, "SO_TXREHASH"),
    opt(S, 75, "SO_RCVMARK"),
    opt(S, 82, "SO_RCVPRIORITY"),
    opt(S, libc::SO_LOCK_FILTER, "SO_LOCK_FILTER"),
    opt(S, libc::SO_BROADCAST, "SO_BROADCAST"),
    opt(S, libc::SO_NO_CHECK, "SO_NO_CHECK"),
    opt(S, libc::SO_PASSCRED, "SO_PASSCRED"),
    opt(S, libc::SO_PASSSEC, "SO_PASSSEC"),
    opt(S, libc::SO_RXQ_OVFL, "SO_RXQ_OVFL"),
    opt(S, libc::SO_WIFI_STATUS, "SO_WIFI_STATUS"),
    opt(S, libc::SO_NOFCS, "SO_NOFCS"),
    opt(S, libc::SO_SELECT_ERR_QUEUE, "SO_SELECT_ERR_QUEUE"),

    opt(T, libc::TCP_NODELAY, "TCP_NODELAY"),
    opt(T, libc::TCP_MAXSEG, "TCP_MAXSEG"),
    opt(T, libc::TCP_CORK, "TCP_CORK"),
    opt(T, libc::TCP_KEEPIDLE, "TCP_KEEPIDLE"),
    opt(T, libc::TCP_KEEPINTVL, "TCP_KEEPINTVL"),
    opt(T, libc::TCP_KEEPCNT, "TCP_KEEPCNT"),
    opt(T, libc::TCP_SYNCNT, "TCP_SYNCNT"),
    opt(T, libc::TCP_LINGER2, "TCP_LINGER2"),
    opt(T, libc::TCP_DEFER_ACCEPT, "TCP_DEFER_ACCEPT"),
    opt(T, libc::TCP_WINDOW_CLAMP, "TCP_WINDOW_CLAMP"),
    opt(T, libc::TCP_QUICKACK, "TCP_QUICKACK"),
    opt(T, libc::TCP_CONGESTION, "TCP_CONGESTION"),
    opt(T, libc::TCP_THIN_LINEAR_TIMEOUTS, "TCP_THIN_LINEAR_TIMEOUTS"),
    opt(T, libc::TCP_THIN_DUPACK, "TCP_THIN_DUPACK"),
    opt(T, libc::TCP_USER_TIMEOUT, "TCP_USER_TIMEOUT"),
    opt(T, libc::TCP_FASTOPEN, "TCP_FASTOPEN"),
    opt(T, libc::TCP_FASTOPEN_CONNECT, "TCP_FASTOPEN_CONNECT"),
    opt(T, libc::TCP_FASTOPEN_KEY, "TCP_FASTOPEN_KEY"),
    opt(T, libc::TCP_FASTOPEN_NO_COOKIE, "TCP_FASTOPEN_NO_COOKIE"),
    opt(T, libc::TCP_NOTSENT_LOWAT, "TCP_NOTSENT_LOWAT"),
    opt(T, libc::TCP_SAVE_SYN, "TCP_SAVE_SYN"),
    opt(T, libc::TCP_INQ, "TCP_INQ"),
    opt(T, 37, "TCP_TX_DELAY"),
    opt(T, 44, "TCP_RTO_MAX_MS"),
    opt(T, 45, "TCP_RTO_MIN_US"),
    opt(T, 46, "TCP_DELACK_MAX_US"),

    opt(I, libc::IP_TOS, "IP_TOS"),
    opt(I, libc::IP_TTL, "IP_TTL"),
    opt(I, libc::IP_OPTIONS, "IP_OPTIONS"),
    opt(I, libc::IP_RECVOPTS, "IP_RECVOPTS"),
    opt(I, libc::IP_RETOPTS, "IP_RETOPTS"),
    opt(I, libc::IP_PKTINFO, "IP_PKTINFO"),
    opt(I, libc::IP_MTU_DISCOVER, "IP_MTU_DISCOVER"),
    opt(I, libc::IP_RECVERR, "IP_RECVERR"),
    opt(I, libc::IP_RECVTTL, "IP_RECVTTL"),
    opt(I, libc::IP_RECVTOS, "IP_RECVTOS"),
    opt(I, libc::IP_RECVORIGDSTADDR, "IP_RECVORIGDSTADDR"),
    opt(I, libc::IP_MINTTL, "IP_MINTTL"),
    opt(I, libc::IP_UNICAST_IF, "IP_UNICAST_IF"),

    opt(V, libc::IPV6_UNICAST_HOPS, "IPV6_UNICAST_HOPS"),
    opt(V, libc::IPV6_TCLASS, "IPV6_TCLASS"),
    opt(V, libc::IPV6_MTU_DISCOVER, "IPV6_MTU_DISCOVER"),
    opt(V, libc::IPV6_RECVERR, "IPV6_RECVERR"),
    opt(V, libc::IPV6_RECVPKTINFO, "IPV6_RECVPKTINFO"),
    opt(V, libc::IPV6_RECVHOPLIMIT, "IPV6_RECVHOPLIMIT"),
    opt(V, libc::IPV6_RECVTCLASS, "IPV6_RECVTCLASS"),
    opt(V, libc::IPV6_AUTOFLOWLABEL, "IPV6_AUTOFLOWLABEL"),
    opt(V, libc::IPV6_FLOWINFO_SEND, "IPV6_FLOWINFO_SEND"),
    opt(V, libc::IPV6_FLOWINFO, "IPV6_FLOWINFO"),
    opt(V, libc::IPV6_DONTFRAG, "IPV6_DONTFRAG"),
    opt(V, libc::IPV6_MINHOPCOUNT, "IPV6_MINHOPCOUNT"),
    opt(V, libc::IPV6_ADDR_PREFERENCES, "IPV6_ADDR_PREFERENCES"),
    opt(V, libc::IPV6_UNICAST_IF, "IPV6_UNICAST_IF"),
    opt(V, libc::IPV6_RTHDR, "IPV6_RTHDR"),
    opt(V, libc::IPV6_HOPOPTS, "IPV6_HOPOPTS"),
    opt(V, libc::IPV6_DSTOPTS, "IPV6_DSTOPTS"),
];

/// Names of all options that move along, for the documentation.
pub fn carried() -> impl Iterator<Item = &'static str> {
    OPTIONS.iter().map(|option| option.label).chain(["SO_SNDBUF", "SO_RCVBUF"])
}

/// Gives `fresh` all that was set on `old`, with `bound` its name too.
/// EOPNOTSUPP names what can't be; `old` is as before then.
pub fn carry(old: &Socket<'_>, fresh: BorrowedFd<'_>, bound: bool) -> Result<()> {
    let protocol = if old.mptcp { libc::IPPROTO_MPTCP } else { libc::IPPROTO_TCP };
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC;
    let reference = sockopt::socket(old.domain(), kind, protocol)
        // Multipath TCP can have been switched off since.
        .or_else(|_| sockopt::socket(old.domain(), kind, libc::IPPROTO_TCP))
        .map_err(|e| Error::kernel(e, "making a socket to compare with"))?;
    // Before the others: with SO_RCVBUF the kernel sets TCP_WINDOW_CLAMP (7.3),
    // on the socket to compare with too.
    for buffer in &BUFFERS {
        carry_buffer(buffer, old.fd, reference.as_fd(), fresh)?;
    }
    // The same flags show at IPPROTO_IPV6 on sockets that have no such options.
    for option in OPTIONS.iter().filter(|option| old.v6 || option.level != V) {
        carry_one(option, old.fd, reference.as_fd(), fresh)?;
    }
    if sockopt::has_filter(old.fd) {
        return Err(cannot("SO_ATTACH_FILTER", Errno(libc::EOPNOTSUPP)));
    }
    if bound {
        carry_name(old, fresh)?;
    }
    carry_owner(old.fd, fresh)
}

fn cannot(label: &str, errno: Errno) -> Error {
    Error::new(
        libc::EOPNOTSUPP,
        format!("{label} is set and can't be set on the other kind of socket ({errno}): nothing was changed"),
    )
}

/// The value of an option; the longest are option headers of IPv4 and IPv6.
struct Value {
    bytes: [u8; 256],
    len: usize,
}

impl Value {
    fn of(fd: BorrowedFd<'_>, option: &Opt) -> KernelResult<Self> {
        let mut bytes = [0; 256];
        let len = sockopt::get(fd, option.level, option.name, &mut bytes)?;
        Ok(Self { bytes, len })
    }

    fn get(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

fn carry_one(
    option: &Opt,
    old: BorrowedFd<'_>,
    reference: BorrowedFd<'_>,
    fresh: BorrowedFd<'_>,
) -> Result<()> {
    // One that can't be read can't have been set, or shows nothing of it.
    let Ok(value) = Value::of(old, option) else { return Ok(()) };
    if Value::of(reference, option).is_ok_and(|default| default.get() == value.get()) {
        return Ok(());
    }
    sockopt::set(fresh, option.level, option.name, value.get())
        .map_err(|errno| cannot(option.label, errno))?;
    match Value::of(fresh, option) {
        Ok(now) if now.get() != value.get() => Err(cannot(option.label, Errno(libc::EOPNOTSUPP))),
        _ => Ok(()),
    }
}

struct Buffer {
    name: i32,
    force: i32,
    lock: i32,
    label: &'static str,
}

const BUFFERS: [Buffer; 2] = [
    Buffer { name: libc::SO_SNDBUF, force: libc::SO_SNDBUFFORCE, lock: 1, label: "SO_SNDBUF" },
    Buffer { name: libc::SO_RCVBUF, force: libc::SO_RCVBUFFORCE, lock: 2, label: "SO_RCVBUF" },
];

fn protocol_of(fd: BorrowedFd<'_>) -> Option<i32> {
    sockopt::get_int(fd, S, libc::SO_PROTOCOL).ok()
}

/// A buffer size that was never set must stay so: setting it ends autotuning.
fn carry_buffer(
    buffer: &Buffer,
    old: BorrowedFd<'_>,
    reference: BorrowedFd<'_>,
    fresh: BorrowedFd<'_>,
) -> Result<()> {
    let get = |fd| sockopt::get_int(fd, S, buffer.name);
    let Ok(size) = get(old) else { return Ok(()) };
    let changed = match sockopt::get_int(old, S, uapi::SO_BUF_LOCK) {
        Ok(locks) => locks & buffer.lock != 0,
        Err(_) => get(reference) != Ok(size),
    };
    if !changed {
        // MPTCP's sizes move by themselves; TCP's only by SO_BUF_LOCK after
        // the size, which MPTCP can't be told.
        let unlocked = protocol_of(old) == Some(libc::IPPROTO_TCP) && get(reference) != Ok(size);
        return if unlocked { Err(cannot("SO_BUF_LOCK", Errno(libc::EOPNOTSUPP))) } else { Ok(()) };
    }
    // The kernel shows twice what was asked for.
    let wish = size / 2;
    let set = |fd| {
        sockopt::set_int(fd, S, buffer.name, wish)?;
        if get(fd) != Ok(size) {
            // It was over the sysctl's limit, by privilege.
            sockopt::set_int(fd, S, buffer.force, wish)?;
        }
        Ok(())
    };
    set(fresh).map_err(|errno| cannot(buffer.label, errno))?;
    let _ = set(reference);
    Ok(())
}

/// The bound address and port. The port is still the old socket's: both say
/// SO_REUSEADDR for the moment of the second bind.
fn carry_name(old: &Socket<'_>, fresh: BorrowedFd<'_>) -> Result<()> {
    let name = sockopt::sockname(old.fd).map_err(|e| Error::kernel(e, "asking the socket's name"))?;
    let specific = !addr::is_wildcard(&addr::canonical(name));
    if name.port() == 0 && !specific {
        return Ok(());
    }
    let new = Socket::known(fresh, old.v6, !old.mptcp);
    let binding = |e| match e {
        Errno(libc::EADDRINUSE) => {
            Error::new(libc::EADDRINUSE, format!("the new socket can't be bound to {name} as well"))
        }
        e => Error::kernel(e, "binding the new socket"),
    };
    if name.port() == 0 {
        return new.late_bind(&addr::canonical(name)).map_err(binding);
    }
    let reuse = |fd| sockopt::get_int(fd, S, libc::SO_REUSEADDR).unwrap_or(0);
    let (before_old, before_new) = (reuse(old.fd), reuse(fresh));
    let set = |fd, value| sockopt::set_int(fd, S, libc::SO_REUSEADDR, value);
    let bound = set(old.fd, 1).and_then(|()| set(fresh, 1)).and_then(|()| sockopt::bind(fresh, &name));
    let restored = set(old.fd, before_old).and_then(|()| set(fresh, before_new));
    bound.and(restored).map_err(binding)
}

/// Who gets the signals of O_ASYNC, and which.
fn carry_owner(old: BorrowedFd<'_>, fresh: BorrowedFd<'_>) -> Result<()> {
    const F_GETSIG: i32 = 11;
    const F_SETSIG: i32 = 10;
    let owning = |e| Error::kernel(e, "giving the new socket its owner");
    if let Ok((kind, id)) = sockopt::owner(old)
        && id != 0
    {
        sockopt::set_owner(fresh, kind, id).map_err(owning)?;
    }
    if let Ok(signal) = sockopt::fcntl(old, F_GETSIG, 0)
        && signal != 0
    {
        sockopt::fcntl(fresh, F_SETSIG, signal).map_err(owning)?;
    }
    Ok(())
}
