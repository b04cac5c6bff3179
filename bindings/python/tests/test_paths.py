# SPDX-License-Identifier: MIT OR Apache-2.0
"""ADD and REMOVE by a process that may control paths."""

import errno
import ipaddress
import os
import socket
import sys

import pytest

import mptcpapi
from helper import (
    A,
    A6,
    B,
    B6,
    BACKEND,
    C,
    SERVER,
    SERVER6,
    connection,
    eventually,
    exchange,
    full_listener,
    listener,
    local_hosts,
    tcp_socket,
)
from mptcpapi import Capability, Control

pytestmark = pytest.mark.mode("kernel", "userspace")


def test_capabilities():
    host = mptcpapi.capabilities()
    assert host.backend == BACKEND
    wanted = Capability.ADD_BEFORE | Capability.ADD_LIVE
    assert host.works & wanted == wanted, host.reason
    with mptcpapi.mptcp_socket() as sock:
        mptcpapi.add(sock, A)
        assert mptcpapi.capabilities(sock).control == Control.CONNECTION


@pytest.mark.parametrize(
    "host, first, second", [(SERVER, A, B), (SERVER6, A6, B6)], ids=["IPv4", "IPv6"]
)
def test_a_list_before_the_connection(host, first, second):
    with connection([first, second], host) as (client, accepted):
        assert client.getsockname()[0] in (first, second)
        assert [one.host for one in mptcpapi.local_addresses(client)] == [first, second]
        exchange(client, accepted)
        eventually(lambda: local_hosts(client) == sorted([first, second]))
        subflows = mptcpapi.subflows(client)
        assert [one.initial for one in subflows] == [True, False]
        assert len({one.id for one in subflows}) == 2
        assert {one.remote for one in subflows} == {client.getpeername()}
        exchange(client, accepted, os.urandom(1_000_000))
        # And no others join by and by.
        assert local_hosts(client) == sorted([first, second])
        seen = {one.remote.host for one in mptcpapi.subflows(accepted)}
        assert seen == {first, second}
        assert {one.host for one in mptcpapi.peer_addresses(accepted)} == {first, second}


def test_one_address_before_the_connection():
    with connection(ipaddress.ip_address(B)) as (client, accepted):
        assert client.getsockname()[0] == B
        exchange(client, accepted)
        assert local_hosts(client) == [B]


def test_a_port_is_bound_to():
    with tcp_socket() as probe:
        probe.bind((B, 0))
        port = probe.getsockname()[1]
    with connection((B, port)) as (client, _):
        assert client.getsockname() == (B, port)


def test_add_and_remove_on_a_connection():
    with connection(A) as (client, accepted):
        exchange(client, accepted)
        mptcpapi.add(client, [B, C])
        eventually(lambda: local_hosts(client) == [A, B, C])
        mptcpapi.add(client, B)  # twice is no error
        mptcpapi.remove(client, B)
        eventually(lambda: local_hosts(client) == [A, C])
        exchange(client, accepted, os.urandom(100_000))
        mptcpapi.remove(client, A)  # where it began
        eventually(lambda: local_hosts(client) == [C])
        exchange(client, accepted, os.urandom(100_000))
        assert [one.initial for one in mptcpapi.subflows(client)] == [False]
        assert mptcpapi.is_enabled(client)


def test_all_addresses_removed_and_one_added_again():
    with connection([A, B]) as (client, accepted):
        exchange(client, accepted)
        eventually(lambda: local_hosts(client) == [A, B])
        number = mptcpapi.connection_id(client)
        mptcpapi.remove(client, [A, B])
        eventually(lambda: mptcpapi.subflows(client) == [])
        assert mptcpapi.local_addresses(client) == []
        assert mptcpapi.connection_id(client) == number
        mptcpapi.add(client, B)
        eventually(lambda: local_hosts(client) == [B])
        exchange(client, accepted)


def test_what_the_socket_is_bound_to_stays():
    with listener() as server, mptcpapi.mptcp_socket() as client:
        client.settimeout(10)
        client.bind((A, 0))
        before = client.getsockname()
        mptcpapi.add(client, B)
        mptcpapi.connect(client, server.getsockname())
        assert client.getsockname() == before
        with server.accept()[0] as accepted:
            exchange(client, accepted)
            eventually(lambda: local_hosts(client) == [A, B])


def test_add_while_connecting():
    with full_listener() as where:
        for addresses in (A, None):
            with mptcpapi.mptcp_socket() as sock:
                sock.setblocking(False)
                if addresses:
                    mptcpapi.add(sock, addresses)
                with pytest.raises(BlockingIOError):
                    mptcpapi.connect(sock, where)
                if addresses:
                    mptcpapi.add(sock, B)
                    assert [one.host for one in mptcpapi.local_addresses(sock)] == [A, B]
                else:
                    with pytest.raises(OSError) as caught:
                        mptcpapi.add(sock, A)
                    assert caught.value.errno == errno.EOPNOTSUPP


def test_add_before_data_has_flowed():
    with connection(A) as (client, accepted):
        mptcpapi.add(client, B)
        exchange(client, accepted)
        eventually(lambda: local_hosts(client) == [A, B])


