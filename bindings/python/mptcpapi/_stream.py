# SPDX-License-Identifier: MIT OR Apache-2.0
"""create_connection() and create_server(), in the manner of the socket module."""

from __future__ import annotations

import errno
import os
import socket
import sys
from typing import Any, List, NoReturn, Optional, Tuple, Union

from ._address import Address, Addresses, to_addresses
from ._core import add, connect, mptcp_socket


class _Default:
    """The type of a default that None would not do for."""

    def __repr__(self) -> str:
        return "<socket.getdefaulttimeout()>"


_DEFAULT = _Default()


def add_usable(sock: socket.socket, addresses: List[Address]) -> None:
    """add() those addresses that a socket's family allows; fail without any.

    One list serves all answers for a name, IPv4 and IPv6.
    """
    both = sock.family == socket.AF_INET6 and not sock.getsockopt(
        socket.IPPROTO_IPV6, socket.IPV6_V6ONLY
    )
    usable = [one for one in addresses if both or one.family == sock.family]
    if addresses and not usable:
        raise OSError(errno.EAFNOSUPPORT, "no local address of this family was given")
    add(sock, usable)


def check_all_errors(all_errors: bool) -> None:
    """Say early that there are no exception groups."""
    if all_errors and sys.version_info < (3, 11):
        raise NotImplementedError("all_errors needs Python 3.11")


def raise_all(errors: List[OSError], all_errors: bool) -> NoReturn:
    """Raise the last error, or all in a group."""
    try:
        if not errors:
            raise OSError("getaddrinfo returns an empty list")
        if all_errors and sys.version_info >= (3, 11):
            raise ExceptionGroup("create_connection failed", errors)
        raise errors[-1]
    finally:
        # Each traceback holds a frame that holds this list: break the circle.
        errors.clear()


def create_connection(
    address: Tuple[Optional[str], Union[str, int, None]],
    timeout: Union[float, None, _Default] = _DEFAULT,
    source_address: Optional[Tuple[str, int]] = None,
    *,
    all_errors: bool = False,
    local_addresses: Optional[Addresses] = None,
) -> socket.socket:
    """Connect to (host, port) with MPTCP, as socket.create_connection() does.

    The answers for a name are tried in turn, as hosts of their own. Without
    MPTCP here or at the peer the connection is plain TCP: is_enabled() tells.
    timeout bounds each attempt and stays on the socket.

    local_addresses: use these and no others (see add()); those that don't fit
    an answer's family are left out for it. It is a promise: where it can't be
    kept (EPERM without a broker and CAP_NET_ADMIN, EOPNOTSUPP without MPTCP)
    the call fails.

    Raises the last attempt's OSError, with all_errors (Python 3.11) a group of
    all.
    """
    check_all_errors(all_errors)
    host, port = address
    allowed = None if local_addresses is None else to_addresses(local_addresses)
    errors: List[OSError] = []
    for family, kind, _, _, where in socket.getaddrinfo(host, port, 0, socket.SOCK_STREAM):
        sock: Optional[socket.socket] = None
        try:
            sock = mptcp_socket(family, kind)
            if not isinstance(timeout, _Default):
                sock.settimeout(timeout)
            if source_address:
                sock.bind(source_address)
            if allowed is not None:
                add_usable(sock, allowed)
            connect(sock, to_peer(where))
            return sock
        except OSError as error:
            errors.append(error)
            if sock is not None:
                sock.close()
        except BaseException:
            if sock is not None:
                sock.close()
            raise
    raise_all(errors, all_errors)


def to_peer(where: Tuple[Any, ...]) -> Address:
    """Give an answer of getaddrinfo() as an Address."""
    return Address(where[0], where[1], where[3] if len(where) > 2 else 0)


def create_server(
    address: Tuple[str, int],
    *,
    family: int = socket.AF_INET,
    backlog: Optional[int] = None,
    reuse_port: bool = False,
    dualstack_ipv6: bool = False,
    local_addresses: Optional[Addresses] = None,
) -> socket.socket:
    """Make a listening MPTCP socket, as socket.create_server() does.

    It accepts MPTCP and plain TCP connections; without MPTCP here it is a TCP
    socket. local_addresses: the addresses that accepted connections use and
    announce to their peers (see add()), besides the one listened on; the call
    fails where they can't be controlled (EPERM, EACCES, EOPNOTSUPP).
    """
    if dualstack_ipv6 and family != socket.AF_INET6:
        raise ValueError("dualstack_ipv6 requires AF_INET6 family")
    allowed = None if local_addresses is None else to_addresses(local_addresses)
    sock = mptcp_socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reuse_port:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dualstack_ipv6 else 1)
        bind_named(sock, address)
        listen_with(sock, backlog, allowed)
        return sock
    except BaseException:
        sock.close()
        raise


def bind_named(sock: socket.socket, address: Tuple[Any, ...]) -> None:
    """Bind, and name the address in the error: bind(2)'s own words don't."""
    try:
        sock.bind(address)
    except OSError as error:
        number = error.errno
        if number is None:
            raise  # the name could not be looked up
        words = f"{os.strerror(number)} (while attempting to bind on address {address!r})"
        raise OSError(number, words) from None


def listen_with(
    sock: socket.socket, backlog: Optional[int], addresses: Optional[List[Address]]
) -> None:
    """listen(), then add(): only on a listener it says what can't be done."""
    if backlog is None:
        sock.listen()
    else:
        sock.listen(backlog)
    if addresses is not None:
        add(sock, addresses)
