#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""log.py PORT

An echo server that says on standard output which subflows its connections have,
when they come and when they go.
"""

import os
import socket
import sys
import threading
import time

import mptcpapi
from mptcpapi import EventKind

WORDS = {
    EventKind.UP: "up",
    EventKind.DOWN: "down",
    EventKind.SUBFLOW_UP: "subflow up",
    EventKind.SUBFLOW_DOWN: "subflow down",
    EventKind.FALLBACK: "plain TCP from now on",
    EventKind.OVERFLOW: "events were lost",
}


def line(event: mptcpapi.Event) -> None:
    """Log one event."""
    if event.what not in WORDS:
        return
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    path = f" {event.subflow.local} <- {event.subflow.remote}" if event.subflow else ""
    why = f": {os.strerror(event.error)}" if event.error else ""
    print(f"{now} {event.connid:08x} {WORDS[event.what]}{path}{why}", flush=True)


def watch(listener: socket.socket, events: mptcpapi.Events) -> None:
    """Log what happens to all that the listener accepts, until it is closed."""
    while True:
        try:
            with events:
                for event in events:
                    line(event)
            return
        except OSError as error:
            print("events:", error, file=sys.stderr)
        # The broker was restarted: those that come from now on are told of.
        while True:
            try:
                events = mptcpapi.Events(listener)
                break
            except OSError:
                time.sleep(1)


def echo(client: socket.socket) -> None:
    """Give back what comes."""
    with client:
        try:
            while data := client.recv(1 << 16):
                client.sendall(data)
        except OSError as error:
            print("client:", error, file=sys.stderr)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with mptcpapi.create_server(("", int(sys.argv[1]))) as listener:
        events = mptcpapi.Events(listener)
        threading.Thread(target=watch, args=(listener, events), daemon=True).start()
        print("listening on port", sys.argv[1], flush=True)
        while True:
            client, _ = listener.accept()
            threading.Thread(target=echo, args=(client,), daemon=True).start()


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"log.py: {error}")
