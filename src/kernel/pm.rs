// SPDX-License-Identifier: MIT OR Apache-2.0
//! The generic netlink family "mptcp_pm": commands on one connection of the
//! userspace path manager (5.19), and events.

use super::diag::Diag;
use super::netlink::{Attributes, Message, Received, Refusal, Socket, attributes, find};
use super::uapi::*;
use crate::error::{Errno, KernelResult};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What the family looks like on this kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Family {
    id: u16,
    events: u32,
    /// Whether it has the commands on single connections (5.19).
    pub userspace: bool,
}

impl Family {
    /// Looks the family up; ENOENT where the kernel has no MPTCP.
    pub fn resolve(socket: &mut Socket) -> Result<Self, Refusal> {
        let name = [PM_FAMILY.as_bytes(), &[0]].concat();
        let message =
            Message::generic(libc::GENL_ID_CTRL as u16, CTRL_CMD_GETFAMILY, NLM_F_REQUEST | NLM_F_ACK)
                .attr(CTRL_ATTR_FAMILY_NAME, &name);
        let mut family = None;
        socket.converse(message, |reply| family = family.or(Self::parse(&reply)))?;
        family.ok_or_else(|| Errno(libc::ENOENT).into())
    }

    /// Reads the answer to CTRL_CMD_GETFAMILY.
    pub fn parse(reply: &Received<'_>) -> Option<Self> {
        let body = reply.payload.get(4..)?;
        let id = u16::from_ne_bytes(find(body, CTRL_ATTR_FAMILY_ID)?.try_into().ok()?);
        let group = attributes(find(body, CTRL_ATTR_MCAST_GROUPS).unwrap_or_default())
            .find(|(_, group)| {
                find(group, CTRL_ATTR_MCAST_GRP_NAME).and_then(|name| name.strip_suffix(&[0]))
                    == Some(PM_GROUP.as_bytes())
            })
            .and_then(|(_, group)| find(group, CTRL_ATTR_MCAST_GRP_ID))
            .and_then(|id| id.try_into().ok())
            .map_or(0, u32::from_ne_bytes);
        let userspace = attributes(find(body, CTRL_ATTR_OPS).unwrap_or_default()).any(|(_, op)| {
            find(op, CTRL_ATTR_OP_ID) == Some(&u32::from(PM_CMD_SUBFLOW_CREATE).to_ne_bytes())
        });
        Some(Self { id, events: group, userspace })
    }
}

/// A local address as commands name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Local {
    /// Address and port; port 0: any.
    pub addr: SocketAddr,
    /// MPTCP address id, 0 for that of the initial subflow.
    pub id: u8,
    /// Ask for backup.
    pub backup: bool,
    /// Interface to keep to; 0: none.
    pub ifindex: u32,
}

/// An address of the in-kernel path manager (`ip mptcp endpoint`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// MPTCP address id.
    pub id: u8,
    /// Address and port, 0 none of its own.
    pub addr: SocketAddr,
    /// Interface that its subflows keep to, 0 none.
    pub ifindex: u32,
    /// PM_FLAG_*.
    pub flags: u32,
}

impl Endpoint {
    /// Reads the answer to GET_ADDR.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let body = find(payload.get(4..)?, PM_ATTR_ADDR)?;
        let word = |kind| find(body, kind).and_then(|v| v.try_into().ok()).map(u32::from_ne_bytes);
        let port = find(body, PM_ADDR_PORT).and_then(|v| v.try_into().ok()).map_or(0, u16::from_ne_bytes);
        Some(Self {
            id: *find(body, PM_ADDR_ID)?.first()?,
            addr: (ip(body, PM_ADDR_ADDR4, PM_ADDR_ADDR6)?, port).into(),
            ifindex: word(PM_ADDR_IF_IDX).unwrap_or(0),
            flags: word(PM_ADDR_FLAGS).unwrap_or(0),
        })
    }
}

/// What the in-kernel path manager allows a connection (`ip mptcp limits`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Subflows besides the initial one.
    pub subflows: u32,
    /// Addresses taken from the peer.
    pub add_addr_accepted: u32,
}

