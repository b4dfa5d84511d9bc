"""The bootstrap: intervals of means without any formula for their error; pure."""

from __future__ import annotations

import math

import numpy as np

from harness.comparison.paired import LEVEL, Floats, Integers

RESAMPLES = 2000
"""Of the bootstrap."""
SEED = 20
"""Of the bootstrap: the same items give the same interval."""

_DRAWN = 1 << 20
"""Cluster counts drawn at a time: 8 MB."""


def bootstrap(values: Floats, codes: Integers) -> list[tuple[float, float]]:
    """95 % percentile intervals of means, resampling clusters (Efron 1979); NaN below two clusters.

    Args:
        values: differences, shape (series, n); NaN where there is none. All series share the draws, which
            keeps what belongs to one item together.
        codes: a cluster number an item, shape (n,).
    """
    kept, own = np.unique(codes, return_inverse=True)
    count = len(kept)
    if count < 2:
        return [(math.nan, math.nan)] * len(values)
    known = ~np.isnan(values)
    parts = [(np.where(there, each, 0.0), there) for each, there in zip(values, known, strict=True)]
    columns = np.stack([np.bincount(own, part) for pair in parts for part in pair], axis=1)
    generator = np.random.default_rng(SEED)
    rows = max(1, min(RESAMPLES, _DRAWN // count))
    totals = [
        _resample_counts(generator, count, min(rows, RESAMPLES - done)) @ columns
        for done in range(0, RESAMPLES, rows)
    ]
    drawn = np.concatenate(totals)
    enough = (columns[:, 1::2] > 0).sum(axis=0) > 1
    with np.errstate(invalid="ignore"):  # a draw without any item of a series has no mean
        means = np.where(enough, drawn[:, 0::2] / drawn[:, 1::2], np.nan)
    return [_middle(column[~np.isnan(column)]) for column in means.T]


def _resample_counts(generator: np.random.Generator, count: int, rows: int) -> Floats:
    """How often each cluster is drawn, a row a resample."""
    drawn = generator.integers(count, size=(rows, count))
    drawn += np.arange(rows)[:, None] * count
    return np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count).astype(np.float64)


def _middle(means: Floats) -> tuple[float, float]:
    """The percentile interval; NaN where there are no means."""
    if not len(means):
        return math.nan, math.nan
    low, high = np.quantile(means, (LEVEL / 2, 1 - LEVEL / 2))
    return float(low), float(high)
