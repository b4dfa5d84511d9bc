"""How far a run is: counters that the run fills and a person can read.

On a terminal a table that stays in place; elsewhere a plain line every so often. The clock is an argument.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from harness.saying import duration

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from rich.console import Console
    from rich.table import Table

PLAIN_SECONDS = 10.0
LIVE_SECONDS = 0.25


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
    retries: Counter[str] = field(default_factory=Counter)
    """By reason: "429", "timeout", ..."""
    shifted: int = 0
    """Items whose token boundary moved."""
    truncated: int = 0
    """Items whose context was cut on the left."""
    message: str = ""
    """What the endpoint's state is, where it is not simply going on."""
    started: float | None = None
    """When the first request was sent."""

    @property
    def may_still_be_scored(self) -> bool:
        """Whether items are left that another session would try: not done, or failed by the endpoint."""
        return self.items_done < self.items_total or self.items_unscored > self.unscorable.total()

    def sending(self) -> None:
        """A request leaves."""
        if self.started is None:
            self.started = self.clock()
        self.in_flight += 1

    def rate(self) -> float:
        """Requests a second since the first was sent."""
        seconds = self.clock() - self.started if self.started is not None else 0.0
        return self.requests_done / seconds if seconds > 0 else 0.0

    def seconds_left(self) -> float | None:
        """Time left at the pace so far; None where nothing is known yet."""
        if self.started is None or not self.items_done or not self.requests_done:
            return None
        seen = self.requests_done + self.requests_reused
        left = (self.items_total - self.items_done) * seen / self.items_done
        rate = self.rate()
        return left / rate if rate > 0 else None

    def line(self) -> str:
        """One plain line."""
        parts = [
            f"{self.label}: {self.items_done:,}/{self.items_total:,} items",
            f"{self.requests_done:,} requests ({self.rate():,.0f}/s)",
            f"{self.in_flight} in flight",
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
    while True:
        await asyncio.sleep(PLAIN_SECONDS)
        for each in counters:
            console.out(each.line(), highlight=False)


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
            f"{each.in_flight} in flight",
            f"{duration(left)} left" if left is not None else "",
            Text(_troubles(each), style="yellow"),
        )
    return table


def _troubles(each: Progress) -> str:
    parts = [f"retries {retries_text(each.retries)}"] if each.retries else []
    if each.items_unscored:
        parts.append(f"{each.items_unscored:,} unscored")
    return ", ".join(parts + ([each.message] if each.message else []))
