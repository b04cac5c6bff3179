# SPDX-License-Identifier: MIT OR Apache-2.0
"""Queries and ENABLE: what needs no privilege, as root and as a user."""

import errno
import fcntl
import os
import socket
import struct

import pytest

import mptcpapi
from helper import A, SERVER, SERVER6, connection, eventually, exchange, listener, tcp_socket
from mptcpapi import Capability, SubflowFlag

pytestmark = pytest.mark.mode("kernel", "user")

both_families = pytest.mark.parametrize("host", [SERVER, SERVER6])


def proto(sock):
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL)


IPPROTO_MPTCP = 262


# socket


def test_mptcp_socket():
    with mptcpapi.mptcp_socket() as sock:
        assert proto(sock) == sock.proto == IPPROTO_MPTCP
        assert (sock.family, sock.type) == (socket.AF_INET, socket.SOCK_STREAM)
        assert sock.gettimeout() is None
        assert not os.get_inheritable(sock.fileno())
        assert mptcpapi.is_enabled(sock)


def test_mptcp_socket_non_blocking():
    with mptcpapi.mptcp_socket(socket.AF_INET6, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as sock:
        assert (sock.family, sock.type) == (socket.AF_INET6, socket.SOCK_STREAM)
        assert sock.gettimeout() == 0
        assert fcntl.fcntl(sock, fcntl.F_GETFL) & os.O_NONBLOCK


def test_mptcp_socket_has_the_default_timeout():
    socket.setdefaulttimeout(3)
    try:
        with mptcpapi.mptcp_socket() as sock:
            assert sock.gettimeout() == 3
    finally:
        socket.setdefaulttimeout(None)


@pytest.mark.parametrize("number", [0, socket.IPPROTO_TCP, IPPROTO_MPTCP])
def test_mptcp_socket_protocols(number):
    with mptcpapi.mptcp_socket(proto=number) as sock:
        assert mptcpapi.is_enabled(sock)


def test_mptcp_socket_of_other_kinds():
    with mptcpapi.mptcp_socket(socket.AF_UNIX) as sock:
        assert sock.family == socket.AF_UNIX
    with mptcpapi.mptcp_socket(type=socket.SOCK_DGRAM) as sock:
        assert proto(sock) == socket.IPPROTO_UDP
    with pytest.raises(OSError) as caught:
        mptcpapi.mptcp_socket(family=200)
    assert caught.value.errno == errno.EAFNOSUPPORT


# enable


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_enable(family):
    with tcp_socket(family) as sock:
        assert mptcpapi.is_enabled(sock) is False
        mptcpapi.enable(sock)
        assert mptcpapi.is_enabled(sock) is True
        assert proto(sock) == IPPROTO_MPTCP
        mptcpapi.enable(sock)
        mptcpapi.enable(sock, False)
        assert mptcpapi.is_enabled(sock) is False
        assert proto(sock) == socket.IPPROTO_TCP


def test_enable_takes_descriptors():
    with tcp_socket() as sock:
        mptcpapi.enable(sock.fileno())
        assert mptcpapi.is_enabled(sock.fileno())


@pytest.mark.parametrize("on", [True, False])
def test_enable_keeps_what_was_set(on):
    with tcp_socket() if on else mptcpapi.mptcp_socket() as sock:
        number = sock.fileno()
        sock.settimeout(5)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.set_inheritable(number, True)
        mptcpapi.enable(sock, on)
        assert mptcpapi.is_enabled(sock) is on
        assert sock.fileno() == number
        assert sock.gettimeout() == 5
        assert fcntl.fcntl(sock, fcntl.F_GETFL) & os.O_NONBLOCK
        assert os.get_inheritable(number)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, 8) == struct.pack("ii", 1, 0)


def test_enable_leaves_blocking_sockets_blocking():
    with tcp_socket() as sock:
        mptcpapi.enable(sock)
        assert not fcntl.fcntl(sock, fcntl.F_GETFL) & os.O_NONBLOCK
        assert not os.get_inheritable(sock.fileno())


def test_an_earlier_dup_names_the_old_socket():
    with tcp_socket() as sock, sock.dup() as earlier:
        mptcpapi.enable(sock)
        assert not mptcpapi.is_enabled(earlier)
        with sock.dup() as later:
            assert mptcpapi.is_enabled(later)


