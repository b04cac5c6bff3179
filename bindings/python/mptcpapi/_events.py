# SPDX-License-Identifier: MIT OR Apache-2.0
"""What happens to connections, told by a descriptor."""

from __future__ import annotations

import ctypes
import dataclasses
import errno
import os
import select
import time
from types import TracebackType
from typing import Any, Callable, Iterator, List, Optional, Type, Union

from . import _constants as c
from ._address import Address, unpack_one
from ._core import Subflow, to_subflow
from ._native import EVENT_FN, EventStruct, Socket, descriptor, library


@dataclasses.dataclass(frozen=True)
class Event:
    """Something that happened to a connection.

    what: which kind. connid: of which connection, as connection_id(); 0 for
    OVERFLOW. time: when it was noticed, by time.monotonic(). subflow: which one
    (UP: the initial one), None where there is none. address: what the peer
    announced or withdrew, None if it isn't known. error: the errno of a failure,
    0 none. reset_reason: why the peer reset a subflow (RFC 8684 3.6), 0 not
    known. addr_id: the peer's number of address. ifindex: interface, 0 not known.
    origin: who was the cause. lost: how many events OVERFLOW stands for, 0 not
    known.
    """

    what: c.EventKind
    connid: int
    time: float
    subflow: Optional[Subflow]
    address: Optional[Address]
    error: int
    reset_reason: int
    addr_id: int
    ifindex: int
    origin: c.Origin
    lost: int


_ADDRESSES = (c.EventKind.PEER_ADDR, c.EventKind.PEER_ADDR_GONE)


def _to_event(struct: EventStruct) -> Event:
    what = c.EventKind(struct.what)
    remote = bool(struct.subflow.remote.ss_family)
    local = bool(struct.subflow.local.ss_family)
    return Event(
        what=what,
        connid=struct.connid,
        time=struct.time_ns / 1e9,
        subflow=to_subflow(struct.subflow) if local and remote else None,
        address=unpack_one(bytes(struct.subflow.remote))[0] if what in _ADDRESSES and remote else None,
        error=struct.error,
        reset_reason=struct.reset_reason,
        addr_id=struct.addr_id,
        ifindex=struct.ifindex,
        origin=c.Origin(struct.origin),
        lost=struct.lost,
    )


class Events:
    """Events of a connection, of what a listener accepts, or of all connections.

    It has a fileno() for select, selectors and event loops; it is readable when
    there is something to do, perhaps without an event. Iterating waits for each
    event and ends with the connection. To be closed, or used in a with
    statement.

        with mptcpapi.Events(sock) as events:
            for event in events:
                print(event.what.name, event.subflow)
    """

    def __init__(
        self,
        sock: Optional[Socket] = None,
        events: Union[c.EventKind, int] = c.MPTCP_EV_ALL,
        *,
        current: bool = False,
    ) -> None:
        """Subscribe: to a connection, or a socket still to be connected; to a
        listener, for all that it accepts from now on; without sock to all
        connections that this process has made known to the library.

        current: tell first what is there, as UP and SUBFLOW_UP. Errors: EPERM
        (nobody may act for this process), EOPNOTSUPP (plain TCP), ENOTCONN (the
        connection ended), EDQUOT, EIO.
        """
        self._fd = -1
        fd = -1 if sock is None else descriptor(sock)
        if fd < 0 and sock is not None:
            # -1 would ask about all, and a closed socket's fileno() is -1.
            raise OSError(errno.EBADF, "the socket is closed")
        mask = int(events) | (c.MPTCP_EV_CURRENT if current else 0)
        self._fd = library.call("mptcp_subscribe", fd, mask)

    def fileno(self) -> int:
        """Give the descriptor, -1 once closed."""
        return self._fd

    def close(self) -> None:
        """End the subscription."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self) -> Events:
        return self

    def __exit__(
        self,
        kind: Optional[Type[BaseException]],
        value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def read(self) -> Optional[Event]:
        """Give the next event; None: nothing will follow.

        Never waits: BlockingIOError where there is none now. OSError (EIO) once
        when the broker has gone: subscribe again, with current.
        """
        struct = EventStruct()
        more = library.call("mptcp_nextevent", self._fd, ctypes.byref(struct), ctypes.sizeof(struct))
        return _to_event(struct) if more else None

    def wait(self, timeout: Optional[float] = None) -> Optional[Event]:
        """Wait for the next event; None: nothing will follow. TimeoutError."""
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return self.read()
            except BlockingIOError:
                left = None if deadline is None else max(deadline - time.monotonic(), 0)
                if left == 0:
                    raise TimeoutError(errno.ETIMEDOUT, "no event in time") from None
                poll.poll(None if left is None else left * 1000 + 1)

    def dispatch(self, callback: Optional[Callable[[Event], Any]] = None) -> int:
        """Call callback for each event that is there; how many there were.

        A true result ends it, and so does close() in the callback. An exception
        ends it too, and is raised. Without a callback no event is taken, but the
        library does what it has to do.
        """
        if callback is None:
            return library.call("mptcp_dispatch", self._fd, EVENT_FN(), None)
        tell = callback
        raised: List[BaseException] = []

        def call(event: Any, _size: int, _arg: Any) -> int:
            try:
                # Once closed, the number can be another's.
                return 1 if tell(_to_event(event.contents)) or self._fd < 0 else 0
            except BaseException as error:
                raised.append(error)
                return 1

        count = library.call("mptcp_dispatch", self._fd, EVENT_FN(call), None)
        if raised:
            raise raised[0]
        return count

    def __iter__(self) -> Iterator[Event]:
        while True:
            event = self.wait()
            if event is None:
                return
            yield event
