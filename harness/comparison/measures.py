"""What is compared of two endpoints, item by item: one function and one row of a table each; pure.

A measure gives each item's value on both sides, or only a distance between them. All are in nats or
fractions, and need nothing but stored sums (`token_shift`: stored token log-probabilities).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.comparison.columns import Columns
from harness.comparison.matching import Matched
from harness.comparison.paired import Floats
from harness.comparison.ragged import Ragged


@dataclass(frozen=True, slots=True)
class Side:
    """One endpoint's part of a pair: the items that both have scored, in the baseline's order."""

    columns: Columns
    at: NDArray[np.int64]
    sums: Ragged[np.float64]
    is_gold: NDArray[np.bool_]
    """Whether each choice is right; stands as `sums.values` does."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Two endpoints' items, joined, and those of them that both have scored."""

    matched: Matched
    scored: NDArray[np.int64]
    """Which of the matched items both have scored: positions in `matched.at`. A metric may still lack a value
    there, where something that it needs beside was not to be had."""
    baseline: Side
    other: Side


@dataclass(frozen=True, slots=True)
class Values:
    """A measure of each item that both endpoints have scored; NaN where it has none."""

    change: Floats
    """Other minus baseline, or the distance between them."""
    baseline: Floats | None = None
    """The value on either side; None where there is only a distance."""
    other: Floats | None = None
    sizes: Floats | None = None
    """What each item counts for in the mean; None: 1."""
    largest: Floats | None = None
    """The largest distance inside each item, where `change` is a sum or mean of several."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One thing that is compared beside the metrics."""

    name: str
    unit: str
    values: Callable[[Pair], Values]
    directed: bool
    """More is better; else it is a distance, which has no sign and no test."""


def pair_up(matched: Matched) -> Pair:
    """Take the matched items that both endpoints have scored."""
    both = matched.baseline.scored[matched.at] & matched.other.scored[matched.other_at]
    scored = np.flatnonzero(both)
    return Pair(
        matched,
        scored,
        side_of(matched.baseline, matched.at[scored]),
        side_of(matched.other, matched.other_at[scored]),
    )


def metric_values(pair: Pair, metric: str) -> Values:
    """Each item's value by a metric of `harness.scoring`; NaN where its task does not report it."""
    before, after = (side.columns.values[metric][side.at] for side in (pair.baseline, pair.other))
    return Values(after - before, before, after)


def gold_logprob(pair: Pair) -> Values:
    """Log-probability of the right choice; of several, of any of them (nats)."""
    return _both(pair, _gold_logprob)


def margin(pair: Pair) -> Values:
    """By how much the likeliest right choice is ahead of the likeliest wrong one (nats)."""
    return _both(pair, margins)


def margins(side: Side) -> Floats:
    """Of each item, on one side (nats); NaN where every choice is right."""
    return ahead(side.sums, side.is_gold)


def ahead(sums: Ragged[np.float64], is_gold: NDArray[np.bool_]) -> Floats:
    """By how much the likeliest right choice of each item is ahead of the likeliest wrong one (nats); NaN
    where every choice is right. No item may be without choices."""
    right = sums.within(np.maximum, np.where(is_gold, sums.values, -np.inf))
    wrong = sums.within(np.maximum, np.where(is_gold, -np.inf, sums.values))
    return np.where(np.isfinite(wrong), right - wrong, np.nan)


def confidences(side: Side) -> Floats:
    """The probability, among an item's choices, of the likeliest of them: from 1 over their number to 1."""
    return np.asarray(np.exp(side.sums.within(np.maximum, _log_softmax(side.sums))))


def divergence(pair: Pair) -> Values:
    """Symmetric Kullback-Leibler divergence of the two distributions over the choices (nats).

    ½ Σ_j (p_j - q_j)(log p_j - log q_j): the mean of KL(p, q) and KL(q, p), where p and q are the softmax of
    the sums (Jeffreys 1946, halved).
    """
    logs, other_logs = (_log_softmax(side.sums) for side in (pair.baseline, pair.other))
    terms = (np.exp(logs) - np.exp(other_logs)) * (logs - other_logs) / 2
    return Values(pair.baseline.sums.within(np.add, terms))


def token_shift(pair: Pair) -> Values:
    """By how much the log-probability of a forced token differs, whatever the sign (nats a token).

    The mean is over tokens. NaN where token log-probabilities are not at hand, or the forced ids differ
    (another tokenizer).
    """
    count = len(pair.scored)
    tokens, other_tokens = pair.baseline.columns.tokens, pair.other.columns.tokens
    if tokens is None or other_tokens is None or not count:
        return Values(np.full(count, np.nan))
    choices = pair.baseline.columns.sums.flat(pair.baseline.at)
    other_choices = pair.other.columns.sums.flat(pair.other.at)
    item = pair.baseline.sums.spread(np.arange(count))
    alike = tokens.ids[choices] == other_tokens.ids[other_choices]
    usable = np.bincount(item, ~alike, count) == 0
    of_choice = usable[item]
    logs, other_logs = (
        each.logprobs.take(at[of_choice]) for each, at in ((tokens, choices), (other_tokens, other_choices))
    )
    shifts = np.abs(other_logs.values - logs.values)
    of_token = logs.spread(item[of_choice])
    largest = np.zeros(count)
    np.maximum.at(largest, of_token, shifts)
    total, number = np.bincount(of_token, shifts, count), np.bincount(of_token, minlength=count)
    return Values(
        np.where(usable, total, np.nan),
        sizes=number.astype(np.float64),
        largest=np.where(usable, largest, np.nan),
    )


MEASURES: Sequence[Measure] = (
    Measure("gold_logprob", "nats", gold_logprob, directed=True),
    Measure("margin", "nats", margin, directed=True),
    Measure("divergence", "nats", divergence, directed=False),
    Measure("token_shift", "nats", token_shift, directed=False),
)
"""All that is compared beside the metrics, in the order in which files list it."""


def side_of(columns: Columns, at: NDArray[np.int64]) -> Side:
    """One endpoint's part of a pair: some of its items, all of them scored."""
    sums = columns.sums.take(at)
    return Side(columns, at, sums, golds_among(sums, columns.gold.take(at)))


def golds_among(sums: Ragged[np.float64], gold: Ragged[Any]) -> NDArray[np.bool_]:
    """Whether each choice is right; stands as the values of the sums do."""
    found = np.zeros(len(sums.values), np.bool_)
    found[gold.spread(sums.starts) + gold.values] = True
    return found


def _both(pair: Pair, value: Callable[[Side], Floats]) -> Values:
    before, after = value(pair.baseline), value(pair.other)
    return Values(after - before, before, after)


def _gold_logprob(side: Side) -> Floats:
    return _log_total(side.sums, np.where(side.is_gold, side.sums.values, -np.inf))


def _log_softmax(sums: Ragged[np.float64]) -> Floats:
    return np.asarray(sums.values - sums.spread(_log_total(sums, sums.values)))


def _log_total(sums: Ragged[np.float64], logs: Floats) -> Floats:
    """log Σ exp within each item, safe for sums far below 0."""
    highest = sums.within(np.maximum, logs)
    return np.asarray(highest + np.log(sums.within(np.add, np.exp(logs - sums.spread(highest)))))
