# SPDX-License-Identifier: MIT OR Apache-2.0
"""Loading the C library, and failing to."""

import subprocess
import sys

import pytest

from helper import environment

pytestmark = pytest.mark.mode("any")


def import_with(library):
    return subprocess.run(
        [
            sys.executable,
            "-c",
            "try:\n import mptcpapi\nexcept ImportError as e:\n print(e.name, '|', e)\n",
        ],
        env=environment(MPTCPAPI_LIBRARY=library),
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_a_missing_library_is_an_import_error():
    done = import_with("/nonexistent/libmptcpapi.so.0")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mptcpapi | ")
    for word in ("libmptcpapi.so.0", "/nonexistent", "MPTCPAPI_LIBRARY"):
        assert word in done.stdout


def test_another_library_is_an_import_error():
    done = import_with("libc.so.6")
    assert done.returncode == 0, done.stderr
    assert "has no function mptcp_" in done.stdout


def test_asyncio_is_not_imported_needlessly():
    code = "import sys, mptcpapi; sys.exit('asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), timeout=30)
    assert done.returncode == 0
