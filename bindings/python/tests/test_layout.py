# SPDX-License-Identifier: MIT OR Apache-2.0
"""The structures of ctypes have the layout that the C interface fixes."""

import ctypes

import pytest

from mptcpapi._native import (
    CapsStruct,
    ConnectOptsStruct,
    ConnStatsStruct,
    SockaddrStorage,
    SubflowStatsStruct,
    SubflowStruct,
)

pytestmark = pytest.mark.mode("any")


def test_sockaddr_storage():
    assert ctypes.sizeof(SockaddrStorage) == 128
    assert ctypes.alignment(SockaddrStorage) == ctypes.alignment(ctypes.c_ulong)


def test_subflow():
    assert ctypes.sizeof(SubflowStruct) == 288
    assert ctypes.alignment(SubflowStruct) == ctypes.alignment(ctypes.c_ulong)
    assert SubflowStruct.local.offset == 0
    assert SubflowStruct.remote.offset == 128
    assert SubflowStruct.id.offset == 256
    assert SubflowStruct.flags.offset == 260
    assert SubflowStruct.reserved.offset == 264
    assert SubflowStruct.reserved.size == 24


def test_caps():
    assert ctypes.sizeof(CapsStruct) == 256
    for name, offset, size in (
        ("works", 0, 8),
        ("known", 8, 8),
        ("backend", 16, 4),
        ("backend_errno", 20, 4),
        ("control", 24, 4),
        ("library", 28, 4),
        ("subflows_max", 32, 4),
        ("addrs_max", 36, 4),
        ("reserved", 40, 8),
        ("reason", 48, 208),
    ):
        field = getattr(CapsStruct, name)
        assert (field.offset, field.size) == (offset, size), name


def test_conn_stats():
    assert ctypes.sizeof(ConnStatsStruct) == 104
    assert ConnStatsStruct.closed_bytes_received.offset == 48
    assert ConnStatsStruct.connid.offset == 56
    assert ConnStatsStruct.last_ack_received_ms.offset == 88
    assert ConnStatsStruct.addrs_received.offset == 96


def test_subflow_stats():
    assert ctypes.sizeof(SubflowStatsStruct) == 432
    for name, offset in (
        ("valid", 288),
        ("pacing_rate", 336),
        ("share_sent_ppm", 344),
        ("state", 352),
        ("rtt_us", 356),
        ("retrans", 396),
        ("local_id", 416),
        ("ifindex", 424),
    ):
        assert getattr(SubflowStatsStruct, name).offset == offset, name


def test_connect_opts():
    pointer = ctypes.sizeof(ctypes.c_void_p)
    assert ctypes.sizeof(ConnectOptsStruct) == pointer + 32
    for place, name in enumerate(
        (
            "local_count",
            "flags",
            "family",
            "profile",
            "timeout_ms",
            "attempt_delay_ms",
            "tcp_delay_ms",
            "reserved",
        )
    ):
        assert getattr(ConnectOptsStruct, name).offset == pointer + 4 * place, name
