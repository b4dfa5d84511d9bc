"""May this endpoint take the baseline's place? A policy, and each of its checks; pure."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.comparison.findings import Findings, Row
from harness.comparison.verdicts import projection
from harness.comparison.words import points, size

COVERAGE = 0.99
"""Share of items that both endpoints must have scored, unless the policy says otherwise."""


@dataclass(frozen=True, slots=True)
class TaskPolicy:
    """What one task asks for; None: as the policy says for all."""

    margin: float | None = None
    coverage: float | None = None
    metric: str | None = None
    """None: the task's headline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What an endpoint must show to pass."""

    margin: float
    """It must be shown to be worse by less than this (a fraction)."""
    coverage: float = COVERAGE
    required: Sequence[str] = ()
    """Tasks without which nothing passes."""
    endpoints: Sequence[str] = ()
    """Who has to pass; empty: everyone but the baseline."""
    tasks: Mapping[str, TaskPolicy] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was asked of one endpoint."""

    endpoint: str
    task: str
    name: str
    """In words, the same from run to run: CI systems list checks by it."""
    passed: bool
    message: str


def check(findings: Findings, policy: Policy) -> list[Check]:
    """Hold a comparison against a policy: it passes where every check does, and there is one."""
    checks: list[Check] = []
    for endpoint in policy.endpoints or findings.labels[1:]:
        checks += _of_endpoint(findings, policy, endpoint)
    return checks


def _of_endpoint(findings: Findings, policy: Policy, endpoint: str) -> Iterator[Check]:
    rows = [row for row in findings.rows if row.endpoint == endpoint and row.level == "task"]
    there = dict.fromkeys(row.task for row in rows)
    missing = [name for name in dict.fromkeys((*policy.required, *policy.tasks)) if name not in there]
    lost = Counter(each.place.task for each in findings.mismatches if each.endpoint == endpoint)
    for task in there:
        asked = policy.tasks.get(task, TaskPolicy())
        chosen = [row for row in rows if row.task == task and _is_asked(row, asked.metric)]
        for row in chosen:
            yield _non_inferior(row, _or(asked.margin, policy.margin))
            yield _covered(row, _or(asked.coverage, policy.coverage), lost[task])
        if not chosen:
            why = f"the comparison has no {asked.metric} for {task}"
            yield Check(endpoint, task, f"{task} {asked.metric} is compared", False, why)
    for task in missing:
        why = f"the policy asks for {task}, and the comparison has none of its items"
        yield Check(endpoint, task, f"{task} is compared", False, why)


def _non_inferior(row: Row, margin: float) -> Check:
    """Shown to be worse by less than the margin: the one-sided 95 % interval ends above -margin."""
    name = f"{row.task} {row.statistic} is worse by less than {size(margin)}"
    passed = row.low_one_sided > -margin  # False for NaN: nothing shown, nothing passed
    if not row.n:
        return Check(row.endpoint, row.task, name, False, "no item is scored on both endpoints")
    worst = points(row.low_one_sided)
    measured = f"{points(row.difference)} points, at worst {worst} (one-sided 95 %), {row.n:,} items"
    if passed:
        return Check(row.endpoint, row.task, name, True, measured)
    if row.ci_high < -margin:
        return Check(row.endpoint, row.task, name, False, f"worse by more than that: {measured}")
    return Check(row.endpoint, row.task, name, False, f"not shown: {measured}{_would_show(row, margin)}")


def _covered(row: Row, wanted: float, lost: int) -> Check:
    items = row.n + row.unscored + lost
    share = row.n / items if items else 0.0
    name = f"{row.task} has {100 * wanted:g} % of its items scored on both"
    message = f"{row.n:,} of {items:,} items ({100 * share:.2f} %)"
    return Check(row.endpoint, row.task, name, share >= wanted, message)


def _would_show(row: Row, margin: float) -> str:
    """How many items would show it, if the measured difference is the true one."""
    needed = projection(row).to_exceed(-margin)
    if not math.isfinite(needed):
        return ""
    return f"; about {max(row.n + 1, round(needed)):,} items would show it"


def _is_asked(row: Row, metric: str | None) -> bool:
    return row.headline if metric is None else row.statistic == metric


def _or(own: float | None, general: float) -> float:
    return general if own is None else own
