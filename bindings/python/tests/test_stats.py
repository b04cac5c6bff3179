# SPDX-License-Identifier: MIT OR Apache-2.0
"""Statistics: what they say of a connection, in each kind of namespace."""

import dataclasses
import errno
import socket

import pytest

import mptcpapi
from helper import (
    A,
    A6,
    B,
    B6,
    C,
    MODE,
    SERVER,
    SERVER6,
    connection,
    eventually,
    exchange,
    listener,
    local_hosts,
    tcp_socket,
)
from mptcpapi import Capability, ConnectionFlag

pytestmark = pytest.mark.mode("kernel", "userspace", "user")
with_paths = pytest.mark.mode("kernel", "userspace")

TOTALS = ("bytes_sent", "bytes_received", "bytes_acked", "bytes_retrans", "closed_bytes_sent")


def has_totals(stats):
    """Linux 6.5 has all of them, an older one none."""
    known = {getattr(stats, name) is not None for name in TOTALS}
    assert len(known) == 1
    return known.pop()


def test_capabilities():
    needed = Capability.CONN_STATS | Capability.SUBFLOW_STATS
    caps = mptcpapi.capabilities()
    assert caps.works & needed == caps.known & needed == needed


@pytest.mark.parametrize("host", [SERVER, SERVER6])
def test_a_connection(host):
    with connection(host=host) as (client, accepted):
        exchange(client, accepted, b"x" * 5000)
        for sock in (client, accepted):
            # The last acknowledgement may still be on its way.
            eventually(lambda: mptcpapi.connection_stats(sock).bytes_acked in (5000, None))
            stats = mptcpapi.all_stats(sock)
            one = stats.connection
            assert isinstance(one.flags, ConnectionFlag)
            assert one.fully_established and not one.fallback and not one.checksum
            assert one.connid == mptcpapi.connection_id(sock)
            assert (one.subflows, one.subflows_pending) == (1, 0)
            if has_totals(one):
                assert (one.bytes_sent, one.bytes_received) == (5000, 5000)
                assert (one.closed_bytes_sent, one.closed_bytes_received) == (0, 0)
            (path,) = stats.subflows
            assert path.subflow.initial
            # More where the connection's timer was impatient.
            assert path.bytes_sent >= 5000 and path.bytes_received >= 5000
            assert path.state == 1
            assert path.rtt_us and path.cwnd and path.mss and path.rto_us
            assert path.ifindex == socket.if_nametoindex("lo")
            if has_totals(one):
                assert (path.share_sent_ppm, path.share_received_ppm) == (1_000_000, 1_000_000)
        if path.subflow.priority_known:
            # What inet_diag tells this user (Linux 6.15, before that root).
            assert not mptcpapi.connection_stats(client).server
            assert mptcpapi.connection_stats(accepted).server
            assert (path.local_id, path.remote_id) == (0, 0)
            assert path.subflow.backup is False and path.subflow.peer_backup is False
        else:
            assert MODE == "user" and path.local_id is None


def test_before_any_data():
    with connection() as (client, _):
        stats = mptcpapi.all_stats(client)
        assert not stats.connection.fully_established
        assert stats.subflows[0].share_sent_ppm is None
        assert stats.subflows[0].bytes_sent == 0


def test_one_subflow():
    with connection() as (client, accepted):
        exchange(client, accepted)
        (path,) = mptcpapi.subflows(client)
        alone = mptcpapi.subflow_stats(client, path)
        assert (alone.subflow.local, alone.subflow.remote) == (path.local, path.remote)
        assert alone.subflow.id == path.id
        assert mptcpapi.subflow_stats(client, alone).bytes_sent >= alone.bytes_sent >= 1000
        other = dataclasses.replace(path, local=mptcpapi.Address(path.local.host, 1))
        with pytest.raises(FileNotFoundError) as caught:
            mptcpapi.subflow_stats(client, other)
        assert caught.value.errno == errno.ENOENT
        assert other.local.host in caught.value.strerror


def test_plain_tcp():
    with connection(tcp_server=True) as (client, accepted):
        exchange(client, accepted)
        for sock in (client, accepted):
            stats = mptcpapi.all_stats(sock)
            assert stats.connection.fallback and not stats.connection.fully_established
            assert stats.connection.connid is None
            assert stats.connection.addrs_announced is None
            assert stats.connection.subflows_max == 1
            assert stats.connection.bytes_sent == 1000
            (path,) = stats.subflows
            assert path.subflow.fallback and path.subflow.backup is None
            assert path.local_id is None
            assert path.share_sent_ppm == 1_000_000


@pytest.mark.parametrize("make", [mptcpapi.mptcp_socket, tcp_socket, listener])
def test_without_a_connection(make):
    path = mptcpapi.Subflow(
        mptcpapi.Address(A), mptcpapi.Address(SERVER), 0, mptcpapi.SubflowFlag(0)
    )
    with make() as sock:
        for call in (
            mptcpapi.connection_stats,
            mptcpapi.all_stats,
            lambda sock: mptcpapi.subflow_stats(sock, path),
        ):
            with pytest.raises(OSError) as caught:
                call(sock)
            assert caught.value.errno == errno.ENOTCONN


def test_no_socket():
    with open("/dev/null", "rb") as file, pytest.raises(OSError) as caught:
        mptcpapi.all_stats(file)
    assert caught.value.errno == errno.ENOTSOCK


@with_paths
@pytest.mark.parametrize("hosts", [(SERVER, A, B), (SERVER6, A6, B6)])
def test_paths_and_their_end(hosts):
    host, one, two = hosts
    with connection([one, two], host) as (client, accepted):
        exchange(client, accepted)
        eventually(lambda: len(mptcpapi.subflows(client)) == 2)
        exchange(client, accepted, b"y" * 200_000)
        stats = mptcpapi.all_stats(client)
        assert stats.connection.subflows == 2
        assert len({path.local_id for path in stats.subflows}) == 2
        if not has_totals(stats.connection):
            return
        assert sum(path.share_sent_ppm for path in stats.subflows) == 1_000_000
        assert stats.connection.closed_bytes_sent == 0

        mptcpapi.remove(client, one)
        eventually(lambda: local_hosts(client) == [two])
        after = mptcpapi.all_stats(client)
        assert after.connection.bytes_sent == 201_000
        assert after.connection.closed_bytes_sent > 0
        closed = after.connection.closed_bytes_sent
        living = sum(path.bytes_sent - path.bytes_retrans for path in after.subflows)
        rest = 1_000_000 - sum(path.share_sent_ppm for path in after.subflows)
        assert rest == pytest.approx(1_000_000 * closed / (closed + living), abs=2)
        with pytest.raises(FileNotFoundError):
            mptcpapi.subflow_stats(client, stats.subflows[0])


@with_paths
def test_a_backup_path():
    with connection(A) as (client, accepted):
        mptcpapi.add(client, C, backup=True)
        exchange(client, accepted)
        eventually(lambda: local_hosts(client) == [A, C])
        eventually(lambda: len(mptcpapi.subflows(accepted)) == 2)
        first, second = (path.subflow for path in mptcpapi.all_stats(client).subflows)
        assert first.backup is False
        # Before Linux 6.2 it is asked for once the subflow is there.
        eventually(lambda: mptcpapi.subflow_stats(client, second).subflow.backup)
        eventually(lambda: mptcpapi.all_stats(accepted).subflows[1].subflow.peer_backup)
