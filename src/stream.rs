// SPDX-License-Identifier: MIT OR Apache-2.0
//! A stream socket of TCP or MPTCP, looked at closely.

use crate::addr;
use crate::engine::{Device, Key};
use crate::error::{Errno, Error, KernelResult, Result};
use crate::kernel::sockopt::{self, Listed};
use crate::kernel::{route, uapi};
use std::cell::OnceCell;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd};

/// How far a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Never connected, or disconnected again.
    Unconnected,
    /// The connection, or the attempt to make one, is over.
    Ended,
    /// connect(2) is under way.
    Connecting,
    /// listen(2) was called.
    Listening,
    /// There is a connection, also one half closed.
    Connected,
}

/// A TCP or MPTCP stream socket, looked at closely.
#[derive(Clone, Debug)]
pub struct Socket<'fd> {
    pub(crate) fd: BorrowedFd<'fd>,
    pub(crate) v6: bool,
    pub(crate) mptcp: bool,
    /// Asked for once: the descriptor is taken to stay what it is.
    key: OnceCell<Key>,
}

/// The identity of a socket.
pub fn key_of(fd: BorrowedFd<'_>) -> Result<Key> {
    let asking = |e| Error::kernel(e, "asking the socket's identity");
    Ok(Key { cookie: sockopt::cookie(fd).map_err(asking)?, inode: sockopt::stat(fd).map_err(asking)?.0 })
}

const SUPPORTED: &str = "not an AF_INET or AF_INET6 stream socket of TCP or MPTCP";

impl<'fd> Socket<'fd> {
    /// Checks what the descriptor is. EBADF; ENOTSOCK; EOPNOTSUPP for any but
    /// a stream socket of TCP or MPTCP.
    pub fn of(fd: BorrowedFd<'fd>) -> Result<Self> {
        let ask = |name| sockopt::get_int(fd, libc::SOL_SOCKET, name);
        let domain = ask(libc::SO_DOMAIN).map_err(|errno| match errno {
            Errno(libc::EBADF) => Error::new(libc::EBADF, "the descriptor is closed, or opened with O_PATH"),
            Errno(libc::ENOTSOCK) => Error::new(libc::ENOTSOCK, "the descriptor is not a socket"),
            errno => Error::kernel(errno, "asking the socket's family"),
        })?;
        let protocol = ask(libc::SO_PROTOCOL).unwrap_or(0);
        // MPTCP has no other type.
        let stream = protocol == libc::IPPROTO_MPTCP || ask(libc::SO_TYPE) == Ok(libc::SOCK_STREAM);
        let inet = domain == libc::AF_INET || domain == libc::AF_INET6;
        if !inet || !stream || (protocol != libc::IPPROTO_TCP && protocol != libc::IPPROTO_MPTCP) {
            return Err(Error::new(libc::EOPNOTSUPP, SUPPORTED));
        }
        Ok(Self::known(fd, domain == libc::AF_INET6, protocol == libc::IPPROTO_MPTCP))
    }

    /// One of which this is known.
    pub(crate) fn known(fd: BorrowedFd<'fd>, v6: bool, mptcp: bool) -> Self {
        Self { fd, v6, mptcp, key: OnceCell::new() }
    }

    /// Its identity.
    pub(crate) fn key(&self) -> Result<Key> {
        if let Some(key) = self.key.get() {
            return Ok(*key);
        }
        let key = key_of(self.fd)?;
        Ok(*self.key.get_or_init(|| key))
    }

    pub(crate) fn domain(&self) -> i32 {
        if self.v6 { libc::AF_INET6 } else { libc::AF_INET }
    }

    fn v6only(&self) -> bool {
        self.v6 && sockopt::get_int(self.fd, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY) == Ok(1)
    }

