# SPDX-License-Identifier: MIT OR Apache-2.0
"""connect_by_name(), by itself and for asyncio."""

import asyncio
import errno
import gc
import os
import signal
import socket
import subprocess
import sys
import time
import warnings

import pytest

import mptcpapi
from helper import (
    A,
    B,
    MODE,
    SERVER,
    SERVER6,
    closed_port,
    environment,
    eventually,
    exchange,
    full_listener,
    listener,
    local_hosts,
)
from mptcpapi import aio

everywhere = pytest.mark.mode("kernel", "userspace", "user")


def port_of(server):
    return server.getsockname()[1]


@everywhere
@pytest.mark.parametrize("host", [SERVER, SERVER6, SERVER.encode()])
def test_a_connection(host):
    with listener(host if isinstance(host, str) else host.decode()) as server:
        with mptcpapi.connect_by_name(host, port_of(server), timeout=10) as client:
            assert client.gettimeout() == 10
            assert not client.get_inheritable()
            assert mptcpapi.is_enabled(client)
            accepted, _ = server.accept()
            with accepted:
                exchange(client, accepted)
            assert client.getpeername() == server.getsockname()


@everywhere
def test_tcp():
    with listener() as server:
        with mptcpapi.connect_by_name(SERVER, str(port_of(server)), multipath=False) as client:
            assert client.gettimeout() is None
            assert client.proto == socket.IPPROTO_TCP
    with listener(tcp=True) as server:
        with mptcpapi.connect_by_name(SERVER, port_of(server)) as client:
            assert not mptcpapi.is_enabled(client)
        with pytest.raises(OSError) as caught:
            mptcpapi.connect_by_name(SERVER, port_of(server), fallback=False)
        assert caught.value.errno == errno.EOPNOTSUPP


@pytest.mark.mode("kernel", "userspace")
def test_local_addresses():
    with listener() as server:
        with mptcpapi.connect_by_name(SERVER, port_of(server), local_addresses=[A, B], timeout=10) as client:
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(10)
                exchange(client, accepted)
                assert [one.host for one in mptcpapi.local_addresses(client)] == [A, B]
                eventually(lambda: local_hosts(client) == [A, B])


@pytest.mark.mode("user")
def test_local_addresses_need_somebody_who_may():
    if "broker" in MODE:
        return
    with listener() as server:
        with pytest.raises(PermissionError):
            mptcpapi.connect_by_name(SERVER, port_of(server), local_addresses=[A])


@pytest.mark.mode("any")
@pytest.mark.parametrize(
    "arguments, options, number",
    [
        (("no such name", 80), {"numeric": True}, errno.ENOENT),
        ((SERVER, 80), {"family": socket.AF_INET6}, errno.ENOENT),
        ((SERVER, 80), {"family": socket.AF_UNIX}, errno.EAFNOSUPPORT),
        ((SERVER, "no-such-service"), {}, errno.EINVAL),
        ((SERVER, 80), {"profile": 4}, errno.EINVAL),
        ((SERVER, 80), {"multipath": False, "fallback": False}, errno.EINVAL),
        ((SERVER, 80), {"local_addresses": ["224.0.0.1"]}, errno.EADDRNOTAVAIL),
        ((SERVER, 80), {"local_addresses": ["fd01::1"]}, errno.EADDRNOTAVAIL),
    ],
)
def test_refusals(arguments, options, number):
    with pytest.raises(OSError) as caught:
        mptcpapi.connect_by_name(*arguments, **options)
    assert caught.value.errno == number
    assert caught.value.strerror


@pytest.mark.mode("any")
@pytest.mark.parametrize(
    "arguments, options, kind",
    [
        ((None, 80), {}, TypeError),
        ((SERVER, None), {}, TypeError),
        ((SERVER, 1.5), {}, TypeError),
        (("a\0b", 80), {}, ValueError),
        ((SERVER, "8\0"), {}, ValueError),
        ((SERVER, 80), {"timeout": 0}, ValueError),
        ((SERVER, 80), {"timeout": -1}, ValueError),
        ((SERVER, 80), {"tcp_delay": -1}, ValueError),
        ((SERVER, 80), {"attempt_delay": 1e9}, ValueError),
        ((SERVER, 80), {"local_addresses": ["a.name"]}, ValueError),
    ],
)
def test_wrong_arguments(arguments, options, kind):
    with pytest.raises(kind):
        mptcpapi.connect_by_name(*arguments, **options)


