# SPDX-License-Identifier: MIT OR Apache-2.0
"""The program in README.md does what it says."""

import re
import threading

import pytest

import mptcpapi
from helper import A, B, C, PACKAGE, listener, receive

pytestmark = pytest.mark.mode("kernel", "userspace")


def test_the_program_in_readme(capsys):
    text = (PACKAGE / "README.md").read_text(encoding="utf-8")
    (program,) = re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S)
    with listener() as server:
        for there, here in (
            ('("server.example", 80)', str(server.getsockname())),
            ('"192.0.2.7"', f'"{A}"'),
            ('"198.51.100.7"', f'"{B}"'),
            ('"203.0.113.7"', f'"{C}"'),
        ):
            assert there in program
            program = program.replace(there, here)
        ended = []

        def serve():
            accepted, _ = server.accept()
            with accepted:
                receive(accepted, len(b"GET / HTTP/1.0\r\n\r\n"))
                accepted.sendall(b"an answer")
                while accepted.recv(1000):
                    pass
                ended.append(True)

        thread = threading.Thread(target=serve)
        thread.start()
        exec(compile(program, "README.md", "exec"), {})
        thread.join(10)
        assert ended == [True]
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == [str(b"an answer"), "MPTCP"]
    assert any(line.startswith(f"{A} -> ") and line.endswith("(first)") for line in lines[2:])
