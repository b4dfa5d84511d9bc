"""One pair, one part, one statistic: the row of a comparison, but for what its family decides; pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.comparison.findings import Row
from harness.comparison.flips import FlipCounts, count_flips
from harness.comparison.measures import MEASURES, Pair, Values, metric_values
from harness.comparison.paired import (
    LEVEL,
    Clusters,
    Floats,
    Integers,
    MeanError,
    clusters,
    mean_error,
    p_mcnemar,
    p_sign_flip,
)
from harness.comparison.parts import Part
from harness.scoring.metrics import METRICS


@dataclass(frozen=True, slots=True)
class Statistic:
    """One thing that is compared, worked out for all items that both endpoints have scored."""

    name: str
    unit: str
    values: Values
    directed: bool
    """More is better; else it is a distance, without sign and test."""
    metric: str = ""
    """The metric that it is, or empty."""

    def is_told_of(self, part: Part) -> bool:
        """Whether the part's task reports it."""
        return not self.metric or self.metric in part.task.metrics


@dataclass(frozen=True, slots=True)
class Section:
    """A part's items in one pair."""

    part: Part
    matched: NDArray[np.int64]
    """Positions in `Matched.at`."""
    scored: NDArray[np.int64]
    """Positions in `Pair.scored`."""
    codes: Integers
    """A cluster number for each scored item."""


@dataclass(frozen=True, slots=True)
class Test:
    """Which test decides, and its two-sided p; NaN where there is nothing to test."""

    name: Literal["mcnemar", "sign_flip", "t"]
    p_value: float


@dataclass(frozen=True, slots=True)
class Draft:
    """A row, and the error that its verdict will be made from."""

    row: Row
    error: MeanError


def statistics(pair: Pair) -> list[Statistic]:
    """All that is compared: the metrics that both sides have, then the measures."""
    there = [name for name in pair.baseline.columns.values if name in pair.other.columns.values]
    metrics = [Statistic(name, METRICS[name].unit, metric_values(pair, name), True, name) for name in there]
    return metrics + [Statistic(each.name, each.unit, each.values(pair), each.directed) for each in MEASURES]


def sections(pair: Pair, all_parts: Sequence[Part], codes: Integers) -> Iterator[Section]:
    """The parts that a pair has items of.

    Args:
        pair: the two endpoints.
        all_parts: of the baseline.
        codes: a cluster number for each item of the baseline.
    """
    matched = _index(len(codes), pair.matched.at)
    scored = _index(len(codes), pair.matched.at[pair.scored])
    for part in all_parts:
        found, both = matched[part.at], scored[part.at]
        if (found >= 0).any():
            members = both[both >= 0]
            yield Section(part, found[found >= 0], members, codes[pair.baseline.at[members]])


def drafts(
    pair: Pair, section: Section, compared: Sequence[Statistic], noise: dict[str, float], margin: float
) -> Iterator[Draft]:
    """The rows of one section, a statistic each.

    Args:
        pair: the two endpoints.
        section: the items.
        compared: what `statistics` gives; metrics that the task does not report are passed over.
        noise: by statistic, the variance of a difference that repeating requests alone gives.
        margin: of equivalence, for metrics.
    """
    for each in compared:
        if not each.is_told_of(section.part):
            continue
        draft = _draft(pair, section, each, noise.get(each.name, math.nan))
        row = draft.row
        if each.metric:
            known = section.scored[~np.isnan(each.values.change[section.scored])]
            if METRICS[each.metric].binary:
                row = _with_flips(row, count_flips(pair, each.metric, known))
            row = _with_bounds(row, pair, each.metric, _applicable(pair, each.metric, section.matched))
            row = replace(row, margin=margin, p_equivalent=draft.error.p_within(margin))
        yield Draft(row, draft.error)


