# SPDX-License-Identifier: MIT OR Apache-2.0
"""What a connection is for, how many subflows it has and when, and subflows by hand."""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import os
import socket
import struct
import time
from typing import Optional, Union

from . import _constants as c
from ._address import Address, AddressLike, pack, to_addresses
from ._core import Subflow, getsockopt, setsockopt
from ._events import Event, Events
from ._native import Socket, descriptor, int_argument, library
from ._stats import SubflowStats, named

# struct mptcp_traffic, struct mptcp_path_policy.
_TRAFFIC = struct.Struct("=QQQII")
_POLICY = struct.Struct("=IIQ")


@dataclasses.dataclass(frozen=True)
class Traffic:
    """What a connection will carry; 0: not known.

    bytes_to_send, bytes_to_receive. rate: bytes a second. duration_ms:
    milliseconds.
    """

    bytes_to_send: int = 0
    bytes_to_receive: int = 0
    rate: int = 0
    duration_ms: int = 0


@dataclasses.dataclass(frozen=True)
class PathPolicy:
    """When further subflows are made.

    mode: PathMode.EAGER, as soon as possible; ON_DEMAND, when the connection has
    carried after_bytes in both directions together or has lasted for after_ms
    milliseconds, whichever comes first (0: not by this; both 0: 1 MiB); MANUAL,
    only by open_subflow().
    """

    mode: c.PathMode = c.PathMode.EAGER
    after_ms: int = 0
    after_bytes: int = 0


def max_subflows(sock: Socket) -> int:
    """Tell how many subflows a connection may have, the first included."""
    return _number(sock, c.TCP_MULTIPATH_MAX_SUBFLOWS)


def set_max_subflows(sock: Socket, number: int) -> None:
    """Say how many subflows a connection may have: 1 to 255, 0 for the default.

    Before it connects or on it; on a listener for what it accepts from then on,
    like all that is set here. Raised, those are made that the list asks for;
    lowered, the least useful are closed, never the last. Errors: EPERM (no
    broker answers and no CAP_NET_ADMIN), EOPNOTSUPP (not an MPTCP socket; the
    in-kernel path manager has the connection; the broker is too old), EACCES,
    EDQUOT, EIO, ENOTCONN (it has ended), EINVAL. What is in force already can
    always be set.
    """
    _set(sock, c.TCP_MULTIPATH_MAX_SUBFLOWS, number)


def profile(sock: Socket) -> c.Profile:
    """Tell what a connection is for."""
    return c.Profile(_number(sock, c.TCP_MULTIPATH_PROFILE))


def set_profile(sock: Socket, profile: Union[c.Profile, int]) -> None:
    """Say what a connection is for.

    Profile.AGGREGATE: all paths at once. INTERACTIVE: the path with the lowest
    delay, the others for backup. HANDOVER: one path and one warm spare. OVERFLOW:
    one path, and a second while that is full. Errors: those of
    set_max_subflows().
    """
    _set(sock, c.TCP_MULTIPATH_PROFILE, profile)


def traffic(sock: Socket) -> Traffic:
    """Tell what was said of a connection's traffic."""
    raw = getsockopt(sock, socket.IPPROTO_TCP, c.TCP_MULTIPATH_TRAFFIC, _TRAFFIC.size)
    assert isinstance(raw, bytes)
    return Traffic(*_TRAFFIC.unpack(raw)[:4])


def set_traffic(sock: Socket, traffic: Traffic) -> None:
    """Say what a connection will carry.

    One of less than 1 MiB gets no further subflows, unless it carries that much
    after all. Errors: those of set_max_subflows().
    """
    raw = _packed(
        _TRAFFIC, traffic.bytes_to_send, traffic.bytes_to_receive, traffic.rate, traffic.duration_ms, 0
    )
    setsockopt(sock, socket.IPPROTO_TCP, c.TCP_MULTIPATH_TRAFFIC, raw)


def path_policy(sock: Socket) -> PathPolicy:
    """Tell when further subflows are made."""
    raw = getsockopt(sock, socket.IPPROTO_TCP, c.TCP_MULTIPATH_PATH_POLICY, _POLICY.size)
    assert isinstance(raw, bytes)
    mode, after_ms, after_bytes = _POLICY.unpack(raw)
    return PathPolicy(c.PathMode(mode), after_ms, after_bytes)


def set_path_policy(sock: Socket, policy: Union[PathPolicy, c.PathMode, int]) -> None:
    """Say when further subflows are made: a PathPolicy, or a mode alone.

    Errors: those of set_max_subflows().
    """
    if not isinstance(policy, PathPolicy):
        policy = PathPolicy(c.PathMode(policy))
    raw = _packed(_POLICY, int(policy.mode), policy.after_ms, policy.after_bytes)
    setsockopt(sock, socket.IPPROTO_TCP, c.TCP_MULTIPATH_PATH_POLICY, raw)


def redundancy(sock: Socket) -> c.Redundancy:
    """Tell what is sent on more than one path."""
    return c.Redundancy(_number(sock, c.TCP_MULTIPATH_REDUNDANCY))


