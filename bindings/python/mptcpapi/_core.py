# SPDX-License-Identifier: MIT OR Apache-2.0
"""The functions of the C library on sockets of Python."""

from __future__ import annotations

import ctypes
import dataclasses
import select
import socket
import time
from typing import List, Optional, Tuple, Union

from . import _constants as c
from ._address import Address, Addresses, pack, to_addresses, unpack_one
from ._native import CapsStruct, Socket, SubflowStruct, descriptor, int_argument, library, socklen_t


@dataclasses.dataclass(frozen=True)
class Subflow:
    """One established TCP path of a connection.

    local and remote are Address tuples; an IPv4-mapped IPv6 address is shown as
    IPv4. id is the kernel's number of the subflow, unique in its connection, or
    0 where the kernel doesn't tell. flags holds SubflowFlag bits, which the
    properties spell out.
    """

    local: Address
    remote: Address
    id: int
    flags: c.SubflowFlag

    @property
    def initial(self) -> bool:
        """It is the connection's first subflow."""
        return bool(self.flags & c.SubflowFlag.INITIAL)

    @property
    def fallback(self) -> bool:
        """The connection is plain TCP: this pair of addresses is all there is."""
        return bool(self.flags & c.SubflowFlag.FALLBACK)

    @property
    def priority_known(self) -> bool:
        """backup and peer_backup were looked up; the statistics do it, subflows() doesn't."""
        return bool(self.flags & c.SubflowFlag.PRIO_KNOWN)

    @property
    def backup(self) -> Optional[bool]:
        """This side asked to use it as a backup only; None: not looked up."""
        return bool(self.flags & c.SubflowFlag.BACKUP) if self.priority_known else None

    @property
    def peer_backup(self) -> Optional[bool]:
        """The peer asked to use it as a backup only; None: not looked up."""
        return bool(self.flags & c.SubflowFlag.PEER_BACKUP) if self.priority_known else None


@dataclasses.dataclass(frozen=True)
class Capabilities:
    """What works on this host, or on one socket, at this moment.

    works: what works now. known: what this version of the library can tell at
    all. backend: who controls paths for this process; backend_errno says why
    there is no better one (EPERM: no broker answers and no CAP_NET_ADMIN; 0:
    nothing is missing), reason the same in words. control: who chooses this
    socket's paths. library: version of the C library. subflows_max: of one
    connection, 0 when not known. addrs_max: longest list that add() takes.
    """

    works: c.Capability
    known: c.Capability
    backend: c.Backend
    backend_errno: int
    control: c.Control
    library: Tuple[int, int, int]
    subflows_max: int
    addrs_max: int
    reason: str


def version() -> str:
    """Give the version of the C library that was loaded, as "0.1.0"."""
    return library.text("mptcp_version")


def capabilities(sock: Optional[Socket] = None) -> Capabilities:
    """Tell what works: on this socket, or without one on this host.

    Changes nothing. Errors: EBADF, ENOTSOCK, EOPNOTSUPP (not a TCP or MPTCP
    socket).
    """
    caps = CapsStruct()
    fd = -1 if sock is None else descriptor(sock)
    if fd < 0 and sock is not None:
        # -1 would ask about the host, and a closed socket's fileno() is -1.
        is_enabled(fd)
    library.call("mptcp_getcaps", fd, ctypes.byref(caps), ctypes.sizeof(caps))
    number: int = caps.library
    return Capabilities(
        works=c.Capability(caps.works),
        known=c.Capability(caps.known),
        backend=c.Backend(caps.backend),
        backend_errno=caps.backend_errno,
        control=c.Control(caps.control),
        library=(number >> 16, number >> 8 & 0xFF, number & 0xFF),
        subflows_max=caps.subflows_max,
        addrs_max=caps.addrs_max,
        reason=caps.reason.decode("utf-8", "replace"),
    )


def mptcp_socket(
    family: int = socket.AF_INET, type: int = socket.SOCK_STREAM, proto: int = 0
) -> socket.socket:
    """Make a socket as socket.socket() does, of MPTCP where the kernel has it.

    Otherwise it is a TCP socket: is_enabled() tells. Other families and types
    give what socket.socket() gives. Like all sockets of Python it isn't
    inherited by programs this one starts, and it gets the default timeout.
    Errors: those of socket(2).
    """
    fd = library.call(
        "mptcp_socket",
        int_argument(family, "family"),
        int_argument(type, "type") | socket.SOCK_CLOEXEC,
        int_argument(proto, "proto"),
    )
    try:
        return socket.socket(family, type, -1, fd)
    except BaseException:
        socket.close(fd)
        raise


