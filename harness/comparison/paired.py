"""The mean of paired differences: its standard error, interval and tests; pure.

Items of one cluster (a passage, a video) are not independent, so all errors are those of clusters; where
every item stands alone, each is a cluster of its own and the formulas become the textbook ones. This module
does not know what a difference measures.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]
Integers: TypeAlias = NDArray[np.int64]

LEVEL = 0.05
"""Of every test, two-sided; intervals cover 1 - LEVEL."""
POWER = 0.80
"""Of what is called detectable, and of the items that would decide."""
FEW_CLUSTERS = 30
"""Below so many an interval rests on little: it is made longer."""

_MOST_ITEMS = 10**12
"""Beyond this no number of items is meant."""


@dataclass(frozen=True, slots=True)
class Clusters:
    """Differences summed within their clusters: all that their mean and its error depend on."""

    sums: Floats
    """Of the differences, one a cluster."""
    sizes: Floats
    """What the mean divides by, one a cluster: its items, or its tokens where the mean is over tokens."""

    @property
    def count(self) -> int:
        """How many clusters there are."""
        return len(self.sums)

    @property
    def n(self) -> float:
        """What the mean divides by."""
        return float(self.sizes.sum())

    @property
    def mean(self) -> float:
        """The mean difference; NaN where there is none."""
        return float(self.sums.sum() / self.n) if self.n else math.nan

    @property
    def stderr(self) -> float:
        """Standard error of the mean; NaN below two clusters.

        sqrt(C / (C - 1) · Σ_c (Σ_{i in c} (d_i - mean))²) / n: the cluster-robust error (Miller 2024, "Adding
        Error Bars to Evals", with the small-sample factor C / (C - 1)). Where clusters are single items it
        is sqrt(Σ (d - mean)² / (n - 1) / n).
        """
        if self.count < 2:
            return math.nan
        residuals = self.sums - self.mean * self.sizes
        return math.sqrt(self.count / (self.count - 1) * float(residuals @ residuals)) / self.n

    def with_one_flip_each_way(self) -> Clusters:
        """Two items more, a flip in each direction.

        Bonett and Price (2012, "Adjusted Wald intervals for paired proportions") add them to differences of
        right and wrong: without, the interval of a few flips is far too short, and of none has no length.
        Of few clusters any may flip whole: what is added then has the size of a cluster.
        """
        size = self.n / self.count if self.count < FEW_CLUSTERS else 1.0
        return Clusters(np.append(self.sums, (size, -size)), np.append(self.sizes, (size, size)))


def clusters(values: Floats, codes: Integers, sizes: Floats | None = None) -> Clusters:
    """Sum differences within clusters.

    Args:
        values: a difference an item, shape (n,); NaN where there is none, which leaves the item out.
        codes: a cluster number an item, shape (n,).
        sizes: what each item counts for in the mean, shape (n,); 1 by default.
    """
    known = ~np.isnan(values)
    _, own = np.unique(codes[known], return_inverse=True)
    weights = np.ones(len(own)) if sizes is None else sizes[known]
    return Clusters(*(np.bincount(own, each).astype(np.float64) for each in (values[known], weights)))


@dataclass(frozen=True, slots=True)
class MeanError:
    """A mean and its error, with Student's t of `df` degrees of freedom between them."""

    mean: float
    stderr: float
    df: float

    def interval(self, level: float = LEVEL) -> tuple[float, float]:
        """The two-sided interval that covers 1 - level; NaN where there is no error."""
        half = _t_quantile(1 - level / 2, self.df) * self.stderr if self.df > 0 else math.nan
        return self.mean - half, self.mean + half

    def p_differs(self) -> float:
        """Two-sided p of the mean being 0 (paired t-test)."""
        return 2 * self._tail(abs(self.mean))

    def p_within(self, margin: float) -> float:
        """p of two one-sided tests (Schuirmann 1987): small where the mean is shown to lie within ±margin."""
        return max(self._tail(self.mean + margin), self._tail(margin - self.mean))

    def detectable(self) -> float:
        """The smallest true difference found at 80 % power: (z_(1 - level/2) + z_power) · stderr.

        Miller (2024).
        """
        return _factor(LEVEL / 2) * self.stderr

    def _tail(self, distance: float) -> float:
        """P(T >= distance / stderr)."""
        if not self.df > 0 or math.isnan(self.stderr):
            return math.nan
        if self.stderr == 0:
            return 0.5 if distance == 0 else float(distance < 0)
        from scipy.special import stdtr  # a second to import, which no other command should wait for

        return float(stdtr(self.df, -distance / self.stderr))


def mean_error(found: Clusters, *, flips: bool, noise: float = 0.0) -> MeanError:
    """The mean of differences with the error that intervals and equivalence tests use.

    Args:
        found: the differences; below two clusters there is no error.
        flips: they are differences of right and wrong, and get one flip more each way.
        noise: variance of one difference that repeating the same requests alone gives (a measured noise
            floor); the error is never below it.
    """
    used = found.with_one_flip_each_way() if flips and found.count else found
    stderr = max(used.stderr, math.sqrt(noise / used.n)) if found.count > 1 else math.nan
    return MeanError(used.mean, stderr, found.count - 1)


@dataclass(frozen=True, slots=True)
class Projection:
    """What more items like those at hand would show, at 80 % power; infinity where no number would."""

    mean: float
    variance: float
    """Of one item: n times the squared error of the mean, so that clusters are taken into account."""
    flips: bool
    """Differences of right and wrong, to which one more each way is added."""

    def to_differ(self, level: float = LEVEL) -> float:
        """How many would show that the mean is not 0."""
        return self._fewest(lambda mean, stderr: _factor(level / 2) * stderr <= abs(mean) > 0)

    def to_exceed(self, bound: float) -> float:
        """How many would show, one-sided, that the mean lies above a bound."""
        return self._fewest(lambda mean, stderr: _factor(LEVEL) * stderr <= mean - bound)

    def to_lie_within(self, margin: float) -> float:
        """How many would show that the mean lies within ±margin."""
        # Away from the middle one of the two tests decides; in the middle both have to succeed.
        factor = _factor(LEVEL, POWER if self.mean else (1 + POWER) / 2)
        return self._fewest(lambda mean, stderr: factor * stderr <= margin - abs(mean))

    def _fewest(self, shown: Callable[[float, float], bool]) -> float:
        if not math.isfinite(self.mean) or not math.isfinite(self.variance):
            return math.inf
        high = 2
        while not shown(*self._after(high)):
            high *= 2
            if high > _MOST_ITEMS:
                return math.inf
        low = high // 2
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if shown(*self._after(middle)) else (middle, high)
        return high

    def _after(self, items: int) -> tuple[float, float]:
        """Mean and its error of so many items."""
        added = 2 if self.flips else 0
        total = items + added
        return self.mean * items / total, math.sqrt(items * self.variance + added) / total


def p_sign_flip(sums: Floats) -> float:
    """Exact two-sided p of clusters whose sums are as likely to have either sign; sums are whole numbers.

    Under the hypothesis that the two endpoints could be swapped, each cluster's sum of flips keeps its size
    and takes a fair sign. The distribution of the total is worked out, not sampled. Where no cluster has
    more than one flip this *is* McNemar's exact test, a binomial one.
    """
    sizes, counts = np.unique(np.abs(sums[sums != 0]).astype(np.int64), return_counts=True)
    chances = np.ones(1)
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        signs = np.zeros(2 * size * count + 1)
        signs[:: 2 * size] = _fair_binomial(count)
        chances = np.convolve(chances, signs)
    total, middle = abs(round(float(sums.sum()))), len(chances) // 2
    return min(1.0, 2 * float(chances[middle + total :].sum()))


def p_mcnemar(gained: int, lost: int, *, mid: bool = False) -> float:
    """McNemar's exact two-sided p of so many flips each way, items taken as independent.

    Args:
        gained: wrong to right.
        lost: right to wrong.
        mid: the mid-p form (Fagerland et al. 2013), less conservative for few flips: half the chance of the
            outcome itself does not count.
    """
    if gained + lost == 0:
        return 1.0
    chances = _fair_binomial(gained + lost)
    fewer = min(gained, lost)
    tail = float(chances[: fewer + 1].sum())
    if mid:
        return min(1.0, 2 * (tail - float(chances[fewer]) / 2))
    return min(1.0, 2 * tail)


@cache
def _z_quantile(chance: float) -> float:
    """Of the normal distribution."""
    from scipy.special import ndtri

    return float(ndtri(chance))


@cache
def _t_quantile(chance: float, df: float) -> float:
    """Of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(df, chance))


def _fair_binomial(count: int) -> Floats:
    """The chances of 0 to `count` heads."""
    from scipy.special import gammaln

    heads = np.arange(count + 1)
    logs = gammaln(count + 1) - gammaln(heads + 1) - gammaln(count - heads + 1) - count * math.log(2)
    return np.exp(logs)


def _factor(tail: float, power: float = POWER) -> float:
    """By how many errors a mean must lie beyond a bound to be shown there: z_(1 - tail) + z_power."""
    return _z_quantile(1 - tail) + _z_quantile(power)
