"""Rows to verdicts: the suite's row, the correction for a family, and the words; pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from harness.comparison.estimating import Draft, Test, with_test
from harness.comparison.families import benjamini_hochberg, holm
from harness.comparison.findings import HEADLINE, SEQUENCE, Row, Verdict
from harness.comparison.paired import LEVEL, MeanError, Projection

HOLM = ("suite", "task")
"""Levels whose verdicts rest on Holm's correction: a release may depend on them."""


def suite_drafts(drafts: Sequence[Draft], margin: float) -> Iterator[Draft]:
    """The rows of a whole suite, out of one pair's rows: one of the headlines, and one of each measure.

    Tasks without a scored item in common are no part of it; it takes two tasks.
    """
    by_statistic: defaultdict[str, list[Draft]] = defaultdict(list)
    for draft in drafts:
        row = draft.row
        if row.level == "task" and row.n and (row.headline or math.isnan(row.margin)):
            by_statistic[HEADLINE if row.headline else row.statistic].append(draft)
    for statistic, of_tasks in by_statistic.items():
        if len(of_tasks) > 1:
            yield _suite_draft(statistic, of_tasks, margin)


def _suite_draft(statistic: str, tasks: Sequence[Draft], margin: float) -> Draft:
    """The mean over tasks, each weighing the same.

    Tasks are taken as independent: the error is sqrt(Σ stderr²) / T, with Satterthwaite's degrees of freedom.
    """
    rows, errors = [each.row for each in tasks], [each.error for each in tasks]
    error = _mean_of([each.mean for each in errors], [each.stderr for each in errors], errors)
    plain = _mean_of([each.difference for each in rows], [each.stderr for each in rows], errors)
    row = Row(
        baseline=rows[0].baseline,
        endpoint=rows[0].endpoint,
        level="suite",
        task="",
        statistic=statistic,
        unit=rows[0].unit,
        headline=statistic == HEADLINE,
        n=sum(row.n for row in rows),
        unscored=sum(row.unscored for row in rows),
        clusters=sum(row.clusters for row in rows),
        baseline_value=_average(row.baseline_value for row in rows),
        value=_average(row.value for row in rows),
        difference=plain.mean,
        stderr=plain.stderr,
        largest=max(row.largest for row in rows),
    )
    if rows[0].test:
        row = with_test(row, error, Test("t", error.p_differs()))
    return Draft(_with_flips_of(row, rows, error, margin) if row.headline else row, error)


def _with_flips_of(row: Row, tasks: Sequence[Row], error: MeanError, margin: float) -> Row:
    """The suite's headline with the flips and bounds of its tasks, and whether it lies within the margin."""
    return replace(
        row,
        low_bound=_average(each.low_bound for each in tasks),
        high_bound=_average(each.high_bound for each in tasks),
        wrong_to_right=_total(each.wrong_to_right for each in tasks),
        right_to_wrong=_total(each.right_to_wrong for each in tasks),
        wrong_to_wrong=_total(each.wrong_to_wrong for each in tasks),
        agreement=sum(each.agreement * each.n for each in tasks) / row.n,
        margin=margin,
        p_equivalent=error.p_within(margin),
    )


def _total(counts: Iterable[int | None]) -> int | None:
    """The sum; None where one of them has no such count."""
    found = list(counts)
    known = [each for each in found if each is not None]
    return sum(known) if len(known) == len(found) else None


def judged(rows: Sequence[Row]) -> Iterator[Row]:
    """Correct the p-values of each family, and say what follows.

    A family is all rows of one level (suite, task, group, subject) and statistic, over all pairs; the
    headlines of all tasks are one statistic.
    """
    families: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for position, row in enumerate(rows):
        if not math.isnan(row.p_value):
            families[row.level, HEADLINE if row.headline else row.statistic].append(position)
    corrected: dict[int, Row] = {}
    for positions in families.values():
        p_values = np.array([rows[position].p_value for position in positions])
        both = zip(positions, holm(p_values).tolist(), benjamini_hochberg(p_values).tolist(), strict=True)
        for position, p_holm, p_bh in both:
            row = replace(rows[position], family=len(positions), p_holm=p_holm, p_bh=p_bh)
            corrected[position] = _with_verdict(row)
    for position, row in enumerate(rows):
        yield corrected.get(position, row)


def decisive_p(row: Row) -> float:
    """The p that the verdict rests on: Holm's for suites and tasks, BH's where one only explores."""
    return row.p_holm if row.level in HOLM else row.p_bh


def projection(row: Row) -> Projection:
    """What more items like those of a row would show."""
    errors = [each for each in (row.stderr, row.noise_stderr) if not math.isnan(each)]
    variance = row.n * max(errors) ** 2 if errors and not math.isnan(row.stderr) else math.nan
    return Projection(row.difference, variance, flips=row.test in ("mcnemar", "sign_flip"))


def _with_verdict(row: Row) -> Row:
    verdict: Verdict = "undecided"
    if decisive_p(row) < LEVEL and row.difference:
        verdict = "better" if row.difference > 0 else "worse"
    elif row.p_equivalent < LEVEL:
        verdict = "equivalent"
    needed = None if row.test == SEQUENCE else _items_that_decide(row)
    if verdict == "undecided" and needed is not None:
        needed = max(needed, row.n + 1)  # power is reckoned with z; the test itself may ask for a few more
    return replace(row, verdict=verdict, items_needed=needed)


def _items_that_decide(row: Row) -> int | None:
    """How many items would show such a difference, or equivalence, at 80 % power; None: no number would."""
    ahead = projection(row)
    needed = ahead.to_differ(LEVEL / (row.family or 1))
    if not math.isnan(row.margin):
        needed = min(needed, ahead.to_lie_within(row.margin))
    return int(needed) if math.isfinite(needed) else None


def _mean_of(means: Sequence[float], stderrs: Sequence[float], errors: Sequence[MeanError]) -> MeanError:
    variances = np.square(stderrs)
    total = float(variances.sum())
    shares = float(sum(v * v / e.df for v, e in zip(variances, errors, strict=True) if e.df > 0))
    count = len(means)
    return MeanError(
        sum(means) / count, math.sqrt(total) / count, total * total / shares if shares else math.nan
    )


def _average(values: Iterable[float]) -> float:
    held = list(values)
    return sum(held) / len(held)
