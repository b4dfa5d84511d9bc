"""How far a run is: counters that the run fills and a person can read.

On a terminal a table that stays in place; elsewhere a plain line every so often, less often once it has gone
on for long. The clock is an argument.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.events import Field
from harness.saying import duration
from harness.terminal import say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rich.console import Console
    from rich.table import Table

PLAIN_SECONDS = 10.0
SETTLED = 600.0
"""Seconds after which nobody sits before it any more: a line a minute is enough for a night."""
SETTLED_SECONDS = 60.0
LIVE_SECONDS = 0.25
RECENT = 120.0
"""Seconds over which a pace is taken: an hour's outage does not weigh on it for the rest of the night."""
MARKS = 60
"""Of these, so many moments are remembered."""


@dataclass(slots=True)
class Progress:
    """The counters of one endpoint."""

    label: str
    items_total: int
    clock: Callable[[], float] = time.monotonic
    items_done: int = 0
    items_unscored: int = 0
    unscorable: Counter[str] = field(default_factory=Counter)
    """Those of them that no further session can score, by reason."""
    requests_done: int = 0
    """Answered or failed for good in this session, committed."""
    requests_reused: int = 0
    """Answered already: in an earlier session, or by an equal request of this one."""
    choices_read: int = 0
    """Choices that were read off the reply to another request, committed."""
    in_flight: int = 0
    """Those that were given to the client; some may wait there."""
    waits: Callable[[], int] = lambda: 0
    """How many of these wait: for the budget, to be tried again, in an outage."""
    fastest: Callable[[], float | None] = lambda: None
    """Requests a second that the budget allows at most, for all that share it; None: no limit."""
    sharers: Sequence[Progress] = ()
    """Endpoints that share the budget, this one among them."""
    retries: Counter[str] = field(default_factory=Counter)
    """By reason: "429", "timeout", ..."""
    shifted: int = 0
    """Items done whose token boundary moved."""
    truncated: int = 0
    """Items done whose context was cut on the left."""
    message: str = ""
    """What the endpoint's state is, where it is not simply going on."""
    started: float | None = None
    """When the first request was sent."""
    marks: deque[tuple[float, int]] = field(default_factory=deque)
    """Moments of the last while, and how many requests were done by then."""

    @property
    def may_still_be_scored(self) -> bool:
        """Whether items are left that another session would try: not done, or failed by the endpoint."""
        return self.items_done < self.items_total or self.items_unscored > self.unscorable.total()

    def begun(self) -> None:
        """The first request leaves, or another one."""
        if self.started is None:
            self.started = self.clock()
            self.marks.append((self.started, 0))

    def sending(self) -> None:
        """A request leaves."""
        self.begun()
        self.in_flight += 1

    def count(self, requests: int) -> None:
        """Requests have been answered, or have failed for good, and that is on disk."""
        self.requests_done += requests

    def rate(self) -> float:
        """Requests a second, lately; counted from the first that was sent."""
        if self.started is None:
            return 0.0
        now, marks = self.clock(), self.marks
        while len(marks) > 1 and marks[1][0] <= now - RECENT:
            marks.popleft()
        (begun, before), newest = marks[0], marks[-1][0]
        if now >= newest + RECENT / MARKS:
            marks.append((now, self.requests_done))
        return (self.requests_done - before) / (now - begun) if now > begun else 0.0

    def requests_left(self) -> float | None:
        """How many are still to be sent, as far as those before tell; None where nothing is known yet."""
        if not self.items_done:
            return None
        seen = self.requests_done + self.requests_reused
        return (self.items_total - self.items_done) * seen / self.items_done

    def seconds_left(self) -> float | None:
        """Time left at the pace of late, no less than the budget takes; None where nothing is known."""
        left, rate = self.requests_left(), self.rate()
        if left is None or not rate or self.message:
            return None
        return max(left / rate, self._budgeted(left))

    def _budgeted(self, left: float) -> float:
        """Seconds that the budget makes so many requests take, while others get as many each."""
        fastest = self.fastest()
        if not fastest:
            return 0.0
        of_others = (other.requests_left() for other in self.sharers if other is not self)
        return (left + sum(min(left, other) for other in of_others if other is not None)) / fastest

    def so_far(self) -> dict[str, Field]:
        """What programs are told of it: times in seconds."""
        left, waiting = self.seconds_left(), self.waits()
        return {
            "items": self.items_total,
            "items_done": self.items_done,
            "items_unscored": self.items_unscored,
            "requests_done": self.requests_done,
            "requests_reused": self.requests_reused,
            "requests_a_second": round(self.rate(), 2),
            "in_flight": max(0, self.in_flight - waiting),  # beside the pool's own, others may wait
            "waiting": waiting,
            "seconds_left": None if left is None else round(left),
            "state": self.message,
        }

    def line(self) -> str:
        """One plain line."""
        parts = [
            f"{self.label}: {self.items_done:,}/{self.items_total:,} items",
            f"{self.requests_done:,} requests ({self.rate():,.0f}/s)",
            self.under_way(),
        ]
        if self.requests_reused:
            parts.append(f"{self.requests_reused:,} answered already")
        if self.retries:
            parts.append(f"retries {retries_text(self.retries)}")
        if self.items_unscored:
            parts.append(f"{self.items_unscored:,} unscored")
        left = self.seconds_left()
        if left is not None and self.items_done < self.items_total:
            parts.append(f"{duration(left)} left")
        return ", ".join(parts) + (f"; {self.message}" if self.message else "")

    def under_way(self) -> str:
        """Requests on their way, and apart from them those that wait before it."""
        waiting = self.waits()
        return f"{max(0, self.in_flight - waiting)} in flight" + (f", {waiting} waiting" if waiting else "")


