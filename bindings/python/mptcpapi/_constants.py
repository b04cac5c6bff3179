# SPDX-License-Identifier: MIT OR Apache-2.0
# Written by generate.py from include/mptcp.h. Do not edit.
"""The constants of mptcp.h, under their C names, and as enumerations."""

import enum
from typing import Final, Optional


class OpenIntEnum(enum.IntEnum):
    """An IntEnum that also holds values this version has no name for."""

    @classmethod
    def _missing_(cls, value: object) -> "Optional[OpenIntEnum]":
        if not isinstance(value, int):
            return None
        member = int.__new__(cls, value)
        member._name_ = f"UNKNOWN_{value}"
        member._value_ = value
        return member


MPTCPAPI_VERSION: Final[str] = "0.1.0"
MPTCPAPI_VERSION_NUMBER: Final[int] = 0x000100
TCP_MULTIPATH_ENABLE: Final[int] = 0x689701
TCP_MULTIPATH_ADD: Final[int] = 0x689702
TCP_MULTIPATH_REMOVE: Final[int] = 0x689703
TCP_MULTIPATH_SUBFLOWS: Final[int] = 0x689704
TCP_MULTIPATH_CONNID: Final[int] = 0x689705
MPTCP_SUBFLOW_INITIAL: Final[int] = 0x1
MPTCP_SUBFLOW_FALLBACK: Final[int] = 0x2
MPTCP_SUBFLOW_PRIO_KNOWN: Final[int] = 0x4
MPTCP_SUBFLOW_BACKUP: Final[int] = 0x8
MPTCP_SUBFLOW_PEER_BACKUP: Final[int] = 0x10
MPTCP_BINDX_ADD_ADDR: Final[int] = 0x1
MPTCP_BINDX_REM_ADDR: Final[int] = 0x2
MPTCP_BINDX_BACKUP: Final[int] = 0x10
MPTCP_BINDX_NO_ADVERTISE: Final[int] = 0x20
MPTCP_BINDX_NO_SUBFLOW: Final[int] = 0x40
MPTCP_BACKEND_NONE: Final[int] = 0
MPTCP_BACKEND_BROKER: Final[int] = 1
MPTCP_BACKEND_DIRECT: Final[int] = 2
MPTCP_CONTROL_UNKNOWN: Final[int] = 0
MPTCP_CONTROL_KERNEL: Final[int] = 1
MPTCP_CONTROL_CONNECTION: Final[int] = 2
MPTCP_CAP_ENABLE: Final[int] = 0x1
MPTCP_CAP_SUBFLOWS: Final[int] = 0x2
MPTCP_CAP_CONNID: Final[int] = 0x4
MPTCP_CAP_CONN_STATS: Final[int] = 0x8
MPTCP_CAP_SUBFLOW_STATS: Final[int] = 0x10
MPTCP_CAP_ADD_BEFORE: Final[int] = 0x20
MPTCP_CAP_ADD_LIVE: Final[int] = 0x40
MPTCP_CAP_CLOSE_SUBFLOW: Final[int] = 0x80
MPTCP_CAP_LISTEN: Final[int] = 0x100
MPTCP_CAP_BACKUP: Final[int] = 0x200
MPTCP_CAP_PROFILE: Final[int] = 0x400
MPTCP_CAP_REDUNDANCY: Final[int] = 0x800
MPTCP_CAP_FATE_SHARING: Final[int] = 0x1000
MPTCP_CAP_EVENTS: Final[int] = 0x2000
MPTCP_CAP_LATE_BIND: Final[int] = 0x4000

# What the packaging reads.
__version__: Final[str] = "0.1.0"


