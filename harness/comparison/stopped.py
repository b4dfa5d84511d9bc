"""What may be said of a run that stopped as soon as its comparison was decided; pure.

When it stopped depended on what came, so that errors, tests and intervals for a number of items that was
fixed beforehand promise too much. What takes their place, for values between 0 and 1, is the confidence
sequence that decided (`sequential`): it speaks of all items of the run, asked or not. Of everything else only
the values are told.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.comparison.columns import Columns
from harness.comparison.estimating import Draft, Section
from harness.comparison.findings import HEADLINE, SEQUENCE, Row
from harness.comparison.measures import Pair
from harness.comparison.ordering import random_order, shares, waiting_time
from harness.comparison.paired import Floats, Integers
from harness.comparison.sequential import Sequential
from harness.scoring.metrics import METRICS

_FIXED: Mapping[str, Any] = {
    **dict.fromkeys(("ci_low", "ci_high", "low_one_sided", "bootstrap_low", "bootstrap_high"), math.nan),
    **dict.fromkeys(("p_value", "p_mcnemar", "p_mcnemar_mid", "p_equivalent", "detectable"), math.nan),
    "test": "",
}
"""What of a row rests on a number of items that was fixed beforehand, as it is without."""


class Stopped:
    """One pair of which an endpoint, or both, stopped so."""

    def __init__(self, pair: Pair, margin: float) -> None:
        """Take the pair; `margin` as of the comparison."""
        matched = pair.matched
        self._baseline, self._other = matched.baseline, matched.other
        self._margin = margin
        self._other_at = np.full(len(self._baseline.places), -1)
        self._other_at[matched.at] = matched.other_at
        self._asked = self._asked_on_both()
        seeds = {each.stopped.seed for each in (self._baseline, self._other) if each.stopped}
        self._seed = seeds.pop() if len(seeds) == 1 else None
        """None where both stopped, in different orders: what both were asked is then no beginning."""
        self._times: Floats | None = None

    def drafts(self, found: Sequence[Draft], section: Section) -> Iterator[Draft]:
        """The rows of a section, with what may be said of them."""
        for draft in found:
            row = draft.row
            at = self._told_by(row.statistic, section.part.at)
            yield replace(draft, row=self._restated(row, at, [row.statistic] * len(at), np.zeros(len(at))))

    def suite(self, draft: Draft, sections: Sequence[Section]) -> Draft:
        """A row of the whole suite, likewise, given the sections of its tasks."""
        if draft.row.statistic != HEADLINE:
            return replace(draft, row=replace(draft.row, **_FIXED))
        names = [section.part.task.metrics[0] for section in sections]
        parts = [self._told_by(name, each.part.at) for name, each in zip(names, sections, strict=True)]
        at = np.concatenate(parts)
        tasks = np.repeat(np.arange(len(parts)), [len(each) for each in parts])
        return replace(draft, row=self._restated(draft.row, at, [names[each] for each in tasks], tasks))

    def _restated(self, row: Row, at: Integers, metrics: Sequence[str], tasks: NDArray[np.generic]) -> Row:
        """A row with the interval and p of its sequence, where there is one.

        Args:
            row: as it is without.
            at: positions of its items in the baseline's columns, asked or not.
            metrics: what is compared of each.
            tasks: of each, by number.
        """
        row = replace(row, **_FIXED)
        if not len(at) or self._seed is None:
            return row
        weights = shares(tasks.tolist())
        order = random_order(self._waiting()[at], weights)
        asked = self._asked[at[order]]
        taken = len(asked) if asked.all() else int(asked.argmin())
        first = order[:taken]
        before, after = self._values(at[first], [metrics[each] for each in first])
        sequence = Sequential(weights[order], margin=self._margin)
        sequence.add(_least(after) - _most(before), _most(after) - _least(before))
        state = sequence.state(whole=True)
        return replace(
            row,
            ci_low=state.low,
            ci_high=state.high,
            low_one_sided=state.low,
            test=SEQUENCE,
            p_value=state.p_value,
            p_equivalent=state.p_within,
        )

    def _told_by(self, metric: str, at: Integers) -> Integers:
        """Those of some items that a metric says anything of; none where it is no metric."""
        if metric not in self._baseline.values or metric not in self._other.values:
            return at[:0]
        return at[self._baseline.choice_bytes.lengths[at] >= METRICS[metric].fewest]

    def _values(self, at: Integers, metrics: Sequence[str]) -> tuple[Floats, Floats]:
        """Each item's value on both sides; NaN where it has none."""
        before, after = np.full(len(at), np.nan), np.full(len(at), np.nan)
        names = np.array(metrics)
        there = self._other_at[at]
        for name in set(metrics):
            own = names == name
            before[own] = self._baseline.values[name][at[own]]
            known = own & (there >= 0)
            after[known] = self._other.values[name][there[known]]
        return before, after

    def _asked_on_both(self) -> NDArray[np.bool_]:
        """By position in the baseline's columns; what cannot be joined counts as asked, and as unknown."""
        asked = _asked(self._baseline).copy()
        there = {place: at for at, place in enumerate(self._other.places)}
        of_other = _asked(self._other)
        for at, place in enumerate(self._baseline.places):
            found = there.get(place)
            asked[at] &= found is None or of_other[found]
        return asked

    def _waiting(self) -> Floats:
        if self._times is None:
            seed = self._seed or 0
            self._times = np.array(
                [waiting_time(seed, each.task, each.subject, each.index) for each in self._baseline.places]
            )
        return self._times


def remarks(stopped: Sequence[Columns], margin: float) -> Iterator[str]:
    """What a reader must know of endpoints that stopped so; `margin` as of the comparison."""
    if not stopped:
        return
    yield (
        f"{', '.join(each.label for each in stopped)}: asked only until a comparison was decided. Intervals"
        " and p are those of the sequence that decided: they speak of all items of the run, asked or not, and"
        " hold however often one looks. What has no such interval has no test and no verdict."
    )
    others = sorted({each.stopped.margin for each in stopped if each.stopped} - {margin})
    if others:
        own = " and ".join(f"{each:g}" for each in others)
        yield f"What they stopped for was decided with --margin {own}; here it is {margin:g}"


def _asked(columns: Columns) -> NDArray[np.bool_]:
    return columns.stopped.asked if columns.stopped else np.ones(len(columns.places), np.bool_)


def _least(values: Floats) -> Floats:
    return np.nan_to_num(values, nan=0.0)


def _most(values: Floats) -> Floats:
    return np.nan_to_num(values, nan=1.0)