def test_enable_keeps_the_bound_address():
    with tcp_socket() as sock:
        sock.bind((SERVER, 0))
        before = sock.getsockname()
        mptcpapi.enable(sock)
        assert sock.getsockname() == before
        sock.listen()
        with mptcpapi.create_connection(before, 5) as client, sock.accept()[0] as accepted:
            exchange(client, accepted)
            assert mptcpapi.is_enabled(client) and mptcpapi.is_enabled(accepted)


def test_enable_is_too_late_on_a_connection():
    with connection() as (client, accepted):
        for sock in (client, accepted):
            with pytest.raises(OSError) as caught:
                mptcpapi.enable(sock, False)
            assert caught.value.errno == errno.EISCONN
        exchange(client, accepted)
    with listener() as server, pytest.raises(OSError) as caught:
        mptcpapi.enable(server, False)
    assert caught.value.errno == errno.EISCONN


# connections


@both_families
def test_connection(host):
    with connection(host=host) as (client, accepted):
        exchange(client, accepted)
        for sock in (client, accepted):
            assert mptcpapi.is_enabled(sock)
            first = mptcpapi.subflows(sock)[0]
            assert first.initial and not first.fallback
            assert first.backup is None and first.peer_backup is None and not first.priority_known
            assert first.flags == SubflowFlag.INITIAL
            assert first.id > 0
            assert first.local == sock.getsockname()
            assert first.remote == sock.getpeername()
            assert first.local in mptcpapi.local_addresses(sock)
            assert first.remote in mptcpapi.peer_addresses(sock)
            assert 0 < mptcpapi.connection_id(sock) < 2**32
        assert mptcpapi.connection_id(client) != mptcpapi.connection_id(accepted)


def test_connect_gives_the_connection_id():
    with listener() as server, mptcpapi.mptcp_socket() as client:
        number = mptcpapi.connect(client, server.getsockname())
        assert number == mptcpapi.connection_id(client) != 0
        # Again: it is connected to a peer of the list.
        assert mptcpapi.connect(client, [server.getsockname()]) == number
        with pytest.raises(OSError) as caught:
            mptcpapi.connect(client, (A, 9))
        assert caught.value.errno == errno.EISCONN


def test_v4_mapped_addresses_are_shown_as_ipv4():
    with listener() as server, mptcpapi.mptcp_socket(socket.AF_INET6) as client:
        port = server.getsockname()[1]
        client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        mptcpapi.connect(client, f"[::ffff:{SERVER}]:{port}")
        (subflow,) = mptcpapi.subflows(client)
        assert subflow.remote == (SERVER, port)
        assert subflow.local.family == socket.AF_INET
        assert subflow.local.port == client.getsockname()[1]
        assert (SERVER, port) in mptcpapi.peer_addresses(client)


def test_an_ipv6_socket_connects_to_an_ipv4_address():
    with listener() as server, mptcpapi.mptcp_socket(socket.AF_INET6) as client:
        client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        mptcpapi.connect(client, server.getsockname())
        assert client.getpeername()[0] == f"::ffff:{SERVER}"


@both_families
def test_fallback(host):
    with connection(host=host, tcp_server=True) as (client, accepted):
        exchange(client, accepted)
        for sock in (client, accepted):
            assert not mptcpapi.is_enabled(sock)
            (only,) = mptcpapi.subflows(sock)
            assert only.fallback
            assert only.local == sock.getsockname() and only.remote == sock.getpeername()
            with pytest.raises(OSError) as caught:
                mptcpapi.connection_id(sock)
            assert caught.value.errno == errno.EOPNOTSUPP


def test_connect_gives_0_for_plain_tcp():
    with listener(tcp=True) as server:
        with mptcpapi.mptcp_socket() as client:
            assert mptcpapi.connect(client, server.getsockname()) == 0
        with tcp_socket() as client:
            assert mptcpapi.connect(client, server.getsockname()) == 0


def test_after_the_end():
    with connection() as (client, accepted):
        exchange(client, accepted)
        accepted.close()
        assert client.recv(1) == b""
        client.shutdown(socket.SHUT_WR)

        def ended():
            try:
                return not mptcpapi.subflows(client)
            except OSError as error:
                return error.errno == errno.ENOTCONN

        eventually(ended)
        assert mptcpapi.is_enabled(client)


