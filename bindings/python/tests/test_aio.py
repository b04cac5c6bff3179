# SPDX-License-Identifier: MIT OR Apache-2.0
"""mptcpapi.aio: echo over two paths, cancellation, servers."""

import asyncio
import contextlib
import errno
import gc
import os
import socket
import ssl
import time
import warnings

import pytest

import mptcpapi
from helper import (
    A,
    A6,
    B,
    NO_SERVERS,
    SERVER,
    SERVER6,
    closed_port,
    full_listener,
    listener,
    local_hosts,
)
from mptcpapi import aio


def run(main):
    """Run a coroutine, in bounded time, as asyncio's debug mode does."""
    return asyncio.run(asyncio.wait_for(main, 30), debug=True)


async def eventually(ask, timeout=10):
    deadline = time.monotonic() + timeout
    while not ask():
        assert time.monotonic() < deadline, "did not come true in time"
        await asyncio.sleep(0.005)


async def echo(reader, writer):
    while True:
        data = await reader.read(65536)
        if not data:
            break
        writer.write(data)
        await writer.drain()
    writer.close()


@contextlib.asynccontextmanager
async def echo_server(host=SERVER, **options):
    server = await aio.start_server(echo, host, 0, **options)
    async with server:
        yield server.sockets[0].getsockname()[:2]


async def round_trip(reader, writer, data):
    async def send():
        writer.write(data)
        await writer.drain()

    sending = asyncio.ensure_future(send())
    assert await reader.readexactly(len(data)) == data
    await sending


async def close(writer):
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize("host, local", [(SERVER, [A, B]), (SERVER6, [A6, "fd02::1"])])
def test_echo_over_two_paths(host, local):
    async def main():
        async with echo_server(host) as where:
            reader, writer = await aio.open_connection(*where, local_addresses=local)
            sock = writer.get_extra_info("socket")
            assert mptcpapi.is_enabled(sock)
            await round_trip(reader, writer, b"hello")
            await eventually(lambda: local_hosts(sock) == local)
            await round_trip(reader, writer, os.urandom(1_000_000))
            mptcpapi.remove(sock, local[0])
            await eventually(lambda: local_hosts(sock) == local[1:])
            await round_trip(reader, writer, os.urandom(100_000))
            await close(writer)

    run(main())


def test_many_connections_at_once():
    async def one(where, number):
        reader, writer = await aio.open_connection(*where, local_addresses=[A, B])
        await round_trip(reader, writer, bytes([number]) * 10_000)
        await eventually(lambda: local_hosts(writer.get_extra_info("socket")) == [A, B])
        await close(writer)

    async def main():
        async with echo_server() as where:
            await asyncio.gather(*(one(where, number) for number in range(20)))

    run(main())


def test_it_does_not_block_the_loop():
    async def main():
        with full_listener() as where:
            waiting = asyncio.ensure_future(aio.open_connection(*where))
            turns = 0
            while turns < 50:
                await asyncio.sleep(0.002)
                turns += 1
            assert not waiting.done()
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting

    run(main())


def descriptors():
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("local", [None, [A, B]])
def test_cancellation_closes_the_socket(local):
    async def main():
        with full_listener() as where:
            # What the library keeps for all connections is there after the first.
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(aio.open_connection(*where, local_addresses=local), 0.1)
            before = descriptors()
            for _ in range(5):
                with pytest.raises(asyncio.TimeoutError):
                    await asyncio.wait_for(aio.open_connection(*where, local_addresses=local), 0.05)
            assert descriptors() == before

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        run(main())


def test_refusal_and_other_errors():
    async def main():
        with pytest.raises(ConnectionRefusedError):
            await aio.open_connection(*closed_port())
        with pytest.raises(ValueError):
            await aio.open_connection(SERVER, 1, local_addresses="localhost")
        with pytest.raises(OSError) as caught:
            await aio.open_connection(SERVER, 1, local_addresses="192.0.2.1")
        assert caught.value.errno == errno.EADDRNOTAVAIL
        with listener() as server:
            before = descriptors()
            # Refused by the event loop, after the connection was made.
            with pytest.raises(ValueError):
                await aio.open_connection(*server.getsockname(), server_hostname="name")
            assert descriptors() == before

    run(main())