def enable(sock: Socket, on: bool = True) -> None:
    """Make a socket an MPTCP socket, or with on=False a TCP socket again.

    Before connect() and listen(), and before the socket is registered with a
    selector or duplicated: another socket takes the place of the old one under
    the same descriptor, with its options, flags and bound address. (The proto
    attribute of a socket.socket is not updated.) Errors: EISCONN (connected,
    connecting or listening), EOPNOTSUPP (no MPTCP here; it stays a usable TCP
    socket), EADDRINUSE, EBADF, ENOTSOCK.
    """
    setsockopt(sock, socket.IPPROTO_TCP, c.TCP_MULTIPATH_ENABLE, int(bool(on)))


def is_enabled(sock: Socket) -> bool:
    """Tell whether a socket uses MPTCP.

    Before it connects: what was asked for. On a connection: whether MPTCP is in
    use now, False after a fallback to TCP. After its end: the last known.
    Errors: EBADF, ENOTSOCK, EOPNOTSUPP (not a TCP or MPTCP socket).
    """
    return bool(getsockopt(sock, socket.IPPROTO_TCP, c.TCP_MULTIPATH_ENABLE))


def add(
    sock: Socket,
    addresses: Addresses,
    *,
    backup: bool = False,
    advertise: bool = True,
    subflow: bool = True,
) -> None:
    """Add local addresses to those that a connection uses.

    Before it connects (best followed by connect() of this module): it will use
    these and no others, besides what it is bound to. On a connection: use these
    too; where the kernel's own path manager is the default (capabilities() calls
    it Control.KERNEL) only if a list was made before it connected. On a listener:
    for the connections it accepts. addresses is one address or several (up to
    64); all are taken or none.

    backup: use their subflows only when no others work. advertise=False: use
    them, but don't tell the peer. subflow=False: tell the peer, but open no
    subflow from them. Adding an address again changes these.

    Subflows come later, when data has flowed both ways and the peer agrees:
    subflows() tells. Errors: EADDRNOTAVAIL (not an address of this host),
    EADDRINUSE (its port is taken), EAFNOSUPPORT (of a family this socket can't
    use), EPERM (no broker answers and no CAP_NET_ADMIN), EACCES (forbidden by
    policy), EDQUOT, ENOSPC (too many), EOPNOTSUPP (not an MPTCP socket, or not
    possible on this kernel), EIO (the broker failed; ask again), EINVAL.
    """
    flags = c.MPTCP_BINDX_ADD_ADDR
    if backup:
        flags |= c.MPTCP_BINDX_BACKUP
    if not advertise:
        flags |= c.MPTCP_BINDX_NO_ADVERTISE
    if not subflow:
        flags |= c.MPTCP_BINDX_NO_SUBFLOW
    _bindx(sock, addresses, flags)


def remove(sock: Socket, addresses: Addresses) -> None:
    """Take local addresses out of use.

    On a connection: others take over (a blocking socket waits for that, two
    seconds at most), the peer is told and their subflows are closed. Without a
    list made by add(): these are excluded until added again. Port 0 means every
    port of the address. Removing the last one before connecting lifts the
    restriction. Errors: EADDRNOTAVAIL (neither in the list nor in use), and
    those of add().
    """
    _bindx(sock, addresses, c.MPTCP_BINDX_REM_ADDR)


def _bindx(sock: Socket, addresses: Addresses, flags: int) -> None:
    listed = to_addresses(addresses)
    library.call("mptcp_bindx", descriptor(sock), pack(listed), len(listed), flags)


def connect(sock: Socket, addresses: Addresses) -> int:
    """Connect to one peer, which has one address or several.

    The addresses must be of the same host, with their ports: each is tried in
    turn until one answers, the others get subflows when possible. (Never pass
    what getaddrinfo() found for a name: use create_connection().) The first
    subflow starts at a local address that add() allowed.

    Gives the connection id, or 0 when the connection is plain TCP. Waits as
    socket.connect() does, up to the socket's timeout: TimeoutError (in Python
    3.9 its predecessor socket.timeout). On a socket with timeout 0, or an int
    whose descriptor is non-blocking, BlockingIOError means: call again with the
    same addresses once it is writable. Errors: those of connect(2) for the last
    address tried, EISCONN (connected to another), EADDRNOTAVAIL (no address
    that add() allowed leads to the peer).
    """
    listed = to_addresses(addresses)
    timeout = sock.gettimeout() if isinstance(sock, socket.socket) else None
    # Python keeps a socket with a timeout non-blocking and waits by itself.
    deadline = time.monotonic() + timeout if timeout else None
    while True:
        try:
            return connect_step(descriptor(sock), listed)
        except InterruptedError:
            continue  # Python has run its signal handlers; the attempt goes on
        except BlockingIOError:
            if deadline is None:
                raise
        _wait_writable(descriptor(sock), deadline)


def connect_step(fd: int, addresses: List[Address]) -> int:
    """Call mptcp_connectx() once."""
    connid = ctypes.c_uint32()
    library.call("mptcp_connectx", fd, pack(addresses), len(addresses), ctypes.byref(connid))
    return connid.value