class Capability(enum.IntFlag):
    """What may work: Capabilities.works and .known."""

    ENABLE = MPTCP_CAP_ENABLE
    SUBFLOWS = MPTCP_CAP_SUBFLOWS
    CONNID = MPTCP_CAP_CONNID
    CONN_STATS = MPTCP_CAP_CONN_STATS
    SUBFLOW_STATS = MPTCP_CAP_SUBFLOW_STATS
    ADD_BEFORE = MPTCP_CAP_ADD_BEFORE
    ADD_LIVE = MPTCP_CAP_ADD_LIVE
    CLOSE_SUBFLOW = MPTCP_CAP_CLOSE_SUBFLOW
    LISTEN = MPTCP_CAP_LISTEN
    BACKUP = MPTCP_CAP_BACKUP
    PROFILE = MPTCP_CAP_PROFILE
    REDUNDANCY = MPTCP_CAP_REDUNDANCY
    FATE_SHARING = MPTCP_CAP_FATE_SHARING
    EVENTS = MPTCP_CAP_EVENTS
    LATE_BIND = MPTCP_CAP_LATE_BIND


class SubflowFlag(enum.IntFlag):
    """The bits of Subflow.flags."""

    INITIAL = MPTCP_SUBFLOW_INITIAL
    FALLBACK = MPTCP_SUBFLOW_FALLBACK
    PRIO_KNOWN = MPTCP_SUBFLOW_PRIO_KNOWN
    BACKUP = MPTCP_SUBFLOW_BACKUP
    PEER_BACKUP = MPTCP_SUBFLOW_PEER_BACKUP


class Backend(OpenIntEnum):
    """Who controls paths for this process."""

    NONE = MPTCP_BACKEND_NONE
    BROKER = MPTCP_BACKEND_BROKER
    DIRECT = MPTCP_BACKEND_DIRECT


class Control(OpenIntEnum):
    """Who chooses the paths of one socket."""

    UNKNOWN = MPTCP_CONTROL_UNKNOWN
    KERNEL = MPTCP_CONTROL_KERNEL
    CONNECTION = MPTCP_CONTROL_CONNECTION


__all__ = [
    "MPTCPAPI_VERSION",
    "MPTCPAPI_VERSION_NUMBER",
    "TCP_MULTIPATH_ENABLE",
    "TCP_MULTIPATH_ADD",
    "TCP_MULTIPATH_REMOVE",
    "TCP_MULTIPATH_SUBFLOWS",
    "TCP_MULTIPATH_CONNID",
    "MPTCP_SUBFLOW_INITIAL",
    "MPTCP_SUBFLOW_FALLBACK",
    "MPTCP_SUBFLOW_PRIO_KNOWN",
    "MPTCP_SUBFLOW_BACKUP",
    "MPTCP_SUBFLOW_PEER_BACKUP",
    "MPTCP_BINDX_ADD_ADDR",
    "MPTCP_BINDX_REM_ADDR",
    "MPTCP_BINDX_BACKUP",
    "MPTCP_BINDX_NO_ADVERTISE",
    "MPTCP_BINDX_NO_SUBFLOW",
    "MPTCP_BACKEND_NONE",
    "MPTCP_BACKEND_BROKER",
    "MPTCP_BACKEND_DIRECT",
    "MPTCP_CONTROL_UNKNOWN",
    "MPTCP_CONTROL_KERNEL",
    "MPTCP_CONTROL_CONNECTION",
    "MPTCP_CAP_ENABLE",
    "MPTCP_CAP_SUBFLOWS",
    "MPTCP_CAP_CONNID",
    "MPTCP_CAP_CONN_STATS",
    "MPTCP_CAP_SUBFLOW_STATS",
    "MPTCP_CAP_ADD_BEFORE",
    "MPTCP_CAP_ADD_LIVE",
    "MPTCP_CAP_CLOSE_SUBFLOW",
    "MPTCP_CAP_LISTEN",
    "MPTCP_CAP_BACKUP",
    "MPTCP_CAP_PROFILE",
    "MPTCP_CAP_REDUNDANCY",
    "MPTCP_CAP_FATE_SHARING",
    "MPTCP_CAP_EVENTS",
    "MPTCP_CAP_LATE_BIND",
    "Capability",
    "SubflowFlag",
    "Backend",
    "Control",
]
