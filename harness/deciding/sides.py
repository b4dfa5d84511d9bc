"""What is known of one endpoint while a run goes on: which items are done, and what their values may be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from harness.comparison.paired import Floats
from harness.deciding.order import Order
from harness.journal import Journal
from harness.scoring.metrics import Metric
from harness.scoring.scores import NOT_TRIED, ItemScore

CHUNK = 1024
"""Items whose scores are read together."""


class Side:
    """One endpoint of a run, turn by turn.

    Attributes:
        done: the turn before which all items are.
        count: items done in this session, in whatever order.
        read: the turn before which values were read.
        gone: it refuses to be asked.
        released: its planning thread is not to wait any more.
        enough: set once it need not be asked any more.
        busy: how many items make as many requests as may be in flight.
    """

    def __init__(self, journal: Journal, order: Order, metrics: Sequence[Metric], *, gone: bool) -> None:
        """Nothing is known yet; `metrics`: the first of each task."""
        self.done = self.count = self.read = 0
        self.gone = gone
        self.released = False
        self.enough = asyncio.Event()
        self.busy: Callable[[], float] = lambda: 0.0
        self._journal = journal
        self._order = order
        self._metrics = metrics
        self._finished = np.zeros(order.compared, np.bool_)
        self._low, self._high = np.zeros(order.compared), np.zeros(order.compared)

    def finish(self, turn: int) -> None:
        """The item of a turn is done, scored or not."""
        if turn < len(self._finished) and not self._finished[turn]:
            self._finished[turn] = True
            self.count += 1
        while self.done < len(self._finished) and self._finished[self.done]:
            self.done += 1

    def asked_before(self) -> int:
        """The turn before which everything was asked by earlier sessions; for a thread, like what follows.

        Raises:
            StoreError: the journal cannot be read.
        """
        for start in range(0, self._order.compared, CHUNK):
            scores = self._scores(start, min(start + CHUNK, self._order.compared))
            self.read = start + len(scores)
            missing = [turn for turn, score in scores.items() if score.unscored == NOT_TRIED]
            if missing:
                return min(missing)
        return self._order.compared

    def values(self, start: int, stop: int) -> tuple[Floats, Floats]:
        """The least and the most that the value of each of these turns may be; all of them are done.

        Raises:
            StoreError: the journal cannot be read.
        """
        for begin in range(self.read, stop, CHUNK):
            self._scores(begin, min(begin + CHUNK, stop))
        self.read = max(self.read, stop)
        return self._low[start:stop], self._high[start:stop]

    def _scores(self, start: int, stop: int) -> Mapping[int, ItemScore]:
        """What came of these turns, by turn; keeps what each item's value may be."""
        self._journal.flush()
        records = self._journal.records_of(self._order.ordinals[start:stop].tolist())
        scores = self._journal.scores_of(records)
        found = {int(self._order.turns[score.record.ordinal]): score for score in scores}
        for turn, score in found.items():
            self._low[turn], self._high[turn] = self._bounds(turn, score)
        return found

    def _bounds(self, turn: int, score: ItemScore) -> tuple[float, float]:
        """The least and the most that an item's value may be, by its task's first metric."""
        metric = self._metrics[self._order.places[turn, 0]]
        if score.unscored or metric.missing(score) or (judged := metric.judge(score)) is None:
            return 0.0, 1.0
        return judged.value, judged.value
