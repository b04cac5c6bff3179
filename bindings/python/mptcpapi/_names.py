# SPDX-License-Identifier: MIT OR Apache-2.0
"""connect_by_name(): a connection to a host by its name."""

from __future__ import annotations

import ctypes
import math
import socket
import time
from typing import Optional, Union

from . import _constants as c
from ._address import Addresses, pack, to_addresses
from ._native import ConnectOptsStruct, int_argument, library
from ._stream import _DEFAULT, _Default


def connect_by_name(
    host: Union[str, bytes],
    port: Union[str, int],
    *,
    timeout: Union[float, None, _Default] = _DEFAULT,
    family: int = socket.AF_UNSPEC,
    local_addresses: Optional[Addresses] = None,
    profile: int = c.MPTCP_PROFILE_AGGREGATE,
    fallback: bool = True,
    multipath: bool = True,
    numeric: bool = False,
    attempt_delay: float = 0.25,
    tcp_delay: float = 0.15,
) -> socket.socket:
    """Connect to a host by its name, by Multipath TCP or TCP.

    The addresses of the name are tried as Happy Eyeballs version 2 (RFC 8305)
    has it, families in turn, the next one attempt_delay seconds after the one
    before or when that has failed: each by MPTCP, and tcp_delay seconds later
    also by TCP. The first to answer is returned: is_enabled() tells what it is.
    So something on the way that swallows MPTCP's packets costs tcp_delay, and
    not MPTCP for the whole host. Several addresses are never taken for one host.

    timeout bounds all attempts together, from the moment when the name is
    resolved, and stays on the socket. local_addresses: use these and no others,
    as with add() before connecting. fallback=False: fail rather than return
    plain TCP. multipath=False: plain TCP only. numeric=True: host is an address,
    and nothing is looked up. A name beyond ASCII is encoded as the socket module
    does it.

    Errors: ENOENT (no such name, or no address of this family), EAGAIN, EIO (the
    resolver fails, for now or for good), EINVAL (no such service), ETIMEDOUT,
    EADDRNOTAVAIL (local_addresses: not of this host, or none that reaches the
    peer), EOPNOTSUPP (only plain TCP was to be had with fallback=False), EPERM
    and others of add(); else that of the best address. The words name each
    attempt.
    """
    limit = socket.getdefaulttimeout() if isinstance(timeout, _Default) else timeout
    listed = [] if local_addresses is None else to_addresses(local_addresses)
    packed = pack(listed)
    opts = ConnectOptsStruct(
        local=packed,
        local_count=len(listed),
        flags=(c.MPTCP_CONNECT_NO_FALLBACK if not fallback else 0)
        | (c.MPTCP_CONNECT_NO_MPTCP if not multipath else 0)
        | (c.MPTCP_CONNECT_NUMERIC if numeric else 0),
        family=int_argument(family, "family"),
        profile=int_argument(profile, "profile"),
        attempt_delay_ms=_milliseconds(attempt_delay, "attempt_delay"),
        tcp_delay_ms=_milliseconds(tcp_delay, "tcp_delay"),
    )
    if not isinstance(host, (str, bytes)):
        raise TypeError(f"host must be str or bytes, not {type(host).__name__}")
    node = host if isinstance(host, bytes) else _encoded(host)
    service = str(int_argument(port, "port")) if not isinstance(port, str) else port
    if b"\0" in node or "\0" in service:
        raise ValueError("embedded null character")
    begin = time.monotonic()
    while True:
        if limit is not None:
            left = _milliseconds(limit, "timeout") - int((time.monotonic() - begin) * 1000)
            opts.timeout_ms = max(left, 1)
        try:
            fd = library.call(
                "mptcp_connectbyname", node, service.encode(), ctypes.byref(opts), ctypes.sizeof(opts)
            )
            break
        except InterruptedError:
            continue  # Python has run its signal handlers; nothing is left of the attempts
    try:
        sock = socket.socket(-1, -1, -1, fd)
    except BaseException:
        socket.close(fd)
        raise
    sock.settimeout(limit)
    return sock


def _encoded(host: str) -> bytes:
    try:
        return host.encode("ascii")
    except UnicodeEncodeError:
        return host.encode("idna")


def _milliseconds(seconds: float, what: str) -> int:
    """A time as the C library takes it, where 0 would be the default."""
    if not 0 <= seconds < 2**32 / 1000 - 1 or (seconds == 0 and what == "timeout"):
        raise ValueError(f"{what} {seconds} is out of range")
    return max(math.ceil(seconds * 1000), 1)
