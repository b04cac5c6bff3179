# SPDX-License-Identifier: MIT OR Apache-2.0
"""MPTCP for asyncio: open_connection(), connect_by_name(), start_server(), connect(), Events.

They are used as those of asyncio, with any event loop that has add_writer().
Nothing here blocks the loop; a cancelled call closes the sockets it made.
"""

from __future__ import annotations

import asyncio
import socket
import ssl as ssl_module
import threading
from typing import Any, AsyncIterator, Awaitable, Callable, Iterable, List, Optional, Sequence, Tuple, Union

from ._address import Address, Addresses, to_addresses
from ._core import connect_step, mptcp_socket
from ._events import Event
from ._events import Events as BlockingEvents
from ._names import connect_by_name as blocking_connect_by_name
from ._stream import add_usable, bind_named, check_all_errors, listen_with, raise_all, to_peer

__all__ = ["Events", "Server", "connect", "connect_by_name", "open_connection", "start_server"]

_LIMIT = 2**16  # asyncio's own default for a stream's buffer

ClientConnected = Callable[
    [asyncio.StreamReader, asyncio.StreamWriter], Union[Awaitable[None], None]
]


async def connect(sock: socket.socket, addresses: Addresses) -> int:
    """Connect a non-blocking socket to one peer, as mptcpapi.connect() does.

    What loop.sock_connect() is to socket.connect(). Gives the connection id, 0
    on plain TCP; errors are those of mptcpapi.connect(). When it is cancelled
    the socket is still connecting: close it.
    """
    if sock.gettimeout() != 0:
        raise ValueError("the socket must be non-blocking")
    listed = to_addresses(addresses)
    loop = asyncio.get_running_loop()
    while True:
        try:
            return connect_step(sock.fileno(), listed)
        except InterruptedError:
            continue
        except BlockingIOError:
            pass
        await _writable(loop, sock.fileno())


async def _writable(loop: asyncio.AbstractEventLoop, fd: int) -> None:
    # Registered afresh for each wait, and not during connect_step(): between two
    # addresses it may put another socket in the place of this one, of which the
    # loop's selector would never hear.
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_writer(fd, wake)
    try:
        await ready
    finally:
        loop.remove_writer(fd)


async def connect_by_name(
    host: Union[str, bytes], port: Union[str, int], **options: Any
) -> socket.socket:
    """Connect as mptcpapi.connect_by_name() does; gives a non-blocking socket.

    Which asyncio.open_connection(sock=...) takes. The C library waits for the
    resolver and the network by itself, in a thread of this call's own. Of a
    call that is cancelled that thread is left, until the attempts are over or
    its timeout is, and closes what it got.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[socket.socket] = loop.create_future()

    def tell(sock: Optional[socket.socket], error: Optional[BaseException]) -> None:
        if done.cancelled():
            if sock is not None:
                sock.close()
        elif error is not None:
            done.set_exception(error)
        elif sock is not None:
            done.set_result(sock)

    def work() -> None:
        sock, error = None, None
        try:
            sock = blocking_connect_by_name(host, port, **options)
            sock.setblocking(False)
        except BaseException as failure:
            error = failure
        try:
            loop.call_soon_threadsafe(tell, sock, error)
        except RuntimeError:  # the loop was closed meanwhile
            if sock is not None:
                sock.close()

    # Not the loop's own executor: that would wait for it at its end.
    threading.Thread(target=work, name="mptcpapi.connect_by_name", daemon=True).start()
    try:
        return await done
    except asyncio.CancelledError:
        if done.done() and not done.cancelled() and done.exception() is None:
            done.result().close()
        raise


class Events(BlockingEvents):
    """mptcpapi.Events for asyncio: what waits is to be awaited.

        async with mptcpapi.aio.Events(sock) as events:
            async for event in events:
                print(event.what.name, event.subflow)

    A wait that is cancelled loses no event. Where several tasks wait, each event
    goes to one.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Subscribe, as mptcpapi.Events does."""
        self._waiting: List[asyncio.Future[None]] = []
        super().__init__(*arguments, **options)

    async def next(self) -> Optional[Event]:
        """Wait for the next event; None: nothing will follow."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                return self.read()
            except BlockingIOError:
                await self._readable(loop)

    async def _readable(self, loop: asyncio.AbstractEventLoop) -> None:
        # A loop knows one reader for a descriptor: those who wait share it.
        ready: asyncio.Future[None] = loop.create_future()
        if not self._waiting:
            loop.add_reader(self._fd, self._wake)
        self._waiting.append(ready)
        try:
            await ready
        finally:
            if ready in self._waiting:
                self._waiting.remove(ready)
                if not self._waiting and self._fd >= 0:
                    loop.remove_reader(self._fd)

    def _wake(self) -> None:
        asyncio.get_running_loop().remove_reader(self._fd)
        waiting, self._waiting = self._waiting, []
        for ready in waiting:
            if not ready.done():
                ready.set_result(None)

    def close(self) -> None:
        """End the subscription; who waits is cancelled."""
        waiting, self._waiting = getattr(self, "_waiting", []), []
        if waiting and self._fd >= 0:
            waiting[0].get_loop().remove_reader(self._fd)
        for ready in waiting:
            ready.cancel()
        super().close()

    async def __aenter__(self) -> Events:
        return self

    async def __aexit__(self, *_: Any) -> None:
        self.close()

    def __aiter__(self) -> AsyncIterator[Event]:
        return self._each()

    async def _each(self) -> AsyncIterator[Event]:
        while True:
            event = await self.next()
            if event is None:
                return
            yield event


