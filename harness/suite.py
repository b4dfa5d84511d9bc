"""The suite: which items a run asks for, checked before the first request, and their prompts as a stream.

Preparing reads every row once (a bad one is found now, not at three in the morning); the prompts are then
made anew, in order, each time they are iterated, so that memory does not grow with the suite.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.items import BadItem, Item
from harness.plan import listed
from harness.prompts import Prompt, Selection, check_pools, pools_by_subject, prompts
from harness.registry import load_task
from harness.rows import RowSource, open_rows
from harness.scores import ItemRecord
from harness.survey import Survey, bad_rows_error, differences, survey
from harness.tables import TaskTable
from harness.task import Task


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedTask:
    """One task of a suite, its rows checked and its items chosen."""

    task: Task
    shots: int
    rows: RowSource
    survey: Survey
    pools: Mapping[str, Sequence[Item]]
    chosen: Mapping[str, Collection[int]]
    remarks: tuple[str, ...]
    """What a reader must know of the rows: where they differ from the published splits."""

    def prompts(self) -> Iterator[Prompt | BadItem]:
        """The prompts of the chosen items, in file order."""
        return prompts(self.task, self.rows, shots=self.shots, pools=self.pools, chosen=self.chosen)

    @property
    def size(self) -> int:
        """How many items are asked for."""
        return sum(len(indices) for indices in self.chosen.values())


@dataclass(frozen=True, slots=True)
class Suite:
    """Everything a run asks, endpoint aside."""

    tasks: tuple[PreparedTask, ...]

    def prompts(self) -> Iterator[tuple[int, Prompt | BadItem]]:
        """All prompts with their ordinals, tasks in the order given."""
        ordinal = 0
        for task in self.tasks:
            for prompt in task.prompts():
                yield ordinal, prompt
                ordinal += 1

    def records(self) -> Iterator[ItemRecord]:
        """What is asked for, before anything is planned: the items of the journal."""
        shots = {task.task.name: task.shots for task in self.tasks}
        for ordinal, prompt in self.prompts():
            task = prompt.task if isinstance(prompt, BadItem) else prompt.item.task
            yield listed(prompt, ordinal, shots[task])

    @property
    def size(self) -> int:
        """How many items are asked for."""
        return sum(task.size for task in self.tasks)

    def tables(self) -> list[TaskTable]:
        """What the result tables need to know of the tasks."""
        return [
            TaskTable(
                name=prepared.task.name,
                shots=prepared.shots,
                metrics=prepared.task.metrics,
                groups=prepared.task.groups,
            )
            for prepared in self.tasks
        ]


def prepare_suite(
    names: Sequence[str],
    *,
    shots: int | None,
    data_dir: Path | None,
    selection: Selection,
    skip_bad_rows: bool,
) -> Suite:
    """Load and check the tasks of a run.

    Raises:
        UsageError: unknown task, unreadable data, too few shots.
        BadRows: rows that are no items, unless they are to be skipped.
    """
    tasks = [load_task(name) for name in names]
    return Suite(tuple(_prepare(task, shots, data_dir, selection, skip_bad_rows) for task in tasks))


def _prepare(
    task: Task, shots: int | None, data_dir: Path | None, selection: Selection, skip_bad_rows: bool
) -> PreparedTask:
    rows = open_rows(task, task.split, data_dir)
    found = survey(task, rows)
    if found.n_bad and not skip_bad_rows:
        raise bad_rows_error(found)
    if not found.rows:
        raise UsageError(f"--tasks {task.name}: no rows in {rows.name}")
    remarks = differences(task, task.split, found)
    wanted = task.shots.default if shots is None or task.shots.fixed else shots
    if shots not in (None, wanted):
        remarks.append(
            f"{task.name} is asked with {wanted} shots, whatever --shots says: so its authors have it"
        )
    pools: dict[str, list[Item]] = {}
    if wanted:
        pools, about_shots = _pools(task, data_dir)
        remarks += about_shots
    check_pools(task, wanted, pools, found.counts)
    return PreparedTask(
        task=task,
        shots=wanted,
        rows=rows,
        survey=found,
        pools=pools,
        chosen=selection.indices(task.name, found.counts),
        remarks=tuple(remarks),
    )


def _pools(task: Task, data_dir: Path | None) -> tuple[dict[str, list[Item]], list[str]]:
    """Items to draw shots from, and remarks on them; a bad row among them is an error whatever is skipped."""
    rows = open_rows(task, task.shots.split, data_dir)
    found = survey(task, rows)
    if found.n_bad:
        raise bad_rows_error(found)
    return pools_by_subject(task, rows), differences(task, task.shots.split, found)
