"""The suite: which items a run asks for, checked before the first request, and their prompts as a stream.

Preparing reads every row once (a bad one is found now, not at three in the morning); the prompts are then
made anew, in order, each time they are iterated, so that memory does not grow with the suite.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import count, islice
from pathlib import Path
from typing import Any, TypeVar

from harness.checked import NOTHING_KNOWN, Known, check_rows
from harness.choosing.resolving import Asked, Origin, resolve, title
from harness.data.listing import Listing
from harness.data.rows import RowSource
from harness.data.survey import Survey
from harness.errors import UsageError
from harness.items import BadItem, Item
from harness.plan import listed
from harness.prompts import Prompt, Selection, prompts
from harness.scoring.asides import aside_names, asides, needs_of, takes_orders
from harness.scoring.metrics import METRICS, ORDERS, metrics_of_orders
from harness.tables import TaskTable
from harness.task import Task

AnySuite = TypeVar("AnySuite", bound="Suite")


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedTask:
    """One task of a suite, its rows checked and its items chosen."""

    task: Task
    origin: Origin
    shots: int
    rows: RowSource
    survey: Survey
    pools: Mapping[str, Sequence[Item]]
    chosen: Mapping[str, Collection[int]]
    remarks: tuple[str, ...]
    """What a reader must know of the rows: where they differ from the published splits."""
    metrics: tuple[str, ...]
    """The task's own, then those that were asked for."""

    @property
    def needs(self) -> tuple[str, ...]:
        """What the metrics need asked beside the items' own choices."""
        return needs_of(self.metrics)

    @property
    def asides(self) -> tuple[str, ...]:
        """What that is called."""
        return aside_names(self.needs, self.survey.most_choices)

    def prompts(self, wanted: Callable[[int], bool] | None = None) -> Iterator[Prompt | BadItem]:
        """The prompts of the chosen items, in file order; of those alone whose position among them is wanted,
        if anything is said of that."""
        return prompts(
            self.task,
            self.rows,
            shots=self.shots,
            pools=self.pools,
            chosen=self.chosen,
            orders=ORDERS in self.needs,
            wanted=wanted,
        )

    @property
    def size(self) -> int:
        """How many items are asked for."""
        return sum(len(indices) for indices in self.chosen.values())


