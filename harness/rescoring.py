"""The tables of a run again, with other metrics, from what its journals hold; no request is sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.columnar import journal_of
from harness.deciding.outcome import STATUS as DECIDED
from harness.deciding.outcome import Counting
from harness.errors import StoreError, UsageError
from harness.replies import StoredReplies
from harness.runs import RunFolder, SuiteIdentity
from harness.scoring.asides import needs_of
from harness.scoring.metrics import (
    ANSWER,
    EMPTY,
    GREEDY,
    METRICS,
    MOST_ORDERS,
    ORDERS,
    named_metrics,
    need_of,
    order_name,
)
from harness.scoring.scores import ItemScore
from harness.stored import WAY_OUT, Run, StoredTask, load_run
from harness.tables import TaskTable, write_results

if TYPE_CHECKING:
    import pandas as pd

_PLACES = (EMPTY, ANSWER, *map(order_name, range(1, MOST_ORDERS)))
"""Asides in the order in which tables have them."""


@dataclass(frozen=True, slots=True)
class Rescored:
    """What came of it."""

    folder: Path
    accuracy: pd.DataFrame
    """The rows of `scores.csv`."""
    unscored: int
    """Over all rows."""


def rescore(folder: str | Path, metrics: str = "") -> Rescored:
    """Write `scores.csv` and the item tables of a run anew.

    Args:
        folder: the run's.
        metrics: names separated by commas, reported beside those that the run has; `all`: all that need
            nothing that the run did not ask.

    Raises:
        UsageError: there is no run, a metric is unknown, or needs requests that the run did not make.
        StoreError: its journals cannot be read, or its tables cannot be written.
    """
    run = load_run(folder)
    wanted = named_metrics(metrics)
    if not run.stored.tasks or not all(task.metrics for task in run.stored.tasks.values()):
        raise StoreError(f"{run.folder}: an earlier version made this run; {WAY_OUT}")
    with RunFolder(run.folder, SuiteIdentity(run.manifest["identity"])) as opened, ExitStack() as files:
        journals = {label: files.enter_context(journal_of(run, label)) for label in run.labels}
        found = {label: _there(run, label, journal) for label, journal in journals.items()}
        tasks = _tables(run, wanted, list(found.values()))
        scores = {label: _scores(run, journal) for label, journal in found.items()}
        accuracy = write_results(run.folder, scores, tasks)
        opened.write_manifest(_manifest(run, tasks))
    return Rescored(run.folder, accuracy, int(accuracy["unscored"].sum()))


def _scores(run: Run, journal: StoredReplies) -> Iterable[ItemScore]:
    """The scores of an endpoint; what a decided run did not ask counts as little as it did there."""
    return Counting(journal.scores()) if run.status == DECIDED else journal.scores()


def _there(run: Run, label: str, journal: StoredReplies | None) -> StoredReplies:
    if journal is None:
        raise StoreError(f"{run.folder}: the journal of {label} is gone; nothing can be scored without it")
    return journal


def _tables(run: Run, wanted: Sequence[str], journals: Sequence[StoredReplies]) -> list[TaskTable]:
    """The run's tasks with these metrics beside their own, each where the run asked what it needs."""
    asked = _asides(journals)
    of_task = {
        name: [each for each in wanted if _can(each, asked.get(name, ()))] for name in run.stored.tasks
    }
    for metric in wanted:
        if not any(metric in each for each in of_task.values()):
            raise UsageError(_cannot(metric, asked))
    return [
        TaskTable(
            name=name,
            shots=task.shots,
            metrics=(metrics := tuple(dict.fromkeys((*task.metrics, *of_task[name])))),
            groups=task.groups,
            asides=_shown(task, metrics, asked.get(name, ())),
        )
        for name, task in run.stored.tasks.items()
    ]


def _shown(task: StoredTask, metrics: Sequence[str], asked: Sequence[str]) -> tuple[str, ...]:
    """The asides in the tables of a task: those that its run shows, and those that its metrics need."""
    needs = needs_of(metrics)
    needed = [each for each in asked if need_of(each) in needs]
    return tuple(each for each in _PLACES if each in task.asides or each in needed)


def _cannot(metric: str, asked: Mapping[str, Sequence[str]]) -> str:
    """Why no task of a run has what a metric needs, and the way out."""
    needs = METRICS[metric].needs
    if needs.startswith("order_") and any(order_name(1) in names for names in asked.values()):
        return f"--metrics {metric}: no item of this run has choices enough for such an order"
    flag = "--permute-choices cyclic" if needs_of([metric]) == (ORDERS,) else f"--metrics {metric}"
    return (
        f"--metrics {metric}: needs what the last session of this run did not ask; give the command that made"
        f" it once more with {flag}: only what was never answered is sent"
    )


def _asides(journals: Sequence[StoredReplies]) -> dict[str, list[str]]:
    """What was asked beside the items of each task, on any endpoint; in the order in which a run has it."""
    every = set().union(*(journal.asides() for journal in journals))
    found: dict[str, list[str]] = {}
    for task, name in sorted(every, key=lambda each: _PLACES.index(each[1])):
        found.setdefault(task, []).append(name)
    return found


def _can(metric: str, asides: Sequence[str]) -> bool:
    """Whether what a metric needs was asked."""
    needs = METRICS[metric].needs
    return needs in ("", GREEDY, *asides) or (needs == ORDERS and order_name(1) in asides)


def _manifest(run: Run, tasks: Sequence[TaskTable]) -> dict[str, Any]:
    """The content of `run.json` with the metrics that the tables now have."""
    kept = {name: value for name, value in run.manifest.items() if name not in ("schema", "identity")}
    metrics = {task.name: list(task.metrics) for task in tasks}
    asides = {task.name: list(task.asides) for task in tasks}
    kept["tasks"] = {
        name: {**task, "metrics": metrics[name], "asides": asides[name]}
        for name, task in run.manifest["tasks"].items()
    }
    return kept
