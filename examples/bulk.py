#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""bulk.py SERVER PORT LOCAL...

Downloads to standard output by all of these local addresses at once, and says on
standard error what each path brought. A server for it is
`server PORT source BYTES`.
"""

import sys

import mptcpapi


def main() -> None:
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    server, port, *local = sys.argv[1:]
    with mptcpapi.mptcp_socket() as sock:
        # All paths at once is what a connection does by itself. Where nobody may
        # choose paths for us it is one path, as for everybody else.
        try:
            mptcpapi.add(sock, local)
        except OSError as error:
            print("by one path:", error.strerror, file=sys.stderr)
        mptcpapi.connect(sock, (server, int(port)))

        while data := sock.recv(1 << 16):
            sys.stdout.buffer.write(data)
            mptcpapi.subflows(sock)  # without mptcpapid the library acts in calls like this one
        sys.stdout.buffer.flush()
        # The stream has ended, but its subflows are there until the socket is closed.
        for path in mptcpapi.all_stats(sock).subflows:
            share = (path.share_received_ppm or 0) / 10000
            print(f"{path.subflow.local} -> {path.subflow.remote}: {share:.1f} %", file=sys.stderr)


if __name__ == "__main__":
    try:
        main()
    except (OSError, ValueError) as error:
        sys.exit(f"bulk.py: {error}")
