# SPDX-License-Identifier: MIT OR Apache-2.0
"""Several threads: errors stay apart, waiting doesn't hold up the others."""

import errno
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

import mptcpapi
from helper import A, B, connection, environment, eventually, exchange, full_listener, local_hosts


def test_errors_stay_with_their_thread():
    gate = threading.Barrier(4)

    def words(call, number):
        with mptcpapi.mptcp_socket() as sock:
            gate.wait(10)
            seen = set()
            for _ in range(300):
                with pytest.raises(OSError) as caught:
                    call(sock)
                assert caught.value.errno == number
                seen.add(caught.value.strerror)
            return seen

    calls = [
        (mptcpapi.subflows, errno.ENOTCONN),
        (lambda sock: mptcpapi.getsockopt(sock, socket.IPPROTO_TCP, 0x6897FF), errno.ENOPROTOOPT),
        (lambda sock: mptcpapi.connect(sock, []), errno.EINVAL),
        (lambda sock: mptcpapi.is_enabled(-1), errno.EBADF),
    ]
    with ThreadPoolExecutor(len(calls)) as pool:
        found = list(pool.map(lambda one: words(*one), calls))
    assert all(len(seen) == 1 for seen in found), found
    assert len(set.union(*found)) == len(calls)


def test_connections_in_threads():
    def one(number):
        with connection([A, B]) as (client, accepted):
            exchange(client, accepted, bytes([number]) * 50_000)
            eventually(lambda: local_hosts(client) == [A, B])
            exchange(client, accepted, bytes([number]) * 50_000)
            return mptcpapi.connection_id(client)

    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(one, range(16)))) == 16


def test_one_connection_in_threads():
    with connection([A, B]) as (client, accepted):
        exchange(client, accepted)
        eventually(lambda: local_hosts(client) == [A, B])
        number = mptcpapi.connection_id(client)

        def ask(_):
            for _ in range(100):
                assert local_hosts(client) == [A, B]
                assert mptcpapi.connection_id(client) == number
                assert mptcpapi.is_enabled(client)

        with ThreadPoolExecutor(4) as pool:
            list(pool.map(ask, range(4)))


def test_a_waiting_connect_lets_others_run():
    with full_listener() as where, mptcpapi.mptcp_socket() as sock:
        # A second, then connect() gives up.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", 1, 0))
        failed = []

        def wait():
            try:
                mptcpapi.connect(sock, where)
            except OSError as error:
                failed.append(error)

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        rounds, start = 0, time.monotonic()
        while thread.is_alive() and time.monotonic() - start < 20:
            with mptcpapi.mptcp_socket() as other:
                assert mptcpapi.is_enabled(other)
            rounds += 1
        thread.join(10)
        assert failed and 0.9 < time.monotonic() - start < 10
        assert rounds > 100


# The watchdog of conftest.py is a thread, but none that holds a lock.
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_forked_child_goes_on():
    with connection([A, B]) as (client, accepted):
        exchange(client, accepted)
        eventually(lambda: local_hosts(client) == [A, B])
        child = os.fork()
        if child == 0:
            # Queries work; nothing of the parent's is touched.
            try:
                good = local_hosts(client) == [A, B] and mptcpapi.is_enabled(client)
                with mptcpapi.mptcp_socket() as sock:
                    mptcpapi.add(sock, A)
                os._exit(0 if good else 1)
            except BaseException:
                os._exit(2)
        assert os.waitpid(child, 0)[1] == 0
        exchange(client, accepted)
        assert local_hosts(client) == [A, B]


def test_development_mode_has_no_complaints():
    code = (
        "import mptcpapi\n"
        "with mptcpapi.create_server(('10.9.0.1', 0)) as s:\n"
        " with mptcpapi.create_connection(s.getsockname(), 5, local_addresses='10.1.0.1') as c:\n"
        "  print(mptcpapi.subflows(c))\n"
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", code],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
