"""Metrics of scored items, and their estimates over many items; pure.

A metric is one function and one line of `METRICS`. All of them read stored sums, none needs a request.
Definitions: lm-evaluation-harness 0.4.13, `api/task.py`. This module does not know where scores come from.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.scores import ItemScore

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a metric says of one scored item."""

    prediction: int
    """Index of the choice that scores highest; of equal ones the lowest."""
    correct: bool
    """Whether the prediction is among the gold."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: its name in files and on the terminal, the judgement of a scored item, its unit."""

    name: str
    judge: Callable[[ItemScore], Verdict]
    unit: str


def acc(score: ItemScore) -> Verdict:
    """The choice of the highest summed log-probability."""
    return _best(score, score.sums)


def acc_norm(score: ItemScore) -> Verdict:
    """The choice of the highest log-probability a character (code point) of the choice."""
    return _best(score, _per(score.sums, score.record.n_chars))


def acc_bytes(score: ItemScore) -> Verdict:
    """The choice of the highest log-probability a UTF-8 byte of the choice."""
    return _best(score, _per(score.sums, score.record.n_bytes))


def acc_token(score: ItemScore) -> Verdict:
    """The choice of the highest log-probability a forced token."""
    return _best(score, _per(score.sums, score.record.n_tokens))


METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("acc", acc, "fraction"),
        Metric("acc_norm", acc_norm, "fraction"),
        Metric("acc_bytes", acc_bytes, "fraction"),
        Metric("acc_token", acc_token, "fraction"),
    )
}
"""All metrics, in the order in which files list them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A mean over items, how sure it is, and what unscored items could still change."""

    value: float | None
    """Mean over the scored items; None where there are none."""
    stderr: float | None
    """Standard error of the mean; None below two scored items."""
    ci_low: float | None
    """95 % Wilson interval; None where there are no scored items, or values other than 0 and 1."""
    ci_high: float | None
    n: int
    """Scored items."""
    unscored: int
    low_bound: float | None
    """The mean if all unscored items were wrong; None where there are no items at all."""
    high_bound: float | None
    """The mean if all unscored items were right."""


@dataclass(slots=True)
class Tally:
    """A running count of values between 0 and 1.

    Tallies of disjoint items pool into the tally of their union, so a group weighs its subjects by size.
    Sums of 0 and 1 are exact: the order of items and of pooling does not matter.
    """

    n: int = 0
    total: float = 0.0
    squares: float = 0.0
    unscored: int = 0

    def add(self, value: float) -> None:
        """Count one scored item."""
        self.n += 1
        self.total += value
        self.squares += value * value

    def add_unscored(self) -> None:
        """Count one item that has no score."""
        self.unscored += 1

    def estimate(self) -> Estimate:
        """The mean with its standard error, interval and bounds.

        Standard error: sqrt(sum (x - mean)^2 / (n - 1) / n) over all items of the tally (Miller 2024,
        "Adding Error Bars to Evals", the CLT form). For groups the reference does otherwise: it pools the
        variances *within* subjects and so leaves out how subjects differ; here a group is one set of items.
        """
        items = self.n + self.unscored
        low, high = wilson(round(self.total), self.n) if self.squares == self.total else (None, None)
        return Estimate(
            value=self.total / self.n if self.n else None,
            stderr=self._stderr(),
            ci_low=low,
            ci_high=high,
            n=self.n,
            unscored=self.unscored,
            low_bound=self.total / items if items else None,
            high_bound=(self.total + self.unscored) / items if items else None,
        )

    def _stderr(self) -> float | None:
        if self.n < 2:
            return None
        deviations = max(0.0, self.squares - self.total * self.total / self.n)
        return math.sqrt(deviations / (self.n - 1) / self.n)


def pooled(tallies: Iterable[Tally]) -> Tally:
    """The tally of all items of some tallies together."""
    whole = Tally()
    for each in tallies:
        whole.n += each.n
        whole.total += each.total
        whole.squares += each.squares
        whole.unscored += each.unscored
    return whole


def wilson(right: int, n: int) -> tuple[float, float] | tuple[None, None]:
    """The 95 % interval of a proportion (Wilson 1927, score interval); none where n is 0."""
    if n == 0:
        return None, None
    from scipy.stats import binomtest  # takes a second to import, which no other command should wait for

    interval = binomtest(right, n).proportion_ci(CONFIDENCE, method="wilson")
    return float(interval.low), float(interval.high)


def _best(score: ItemScore, values: Sequence[float]) -> Verdict:
    prediction = max(range(len(values)), key=values.__getitem__)  # the first of equal ones
    return Verdict(prediction, prediction in score.record.gold)


def _per(sums: Sequence[float], lengths: Sequence[int]) -> list[float]:
    """Sums over lengths; what has no length scores lowest."""
    return [total / length if length else -math.inf for total, length in zip(sums, lengths, strict=True)]
