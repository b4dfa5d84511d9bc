"""What the parts of a run over workers cost: the figures that `fleet` is fed with.

Seconds of processor time, unless they say otherwise, as `python -m tests.bench.scale --measure` found them
(`costing`) on two cores of an AMD EPYC, Python 3.11. Other machines are faster or slower as a whole; what is
a limit first depends on the ratios.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

FLAT = 1e6
"""Rows of a journal beyond which another costs no more: each then touches a page of the index of its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """The costs of one machine."""

    ask: float = 680e-6
    """A worker, a request: planned, encoded, sent, checked, made a row."""
    start: float = 2.1
    """A worker, until it reads: Python, and what it imports."""
    survey: float = 125e-6
    """A row that is read, checked and listed before the first request; workers are told what was found."""
    skip: float = 9e-6
    """A worker, a row that is in nobody's piece but another's: it is read, and left."""
    call: float = 160e-6
    """The driver's interpreter, a message and the answer to it, whatever is in it."""
    trip: float = 0.0
    """Likewise, what carries the messages that a worker sends at a time, where that is calls of an actor."""
    row: float = 12e-6
    """The driver's interpreter, a row in a message: made out, bound to a statement, told on."""
    commit: float = 650e-6
    """A journal's thread outside of the interpreter: a commit."""
    shallow: float = 16e-6
    """Likewise a row, in a small file."""
    deep: float = 52e-6
    """Likewise, in one of a million rows or more."""
    take: float = 350e-6
    """The driver, for a piece that is handed to one endpoint of a worker, and done."""
    lease: float = 270e-6
    """The keeper of a budget, a lease that is one slot; with the message."""
    slot: float = 26e-6
    """Likewise, each further slot of it."""
    table: float = 175e-6
    """An item of one endpoint in the tables that a run ends with."""
    merge: float = 15e-6
    """A row that `merge` folds (`tests.bench.merging`, less what the tables take)."""

    def stored(self, rows: float) -> float:
        """What a row costs in the mean while a journal grows to so many."""
        reached = min(1.0, rows / FLAT)
        growing = self.shallow + (self.deep - self.shallow) * reached / 2
        beyond = max(0.0, 1 - FLAT / rows)
        return growing * (1 - beyond) + self.deep * beyond


SOCKETS = Costs()
"""Workers that are processes, and their driver."""
RAY = replace(SOCKETS, trip=2.2e-3, lease=1.2e-3)
"""Workers that are actors: a call costs 1.1 ms on either side, and there are two, to and fro."""
