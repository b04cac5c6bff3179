# SPDX-License-Identifier: MIT OR Apache-2.0
"""Events: what they tell, in a loop, by a callback and with asyncio."""

import asyncio
import errno
import select
import socket
import time

import pytest

import mptcpapi
import mptcpapi.aio
from helper import A, B, SERVER, SERVER6, connection, exchange, tcp_socket
from mptcpapi import Capability, EventKind, Origin

pytestmark = pytest.mark.mode("kernel", "userspace")


def test_a_connection_tells_its_story():
    with mptcpapi.mptcp_socket() as server:
        server.bind((SERVER, 0))
        server.listen()
        client = mptcpapi.mptcp_socket()
        began = time.monotonic()
        with mptcpapi.Events(client) as events:
            with pytest.raises(BlockingIOError):
                events.read()
            mptcpapi.add(client, A)
            mptcpapi.connect(client, server.getsockname())
            accepted, _ = server.accept()
            up = events.wait(5)
            assert (up.what, up.connid) == (EventKind.UP, mptcpapi.connection_id(client))
            assert up.origin == Origin.APP and up.subflow.initial
            assert up.subflow.local == mptcpapi.subflows(client)[0].local
            assert began <= up.time <= time.monotonic()
            exchange(client, accepted)
            mptcpapi.add(client, B, backup=True)
            joined = events.wait(5)
            assert joined.what == EventKind.SUBFLOW_UP and joined.subflow.local.host == B
            assert joined.subflow.backup and joined.subflow.peer_backup is False
            mptcpapi.remove(client, B)
            assert events.wait(5).what == EventKind.SUBFLOW_DOWN
            client.close()
            # What is left, to the end.
            assert [event.what for event in events] == [EventKind.DOWN]
            assert events.read() is None
        accepted.close()
        assert events.fileno() == -1
        with pytest.raises(OSError) as caught:
            events.read()
        assert caught.value.errno == errno.EBADF


def test_only_what_is_asked_for_and_what_is_there():
    with connection(A) as (client, accepted):
        exchange(client, accepted)
        with mptcpapi.Events(client, current=True) as events:
            assert events.wait(5).what == EventKind.UP
            with pytest.raises(TimeoutError):
                events.wait(0.02)
        with mptcpapi.Events(client, EventKind.DOWN | EventKind.SUBFLOW_UP, current=True) as events:
            mptcpapi.add(client, [A, B])
            assert events.wait(5).what == EventKind.SUBFLOW_UP
            poll = select.poll()
            poll.register(events, select.POLLIN)
            client.close()
            assert poll.poll(5000)
            assert events.wait(5).what == EventKind.DOWN


def test_callbacks():
    with connection(A) as (client, accepted):
        exchange(client, accepted)
        with mptcpapi.Events(client) as events:
            assert events.dispatch() == 0
            mptcpapi.add(client, B)
            seen = []
            deadline = time.monotonic() + 5
            while not events.dispatch(seen.append):
                assert time.monotonic() < deadline
            assert [event.what for event in seen] == [EventKind.SUBFLOW_UP]

            def fails(event):
                raise ValueError(event.what.name)

            mptcpapi.remove(client, B)
            with pytest.raises(ValueError, match="SUBFLOW_DOWN"):
                while time.monotonic() < deadline + 5:
                    events.dispatch(fails)


def test_a_callback_that_closes():
    with connection(A) as (client, accepted):
        exchange(client, accepted)
        events = mptcpapi.Events(client, current=True)
        number, others, seen = events.fileno(), [], []

        def close(event):
            seen.append(event)
            events.close()
            others.append(mptcpapi.Events(client, current=True))

        # Another's events, under the same number, are not this one's.
        assert events.dispatch(close) == 1
        assert [other.fileno() for other in others] == [number]
        assert others[0].wait(5).what == EventKind.UP
        others[0].close()


def test_all_that_is_known():
    with mptcpapi.Events() as events:
        with connection(A) as (one, _), connection(B) as (other, _):
            known = {mptcpapi.connection_id(one), mptcpapi.connection_id(other)}
            assert {events.wait(5).connid, events.wait(5).connid} == known


def test_a_listener():
    with mptcpapi.mptcp_socket(socket.AF_INET6) as server:
        server.bind((SERVER6, 0))
        server.listen()
        with mptcpapi.Events(server, EventKind.UP) as events:
            with mptcpapi.mptcp_socket(socket.AF_INET6) as client:
                mptcpapi.connect(client, server.getsockname())
                up = events.wait(5)
                assert up.origin == Origin.PEER and up.subflow.local.host == SERVER6


def test_asyncio():
    async def story():
        with connection(A) as (client, accepted):
            exchange(client, accepted)
            async with mptcpapi.aio.Events(client) as events:
                # A wait that is given up loses nothing.
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(events.next(), 0.02)
                mptcpapi.add(client, B)
                first = await asyncio.wait_for(events.next(), 5)
                assert first.what == EventKind.SUBFLOW_UP
                waiting = asyncio.ensure_future(events.next())
                await asyncio.sleep(0.01)
                client.close()
                assert (await asyncio.wait_for(waiting, 5)).what == EventKind.DOWN
                assert [event async for event in events] == []
        with connection(A) as (client, accepted):
            events = mptcpapi.aio.Events(client)
            waiting = asyncio.ensure_future(events.next())
            await asyncio.sleep(0.01)
            events.close()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    asyncio.run(story())


def test_errors():
    assert mptcpapi.capabilities().works & Capability.EVENTS
    with tcp_socket() as tcp:
        with pytest.raises(OSError) as caught:
            mptcpapi.Events(tcp)
        assert caught.value.errno == errno.EOPNOTSUPP
    with pytest.raises(OSError) as caught:
        mptcpapi.Events(events=1 << 29)
    assert caught.value.errno == errno.EINVAL
    closed = tcp_socket()
    closed.close()
    with pytest.raises(OSError) as caught:
        mptcpapi.Events(closed)
    assert caught.value.errno == errno.EBADF


@pytest.mark.mode("user")
def test_nobody_may():
    if mptcpapi.capabilities().works & Capability.EVENTS:
        return
    with pytest.raises(PermissionError):
        mptcpapi.Events()
