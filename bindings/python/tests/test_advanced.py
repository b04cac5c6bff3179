# SPDX-License-Identifier: MIT OR Apache-2.0
"""Settings of a connection, and subflows by hand."""

import errno
import os
import socket

import pytest

import mptcpapi
from helper import A, B, BROKER, C, SERVER, connection, eventually, exchange, local_hosts, tcp_socket
from mptcpapi import EventKind, PathMode, PathPolicy, Profile, Redundancy, Traffic

pytestmark = pytest.mark.mode("kernel", "userspace")


def refused(call, *arguments, **options):
    with pytest.raises(OSError) as caught:
        call(*arguments, **options)
    assert caught.value.strerror
    return caught.value.errno


def from_host(sock, host):
    return next(one for one in mptcpapi.subflows(sock) if one.local.host == host)


def backups(sock):
    return [one.subflow.local.host for one in mptcpapi.all_stats(sock).subflows if one.subflow.backup]


def test_defaults_and_values():
    with mptcpapi.mptcp_socket() as sock:
        assert mptcpapi.max_subflows(sock) == 255
        assert mptcpapi.profile(sock) is Profile.AGGREGATE
        assert mptcpapi.traffic(sock) == Traffic()
        assert mptcpapi.path_policy(sock) == PathPolicy(PathMode.EAGER)
        assert mptcpapi.redundancy(sock) is Redundancy.NONE
        assert mptcpapi.fate_sharing(sock) is False
        mptcpapi.set_max_subflows(sock, 3)
        mptcpapi.set_profile(sock, Profile.HANDOVER)
        hint = Traffic(1, 2**64 - 1, 3, 2**32 - 1)
        mptcpapi.set_traffic(sock, hint)
        mptcpapi.set_path_policy(sock, PathPolicy(PathMode.ON_DEMAND, 5, 6))
        mptcpapi.set_fate_sharing(sock)
        assert (mptcpapi.max_subflows(sock), mptcpapi.profile(sock)) == (3, Profile.HANDOVER)
        assert mptcpapi.traffic(sock) == hint
        assert mptcpapi.path_policy(sock) == PathPolicy(PathMode.ON_DEMAND, 5, 6)
        assert mptcpapi.fate_sharing(sock) is True
        mptcpapi.set_path_policy(sock, PathMode.MANUAL)
        assert mptcpapi.path_policy(sock).mode is PathMode.MANUAL
        mptcpapi.set_max_subflows(sock, 0)
        assert mptcpapi.max_subflows(sock) == 255


def test_wrong_values_change_nothing():
    with mptcpapi.mptcp_socket() as sock:
        assert refused(mptcpapi.set_max_subflows, sock, 256) == errno.EINVAL
        assert refused(mptcpapi.set_profile, sock, 9) == errno.EINVAL
        assert refused(mptcpapi.set_redundancy, sock, Redundancy.FULL) == errno.EOPNOTSUPP
        with pytest.raises(OverflowError):
            mptcpapi.set_traffic(sock, Traffic(-1))
        with pytest.raises(OverflowError):
            mptcpapi.set_path_policy(sock, PathPolicy(PathMode.ON_DEMAND, 2**32))
        with pytest.raises(TypeError):
            mptcpapi.set_max_subflows(sock, "3")
        assert mptcpapi.traffic(sock) == Traffic()
    with tcp_socket() as sock:
        assert refused(mptcpapi.set_profile, sock, Profile.OVERFLOW) == errno.EOPNOTSUPP
        assert mptcpapi.profile(sock) is Profile.AGGREGATE


def test_the_number_of_subflows():
    with connection([A, B, C]) as (client, accepted):
        mptcpapi.set_max_subflows(client, 2)
        exchange(client, accepted)
        eventually(lambda: len(mptcpapi.subflows(client)) == 2)
        mptcpapi.set_max_subflows(client, 0)
        eventually(lambda: local_hosts(client) == [A, B, C])
        mptcpapi.set_max_subflows(client, 1)
        eventually(lambda: len(mptcpapi.subflows(client)) == 1)
        exchange(client, accepted, os.urandom(100_000))