def _draft(pair: Pair, section: Section, statistic: Statistic, noise: float) -> Draft:
    values, at = statistic.values, section.scored
    changes = values.change[at]
    found = clusters(changes, section.codes, None if values.sizes is None else values.sizes[at])
    flips = bool(statistic.metric) and _are_flips(changes)
    error = mean_error(found, flips=flips, noise=0.0 if math.isnan(noise) else noise)
    n = int((~np.isnan(changes)).sum())
    both = at[~np.isnan(changes)]
    asked = _applicable(pair, statistic.metric, section.matched)
    row = Row(
        baseline=pair.matched.baseline.label,
        endpoint=pair.matched.other.label,
        level=section.part.level,
        task=section.part.name,
        subject=section.part.subject,
        shots=section.part.shots,
        statistic=statistic.name,
        unit=statistic.unit,
        headline=statistic.metric == section.part.task.metrics[0],
        n=n,
        unscored=len(asked) - (n if statistic.metric else len(at)),
        clusters=found.count,
        baseline_value=_mean(values.baseline, both),
        value=_mean(values.other, both),
        difference=found.mean,
        stderr=found.stderr,
        noise_stderr=math.sqrt(noise / n) if n else math.nan,
    )
    if not statistic.directed:
        return Draft(replace(row, largest=_largest(values, at)), error)
    test = exact_test(found) if flips else Test("t", error.p_differs())
    return Draft(with_test(row, error, test), error)


def change_test(changes: Floats, codes: Integers) -> Test:
    """The test of differences that decides: exact for right and wrong, else Student's."""
    found = clusters(changes, codes)
    if _are_flips(changes):
        return exact_test(found)
    return Test("t", mean_error(found, flips=False).p_differs())


def exact_test(found: Clusters) -> Test:
    """McNemar's test, or where items share clusters the one that swaps whole clusters."""
    if not found.count:
        return Test("mcnemar", math.nan)
    return Test("mcnemar" if found.count == found.n else "sign_flip", p_sign_flip(found.sums))


def with_test(row: Row, error: MeanError, test: Test) -> Row:
    """A row with its interval, the test that decides, and what else follows from the error."""
    furthest = 1.0 if row.unit == "fraction" else math.inf  # no difference of fractions lies beyond
    low, high, low_one_sided = np.clip((*error.interval(), error.interval(2 * LEVEL)[0]), -furthest, furthest)
    return replace(
        row,
        ci_low=float(low),
        ci_high=float(high),
        low_one_sided=float(low_one_sided),
        test=test.name,
        p_value=test.p_value,
        detectable=error.detectable(),
    )


def _with_flips(row: Row, counts: FlipCounts) -> Row:
    return replace(
        row,
        wrong_to_right=counts.gained,
        right_to_wrong=counts.lost,
        wrong_to_wrong=counts.moved,
        agreement=counts.agreement,
        p_mcnemar=p_mcnemar(counts.gained, counts.lost) if row.n else math.nan,
        p_mcnemar_mid=p_mcnemar(counts.gained, counts.lost, mid=True) if row.n else math.nan,
    )


def _with_bounds(row: Row, pair: Pair, metric: str, matched: NDArray[np.int64]) -> Row:
    """With what the difference were if unscored items fell out worst, or best, for the endpoint."""
    before = pair.matched.baseline.values[metric][pair.matched.at[matched]]
    after = pair.matched.other.values[metric][pair.matched.other_at[matched]]
    low = np.nan_to_num(after, nan=0.0) - np.nan_to_num(before, nan=1.0)
    high = np.nan_to_num(after, nan=1.0) - np.nan_to_num(before, nan=0.0)
    if not len(low):
        return row
    return replace(row, low_bound=float(low.mean()), high_bound=float(high.mean()))


def _applicable(pair: Pair, metric: str, matched: NDArray[np.int64]) -> NDArray[np.int64]:
    """The matched items that a metric says anything of; all where the statistic is no metric."""
    if not metric:
        return matched
    choices = pair.matched.baseline.choice_bytes.lengths[pair.matched.at[matched]]
    applies = (choices == 0) | (choices >= METRICS[metric].fewest)
    return np.asarray(matched[applies])


def _are_flips(changes: Floats) -> bool:
    return bool(np.isin(changes[~np.isnan(changes)], (-1.0, 0.0, 1.0)).all())


def _index(size: int, at: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where each of `size` positions stands in `at`; -1 where it does not."""
    index = np.full(size, -1)
    index[at] = np.arange(len(at))
    return index


def _mean(values: Floats | None, at: NDArray[np.int64]) -> float:
    known = values[at][~np.isnan(values[at])] if values is not None else np.empty(0)
    return float(known.mean()) if len(known) else math.nan


def _largest(values: Values, at: NDArray[np.int64]) -> float:
    inside = (values.change if values.largest is None else values.largest)[at]
    known = inside[~np.isnan(inside)]
    return float(known.max()) if len(known) else math.nan