def _wait_writable(fd: int, deadline: float) -> None:
    poller = select.poll()
    poller.register(fd, select.POLLOUT)
    # In milliseconds, rounded up so that it never ends early and never spins.
    left = max(0, int((deadline - time.monotonic()) * 1000 + 0.999))
    if not poller.poll(left):
        raise socket.timeout("timed out")


def subflows(sock: Socket) -> List[Subflow]:
    """List the established subflows of a connection, oldest first.

    A plain TCP connection has one, with fallback set. The list is one
    consistent snapshot and may be empty for a moment. Errors: ENOTCONN,
    EOPNOTSUPP (the kernel can't tell).
    """
    array = ctypes.POINTER(SubflowStruct)()
    count = library.call("mptcp_getsubflows", descriptor(sock), ctypes.byref(array))
    try:
        return [to_subflow(one) for one in array[:count]]
    finally:
        library.free("mptcp_freesubflows", array)


def to_subflow(one: SubflowStruct) -> Subflow:
    """Give a struct mptcp_subflow as a Subflow."""
    return Subflow(
        unpack_one(bytes(one.local))[0],
        unpack_one(bytes(one.remote))[0],
        one.id,
        c.SubflowFlag(one.flags),
    )


def connection_id(sock: Socket) -> int:
    """Give the number of a connection: unique among this host's live ones.

    Errors: ENOTCONN, EOPNOTSUPP (plain TCP).
    """
    # Not by the int form of getsockopt(), which is signed.
    raw = getsockopt(sock, socket.IPPROTO_TCP, c.TCP_MULTIPATH_CONNID, 4)
    assert isinstance(raw, bytes)
    return ctypes.c_uint32.from_buffer_copy(raw).value


def local_addresses(sock: Socket) -> List[Address]:
    """List the local addresses of a socket.

    Those that add() allowed, if any; otherwise before it connects the address
    it is bound to (the list may be empty), then those of its subflows. Errors:
    EBADF, ENOTSOCK, EOPNOTSUPP.
    """
    return _address_list(sock, "mptcp_getladdrs", "mptcp_freeladdrs")


def peer_addresses(sock: Socket) -> List[Address]:
    """List the peer's addresses: of the subflows, then others it announced.

    Errors: ENOTCONN.
    """
    return _address_list(sock, "mptcp_getpaddrs", "mptcp_freepaddrs")


def _address_list(sock: Socket, get: str, free: str) -> List[Address]:
    pointer = ctypes.c_void_p()
    count = library.call(get, descriptor(sock), ctypes.byref(pointer))
    try:
        found = []
        position = pointer.value or 0
        for _ in range(count):
            # The family says how long the entry is; nothing beyond it is read.
            family = ctypes.c_ushort.from_address(position).value
            length = 28 if family == socket.AF_INET6 else 16
            address, length = unpack_one(ctypes.string_at(position, length))
            found.append(address)
            position += length
        return found
    finally:
        library.free(free, pointer)


def setsockopt(
    sock: Socket, level: int, optname: int, value: Union[int, bytes, bytearray, memoryview]
) -> None:
    """Set an option as socket.setsockopt() does, TCP_MULTIPATH_* included.

    Options of other levels and numbers go to the kernel unchanged. Errors: those
    of the option; ENOPROTOOPT (not known, or not to be set).
    """
    if isinstance(value, int):
        raw = bytes(ctypes.c_int(int_argument(value, "value")))
    else:
        raw = bytes(value)
    library.call(
        "mptcp_setsockopt",
        descriptor(sock),
        int_argument(level, "level"),
        int_argument(optname, "option"),
        raw,
        len(raw),
    )


def getsockopt(sock: Socket, level: int, optname: int, buflen: int = 0) -> Union[int, bytes]:
    """Get an option as socket.getsockopt() does, TCP_MULTIPATH_* included.

    With buflen 0 the option is an int; otherwise it is given as bytes, buflen at
    most. Options of other levels and numbers go to the kernel unchanged. Errors:
    those of the option; ENOPROTOOPT (not known, or only to be set), ENOBUFS
    (buflen is too small for TCP_MULTIPATH_SUBFLOWS).
    """
    if not 0 <= int_argument(buflen, "buflen") <= 1 << 20:
        raise ValueError(f"buflen {buflen} is not between 0 and {1 << 20}")
    buffer = ctypes.create_string_buffer(buflen or ctypes.sizeof(ctypes.c_int))
    length = socklen_t(len(buffer))
    library.call(
        "mptcp_getsockopt",
        descriptor(sock),
        int_argument(level, "level"),
        int_argument(optname, "option"),
        buffer,
        ctypes.byref(length),
    )
    if buflen:
        return buffer.raw[: length.value]
    return ctypes.c_int.from_buffer_copy(buffer).value
