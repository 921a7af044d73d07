"""What holds for every test: soak runs only when asked for, and what was skipped is told at the end.

Tests that make up their input (hypothesis) make up the same each time, so that one commit has one
verdict; `make fuzz` searches on, with the profile `search`.
"""

from __future__ import annotations

import signal
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is.
settings.register_profile(
    "search",
    deadline=None,
    database=None,
    derandomize=False,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("tests", settings.get_profile("search"), derandomize=True)
settings.load_profile("tests")


def pytest_configure() -> None:
    """Ctrl+C works in all that the tests start, also where they are a script's background job: such
    a job ignores SIGINT, which is handed down, and what ignores it is not interrupted."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave the long runs out unless `-m` speaks of them (`make soak` does)."""
    if "soak" in (config.getoption("markexpr") or ""):
        return
    long_runs = [item for item in items if item.get_closest_marker("soak")]
    if long_runs:
        items[:] = [item for item in items if not item.get_closest_marker("soak")]
        config.hook.pytest_deselected(items=long_runs)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """List what could not run here, so that a green line never hides a missing program."""
    reasons = Counter(
        (report.nodeid.split("[")[0], _reason(report))
        for report in terminalreporter.stats.get("skipped", [])
    )
    if reasons:
        terminalreporter.write_line("")
        terminalreporter.write_line("skipped here:")
        for (where, reason), times in sorted(reasons.items()):
            terminalreporter.write_line(f"  {where} ({times}): {reason}")


def _reason(report: pytest.TestReport) -> str:
    text = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return text.removeprefix("Skipped: ")