impl Limits {
    /// Reads the answer to GET_LIMITS.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let body = payload.get(4..)?;
        let word = |kind| find(body, kind).and_then(|v| v.try_into().ok()).map(u32::from_ne_bytes);
        Some(Self { subflows: word(PM_ATTR_SUBFLOWS)?, add_addr_accepted: word(PM_ATTR_RCV_ADD_ADDRS)? })
    }
}

/// An address in one of two attributes.
fn ip(body: &[u8], v4: u16, v6: u16) -> Option<IpAddr> {
    if let Some(bytes) = find(body, v4) {
        return Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into());
    }
    Some(Ipv6Addr::from(<[u8; 16]>::try_from(find(body, v6)?).ok()?).into())
}

/// Sends commands.
#[derive(Debug)]
pub struct Commands {
    socket: Socket,
    family: Family,
}

impl AsFd for Commands {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn address(addr: &SocketAddr, id: Option<u8>, flags: u32, ifindex: u32) -> Attributes {
    let attributes = Attributes::default();
    let attributes = match addr {
        SocketAddr::V4(v4) => attributes
            .attr(PM_ADDR_FAMILY, &(libc::AF_INET as u16).to_ne_bytes())
            .attr(PM_ADDR_ADDR4, &v4.ip().octets()),
        SocketAddr::V6(v6) => attributes
            .attr(PM_ADDR_FAMILY, &(libc::AF_INET6 as u16).to_ne_bytes())
            .attr(PM_ADDR_ADDR6, &v6.ip().octets()),
    };
    let attributes = match addr.port() {
        0 => attributes,
        port => attributes.attr(PM_ADDR_PORT, &port.to_ne_bytes()),
    };
    let attributes = match id {
        None => attributes,
        Some(id) => attributes.attr(PM_ADDR_ID, &[id]),
    };
    let attributes = match flags {
        0 => attributes,
        flags => attributes.attr(PM_ADDR_FLAGS, &flags.to_ne_bytes()),
    };
    match ifindex {
        0 => attributes,
        index => attributes.attr(PM_ADDR_IF_IDX, &(index as i32).to_ne_bytes()),
    }
}

impl Commands {
    /// Opens a command socket in the calling thread's network namespace.
    pub fn open() -> Result<Self, Refusal> {
        let mut socket = Socket::open(libc::NETLINK_GENERIC)?;
        let family = Family::resolve(&mut socket)?;
        Ok(Self { socket, family })
    }

    /// The family as resolved.
    pub fn family(&self) -> Family {
        self.family
    }

    fn message(&self, command: u8, token: u32) -> Message {
        Message::generic(self.family.id, command, NLM_F_REQUEST | NLM_F_ACK)
            .attr(PM_ATTR_TOKEN, &token.to_ne_bytes())
    }

    /// Tells the peer of an address (ADD_ADDR). The id must not be 0.
    pub fn announce(&mut self, token: u32, local: &Local) -> Result<(), Refusal> {
        let addr = address(&local.addr, Some(local.id), PM_FLAG_SIGNAL, local.ifindex);
        self.socket.command(self.message(PM_CMD_ANNOUNCE, token).nested(PM_ATTR_ADDR, &addr))
    }

    /// Tells the peer that an address id is gone (RM_ADDR). Closes nothing
    /// here.
    pub fn remove(&mut self, token: u32, id: u8) -> Result<(), Refusal> {
        self.socket.command(self.message(PM_CMD_REMOVE, token).attr(PM_ATTR_LOC_ID, &[id]))
    }

    /// Sends a join's SYN. What becomes of it is an event.
    pub fn create(&mut self, token: u32, local: &Local, remote: &SocketAddr) -> Result<(), Refusal> {
        let flags = if local.backup { PM_FLAG_BACKUP } else { 0 };
        let from = address(&local.addr, Some(local.id), flags, local.ifindex);
        let to = address(remote, None, 0, 0);
        let message = self.message(PM_CMD_SUBFLOW_CREATE, token);
        self.socket.command(message.nested(PM_ATTR_ADDR, &from).nested(PM_ATTR_ADDR_REMOTE, &to))
    }

