# SPDX-License-Identifier: MIT OR Apache-2.0
"""Statistics of connections and their subflows."""

from __future__ import annotations

import ctypes
import dataclasses
from typing import Any, Dict, List, Optional, Type, Union

from . import _constants as c
from ._address import pack
from ._core import Subflow, to_subflow
from ._native import ConnStatsStruct, Socket, SubflowStatsStruct, SubflowStruct, descriptor, library


@dataclasses.dataclass(frozen=True)
class ConnectionStats:
    """A connection in numbers. None: not known, as on older kernels.

    bytes_sent, bytes_received: payload, each byte once. bytes_acked: by the
    peer; the end of the stream counts as one, the SYN of plain TCP too.
    bytes_retrans: payload sent on a subflow once more, since the peer did not
    acknowledge it in time. closed_bytes_sent, closed_bytes_received: payload
    that moved on subflows that are gone (received: at least). These need
    Linux 6.5.

    connid: as connection_id(). flags: ConnectionFlag bits, which the properties
    spell out. subflows: established. subflows_pending: SYN sent. subflows_max:
    the limit of the in-kernel path manager. retransmits: how often in a row the
    connection's timer ran out. last_*_ms: how long ago (Linux 6.10).
    addrs_announced: to the peer. addrs_received: from the peer, as far as they
    were taken.
    """

    bytes_sent: Optional[int]
    bytes_received: Optional[int]
    bytes_acked: Optional[int]
    bytes_retrans: Optional[int]
    closed_bytes_sent: Optional[int]
    closed_bytes_received: Optional[int]
    connid: Optional[int]
    flags: c.ConnectionFlag
    subflows: int
    subflows_pending: int
    subflows_max: Optional[int]
    retransmits: Optional[int]
    last_data_sent_ms: Optional[int]
    last_data_received_ms: Optional[int]
    last_ack_received_ms: Optional[int]
    addrs_announced: Optional[int]
    addrs_received: Optional[int]

    @property
    def fallback(self) -> bool:
        """The connection is plain TCP."""
        return bool(self.flags & c.ConnectionFlag.FALLBACK)

    @property
    def server(self) -> bool:
        """This side accepted it; False also where that isn't known."""
        return bool(self.flags & c.ConnectionFlag.SERVER)

    @property
    def checksum(self) -> bool:
        """MPTCP's checksums are in use."""
        return bool(self.flags & c.ConnectionFlag.CHECKSUM)

    @property
    def fully_established(self) -> bool:
        """Subflows can be made."""
        return bool(self.flags & c.ConnectionFlag.FULL)


@dataclasses.dataclass(frozen=True)
class SubflowStats:
    """A subflow in numbers, those of TCP as ss(8) shows them. None: not known.

    bytes_sent: payload, with bytes_retrans of them sent again. bytes_received,
    bytes_acked: a FIN and a SYN sent count as one. delivery_rate, pacing_rate:
    bytes a second. share_sent_ppm, share_received_ppm: its part of what all
    subflows, living and gone, moved, in millionths (Linux 6.5). state: as in
    tcp(7), 1 is ESTABLISHED. cwnd, ssthresh, unacked, lost, retrans (ever),
    reordering: segments. mss: bytes. last_*_ms: how long ago. local_id,
    remote_id: MPTCP's numbers of the addresses. ifindex: the interface that it
    is bound to, else the one with the local address.
    """

    subflow: Subflow
    bytes_sent: Optional[int]
    bytes_received: Optional[int]
    bytes_acked: Optional[int]
    bytes_retrans: Optional[int]
    delivery_rate: Optional[int]
    pacing_rate: Optional[int]
    share_sent_ppm: Optional[int]
    share_received_ppm: Optional[int]
    state: Optional[int]
    rtt_us: Optional[int]
    rttvar_us: Optional[int]
    min_rtt_us: Optional[int]
    rto_us: Optional[int]
    backoff: Optional[int]
    cwnd: Optional[int]
    ssthresh: Optional[int]
    mss: Optional[int]
    unacked: Optional[int]
    lost: Optional[int]
    retrans: Optional[int]
    reordering: Optional[int]
    last_data_sent_ms: Optional[int]
    last_data_received_ms: Optional[int]
    last_ack_received_ms: Optional[int]
    local_id: Optional[int]
    remote_id: Optional[int]
    ifindex: Optional[int]


@dataclasses.dataclass(frozen=True)
class AllStats:
    """A connection and its established subflows, oldest first, at one moment."""

    connection: ConnectionStats
    subflows: List[SubflowStats]


def _known(struct: Any, kind: Type[Any]) -> Dict[str, Any]:
    """Give the fields of a struct that a class has; bit k of valid is the k-th."""
    names = [field[0] for field in struct._fields_]
    after = names[names.index("valid") + 1 :]
    wanted = {field.name for field in dataclasses.fields(kind)}
    return {
        name: getattr(struct, name) if struct.valid >> bit & 1 else None
        for bit, name in enumerate(after)
        if name in wanted
    }


def _to_connection(struct: ConnStatsStruct) -> ConnectionStats:
    known = _known(struct, ConnectionStats)
    known["flags"] = c.ConnectionFlag(struct.flags)
    return ConnectionStats(**known)


def _to_subflow(struct: SubflowStatsStruct) -> SubflowStats:
    return SubflowStats(to_subflow(struct.subflow), **_known(struct, SubflowStats))


def connection_stats(sock: Socket) -> ConnectionStats:
    """Tell the numbers of a connection.

    Needs no privilege. Errors: ENOTCONN, EOPNOTSUPP (MPTCP before Linux 5.16).
    """
    stats = ConnStatsStruct()
    library.call("mptcp_getconnstats", descriptor(sock), ctypes.byref(stats), ctypes.sizeof(stats))
    return _to_connection(stats)


def named(subflow: Union[Subflow, SubflowStats]) -> SubflowStruct:
    """Give the struct mptcp_subflow that names a subflow."""
    wanted = subflow.subflow if isinstance(subflow, SubflowStats) else subflow
    name = SubflowStruct(id=wanted.id)
    for address, field in ((wanted.local, name.local), (wanted.remote, name.remote)):
        raw = pack([address])
        ctypes.memmove(ctypes.addressof(field), raw, len(raw))
    return name


def subflow_stats(sock: Socket, subflow: Union[Subflow, SubflowStats]) -> SubflowStats:
    """Tell the numbers of one subflow, as subflows() or all_stats() gave it.

    It is known by its addresses and ports, and by its id if there is one.
    Errors: ENOENT (no such subflow, or no more), and those of
    connection_stats().
    """
    name = named(subflow)
    stats = SubflowStatsStruct()
    library.call(
        "mptcp_getsubflowstats",
        descriptor(sock),
        ctypes.byref(name),
        ctypes.byref(stats),
        ctypes.sizeof(stats),
    )
    return _to_subflow(stats)


def all_stats(sock: Socket) -> AllStats:
    """Tell the numbers of a connection and of its subflows at one moment.

    Only here the subflows' shares add up: to 1,000,000 less what closed
    subflows had. A plain TCP connection has one subflow. Errors: those of
    connection_stats().
    """
    connection = ConnStatsStruct()
    array = ctypes.POINTER(SubflowStatsStruct)()
    count = library.call(
        "mptcp_getallstats",
        descriptor(sock),
        ctypes.byref(connection),
        ctypes.sizeof(connection),
        ctypes.byref(array),
        ctypes.sizeof(SubflowStatsStruct),
    )
    try:
        return AllStats(_to_connection(connection), [_to_subflow(one) for one in array[:count]])
    finally:
        library.free("mptcp_freeallstats", array)
