#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""handover.py SERVER PORT LOCAL LOCAL

Uploads standard input by one of two local addresses, with the other as a spare
that takes over when the first fails, and says on standard error what becomes of
the paths. `server PORT sink` is a server for it.
"""

import os
import socket
import sys
import threading

import mptcpapi
from mptcpapi import EventKind


def watch(events: mptcpapi.Events) -> None:
    """Tell what becomes of the paths, until the connection ends."""
    try:
        for event in events:
            path = event.subflow
            if path and event.what == EventKind.SUBFLOW_DOWN:
                print(f"{path.local}: gone", file=sys.stderr, flush=True)
            elif path and event.what in EventKind.UP | EventKind.SUBFLOW_UP | EventKind.PRIORITY:
                print(f"{path.local}: {'spare' if path.backup else 'in use'}", file=sys.stderr, flush=True)
    except OSError as error:
        print("unwatched:", error.strerror, file=sys.stderr, flush=True)


def main() -> None:
    if len(sys.argv) != 5:
        sys.exit(__doc__)
    server, port, *local = sys.argv[1:]
    with mptcpapi.mptcp_socket() as sock:
        try:
            mptcpapi.add(sock, local)
            mptcpapi.set_profile(sock, mptcpapi.Profile.HANDOVER)
            threading.Thread(target=watch, args=(mptcpapi.Events(sock),), daemon=True).start()
        except OSError as error:
            print("without a spare:", error.strerror, file=sys.stderr)
        mptcpapi.connect(sock, (server, int(port)))
        while data := os.read(sys.stdin.fileno(), 1 << 16):
            sock.sendall(data)
        # Until the server has it all, and says so by closing.
        sock.shutdown(socket.SHUT_WR)
        while sock.recv(1 << 16):
            pass


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"handover.py: {error}")
