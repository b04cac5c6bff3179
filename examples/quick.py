#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""quick.py SERVER PORT LOCAL LOCAL: one connection over two addresses of this host."""

import sys
import time

import mptcpapi

server, port, *local = sys.argv[1:]

# Multipath, from these addresses and no others.
sock = mptcpapi.mptcp_socket()
mptcpapi.add(sock, local)
mptcpapi.connect(sock, (server, int(port)))
sock.sendall(b"hello\n")

# The second subflow follows when the first has carried data.
for _ in range(20):
    paths = mptcpapi.subflows(sock)
    if len(paths) == 2:
        break
    time.sleep(0.05)
for path in paths:
    print("subflow from", path.local.ip)
