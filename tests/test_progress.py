"""Counters of a run, as a line and as a table."""

from __future__ import annotations

import io
from collections import Counter

from rich.console import Console

from harness.progress import Progress, shown
from harness.saying import duration


def halfway() -> Progress:
    """An endpoint that has done 50 of 100 items, 200 requests in 10 seconds."""
    now = iter([0.0, *[10.0] * 20])
    progress = Progress("mine", 100, clock=lambda: next(now))
    progress.sending()
    progress.items_done, progress.requests_done = 50, 200
    return progress


def test_a_line_says_it_all() -> None:
    """Items, requests, pace, what is in flight, retries by kind, unscored items and the time left."""
    progress = halfway()
    progress.items_unscored, progress.requests_reused = 2, 40
    progress.retries = Counter({"timeout": 1, "429": 3})
    assert progress.line() == (
        "mine: 50/100 items, 200 requests (20/s), 1 in flight, 40 answered already, retries 429×3 timeout×1,"
        " 2 unscored, 12 s left"
    )


def test_nothing_is_promised_before_anything_is_known() -> None:
    """Without a finished item there is no rate and no time left."""
    progress = Progress("mine", 100)
    assert progress.seconds_left() is None
    assert progress.line() == "mine: 0/100 items, 0 requests (0/s), 0 in flight"


def test_durations() -> None:
    """Seconds are said as people say them."""
    assert [duration(s) for s in (0.4, 89, 91, 3600 * 2 + 300)] == ["0 s", "89 s", "2 min", "2 h 05 min"]


async def test_a_terminal_gets_a_table_in_place() -> None:
    """On a terminal the counters are drawn at once, hostile labels as they are."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=140)
    progress = halfway()
    progress.label = "[bold]x"
    async with shown([progress], console):
        import asyncio

        await asyncio.sleep(0)
    assert "[bold]x" in stream.getvalue()
    assert "50/100 items" in stream.getvalue()