def set_redundancy(sock: Socket, redundancy: Union[c.Redundancy, int]) -> None:
    """Say what is to be sent on more than one path.

    Takes a packet scheduler that Linux itself doesn't have: EOPNOTSUPP where
    there is none, as Capability.REDUNDANCY tells. Errors: those of
    set_max_subflows().
    """
    _set(sock, c.TCP_MULTIPATH_REDUNDANCY, redundancy)


def fate_sharing(sock: Socket) -> bool:
    """Tell whether a connection ends with its first subflow."""
    return bool(_number(sock, c.TCP_MULTIPATH_FATE_SHARING))


def set_fate_sharing(sock: Socket, on: bool = True) -> None:
    """Say whether a connection ends with its first subflow.

    The default is the administrator's. Errors: ENOENT (that subflow is gone
    already), and those of set_max_subflows().
    """
    _set(sock, c.TCP_MULTIPATH_FATE_SHARING, int(bool(on)))


def open_subflow(
    sock: Socket,
    local: Optional[AddressLike] = None,
    remote: Optional[AddressLike] = None,
    *,
    backup: bool = False,
    wait: bool = False,
) -> None:
    """Open a subflow of a connection.

    local: from which address, None for any of the list. remote: where to, None
    for where the first subflow leads. Port 0 is any, and the first subflow's.
    It is made as soon as the connection is fully established, and tried once.

    Without wait its end is an event: SUBFLOW_UP or REQUEST_FAILED. With wait
    this returns when it is established, or raises why it isn't, up to the
    socket's timeout: TimeoutError, after which the attempt goes on. Without a
    timeout it is given up after SO_SNDTIMEO, 10 seconds if that is not set.

    Errors: ENOTCONN, EADDRNOTAVAIL (local is not in the list, or not of this
    host), EAFNOSUPPORT (unlike families), ENOSPC (as many as there may be),
    EINVAL (wait on a non-blocking socket), and those of set_max_subflows(); EIO:
    it may have been opened, look at subflows() before a second try.
    """
    here = _one(local)
    there = _one(remote)
    flags = c.MPTCP_OPEN_BACKUP if backup else 0
    timeout = sock.gettimeout() if isinstance(sock, socket.socket) else None
    if not wait or not timeout:
        flags |= c.MPTCP_OPEN_WAIT if wait else 0
        _open(sock, here, there, flags)
        return
    # Python keeps a socket with a timeout non-blocking: events tell the end.
    deadline = time.monotonic() + timeout
    kinds = c.EventKind.SUBFLOW_UP | c.EventKind.REQUEST_FAILED
    with Events(sock, kinds) as events:
        _open(sock, here, there, flags)
        while True:
            try:
                event = events.wait(max(deadline - time.monotonic(), 0))
            except TimeoutError:
                raise socket.timeout("timed out") from None
            if event is None:
                raise OSError(errno.ENOTCONN, "the connection ended")
            if not _is_about(event, here, there):
                continue
            if event.what == c.EventKind.SUBFLOW_UP:
                return
            number = event.error or errno.ECONNREFUSED
            raise OSError(number, f"the subflow was not made: {os.strerror(number)}")


def close_subflow(sock: Socket, subflow: Union[Subflow, SubflowStats]) -> None:
    """Close a subflow, as subflows() or all_stats() gave it; the last one too.

    It isn't opened again by itself. Works where the in-kernel path manager has
    the connection, too. Errors: ENOENT (no such subflow, or no more), ENOTCONN,
    EPERM, EOPNOTSUPP, EDQUOT, EIO.
    """
    library.call("mptcp_closesubflow", descriptor(sock), ctypes.byref(named(subflow)))


def set_backup(sock: Socket, subflow: Union[Subflow, SubflowStats], on: bool = True) -> None:
    """Make a subflow one for backup, or not: both sides then use it only when no
    other works. Errors: those of close_subflow().
    """
    library.call("mptcp_setbackup", descriptor(sock), ctypes.byref(named(subflow)), int(bool(on)))


def _number(sock: Socket, option: int) -> int:
    value = getsockopt(sock, socket.IPPROTO_TCP, option)
    assert isinstance(value, int)
    return value


def _set(sock: Socket, option: int, value: int) -> None:
    setsockopt(sock, socket.IPPROTO_TCP, option, int_argument(value, "value"))


def _packed(form: struct.Struct, *values: int) -> bytes:
    try:
        return form.pack(*values)
    except struct.error as error:
        raise OverflowError(f"a number is out of range: {error}") from None


def _one(address: Optional[AddressLike]) -> Optional[Address]:
    if address is None:
        return None
    listed = to_addresses(address)
    if len(listed) != 1:
        raise ValueError(f"one address, not {len(listed)}")
    return listed[0]


def _open(sock: Socket, local: Optional[Address], remote: Optional[Address], flags: int) -> None:
    here = None if local is None else pack([local])
    there = None if remote is None else pack([remote])
    library.call("mptcp_opensubflow", descriptor(sock), here, there, flags)


def _is_about(event: Event, local: Optional[Address], remote: Optional[Address]) -> bool:
    """Whether an event can be the end of what was asked for."""
    ours = event.origin == c.Origin.APP or event.what == c.EventKind.REQUEST_FAILED
    if not ours or event.subflow is None:
        return False
    pairs = ((local, event.subflow.local), (remote, event.subflow.remote))
    return all(
        asked is None or (asked.host == seen.host and asked.port in (0, seen.port)) for asked, seen in pairs
    )

