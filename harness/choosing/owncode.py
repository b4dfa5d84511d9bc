"""Tasks of one's own, with code: in a Python file, or in a package that is installed.

A package declares an entry point of the group `forced_choice.tasks`: its name is that of the task, its value
a `Task`, or a module with `TASK` and `VARIANTS` as task files have them.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from hashlib import blake2b
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from traceback import format_exception_only
from types import ModuleType

from harness.choosing.registry import of_name, tasks_of
from harness.errors import UsageError, did_you_mean
from harness.task import Task

GROUP = "forced_choice.tasks"


def is_code(given: str) -> bool:
    """Whether a name is a Python file's, with or without what is meant in it."""
    return given.endswith(".py") or ".py:" in given


def load_code(given: str) -> tuple[Task, ...]:
    """The tasks of `PATH.py:NAME`, or of `PATH.py`, which means its `TASK`.

    NAME is an attribute that holds a `Task` or several of them, or `TASK:VARIANT` for one of the file's
    `VARIANTS`.

    Raises:
        UsageError: there is no such file or name, it cannot be imported, or holds something else.
    """
    place = f"--tasks {given}"
    before, _, name = given.partition(".py:") if ".py:" in given else (given.removesuffix(".py"), "", "")
    path = Path(f"{before}.py").expanduser()
    if not path.is_file():
        raise UsageError(f"{place}: {path} is {'no file' if path.exists() else 'not there'}")
    module = _imported(path, place)
    attribute, _, variant = (name or "TASK").partition(":")
    found = getattr(module, attribute, None)
    if found is None:
        known = [each for each, value in vars(module).items() if _tasks(value)]
        hint = did_you_mean(attribute, known) if known else "It declares no Task."
        raise UsageError(f"{place}: {path.name} has no {attribute}. {hint}")
    tasks = _tasks(found)
    if not tasks:
        raise UsageError(f"{place}: {attribute} of {path.name} is neither a Task nor a tuple of Tasks")
    if not variant:
        return tasks
    of = tasks[0].name
    if len(tasks) > 1:
        raise UsageError(f"{place}: {attribute} of {path.name} holds several tasks; leave out :{variant}")
    variants = [each for each in _tasks(getattr(module, "VARIANTS", ())) if each.name.startswith(f"{of}:")]
    return (of_name(f"{of}:{variant}", tasks[0], variants, place),)


def installed() -> dict[str, EntryPoint]:
    """The tasks of installed packages, by name, none of them loaded.

    Raises:
        UsageError: two packages declare a task of the same name.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        other = found.setdefault(point.name, point)
        if other != point:
            raise UsageError(
                f"--tasks: {_package(other)} and {_package(point)} both declare a task {point.name!r};"
                " uninstall one of them"
            )
    return found


def load_installed(point: EntryPoint) -> tuple[Task, ...]:
    """The task of an entry point, and its variants.

    Raises:
        UsageError: it cannot be imported, or is something else.
    """
    place = f"--tasks {point.name}: {_package(point)}: {point.value}"
    try:
        found = point.load()
    except Exception as error:  # a package may do anything while it is imported
        raise UsageError(f"{place} cannot be imported: {_said(error)}") from error
    if isinstance(found, ModuleType):
        return tasks_of(found, point.name, place)
    if not isinstance(found, Task):
        raise UsageError(f"{place} is neither a Task nor a module with a TASK")
    if found.name != point.name:
        raise UsageError(f"{place} is the task {found.name!r}; name both alike")
    return (found,)


def _imported(path: Path, place: str) -> ModuleType:
    """The module of a file, once for each file; what stands beside it can be imported too."""
    whole = path.resolve()
    name = f"forced_choice_tasks_{blake2b(str(whole).encode(), digest_size=8).hexdigest()}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, whole)
    if spec is None or spec.loader is None:
        raise UsageError(f"{place}: {path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    sys.path.append(str(whole.parent))
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception | SystemExit):
            raise UsageError(f"{place}: {path} cannot be imported: {_said(error)}") from error
        raise
    finally:
        sys.path.remove(str(whole.parent))
    return module


def _tasks(value: object) -> tuple[Task, ...]:
    """The tasks that a value holds: itself, or all members of a sequence that holds nothing else."""
    if isinstance(value, Task):
        return (value,)
    if isinstance(value, Sequence) and not isinstance(value, str):
        tasks = tuple(each for each in value if isinstance(each, Task))
        return tasks if len(tasks) == len(value) else ()
    return ()


def _package(point: EntryPoint) -> str:
    return f"package {point.dist.name}" if point.dist else "a package"


def _said(error: BaseException) -> str:
    return " ".join(format_exception_only(error)[-1].split())
