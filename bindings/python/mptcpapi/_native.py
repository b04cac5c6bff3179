# SPDX-License-Identifier: MIT OR Apache-2.0
"""The C library: loading it, its functions and structures, its errors."""

from __future__ import annotations

import ctypes
import os
from ctypes import POINTER, c_char, c_char_p, c_int, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from typing import Any, Dict, Optional, Protocol, Tuple, Union

SONAME = "libmptcpapi.so.0"

socklen_t = c_uint32


class SockaddrStorage(ctypes.Structure):
    """struct sockaddr_storage: 128 bytes with the alignment of a long."""

    _fields_ = [
        ("ss_family", ctypes.c_ushort),
        ("ss_data", c_char * (128 - ctypes.sizeof(ctypes.c_ushort) - ctypes.sizeof(ctypes.c_ulong))),
        ("ss_align", ctypes.c_ulong),
    ]


class SubflowStruct(ctypes.Structure):
    """struct mptcp_subflow."""

    _fields_ = [
        ("local", SockaddrStorage),
        ("remote", SockaddrStorage),
        ("id", c_uint32),
        ("flags", c_uint32),
        ("reserved", c_uint32 * 6),
    ]


class ConnStatsStruct(ctypes.Structure):
    """struct mptcp_conn_stats."""

    _fields_ = [
        ("valid", c_uint64),
        ("bytes_sent", c_uint64),
        ("bytes_received", c_uint64),
        ("bytes_acked", c_uint64),
        ("bytes_retrans", c_uint64),
        ("closed_bytes_sent", c_uint64),
        ("closed_bytes_received", c_uint64),
        ("connid", c_uint32),
        ("flags", c_uint32),
        ("subflows", c_uint32),
        ("subflows_pending", c_uint32),
        ("subflows_max", c_uint32),
        ("retransmits", c_uint32),
        ("last_data_sent_ms", c_uint32),
        ("last_data_received_ms", c_uint32),
        ("last_ack_received_ms", c_uint32),
        ("addrs_announced", c_uint32),
        ("addrs_received", c_uint32),
        ("reserved", c_uint32),
    ]


class SubflowStatsStruct(ctypes.Structure):
    """struct mptcp_subflow_stats."""

    _fields_ = [
        ("subflow", SubflowStruct),
        ("valid", c_uint64),
        ("bytes_sent", c_uint64),
        ("bytes_received", c_uint64),
        ("bytes_acked", c_uint64),
        ("bytes_retrans", c_uint64),
        ("delivery_rate", c_uint64),
        ("pacing_rate", c_uint64),
        ("share_sent_ppm", c_uint32),
        ("share_received_ppm", c_uint32),
        ("state", c_uint32),
        ("rtt_us", c_uint32),
        ("rttvar_us", c_uint32),
        ("min_rtt_us", c_uint32),
        ("rto_us", c_uint32),
        ("backoff", c_uint32),
        ("cwnd", c_uint32),
        ("ssthresh", c_uint32),
        ("mss", c_uint32),
        ("unacked", c_uint32),
        ("lost", c_uint32),
        ("retrans", c_uint32),
        ("reordering", c_uint32),
        ("last_data_sent_ms", c_uint32),
        ("last_data_received_ms", c_uint32),
        ("last_ack_received_ms", c_uint32),
        ("local_id", c_uint32),
        ("remote_id", c_uint32),
        ("ifindex", c_int32),
        ("reserved", c_uint32),
    ]


class EventStruct(ctypes.Structure):
    """struct mptcp_event."""

    _fields_ = [
        ("what", c_uint32),
        ("connid", c_uint32),
        ("time_ns", c_uint64),
        ("subflow", SubflowStruct),
        ("error", c_int32),
        ("reset_reason", c_uint32),
        ("addr_id", c_uint32),
        ("ifindex", c_int32),
        ("origin", c_uint32),
        ("lost", c_uint32),
        ("reserved", c_uint32 * 2),
    ]


# mptcp_event_fn
EVENT_FN = ctypes.CFUNCTYPE(c_int, POINTER(EventStruct), c_size_t, c_void_p)


class ConnectOptsStruct(ctypes.Structure):
    """struct mptcp_connect_opts."""

    _fields_ = [
        ("local", c_char_p),
        ("local_count", c_uint32),
        ("flags", c_uint32),
        ("family", c_int32),
        ("profile", c_int32),
        ("timeout_ms", c_uint32),
        ("attempt_delay_ms", c_uint32),
        ("tcp_delay_ms", c_uint32),
        ("reserved", c_uint32),
    ]


class CapsStruct(ctypes.Structure):
    """struct mptcp_caps."""

    _fields_ = [
        ("works", c_uint64),
        ("known", c_uint64),
        ("backend", c_uint32),
        ("backend_errno", c_int32),
        ("control", c_uint32),
        ("library", c_uint32),
        ("subflows_max", c_uint32),
        ("addrs_max", c_uint32),
        ("reserved", c_uint32 * 2),
        ("reason", c_char * 208),
    ]


