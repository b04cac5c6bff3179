# SPDX-License-Identifier: MIT OR Apache-2.0
"""Picks the tests that fit where pytest runs, and bounds each in time."""

from __future__ import annotations

import faulthandler
import signal
from typing import Any, Iterator, List

import pytest

from helper import MODE

LIMIT = 60  # seconds for one test


def pytest_report_header() -> str:
    return f"mptcpapi: mode {MODE}"


def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Item]) -> None:
    # Deselected, not skipped: tests/run starts every mode.
    chosen, others = [], []
    for item in items:
        mark = item.get_closest_marker("mode")
        modes = mark.args if mark else ("kernel",)
        # By the broker an ordinary user can what else takes privilege.
        privileged = MODE.removesuffix(" by the broker")
        fits = privileged in modes or ("any" in modes and MODE in ("kernel", "outside"))
        (chosen if fits else others).append(item)
    items[:] = chosen
    config.hook.pytest_deselected(items=others)


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    def late(number: int, frame: Any) -> None:
        pytest.fail(f"not done within {LIMIT} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, LIMIT)
    # For a call that no signal ends.
    faulthandler.dump_traceback_later(LIMIT + 30, exit=True)
    yield
    faulthandler.cancel_dump_traceback_later()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
