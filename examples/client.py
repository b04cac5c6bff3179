#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""client.py SERVER PORT BYTES LOCAL...

Sends random bytes to an echo server from these local addresses and no others,
and checks what comes back. "add ADDRESS" and "remove ADDRESS", lines on
standard input, change the addresses meanwhile.
"""

from __future__ import annotations

import hashlib
import os
import socket
import sys
import threading

import mptcpapi


def send(sock: socket.socket, count: int, digest: hashlib._Hash) -> None:
    """Send random bytes."""
    while count:
        data = os.urandom(min(count, 1 << 16))
        digest.update(data)
        sock.sendall(data)
        count -= len(data)


def obey(sock: socket.socket) -> None:
    """Change the connection's addresses as standard input says."""
    for line in sys.stdin:
        try:
            verb, address = line.split()
            {"add": mptcpapi.add, "remove": mptcpapi.remove}[verb](sock, address)
        except (OSError, ValueError, KeyError) as error:
            print(f"{line.strip()}: {error}", file=sys.stderr)


def list_subflows(sock: socket.socket, before: int) -> int:
    """List the subflows if their number has changed."""
    paths = mptcpapi.subflows(sock)
    if len(paths) != before:
        for number, path in enumerate(paths, 1):
            print(f"subflow {number} of {len(paths)}: {path.local} -> {path.remote}", flush=True)
    return len(paths)


def main() -> int:
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    server, port, count, *local = sys.argv[1:]
    missing = int(count)
    sent, back = hashlib.sha256(), hashlib.sha256()
    with mptcpapi.create_connection((server, int(port)), local_addresses=local) as sock:
        threading.Thread(target=send, args=(sock, missing, sent), daemon=True).start()
        threading.Thread(target=obey, args=(sock,), daemon=True).start()
        paths = 0
        while missing:
            paths = list_subflows(sock, paths)
            data = sock.recv(1 << 16)
            if not data:
                sys.exit("the server closed the connection")
            back.update(data)
            missing -= len(data)
        list_subflows(sock, 0)
    print("sent     sha256", sent.hexdigest())
    print("received sha256", back.hexdigest())
    return sent.digest() != back.digest()


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as error:
        sys.exit(f"client.py: {error}")
