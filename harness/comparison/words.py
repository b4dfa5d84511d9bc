"""Verdicts for a reader without statistics, one sentence each; pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from harness.comparison.findings import Findings, Ranking, Row
from harness.comparison.verdicts import HOLM, decisive_p


def headlines(findings: Findings) -> list[Row]:
    """The rows that people read first: the suite, tasks and groups by their headline, pair by pair."""
    return [row for row in findings.rows if row.headline and row.level != "subject"]


def sentences(findings: Findings) -> Iterator[str]:
    """The verdict on the suite and each task, then what is tied."""
    for row in headlines(findings):
        if row.level == "suite":
            yield sentence(row, where=f"over the suite (mean of {_tasks_of(findings, row)} tasks)")
        elif row.level == "task":
            yield sentence(row, where=f"on {row.task} ({row.statistic})")
    for ranking in findings.rankings:
        yield tied_sentence(ranking)


def families(findings: Findings) -> str:
    """How the p-values of the table are corrected, and for how many comparisons."""
    sizes = {row.level: row.family for row in headlines(findings) if row.family}
    told = [
        f"{'Holm' if level in HOLM else 'Benjamini-Hochberg'} over {_many(sizes[level], level)}"
        for level in ("suite", "task", "group")
        if level in sizes
    ]
    return f"p is corrected for many comparisons: {', '.join(told)}." if told else ""


def _many(size: int, level: str) -> str:
    return f"1 {level} row" if size == 1 else f"{size:,} {level} rows"


def sentence(row: Row, *, where: str) -> str:
    """One row in words."""
    endpoint, baseline = row.endpoint, row.baseline
    if not row.n:
        return f"{endpoint} and {baseline} have no scored item in common {where}."
    if not row.verdict:
        return f"{endpoint} and {baseline} {where}: so few items say nothing."
    found = f"{points(row.difference)} points, "
    if math.isnan(row.ci_low):
        found += "too few clusters for an interval"
    else:
        found += f"95 % interval {points(row.ci_low)} to {points(row.ci_high)}"
    if row.wrong_to_right is not None:
        found += f"; {row.wrong_to_right:,} became right, {row.right_to_wrong or 0:,} wrong"
    if row.verdict == "equivalent":
        return f"{endpoint} and {baseline} are equivalent within {size(row.margin)} {where}: {found}."
    if row.verdict == "undecided":
        return f"Undecided between {endpoint} and {baseline} {where}: {found}. {_needed(row)}"
    within = max(abs(row.ci_low), abs(row.ci_high)) < row.margin
    aside = f", though by less than {size(row.margin)}," if within else ""
    return f"{endpoint} is {row.verdict} than {baseline}{aside} {where}: {found}; {_p(row)}."


def tied_sentence(ranking: Ranking) -> str:
    """The order of all endpoints on one task, and which are not shown to differ."""
    order = ", ".join(f"{name} {value:.4f}" for name, value in ranking.values)
    sets = " | ".join(", ".join(names) for names in ranking.tied)
    if len(ranking.tied) == 1:
        told = "no two are shown to differ"
    else:
        told = f"within each of these sets no two are shown to differ: {sets}"
    return f"{ranking.task} ({ranking.metric}): {order}; {told} (Holm over {ranking.family} pairs)."


def points(fraction: float) -> str:
    """A difference in percentage points, with its sign."""
    if math.isnan(fraction):
        return "unknown"
    return f"{100 * fraction:+.2f}".replace("-", "\N{MINUS SIGN}")


def size(fraction: float) -> str:
    """A margin in percentage points."""
    return f"{100 * fraction:g} point" + ("" if fraction == 0.01 else "s")


def p_number(p_value: float) -> str:
    """A p-value as people write it behind a p: "= 0.031", "< 0.0001"."""
    return "< 0.0001" if p_value < 0.0001 else f"= {p_value:.{4 if p_value < 0.01 else 3}f}"


def _tasks_of(findings: Findings, suite: Row) -> int:
    """How many tasks a suite's row is the mean of."""
    return sum(
        row.endpoint == suite.endpoint and row.level == "task" and row.headline and row.n > 0
        for row in findings.rows
    )


def _p(row: Row) -> str:
    text = f"p {p_number(decisive_p(row))}"
    if row.family is None or row.family == 1:
        return text
    return f"{text} after correction for {row.family} comparisons"


def _needed(row: Row) -> str:
    """How many items would decide, and what those at hand can show at all."""
    if math.isnan(row.detectable):
        return "Ask more of them."
    if row.items_needed is None:
        return "No number of items would decide a difference that is just the margin."
    count, found = _round_up(row.items_needed), points(row.detectable).removeprefix("+")
    here = f"show {found} points or more" if row.detectable < 1 else "show nothing"
    return f"About {count:,} items would decide it; the {row.n:,} here {here}."


def _round_up(count: int) -> int:
    """To two digits, upwards."""
    step = int(10 ** max(0, len(str(count)) - 2))
    return -(-count // step) * step
