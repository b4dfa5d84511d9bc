"""Shards of a prepared suite: which items they hold, and their prompts, each split read as seldom as it
can be."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from math import ceil

from harness.items import BadItem
from harness.prompts import Prompt
from harness.sharding import Piece, Shard, cut
from harness.suite import PreparedTask, Suite

Numbered = tuple[int, Prompt | BadItem]
"""A prompt with its ordinal."""


def pieces_of(suite: Suite, shard: Shard) -> list[Piece]:
    """What shard i of n holds: a piece of every task, so that all shards take about as long."""
    tasks = enumerate(zip(suite.tasks, firsts(suite), _borders(suite), strict=True))
    cuts = (
        (at, cut(task.size, shard.of, breaks=breaks, joined=joined, shift=first)[shard.number - 1])
        for at, (task, first, (breaks, joined)) in tasks
    )
    return [Piece(at, items.start, items.stop) for at, items in cuts if items]


def small_pieces(suite: Suite, items: int) -> list[Piece]:
    """The whole suite in pieces of about so many items, in its order: what workers are handed one by one."""
    return [
        Piece(at, each.start, each.stop)
        for at, (task, (breaks, joined)) in enumerate(zip(suite.tasks, _borders(suite), strict=True))
        for each in cut(task.size, max(1, ceil(task.size / items)), breaks=breaks, joined=joined)
        if each
    ]


def firsts(suite: Suite) -> list[int]:
    """The ordinal of the first item of each task."""
    return list(accumulate((task.size for task in suite.tasks[:-1]), initial=0))


def one_shard(suite: Suite, shard: Shard) -> Suite:
    """The suite of one shard: its items alone, with the ordinals that they have in the whole."""
    pieces = pieces_of(suite, shard)
    starts = firsts(suite)
    ordinals = [range(starts[each.task] + each.start, starts[each.task] + each.stop) for each in pieces]
    return suite.as_kind(ShardSuite, listing=suite.listing.within(ordinals), pieces=tuple(pieces))


@dataclass(frozen=True, slots=True)
class ShardSuite(Suite):
    """Some pieces of a suite; its tasks are still those of the whole."""

    pieces: tuple[Piece, ...]

    def prompts(self) -> Iterator[Numbered]:
        """The prompts of the pieces, with their ordinals in the whole."""
        reader = PieceReader(self)
        for piece in self.pieces:
            yield from reader.prompts(piece)

    @property
    def size(self) -> int:
        """How many items the pieces hold."""
        return sum(map(len, self.pieces))


class PieceReader:
    """Makes the prompts of pieces. A split is read on from where the last piece of its task ended, and from
    its start only for an earlier one. For any thread, one at a time."""

    def __init__(self, suite: Suite, keep: int = 0) -> None:
        """Read nothing yet; the prompts of the last `keep` pieces are kept for others who ask for them."""
        self._tasks = suite.tasks
        self._firsts = firsts(suite)
        self._streams: dict[int, _Stream] = {}
        self._keep = keep
        self._kept: dict[Piece, Sequence[Numbered]] = {}
        self._lock = threading.Lock()

    def prompts(self, piece: Piece) -> Iterable[Numbered]:
        """The prompts of a piece, in order, with their ordinals in the suite."""
        if not self._keep:
            return self._read(piece)
        with self._lock:
            found = self._kept.pop(piece, None)
            if found is None:
                found = list(self._read(piece))
            self._kept[piece] = found  # the last in the dictionary is the one that was asked for last
            while len(self._kept) > self._keep:
                del self._kept[next(iter(self._kept))]
            return found

    def _read(self, piece: Piece) -> Iterator[Numbered]:
        stream = self._streams.get(piece.task)
        if stream is None or stream.at > piece.start:
            stream = self._streams[piece.task] = _Stream(self._tasks[piece.task])
        first = self._firsts[piece.task]
        return ((first + at, prompt) for at, prompt in stream.read(piece))


class _Stream:
    """The prompts of a task, made only for what is wanted.

    Attributes:
        at: the position among the task's items up to which it was read.
    """

    def __init__(self, task: PreparedTask) -> None:
        self.at = 0
        self._wanted = range(0)
        self._prompts = task.prompts(self._is_wanted)

    def _is_wanted(self, position: int) -> bool:
        return position in self._wanted

    def read(self, piece: Piece) -> Iterator[tuple[int, Prompt | BadItem]]:
        """The prompts of a piece that is not before what was read."""
        self._wanted = range(piece.start, piece.stop)
        for at, prompt in zip(self._wanted, islice(self._prompts, len(piece)), strict=True):
            self.at = at + 1
            yield at, prompt


Borders = tuple[list[int], set[int]]
"""Where other shots begin in a task, and which items stay with the one before: positions."""


def _borders(suite: Suite) -> list[Borders]:
    """Where each task may best be cut; reads what is listed, no row."""
    found: dict[str, Borders] = defaultdict(lambda: ([], set()))
    shots = {task.task.name: task.shots for task in suite.tasks}
    last: tuple[str, str, str] = "", "", ""
    position = 0
    for each in suite.listing.places():
        task, subject, cluster = each
        position = position + 1 if task == last[0] else 0
        breaks, joined = found[task]
        if position and shots[task] and subject != last[1]:
            breaks.append(position)
        elif position and cluster and cluster == last[2]:
            joined.add(position)
        last = each
    return [found[task.task.name] for task in suite.tasks]
