"""What a pool is given: what it asks, whom, and where what comes of it is kept.

The same pool runs in a process alone and in each worker of a run; what differs is what it is given.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.client import Client
from harness.encoding import EncodedItem
from harness.exchange import Outcome
from harness.forecast import Forecast
from harness.learning import Lesson
from harness.plan import PlannedItem
from harness.planning import Asked
from harness.progress import Progress
from harness.replies import JournalStats
from harness.scoring.scores import ItemRecord
from harness.shortcut import Names
from harness.suite import Suite


class TakesTexts(Protocol):
    """Where planned items are kept as text."""

    def add(self, item: PlannedItem, tokenizer: str) -> None:
        """Keep one item."""


class Keeps(Protocol):
    """Where items and outcomes are kept: the journal, or what stands for it in another process."""

    on_commit: Callable[[Sequence[bytes]], None] | None
    """Called with the keys of outcomes that are on disk, from any thread."""

    def put(self, *outcomes: Outcome) -> None:
        """Take outcomes, to be committed together."""

    def plan(self, records: Sequence[ItemRecord]) -> None:
        """Take items as planned."""

    def answered(self, keys: Sequence[bytes]) -> set[bytes]:
        """Which of these have a reply."""

    def forget(self, keys: Sequence[bytes]) -> None:
        """Drop what is stored under these keys."""

    def note_shortcut(self, evidence: str) -> None:
        """Keep what shows that choices may be read off alternatives."""

    def may_answer(self) -> bool:
        """Whether any reply may be there that this session did not bring."""

    def stats(self) -> JournalStats:
        """Counts over all that is stored."""

    def flush(self) -> None:
        """Return when all that was taken is on disk."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a pool is given."""

    suite: Suite
    asked: Asked
    names: Names | None
    """Of the endpoint's vocabulary, so that choices can be read off alternatives; None: they are not."""
    lesson: Lesson
    """Filled with how that is done, or why it is not."""
    leading: Callable[[], Iterable[EncodedItem]] | None = None
    """Where the suite is a part of one: what the whole would learn that from."""
    interrupt: Callable[[], None] | None = None
    """Ends what the tokenizer waits for, where it is one that waits."""
    journal: Keeps
    client: Client
    progress: Progress
    forecast: Forecast
    """Filled with what is going to be sent."""
    texts: TakesTexts | None = None
    keep: Callable[[Sequence[ItemRecord]], object] | None = None
    """Takes the items as they are planned; None: the journal does."""
    before: Callable[[], Awaitable[object]] | None = None
    """Awaited before anything is sent, each time; what it raises ends the pool."""
    moved: Callable[[], object] | None = None
    """Called when items are done."""
    finished: Callable[[int], object] | None = None
    """Called with the ordinal of each item that is done, once what came of it is on disk."""
    read_before: int = 0
    """Items that count as read off alternatives already."""
    enough: asyncio.Event | None = None
    """Once set, this endpoint alone need not be asked any more: what is in flight ends."""


class Runs(Protocol):
    """What asks an endpoint its items: a pool, or what stands for the pools of other processes."""

    async def run(self) -> None:
        """As `Pool.run`."""
