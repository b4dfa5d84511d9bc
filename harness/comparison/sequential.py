"""Is one endpoint better over a whole benchmark, told while its items still come in; pure.

The question is the mean difference Δ over all items of the benchmark, each difference between -1 and 1. It
has an exact answer once all are asked; before that, items asked in the random order of `ordering` are a
sample without replacement, and Δ has a *confidence sequence*: intervals that hold it, all of them at once,
with chance 1 - level, so that one may look after every item and stop whenever one likes. Only the order is
random: nothing is assumed of items, and those that share a source need no correction.

The sequence is that of Waudby-Smith and Ramdas: "Confidence sequences for sampling without replacement"
(2020), "Estimating means of bounded random variables by betting" (2023). Against the hypothesis Δ = m one
bets on each next difference x. If m is true the mean of x is c = (m - what was seen) / (the shares that are
left), so that the capital Π (1 + λ (x - c)) is a martingale, and ever comes to 2 / level with a chance of
level / 2 at most (Ville 1939). Here the capital is spread over some fixed λ, and bets that could ruin are
cut. It falls as m grows, and grows with each x: so a hypothesis that is rejected takes all below it along,
and an item that could not be scored is put in at its worst.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

from harness.comparison.paired import LEVEL, Floats

if TYPE_CHECKING:
    from harness.comparison.findings import Verdict

Flags: TypeAlias = NDArray[np.bool_]

MOST_LOST = 0.9
"""Share of the capital that one bet may lose."""
CHUNK = 4096
"""Items that are worked out at a time: some megabytes."""
_CLOSE = 1e-9
"""Sums of shares may be off by less."""
_ROUNDS, _POINTS = 5, 17
"""How an end of the interval is found: so many times it is looked for among so many points, 10^-6 apart."""


@dataclass(frozen=True, slots=True)
class State:
    """How far a sequential comparison has come."""

    verdict: Verdict
    """`undecided` as long as it is."""
    items: int
    """Taken until it was decided; all so far where it is not."""
    unknown: int
    """Of them, items that an endpoint could not score."""
    low: float
    """Of the interval for the difference over the whole benchmark, a fraction."""
    high: float
    p_value: float
    """Always valid: how often, at most, equal endpoints would ever look so different."""
    p_within: float
    """Likewise: how often endpoints that differ by the margin would ever look so alike."""


class Sequential:
    """One endpoint beside its baseline, item after item in random order.

    Attributes:
        taken: items so far.
        decided_at: the number of items that decided; None where none did.
        verdict: what they decided.
    """

    def __init__(self, shares: Floats, *, margin: float, level: float = LEVEL) -> None:
        """Before the first item.

        Args:
            shares: of all items, in the order in which they come; shape (n,), sum 1.
            margin: endpoints that differ by less are as good as equal (a fraction; 0: none are).
            level: of all that is said of this pair, together; divide it where there are several pairs.
        """
        self.taken = 0
        self.decided_at: int | None = None
        self.verdict: Verdict = "undecided"
        self._shares = shares
        self._level = level
        self._margin = margin
        candidates = np.array([0.0, -margin])
        self._above = _Bets(shares, candidates, level)
        self._below = _Bets(shares, candidates, level)
        self._low = np.empty(0)
        self._high = np.empty(0)

    @property
    def over(self) -> bool:
        """Whether there is nothing more to find out."""
        return self.decided_at is not None or self.taken == len(self._shares)

    def add(self, low: Floats, high: Floats) -> None:
        """Take the next items.

        Args:
            low: their differences, other minus baseline, between -1 and 1, shape (k,); of an item that could
                not be scored the least that it may be.
            high: likewise the most.
        """
        self._low, self._high = np.append(self._low, low), np.append(self._high, high)
        for start in range(0, len(low), CHUNK):
            part = slice(start, start + CHUNK)
            above, below = self._above.add(low[part]), self._below.add(-high[part])
            if self.decided_at is None:
                self._decide(above, below)
            self.taken += len(low[part])

    def _decide(self, above: Flags, below: Flags) -> None:
        """Look for the first item that decides; rows of both as `_Bets.add` gives them."""
        within = above[1] & below[1]
        if self.taken + len(within) == len(self._shares):  # all is known, and then also that nothing differs
            within[-1] |= abs(self._above.seen) < _CLOSE and abs(self._below.seen) < _CLOSE
        said: tuple[tuple[Verdict, Flags], ...] = (
            ("better", above[0]),
            ("worse", below[0]),
            ("equivalent", within),
        )
        for verdict, found in said:
            if found.any():
                at = self.taken + int(found.argmax()) + 1
                if self.decided_at is None or at < self.decided_at:
                    self.decided_at, self.verdict = at, verdict

    def state(self, *, whole: bool = False) -> State:
        """What is known.

        Args:
            whole: take into account what came after the decision too.
        """
        items = self.taken if whole or self.decided_at is None else self.decided_at
        low, high = self._low[:items], self._high[:items]
        ends = _lower_end(self._shares, low, self._level), -_lower_end(self._shares, -high, self._level)
        # What decided is known exactly; the ends were only looked for.
        least = {"better": 0.0, "equivalent": -self._margin}.get(self.verdict, -1.0)
        most = {"worse": 0.0, "equivalent": self._margin}.get(self.verdict, 1.0)
        return State(
            verdict=self.verdict,
            items=items,
            unknown=int((low != high).sum()),
            low=max(ends[0], least),
            high=min(ends[1], most),
            p_value=min(_p_of(self._shares, low, 0.0), _p_of(self._shares, -high, 0.0)),
            p_within=max(_p_of(self._shares, low, -self._margin), _p_of(self._shares, -high, -self._margin)),
        )


class _Bets:
    """Capital that is bet against the hypotheses that the mean is no more than each of some candidates.

    Attributes:
        seen: Σ shares · differences.
    """

    def __init__(self, shares: Floats, candidates: Floats, level: float) -> None:
        self._shares = shares
        self._rest = np.append(np.cumsum(shares[::-1])[::-1], 0.0)
        self._candidates = candidates[:, None]
        self._threshold = math.log(2 / level)
        self._bets = bets(len(shares), level)[:, None, None]
        self._logs = np.full((len(self._bets), len(candidates), 1), -math.log(len(self._bets)))
        self._rejected = np.zeros((len(candidates), 1), np.bool_)
        self._taken = 0
        self.seen = 0.0
        self.best = np.zeros(len(candidates))
        """The logarithm of the highest capital so far against each candidate."""

    def add(self, values: Floats) -> Flags:
        """Bet on the next differences, shape (k,).

        Whether each candidate is rejected after each of them, shape (candidates, k).
        """
        at = slice(self._taken, self._taken + len(values))
        own = self._shares[at] * values
        after = self.seen + np.cumsum(own)
        means = (self._candidates - (after - own)) / self._rest[at]
        with np.errstate(divide="ignore"):
            most = np.where(means > -1, MOST_LOST / np.maximum(1 + means, 0.0), np.inf)
        gains = np.log1p(np.minimum(self._bets, most) * (values - means))
        logs = self._logs + np.cumsum(gains, axis=2)
        capital = np.logaddexp.reduce(logs, axis=0)
        impossible = self._candidates < after - self._rest[1:][at] - _CLOSE
        found = self._rejected | np.logical_or.accumulate((capital >= self._threshold) | impossible, axis=1)
        self._logs, self._rejected = logs[:, :, -1:], found[:, -1:]
        self.best = np.maximum(self.best, capital.max(axis=1))
        self.seen, self._taken = float(after[-1]), self._taken + len(values)
        return np.asarray(found)

    @property
    def least(self) -> float:
        """What the mean cannot be less than, whatever is still to come."""
        return self.seen - float(self._rest[self._taken])

    @property
    def most(self) -> float:
        """Nor more than."""
        return self.seen + float(self._rest[self._taken])


def bets(items: int, level: float) -> Floats:
    """The λ that capital is spread over: from 1 down by halves to what the most even differences call for.

    The best λ against a difference that so many items can show at all is about
    sqrt(2 log(2 / level) / items / variance), and the variance is 1 at most.
    """
    smallest = math.sqrt(2 * math.log(2 / level) / max(1, items))
    return np.asarray(2.0 ** -np.arange(1 + max(0, math.ceil(-math.log2(smallest)))))


def _lower_end(shares: Floats, values: Floats, level: float) -> float:
    """The largest mean that is rejected together with all below it; what is impossible is rejected too."""
    bounds = _Bets(shares, np.zeros(1), level)
    for start in range(0, len(values), CHUNK):
        bounds.add(values[start : start + CHUNK])
    low, high = bounds.least, max(bounds.least, bounds.most)
    for _ in range(_ROUNDS):
        points = np.linspace(low, high, _POINTS)
        gambler = _Bets(shares, points, level)
        rejected = np.zeros(_POINTS, np.bool_)
        for start in range(0, len(values), CHUNK):
            rejected |= gambler.add(values[start : start + CHUNK])[:, -1]
        last = int(rejected.nonzero()[0].max()) if rejected.any() else 0
        low, high = float(points[last]), float(points[min(last + 1, _POINTS - 1)])
    return low


def _p_of(shares: Floats, values: Floats, mean: float) -> float:
    """2 / the highest capital against the mean being no more than this; 0 where that is impossible."""
    gambler = _Bets(shares, np.full(1, mean), LEVEL)
    for start in range(0, len(values), CHUNK):
        gambler.add(values[start : start + CHUNK])
    if len(values) and gambler.least > mean + _CLOSE:
        return 0.0
    return min(1.0, 2 * math.exp(-float(gambler.best[0])))
