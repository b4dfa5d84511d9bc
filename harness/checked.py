"""The rows of a task, and those of its shots, all of them looked at before the first request."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.data.rows import RowSource, open_rows
from harness.data.survey import MEND, Survey, bad_rows_error, differences, survey
from harness.errors import UsageError
from harness.items import BadItem, Item
from harness.prompts import check_pools, pools_by_subject, question_of
from harness.task import Task


@dataclass(frozen=True, slots=True)
class Known:
    """What somebody else has found in the rows of a task."""

    revision: str
    """Of the rows, as `RowSource` has it: the same again are not looked at once more."""
    survey: Survey


NOTHING_KNOWN: Mapping[str, Known] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedTask:
    """The rows of a task and its shots, all of them looked at."""

    rows: RowSource
    survey: Survey
    pools: Mapping[str, Sequence[Item]]
    remarks: tuple[str, ...]
    """Where rows or shots differ from the published splits."""


def check_rows(
    task: Task,
    shots: int,
    data_dir: Path | None,
    take: Callable[[Item | BadItem], None],
    *,
    skip_bad_rows: bool = False,
    known: Known | None = None,
) -> CheckedTask:
    """Look at every row of a task, and at those of its shots, if it is asked with any.

    Args:
        task: the task.
        shots: how many each item gets.
        data_dir: as `open_rows` takes it.
        take: is given each item, or what stands for a bad row.
        skip_bad_rows: go on where rows are bad.
        known: what is known of the rows; if they still are the same, none is looked at, nor taken.

    Raises:
        UsageError: the data are unreadable, there are no rows, or too few shots.
        BadRows: rows that are no items, unless they are to be skipped; or shots that are none.
    """
    rows = open_rows(task, task.split, data_dir)
    pools, of_shots = shot_pools(task, data_dir) if shots else ({}, [])
    if known is not None and known.revision and known.revision == rows.revision:
        subjects = _subjects(known.survey)
        return CheckedTask(
            rows=rows, survey=known.survey, pools=for_subjects(pools, subjects), remarks=tuple(of_shots)
        )
    own = _OwnShots(pools if task.shots.never_own else {})

    def look(item: Item | BadItem) -> None:
        own.look(item)
        take(item)

    found = survey(task, rows, look)
    if found.n_bad and not skip_bad_rows:
        raise bad_rows_error(found)
    if not found.rows:
        raise UsageError(f"--tasks {task.name}: no rows in {rows.name}")
    subjects = _subjects(found)
    pools = for_subjects(pools, subjects)
    check_pools(task, shots, pools, subjects, own.most)
    remarks = (*differences(task, task.split, found), *of_shots)
    return CheckedTask(rows=rows, survey=found, pools=pools, remarks=remarks)


def _subjects(found: Survey) -> list[str]:
    """The subjects of a split."""
    return [each for each in found.counts if each] or list(found.counts)  # bad rows may have none


def shot_pools(task: Task, data_dir: Path | None) -> tuple[dict[str, list[Item]], list[str]]:
    """Items to draw shots from, by subject, and remarks on them.

    A bad row among them is an error whatever is skipped.
    """
    rows = open_rows(task, task.shots.split, data_dir)
    found = survey(task, rows)
    if found.n_bad:
        raise bad_rows_error(found, MEND)
    return pools_by_subject(task, rows), differences(task, task.shots.split, found)


def for_subjects(pools: dict[str, list[Item]], subjects: Iterable[str]) -> dict[str, list[Item]]:
    """The items to draw from of each subject; those that name no subject serve all."""
    return dict.fromkeys(subjects, pools[""]) if set(pools) == {""} else pools


class _OwnShots:
    """Counts how often items stand among those that their shots are drawn from.

    Attributes:
        most: of any item of a subject; subjects without such items are left out.
    """

    def __init__(self, pools: Mapping[str, Sequence[Item]]) -> None:
        """Count what is in the pools, by subject."""
        self._counts = {subject: Counter(map(question_of, pool)) for subject, pool in pools.items()}
        self.most: dict[str, int] = {}

    def look(self, item: Item | BadItem) -> None:
        """Take in an item."""
        subject = "" if set(self._counts) == {""} else item.subject
        if isinstance(item, BadItem) or subject not in self._counts:
            return
        if copies := self._counts[subject][question_of(item)]:
            self.most[item.subject] = max(copies, self.most.get(item.subject, 0))
