# SPDX-License-Identifier: MIT OR Apache-2.0
"""What the tests share: where they run, connections, waiting."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import socket
import time
from typing import Any, Callable, Iterator, List, Optional, Tuple, TypeVar

import mptcpapi

T = TypeVar("T")

ROOT = pathlib.Path(__file__).resolve().parents[3]
PACKAGE = ROOT / "bindings" / "python"

# The addresses that the lab has.
A, B, C, SERVER = "10.1.0.1", "10.2.0.1", "10.3.0.1", "10.9.0.1"
A6, B6, C6, SERVER6 = "fd01::1", "fd02::1", "fd03::1", "fd09::1"


def _mode() -> str:
    with socket.socket() as probe:
        try:
            probe.bind((SERVER, 0))
        except OSError:
            return "outside"
    mode = "kernel"
    for name, value in (("path_manager", "userspace"), ("pm_type", "1")):
        file = pathlib.Path("/proc/sys/net/mptcp", name)
        if file.exists() and file.read_text(encoding="ascii").strip() == value:
            mode = "userspace"
    status = pathlib.Path("/proc/self/status").read_text(encoding="ascii")
    caps = next(line.split()[1] for line in status.splitlines() if line.startswith("CapEff:"))
    if not int(caps, 16) >> 12 & 1:  # CAP_NET_ADMIN
        return mode + " by the broker" if "MPTCPAPI_BROKER" in os.environ else "user"
    return mode


MODE = _mode()
BROKER = MODE.endswith(" by the broker")
# Who controls paths, where anybody does; what he says of a list on a listener where
# accepted connections can't be controlled.
BACKEND = mptcpapi.Backend.BROKER if BROKER else mptcpapi.Backend.DIRECT
NO_SERVERS = errno.EACCES if BROKER else errno.EOPNOTSUPP


def eventually(ask: Callable[[], T], timeout: float = 10) -> T:
    """Ask until the answer is true.

    Every call into the library also lets it do what it has to do for a
    connection: asking makes it come true.
    """
    deadline = time.monotonic() + timeout
    while True:
        answer = ask()
        if answer or time.monotonic() > deadline:
            assert answer, "did not come true in time"
            return answer
        time.sleep(0.005)


def listener(host: str = SERVER, *, tcp: bool = False, family: Optional[int] = None) -> socket.socket:
    """A listening socket at a free port."""
    if family is None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = tcp_socket(family) if tcp else mptcpapi.mptcp_socket(family)
    sock.bind((host, 0))
    sock.listen()
    sock.settimeout(10)
    return sock


def tcp_socket(family: int = socket.AF_INET) -> socket.socket:
    return socket.socket(family, socket.SOCK_STREAM)


@contextlib.contextmanager
def connection(
    local: Any = None, host: str = SERVER, *, tcp_server: bool = False, **options: Any
) -> Iterator[Tuple[socket.socket, socket.socket]]:
    """Two ends of a connection, the first one's addresses chosen by add()."""
    with listener(host, tcp=tcp_server) as server:
        with mptcpapi.mptcp_socket(server.family) as client:
            client.settimeout(10)
            if local is not None:
                mptcpapi.add(client, local, **options)
            mptcpapi.connect(client, server.getsockname())
            accepted, _ = server.accept()
            with accepted:
                accepted.settimeout(10)
                yield client, accepted


def receive(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = sock.recv(count - len(data))
        assert part, "ended too early"
        data += part
    return data


def exchange(one: socket.socket, other: socket.socket, data: bytes = b"x" * 1000) -> None:
    """Data both ways: only then subflows can be made."""
    one.sendall(data)
    assert receive(other, len(data)) == data
    other.sendall(data)
    assert receive(one, len(data)) == data


def local_hosts(sock: socket.socket) -> List[str]:
    return sorted(subflow.local.host for subflow in mptcpapi.subflows(sock))


@contextlib.contextmanager
def full_listener() -> Iterator[Tuple[str, int]]:
    """The address of a listener that lets further connections wait for ever."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(tcp_socket())
        server.bind((SERVER, 0))
        server.listen(0)
        for _ in range(20):
            filler = stack.enter_context(tcp_socket())
            filler.settimeout(0.2)
            try:
                filler.connect(server.getsockname())
            except socket.timeout:
                yield server.getsockname()
                return
        raise AssertionError("the listener is never full")


def closed_port(host: str = SERVER) -> Tuple[str, int]:
    """An address that refuses connections."""
    with tcp_socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        sock.bind((host, 0))
        where: Tuple[str, int] = sock.getsockname()[:2]
    return where


def environment(**change: str) -> "dict[str, str]":
    """The environment of a Python that is started with this package."""
    return {**os.environ, "PYTHONPATH": str(PACKAGE), **change}
