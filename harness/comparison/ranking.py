"""Many endpoints on one task: their order, and which of them are tied; pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import combinations

import numpy as np

from harness.comparison.estimating import change_test
from harness.comparison.families import holm, tied_sets
from harness.comparison.findings import Ranking
from harness.comparison.measures import Pair
from harness.comparison.paired import LEVEL, Floats, Integers
from harness.comparison.parts import Part


def rankings(pairs: Sequence[Pair], all_parts: Sequence[Part], codes: Integers) -> Iterator[Ranking]:
    """A ranking a task, by its headline, over the items that all endpoints have scored.

    Args:
        pairs: the baseline with each of the others; fewer than two are no field to rank.
        all_parts: of the baseline.
        codes: a cluster number for each item of the baseline.
    """
    if len(pairs) < 2:
        return
    names = [pairs[0].baseline.columns.label, *(pair.other.columns.label for pair in pairs)]
    for part in all_parts:
        metric = part.task.metrics[0]
        if part.level == "task" and all(metric in pair.other.columns.values for pair in pairs):
            values = _values(pairs, part, metric)
            kept = ~np.isnan(values).any(axis=0)
            if kept.any():
                yield _ranking(part.name, metric, names, values[:, kept], codes[part.at][kept])


def _values(pairs: Sequence[Pair], part: Part, metric: str) -> Floats:
    """Each endpoint's values of the part's items, shape (endpoints, items); NaN where there is none."""
    baseline = pairs[0].baseline.columns
    rows = [baseline.values[metric][part.at]]
    for pair in pairs:
        values = np.full(len(baseline.places), np.nan)
        values[pair.matched.at] = pair.other.columns.values[metric][pair.matched.other_at]
        rows.append(values[part.at])
    return np.stack(rows)


def _ranking(task: str, metric: str, names: Sequence[str], values: Floats, codes: Integers) -> Ranking:
    ends = list(combinations(range(len(names)), 2))
    p_values = np.array([change_test(values[b] - values[a], codes).p_value for a, b in ends])
    adjusted = holm(np.nan_to_num(p_values, nan=1.0))
    different = [
        (names[a], names[b]) for (a, b), p_value in zip(ends, adjusted, strict=True) if p_value < LEVEL
    ]
    means = dict(zip(names, values.mean(axis=1).tolist(), strict=True))
    ranked = sorted(names, key=lambda name: (-means[name], names.index(name)))
    return Ranking(
        task,
        metric,
        tuple((name, means[name]) for name in ranked),
        tuple(tied_sets(ranked, different)),
        math.comb(len(names), 2),
    )