def test_every_answer_is_tried():
    async def main():
        loop = asyncio.get_running_loop()
        async with echo_server() as where:
            found = [
                (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (*closed_port(SERVER6), 0, 0)),
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", closed_port()),
                (socket.AF_INET, socket.SOCK_STREAM, 6, "", where),
            ]

            async def getaddrinfo(*arguments, **options):
                return found

            loop.getaddrinfo = getaddrinfo
            reader, writer = await aio.open_connection("server.test", 1)
            assert writer.get_extra_info("peername") == where
            await round_trip(reader, writer, b"x")
            await close(writer)
            del found[2]
            with pytest.raises(ConnectionRefusedError):
                await aio.open_connection("server.test", 1)
            del loop.getaddrinfo

    run(main())


def test_connect():
    async def main():
        with listener(A) as server, mptcpapi.mptcp_socket() as sock:
            port = server.getsockname()[1]
            with pytest.raises(ValueError):
                await aio.connect(sock, server.getsockname())
            sock.setblocking(False)
            # In turn, the socket staying the same for its user.
            number = await aio.connect(sock, [(B, port), (A, port)])
            assert number == mptcpapi.connection_id(sock)
            assert sock.getpeername() == (A, port)

    run(main())


def test_local_addr():
    async def main():
        async with echo_server() as where:
            _, writer = await aio.open_connection(*where, local_addr=(B, 0))
            assert writer.get_extra_info("sockname")[0] == B
            await close(writer)

    run(main())


def test_fallback_to_tcp():
    async def main():
        server = await asyncio.start_server(echo, SERVER, 0)
        async with server:
            reader, writer = await aio.open_connection(*server.sockets[0].getsockname())
            assert not mptcpapi.is_enabled(writer.get_extra_info("socket"))
            await round_trip(reader, writer, b"x")
            await close(writer)

    run(main())


def test_server():
    async def main():
        server = await aio.start_server(echo, [SERVER, SERVER6], 0, start_serving=False)
        assert not server.is_serving() and len(server.sockets) == 2
        assert server.get_loop() is asyncio.get_running_loop()
        await server.start_serving()
        assert server.is_serving()
        for sock in server.sockets:
            assert mptcpapi.is_enabled(sock)
            reader, writer = await aio.open_connection(*sock.getsockname()[:2])
            assert mptcpapi.is_enabled(writer.get_extra_info("socket"))
            await round_trip(reader, writer, b"x")
            await close(writer)
        where = server.sockets[0].getsockname()[:2]
        forever = asyncio.ensure_future(server.serve_forever())
        await asyncio.sleep(0)
        forever.cancel()
        with pytest.raises(asyncio.CancelledError):
            await forever
        assert not server.is_serving() and server.sockets == ()
        with pytest.raises(ConnectionRefusedError):
            await aio.open_connection(*where)

    run(main())


def test_server_on_every_address():
    async def main():
        server = await aio.start_server(echo, None, closed_port()[1])
        async with server:
            families = {sock.family for sock in server.sockets}
            assert families == {socket.AF_INET, socket.AF_INET6}
            for host in (SERVER, SERVER6):
                reader, writer = await aio.open_connection(
                    host, server.sockets[0].getsockname()[1]
                )
                await round_trip(reader, writer, b"x")
                await close(writer)

    run(main())


def test_server_errors():
    async def main():
        with listener() as taken:
            before = descriptors()
            with pytest.raises(OSError) as caught:
                await aio.start_server(echo, [SERVER6, SERVER], taken.getsockname()[1])
            assert caught.value.errno == errno.EADDRINUSE
            assert SERVER in str(caught.value)
            assert descriptors() == before
            # Accepted connections can't be controlled in this namespace.
            with pytest.raises(OSError) as caught:
                await aio.start_server(echo, SERVER, 0, local_addresses=[A])
            assert caught.value.errno == NO_SERVERS
            assert descriptors() == before

    run(main())


@pytest.mark.mode("userspace")
def test_server_with_addresses():
    async def main():
        async with echo_server(local_addresses=[A]) as where:
            reader, writer = await aio.open_connection(*where, local_addresses=[B])
            sock = writer.get_extra_info("socket")
            await round_trip(reader, writer, b"x")
            await eventually(lambda: A in [one.host for one in mptcpapi.peer_addresses(sock)])
            await round_trip(reader, writer, b"x" * 100_000)
            await close(writer)

    run(main())


def test_tls_failure_closes_everything():
    async def main():
        async with echo_server() as where:
            context = ssl.create_default_context()
            with pytest.raises(OSError):
                # An echo of the client's own hello is no TLS server.
                await aio.open_connection(*where, ssl=context)

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        run(main())