async def open_connection(
    host: Optional[str],
    port: Union[int, str, None],
    *,
    local_addresses: Optional[Addresses] = None,
    limit: int = _LIMIT,
    family: int = 0,
    flags: int = 0,
    local_addr: Optional[Tuple[str, int]] = None,
    all_errors: bool = False,
    ssl: Union[None, bool, ssl_module.SSLContext] = None,
    server_hostname: Optional[str] = None,
    **kwds: Any,
) -> Tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Connect with MPTCP and give (reader, writer), as asyncio.open_connection().

    The answers for a name are tried in turn, as hosts of their own; without MPTCP
    here or at the peer the connection is plain TCP. local_addresses: use these and
    no others, as in mptcpapi.create_connection(); local_addr: bind to this
    (host, port), which is not looked up. Further arguments go to
    loop.create_connection(). The functions of mptcpapi take
    writer.get_extra_info("socket").
    """
    check_all_errors(all_errors)
    allowed = None if local_addresses is None else to_addresses(local_addresses)
    loop = asyncio.get_running_loop()
    if ssl and server_hostname is None and host:
        server_hostname = host
    infos = await loop.getaddrinfo(host, port, family=family, type=socket.SOCK_STREAM, flags=flags)
    sock = await _connect_any(infos, allowed, local_addr, all_errors)

    owned = False

    def factory() -> asyncio.StreamReaderProtocol:
        nonlocal owned
        owned = True
        return protocol

    try:
        reader = asyncio.StreamReader(limit=limit, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.create_connection(
            factory, sock=sock, ssl=ssl, server_hostname=server_hostname, **kwds
        )
    except BaseException:
        # Once it has asked for the protocol the loop's transport has the socket
        # and closes it itself, in its own order.
        if not owned:
            sock.close()
        raise
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def _connect_any(
    infos: Sequence[Any],
    allowed: Optional[List[Address]],
    local_addr: Optional[Tuple[str, int]],
    all_errors: bool,
) -> socket.socket:
    errors: List[OSError] = []
    for family, kind, _, _, where in infos:
        sock: Optional[socket.socket] = None
        try:
            sock = mptcp_socket(family, kind)
            sock.setblocking(False)
            if local_addr is not None:
                bind_named(sock, local_addr)
            if allowed is not None:
                add_usable(sock, allowed)
            await connect(sock, to_peer(where))
            return sock
        except OSError as error:
            errors.append(error)
            if sock is not None:
                sock.close()
        except BaseException:
            if sock is not None:
                sock.close()
            raise
    raise_all(errors, all_errors)


class Server(asyncio.AbstractServer):
    """What start_server() gives: it is used like asyncio.Server."""

    def __init__(
        self,
        servers: List[asyncio.Server],
        sockets: List[socket.socket],
        backlog: int,
        addresses: Optional[List[Address]],
    ) -> None:
        self._servers = servers
        self._sockets = sockets
        self._backlog = backlog
        self._addresses = addresses
        self._forever: Optional[asyncio.Future[None]] = None

    @property
    def sockets(self) -> Tuple[Any, ...]:
        """The listening sockets; the functions of mptcpapi take them."""
        return tuple(sock for server in self._servers for sock in server.sockets)

    def get_loop(self) -> asyncio.AbstractEventLoop:
        """Give the event loop it belongs to."""
        return self._servers[0].get_loop()

    def is_serving(self) -> bool:
        """Tell whether it accepts connections."""
        return any(server.is_serving() for server in self._servers)

    async def start_serving(self) -> None:
        """Start to listen and to accept connections, if that isn't done yet."""
        for server, sock in zip(self._servers, self._sockets):
            if not server.is_serving():
                # Before the loop accepts: the first connections want the list too.
                listen_with(sock, self._backlog, self._addresses)
                await server.start_serving()

    async def serve_forever(self) -> None:
        """Accept connections until this call is cancelled, which closes it."""
        if self._forever is not None:
            raise RuntimeError(f"server {self!r} is already being awaited on serve_forever()")
        await self.start_serving()
        self._forever = self.get_loop().create_future()
        try:
            await self._forever
        except asyncio.CancelledError:
            self.close()
            await self.wait_closed()
            raise
        finally:
            self._forever = None

    def close(self) -> None:
        """Stop to listen. Connections go on."""
        for server in self._servers:
            server.close()
        if self._forever is not None and not self._forever.done():
            self._forever.cancel()

    async def wait_closed(self) -> None:
        """Wait until it is closed, as asyncio.Server.wait_closed() does."""
        for server in self._servers:
            await server.wait_closed()