# name: (result, arguments). Packed address lists go in as bytes (c_char_p
# passes the pointer and doesn't look for a NUL) and come out as c_void_p.
PROTOTYPES: Dict[str, Tuple[Any, Tuple[Any, ...]]] = {
    "mptcp_setsockopt": (c_int, (c_int, c_int, c_int, c_char_p, socklen_t)),
    "mptcp_getsockopt": (c_int, (c_int, c_int, c_int, c_void_p, POINTER(socklen_t))),
    "mptcp_getsubflows": (c_int, (c_int, POINTER(POINTER(SubflowStruct)))),
    "mptcp_freesubflows": (None, (POINTER(SubflowStruct),)),
    "mptcp_bindx": (c_int, (c_int, c_char_p, c_int, c_int)),
    "mptcp_connectx": (c_int, (c_int, c_char_p, c_int, POINTER(c_uint32))),
    "mptcp_connectbyname": (c_int, (c_char_p, c_char_p, POINTER(ConnectOptsStruct), c_size_t)),
    "mptcp_getladdrs": (c_int, (c_int, POINTER(c_void_p))),
    "mptcp_freeladdrs": (None, (c_void_p,)),
    "mptcp_getpaddrs": (c_int, (c_int, POINTER(c_void_p))),
    "mptcp_freepaddrs": (None, (c_void_p,)),
    "mptcp_getconnstats": (c_int, (c_int, POINTER(ConnStatsStruct), c_size_t)),
    "mptcp_getsubflowstats": (
        c_int,
        (c_int, POINTER(SubflowStruct), POINTER(SubflowStatsStruct), c_size_t),
    ),
    "mptcp_getallstats": (
        c_int,
        (c_int, POINTER(ConnStatsStruct), c_size_t, POINTER(POINTER(SubflowStatsStruct)), c_size_t),
    ),
    "mptcp_freeallstats": (None, (POINTER(SubflowStatsStruct),)),
    "mptcp_opensubflow": (c_int, (c_int, c_char_p, c_char_p, c_int)),
    "mptcp_closesubflow": (c_int, (c_int, POINTER(SubflowStruct))),
    "mptcp_setbackup": (c_int, (c_int, POINTER(SubflowStruct), c_int)),
    "mptcp_subscribe": (c_int, (c_int, c_uint32)),
    "mptcp_nextevent": (c_int, (c_int, POINTER(EventStruct), c_size_t)),
    "mptcp_dispatch": (c_int, (c_int, EVENT_FN, c_void_p)),
    "mptcp_socket": (c_int, (c_int, c_int, c_int)),
    "mptcp_getcaps": (c_int, (c_int, POINTER(CapsStruct), c_size_t)),
    "mptcp_errmsg": (c_char_p, ()),
    "mptcp_version": (c_char_p, ()),
}


class Library:
    """libmptcpapi with the type of every function declared."""

    def __init__(self, name: str) -> None:
        try:
            # CDLL releases the GIL during each call; use_errno keeps errno
            # apart from what the interpreter itself does in between.
            cdll = ctypes.CDLL(name, use_errno=True)
        except OSError as error:
            raise ImportError(
                f"the C library {SONAME}, which mptcpapi needs, could not be loaded: {error}"
                " (install it, or name its file in the environment variable MPTCPAPI_LIBRARY)",
                name="mptcpapi",
                path=name,
            ) from error
        self.functions: Dict[str, Any] = {}
        for symbol, (result, arguments) in PROTOTYPES.items():
            try:
                function = getattr(cdll, symbol)
            except AttributeError:
                raise ImportError(
                    f"{name} has no function {symbol}: it is too old for this mptcpapi",
                    name="mptcpapi",
                    path=name,
                ) from None
            function.restype = result
            function.argtypes = arguments
            self.functions[symbol] = function

    def call(self, symbol: str, *arguments: Any) -> int:
        """Call a function that returns -1 and errno on failure."""
        result: int = self.functions[symbol](*arguments)
        if result == -1:
            # In this order and at once: both belong to this thread's last call.
            number = ctypes.get_errno()
            raise OSError(number, self.text("mptcp_errmsg") or os.strerror(number))
        return result

    def free(self, symbol: str, pointer: Any) -> None:
        """Call a function that frees what another one returned."""
        self.functions[symbol](pointer)

    def text(self, symbol: str) -> str:
        """Call a function that returns a C string."""
        words: Optional[bytes] = self.functions[symbol]()
        return (words or b"").decode("utf-8", "replace")


library = Library(os.environ.get("MPTCPAPI_LIBRARY") or SONAME)


class HasFileno(Protocol):
    """A socket.socket, or anything else with a fileno()."""

    def fileno(self) -> int: ...


Socket = Union[int, HasFileno]


def int_argument(value: int, what: str) -> int:
    """Check that a value fits a C int: ctypes itself would cut it silently."""
    if not isinstance(value, int):
        raise TypeError(f"{what} must be an int, not {type(value).__name__}")
    if not -(2**31) <= value < 2**31:
        raise OverflowError(f"{what} {value} is out of range")
    return value


def descriptor(sock: Socket) -> int:
    """Give the file descriptor of a socket."""
    return int_argument(sock if isinstance(sock, int) else sock.fileno(), "file descriptor")
