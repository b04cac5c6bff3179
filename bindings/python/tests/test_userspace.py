# SPDX-License-Identifier: MIT OR Apache-2.0
"""Where accepted connections are controlled too, and the peer adds nothing."""

import errno

import pytest

import mptcpapi
from helper import A, B, C, SERVER, connection, eventually, exchange, local_hosts
from mptcpapi import Capability

pytestmark = pytest.mark.mode("userspace")


def test_accepted_connections_announce_the_list():
    with mptcpapi.create_server((SERVER, 0), local_addresses=[C]) as server:
        server.settimeout(10)
        assert mptcpapi.capabilities(server).works & Capability.LISTEN
        assert C in [one.host for one in mptcpapi.local_addresses(server)]
        with mptcpapi.mptcp_socket() as client:
            mptcpapi.add(client, [A, B])
            mptcpapi.connect(client, server.getsockname())
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(10)
                exchange(client, accepted)

                def announced():
                    # Both ends have work to do.
                    mptcpapi.subflows(accepted)
                    return C in [one.host for one in mptcpapi.peer_addresses(client)]

                eventually(announced)
                eventually(lambda: set(local_hosts(client)) == {A, B})
                exchange(client, accepted)


def test_a_connection_reaches_the_announced_address():
    with mptcpapi.create_server((SERVER, 0), local_addresses=[C]) as server:
        server.settimeout(10)
        with mptcpapi.mptcp_socket() as client:
            mptcpapi.add(client, A)
            mptcpapi.connect(client, server.getsockname())
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(10)
                exchange(client, accepted)

                def reached():
                    mptcpapi.subflows(accepted)
                    return C in [one.remote.host for one in mptcpapi.subflows(client)]

                eventually(reached)
                exchange(client, accepted, b"y" * 100_000)
                assert local_hosts(client)[0] == A


def test_a_listener_refuses_other_hosts_addresses():
    with pytest.raises(OSError) as caught:
        mptcpapi.create_server((SERVER, 0), local_addresses="192.0.2.1")
    assert caught.value.errno == errno.EADDRNOTAVAIL


def test_an_address_without_subflows():
    with connection([A, B]) as (client, accepted):
        mptcpapi.add(client, C, subflow=False)
        exchange(client, accepted)
        # None is opened from C. The peer may open one to it, where a broker
        # does for it what the in-kernel path manager would.
        eventually(lambda: {A, B} <= set(local_hosts(client)))
        exchange(client, accepted)
        assert local_hosts(client)[:2] == [A, B]
        assert C in [one.host for one in mptcpapi.local_addresses(client)]
