"""Estimates over many items: a mean, its error, its interval and bounds; pure.

A summary takes one item after another. Summaries of disjoint items absorb one another into the summary of
their union, so a group weighs its subjects by size. This module does not know what an item is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Protocol, Self, TypeVar

CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
"""Standard errors to either end of such an interval, of a normal distribution."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """One number over items, how sure it is, and what unscored items could still change."""

    value: float | None
    """Over the scored items; None where there are none."""
    stderr: float | None
    """Standard error; None below two scored items, and where none is known."""
    ci_low: float | None
    """95 % interval: Wilson's where all values are 0 or 1, else Student's; None where there is no error."""
    ci_high: float | None
    n: int
    """Scored items."""
    unscored: int
    low_bound: float | None
    """The lowest value that unscored items allow; None where there is no such bound, or no item."""
    high_bound: float | None
    """The highest."""
    ties: int = 0
    """Scored items whose prediction is the first of several choices that are level."""


@dataclass(frozen=True, slots=True)
class Link:
    """A monotone function that is applied to a mean or ratio: of the number, and its derivative there."""

    of: Callable[[float], float]
    slope: Callable[[float], float]

    def applied(self, estimate: Estimate) -> Estimate:
        """The estimate of the function: errors by the delta method, ends of intervals by the function."""
        if estimate.value is None:
            return estimate
        low, high = sorted_ends(self._end(estimate.ci_low), self._end(estimate.ci_high))
        least, most = sorted_ends(self._end(estimate.low_bound), self._end(estimate.high_bound))
        error = estimate.stderr
        return replace(
            estimate,
            value=self.of(estimate.value),
            stderr=None if error is None else abs(self.slope(estimate.value)) * error,
            ci_low=low,
            ci_high=high,
            low_bound=least,
            high_bound=most,
        )

    def _end(self, value: float | None) -> float | None:
        return None if value is None else self.of(value)


def _exp(value: float) -> float:
    return math.exp(value) if value < 700 else math.inf  # e^709 is the largest float64


EXP = Link(_exp, _exp)
"""Nats to perplexity."""
BITS = Link(lambda nats: nats / math.log(2), lambda nats: 1 / math.log(2))
"""Nats to bits."""


class Summary(Protocol):
    """A running summary of items."""

    n: int
    unscored: int
    ties: int

    def add(self, value: float, weight: float = 1.0, group: int = 0) -> None:
        """Count one scored item; what weight and group mean is the summary's own affair."""

    def absorb(self, other: Self) -> None:
        """Count all items of a summary of the same kind."""

    def estimate(self) -> Estimate:
        """The number over all items."""


@dataclass(slots=True)
class Tally:
    """The mean of values in a known range, by default from 0 to 1.

    Sums of 0 and 1 are exact: the order of items and of pooling does not matter.
    """

    n: int = 0
    total: float = 0.0
    squares: float = 0.0
    unscored: int = 0
    ties: int = 0
    lowest: float = 0.0
    """What an unscored item could be at least; infinite where there is no bound."""
    highest: float = 1.0
    link: Link | None = None

    def add(self, value: float, weight: float = 1.0, group: int = 0) -> None:
        """Count one scored item; weight and group do not matter."""
        self.n += 1
        self.total += value
        self.squares += value * value

    def absorb(self, other: Self) -> None:
        """Count all items of another tally."""
        self.n += other.n
        self.total += other.total
        self.squares += other.squares
        self.unscored += other.unscored
        self.ties += other.ties

    def estimate(self) -> Estimate:
        """The mean with its standard error, interval and bounds.

        Standard error: sqrt(sum (x - mean)^2 / (n - 1) / n) over all items of the tally (Miller 2024,
        "Adding Error Bars to Evals", the CLT form). For groups the reference does otherwise: it pools the
        variances *within* subjects and so leaves out how subjects differ; here a group is one set of items.
        """
        value = self.total / self.n if self.n else None
        stderr = self._stderr()
        if self.squares == self.total and (self.lowest, self.highest) == (0.0, 1.0):
            low, high = wilson(round(self.total), self.n)
        else:
            low, high = student(value, stderr, self.n)
            low, high = _at_least(low, self.lowest), _at_most(high, self.highest)
        found = Estimate(
            value=value,
            stderr=stderr,
            ci_low=low,
            ci_high=high,
            n=self.n,
            unscored=self.unscored,
            low_bound=self._bound(self.lowest),
            high_bound=self._bound(self.highest),
            ties=self.ties,
        )
        return found if self.link is None else self.link.applied(found)

    def _bound(self, extreme: float) -> float | None:
        """The mean if each unscored item were so."""
        items = self.n + self.unscored
        if not items or (self.unscored and math.isinf(extreme)):
            return None
        return (self.total + (self.unscored * extreme if self.unscored else 0.0)) / items

    def _stderr(self) -> float | None:
        if self.n < 2:
            return None
        deviations = max(0.0, self.squares - self.total * self.total / self.n)
        return math.sqrt(deviations / (self.n - 1) / self.n)


_Some = TypeVar("_Some", bound=Summary)


def pooled(summaries: Iterable[_Some], whole: _Some) -> _Some:
    """`whole`, an empty summary, with all items of some others."""
    for each in summaries:
        whole.absorb(each)
    return whole


def wilson(right: int, n: int) -> tuple[float, float] | tuple[None, None]:
    """The 95 % interval of a proportion (Wilson 1927, score interval); none where n is 0."""
    if n == 0:
        return None, None
    share = right / n
    scale = 2 * (n + _Z**2)
    centre = (2 * right + _Z**2) / scale
    reach = _Z * math.sqrt(4 * n * share * (1 - share) + _Z**2) / scale
    return (centre - reach if right else 0.0), (centre + reach if right < n else 1.0)


def student(value: float | None, stderr: float | None, n: int) -> tuple[float, float] | tuple[None, None]:
    """The 95 % interval of a mean, Student's t with n - 1 degrees of freedom; none without an error."""
    if value is None or stderr is None:
        return None, None
    from scipy.special import stdtrit

    reach = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * stderr
    return value - reach, value + reach


def sorted_ends(low: float | None, high: float | None) -> tuple[float | None, float | None]:
    """Two ends in order, where both are there."""
    return (high, low) if low is not None and high is not None and low > high else (low, high)


def _at_least(end: float | None, lowest: float) -> float | None:
    return None if end is None else max(end, lowest)


def _at_most(end: float | None, highest: float) -> float | None:
    return None if end is None else min(end, highest)
