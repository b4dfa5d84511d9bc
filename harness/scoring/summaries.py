"""Summaries of items that are no plain mean: ratios, calibration, recall by position; pure.

They are used as `estimates.Tally` is. numpy is imported where it is first needed: no run has to wait for it.
"""

from __future__ import annotations

import math
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from harness.scoring.estimates import Estimate, Link, Summary, student

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

BINS = 10
"""Of the calibration error, as HELM has it (Liang et al. 2022, arXiv:2211.09110)."""


@dataclass(slots=True)
class Ratio:
    """The sum of values over the sum of weights, as in nats over bytes: long items weigh more."""

    n: int = 0
    unscored: int = 0
    ties: int = 0
    values: float = 0.0
    weights: float = 0.0
    value_squares: float = 0.0
    weight_squares: float = 0.0
    products: float = 0.0
    lowest: float = -math.inf
    """The interval ends there; likewise `highest`."""
    highest: float = math.inf
    link: Link | None = None

    def add(self, value: float, weight: float = 1.0, group: int = 0) -> None:
        """Count one scored item; the group does not matter."""
        self.n += 1
        self.values += value
        self.weights += weight
        self.value_squares += value * value
        self.weight_squares += weight * weight
        self.products += value * weight

    def absorb(self, other: Self) -> None:
        """Count all items of another ratio."""
        self.n += other.n
        self.unscored += other.unscored
        self.ties += other.ties
        self.values += other.values
        self.weights += other.weights
        self.value_squares += other.value_squares
        self.weight_squares += other.weight_squares
        self.products += other.products

    def estimate(self) -> Estimate:
        """The ratio; its standard error is that of the linearised ratio (Cochran 1977, section 6.4)."""
        value = self.values / self.weights if self.weights else None
        stderr = None
        if value is not None and self.n > 1:
            squares = self.value_squares - 2 * value * self.products + value * value * self.weight_squares
            stderr = math.sqrt(max(0.0, squares) / (self.n - 1) * self.n) / abs(self.weights)
        low, high = student(value, stderr, self.n)
        bound = None if self.unscored else value
        found = Estimate(
            value=value,
            stderr=stderr,
            ci_low=None if low is None else max(low, self.lowest),
            ci_high=None if high is None else min(high, self.highest),
            n=self.n,
            unscored=self.unscored,
            low_bound=bound,
            high_bound=bound,
            ties=self.ties,
        )
        return found if self.link is None else self.link.applied(found)


@dataclass(slots=True)
class Calibration:
    """Expected calibration error: by how much confidence and accuracy differ, over bins of equal mass.

    Σ over bins of |bin| / n · |accuracy - mean confidence| (Naeini et al. 2015; bins as HELM). Values are
    right (1) or wrong (0), weights are confidences. It keeps 16 bytes an item.
    """

    n: int = 0
    unscored: int = 0
    ties: int = 0
    right: array[float] = field(default_factory=lambda: array("d"))
    confidence: array[float] = field(default_factory=lambda: array("d"))

    def add(self, value: float, weight: float = 1.0, group: int = 0) -> None:
        """Count one scored item."""
        self.n += 1
        self.right.append(value)
        self.confidence.append(weight)

    def absorb(self, other: Self) -> None:
        """Count all items of another one."""
        self.n += other.n
        self.unscored += other.unscored
        self.ties += other.ties
        self.right.extend(other.right)
        self.confidence.extend(other.confidence)

    def bins(self) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """What is right, and the confidence, of each bin's items, by rising confidence; none is empty."""
        import numpy as np

        if not self.n:
            return []
        confidence, level = np.unique(np.array(self.confidence), return_inverse=True)
        # Items of one confidence share what is right, lest their order decide where a bin ends.
        right = np.bincount(level, np.array(self.right)) / np.bincount(level)
        order = np.sort(level)
        count = min(BINS, self.n)
        both = zip(np.array_split(right[order], count), np.array_split(confidence[order], count), strict=True)
        return list(both)

    def estimate(self) -> Estimate:
        """The error; it has no simple standard error, and is biased upwards below some 300 items."""
        value = None
        if self.n:
            value = float(sum(abs((right - said).sum()) for right, said in self.bins()) / self.n)
        return _bare(self, value)


@dataclass(slots=True)
class Recalls:
    """Standard deviation of recall over the positions of the right choice.

    0: each position is found equally often (Zheng et al. 2024, arXiv:2309.03882, RStd). Values are right (1)
    or wrong (0), groups are positions.
    """

    n: int = 0
    unscored: int = 0
    ties: int = 0
    positions: dict[int, tuple[int, float]] = field(default_factory=dict)
    """Items and right ones, by position."""

    def add(self, value: float, weight: float = 1.0, group: int = 0) -> None:
        """Count one scored item; its weight does not matter."""
        self.n += 1
        self._add(group, 1, value)

    def absorb(self, other: Self) -> None:
        """Count all items of another one."""
        self.n += other.n
        self.unscored += other.unscored
        self.ties += other.ties
        for position, (items, right) in other.positions.items():
            self._add(position, items, right)

    def estimate(self) -> Estimate:
        """The deviation; None below two positions."""
        import numpy as np

        recalls = [right / items for _, (items, right) in sorted(self.positions.items())]
        return _bare(self, float(np.std(recalls)) if len(recalls) > 1 else None)

    def _add(self, position: int, items: int, right: float) -> None:
        before = self.positions.get(position, (0, 0.0))
        self.positions[position] = before[0] + items, before[1] + right


def _bare(summary: Summary, value: float | None) -> Estimate:
    """A number without error; as long as items are unscored nothing bounds it."""
    bound = None if summary.unscored else value
    return Estimate(
        value=value,
        stderr=None,
        ci_low=None,
        ci_high=None,
        n=summary.n,
        unscored=summary.unscored,
        low_bound=bound,
        high_bound=bound,
        ties=summary.ties,
    )
