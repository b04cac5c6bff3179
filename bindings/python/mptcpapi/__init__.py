# SPDX-License-Identifier: MIT OR Apache-2.0
"""RFC 6897 for Python: choose and watch the paths of Multipath TCP connections.

    import mptcpapi

    with mptcpapi.create_connection(("server.example", 443)) as sock:
        print(mptcpapi.is_enabled(sock), mptcpapi.subflows(sock))

The functions take a socket.socket (or a file descriptor) and are those of the C
library libmptcpapi, which is loaded when this module is imported: ImportError
says why it can't be. The variable MPTCPAPI_LIBRARY names another file.

Failures are OSError, or its subclass for the errno (PermissionError ...), with
the library's explanation as strerror. Addresses are ipaddress objects, strings
("10.0.0.1", "10.0.0.1:80", "fe80::1%eth0", "[::1]:80"), tuples as the socket
module has them, or several of these in any iterable; a name instead of an
address is a ValueError; only connect_by_name() and create_connection() look
names up.

All functions may be called from any thread, and let others run meanwhile. For
asyncio there is mptcpapi.aio.
"""

from . import _constants
from ._address import Address, Addresses, AddressLike
from ._advanced import (
    PathPolicy,
    Traffic,
    close_subflow,
    fate_sharing,
    max_subflows,
    open_subflow,
    path_policy,
    profile,
    redundancy,
    set_backup,
    set_fate_sharing,
    set_max_subflows,
    set_path_policy,
    set_profile,
    set_redundancy,
    set_traffic,
    traffic,
)
from ._constants import *
from ._core import (
    Capabilities,
    Subflow,
    add,
    capabilities,
    connect,
    connection_id,
    enable,
    getsockopt,
    is_enabled,
    local_addresses,
    mptcp_socket,
    peer_addresses,
    remove,
    setsockopt,
    subflows,
    version,
)
from ._events import Event, Events
from ._names import connect_by_name
from ._stats import AllStats, ConnectionStats, SubflowStats, all_stats, connection_stats, subflow_stats
from ._stream import create_connection, create_server

__version__ = _constants.__version__

__all__ = [
    "Address",
    "AddressLike",
    "Addresses",
    "AllStats",
    "Capabilities",
    "ConnectionStats",
    "Event",
    "Events",
    "PathPolicy",
    "Subflow",
    "SubflowStats",
    "Traffic",
    "add",
    "all_stats",
    "capabilities",
    "close_subflow",
    "connect",
    "connect_by_name",
    "connection_id",
    "connection_stats",
    "create_connection",
    "create_server",
    "enable",
    "fate_sharing",
    "getsockopt",
    "is_enabled",
    "local_addresses",
    "max_subflows",
    "mptcp_socket",
    "open_subflow",
    "path_policy",
    "peer_addresses",
    "profile",
    "redundancy",
    "remove",
    "set_backup",
    "set_fate_sharing",
    "set_max_subflows",
    "set_path_policy",
    "set_profile",
    "set_redundancy",
    "set_traffic",
    "setsockopt",
    "subflow_stats",
    "subflows",
    "traffic",
    "version",
]
__all__ += _constants.__all__
