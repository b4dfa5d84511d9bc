"""Items whose prediction differs between two endpoints: counted, and listed; pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.comparison.findings import Flip, FlipKind
from harness.comparison.measures import Pair, gold_logprob, margins, metric_values
from harness.comparison.paired import Floats
from harness.comparison.parts import Part


@dataclass(frozen=True, slots=True)
class FlipCounts:
    """How often predictions differ, and how."""

    gained: int
    """Wrong to right."""
    lost: int
    """Right to wrong."""
    moved: int
    """Wrong to another wrong choice."""
    agreement: float
    """Share of items with the same prediction; NaN without items."""


@dataclass(frozen=True, slots=True)
class _Predictions:
    """Both sides' predictions by one metric, over the items that both have scored."""

    before: NDArray[np.int64]
    after: NDArray[np.int64]
    was_right: NDArray[np.bool_]
    is_right: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Moved:
    """How log-probabilities moved, over the items that both have scored (nats)."""

    gold_logprob: Floats
    before: Floats
    """Margin of the right choice, like `after`."""
    after: Floats


def count_flips(pair: Pair, metric: str, members: NDArray[np.int64]) -> FlipCounts:
    """Count the flips among some of the items that have a value of the metric on both endpoints."""
    found = _predictions(pair, metric, members)
    same = found.before == found.after
    return FlipCounts(
        gained=int((found.is_right & ~found.was_right).sum()),
        lost=int((found.was_right & ~found.is_right).sum()),
        moved=int((~found.was_right & ~found.is_right & ~same).sum()),
        agreement=float(same.mean()) if len(same) else math.nan,
    )


def flips(pair: Pair, all_parts: Sequence[Part]) -> Iterator[Flip]:
    """All flips of a pair, by the headline of each task."""
    scored = np.full(len(pair.matched.baseline.places), -1)
    scored[pair.baseline.at] = np.arange(len(pair.scored))
    moved = _Moved(gold_logprob(pair).change, margins(pair.baseline), margins(pair.other))
    for part in all_parts:
        metric = part.task.metrics[0]
        sides = (pair.baseline.columns, pair.other.columns)
        if part.level == "task" and all(metric in side.predictions for side in sides):
            members = scored[part.at]
            members = members[members >= 0]
            known = ~np.isnan(metric_values(pair, metric).change[members])
            yield from _flips_by(pair, metric, members[known], moved)


def _flips_by(pair: Pair, metric: str, members: NDArray[np.int64], moved: _Moved) -> Iterator[Flip]:
    found = _predictions(pair, metric, members)
    differs = (found.before != found.after) & ~(found.was_right & found.is_right)
    columns = pair.baseline.columns
    golds = columns.gold.take(pair.baseline.at[members[differs]]).lists()
    for each, gold in zip(np.flatnonzero(differs).tolist(), golds, strict=True):
        position = int(members[each])
        at = int(pair.baseline.at[position])
        yield Flip(
            baseline=columns.label,
            endpoint=pair.other.columns.label,
            place=columns.places[at],
            id=columns.ids[at],
            metric=metric,
            kind=_kind(bool(found.was_right[each]), bool(found.is_right[each])),
            gold=gold,
            baseline_prediction=int(found.before[each]),
            prediction=int(found.after[each]),
            baseline_margin=float(moved.before[position]),
            margin=float(moved.after[position]),
            gold_logprob_change=float(moved.gold_logprob[position]),
        )


def _predictions(pair: Pair, metric: str, members: NDArray[np.int64]) -> _Predictions:
    """What both sides predict; of a metric that is right or wrong without a prediction, which of the two."""
    at, other_at = pair.baseline.at[members], pair.other.at[members]
    baseline, other = pair.baseline.columns, pair.other.columns
    was_right, is_right = baseline.values[metric][at] == 1, other.values[metric][other_at] == 1
    if metric not in baseline.predictions:
        return _Predictions(was_right.astype(np.int64), is_right.astype(np.int64), was_right, is_right)
    predictions, others = baseline.predictions[metric][at], other.predictions[metric][other_at]
    return _Predictions(predictions, others, was_right, is_right)


def _kind(was_right: bool, is_right: bool) -> FlipKind:
    if is_right:
        return "wrong to right"
    return "right to wrong" if was_right else "wrong to other wrong"
