"""What is known of tasks without asking anybody: sizes, shots, metrics, chance, a hash of all that counts.

`forced-choice tasks` shows it, and `run.json` holds the hash.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from harness.checked import check_rows, for_subjects, shot_pools
from harness.choosing.owncode import installed
from harness.choosing.ownitems import OwnForm
from harness.choosing.registry import about, declared, task_names
from harness.choosing.resolving import package_tasks, resolve
from harness.choosing.tasklists import NamedSuite, load_suite, suite_names
from harness.converting import example_row, item_or_bad
from harness.data.rowfiles import READERS
from harness.data.rows import open_rows
from harness.errors import UsageError
from harness.items import BadItem, Item
from harness.prompts import Prompt, check_pools, prompt_prefix, prompts
from harness.suite import PreparedTask
from harness.task import Task

EXAMPLE = "the example row"
"""Where a prompt's row stands where no rows are at hand."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a table of tasks says of one."""

    name: str
    items: int | None
    """Rows of the evaluated split as published; None where nobody said."""
    shots: int
    """By default."""
    metrics: tuple[str, ...]
    """The first is the primary one."""
    chance: float | None
    """What guessing scores in `acc`; None where there is one choice only."""
    version: str
    hash: str
    """As `task_hash` makes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """A task and its variants."""

    tasks: tuple[Facts, ...]
    package: str = ""
    """The installed package that declares it; empty where it ships with the program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """All that `--tasks` knows by name."""

    families: tuple[Family, ...]
    suites: tuple[NamedSuite, ...]
    remarks: tuple[str, ...]
    """On packages whose tasks cannot be asked, one sentence each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What is told of one task."""

    facts: Facts
    about: str
    """What its file says of itself; empty for a file of questions."""
    source: str
    split: str
    shots_from: str
    variants: tuple[str, ...]
    prompt: Prompt
    prompt_of: str
    """Where the prompt's row stands: a file and a line, or `EXAMPLE`."""
    real: str
    """Where the first real row and its shots are to stand so that they are shown; empty where they are."""


def task_hash(task: Task) -> str:
    """16 hexadecimal digits over all that the numbers of a task depend on, but for its rows.

    Data set, version, split, metrics, groups, the rule of the shots, delimiters, and the whole prompt of the
    example row with its choices and which of them are right.
    """
    data, shots = task.dataset, task.shots
    said = {
        "dataset": [data.hub, data.config, data.folder],
        "version": task.version,
        "split": task.split,
        "metrics": task.metrics,
        "groups": {name: list(subjects) for name, subjects in task.groups.items()},
        "shots": [shots.split, shots.draw, shots.ids, shots.without_own, shots.default, shots.fixed],
        **({"never_own": True} if shots.never_own else {}),
        "shot_delimiter": task.shot_delimiter,
        "example": _asked(task),
    }
    return sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:16]


def facts(task: Task) -> Facts:
    """What is known of a task without its rows."""
    published = task.dataset.splits.get(task.split)
    return Facts(
        name=task.name,
        items=published.rows if published else None,
        shots=task.shots.default,
        metrics=task.metrics,
        chance=task.chance if task.chance is not None else _chance(example_item(task)),
        version=task.version,
        hash=task_hash(task),
    )


def catalogue() -> Catalogue:
    """Every task that ships or is installed, with its variants, and every named suite."""
    families = [Family(tasks=tuple(map(facts, declared(name)))) for name in task_names()]
    remarks = []
    packages = installed()
    for name, points in sorted(packages.items()):
        try:
            known = tuple(map(facts, package_tasks(name, packages)))
        except UsageError as error:
            remarks.append(str(error))
        else:
            families.append(Family(tasks=known, package=points[0].value))
    suites = tuple(map(load_suite, suite_names()))
    return Catalogue(families=tuple(families), suites=suites, remarks=tuple(remarks))


def pages(name: str, *, shots: int | None, data_dir: Path | None) -> Iterator[Page]:
    """What is known of the tasks of a name, as `--tasks` takes it; each with one whole prompt.

    The prompt is that of the first row where rows are at hand without a network: they ship, are a file of
    one's own, or stand in `data_dir`. Else it is that of the example row, without shots.

    Raises:
        UsageError: there is no such task, its rows cannot be read, or shots are asked for where there are
            none at hand.
        BadRows: of a file of one's own some rows are no items.
    """
    for asked in resolve([name]):
        task = asked.task
        said = shots if asked.shots is None else asked.shots
        wanted = task.shots.default if said is None or task.shots.fixed else said
        at_hand = data_dir is not None or task.dataset.hub is None
        if not at_hand and said and wanted:
            flag = f"--shots {shots}" if asked.shots is None else f"--tasks {name}"
            raise UsageError(f"{flag}: shots are rows, and there are none here. {_where_rows(task, wanted)}")
        known = _counted(task, wanted) if task.dataset.files else facts(task)
        prompt, place = _first(task, wanted, data_dir) if at_hand else (_of_example(task), EXAMPLE)
        yield Page(
            facts=known,
            real="" if at_hand else _where_rows(task, wanted),
            about=_about(task),
            source=_source(task),
            split=task.split,
            shots_from=_shots_from(task),
            variants=_variants(task),
            prompt=prompt,
            prompt_of=place,
        )


