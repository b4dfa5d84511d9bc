"""What `--tasks` means: shipped tasks, named suites, files and packages of one's own.

Each name may end in `@N`, which asks this task alone with N shots.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from harness.choosing.owncode import Packages, installed, is_code, load_code, load_installed
from harness.choosing.ownsets import PREFIX, load_own_set
from harness.choosing.registry import declared, load_task, of_name, task_names
from harness.choosing.tasklists import cut_at_comma, load_suite, named, suite_names
from harness.data.rowfiles import READERS
from harness.errors import UsageError, did_you_mean
from harness.task import Task

NAME = re.compile(r"\w[\w.-]*(:\w[\w.-]*)*")
"""What tasks may be called: fit for tables, and with `_` for `:` for files."""
LONGEST = 80
"""Bytes of a title: file systems take 255, and the run's identity follows."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a task comes from."""

    kind: Literal["shipped", "files", "code", "package"] = "shipped"
    content: str = ""
    """Of code in a file: a hash of it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One task of a run."""

    task: Task
    shots: int | None = None
    """Said for this task alone: wins over `--shots`."""
    suite: str = ""
    """The named suite that it came with; empty where it was named itself."""
    origin: Origin = Origin()


def resolve(names: Sequence[str]) -> list[Asked]:
    """The tasks of a run, in the order given.

    Args:
        names: `FILE[:VARIANT]`, a named suite, `file:PATH[:mc|:cloze]`, `PATH.py[:NAME]`, or the name of a
            task of an installed package; any of them but a suite may be followed by `@N`.

    Raises:
        UsageError: there is no such task, its file cannot be read, it is called as a shipped one is, or two
            different ones are called the same.
    """
    found: dict[str, tuple[Asked, str]] = {}
    for name in names:
        for asked in _resolved(name):
            other, before = found.setdefault(asked.task.name, (asked, name))
            if (other.task, other.shots) != (asked.task, asked.shots):
                raise UsageError(_twice(other, before, asked, name))
    return [asked for asked, _ in found.values()]


def title(asked: Sequence[Asked]) -> str:
    """A name for all of these, fit for a folder: suites and tasks, the last of many only counted."""
    names = list(dict.fromkeys(each.suite or each.task.name for each in asked))
    kept = [re.sub(r"[^\w.-]+", "_", each) for each in names]
    while len(kept) > 1 and len(_joined(kept, len(names)).encode()) > LONGEST:
        kept.pop()
    return _joined(kept, len(names)).encode()[: 2 * LONGEST].decode(errors="ignore")


def _joined(kept: Sequence[str], of: int) -> str:
    more = [f"and_{of - len(kept)}_more"] if len(kept) < of else []
    return "-".join([*kept, *more])


def _resolved(text: str) -> Iterator[Asked]:
    """The tasks of one name."""
    asks, packages = named(text), installed()
    if asks.name in suite_names() and asks.name not in task_names():
        if asks.shots is not None:
            raise UsageError(f"--tasks {text}: a suite's tasks have their own shots; name the tasks instead")
        _refuse_hidden(asks.name, packages)
        for each in load_suite(asks.name).tasks:
            _refuse_hidden(each.name, packages)
            task = load_task(each.name)
            yield Asked(task, _shots(task, each.shots, each.text()), asks.name)
        return
    tasks, origin = _named_tasks(asks.name, packages)
    for task in tasks:
        yield Asked(task, _shots(task, asks.shots, text), origin=origin)


def _named_tasks(name: str, packages: Packages) -> tuple[tuple[Task, ...], Origin]:
    """The tasks of a name without `@N`, one but for a file's tuple of tasks; and where they come from."""
    file_name = name.partition(":")[0]
    if name.startswith(PREFIX):
        return _own((load_own_set(name),), name), Origin("files")
    if is_code(name):
        tasks, content = load_code(name)
        return _own(tasks, name), Origin("code", content)
    if file_name in task_names():
        _refuse_hidden(name, packages)
        return (load_task(name),), Origin()
    if file_name in packages:
        task, *variants = package_tasks(file_name, packages)
        return (of_name(name, task, variants, f"--tasks {name}"),), Origin("package")
    raise UsageError(f"--tasks: no task {name!r}. {_hint(name, [*task_names(), *suite_names(), *packages])}")


def package_tasks(name: str, packages: Packages) -> tuple[Task, ...]:
    """The task of that name that an installed package declares, and its variants.

    Raises:
        UsageError: it cannot be loaded, two packages declare it, or it is called as what ships.
    """
    _refuse_hidden(name, packages)
    return _own(load_installed(packages[name]), name)


def _refuse_hidden(name: str, packages: Packages) -> None:
    """Raise `UsageError` where a package calls a task of its own as a task or a suite that ships."""
    file_name = name.partition(":")[0]
    kind = "task" if file_name in task_names() else "suite" if file_name in suite_names() else ""
    points = packages.get(file_name, ())
    if kind and points:
        raise UsageError(
            f"--tasks {name}: {points[0].value}, of an installed package, hides the {kind} {file_name} that"
            " ships with the program; rename its entry point, or uninstall it"
        )


def _hint(name: str, known: Sequence[str]) -> str:
    if cut := cut_at_comma(Path(name)):
        return f"There is no such file either{cut}"
    if name.endswith(tuple(READERS)):
        return f"For a file of questions write {PREFIX}{name}"
    if "@" in name:
        return "What follows @ is a number of shots"
    return did_you_mean(name.partition(":")[0], known)


def _own(tasks: tuple[Task, ...], given: str) -> tuple[Task, ...]:
    """Refuse names that hide a shipped task or suite, or that no file could have."""
    for task in tasks:
        if not NAME.fullmatch(task.name):
            raise UsageError(
                f"--tasks {given}: the name {task.name!r} is not fit for tables and files; letters, digits,"
                " _ . - are, and : before a variant"
            )
        if task.name in suite_names() or task.name in _like(task.name):
            raise UsageError(
                f"--tasks {given}: is called {task.name}, as one that ships with the program; rename it"
                " (a file of questions: by its file's name, or name = in its TOML)"
            )
    return tasks


def _like(name: str) -> list[str]:
    """The names that the shipped file of that name declares."""
    file_name = name.partition(":")[0]
    return [each.name for each in declared(file_name)] if file_name in task_names() else []


def _shots(task: Task, shots: int | None, text: str) -> int | None:
    """The shots said for this task alone, unless it allows none but its own."""
    if shots is not None and task.shots.fixed and shots != task.shots.default:
        raise UsageError(
            f"--tasks {text}: the number of shots of {task.name} is fixed by its authors, at"
            f" {task.shots.default}; leave out @{shots}"
        )
    return shots


def _twice(one: Asked, first: str, other: Asked, second: str) -> str:
    name = one.task.name
    if one.task != other.task:
        return f"--tasks: {first} and {second} are both called {name}; rename one, or run them one by one"
    said = ["its own number" if each.shots is None else str(each.shots) for each in (one, other)]
    return (
        f"--tasks: {name} is asked twice, by {first} with {said[0]} of shots and by {second} with {said[1]};"
        " a run asks each task once"
    )
