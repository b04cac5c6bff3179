# SPDX-License-Identifier: MIT OR Apache-2.0
"""The generated constants and the declared functions against the header."""

import re
import subprocess
import sys

import pytest

import mptcpapi
from helper import PACKAGE, ROOT
from mptcpapi import _constants, _native

HEADER = ROOT / "include" / "mptcp.h"

pytestmark = pytest.mark.mode("any")


def generate(*arguments):
    return subprocess.run(
        [sys.executable, str(PACKAGE / "generate.py"), *arguments],
        capture_output=True,
        text=True,
        timeout=30,
    )


def test_constants_are_those_of_the_header():
    done = generate("--check")
    assert done.returncode == 0, done.stderr


def test_drift_is_seen(tmp_path):
    other = tmp_path / "mptcp.h"
    other.write_text(HEADER.read_text() + "\n#define MPTCP_BINDX_MORE 0x80 /* new */\n")
    done = generate("--check", "--header", str(other))
    assert done.returncode == 1
    assert "generate.py" in done.stderr


@pytest.mark.parametrize("value", ["1 << 3", "MPTCP_OTHER", "(-1)"])
def test_what_is_no_literal_is_refused(tmp_path, value):
    other = tmp_path / "mptcp.h"
    other.write_text(HEADER.read_text() + f"\n#define MPTCP_ODD {value}\n")
    done = generate("--check", "--header", str(other))
    assert done.returncode != 0
    assert "MPTCP_ODD" in done.stderr


def test_every_constant_is_exported():
    macros = re.findall(r"^\s*#\s*define\s+(\w+)[ \t]+[0-9\"]", HEADER.read_text(), re.MULTILINE)
    assert len(macros) > 20
    for name in macros:
        assert name in mptcpapi.__all__
        assert getattr(mptcpapi, name) == getattr(_constants, name)
    assert set(mptcpapi.__all__) <= set(dir(mptcpapi))


def test_known_values():
    assert mptcpapi.TCP_MULTIPATH_ENABLE == 0x689701
    assert mptcpapi.TCP_MULTIPATH_CONNID == 0x689705
    assert mptcpapi.SubflowFlag.FALLBACK == mptcpapi.MPTCP_SUBFLOW_FALLBACK == 2
    assert mptcpapi.Capability.ENABLE == 1
    assert mptcpapi.Backend.DIRECT == 2


def test_enumerations_take_values_of_later_versions():
    later = mptcpapi.Backend(9)
    assert later == 9 and isinstance(later, mptcpapi.Backend) and later.name == "UNKNOWN_9"
    assert int(mptcpapi.Capability(1 << 40 | 1)) == 1 << 40 | 1
    with pytest.raises(ValueError):
        mptcpapi.Backend("direct")


def test_functions_are_those_of_the_header():
    text = re.sub(r"/\*.*?\*/", " ", HEADER.read_text(), flags=re.DOTALL)
    found = {
        name: 0 if arguments.strip() == "void" else arguments.count(",") + 1
        for name, arguments in re.findall(r"\b(mptcp_\w+)\s*\(([^()]*)\)\s*;", text)
    }
    for name, (_, arguments) in _native.PROTOTYPES.items():
        assert found[name] == len(arguments), name


def test_version():
    assert re.fullmatch(r"\d+\.\d+\.\d+", mptcpapi.version())
    number = mptcpapi.MPTCPAPI_VERSION_NUMBER
    assert mptcpapi.__version__ == f"{number >> 16}.{number >> 8 & 255}.{number & 255}"
    assert mptcpapi.capabilities().library == tuple(map(int, mptcpapi.version().split(".")))