    /// How far it is; takes no lock of the socket but getpeername's.
    pub fn stage(&self) -> Result<Stage> {
        let events = loop {
            match sockopt::poll(self.fd, libc::POLLRDHUP, 0) {
                Err(Errno(libc::EINTR)) => {}
                // More than RLIMIT_NOFILE allows, even one.
                Err(Errno(libc::EINVAL)) => break None,
                other => break Some(other.map_err(|e| Error::kernel(e, "polling the socket"))?),
            }
        };
        // tcp_poll and mptcp_poll: hung up in the state CLOSE, and shut down
        // once there was something to shut down.
        let closed = events.is_none_or(|events| events & libc::POLLHUP != 0);
        let shut = events.is_some_and(|events| events & (libc::POLLRDHUP | libc::POLLERR) != 0);
        if events.is_none() || !closed || shut {
            if sockopt::get_int(self.fd, libc::SOL_SOCKET, libc::SO_ACCEPTCONN) == Ok(1) {
                return Ok(Stage::Listening);
            }
            if sockopt::peername(self.fd).is_ok() {
                return Ok(Stage::Connected);
            }
        }
        // The peer's key is forgotten by connect(AF_UNSPEC) only.
        let was = || sockopt::info(self.fd).is_ok_and(|info| info.flags & uapi::INFO_REMOTE_KEY != 0);
        Ok(match (closed, shut) {
            (false, _) => Stage::Connecting,
            (true, true) => Stage::Ended,
            (true, false) if was() => Stage::Ended,
            (true, false) => Stage::Unconnected,
        })
    }

    /// EAFNOSUPPORT where the socket can't use addresses of this family.
    pub(crate) fn check_family(&self, addr: &SocketAddr) -> Result<()> {
        if addr.is_ipv6() && !self.v6 {
            return Err(Error::new(libc::EAFNOSUPPORT, format!("{} on an AF_INET socket", addr.ip())));
        }
        if addr.is_ipv4() && self.v6only() {
            return Err(Error::new(
                libc::EAFNOSUPPORT,
                format!("{} on an AF_INET6 socket with IPV6_V6ONLY", addr.ip()),
            ));
        }
        Ok(())
    }

    /// Whether this address is of the only family that the socket can use.
    pub(crate) fn only_family(&self, addr: &SocketAddr) -> bool {
        addr.is_ipv6() == self.v6 && (!self.v6 || self.v6only())
    }

    pub(crate) fn wildcard(&self) -> SocketAddr {
        if self.v6 {
            (std::net::Ipv6Addr::UNSPECIFIED, 0).into()
        } else {
            (std::net::Ipv4Addr::UNSPECIFIED, 0).into()
        }
    }

    /// The address as this socket's bind and connect take it.
    pub(crate) fn native(&self, addr: SocketAddr) -> SocketAddr {
        if self.v6 { addr::mapped(addr) } else { addr }
    }

    /// Binds without choosing a port, so that the application can still bind
    /// the socket itself. ENOPROTOOPT or EOPNOTSUPP before 6.8.
    pub(crate) fn late_bind(&self, addr: &SocketAddr) -> KernelResult<()> {
        const NO_PORT: i32 = libc::IP_BIND_ADDRESS_NO_PORT;
        let before = sockopt::get_int(self.fd, libc::IPPROTO_IP, NO_PORT)?;
        sockopt::set_int(self.fd, libc::IPPROTO_IP, NO_PORT, 1)?;
        let result = sockopt::bind(self.fd, &self.native(addr::with_port(*addr, 0)));
        // Left set, the application's own bind would show port 0.
        sockopt::set_int(self.fd, libc::IPPROTO_IP, NO_PORT, before)?;
        result
    }

    /// The specific address that the socket is bound to, and whether
    /// [`Socket::late_bind`] did that: who binds without choosing a port has
    /// that option set, and here alone it is set no more.
    pub(crate) fn bound(&self) -> Option<(SocketAddr, bool)> {
        let name = sockopt::sockname(self.fd).ok().map(addr::canonical);
        let name = name.filter(|name| !addr::is_wildcard(name))?;
        let no_port = || sockopt::get_int(self.fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT);
        Some((name, name.port() == 0 && no_port() == Ok(0)))
    }

