# SPDX-License-Identifier: MIT OR Apache-2.0
"""Addresses: what callers may write, and the packed lists of the C library."""

from __future__ import annotations

import collections.abc
import errno
import ipaddress
import os
import socket
import struct
from ipaddress import IPv4Address, IPv6Address
from typing import Any, Iterable, List, Optional, Tuple, Union

IPAddress = Union[IPv4Address, IPv6Address]


class Address(Tuple[Union[str, int], ...]):
    """An IP address and a port.

    It *is* the tuple that the socket module uses, (host, port) for IPv4 and
    (host, port, flowinfo, scope_id) for IPv6: pass it to bind() and connect(),
    compare it with getsockname(). ip is an ipaddress object or a string
    ("10.0.0.1", "fe80::1%eth0"); port 0 means any.
    """

    __slots__ = ()

    def __new__(cls, ip: Union[str, IPAddress], port: int = 0, scope_id: int = 0) -> Address:
        if isinstance(port, bool) or not isinstance(port, int):
            raise TypeError(f"a port must be an int, not {type(port).__name__}")
        if not 0 <= port <= 0xFFFF:
            raise ValueError(f"port {port} is not between 0 and 65535")
        if not isinstance(scope_id, int):
            raise TypeError(f"a scope id must be an int, not {type(scope_id).__name__}")
        if not 0 <= scope_id <= 0xFFFFFFFF:
            raise ValueError(f"scope id {scope_id} is not between 0 and 4294967295")
        if isinstance(ip, str):
            try:
                parsed: IPAddress = ipaddress.ip_address(ip)
            except ValueError:
                raise ValueError(
                    f"{ip!r} is not an IP address (names are never looked up)"
                ) from None
        elif isinstance(ip, (IPv4Address, IPv6Address)):
            parsed = ip
        else:
            raise TypeError(f"an IP address must be a str or ipaddress object, not {type(ip).__name__}")
        host = socket.inet_ntop(
            socket.AF_INET if parsed.version == 4 else socket.AF_INET6, parsed.packed
        )
        if isinstance(parsed, IPv4Address):
            if scope_id:
                raise ValueError("an IPv4 address has no scope id")
            return super().__new__(cls, (host, port))
        if parsed.scope_id is not None:
            zone = _zone(parsed.scope_id)
            if scope_id not in (0, zone):
                raise ValueError(f"two scope ids: {parsed} and {scope_id}")
            scope_id = zone
        return super().__new__(cls, (host, port, 0, scope_id))

    def __getnewargs__(self) -> Tuple[Any, ...]:
        return (self.host, self.port, self.scope_id)

    @property
    def host(self) -> str:
        """The IP address in text, without a scope."""
        return str(self[0])

    @property
    def ip(self) -> IPAddress:
        """The IP address as an ipaddress object, without a scope."""
        return ipaddress.ip_address(self.host)

    @property
    def port(self) -> int:
        """The port; 0 means any."""
        return int(self[1])

    @property
    def scope_id(self) -> int:
        """The interface index of a link-local IPv6 address, else 0."""
        return int(self[3]) if len(self) > 2 else 0

    @property
    def family(self) -> socket.AddressFamily:
        """AF_INET or AF_INET6."""
        return socket.AF_INET if len(self) == 2 else socket.AF_INET6

    def __repr__(self) -> str:
        scope = f", scope_id={self.scope_id}" if self.scope_id else ""
        return f"Address({self.host!r}, {self.port}{scope})"

    def __str__(self) -> str:
        if self.family == socket.AF_INET:
            return f"{self.host}:{self.port}"
        scope = f"%{self.scope_id}" if self.scope_id else ""
        return f"[{self.host}{scope}]:{self.port}"


AddressLike = Union[
    Address,
    str,
    IPv4Address,
    IPv6Address,
    Tuple[Union[str, IPv4Address, IPv6Address], int],
    Tuple[Union[str, IPv4Address, IPv6Address], int, int, int],
]
Addresses = Union[AddressLike, Iterable[AddressLike]]