def example_item(task: Task) -> Item | BadItem:
    """The item of a task's example row."""
    return item_or_bad(task, example_row(task))


def suite_identity(prepared: PreparedTask) -> Mapping[str, str] | str:
    """What the identity of a run says of a task: its version, unless it is of one's own.

    Of files of questions, what covers all of them; of code, what it asks, and what stands in the file.
    """
    task, origin = prepared.task, prepared.origin
    if origin.kind == "shipped":
        return task.version
    if origin.kind == "files":
        return {"files": task.version}
    said = {"version": task.version, "hash": task_hash(task)}
    return {**said, "code": origin.content} if origin.kind == "code" else said


def _asked(task: Task) -> list[Any]:
    item = example_item(task)
    if isinstance(item, BadItem):
        return [item.problem]
    pairs = [[pair.context, pair.continuation, pair.choice] for pair in item.pairs]
    return [prompt_prefix(task, item.subject, ()), pairs, item.gold]


def _chance(item: Item | BadItem) -> float | None:
    if isinstance(item, BadItem) or len(item.pairs) < 2:
        return None
    return len(set(item.gold)) / len(item.pairs)


def _counted(task: Task, shots: int) -> Facts:
    """What is known of a file, looked at as a run does: how many rows, and the mean chance of their items."""
    known, total = facts(task), 0.0

    def take(item: Item | BadItem) -> None:
        nonlocal total
        total += _chance(item) or 0.0

    rows = check_rows(task, shots, None, take).survey.rows
    return replace(known, items=rows, chance=total / rows)


def _first(task: Task, shots: int, data_dir: Path | None) -> tuple[Prompt, str]:
    """The prompt of the first row, and where that stands."""
    rows = open_rows(task, task.split, data_dir)
    row = next(iter(rows), None)
    if row is None:
        raise UsageError(f"--tasks {task.name}: no rows in {rows.name}")
    pools = for_subjects(shot_pools(task, data_dir)[0], [row.subject]) if shots else {}
    check_pools(task, shots, pools, [row.subject])
    chosen = {row.subject: range(1)}
    prompt = next(prompts(task, rows, shots=shots, pools=pools, chosen=chosen))
    if isinstance(prompt, BadItem):
        raise UsageError(f"--tasks {task.name}: {prompt.problem}")
    return prompt, row.place


def _of_example(task: Task) -> Prompt:
    item = example_item(task)
    if isinstance(item, BadItem):
        raise UsageError(f"--tasks {task.name}: {item.problem}")
    return Prompt(item, prompt_prefix(task, item.subject, ()), 0)


def _about(task: Task) -> str:
    """The docstring of a task's file."""
    file_name = task.name.partition(":")[0]
    if file_name in task_names():
        return about(file_name)
    if isinstance(task.item, OwnForm):
        return ""
    module = sys.modules.get(getattr(task.item, "__module__", ""))
    return ((module.__doc__ if module else None) or "").strip()


def _source(task: Task) -> str:
    data = task.dataset
    if data.files:
        return str(data.files[task.split])
    return " ".join(filter(None, (data.hub or "ships with the program", data.config)))


def _shots_from(task: Task) -> str:
    """How shots are chosen, in words."""
    rule = task.shots
    how = {
        "first_n": "the first rows",
        "random": "at random, the same for everybody,",
        "listed": "chosen rows",
    }[rule.draw]
    end = ", never other ones" if rule.fixed else ""
    own = ", without the item itself" if rule.without_own else ""
    if rule.fixed and not rule.default:
        return "0, always"
    if task.dataset.files and not task.dataset.files[rule.split].is_file():
        return f"{rule.default}; there is no {task.dataset.files[rule.split].name} to take any from"
    return f"{rule.default}, {how} of {rule.split}{own}{end}"


def _where_rows(task: Task, shots: int) -> str:
    """How rows come to hand, in a sentence."""
    first, *others = READERS
    files = [f"DIR/{task.dataset.folder}/{task.split}{first}"]
    if shots and task.shots.split != task.split:
        files.append(f"DIR/{task.dataset.folder}/{task.shots.split}{first}")
    return f"--data-dir DIR takes them from {' and '.join(files)} (or {', '.join(others)})"


def _variants(task: Task) -> tuple[str, ...]:
    file_name = task.name.partition(":")[0]
    return tuple(each.name for each in declared(file_name)[1:]) if file_name in task_names() else ()