async def start_server(
    client_connected_cb: ClientConnected,
    host: Union[None, str, Iterable[str]] = None,
    port: Union[int, str, None] = None,
    *,
    local_addresses: Optional[Addresses] = None,
    limit: int = _LIMIT,
    family: int = socket.AF_UNSPEC,
    flags: int = socket.AI_PASSIVE,
    backlog: int = 100,
    reuse_address: bool = True,
    reuse_port: bool = False,
    start_serving: bool = True,
    **kwds: Any,
) -> Server:
    """Serve MPTCP and TCP connections, as asyncio.start_server() does.

    local_addresses: what accepted connections use and announce, as in
    mptcpapi.create_server(). Further arguments (ssl ...) go to
    loop.create_server().
    """
    allowed = None if local_addresses is None else to_addresses(local_addresses)
    loop = asyncio.get_running_loop()
    hosts: List[Optional[str]]
    if host is None or host == "":
        hosts = [None]
    elif isinstance(host, str):
        hosts = [host]
    else:
        hosts = list(host)
    answers = await asyncio.gather(
        *(
            loop.getaddrinfo(one, port, family=family, type=socket.SOCK_STREAM, flags=flags)
            for one in hosts
        )
    )
    sockets: List[socket.socket] = []
    servers: List[asyncio.Server] = []
    try:
        # Each once, in order: two hosts may have the same address.
        for info in dict.fromkeys(info for infos in answers for info in infos):
            sock = mptcp_socket(info[0], info[1])
            sockets.append(sock)
            sock.setblocking(False)
            if reuse_address:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if sock.family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bind_named(sock, info[4])
        if not sockets:
            raise OSError("getaddrinfo returns an empty list")
        for sock in sockets:
            servers.append(
                await asyncio.start_server(
                    client_connected_cb,
                    sock=sock,
                    limit=limit,
                    backlog=backlog,
                    start_serving=False,
                    **kwds,
                )
            )
        server = Server(servers, sockets, backlog, allowed)
        if start_serving:
            await server.start_serving()
        return server
    except BaseException:
        for one in servers:
            one.close()
        for sock in sockets:
            sock.close()
        raise
