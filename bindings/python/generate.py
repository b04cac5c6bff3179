#!/usr/bin/env python3
# SPDX-License-Identifier: MIT OR Apache-2.0
"""Write mptcpapi/_constants.py from the C header include/mptcp.h.

    generate.py [--header FILE] [--check]

--check writes nothing and exits 1 when the committed file differs from what
the header says.
"""

from __future__ import annotations

import argparse
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
HEADER = HERE.parent.parent / "include" / "mptcp.h"
OUTPUT = HERE / "mptcpapi" / "_constants.py"

MACRO = re.compile(r"\s*#\s*define\s+((?:MPTCP|MPTCPAPI|TCP_MULTIPATH)_[A-Z0-9_]+)\s+(\S.*?)\s*")

# The families of constants that Python programs prefer as enumerations:
# (prefix in the header, class, base class, what it is).
ENUMS = (
    ("MPTCP_CAP_", "Capability", "enum.IntFlag", "What may work: Capabilities.works and .known."),
    ("MPTCP_SUBFLOW_", "SubflowFlag", "enum.IntFlag", "The bits of Subflow.flags."),
    ("MPTCP_CONN_", "ConnectionFlag", "enum.IntFlag", "The bits of ConnectionStats.flags."),
    ("MPTCP_EV_", "EventKind", "enum.IntFlag", "What happened: Event.what, and a mask for Events."),
    ("MPTCP_ORIGIN_", "Origin", "OpenIntEnum", "Who was the cause of an event."),
    ("MPTCP_PROFILE_", "Profile", "OpenIntEnum", "What a connection is for."),
    ("MPTCP_PATHS_", "PathMode", "OpenIntEnum", "When further subflows are made: PathPolicy.mode."),
    ("MPTCP_REDUNDANCY_", "Redundancy", "OpenIntEnum", "What is sent on more than one path."),
    ("MPTCP_BACKEND_", "Backend", "OpenIntEnum", "Who controls paths for this process."),
    ("MPTCP_CONTROL_", "Control", "OpenIntEnum", "Who chooses the paths of one socket."),
)

PREAMBLE = '''\
# SPDX-License-Identifier: MIT OR Apache-2.0
# Written by generate.py from include/mptcp.h. Do not edit.
"""The constants of mptcp.h, under their C names, and as enumerations."""

import enum
from typing import Final, Optional


class OpenIntEnum(enum.IntEnum):
    """An IntEnum that also holds values this version has no name for."""

    @classmethod
    def _missing_(cls, value: object) -> "Optional[OpenIntEnum]":
        if not isinstance(value, int):
            return None
        member = int.__new__(cls, value)
        member._name_ = f"UNKNOWN_{value}"
        member._value_ = value
        return member


'''


def parse(text: str) -> list[tuple[str, str]]:
    """Give (name, Python literal) for each constant, in the header's order."""
    text = re.sub(r"/\*.*?\*/", " ", text, flags=re.DOTALL)
    found = []
    for line in text.splitlines():
        macro = MACRO.fullmatch(line)
        if not macro:
            continue
        name, value = macro.groups()
        number = re.fullmatch(r"(0[xX][0-9a-fA-F]+|0|[1-9][0-9]*)[uUlL]*", value)
        if number:
            found.append((name, number[1]))
        elif re.fullmatch(r'"[^"\\]*"', value):
            found.append((name, value))
        else:
            sys.exit(f"generate.py: {name}: neither a number nor a string: {value}")
    return found


def generate(text: str) -> str:
    """Give the text of _constants.py."""
    constants = parse(text)
    if not constants:
        sys.exit("generate.py: no constants in the header")
    out = [PREAMBLE]
    for name, value in constants:
        kind = "str" if value.startswith('"') else "int"
        out.append(f"{name}: Final[{kind}] = {value}\n")
    names = [name for name, _ in constants]
    number = int(dict(constants)["MPTCPAPI_VERSION_NUMBER"], 0)
    version = f"{number >> 16}.{number >> 8 & 0xFF}.{number & 0xFF}"
    out.append(f'\n# What the packaging reads.\n__version__: Final[str] = "{version}"\n')
    for prefix, title, base, words in ENUMS:
        members = [name for name in names if name.startswith(prefix)]
        if not members:
            sys.exit(f"generate.py: nothing in the header begins with {prefix}")
        out.append(f'\n\nclass {title}({base}):\n    """{words}"""\n\n')
        out += [f"    {name[len(prefix):]} = {name}\n" for name in members]
        names.append(title)
    out.append("\n\n__all__ = [\n")
    out += [f'    "{name}",\n' for name in names]
    out.append("]\n")
    return "".join(out)


def main() -> int:
    parser = argparse.ArgumentParser(description="Write mptcpapi/_constants.py from mptcp.h.")
    parser.add_argument("--header", type=pathlib.Path, default=HEADER)
    parser.add_argument("--check", action="store_true", help="only tell whether it is current")
    options = parser.parse_args()
    text = generate(options.header.read_text(encoding="utf-8"))
    if options.check:
        if not OUTPUT.exists() or OUTPUT.read_text(encoding="utf-8") != text:
            print(f"{OUTPUT.name} differs from {options.header}: run generate.py", file=sys.stderr)
            return 1
        return 0
    OUTPUT.write_text(text, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
