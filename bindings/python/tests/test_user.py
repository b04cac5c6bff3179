# SPDX-License-Identifier: MIT OR Apache-2.0
"""What an ordinary user is told who may not control paths."""

import errno
import os

import pytest

import mptcpapi
from helper import A, B, SERVER, connection, exchange, listener
from mptcpapi import Backend, Capability

pytestmark = pytest.mark.mode("user")


def test_capabilities():
    host = mptcpapi.capabilities()
    assert host.backend == Backend.NONE
    assert host.backend_errno == errno.EPERM
    assert host.reason
    assert not host.works & (Capability.ADD_BEFORE | Capability.ADD_LIVE | Capability.LISTEN)


def refused(caught):
    assert caught.type is PermissionError
    assert caught.value.errno == errno.EPERM
    # The library's words, not the general ones.
    assert caught.value.strerror not in ("", os.strerror(errno.EPERM))


def test_add_before():
    with mptcpapi.mptcp_socket() as sock:
        with pytest.raises(OSError) as caught:
            mptcpapi.add(sock, A)
        refused(caught)
        assert mptcpapi.local_addresses(sock) == []


def test_add_and_remove_on_a_connection():
    with connection() as (client, accepted):
        exchange(client, accepted)
        for call in (mptcpapi.add, mptcpapi.remove):
            with pytest.raises(OSError) as caught:
                call(client, client.getsockname()[0])
            refused(caught)
        exchange(client, accepted)


def test_a_listener():
    with pytest.raises(OSError) as caught:
        mptcpapi.create_server((SERVER, 0), local_addresses=[A])
    refused(caught)


def test_local_addresses_are_a_promise():
    with listener() as server, pytest.raises(OSError) as caught:
        mptcpapi.create_connection(server.getsockname(), 5, local_addresses=[A, B])
    refused(caught)


def test_wrong_addresses_come_first():
    with mptcpapi.mptcp_socket() as sock, pytest.raises(OSError) as caught:
        mptcpapi.add(sock, "0.0.0.0")
    assert caught.value.errno == errno.EINVAL
