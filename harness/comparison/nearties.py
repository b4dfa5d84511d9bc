"""Whether predictions that differ are near-ties that noise decided; pure.

The model of noise: each choice's score moves by a shift out of those that were seen in the task, taken at
random and with a random sign, whatever its item. Shifts are those within an item (what all of its choices
have in common decides nothing). What the model does to the baseline's scores is worked out by drawing, and
what really changed is held against it: as many flips, in the same balance, are what shifts of this size make
of near-ties. More, or in one direction, are not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from harness.comparison.columns import Columns, TaskFacts
from harness.comparison.measures import Pair, Side
from harness.comparison.paired import LEVEL, Floats, Integers
from harness.comparison.ragged import Ragged
from harness.comparison.words import p_number, points

DRAWS = 999
"""Of the noise: p-values are no smaller than 1 / (DRAWS + 1)."""
SEED = 23
"""The same items give the same answer."""
NEAR = 0.95
"""A near-tie is closer than this share of shifts."""

Explained = Literal["no difference", "near-ties", "more flips", "one direction", ""]


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """Predictions of one task on two engines. The fields are the columns of `drift.csv`.

    Scores are in nats, or nats a character (byte, token) where the metric divides by these.
    """

    baseline: str
    endpoint: str
    task: str
    shots: int
    metric: str
    n: int
    change: float
    """Of accuracy, other minus baseline (a fraction)."""
    flips: int
    """Predictions that differ."""
    wrong_to_right: int
    right_to_wrong: int
    near: float
    """What `NEAR` of the shifts between an item's first two choices stay below."""
    flips_near: int
    """Flips of items whose first two choices were closer than that."""
    expected_flips: float
    """By the model."""
    expected_change: float
    change_low: float
    """The model's central 95 %."""
    change_high: float
    p_flips: float
    """How often the model makes as many flips, or more."""
    p_change: float
    """How often it changes accuracy as much, either way."""
    explained: Explained
    """By what: `near-ties`; not by these alone: `more flips`, `one direction`; empty: nothing can be said."""


@dataclass(frozen=True, slots=True)
class _Scores:
    """The scores of some items by one metric, on both sides; choices stand as in `before.values`."""

    before: Ragged[np.float64]
    after: Floats
    is_gold: NDArray[np.bool_]


def drifts(pair: Pair, tasks: Sequence[TaskFacts]) -> Iterator[Drift]:
    """One of each task that predicts by scores that are at hand."""
    places = pair.baseline.columns.places
    named = [(places[at].task, places[at].shots) for at in pair.baseline.at.tolist()]
    metrics = {task.name: task.metrics for task in tasks}
    for task, shots in dict.fromkeys(named):
        members = np.flatnonzero([each == (task, shots) for each in named])
        metric = _metric(pair, metrics.get(task, ()))
        if metric:
            yield _drift(pair, task, shots, metric, members)


def sentence(drift: Drift) -> str:
    """What it says, for a reader without statistics."""
    where = f"{drift.task} ({drift.metric}), {drift.endpoint} against {drift.baseline}"
    if not drift.flips:
        return f"{where}: no prediction of {drift.n:,} differs."
    found = (
        f"{where}: {drift.flips:,} of {drift.n:,} predictions differ, {drift.flips_near:,} of them of"
        f" near-ties; accuracy {points(drift.change)} points"
    )
    if not drift.explained:
        return f"{found}. The run stopped once it was decided: nothing can be said of the reasons."
    expected = (
        f"shifts of this size alone would make {drift.expected_flips:,.1f} differ, and accuracy"
        f" {points(drift.change_low)} to {points(drift.change_high)} points"
    )
    if drift.explained == "near-ties":
        return f"{found}. Near-ties explain it: {expected}."
    if drift.explained == "one direction":
        return f"{found}. Near-ties do not explain it: {expected} (p {p_number(drift.p_change)})."
    return f"{found}. More differ than near-ties explain: {expected} (p {p_number(drift.p_flips)})."


def _metric(pair: Pair, metrics: Sequence[str]) -> str:
    """The first of a task's metrics whose scores are at hand on both sides; empty: none."""
    sides = [side.columns for side in (pair.baseline, pair.other)]
    for name in metrics:
        if all(name in each.predictions and (name == "acc" or name in each.divisors) for each in sides):
            return name
    return ""


