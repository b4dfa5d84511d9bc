"""Counters of a run, as a line and as a table."""

from __future__ import annotations

import asyncio
import io
from collections import Counter

from rich.console import Console

from harness.progress import RECENT, Progress, shown
from harness.saying import duration
from tests.virtual_time import in_virtual_time


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
        await asyncio.sleep(0)
    assert "[bold]x" in stream.getvalue()
    assert "50/100 items" in stream.getvalue()


def test_what_waits_is_told_apart() -> None:
    """Requests that wait for the budget are not in flight."""
    progress = halfway()
    progress.in_flight, progress.waits = 32, lambda: 29
    assert "3 in flight, 29 waiting" in progress.line()
    assert (progress.so_far()["in_flight"], progress.so_far()["waiting"]) == (3, 29)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_outage_does_not_weigh_on_the_pace_for_ever() -> None:
    """The pace is that of late: the same before an hour of nothing and after it; in it none is promised."""
    clock = Clock()
    progress = Progress("mine", 100_000, clock=clock)
    progress.sending()

    def pass_by(seconds: int, a_second: int) -> None:
        for _ in range(seconds):
            clock.now += 1
            progress.requests_done += a_second
            progress.items_done += a_second
            progress.rate()

    pass_by(600, 10)
    assert (progress.rate(), progress.seconds_left()) == (10.0, 9400.0)
    progress.message = "down"
    pass_by(3600, 0)
    assert (progress.rate(), progress.seconds_left()) == (0.0, None)
    progress.message = ""
    pass_by(int(RECENT) + 5, 10)
    assert progress.rate() == 10.0
    assert progress.seconds_left() == (100_000 - progress.items_done) / 10
    assert len(progress.marks) < 100


def test_the_time_left_knows_the_budget() -> None:
    """What a burst at the start promises the budget does not keep; what others of its account are still to
    send takes their part of it, as far as they go on beside this one."""
    one, small, large = halfway(), halfway(), halfway()
    assert one.seconds_left() == 10.0  # 200 requests are left, at 20 a second
    one.fastest = lambda: 2.0
    assert one.seconds_left() == 100.0
    small.requests_done, small.items_done = 100, 75  # a third of 100 is left
    large.requests_done = 4000
    one.sharers = [one, small, large]
    assert round(one.seconds_left() or 0) == round((200 + 100 / 3 + 200) / 2)
    one.fastest = lambda: None
    assert one.seconds_left() == 10.0


def test_lines_grow_rare_in_the_night() -> None:
    """Without a terminal there is a line every ten seconds, and after ten minutes one a minute."""
    stream = io.StringIO()

    async def work() -> None:
        async with shown([Progress("mine", 100)], Console(file=stream)):
            await asyncio.sleep(600 + 1800 + 5)

    in_virtual_time(work())
    assert stream.getvalue().count("mine: 0/100 items") == 60 + 30
