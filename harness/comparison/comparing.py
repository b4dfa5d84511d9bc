"""Endpoints' columns to findings: every pair, part and statistic, corrected for their number; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from harness.comparison.columns import Columns, TaskFacts
from harness.comparison.estimating import Draft, Section, Statistic, drafts, sections, statistics
from harness.comparison.findings import Findings
from harness.comparison.flips import flips
from harness.comparison.matching import match, mismatch_summary
from harness.comparison.measures import Pair, pair_up
from harness.comparison.noise import NoiseFloor, noise_floor
from harness.comparison.paired import Floats, Integers
from harness.comparison.parts import Part, cluster_codes, parts
from harness.comparison.ranking import rankings
from harness.comparison.resampling import bootstrap
from harness.comparison.stopped import Stopped
from harness.comparison.stopped import remarks as told_of
from harness.comparison.verdicts import judged, suite_drafts
from harness.errors import UsageError

Resampled = Mapping[tuple[int, tuple[str, str, int], str], tuple[float, float]]
"""Bootstrap intervals by number of the pair, part and statistic."""


@dataclass(frozen=True, slots=True)
class _Compared:
    """One pair with all that is compared of it."""

    number: int
    pair: Pair
    sections: Sequence[Section]
    statistics: Sequence[Statistic]


def compare_columns(
    columns: Sequence[Columns],
    tasks: Sequence[TaskFacts],
    *,
    margin: float,
    common_only: bool = True,
    remarks: Iterable[str] = (),
    repeats: Sequence[Columns] = (),
) -> Findings:
    """Compare the first endpoint with each of the others.

    Args:
        columns: the endpoints, the baseline first, labels all different.
        tasks: what they were asked, in the order of the tables.
        margin: a difference of a metric below this does not matter in practice (a fraction).
        common_only: leave out items that cannot be joined.
        remarks: what is already known to be worth saying.
        repeats: items that were scored a second time, under the label and identity of their endpoint.

    Raises:
        UsageError: items cannot be joined, and are not to be left out.
    """
    baseline, stopped = columns[0], [each for each in columns if each.stopped is not None]
    matched = [match(baseline, other) for other in columns[1:]]
    mismatches = tuple(mismatch for each in matched for mismatch in each.mismatches)
    if mismatches and not common_only:
        told = "; ".join(mismatch_summary(mismatches)[:3])
        raise UsageError(f"compare: items do not match: {told}. --common-only compares the others")
    all_parts, codes = list(parts(baseline, tasks)), cluster_codes(baseline)
    noise = noise_floor(columns, all_parts, codes, repeats)
    pairs = [pair_up(each) for each in matched]
    compared = [
        _Compared(number, pair, list(sections(pair, all_parts, codes)), statistics(pair))
        for number, pair in enumerate(pairs)
    ]
    resampled = _resampled(compared, all_parts, codes)
    drafted = [draft for each in compared for draft in _drafts(each, noise, resampled, margin)]
    return Findings(
        labels=tuple(each.label for each in columns),
        tasks=tuple(dict.fromkeys(part.task.name for part in all_parts)),
        margin=margin,
        rows=tuple(judged([draft.row for draft in drafted])),
        flips=tuple(flip for pair in pairs for flip in flips(pair, all_parts)),
        mismatches=mismatches,
        rankings=() if stopped else tuple(rankings(pairs, all_parts, codes)),
        remarks=(*remarks, *noise.remarks, *told_of(stopped, margin)),
    )


def _drafts(compared: _Compared, noise: NoiseFloor, resampled: Resampled, margin: float) -> Iterator[Draft]:
    """The suite's rows, where there are several tasks, then those of its parts."""
    pair = compared.pair
    stopped = Stopped(pair, margin) if _is_stopped(pair) else None
    found: list[Draft] = []
    for section in compared.sections:
        noise_here = noise.of_difference(pair, section)
        for draft in drafts(pair, section, compared.statistics, noise_here, margin):
            key = (compared.number, section.part.key, draft.row.statistic)
            low, high = resampled.get(key, (math.nan, math.nan))
            row = replace(draft.row, bootstrap_low=low, bootstrap_high=high)
            found.append(replace(draft, row=row))
    whole = suite_drafts(found, margin)
    if stopped:
        tasks = [each for each in compared.sections if each.part.level == "task" and len(each.scored)]
        whole = (stopped.suite(each, tasks) for each in list(whole))
        parts = [(section, _of(found, section)) for section in compared.sections]
        found = [each for section, own in parts for each in stopped.drafts(own, section)]
    yield from whole
    yield from found


def _of(found: Sequence[Draft], section: Section) -> list[Draft]:
    """The drafts of a section."""
    part = section.part
    place = part.level, part.name, part.subject, part.shots
    rows = ((draft, draft.row) for draft in found)
    return [draft for draft, row in rows if (row.level, row.task, row.subject, row.shots) == place]


def _is_stopped(pair: Pair) -> bool:
    return any(side.columns.stopped is not None for side in (pair.baseline, pair.other))


def _resampled(compared: Sequence[_Compared], all_parts: Sequence[Part], codes: Integers) -> Resampled:
    """Bootstrap all pairs and statistics of a part together: what is drawn is the same for all of them."""
    series: list[tuple[int, Statistic, Floats]] = []
    for each in compared:
        for statistic in each.statistics:
            if statistic.directed:
                changes = np.full(len(codes), np.nan)
                changes[each.pair.baseline.at] = statistic.values.change
                series.append((each.number, statistic, changes))
    found: dict[tuple[int, tuple[str, str, int], str], tuple[float, float]] = {}
    for part in all_parts:
        told = [each for each in series if each[1].is_told_of(part)]
        intervals = bootstrap(np.stack([changes[part.at] for _, _, changes in told]), codes[part.at])
        for (number, statistic, _), interval in zip(told, intervals, strict=True):
            found[number, part.key, statistic.name] = interval
    return found