def retries_text(retries: Counter[str]) -> str:
    """Retries by reason, in stable order."""
    return " ".join(f"{reason}×{count:,}" for reason, count in sorted(retries.items()))


@asynccontextmanager
async def shown(counters: Sequence[Progress], console: Console) -> AsyncIterator[None]:
    """Show the counters while the body runs, on a terminal in place, elsewhere as plain lines."""
    if console.is_terminal:
        showing = asyncio.create_task(_live(counters, console))
    else:
        showing = asyncio.create_task(_plain(counters, console))
    try:
        yield
    finally:
        showing.cancel()
        await asyncio.gather(showing, return_exceptions=True)


async def _plain(counters: Sequence[Progress], console: Console) -> None:
    clock = asyncio.get_running_loop().time
    begun = clock()
    while True:
        await asyncio.sleep(PLAIN_SECONDS if clock() - begun < SETTLED else SETTLED_SECONDS)
        for each in counters:
            say(console, each.line())


async def _live(counters: Sequence[Progress], console: Console) -> None:
    from rich.live import Live

    with Live(_table(counters), console=console, auto_refresh=False, transient=True) as live:
        while True:
            live.update(_table(counters), refresh=True)
            await asyncio.sleep(LIVE_SECONDS)


def _table(counters: Sequence[Progress]) -> Table:
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2))
    for each in counters:
        left = each.seconds_left()
        table.add_row(
            Text(each.label, style="bold"),
            ProgressBar(total=each.items_total or 1, completed=each.items_done, width=24),
            f"{each.items_done:,}/{each.items_total:,} items",
            f"{each.rate():,.0f} req/s",
            each.under_way(),
            f"{duration(left)} left" if left is not None else "",
            Text(_troubles(each), style="yellow"),
        )
    return table


def _troubles(each: Progress) -> str:
    parts = [f"retries {retries_text(each.retries)}"] if each.retries else []
    if each.items_unscored:
        parts.append(f"{each.items_unscored:,} unscored")
    return ", ".join(parts + ([each.message] if each.message else []))
