"""The noise floor: what asking the same requests again changes; pure.

It is measured where an endpoint of a comparison stands in it twice (a replicate: the same SPEC given twice).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from harness.comparison.columns import Columns
from harness.comparison.estimating import Section, sections, statistics
from harness.comparison.matching import match
from harness.comparison.measures import Pair, pair_up
from harness.comparison.paired import Integers
from harness.comparison.parts import Part


@dataclass(frozen=True, slots=True)
class NoiseFloor:
    """Variances of one answer about its mean, as far as they were measured."""

    variances: Mapping[tuple[str, tuple[str, str, int], str], float]
    """By endpoint identity, part and statistic."""
    remarks: tuple[str, ...]

    def of_difference(self, pair: Pair, section: Section) -> dict[str, float]:
        """By statistic, the variance of a difference that noise alone gives.

        Of an endpoint whose noise was not measured, the other's is taken.
        """
        ends = (pair.baseline.columns.identity, pair.other.columns.identity)
        key = section.part.key
        found: dict[str, float] = {}
        for statistic in {name for _, where, name in self.variances if where == key}:
            known = [self.variances.get((end, key, statistic), math.nan) for end in ends]
            measured = [each for each in known if not math.isnan(each)]
            if measured:
                found[statistic] = 2 * sum(measured) / len(measured)
        return found


def noise_floor(columns: Sequence[Columns], all_parts: Sequence[Part], codes: Integers) -> NoiseFloor:
    """Compare each endpoint that stands here twice with itself.

    The variance of one answer is half the mean squared difference of two.

    Args:
        columns: the endpoints.
        all_parts: of the first.
        codes: a cluster number for each item of the first.
    """
    variances: dict[tuple[str, tuple[str, str, int], str], float] = {}
    remarks: list[str] = []
    for identity, pair in _replicates(columns):
        compared = [each for each in statistics(pair) if each.directed]
        for section in sections(pair, all_parts, codes):
            for each in compared:
                changes = each.values.change[section.scored]
                if not np.isnan(changes).all():
                    variances[identity, section.part.key, each.name] = float(np.nanmean(changes**2)) / 2
        remarks.append(_remark(pair))
    return NoiseFloor(variances, tuple(remarks))


def _replicates(columns: Sequence[Columns]) -> Iterator[tuple[str, Pair]]:
    """The first two of each endpoint that stands here more than once."""
    first: dict[str, Columns] = {}
    done: set[str] = set()
    for each in columns:
        original = first.setdefault(each.identity, each)
        asked_again = each.identity and each.replicate != original.replicate
        if asked_again and each.identity not in done:
            done.add(each.identity)
            yield each.identity, pair_up(match(original, each))


def _remark(pair: Pair) -> str:
    ends = f"{pair.baseline.columns.label} and {pair.other.columns.label}"
    shifts = np.abs(pair.other.sums.values - pair.baseline.sums.values)
    largest = float(shifts.max()) if len(shifts) else math.nan
    return (
        f"noise floor: {ends} are one endpoint asked twice; its sums differ by {largest:.2g} nats at most,"
        " and no interval is shorter than that noise allows"
    )