    /// Closes one subflow; both addresses exactly as the kernel lists them.
    pub fn destroy(&mut self, token: u32, local: &SocketAddr, remote: &SocketAddr) -> Result<(), Refusal> {
        let message = self.message(PM_CMD_SUBFLOW_DESTROY, token);
        let (from, to) = (address(local, None, 0, 0), address(remote, None, 0, 0));
        self.socket.command(message.nested(PM_ATTR_ADDR, &from).nested(PM_ATTR_ADDR_REMOTE, &to))
    }

    /// Makes a subflow backup or not, and tells the peer (MP_PRIO).
    pub fn set_backup(
        &mut self,
        token: u32,
        local: &SocketAddr,
        remote: &SocketAddr,
        backup: bool,
    ) -> Result<(), Refusal> {
        // The attribute must be there, also when it says 0.
        let flags = if backup { PM_FLAG_BACKUP } else { 0 };
        let from = address(local, None, 0, 0).attr(PM_ADDR_FLAGS, &flags.to_ne_bytes());
        let to = address(remote, None, 0, 0);
        let message = self.message(PM_CMD_SET_FLAGS, token);
        self.socket.command(message.nested(PM_ATTR_ADDR, &from).nested(PM_ATTR_ADDR_REMOTE, &to))
    }

    /// Has the kernel end a connection that has no subflow left, with its own
    /// timer: after net.mptcp.close_timeout (60 s; 6.7) the application sees
    /// POLLHUP, ENOTCONN on receiving and EPIPE on sending, as when subflows
    /// died by themselves. The kernel leaves such a connection as it is for
    /// good where this end was the one that closed the initial subflow in good
    /// order, with no other left.
    ///
    /// The timer starts where a further subflow fails while no other is there;
    /// so one is made that can only fail: from the loopback interface, which
    /// it can't leave, to port 0 there. It is told of as
    /// [`Event::SubflowDown`]. Its `id` stays taken on this connection, but for
    /// another [`Commands::end`]. `initial` is the closed initial subflow as
    /// the kernel lists it; where it still waits for the peer's word, which
    /// holds the timer up, it is reset.
    ///
    /// A subflow made later stops the timer, and where there are others
    /// nothing ends. ENOTCONN where either end has shut its direction down:
    /// such a connection waits for the application.
    pub fn end(
        &mut self,
        diag: &mut Diag,
        token: u32,
        initial: (&SocketAddr, &SocketAddr),
        id: u8,
    ) -> Result<(), Refusal> {
        let (local, remote) = initial;
        if diag.tuple(local, remote)?.is_some_and(|record| record.state != TCP_TIME_WAIT) {
            match diag.destroy(local, remote) {
                Err(refusal) if refusal.errno != Errno(libc::ENOENT) => return Err(refusal),
                _ => {}
            }
        }
        let nowhere = |v6| -> SocketAddr {
            if v6 { (Ipv6Addr::LOCALHOST, 0).into() } else { (Ipv4Addr::LOCALHOST, 0).into() }
        };
        let v6 = crate::addr::canonical(*local).is_ipv6();
        let mut result = Ok(());
        // The other family, should the host have no loopback address of one.
        for to in [nowhere(v6), nowhere(!v6)] {
            let from = Local { addr: to, id, backup: false, ifindex: LOOPBACK_IFINDEX };
            let attempt = self.create(token, &from, &to);
            if attempt.is_ok() {
                return attempt;
            }
            result = result.and(attempt);
        }
        result
    }

    /// The in-kernel path manager's addresses in this namespace, those made by
    /// itself included. Needs no privilege.
    pub fn endpoints(&mut self) -> Result<Vec<Endpoint>, Refusal> {
        let message = Message::generic(self.family.id, PM_CMD_GET_ADDR, NLM_F_REQUEST | NLM_F_DUMP);
        let mut all = Vec::new();
        self.socket.converse(message, |reply| all.extend(Endpoint::parse(reply.payload)))?;
        Ok(all)
    }

