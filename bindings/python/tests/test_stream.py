# SPDX-License-Identifier: MIT OR Apache-2.0
"""connect() with its timeouts, create_connection(), create_server()."""

import contextlib
import errno
import os
import signal
import socket
import sys
import threading
import time

import pytest

import mptcpapi
from helper import (
    A,
    A6,
    B,
    C,
    NO_SERVERS,
    SERVER,
    SERVER6,
    closed_port,
    connection,
    eventually,
    exchange,
    full_listener,
    listener,
    local_hosts,
    tcp_socket,
)

# What socket.connect() raises; TimeoutError itself from Python 3.10 on.
TIMEOUT = socket.timeout if sys.version_info < (3, 10) else TimeoutError


@pytest.fixture
def full():
    with full_listener() as where:
        yield where


# connect


def test_connect_times_out_as_socket_does(full):
    for sock, call in (
        (mptcpapi.mptcp_socket(), lambda sock: mptcpapi.connect(sock, full)),
        (tcp_socket(), lambda sock: mptcpapi.connect(sock, full)),
        (tcp_socket(), lambda sock: sock.connect(full)),
    ):
        with sock:
            sock.settimeout(0.3)
            start = time.monotonic()
            with pytest.raises(TIMEOUT) as caught:
                call(sock)
            assert 0.3 <= time.monotonic() - start < 5
            assert str(caught.value) == "timed out"
            assert sock.gettimeout() == 0.3


def test_connect_non_blocking(full):
    with mptcpapi.mptcp_socket() as sock:
        sock.setblocking(False)
        with pytest.raises(BlockingIOError) as caught:
            mptcpapi.connect(sock, full)
        assert caught.value.errno == errno.EINPROGRESS
        for again in (sock, sock.fileno()):
            with pytest.raises(BlockingIOError) as caught:
                mptcpapi.connect(again, full)
            assert caught.value.errno == errno.EALREADY


def test_connect_within_the_timeout():
    with listener() as server, mptcpapi.mptcp_socket() as client:
        client.settimeout(10)
        assert mptcpapi.connect(client, server.getsockname())


@pytest.mark.parametrize("timeout", [None, 10])
def test_connect_tries_each_address(timeout):
    with listener(A) as server, mptcpapi.mptcp_socket() as client:
        client.settimeout(timeout)
        port = server.getsockname()[1]
        assert mptcpapi.connect(client, [(B, port), (C, port), (A, port)])
        assert client.getpeername() == (A, port)
        assert client.gettimeout() == timeout
        with server.accept()[0] as accepted:
            exchange(client, accepted)


@pytest.mark.parametrize("timeout", [None, 10])
def test_connect_is_refused(timeout):
    where = closed_port()
    with mptcpapi.mptcp_socket() as sock:
        sock.settimeout(timeout)
        with pytest.raises(ConnectionRefusedError) as caught:
            mptcpapi.connect(sock, [where, (A, where[1])])
        assert caught.value.strerror


@pytest.mark.parametrize("timeout", [None, 20])
def test_connect_is_interrupted_by_an_exception(full, timeout):
    class Interrupt(Exception):
        pass

    def interrupt(number, frame):
        raise Interrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        with mptcpapi.mptcp_socket() as sock:
            sock.settimeout(timeout)
            with pytest.raises(Interrupt):
                mptcpapi.connect(sock, full)
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)


def test_connect_goes_on_after_a_signal():
    seen = []
    connected = threading.Event()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(tcp_socket())
        server.bind((SERVER, 0))
        server.listen(0)
        server.settimeout(0.1)
        where = server.getsockname()
        for _ in range(3):
            filler = stack.enter_context(tcp_socket())
            filler.setblocking(False)
            filler.connect_ex(where)

        def give_way():
            os.kill(os.getpid(), signal.SIGUSR1)
            deadline = time.monotonic() + 20
            while not connected.is_set() and time.monotonic() < deadline:
                with contextlib.suppress(socket.timeout):
                    server.accept()[0].close()

        before = signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
        timer = threading.Timer(0.3, give_way)
        timer.start()
        try:
            sock = stack.enter_context(mptcpapi.mptcp_socket())
            assert mptcpapi.connect(sock, where) == 0
        finally:
            connected.set()
            timer.join(30)
            signal.signal(signal.SIGUSR1, before)
    assert seen == [signal.SIGUSR1]


# create_connection


def test_create_connection():
    with mptcpapi.create_server((SERVER, 0)) as server:
        with mptcpapi.create_connection(server.getsockname(), 5) as client:
            assert client.gettimeout() == 5
            with server.accept()[0] as accepted:
                exchange(client, accepted)
                assert mptcpapi.is_enabled(client) and mptcpapi.is_enabled(accepted)


def test_create_connection_timeouts(full):
    with pytest.raises(TIMEOUT):
        mptcpapi.create_connection(full, 0.2)
    socket.setdefaulttimeout(0.2)
    try:
        with pytest.raises(TIMEOUT):
            mptcpapi.create_connection(full)
    finally:
        socket.setdefaulttimeout(None)
    with listener() as server:
        with mptcpapi.create_connection(server.getsockname(), timeout=None) as client:
            assert client.gettimeout() is None


