"""Who works on which piece of a run; pure.

Each endpoint has its own queue of the same pieces, in the order of the suite, so that none waits for another;
a worker that has a piece for one endpoint gets it for the others too where it can, as its texts are at hand.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from heapq import heappop, heappush

from harness.sharding import Piece

RECENT = 16
"""Pieces that a worker is remembered to have had."""


class Ledger:
    """The pieces of a run, by endpoint: free, with a worker, or done."""

    def __init__(self, pieces: Sequence[Piece], labels: Iterable[str]) -> None:
        """All are free."""
        self.pieces = pieces
        self._numbers = {piece: number for number, piece in enumerate(pieces)}
        self._queues = {label: _Queue(len(pieces)) for label in labels}
        self._recent: dict[str, deque[int]] = {}

    def take(self, worker: str, label: str) -> Piece | None:
        """A free piece for an endpoint, now the worker's; None: there is none, though some may come back."""
        queue = self._queues[label]
        recent = self._recent.setdefault(worker, deque(maxlen=RECENT))
        at_hand = next((number for number in recent if number in queue.free), None)
        number = queue.lowest() if at_hand is None else at_hand
        if number is None:
            return None
        queue.free.remove(number)
        queue.held[number] = worker
        if number not in recent:
            recent.append(number)
        return self.pieces[number]

    def done(self, worker: str, label: str, piece: Piece) -> bool:
        """A piece is done for an endpoint; whether that is news."""
        queue, number = self._queues[label], self._numbers[piece]
        if queue.held.get(number) != worker:
            return False  # it was given to another meanwhile, whose word counts
        del queue.held[number]
        queue.left -= 1
        return True

    def lost(self, worker: str) -> int:
        """A worker is gone: what it had is free again; how many pieces that are."""
        self._recent.pop(worker, None)
        return sum(queue.freed(worker) for queue in self._queues.values())

    def over(self, label: str) -> bool:
        """Whether all pieces are done for an endpoint."""
        return not self._queues[label].left

    def held(self, worker: str) -> int:
        """How many pieces a worker has."""
        return sum(whose == worker for queue in self._queues.values() for whose in queue.held.values())


class _Queue:
    """The pieces of one endpoint, by number.

    Attributes:
        free: nobody has them.
        held: who has the others that are not done.
        left: how many are not done.
    """

    def __init__(self, pieces: int) -> None:
        self.free = set(range(pieces))
        self.held: dict[int, str] = {}
        self.left = pieces
        self._in_order = list(range(pieces))
        """A heap with all that are free; others that stand in it are passed over."""

    def lowest(self) -> int | None:
        while self._in_order and self._in_order[0] not in self.free:
            heappop(self._in_order)
        return self._in_order[0] if self._in_order else None

    def freed(self, worker: str) -> int:
        theirs = [number for number, whose in self.held.items() if whose == worker]
        for number in theirs:
            del self.held[number]
            self.free.add(number)
            heappush(self._in_order, number)
        return len(theirs)
