#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""interactive.py SERVER PORT LOCAL...

Sends each line of standard input to an echo server and says how long the answer
took, and by which of these local addresses it went: the quickest carries the
session, the others stand by.
"""

import socket
import sys
import time

import mptcpapi


def path(sock: socket.socket) -> str:
    """Tell which path carries data: the one that isn't for backup."""
    for path in mptcpapi.all_stats(sock).subflows:
        if not path.subflow.backup:
            return str(path.subflow.local)
    return "none"


def main() -> None:
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    server, port, *local = sys.argv[1:]
    with mptcpapi.mptcp_socket() as sock:
        try:
            mptcpapi.add(sock, local)
            mptcpapi.set_profile(sock, mptcpapi.Profile.INTERACTIVE)
        except OSError as error:
            print("by whatever path:", error.strerror, file=sys.stderr)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        mptcpapi.connect(sock, (server, int(port)))

        for line in sys.stdin.buffer:
            start = time.monotonic()
            sock.sendall(line)
            missing = len(line)
            while missing:
                answer = sock.recv(missing)
                if not answer:
                    sys.exit("the server closed the connection")
                missing -= len(answer)
            took = (time.monotonic() - start) * 1000
            print(f"{took:.1f} ms by {path(sock)}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"interactive.py: {error}")