@pytest.mark.mode("any")
def test_refused_names_each_attempt():
    host, port = closed_port()
    with pytest.raises(ConnectionRefusedError) as caught:
        mptcpapi.connect_by_name(host, port)
    assert caught.value.strerror == f"{host}: {host}:{port} MPTCP, TCP: Connection refused"


@pytest.mark.mode("any")
def test_timeout():
    with full_listener() as where:
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            mptcpapi.connect_by_name(*where, timeout=0.4)
        assert 0.4 <= time.monotonic() - start < 5


@pytest.mark.mode("any")
def test_signals():
    """Handlers run in the middle; one that raises ends the call."""
    rang = []
    with full_listener() as where:
        before = signal.signal(signal.SIGUSR1, lambda *_: rang.append(1))
        child = os.fork()
        if not child:
            for _ in range(3):
                time.sleep(0.1)
                os.kill(os.getppid(), signal.SIGUSR1)
            os._exit(0)
        try:
            start = time.monotonic()
            with pytest.raises(TimeoutError):
                mptcpapi.connect_by_name(*where, timeout=0.7)
            assert 0.6 <= time.monotonic() - start < 5
            assert rang
        finally:
            os.waitpid(child, 0)
            signal.signal(signal.SIGUSR1, before)


@pytest.mark.mode("any")
def test_a_name_beyond_ascii_is_encoded_as_socket_does():
    # In a process of its own, whose only names are these.
    code = """
import ctypes, mptcpapi, socket, sys, tempfile, os
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x20000) == 0 and libc.mount(None, b"/", None, 1 << 18 | 1 << 14, None) == 0
for name, text in (("hosts", "10.9.0.1 xn--bcher-kva.example\\n"), ("nsswitch.conf", "hosts: files\\n")):
    with tempfile.NamedTemporaryFile("w") as file:
        file.write(text)
        file.flush()
        assert libc.mount(file.name.encode(), b"/etc/" + name.encode(), None, 4096, None) == 0
server = socket.create_server(("10.9.0.1", 0))
sock = mptcpapi.connect_by_name("b\\u00fccher.example", server.getsockname()[1])
assert sock.getpeername() == server.getsockname()
try:
    mptcpapi.connect_by_name("none.example", 80)
except FileNotFoundError as error:
    assert error.strerror.startswith("none.example: "), error
else:
    assert False
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr


# asyncio


def run(main):
    return asyncio.run(asyncio.wait_for(main, 30), debug=True)


@everywhere
def test_aio():
    async def main():
        loop = asyncio.get_running_loop()
        with listener() as server:
            sock = await aio.connect_by_name(SERVER, port_of(server))
            assert sock.gettimeout() == 0
            accepted, _ = server.accept()
            accepted.setblocking(False)
            reader, writer = await asyncio.open_connection(sock=sock)
            assert mptcpapi.is_enabled(writer.get_extra_info("socket"))
            writer.write(b"hello")
            assert await loop.sock_recv(accepted, 5) == b"hello"
            await loop.sock_sendall(accepted, b"reply")
            assert await reader.readexactly(5) == b"reply"
            writer.close()
            await writer.wait_closed()
            accepted.close()
            with pytest.raises(ConnectionRefusedError):
                await aio.connect_by_name(*closed_port())
            # Many at once, while the loop runs.
            socks = await asyncio.gather(
                *(aio.connect_by_name(SERVER, port_of(server)) for _ in range(20))
            )
            for one in socks:
                one.close()

    run(main())


@pytest.mark.mode("any")
def test_aio_cancelled():
    async def main():
        with full_listener() as where:
            start = time.monotonic()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(aio.connect_by_name(*where), 0.3)
            assert time.monotonic() - start < 5
        with listener() as server:
            # Whatever had been done when it was cancelled is closed.
            for steps in range(30):
                task = asyncio.ensure_future(aio.connect_by_name(SERVER, port_of(server)))
                for _ in range(steps):
                    await asyncio.sleep(0.0002)
                task.cancel()
                try:
                    (await task).close()
                except asyncio.CancelledError:
                    pass
            await asyncio.sleep(0.1)

    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        start = time.monotonic()
        run(main())
        assert time.monotonic() - start < 20
        gc.collect()