@dataclass(frozen=True, slots=True)
class Suite:
    """Everything a run asks, endpoint aside."""

    tasks: tuple[PreparedTask, ...]
    title: str
    """What the run's folder is called after, beside its identity."""
    listing: Listing
    """The items, before anything is planned: made while rows were checked, so that none is read again."""

    def prompts(self) -> Iterator[tuple[int, Prompt | BadItem]]:
        """All prompts with their ordinals, tasks in the order given."""
        ordinal = 0
        for task in self.tasks:
            for prompt in task.prompts():
                yield ordinal, prompt
                ordinal += 1

    def batches(self, size: int) -> Iterator[Sequence[tuple[int, Prompt | BadItem]]]:
        """All prompts with their ordinals, so many at a time, in the order in which they are asked."""
        prompts = self.prompts()
        while batch := list(islice(prompts, size)):
            yield batch

    def as_kind(self, kind: type[AnySuite], **more: Any) -> AnySuite:
        """This suite as another kind of one, with what that kind has more, or otherwise."""
        own = {each.name: getattr(self, each.name) for each in fields(Suite)}
        return kind(**{**own, **more})

    def everything(self) -> Iterator[Prompt]:
        """All prompts that are sent: the items' own, and what is asked beside them."""
        needs = self.needs
        for _, prompt in self.prompts():
            if isinstance(prompt, Prompt):
                yield prompt
                yield from asides(prompt, needs[prompt.item.task]).values()

    @property
    def size(self) -> int:
        """How many items are asked for."""
        return sum(task.size for task in self.tasks)

    @property
    def needs(self) -> dict[str, tuple[str, ...]]:
        """What is asked beside the items of each task, by its name."""
        return {prepared.task.name: prepared.needs for prepared in self.tasks}

    def tables(self) -> list[TaskTable]:
        """What the result tables need to know of the tasks."""
        return [
            TaskTable(
                name=prepared.task.name,
                shots=prepared.shots,
                metrics=prepared.metrics,
                groups=prepared.task.groups,
                asides=prepared.asides,
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
    known: Mapping[str, Known] = NOTHING_KNOWN,
) -> Suite:
    """Load and check the tasks of a run.

    Args:
        names: as `harness.choosing.resolving.resolve` takes them.
        shots: of every task that nobody said a number for alone; None: each task's own.
        data_dir: where rows are read from, or None: the hub.
        selection: which items.
        skip_bad_rows: bad rows become unscored items.
        known: what is known of tasks, by name; items of these are not listed.

    Raises:
        UsageError: unknown task, unreadable data, too few shots.
        BadRows: rows that are no items, unless they are to be skipped.
    """
    asked = resolve(names)
    listing = Listing()
    tasks: list[PreparedTask] = []
    for each in asked:
        before = sum(task.size for task in tasks)
        told = known.get(each.task.name)
        task = _prepare(each, shots, data_dir, selection, skip_bad_rows, listing, before, told)
        if selection.sample is not None:  # only now it is known of how many
            listing.keep(task.task.name, task.chosen, first=before)
        tasks.append(task)
    return Suite(tuple(tasks), title(asked), listing)


def with_metrics(suite: Suite, names: Sequence[str], *, orders: bool = False) -> Suite:
    """The suite, with more metrics of each task, and whatever these need asked.

    Args:
        suite: as its tasks have it.
        names: metrics that every task is to report beside its own.
        orders: lettered choices are asked in every cyclic order too.

    Raises:
        UsageError: orders are asked for, and no task has lettered choices.
    """
    of_orders = [name for name in names if ORDERS in needs_of([name])]
    lettered = {each.task.name for each in suite.tasks if (orders or of_orders) and takes_orders(each.task)}
    if (orders or of_orders) and not lettered:
        flag = "--permute-choices" if orders else f"--metrics {of_orders[0]}"
        raise UsageError(
            f"{flag}: the order of choices stands in no prompt of these tasks; name lettered ones too"
        )
    tasks = tuple(_with_metrics(each, names, orders, each.task.name in lettered) for each in suite.tasks)
    return replace(suite, tasks=tasks)


def _with_metrics(prepared: PreparedTask, names: Sequence[str], orders: bool, lettered: bool) -> PreparedTask:
    """The task with more metrics, of those that say anything of its items."""
    there = metrics_of_orders(prepared.survey.most_choices) if lettered else ()
    named = [name for name in names if name in there or ORDERS not in needs_of([name])]
    told = [name for name in named if METRICS[name].fewest <= prepared.survey.most_choices]
    more = (*told, *(there if orders else ()))
    return replace(prepared, metrics=tuple(dict.fromkeys((*prepared.task.metrics, *more))))


def _prepare(
    asked: Asked,
    shots: int | None,
    data_dir: Path | None,
    selection: Selection,
    skip_bad_rows: bool,
    listing: Listing,
    before: int,
    known: Known | None,
) -> PreparedTask:
    """Check one task, and list its items; `before`: how many are asked for before its own."""
    task = asked.task
    wanted, about = _shots(asked, shots)
    ordinals = count(before)

    def take(item: Item | BadItem) -> None:
        if selection.limit is None or item.index < selection.limit:
            prompt = Prompt(item, "", wanted) if isinstance(item, Item) else item
            listing.add(listed(prompt, next(ordinals), wanted))

    found = check_rows(task, wanted, data_dir, take, skip_bad_rows=skip_bad_rows, known=known)
    return PreparedTask(
        task=task,
        origin=asked.origin,
        shots=wanted,
        rows=found.rows,
        survey=found.survey,
        pools=found.pools,
        chosen=selection.indices(task.name, found.survey.counts),
        remarks=(*found.remarks, *about),
        metrics=task.metrics,
    )


def _shots(asked: Asked, shots: int | None) -> tuple[int, list[str]]:
    """How many shots a task is asked with, and a remark where `--shots` says otherwise in vain."""
    rule = asked.task.shots
    said = shots if asked.shots is None else asked.shots
    wanted = rule.default if said is None or rule.fixed else said
    if shots in (None, wanted) or not (rule.fixed or asked.suite):
        return wanted, []
    whose = "its authors fixed" if rule.fixed else f"the suite {asked.suite} fixes"
    return wanted, [
        f"{asked.task.name} is asked with {wanted} shots, whatever --shots says: {whose} that number"
    ]
