"""May this endpoint take the baseline's place? A policy, and each of its checks; pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from harness.comparison.findings import SEQUENCE, Findings, Row
from harness.comparison.verdicts import projection
from harness.comparison.words import points, size
from harness.errors import UsageError, check_margin, did_you_mean

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

    def __post_init__(self) -> None:
        """Refuse values that cannot be meant."""
        for margin in (self.margin, *(each.margin for each in self.tasks.values())):
            if margin is not None:
                check_margin("margin", margin)
        for coverage in (self.coverage, *(each.coverage for each in self.tasks.values())):
            if coverage is not None and not 0 <= coverage <= 1:
                raise UsageError(f"coverage {coverage:g}: must be between 0 and 1 (0.99 is 99 %)")


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
    """Hold a comparison against a policy: it passes where every check does, and there is one.

    Every task of the baseline is asked of every endpoint, and every task that the policy names.
    """
    named = dict.fromkeys((*findings.tasks, *policy.required, *policy.tasks))
    return [
        found
        for endpoint in policy.endpoints or findings.labels[1:]
        for task in named
        for found in _of_task(findings, policy, endpoint, task)
    ]


def passed(checks: Sequence[Check]) -> bool:
    """Whether the gate is: every check is, and there is one."""
    return bool(checks) and all(each.passed for each in checks)


def _of_task(findings: Findings, policy: Policy, endpoint: str, task: str) -> Iterator[Check]:
    asked = policy.tasks.get(task, TaskPolicy())
    rows = [
        row
        for row in findings.rows
        if (row.endpoint, row.level, row.task) == (endpoint, "task", task) and _is_asked(row, asked.metric)
    ]
    lost = sum((each.endpoint, each.place.task) == (endpoint, task) for each in findings.mismatches)
    for row in rows:
        yield _non_inferior(row, _or(asked.margin, policy.margin))
        yield _covered(row, _or(asked.coverage, policy.coverage), lost)
    if not rows:
        name = f"{task} {asked.metric} is compared" if asked.metric else f"{task} is compared"
        yield Check(endpoint, task, name, False, _why_missing(findings, endpoint, task, asked.metric))


def _why_missing(findings: Findings, endpoint: str, task: str, metric: str | None) -> str:
    """Why a task has no row to check, in words."""
    levels = {row.level for row in findings.rows if (row.endpoint, row.task) == (endpoint, task)}
    if "task" in levels:
        return f"the comparison has no {metric or 'headline metric'} of {task} on both"
    if "group" in levels:
        return f"{task} is a group of subjects; the gate looks at whole tasks"
    if task in findings.tasks:
        return f"{endpoint} has no item of {task} in common with {findings.labels[0]}"
    return f"no such task is compared. {did_you_mean(task, findings.tasks)}"


def _non_inferior(row: Row, margin: float) -> Check:
    """Shown to be worse by less than the margin: the one-sided 95 % interval ends above -margin."""
    name = f"{row.task} {row.statistic} is worse by less than {size(margin)}"
    passed = row.low_one_sided > -margin  # False for NaN: nothing shown, nothing passed
    if not row.n:
        return Check(row.endpoint, row.task, name, False, "no item is scored on both endpoints")
    worst = points(row.low_one_sided)
    count = f"{row.n:,} {'item' if row.n == 1 else 'items'}"
    measured = f"{points(row.difference)} points, at worst {worst} (one-sided 95 %), {count}"
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
    needed = math.inf if row.test == SEQUENCE else projection(row).to_exceed(-margin)
    if not math.isfinite(needed):
        return ""
    return f"; about {max(row.n + 1, round(needed)):,} items would show it"


def _is_asked(row: Row, metric: str | None) -> bool:
    return row.headline if metric is None else row.statistic == metric


def _or(own: float | None, general: float) -> float:
    return general if own is None else own