    /// The in-kernel path manager's limits in this namespace. Needs no
    /// privilege.
    pub fn limits(&mut self) -> Result<Limits, Refusal> {
        let message = Message::generic(self.family.id, PM_CMD_GET_LIMITS, NLM_F_REQUEST);
        let mut limits = None;
        self.socket.converse(message, |reply| limits = limits.or(Limits::parse(reply.payload)))?;
        limits.ok_or_else(|| Errno(libc::EBADMSG).into())
    }

    /// Whether the connection is under the userspace path manager. Asked by
    /// closing a subflow that can't exist: the answer differs and nothing
    /// changes.
    pub fn controls(&mut self, token: u32) -> Result<bool, Refusal> {
        let nowhere = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 9));
        match self.destroy(token, &nowhere, &nowhere) {
            Ok(()) => Ok(true),
            Err(refusal) if refusal.errno == Errno(libc::ESRCH) => Ok(true),
            Err(refusal) if refusal.errno == Errno(libc::EINVAL) => {
                if refusal.text.contains("userspace PM not selected") {
                    Ok(false)
                } else if refusal.text.contains("token") {
                    Err(Errno(libc::ENOTCONN).into())
                } else {
                    Ok(true)
                }
            }
            Err(refusal) => Err(refusal),
        }
    }
}

/// The addresses of a subflow in an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// As the kernel names it.
    pub local: SocketAddr,
    /// As the kernel names it.
    pub remote: SocketAddr,
    /// MPTCP address id.
    pub local_id: u8,
    /// MPTCP address id.
    pub remote_id: u8,
    /// The peer wants it as backup.
    pub backup: bool,
    /// errno that ended it, 0 none.
    pub error: i32,
    /// Why the peer reset it (RFC 8684 3.6), 0 not said (5.13).
    pub reset_reason: u32,
    /// Interface, 0 not known.
    pub ifindex: u32,
}

/// What the kernel tells of connections (include/uapi/linux/mptcp_pm.h).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection is there.
    Created {
        /// Its local token.
        token: u32,
        /// The initial subflow.
        pair: Pair,
        /// This end accepted it.
        server: bool,
    },
    /// It is fully established: subflows can be made.
    Established {
        /// Its local token.
        token: u32,
    },
    /// The application closed it.
    Closed {
        /// Its local token.
        token: u32,
    },
    /// The peer announced an address.
    Announced {
        /// The connection.
        token: u32,
        /// The peer's address id.
        id: u8,
        /// With the port to use.
        addr: SocketAddr,
    },
    /// The peer withdrew an address.
    Withdrawn {
        /// The connection.
        token: u32,
        /// The peer's address id.
        id: u8,
    },
    /// A further subflow answered.
    SubflowUp {
        /// The connection.
        token: u32,
        /// Which.
        pair: Pair,
    },
    /// A subflow ended, or never came to be.
    SubflowDown {
        /// The connection.
        token: u32,
        /// Which.
        pair: Pair,
    },
    /// The peer changed a subflow's priority.
    Priority {
        /// The connection.
        token: u32,
        /// Which.
        pair: Pair,
    },
    /// Some MPTCP socket of the namespace began to listen (6.2).
    ListenerUp {
        /// Where.
        addr: SocketAddr,
    },
    /// Some MPTCP socket of the namespace stopped listening (6.2).
    ListenerDown {
        /// Where.
        addr: SocketAddr,
    },
}

impl Event {
    /// The connection that it is about, if it is about one.
    pub fn token(&self) -> Option<u32> {
        match *self {
            Self::Created { token, .. }
            | Self::Established { token }
            | Self::Closed { token }
            | Self::Announced { token, .. }
            | Self::Withdrawn { token, .. }
            | Self::SubflowUp { token, .. }
            | Self::SubflowDown { token, .. }
            | Self::Priority { token, .. } => Some(token),
            Self::ListenerUp { .. } | Self::ListenerDown { .. } => None,
        }
    }

