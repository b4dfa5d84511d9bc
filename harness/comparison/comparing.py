"""Endpoints' columns to findings: every pair, part and statistic, corrected for their number; pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from harness.comparison.columns import Columns, TaskFacts
from harness.comparison.estimating import Draft, drafts, sections, statistics
from harness.comparison.flips import flips
from harness.comparison.matching import match
from harness.comparison.measures import Pair, pair_up
from harness.comparison.noise import NoiseFloor, noise_floor
from harness.comparison.paired import Integers
from harness.comparison.parts import Part, cluster_codes, parts
from harness.comparison.ranking import rankings
from harness.comparison.rows import Findings
from harness.comparison.verdicts import judged, suite_draft


def compare_columns(
    columns: Sequence[Columns], tasks: Sequence[TaskFacts], *, margin: float, remarks: Iterable[str] = ()
) -> Findings:
    """Compare the first endpoint with each of the others.

    Args:
        columns: the endpoints, the baseline first, labels all different.
        tasks: what they were asked, in the order of the tables.
        margin: a difference of a metric below this does not matter in practice (a fraction).
        remarks: what is already known to be worth saying.
    """
    baseline = columns[0]
    all_parts, codes = list(parts(baseline, tasks)), cluster_codes(baseline)
    noise = noise_floor(columns, all_parts, codes)
    pairs = [pair_up(match(baseline, other)) for other in columns[1:]]
    drafted = [draft for pair in pairs for draft in _of_pair(pair, all_parts, codes, noise, margin)]
    return Findings(
        labels=tuple(each.label for each in columns),
        margin=margin,
        rows=tuple(judged(drafted)),
        flips=tuple(flip for pair in pairs for flip in flips(pair, all_parts)),
        mismatches=tuple(each for pair in pairs for each in pair.matched.mismatches),
        rankings=tuple(rankings(pairs, all_parts, codes)),
        remarks=(*remarks, *noise.remarks),
    )


def _of_pair(
    pair: Pair, all_parts: Sequence[Part], codes: Integers, noise: NoiseFloor, margin: float
) -> Iterator[Draft]:
    """The suite's row, where there are several tasks, then those of its parts."""
    compared = statistics(pair)
    found = [
        draft
        for section in sections(pair, all_parts, codes)
        for draft in drafts(pair, section, compared, noise.of_difference(pair, section), margin)
    ]
    tasks = [each for each in found if each.row.level == "task" and each.row.headline and each.row.n]
    if len(tasks) > 1:
        yield suite_draft(tasks, margin)
    yield from found