def test_addresses_before_the_connection():
    with mptcpapi.mptcp_socket() as sock:
        assert mptcpapi.local_addresses(sock) == []
        sock.bind((A, 0))
        assert mptcpapi.local_addresses(sock) == [sock.getsockname()]


# options


def test_options_of_our_own():
    with tcp_socket() as sock:
        mptcpapi.setsockopt(sock, socket.IPPROTO_TCP, mptcpapi.TCP_MULTIPATH_ENABLE, 7)
        assert mptcpapi.getsockopt(sock, socket.IPPROTO_TCP, mptcpapi.TCP_MULTIPATH_ENABLE) == 1
        raw = mptcpapi.getsockopt(sock, socket.IPPROTO_TCP, mptcpapi.TCP_MULTIPATH_ENABLE, 16)
        assert raw == struct.pack("i", 1)
        mptcpapi.setsockopt(
            sock, socket.IPPROTO_TCP, mptcpapi.TCP_MULTIPATH_ENABLE, bytearray(struct.pack("i", 0))
        )
        assert not mptcpapi.is_enabled(sock)


def test_other_options_pass_through():
    with mptcpapi.mptcp_socket() as sock:
        mptcpapi.setsockopt(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        assert mptcpapi.getsockopt(sock, socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
        linger = struct.pack("ii", 1, 3)
        mptcpapi.setsockopt(sock, socket.SOL_SOCKET, socket.SO_LINGER, memoryview(linger))
        assert mptcpapi.getsockopt(sock, socket.SOL_SOCKET, socket.SO_LINGER, 8) == linger
        assert mptcpapi.getsockopt(sock, socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM


def test_subflows_as_an_option():
    with connection() as (client, _):
        subflow = mptcpapi.subflows(client)[0]
        raw = mptcpapi.getsockopt(
            client, socket.IPPROTO_TCP, mptcpapi.TCP_MULTIPATH_SUBFLOWS, 288 * 8
        )
        assert len(raw) == 288
        assert struct.unpack_from("=II", raw, 256) == (subflow.id, subflow.flags)
        with pytest.raises(OSError) as caught:
            mptcpapi.getsockopt(client, socket.IPPROTO_TCP, mptcpapi.TCP_MULTIPATH_SUBFLOWS, 287)
        assert caught.value.errno == errno.ENOBUFS


# capabilities


def test_capabilities():
    host = mptcpapi.capabilities()
    queries = Capability.ENABLE | Capability.SUBFLOWS | Capability.CONNID
    assert host.works & queries == host.known & queries == queries
    assert host.works & host.known == host.works
    assert host.addrs_max == 64
    assert isinstance(host.backend, mptcpapi.Backend)
    assert isinstance(host.control, mptcpapi.Control)
    with mptcpapi.mptcp_socket() as sock:
        assert mptcpapi.capabilities(sock).works & queries == queries


def test_capabilities_change_nothing():
    with mptcpapi.mptcp_socket() as sock:
        mptcpapi.capabilities(sock)
        assert mptcpapi.local_addresses(sock) == [] and sock.getsockname()[1] == 0


def test_capabilities_of_no_socket_are_an_error():
    sock = mptcpapi.mptcp_socket()
    sock.close()
    with pytest.raises(OSError) as caught:
        mptcpapi.capabilities(sock)
    assert caught.value.errno == errno.EBADF


# errors


CALLS = {
    "enable": lambda sock: mptcpapi.enable(sock),
    "is_enabled": lambda sock: mptcpapi.is_enabled(sock),
    "add": lambda sock: mptcpapi.add(sock, A),
    "remove": lambda sock: mptcpapi.remove(sock, A),
    "connect": lambda sock: mptcpapi.connect(sock, (SERVER, 1)),
    "subflows": lambda sock: mptcpapi.subflows(sock),
    "connection_id": lambda sock: mptcpapi.connection_id(sock),
    "local_addresses": lambda sock: mptcpapi.local_addresses(sock),
    "peer_addresses": lambda sock: mptcpapi.peer_addresses(sock),
    "capabilities": lambda sock: mptcpapi.capabilities(sock),
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


@every_call
def test_a_closed_socket(call):
    sock = mptcpapi.mptcp_socket()
    number = sock.fileno()
    sock.close()
    for gone in (sock, number, -1):
        with pytest.raises(OSError) as caught:
            call(gone)
        assert caught.value.errno == errno.EBADF


@every_call
def test_no_socket(call):
    reading, writing = os.pipe()
    try:
        with pytest.raises(OSError) as caught:
            call(reading)
        assert caught.value.errno == errno.ENOTSOCK
    finally:
        os.close(reading)
        os.close(writing)


@every_call
def test_other_sockets(call):
    with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket(socket.AF_UNIX) as unix:
        for sock in (udp, unix):
            with pytest.raises(OSError) as caught:
                call(sock)
            assert caught.value.errno == errno.EOPNOTSUPP


@every_call
def test_wrong_types(call):
    for wrong in ("3", 3.0, b"3"):
        with pytest.raises((TypeError, AttributeError)):
            call(wrong)
    with pytest.raises(OverflowError):
        call(2**32)


@pytest.mark.parametrize("name", ["subflows", "connection_id", "peer_addresses"])
def test_not_connected(name):
    with mptcpapi.mptcp_socket() as sock, listener() as server:
        for one in (sock, server):
            with pytest.raises(OSError) as caught:
                CALLS[name](one)
            assert caught.value.errno == errno.ENOTCONN
            assert caught.value.strerror


def test_unknown_options():
    with mptcpapi.mptcp_socket() as sock:
        for call in (
            lambda: mptcpapi.setsockopt(sock, socket.IPPROTO_TCP, 0x6897FF, 1),
            lambda: mptcpapi.getsockopt(sock, socket.IPPROTO_TCP, 0x6897FF),
            lambda: mptcpapi.getsockopt(sock, socket.IPPROTO_TCP, mptcpapi.TCP_MULTIPATH_ADD),
            lambda: mptcpapi.setsockopt(sock, socket.IPPROTO_TCP, mptcpapi.TCP_MULTIPATH_CONNID, 1),
        ):
            with pytest.raises(OSError) as caught:
                call()
            assert caught.value.errno == errno.ENOPROTOOPT
        with pytest.raises(OSError) as caught:
            mptcpapi.setsockopt(sock, socket.IPPROTO_TCP, mptcpapi.TCP_MULTIPATH_ENABLE, b"\1\0\0")
        assert caught.value.errno == errno.EINVAL
        with pytest.raises(OverflowError):
            mptcpapi.setsockopt(sock, socket.IPPROTO_TCP, mptcpapi.TCP_MULTIPATH_ENABLE, 2**31)
        with pytest.raises(ValueError):
            mptcpapi.getsockopt(sock, socket.IPPROTO_TCP, mptcpapi.TCP_MULTIPATH_ENABLE, -1)


def test_words_are_those_of_the_failure():
    with mptcpapi.mptcp_socket() as sock:
        with pytest.raises(OSError) as first:
            mptcpapi.subflows(sock)
        mptcpapi.is_enabled(sock)
        # The kernel's refusal has its own words, not those of the failure before.
        with pytest.raises(OSError) as second:
            mptcpapi.getsockopt(sock, socket.SOL_SOCKET, 9999)
        assert second.value.errno == errno.ENOPROTOOPT
        assert second.value.strerror != first.value.strerror


def test_addresses_are_checked_before_the_call():
    with mptcpapi.mptcp_socket() as sock:
        for call in (mptcpapi.add, mptcpapi.remove, mptcpapi.connect):
            with pytest.raises(ValueError):
                call(sock, "localhost")
            with pytest.raises(TypeError):
                call(sock, None)


@pytest.mark.parametrize("wrong", [[], "0.0.0.0:80", "[::]:80", [(SERVER, 1)] * 65])
def test_connect_refuses(wrong):
    with mptcpapi.mptcp_socket(socket.AF_INET6) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        with pytest.raises(OSError) as caught:
            mptcpapi.connect(sock, wrong)
        assert caught.value.errno == errno.EINVAL


def test_connect_refuses_another_family():
    with mptcpapi.mptcp_socket() as sock, pytest.raises(OSError) as caught:
        mptcpapi.connect(sock, (SERVER6, 1))
    assert caught.value.errno == errno.EAFNOSUPPORT
