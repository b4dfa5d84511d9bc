"""The noise floor: what asking the same requests again changes; pure.

It is measured where an endpoint of a comparison stands in it twice (a replicate: the same SPEC given twice),
or where its run scored a sample of its items twice.
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

        Of an endpoint whose noise was not measured, the other's is taken; of a part of a task of which it was
        not, the whole task's.
        """
        ends = (pair.baseline.columns.identity, pair.other.columns.identity)
        part = section.part
        found: dict[str, float] = {}
        for statistic in {name for *_, name in self.variances}:
            for where in (part.key, (part.task.name, "", part.shots)):
                known = [self.variances.get((end, where, statistic), math.nan) for end in ends]
                measured = [each for each in known if not math.isnan(each)]
                if measured:
                    found[statistic] = 2 * sum(measured) / len(measured)
                    break
        return found


def noise_floor(
    columns: Sequence[Columns],
    all_parts: Sequence[Part],
    codes: Integers,
    repeats: Sequence[Columns] = (),
) -> NoiseFloor:
    """Compare each endpoint that stands here twice with itself, and each other one with its repeated items.

    The variance of one answer is half the mean squared difference of two.

    Args:
        columns: the endpoints.
        all_parts: of the first.
        codes: a cluster number for each item of the first.
        repeats: items that were scored a second time, under the label and identity of their endpoint.
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
    done = {identity for identity, *_ in variances}
    for identity, pair in _repeated(columns, repeats):
        if identity not in done:
            variances |= {(identity, *where): each for where, each in _of_tasks(pair, all_parts).items()}
            remarks.append(_remark_of_sample(pair))
    return NoiseFloor(variances, tuple(remarks))


def _repeated(columns: Sequence[Columns], repeats: Sequence[Columns]) -> Iterator[tuple[str, Pair]]:
    """Endpoints and what was scored of them a second time; of an endpoint that is here twice once."""
    originals = {(each.identity, each.replicate): each for each in reversed(columns)}
    for each in {each.identity: each for each in reversed(repeats)}.values():
        original = originals.get((each.identity, each.replicate))
        if each.identity and original is not None:
            pair = pair_up(match(original, each))
            if len(pair.scored):
                yield each.identity, pair


def _of_tasks(pair: Pair, all_parts: Sequence[Part]) -> dict[tuple[tuple[str, str, int], str], float]:
    """By task and statistic; a sample is too small for parts of tasks."""
    places = [pair.baseline.columns.places[at] for at in pair.baseline.at]
    found: dict[tuple[tuple[str, str, int], str], float] = {}
    for part in all_parts:
        if part.level != "task":
            continue
        inside = [at for at, each in enumerate(places) if (each.task, "", each.shots) == part.key]
        for each in statistics(pair):
            changes = each.values.change[inside]
            if each.directed and not np.isnan(changes).all():
                found[part.key, each.name] = float(np.nanmean(changes**2)) / 2
    return found


def _remark_of_sample(pair: Pair) -> str:
    shifts = np.abs(pair.other.sums.values - pair.baseline.sums.values)
    return (
        f"noise floor: {len(pair.scored):,} items of {pair.baseline.columns.label} were scored twice"
        f" (--repeat-sample); their sums differ by {float(shifts.max()):.2g} nats at most, and no interval is"
        " shorter than that noise allows"
    )


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
