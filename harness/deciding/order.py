"""The items of a run in a random order, as prompts: what files hold in their own order is read several times.

Memory follows the chunk that is being read and some numbers an item, not the prompts of the suite.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.comparison.ordering import random_order, shares, waiting_time
from harness.comparison.paired import Floats, Integers
from harness.items import BadItem
from harness.prompts import Prompt
from harness.scoring.metrics import METRICS
from harness.suite import Suite

FIRST = 512
"""Items of the first chunk; each is twice as large as the one before, as long as that spares passes."""
LARGEST = 4096
"""Items of a chunk, at most: some tens of megabytes."""
PASSES = 32
"""Or, of a large suite, as many items as make so many passes."""
KEPT = 2
"""Chunks that are kept: endpoints go side by side, and one may still be in the chunk before."""

Numbered = tuple[int, Prompt | BadItem]
"""A prompt with its ordinal."""


@dataclass(frozen=True, slots=True)
class Order:
    """Which item comes when. A *turn* is a position in the order."""

    suite: Suite
    ordinals: Integers
    """By turn."""
    places: Integers
    """By turn: number of the task, number of the subject, index; shape (items, 3)."""
    subjects: Sequence[str]
    """By number."""
    shares: Floats
    """By turn, of the items that are compared; the turns of all others, of bad rows, come after theirs."""
    turns: Integers
    """By ordinal."""

    @property
    def compared(self) -> int:
        """How many items are compared."""
        return len(self.shares)

    def prompts(self, start: int, stop: int) -> list[Numbered]:
        """The prompts of these turns, in their order; reads the rows of their tasks once."""
        chosen: defaultdict[int, defaultdict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
        turns: dict[tuple[str, str, int], int] = {}
        for turn, (task, subject, index) in enumerate(self.places[start:stop].tolist(), start):
            chosen[task][self.subjects[subject]].add(index)
            turns[self.suite.tasks[task].task.name, self.subjects[subject], index] = turn
        found: dict[int, Numbered] = {}
        for task, of_task in chosen.items():
            for prompt in replace(self.suite.tasks[task], chosen=of_task).prompts():
                item = prompt if isinstance(prompt, BadItem) else prompt.item
                turn = turns[item.task, item.subject, item.index]
                found[turn] = int(self.ordinals[turn]), prompt
        return [found[turn] for turn in sorted(found)]


def order_of(suite: Suite, seed: int) -> Order:
    """The order in which a suite is asked with this seed; no row is read."""
    tasks = {task.task.name: at for at, task in enumerate(suite.tasks)}
    headlines = {task.task.name: METRICS[task.task.metrics[0]] for task in suite.tasks}
    subjects: dict[str, int] = {}
    ordinals, places, times, compared = array("q"), array("q"), array("d"), array("b")
    for each in suite.listing:
        ordinals.append(each.ordinal)
        number = subjects.setdefault(each.subject, len(subjects))
        places.extend((tasks[each.task], number, each.index))
        times.append(waiting_time(seed, each.task, each.subject, each.index))
        compared.append(not each.problem and headlines[each.task].applies(each))
    whole = np.array(ordinals, np.int64), np.array(places, np.int64).reshape(-1, 3)
    asked, others = np.flatnonzero(compared), np.flatnonzero(np.logical_not(compared))
    weights = shares(whole[1][asked, 0].tolist())
    drawn = random_order(np.array(times)[asked], weights)
    order = np.concatenate([asked[drawn], others])
    turns = np.empty(len(order), np.int64)
    turns[whole[0][order]] = np.arange(len(order))
    return Order(suite, whole[0][order], whole[1][order], list(subjects), weights[drawn], turns)


class Chunks:
    """The prompts of an order, read chunk by chunk for all endpoints together. For any thread."""

    def __init__(self, order: Order) -> None:
        """Nothing is read yet."""
        self._order = order
        self._lock = threading.Lock()
        self._ends = list(_ends(len(order.ordinals)))
        self._read: dict[int, list[Numbered]] = {}

    def prompts(self, start: int, stop: int) -> list[Numbered]:
        """The prompts of these turns, or fewer, where a chunk ends before."""
        with self._lock:
            at = bisect_right(self._ends, start)
            first, last = self._ends[at - 1] if at else 0, self._ends[at]
            if at not in self._read:
                for old in sorted(self._read)[: len(self._read) - KEPT + 1]:
                    del self._read[old]
                self._read[at] = self._order.prompts(first, last)
            return self._read[at][start - first : stop - first]


def _ends(items: int) -> Iterator[int]:
    """The turns at which chunks end."""
    size, end = FIRST, 0
    while end < items:
        end = min(items, end + size)
        yield end
        size = min(2 * size, max(LARGEST, items // PASSES))


@dataclass(frozen=True, slots=True)
class OrderedSuite(Suite):
    """A suite that is asked in a random order, and no further than somebody lets it go."""

    chunks: Chunks
    until: Callable[[int], int]
    """Waits until the item of a turn may be asked; up to which turn others may too, or 0: none ever will."""

    def batches(self, size: int) -> Iterator[Sequence[Numbered]]:
        """The prompts in their order, no more than may be asked by now; runs in a planning thread."""
        turn = 0
        while (until := self.until(turn)) > turn:
            batch = self.chunks.prompts(turn, min(until, turn + size))
            turn += len(batch)
            yield batch
