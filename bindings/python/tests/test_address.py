# SPDX-License-Identifier: MIT OR Apache-2.0
"""Addresses: the forms that are accepted, and their packed form."""

import copy
import errno
import ipaddress
import pickle
import socket
import sys

import pytest

from mptcpapi import Address
from mptcpapi._address import pack, to_address, to_addresses, unpack_one

pytestmark = pytest.mark.mode("any")

V4 = ipaddress.IPv4Address("10.0.0.1")
V6 = ipaddress.IPv6Address("fd00::1")


@pytest.mark.parametrize(
    "given, host, port, scope",
    [
        ("10.0.0.1", "10.0.0.1", 0, 0),
        ("10.0.0.1:80", "10.0.0.1", 80, 0),
        ("::1", "::1", 0, 0),
        ("[::1]", "::1", 0, 0),
        ("[::1]:80", "::1", 80, 0),
        ("FD00:0::1", "fd00::1", 0, 0),
        ("fe80::1%7", "fe80::1", 0, 7),
        ("[fe80::1%7]:80", "fe80::1", 80, 7),
        ("::ffff:10.0.0.1", "::ffff:10.0.0.1", 0, 0),
        (V4, "10.0.0.1", 0, 0),
        (V6, "fd00::1", 0, 0),
        (ipaddress.ip_address("fe80::1%7"), "fe80::1", 0, 7),
        (ipaddress.ip_interface("10.0.0.1/8"), "10.0.0.1", 0, 0),
        (("10.0.0.1", 80), "10.0.0.1", 80, 0),
        ((V4, 80), "10.0.0.1", 80, 0),
        (("fd00::1", 80), "fd00::1", 80, 0),
        (("fe80::1", 80, 0, 7), "fe80::1", 80, 7),
        (("fe80::1%7", 80, 0, 7), "fe80::1", 80, 7),
        (Address("10.0.0.1", 5), "10.0.0.1", 5, 0),
    ],
)
def test_forms(given, host, port, scope):
    address = to_address(given)
    assert (address.host, address.port, address.scope_id) == (host, port, scope)
    assert address.ip == ipaddress.ip_address(host)
    assert to_addresses(given) == [address]
    assert to_addresses([given, given]) == [address, address]
    assert unpack_one(pack([address])) == (address, len(pack([address])))
    assert pickle.loads(pickle.dumps(address)) == address == copy.deepcopy(address)
    assert to_address(str(address)) == address
    assert eval(repr(address)) == address


def test_interface_names():
    index, name = socket.if_nameindex()[0]
    assert to_address(f"fe80::1%{name}").scope_id == index
    assert to_address(f"[fe80::1%{name}]:80") == ("fe80::1", 80, 0, index)
    with pytest.raises(OSError) as caught:
        to_address("fe80::1%nosuch0")
    assert caught.value.errno == errno.ENODEV
    assert "nosuch0" in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        "",
        "localhost",
        "localhost:80",
        "example.org",
        "10.0.0",
        "10.0.0.1:",
        "10.0.0.1:http",
        "10.0.0.1:65536",
        "10.0.0.1:-1",
        "10.0.0.1%lo",
        "[10.0.0.1]:80",
        "[::1",
        "[::1]80",
        "[::1]:",
        "::1%",
        ("localhost", 80),
        ("10.0.0.1", 65536),
        ("10.0.0.1", -1),
        ("10.0.0.1", 80, 0, 1),
        ("::1", 80, 0, -1),
        ("fe80::1%7", 80, 0, 8),
        ("::1", 80, 0, 1, 2),
        ["10.0.0.1", "localhost"],
        ("10.0.0.1", "80"),
    ],
)
def test_no_addresses(given):
    with pytest.raises(ValueError):
        to_addresses(given)


@pytest.mark.parametrize(
    "given",
    [
        None,
        1,
        b"10.0.0.1",
        (b"10.0.0.1", 80),
        ("10.0.0.1", True),
        [1],
        [None],
        ["10.0.0.1", 80],
        ipaddress.ip_network("10.0.0.0/8"),
        object(),
    ],
)
def test_wrong_types(given):
    with pytest.raises(TypeError):
        to_addresses(given)


def test_lists():
    expected = [("10.0.0.1", 0), ("fd00::1", 80, 0, 0)]
    assert to_addresses(["10.0.0.1", ("fd00::1", 80)]) == expected
    assert to_addresses(("10.0.0.1", ("fd00::1", 80))) == expected
    assert to_addresses(one for one in ("10.0.0.1", "[fd00::1]:80")) == expected
    assert to_addresses({V4: 1}) == [("10.0.0.1", 0)]
    assert to_addresses((Address("10.0.0.1"), Address("fd00::1", 80))) == expected
    assert to_addresses([]) == []
    assert to_addresses(()) == []


def test_it_is_the_tuple_of_the_socket_module():
    assert Address("127.0.0.1", 80) == ("127.0.0.1", 80)
    assert Address("::1", 80) == ("::1", 80, 0, 0)
    assert Address("127.0.0.1").family == socket.AF_INET
    assert Address("::1").family == socket.AF_INET6
    with socket.socket() as sock:
        sock.bind(Address("127.0.0.1"))
        assert to_address(sock.getsockname()) == sock.getsockname()
    assert len({Address("127.0.0.1", 80), Address("127.0.0.1", 80), Address("127.0.0.1", 81)}) == 2


def test_text():
    assert str(Address("10.0.0.1", 80)) == "10.0.0.1:80"
    assert str(Address("fe80::1", 80, 7)) == "[fe80::1%7]:80"
    assert repr(Address("fe80::1", 80, 7)) == "Address('fe80::1', 80, scope_id=7)"


def test_packed_form():
    four, six = Address("10.0.0.1", 0x1234), Address("fd00::1", 0x1234, 7)
    packed = pack([four, six, four])
    assert len(packed) == 16 + 28 + 16
    assert packed[:16] == (
        socket.AF_INET.to_bytes(2, sys.byteorder) + b"\x12\x34\x0a\0\0\1" + bytes(8)
    )
    assert unpack_one(packed[16:]) == (six, 28)
    with pytest.raises(OSError) as caught:
        unpack_one(bytes(28))
    assert caught.value.errno == errno.EAFNOSUPPORT