    /// Reads the body of an event; `None` for kinds that are not known and for
    /// those that lack what they need.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let kind = *payload.first()?;
        let body = payload.get(4..)?;
        let byte = |kind| find(body, kind).and_then(|v| v.first()).copied();
        let word = |kind| find(body, kind).and_then(|v| v.try_into().ok()).map(u32::from_ne_bytes);
        let half = |kind| find(body, kind).and_then(|v| v.try_into().ok()).map(u16::from_ne_bytes);
        let port = |kind| find(body, kind).and_then(|v| v.try_into().ok()).map(u16::from_be_bytes);
        let source = || ip(body, EV_SADDR4, EV_SADDR6);
        let destination = || ip(body, EV_DADDR4, EV_DADDR6);
        let pair = || {
            Some(Pair {
                local: (source()?, port(EV_SPORT)?).into(),
                remote: (destination()?, port(EV_DPORT)?).into(),
                local_id: byte(EV_LOC_ID).unwrap_or(0),
                remote_id: byte(EV_REM_ID).unwrap_or(0),
                backup: byte(EV_BACKUP).unwrap_or(0) != 0,
                error: i32::from(byte(EV_ERROR).unwrap_or(0)),
                reset_reason: word(EV_RESET_REASON).unwrap_or(0),
                ifindex: word(EV_IF_IDX).unwrap_or(0),
            })
        };
        if let EVENT_LISTENER_CREATED | EVENT_LISTENER_CLOSED = kind {
            let addr = SocketAddr::from((source()?, port(EV_SPORT)?));
            return Some(if kind == EVENT_LISTENER_CREATED {
                Self::ListenerUp { addr }
            } else {
                Self::ListenerDown { addr }
            });
        }
        let token = word(EV_TOKEN)?;
        Some(match kind {
            EVENT_CREATED => Self::Created {
                token,
                pair: pair()?,
                server: byte(EV_SERVER_SIDE).unwrap_or(0) != 0
                    || half(EV_FLAGS).unwrap_or(0) & EV_FLAG_SERVER_SIDE != 0,
            },
            EVENT_ESTABLISHED => Self::Established { token },
            EVENT_CLOSED => Self::Closed { token },
            EVENT_ANNOUNCED => Self::Announced {
                token,
                id: byte(EV_REM_ID)?,
                addr: (destination()?, port(EV_DPORT)?).into(),
            },
            EVENT_REMOVED => Self::Withdrawn { token, id: byte(EV_REM_ID)? },
            EVENT_SUB_ESTABLISHED => Self::SubflowUp { token, pair: pair()? },
            EVENT_SUB_CLOSED => Self::SubflowDown { token, pair: pair()? },
            EVENT_SUB_PRIORITY => Self::Priority { token, pair: pair()? },
            _ => return None,
        })
    }
}

/// Hears of every connection of the network namespace. While it is open the
/// kernel accepts joins to connections of the userspace path manager.
#[derive(Debug)]
pub struct Events {
    socket: Socket,
    family: u16,
}

impl AsFd for Events {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Events {
    /// Joins the group: CAP_NET_ADMIN, else EPERM.
    pub fn open(family: Family) -> KernelResult<Self> {
        // The default holds 128 new connections.
        Self::open_with(family, 8 << 20)
    }

    /// The same with this size of the buffer (SO_RCVBUF) of events that nobody
    /// has read yet; less where the process may not have as much.
    pub fn open_with(family: Family, rcvbuf: usize) -> KernelResult<Self> {
        let socket = Socket::open(libc::NETLINK_GENERIC)?;
        let size = i32::try_from(rcvbuf).unwrap_or(i32::MAX);
        if super::sockopt::set_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, size).is_err() {
            let _ = super::sockopt::set_int(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF, size);
        }
        socket.join(family.events)?;
        Ok(Self { socket, family: family.id })
    }

