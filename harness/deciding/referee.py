"""Who decides, while a run goes on, that enough is asked: of a pair, of an endpoint, of the run.

Items count in their order: what came early of a later turn waits until all before it are done, so that no
endpoint is judged by what it answers fast. A failure is never an answer: an item that could not be scored is
put in at its worst for either side.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from harness.comparison.paired import LEVEL
from harness.comparison.sequential import Sequential, State
from harness.deciding.order import Chunks, Order, OrderedSuite, order_of
from harness.deciding.sides import Side
from harness.events import event
from harness.manifest import EndpointRun
from harness.prepare import Prepared
from harness.scoring.metrics import METRICS
from harness.settings import MARGIN
from harness.work import Work

LOOK_S = 0.1
"""Seconds between two looks at what has come; each takes all items into account one by one."""
AHEAD = 32
"""Items that an endpoint may be ahead of the slowest, at least."""
FULL = 2
"""Or as many as make so many requests for each that may be in flight: enough to keep it busy, few to lose."""
SLACK = 2
"""So many times as far ahead of the first item that is not done: one that is tried again holds up nobody at
once, and one whose turn the prefix cache puts off does not wait for ever."""
STEP = 4
"""One of so many of these is planned at a time, or more."""
POLL_S = 0.2
"""Seconds within which a planning thread that waits sees that the run was stopped."""


@dataclass(frozen=True, slots=True)
class Pair:
    """An endpoint beside the baseline."""

    baseline: str
    endpoint: str
    sequence: Sequential


async def referee_of(prepared: Prepared, parts: Sequence[EndpointRun]) -> Referee:
    """Who stops a run once it is decided; what journals decide already is.

    Raises:
        StoreError: a journal cannot be read.
    """
    settings = prepared.settings
    margin = MARGIN if settings.margin is None else settings.margin
    referee = await asyncio.to_thread(Referee, prepared, parts, margin)
    await referee.look_back()
    return referee


class Referee:
    """Watches the scores of a run's endpoints come in, and stops what is decided.

    Attributes:
        order: of the items.
        pairs: each endpoint but the first, beside the first.
        margin: endpoints that differ by less are as good as equal.
        level: of each pair: all of them together err with a chance of `LEVEL` at most.
    """

    def __init__(self, prepared: Prepared, parts: Sequence[EndpointRun], margin: float) -> None:
        """Reads what is listed; takes a second for a hundred thousand items."""
        self.order: Order = order_of(prepared.suite, prepared.settings.seed)
        self.margin = margin
        baseline, *others = (part.endpoint.label for part in parts)
        self.level = LEVEL / len(others)
        self.pairs = [Pair(baseline, other, self._sequence()) for other in others]
        self._chunks = Chunks(self.order)
        metrics = [METRICS[task.task.metrics[0]] for task in prepared.suite.tasks]
        self._sides = {
            part.endpoint.label: Side(part.journal, self.order, metrics, gone=bool(part.refused))
            for part in parts
        }
        self._changed = threading.Condition()
        self._looking = asyncio.Lock()
        self._moved = asyncio.Event()

    def _sequence(self) -> Sequential:
        return Sequential(self.order.shares, margin=self.margin, level=self.level)

    # ------------------------------------------------------------------------------------- what it is asked

    @property
    def decided(self) -> bool:
        """Whether all pairs are."""
        return all(pair.sequence.decided_at is not None for pair in self.pairs)

    def states(self) -> list[State]:
        """How far each pair has come."""
        return [pair.sequence.state() for pair in self.pairs]

    def turn(self, ordinal: int) -> int:
        """When the item of an ordinal comes."""
        return int(self.order.turns[ordinal])

    def watched(self, work: Work, label: str, stopped: Callable[[], bool]) -> Work:
        """The work of an endpoint's pool, in this order, and no further than is needed.

        Args:
            work: as it is without.
            label: the endpoint's.
            stopped: whether the run was.
        """
        tokenizing = work.interrupt

        def interrupt() -> None:
            self.release(label)
            if tokenizing is not None:
                tokenizing()

        return replace(
            work,
            suite=self._suite(label, lambda: _busy(work), stopped),
            interrupt=interrupt,
            finished=lambda ordinal: self.finished(label, ordinal),
            enough=self._sides[label].enough,
        )

    def _suite(self, label: str, busy: Callable[[], float], stopped: Callable[[], bool]) -> OrderedSuite:
        """The run's suite, as this endpoint is asked it; `busy` as of its side."""
        whole, side = self.order.suite, self._sides[label]
        side.busy = busy

        def until(turn: int) -> int:
            with self._changed:
                while not (side.enough.is_set() or side.released or stopped()):
                    if turn >= len(self.order.ordinals):
                        return 0
                    window, ahead = self._ahead()
                    if ahead - turn >= max(1, window // STEP) or turn < ahead == self.order.compared:
                        return ahead
                    self._changed.wait(POLL_S)
            return 0

        return OrderedSuite(whole.tasks, whole.title, whole.listing, self._chunks, until)

    def _ahead(self) -> tuple[int, int]:
        """By how many items one endpoint may be ahead, and the turn up to which items may be asked by now.

        Those that are not compared come when all others are done.
        """
        needed = [side for side in self._sides.values() if not side.enough.is_set() and not side.gone]
        slowest = min((side.count for side in needed), default=0)
        if slowest >= self.order.compared:
            return 0, len(self.order.ordinals)
        window = max(AHEAD, FULL * math.ceil(max((side.busy() for side in needed), default=0)))
        first = min(side.done for side in needed)
        return window, min(self.order.compared, slowest + window, first + SLACK * window)

    # ---------------------------------------------------------------------------------------- what it is told

    def finished(self, label: str, ordinal: int) -> None:
        """An item is done on an endpoint; to be called in the event loop, like all that follow."""
        with self._changed:
            self._sides[label].finish(int(self.order.turns[ordinal]))
            self._changed.notify_all()
        self._moved.set()

    def release(self, label: str) -> None:
        """The endpoint's planning thread is to end."""
        with self._changed:
            self._sides[label].released = True
            self._changed.notify_all()

    def gone(self, label: str) -> None:
        """The endpoint refuses to be asked: nothing is decided about it any more, and nobody waits for it."""
        with self._changed:
            self._sides[label].gone = True
        self._stop_what_is_decided()

    # ----------------------------------------------------------------------------------------- how it decides

    async def look_back(self) -> None:
        """Decide what earlier sessions' replies decide.

        What they leave open begins anew, as what failed is tried again.

        Raises:
            StoreError: a journal cannot be read.
        """
        await asyncio.to_thread(self._look_back)
        self._stop_what_is_decided()

    def _look_back(self) -> None:
        for side in self._sides.values():
            side.done = side.asked_before()
        for at, pair in enumerate(self.pairs):
            self._take(pair)
            if pair.sequence.decided_at is None:
                self.pairs[at] = Pair(pair.baseline, pair.endpoint, self._sequence())
        for side in self._sides.values():
            side.read = side.done = 0

    @asynccontextmanager
    async def judging(self) -> AsyncIterator[None]:
        """Look at what comes while the block goes on, and once more at its end.

        Raises:
            StoreError: a journal cannot be read.
        """
        looking = asyncio.create_task(self._look_on())
        try:
            yield
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
        await self._look()

    async def _look_on(self) -> None:
        while True:
            await self._moved.wait()
            self._moved.clear()
            await asyncio.shield(self._look())
            await asyncio.sleep(LOOK_S)

    async def _look(self) -> None:
        async with self._looking:  # the look that a cancelled task had begun goes on: nothing is taken twice
            wanted = [pair for pair in self.pairs if pair.sequence.decided_at is None and self._reach(pair)]
            if wanted:
                await asyncio.to_thread(self._take_all, wanted)
                self._stop_what_is_decided()

    def _reach(self, pair: Pair) -> int:
        """How many items more both endpoints have done."""
        ends = self._sides[pair.baseline], self._sides[pair.endpoint]
        return min(side.done for side in ends) - pair.sequence.taken

    def _take_all(self, pairs: Sequence[Pair]) -> None:
        for pair in pairs:
            self._take(pair)

    def _take(self, pair: Pair) -> None:
        """Put in what both endpoints have done; runs in a thread."""
        start = pair.sequence.taken
        stop = start + self._reach(pair)
        least, most = self._sides[pair.baseline].values(start, stop)
        low, high = self._sides[pair.endpoint].values(start, stop)
        pair.sequence.add(low - most, high - least)

    def _stop_what_is_decided(self) -> None:
        open_pairs = [
            pair
            for pair in self.pairs
            if pair.sequence.decided_at is None
            and not (self._sides[pair.baseline].gone or self._sides[pair.endpoint].gone)
        ]
        needed = {label for pair in open_pairs for label in (pair.baseline, pair.endpoint)}
        with self._changed:
            for label, side in self._sides.items():
                if label not in needed and not side.enough.is_set():
                    side.enough.set()
                    event("enough", endpoint=label, items=side.count)
            self._changed.notify_all()


def _busy(work: Work) -> float:
    """Items whose requests are as many as may be in flight, as far as those before tell."""
    progress = work.progress
    sent = progress.requests_done + progress.requests_reused
    of_one = max(1.0, sent / progress.items_done) if progress.items_done else 1.0
    return work.client.gate.level / of_one