def test_add_as_an_option():
    packed = socket.AF_INET.to_bytes(2, sys.byteorder) + bytes(2) + socket.inet_aton(B) + bytes(8)
    with mptcpapi.mptcp_socket() as sock:
        mptcpapi.setsockopt(sock, socket.IPPROTO_TCP, mptcpapi.TCP_MULTIPATH_ADD, packed)
        assert [one.host for one in mptcpapi.local_addresses(sock)] == [B]
        with pytest.raises(OSError) as caught:
            mptcpapi.setsockopt(sock, socket.IPPROTO_TCP, mptcpapi.TCP_MULTIPATH_ADD, packed[:15])
        assert caught.value.errno == errno.EINVAL


def test_remove_before_the_connection():
    with mptcpapi.mptcp_socket() as sock:
        mptcpapi.add(sock, [A, B])
        mptcpapi.remove(sock, A)
        assert [one.host for one in mptcpapi.local_addresses(sock)] == [B]
        mptcpapi.remove(sock, B)
        assert mptcpapi.local_addresses(sock) == []


def test_flags():
    with mptcpapi.mptcp_socket() as sock:
        mptcpapi.add(sock, A, backup=True)
        mptcpapi.add(sock, B, advertise=False)
        mptcpapi.add(sock, C, subflow=False)
        with pytest.raises(OSError) as caught:
            mptcpapi.add(sock, A, advertise=False, subflow=False)
        assert caught.value.errno == errno.EINVAL


def test_ipv6_sockets_take_both_families():
    with listener("::", family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
        with mptcpapi.mptcp_socket(socket.AF_INET6) as client:
            mptcpapi.add(client, [A, A6])
            mptcpapi.connect(client, (SERVER6, port))
            assert client.getsockname()[0] == A6
        with mptcpapi.mptcp_socket(socket.AF_INET6) as client:
            mptcpapi.add(client, [A6, A, f"::ffff:{B}"])
            mptcpapi.connect(client, (SERVER, port))
            assert mptcpapi.subflows(client)[0].local.host in (A, B)


def test_no_address_leads_to_the_peer():
    with listener(SERVER6) as server, mptcpapi.mptcp_socket(socket.AF_INET6) as client:
        mptcpapi.add(client, A)
        with pytest.raises(OSError) as caught:
            mptcpapi.connect(client, server.getsockname())
        assert caught.value.errno == errno.EADDRNOTAVAIL


@pytest.mark.parametrize(
    "wrong, number",
    [
        ("192.0.2.1", errno.EADDRNOTAVAIL),
        ("224.0.0.1", errno.EADDRNOTAVAIL),
        ([A, "192.0.2.1"], errno.EADDRNOTAVAIL),
        ("0.0.0.0", errno.EINVAL),
        ([], errno.EINVAL),
        ([A] * 65, errno.EINVAL),
        (A6, errno.EAFNOSUPPORT),
        ([A, A6], errno.EAFNOSUPPORT),
    ],
)
def test_add_refuses(wrong, number):
    with mptcpapi.mptcp_socket() as sock:
        with pytest.raises(OSError) as caught:
            mptcpapi.add(sock, wrong)
        assert caught.value.errno == number
        assert caught.value.strerror
        # All or nothing.
        assert mptcpapi.local_addresses(sock) == []


def test_ipv4_on_an_ipv6_only_socket():
    with mptcpapi.mptcp_socket(socket.AF_INET6) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        with pytest.raises(OSError) as caught:
            mptcpapi.add(sock, A)
        assert caught.value.errno == errno.EAFNOSUPPORT


def test_a_link_local_address_without_scope():
    with mptcpapi.mptcp_socket(socket.AF_INET6) as sock, pytest.raises(OSError) as caught:
        mptcpapi.add(sock, "fe80::1")
    assert caught.value.errno == errno.EINVAL


def test_remove_refuses():
    with mptcpapi.mptcp_socket() as sock:
        mptcpapi.add(sock, A)
        with pytest.raises(OSError) as caught:
            mptcpapi.remove(sock, B)
        assert caught.value.errno == errno.EADDRNOTAVAIL


def test_a_taken_port():
    with tcp_socket() as other:
        other.bind((A, 0))
        other.listen()
        with mptcpapi.mptcp_socket() as sock, pytest.raises(OSError) as caught:
            mptcpapi.add(sock, other.getsockname())
        assert caught.value.errno == errno.EADDRINUSE


def test_plain_tcp():
    with tcp_socket() as sock, pytest.raises(OSError) as caught:
        mptcpapi.add(sock, A)
    assert caught.value.errno == errno.EOPNOTSUPP
    with connection(tcp_server=True) as (client, _), pytest.raises(OSError) as caught:
        mptcpapi.add(client, A)
    assert caught.value.errno == errno.EOPNOTSUPP


@pytest.mark.parametrize("addresses", [[A, B], [A]], ids=["two", "one"])
def test_a_list_goes_with_the_protocol(addresses):
    with mptcpapi.mptcp_socket() as sock:
        mptcpapi.add(sock, addresses)
        mptcpapi.enable(sock)
        assert [one.host for one in mptcpapi.local_addresses(sock)] == addresses
        mptcpapi.enable(sock, False)
        mptcpapi.enable(sock)
        assert mptcpapi.local_addresses(sock) == []


def test_a_reused_descriptor_inherits_nothing():
    sock = mptcpapi.mptcp_socket()
    number = sock.fileno()
    mptcpapi.add(sock, A)
    sock.close()
    with mptcpapi.mptcp_socket() as other:
        assert other.fileno() == number
        assert mptcpapi.local_addresses(other) == []
