"""Fixtures for all tests: a clean environment, and the shared material where it is at hand."""

from __future__ import annotations

import gc
import os
import signal
import threading
from collections.abc import Generator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import ledger

# Before numpy is imported: with more threads the small matrices here only wait for one another.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Before anything of the hub is imported: its libraries look at this once, and try for long to reach it.
os.environ["HF_HUB_OFFLINE"] = "1"

LONGEST_TEST, AGAIN = 600.0, 5.0
"""Seconds that a test may take until it is told that it hangs, and after which it is told again: an event
loop swallows what is raised within a callback."""
ROWS = "ledger"
"""Under this a process of several hands its rows over."""

# On a busy machine an example may take any time: that it took long shows nothing.
settings.register_profile(
    "busy", parent=settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy")

LONG = (
    *("test_kills", "test_merging_ways", "test_merging", "test_workers", "test_fuzzing", "test_merging_fold"),
    *("test_broken_folders", "test_reference", "test_reports", "test_flat", "test_openai_text", "test_mixes"),
)
"""Files that take longest are begun first, so that in the end no processor waits for another's."""

SHARED = Path(os.environ.get("FORCED_CHOICE_SHARED", Path(__file__).parents[2] / "shared"))


@pytest.fixture(autouse=True)
def clean_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    """No secret, proxy or hub setting of the person who runs the tests reaches a test."""
    for name in list(os.environ):
        if name.startswith(("FRIENDLI_", "OPENAI_", "HF_", "FORCED_CHOICE_")) or name.lower().endswith(
            "_proxy"
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real items, tokenizers, models and golden records; tests that need it skip without."""
    if not SHARED.is_dir():
        pytest.skip(f"needs the shared test material, not found at {SHARED}")
    return SHARED


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first; else as they were found."""
    items.sort(key=lambda item: LONG.index(item.path.stem) if item.path.stem in LONG else len(LONG))


def pytest_collection_finish() -> None:
    """Thousands of tests and all that they import are never garbage: looking through them each time took as
    long as the slowest test."""
    gc.collect()
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--ledger` renews the table in `tests/README.md`."""
    parser.addoption("--ledger", action="store_true", help="renew the table in tests/README.md")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test that hangs fails, wherever it waits, and its child processes with it."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        return (yield)
    before = signal.signal(signal.SIGALRM, _hangs)
    signal.setitimer(signal.ITIMER_REAL, LONGEST_TEST, AGAIN)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _hangs(*_: object) -> None:
    pytest.fail(f"it hangs: more than {LONGEST_TEST:g} s")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A session that lost something fails; only one that passed is written down.

    Of several processes each hands its rows to the one that gave out the tests, and that one judges.
    """
    if (output := getattr(session.config, "workeroutput", None)) is not None:
        output[ROWS] = {name: astuple(row) for name, row in ledger.noted().items()}
    elif any(row.lost for row in ledger.noted().values()):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    elif exitstatus == pytest.ExitCode.OK and session.config.getoption("--ledger"):
        ledger.write()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """A process has run its tests: take its rows over (a hook of pytest-xdist)."""
    for name, (tried, lost, unit) in getattr(node, "workeroutput", {}).get(ROWS, {}).items():
        ledger.note(name, tried=tried, lost=lost, unit=unit)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what was tried, and what was lost."""
    if rows := ledger.noted():
        terminalreporter.section("tried, and lost")
        for line in ledger.lines(rows):
            terminalreporter.write_line(line)