def test_subflows_by_hand():
    with connection([A, B, C]) as (client, accepted):
        mptcpapi.set_path_policy(client, PathMode.MANUAL)
        exchange(client, accepted)
        assert local_hosts(client) == [A]
        mptcpapi.open_subflow(client, B, backup=True, wait=True)
        assert local_hosts(client) == [A, B]
        assert backups(client) == [B]
        with mptcpapi.Events(client) as events:
            mptcpapi.open_subflow(client, C, SERVER)
            event = events.wait(10)
            assert (event.what, event.subflow.local.host) == (EventKind.SUBFLOW_UP, C)
        mptcpapi.set_backup(client, from_host(client, B), False)
        mptcpapi.set_backup(client, from_host(client, C))
        eventually(lambda: backups(client) == [C])
        closed = from_host(client, B)
        mptcpapi.close_subflow(client, closed)
        eventually(lambda: local_hosts(client) == [A, C])
        assert refused(mptcpapi.close_subflow, client, closed) == errno.ENOENT
        assert refused(mptcpapi.set_backup, client, closed) == errno.ENOENT
        exchange(client, accepted, os.urandom(100_000))


def test_what_can_not_be_opened():
    with mptcpapi.mptcp_socket() as sock:
        mptcpapi.add(sock, A)
        assert refused(mptcpapi.open_subflow, sock) == errno.ENOTCONN
    with connection([A, B]) as (client, accepted):
        mptcpapi.set_path_policy(client, PathMode.MANUAL)
        exchange(client, accepted)
        assert refused(mptcpapi.open_subflow, client, C) == errno.EADDRNOTAVAIL
        assert refused(mptcpapi.open_subflow, client, A, "fd09::1") == errno.EAFNOSUPPORT
        with pytest.raises(ValueError):
            mptcpapi.open_subflow(client, [A, B])
        # With a timeout, without one, and never waiting. The broker's policy lets nobody
        # go where the peer has not shown to be.
        wanted = PermissionError if BROKER else ConnectionRefusedError
        with pytest.raises(wanted):
            mptcpapi.open_subflow(client, B, (SERVER, 1), wait=True)
        client.settimeout(None)
        with pytest.raises(wanted):
            mptcpapi.open_subflow(client, B, (SERVER, 1), wait=True)
        client.setblocking(False)
        assert refused(mptcpapi.open_subflow, client, B, wait=True) == errno.EINVAL
        assert local_hosts(client) == [A]


def test_why_it_can_not_be_opened():
    def words(number, local, remote=None):
        with pytest.raises(OSError) as caught:
            mptcpapi.open_subflow(client, local, remote, wait=True)
        assert caught.value.errno == number
        return caught.value.strerror

    with connection([A, B]) as (client, accepted), tcp_socket() as other:
        mptcpapi.set_path_policy(client, PathMode.MANUAL)
        exchange(client, accepted)
        other.bind((B, 0))
        taken = other.getsockname()
        client.settimeout(None)
        said = words(errno.EADDRINUSE, taken)
        assert f"from {B}:{taken[1]} to {SERVER}" in said and "the local port is taken" in said
        if BROKER:  # which has no other capability than CAP_NET_ADMIN
            assert "CAP_NET_BIND_SERVICE" in words(errno.EACCES, (B, 80))
        else:
            said = words(errno.ECONNREFUSED, B, (SERVER, 1))
            assert f"from {B} to {SERVER}:1: " in said and "refused it" in said
            said = words(errno.ENETUNREACH, B, ("192.0.2.1", 1))
            assert f"from {B} to 192.0.2.1:1: there is no way there" in said
        # By an event, which Python waits for where the socket has a timeout.
        client.settimeout(10)
        assert os.strerror(errno.EADDRINUSE) in words(errno.EADDRINUSE, taken)
        assert local_hosts(client) == [A]


def test_one_path_and_a_spare():
    with connection([A, B, C]) as (client, accepted):
        mptcpapi.set_profile(client, Profile.HANDOVER)
        exchange(client, accepted)
        eventually(lambda: local_hosts(client) == [A, B] and backups(client) == [B])
        mptcpapi.close_subflow(client, from_host(client, A))
        eventually(lambda: local_hosts(client) == [B, C] and backups(client) == [C])
        exchange(client, accepted, os.urandom(100_000))


def test_a_shared_fate():
    with connection([A, B]) as (client, accepted):
        mptcpapi.set_fate_sharing(client)
        exchange(client, accepted)
        eventually(lambda: local_hosts(client) == [A, B])
        mptcpapi.close_subflow(client, from_host(client, A))
        eventually(lambda: mptcpapi.subflows(client) == [])
    with connection([A, B]) as (client, accepted):
        exchange(client, accepted)
        eventually(lambda: local_hosts(client) == [A, B])
        mptcpapi.close_subflow(client, from_host(client, A))
        eventually(lambda: local_hosts(client) == [B])
        assert refused(mptcpapi.set_fate_sharing, client) == errno.ENOENT
        assert isinstance(client, socket.socket)