def test_create_connection_with_source_address():
    with listener() as server:
        with mptcpapi.create_connection(server.getsockname(), 5, (B, 0)) as client:
            assert client.getsockname()[0] == B


def test_create_connection_with_local_addresses():
    with listener() as server:
        # One list for both families: what doesn't fit is left out.
        with mptcpapi.create_connection(
            server.getsockname(), 5, local_addresses=[A, A6, B]
        ) as client:
            with server.accept()[0] as accepted:
                exchange(client, accepted)
                eventually(lambda: local_hosts(client) == [A, B])
        with pytest.raises(OSError) as caught:
            mptcpapi.create_connection(server.getsockname(), 5, local_addresses=[A6])
        assert caught.value.errno == errno.EAFNOSUPPORT
        with pytest.raises(ValueError):
            mptcpapi.create_connection(server.getsockname(), 5, local_addresses="localhost")


def test_create_connection_falls_back():
    with listener(tcp=True) as server:
        with mptcpapi.create_connection(server.getsockname(), 5) as client:
            assert not mptcpapi.is_enabled(client)
            with server.accept()[0] as accepted:
                exchange(client, accepted)


def answers(monkeypatch, *where):
    """Let names have these addresses."""
    found = [
        (
            socket.AF_INET6 if len(one) > 2 else socket.AF_INET,
            socket.SOCK_STREAM,
            socket.IPPROTO_TCP,
            "",
            one,
        )
        for one in where
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: found)


def test_create_connection_tries_every_answer(monkeypatch):
    with listener() as server:
        dead = closed_port(SERVER6)
        answers(monkeypatch, (*dead, 0, 0), closed_port(), server.getsockname())
        with mptcpapi.create_connection(("server.test", 1), 5) as client:
            assert client.getpeername() == server.getsockname()


def test_create_connection_errors(monkeypatch):
    answers(monkeypatch, (*closed_port(SERVER6), 0, 0), closed_port())
    with pytest.raises(ConnectionRefusedError):
        mptcpapi.create_connection(("server.test", 1), 5)
    if sys.version_info >= (3, 11):
        with pytest.raises(ExceptionGroup) as caught:
            mptcpapi.create_connection(("server.test", 1), 5, all_errors=True)
        assert [type(one) for one in caught.value.exceptions] == [ConnectionRefusedError] * 2
    else:
        with pytest.raises(NotImplementedError):
            mptcpapi.create_connection(("server.test", 1), 5, all_errors=True)
    answers(monkeypatch)
    with pytest.raises(OSError, match="empty list"):
        mptcpapi.create_connection(("server.test", 1), 5)


def test_failed_connections_leave_no_descriptors(full):
    before = os.listdir("/proc/self/fd")
    for where, timeout in ((full, 0.05), (closed_port(), 5)):
        for _ in range(5):
            with pytest.raises(OSError):
                mptcpapi.create_connection(where, timeout, local_addresses=[A])
    # The library may keep a few of its own, for all connections together.
    assert len(os.listdir("/proc/self/fd")) <= len(before) + 6


# create_server


def test_create_server():
    with mptcpapi.create_server((SERVER, 0), backlog=5, reuse_port=True) as server:
        assert mptcpapi.is_enabled(server)
        assert server.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
        assert server.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT)
        assert server.gettimeout() is None
        # TCP clients are served too.
        with socket.create_connection(server.getsockname(), 5) as client:
            with server.accept()[0] as accepted:
                exchange(client, accepted)
                assert not mptcpapi.is_enabled(accepted)


def test_create_server_ipv6():
    with mptcpapi.create_server(("::", 0), family=socket.AF_INET6) as server:
        port = server.getsockname()[1]
        mptcpapi.create_connection((SERVER6, port), 5).close()
        with pytest.raises(ConnectionRefusedError):
            mptcpapi.create_connection((SERVER, port), 5)
    with mptcpapi.create_server(
        ("::", 0), family=socket.AF_INET6, dualstack_ipv6=True
    ) as server:
        port = server.getsockname()[1]
        for host in (SERVER, SERVER6):
            with mptcpapi.create_connection((host, port), 5) as client:
                with server.accept()[0] as accepted:
                    exchange(client, accepted)
                    assert mptcpapi.is_enabled(accepted)


def test_create_server_errors():
    with pytest.raises(ValueError):
        mptcpapi.create_server((SERVER, 0), dualstack_ipv6=True)
    with listener() as server, pytest.raises(OSError) as caught:
        mptcpapi.create_server(server.getsockname())
    assert caught.value.errno == errno.EADDRINUSE
    assert SERVER in str(caught.value)
    # Accepted connections can't be controlled in this namespace.
    with pytest.raises(OSError) as caught:
        mptcpapi.create_server((SERVER, 0), local_addresses=[A])
    assert caught.value.errno == NO_SERVERS


def test_other_ends_see_the_same():
    with connection() as (client, accepted):
        mine, theirs = mptcpapi.subflows(client)[0], mptcpapi.subflows(accepted)[0]
        assert (mine.local, mine.remote) == (theirs.remote, theirs.local)