def _drift(pair: Pair, task: str, shots: int, metric: str, members: Integers) -> Drift:
    scores = _scores(pair, metric, members[pair.baseline.sums.lengths[members] > 1])
    was, now = _first(scores.before, scores.before.values), _first(scores.before, scores.after)
    was_right, is_right = scores.is_gold[was], scores.is_gold[now]
    flipped = was != now
    noise = _noise(scores)
    gaps, near = _gaps(scores.before), _near(scores)
    drawn_flips, drawn_changes = _drawn(scores, noise, was)
    n = len(was)
    change = float(is_right.mean() - was_right.mean()) if n else math.nan
    p_flips = _share(drawn_flips >= int(flipped.sum()))
    middle = drawn_changes.mean() if n else 0.0
    p_change = _share(np.abs(drawn_changes - middle) >= abs(change - middle) - 1e-12)
    low, high = np.quantile(drawn_changes, (LEVEL / 2, 1 - LEVEL / 2)) if n else (math.nan, math.nan)
    stopped = any(side.columns.stopped is not None for side in (pair.baseline, pair.other))
    return Drift(
        baseline=pair.baseline.columns.label,
        endpoint=pair.other.columns.label,
        task=task,
        shots=shots,
        metric=metric,
        n=n,
        change=change,
        flips=int(flipped.sum()),
        wrong_to_right=int((is_right & ~was_right).sum()),
        right_to_wrong=int((was_right & ~is_right).sum()),
        near=near,
        flips_near=int((flipped & (gaps <= near)).sum()),
        expected_flips=float(drawn_flips.mean()),
        expected_change=float(middle),
        change_low=float(low),
        change_high=float(high),
        p_flips=math.nan if stopped else p_flips,
        p_change=math.nan if stopped else p_change,
        explained="" if stopped else _explained(int(flipped.sum()), p_flips, p_change),
    )


def _explained(flips: int, p_flips: float, p_change: float) -> Explained:
    if not flips:
        return "no difference"
    if p_change < LEVEL:
        return "one direction"
    return "more flips" if p_flips < LEVEL else "near-ties"


def _scores(pair: Pair, metric: str, members: Integers) -> _Scores:
    before, after = (_divided(side, metric, members) for side in (pair.baseline, pair.other))
    gold = Ragged(pair.baseline.is_gold, pair.baseline.sums.lengths).take(members).values
    return _Scores(before, after.values, gold)


def _divided(side: Side, metric: str, members: Integers) -> Ragged[np.float64]:
    """The sums of some items, over what the metric divides them by."""
    sums = side.sums.take(members)
    columns: Columns = side.columns
    if metric not in columns.divisors:
        return sums
    return Ragged(sums.values / columns.divisors[metric].take(side.at[members]).values, sums.lengths)


def _first(items: Ragged[np.float64], values: Floats) -> Integers:
    """Where each item's highest score stands in `values`, of level ones the first."""
    highest = items.spread(items.within(np.maximum, values))
    at = np.flatnonzero(values == highest)
    _, own = np.unique(items.spread(np.arange(len(items.lengths)))[at], return_index=True)
    return np.asarray(at[own])


def _gaps(items: Ragged[np.float64]) -> Floats:
    """By how much each item's first choice is ahead of its second."""
    best, second = _two(items)
    return items.values[best] - items.values[second]


def _two(items: Ragged[np.float64]) -> tuple[Integers, Integers]:
    """Where each item's first and second choice stand."""
    best = _first(items, items.values)
    others = items.values.copy()
    others[best] = -np.inf
    return best, _first(items, others)


def _near(scores: _Scores) -> float:
    """What most shifts between the first two choices of an item stay below."""
    if not len(scores.before.lengths):
        return math.nan
    best, second = _two(scores.before)
    moved = scores.after - scores.before.values
    return float(np.quantile(np.abs(moved[second] - moved[best]), NEAR))


def _noise(scores: _Scores) -> Floats:
    """The shifts within items, of one choice each: as large as if choices moved independently."""
    moved = scores.after - scores.before.values
    counts = scores.before.spread(scores.before.lengths)
    means = scores.before.spread(scores.before.within(np.add, moved) / scores.before.lengths)
    return np.asarray((moved - means) * np.sqrt(counts / (counts - 1)))


def _drawn(scores: _Scores, noise: Floats, was: Integers) -> tuple[Integers, Floats]:
    """Flips and changes of accuracy that the model makes, one a draw."""
    generator = np.random.default_rng(SEED)
    flips, changes = np.zeros(DRAWS, np.int64), np.zeros(DRAWS)
    if not len(was):
        return flips, changes
    # An item whose first choice no two shifts can bring behind never flips: only the others are drawn.
    close = np.flatnonzero(_gaps(scores.before) <= 2 * np.abs(noise).max())
    lengths = scores.before.lengths[close]
    there = np.arange(lengths.max(initial=0)) < lengths[:, None]
    inside = scores.before.flat(close)
    table, gold = np.full(there.shape, -np.inf), np.zeros(there.shape, np.bool_)
    table[there], gold[there] = scores.before.values[inside], scores.is_gold[inside]
    if not len(close):
        return flips, changes
    rows, first = np.arange(len(close)), table.argmax(axis=1)
    both_ways = np.concatenate([noise, -noise])
    for draw in range(DRAWS):
        now = (table + both_ways[generator.integers(len(both_ways), size=there.shape)]).argmax(axis=1)
        flips[draw] = int((now != first).sum())
        changes[draw] = (int(gold[rows, now].sum()) - int(gold[rows, first].sum())) / len(was)
    return flips, changes


def _share(reached: NDArray[np.bool_]) -> float:
    """How often, the real one counted as a draw."""
    return float((1 + reached.sum()) / (len(reached) + 1))
