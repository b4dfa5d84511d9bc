"""A large file of one's own: what is read before the first request, and what stays in memory."""

from __future__ import annotations

import asyncio
import io
import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from harness import Item, Row
from harness.choosing.ownitems import OwnForm
from harness.journal import Journal
from harness.planning import BATCH
from harness.prepare import prepare
from harness.runner import evaluate
from harness.runs import PROMPTS_SHOWN
from tests.fake_endpoint import FakeEndpoint
from tests.running import Bench, bench

__all__ = ["bench"]

AHEAD = 3
"""Batches that may be planned before the first reply: handed out, waiting, being made."""


def write(file: Path, count: int) -> Path:
    """So many questions of a kilobyte."""
    passage = " ".join(f"word{at}" for at in range(120))
    with file.open("w", encoding="utf-8") as out:
        for at in range(count):
            row = {
                "context": passage,
                "question": f"Which {at}?",
                "choices": ["this", "that"],
                "answer": at % 2,
            }
            out.write(json.dumps(row) + "\n")
    return file


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Counts the rows that are made items, in its only member."""
    count = [0]
    plain = OwnForm.__call__

    def counting(form: OwnForm, row: Row) -> Item:
        count[0] += 1
        return plain(form, row)

    monkeypatch.setattr(OwnForm, "__call__", counting)
    yield count


async def run_until_asked(bench: Bench, made: list[int], rows: int) -> tuple[int, int]:
    """Rows made items by the check, and then until the first request, which stops the run."""
    stop = asyncio.Event()
    at_first: list[int] = []

    def script(number: int, body: Any) -> None:
        at_first.append(made[0])
        stop.set()

    file = write(bench.folder / f"q{rows}.jsonl", rows)
    async with FakeEndpoint(script) as endpoint:
        made[0] = 0
        settings = bench.settings(f"it={endpoint.base_url}", tasks=f"file:{file}", out=f"run{rows}")
        prepared = prepare(settings, {})
        checked = made[0]
        result = await evaluate(prepared, Console(file=io.StringIO()), stop)
    assert result.accuracy["unscored"].max() + result.accuracy["n"].max() == rows
    return checked, at_first[0] - checked


async def test_the_first_request_waits_for_no_second_reading(bench: Bench, made: list[int]) -> None:
    """Between the check of the rows and the first request no more rows are made items than are planned ahead,
    however long the file is; the tables of a stopped run list all of it all the same."""
    few, many = 4 * BATCH, 20 * BATCH
    checked, until_asked = await run_until_asked(bench, made, few)
    assert checked <= few + 1, "the example and each row once"
    assert until_asked <= PROMPTS_SHOWN + AHEAD * BATCH
    checked, until_asked = await run_until_asked(bench, made, many)
    assert checked <= many + 1
    assert until_asked <= PROMPTS_SHOWN + AHEAD * BATCH


def test_memory_does_not_grow_with_the_file(bench: Bench) -> None:
    """Checking a file, listing its items and making prompts takes no more bytes for four times the rows."""

    def peak(rows: int) -> int:
        """The most bytes that Python objects took at once."""
        file = write(bench.folder / f"q{rows}.jsonl", rows)
        tracemalloc.start()
        prepared = prepare(bench.settings("http://127.0.0.1:9/v1", tasks=f"file:{file}", out=f"r{rows}"), {})
        journal = Journal(bench.folder / f"{rows}.sqlite", meta={})
        assert journal.begin(prepared.suite.listing) == rows
        assert sum(1 for _ in prepared.suite.prompts()) == rows
        journal.close()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(10)  # imports and caches
    small, large = peak(1200), peak(4800)
    assert large < small + 300_000, "bytes, where the file has 3.6 million more"