def _zone(zone: str) -> int:
    """Give the number of a zone: "2" or "eth0"."""
    if zone.isascii() and zone.isdecimal():
        return int(zone)
    try:
        return socket.if_nametoindex(zone)
    except OSError:
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV), zone) from None


def _from_text(text: str) -> Address:
    port: Optional[str] = None
    host = text
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or ":" not in host or (rest and not rest.startswith(":")):
            raise ValueError(f"{text!r} is not an address: [IPV6] or [IPV6]:PORT")
        port = rest[1:] if rest else None
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
    if port is None:
        return Address(host)
    if not (port.isascii() and port.isdecimal()):
        raise ValueError(f"{text!r}: {port!r} is not a port")
    return Address(host, int(port))


def _from_tuple(value: Tuple[Any, ...]) -> Address:
    if len(value) not in (2, 3, 4):
        raise ValueError(f"{value!r} is not an address: (host, port[, flowinfo[, scope_id]])")
    return Address(value[0], value[1], value[3] if len(value) == 4 else 0)


def to_address(value: AddressLike) -> Address:
    """Give one address in any of the accepted forms as an Address.

    Accepted: an Address, an ipaddress object, a string ("10.0.0.1",
    "10.0.0.1:80", "fe80::1%eth0", "[::1]:80"), a tuple of the socket module.
    Names are never looked up: ValueError.
    """
    if isinstance(value, Address):
        return value
    if isinstance(value, str):
        return _from_text(value)
    if isinstance(value, (IPv4Address, IPv6Address)):
        return Address(value)
    if isinstance(value, tuple):
        return _from_tuple(value)
    raise TypeError(f"not an address: {value!r}")


def _is_one(value: object) -> bool:
    """Tell a tuple that is one address from a tuple of addresses."""
    if isinstance(value, tuple):
        # ("10.0.0.1", 80) is one, ("10.0.0.1", "10.0.0.2") are two.
        return len(value) > 1 and isinstance(value[1], int)
    return isinstance(value, (str, IPv4Address, IPv6Address))


def to_addresses(value: Addresses) -> List[Address]:
    """Give one address or an iterable of addresses as a list."""
    if _is_one(value):
        return [to_address(value)]  # type: ignore[arg-type]
    # A bytes object would be an iterable of numbers, a network one of very many.
    if isinstance(value, (bytes, bytearray, ipaddress.IPv4Network, ipaddress.IPv6Network)):
        raise TypeError(f"not an address: {value!r}")
    if not isinstance(value, collections.abc.Iterable):
        raise TypeError(f"not an address: {value!r}")
    return [to_address(one) for one in value]  # type: ignore[arg-type]


def pack(addresses: Iterable[Address]) -> bytes:
    """Give struct sockaddr_in and sockaddr_in6, one behind the other."""
    parts = []
    for address in addresses:
        family = struct.pack("=H", address.family)
        raw = socket.inet_pton(address.family, address.host)
        if address.family == socket.AF_INET:
            parts.append(family + struct.pack("!H4s8x", address.port, raw))
        else:
            parts.append(
                family + struct.pack("!HI16s", address.port, 0, raw) + struct.pack("=I", address.scope_id)
            )
    return b"".join(parts)


def unpack_one(raw: bytes) -> Tuple[Address, int]:
    """Give the first address of a packed list and its length."""
    (family,) = struct.unpack_from("=H", raw)
    (port,) = struct.unpack_from("!H", raw, 2)
    if family == socket.AF_INET:
        return Address(IPv4Address(raw[4:8]), port), 16
    if family == socket.AF_INET6:
        (scope_id,) = struct.unpack_from("=I", raw, 24)
        return Address(IPv6Address(raw[8:24]), port, scope_id), 28
    raise OSError(errno.EAFNOSUPPORT, f"{os.strerror(errno.EAFNOSUPPORT)}: {family}")