    /// Goes on with a socket that was opened here before and kept open since,
    /// with what it has heard meanwhile. EINVAL where it is something else, or
    /// of another network namespace than the calling thread's.
    pub fn from_fd(fd: OwnedFd, family: Family) -> KernelResult<Self> {
        let socket = Socket::adopt(fd, libc::NETLINK_GENERIC)?;
        let here = match super::sockopt::netns_cookie(socket.as_fd()) {
            Ok(cookie) => cookie == super::sockopt::thread_netns()?,
            // Before 5.14 nothing tells.
            Err(Errno(libc::ENOPROTOOPT)) => true,
            Err(errno) => return Err(errno),
        };
        if !here || !socket.joined(family.events)? {
            return Err(Errno(libc::EINVAL));
        }
        Ok(Self { socket, family: family.id })
    }

    /// Gives what has arrived to `each` without waiting. ENOBUFS: events were
    /// lost, look at everything again.
    pub fn drain(&mut self, mut each: impl FnMut(Event)) -> KernelResult<()> {
        let family = self.family;
        self.socket.drain(|message| {
            if message.kind == family
                && let Some(event) = Event::parse(message.payload)
            {
                each(event);
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{lab, sockopt};
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Event::parse(&bytes);
            let _ = Endpoint::parse(&bytes);
            let _ = Limits::parse(&bytes);
        }
    }

    #[test]
    fn endpoints_and_limits_are_read() {
        lab::alone(|| {
            let mut commands = Commands::open().unwrap();
            assert_eq!(commands.endpoints(), Ok(vec![]));
            lab::run("ip mptcp limits set subflows 5 add_addr_accepted 3");
            assert_eq!(commands.limits(), Ok(Limits { subflows: 5, add_addr_accepted: 3 }));
            lab::run("ip mptcp endpoint add 10.7.0.1 id 3 dev lo subflow backup");
            lab::run("ip -6 addr add fd07::1/64 dev lo nodad");
            lab::run("ip mptcp endpoint add fd07::1 port 900 id 200 signal");
            let all = commands.endpoints().unwrap();
            let v4 = Endpoint {
                id: 3,
                addr: "10.7.0.1:0".parse().unwrap(),
                ifindex: 1,
                flags: PM_FLAG_SUBFLOW | PM_FLAG_BACKUP,
            };
            let v6 = Endpoint {
                id: 200,
                addr: "[fd07::1]:900".parse().unwrap(),
                ifindex: 0,
                flags: PM_FLAG_SIGNAL,
            };
            assert_eq!(all, vec![v4, v6]);
        });
    }

    #[test]
    fn an_event_socket_is_taken_over_with_what_it_has_heard() {
        let mut elsewhere = None;
        lab::alone(|| {
            let commands = Commands::open().unwrap();
            let events = Events::open_with(commands.family(), 1 << 20).unwrap();
            let size = sockopt::get_int(events.as_fd(), libc::SOL_SOCKET, libc::SO_RCVBUF).unwrap();
            assert_eq!(size, 2 << 20);
            let kept = sockopt::duplicate(events.as_fd()).unwrap();
            elsewhere = Some(sockopt::duplicate(events.as_fd()).unwrap());
            drop(events);
            let (client, _server) = lab::connection(libc::IPPROTO_MPTCP);
            let token = sockopt::info(client.as_fd()).unwrap().token;
            let mut events = Events::from_fd(kept, commands.family()).unwrap();
            let mut created = false;
            let mut watch = |event| {
                created |= matches!(event, Event::Created { token: t, server: false, .. } if t == token);
            };
            events.drain(&mut watch).unwrap();
            assert!(created);

            let errno = |fd| Events::from_fd(fd, commands.family()).map(drop);
            let unjoined = Socket::open(libc::NETLINK_GENERIC).unwrap();
            let other = Socket::open(libc::NETLINK_ROUTE).unwrap();
            for wrong in [unjoined.as_fd(), other.as_fd(), client.as_fd()] {
                assert_eq!(errno(sockopt::duplicate(wrong).unwrap()), Err(Errno(libc::EINVAL)));
            }
        });
        lab::alone(|| {
            let family = Commands::open().unwrap().family();
            let taken = Events::from_fd(elsewhere.unwrap(), family).map(drop);
            assert_eq!(taken, Err(Errno(libc::EINVAL)));
        });
    }
}