    /// What the library has bound the unconnected socket to.
    pub(crate) fn bound_late(&self) -> Option<SocketAddr> {
        self.bound().filter(|(_, late)| *late).map(|(name, _)| name)
    }

    /// What the application, not the library, has bound it to.
    pub(crate) fn bound_by_application(&self) -> Option<SocketAddr> {
        self.bound().filter(|(_, late)| !late).map(|(name, _)| name)
    }

    fn ifindex(&self) -> Option<u32> {
        let index = sockopt::get_int(self.fd, libc::SOL_SOCKET, libc::SO_BINDTOIFINDEX).ok()?;
        u32::try_from(index).ok().filter(|index| *index != 0)
    }

    /// Whether it is bound to a device.
    pub(crate) fn on_device(&self) -> bool {
        self.ifindex().is_some()
    }

    /// The device the socket is bound to and its addresses.
    pub(crate) fn device(&self) -> Option<Device> {
        let ifindex = self.ifindex()?;
        let addrs = route::host_addresses().unwrap_or_default();
        let addrs = addrs.into_iter().filter(|host| host.ifindex == ifindex).map(|host| host.addr);
        Some(Device { ifindex, addrs: addrs.collect() })
    }

    /// Why path control is impossible on a socket that is not MPTCP now.
    pub(crate) fn no_mptcp(&self) -> Error {
        if self.mptcp {
            Error::new(libc::EOPNOTSUPP, "the connection fell back to plain TCP")
        } else {
            match sockopt::socket(libc::AF_INET, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, libc::IPPROTO_MPTCP)
            {
                // Nothing that the program could set would help.
                Err(errno @ Errno(libc::ENOPROTOOPT | libc::EPROTONOSUPPORT | libc::EINVAL)) => {
                    no_mptcp_socket(errno)
                }
                _ => Error::new(
                    libc::EOPNOTSUPP,
                    "the socket is plain TCP: set TCP_MULTIPATH_ENABLE before it connects",
                ),
            }
        }
    }

    pub(crate) fn not_connected(&self) -> Error {
        let words = match self.stage() {
            Ok(Stage::Connecting) => "the connection is not established yet",
            Ok(Stage::Listening) => "the socket listens: ask an accepted one",
            _ => "there is no connection (yet, or any more)",
        };
        Error::new(libc::ENOTCONN, words)
    }

    /// Every pair the kernel lists, in any state, the initial one first.
    pub(crate) fn listed(&self) -> Result<Vec<Listed>> {
        let result = match sockopt::full_info(self.fd) {
            Err(Errno(libc::EOPNOTSUPP | libc::ENOPROTOOPT)) if sockopt::info(self.fd).is_ok() => {
                sockopt::two_calls(self.fd)
            }
            other => other,
        };
        result.map_err(|errno| Error::kernel(errno, "listing the subflows"))
    }
}

/// Why socket(2) gave no MPTCP socket.
pub(crate) fn no_mptcp_socket(errno: Errno) -> Error {
    match errno {
        Errno(libc::ENOPROTOOPT) => {
            Error::new(libc::EOPNOTSUPP, "Multipath TCP is switched off: sysctl net.mptcp.enabled=1")
        }
        Errno(libc::EPROTONOSUPPORT | libc::EINVAL) => {
            Error::new(libc::EOPNOTSUPP, "this kernel has no Multipath TCP (CONFIG_MPTCP, Linux 5.6)")
        }
        Errno(libc::EPERM | libc::EACCES) => {
            Error::new(libc::EOPNOTSUPP, "a security policy forbids Multipath TCP sockets")
        }
        errno => Error::kernel(errno, "making a Multipath TCP socket"),
    }
}

/// ESTABLISHED or CLOSE_WAIT: what RFC 6897 5.3.4 calls established.
pub fn is_up(state: u8) -> bool {
    state == uapi::TCP_ESTABLISHED || state == uapi::TCP_CLOSE_WAIT
}

impl AsRawFd for Socket<'_> {
    fn as_raw_fd(&self) -> i32 {
        self.fd.as_raw_fd()
    }
}
