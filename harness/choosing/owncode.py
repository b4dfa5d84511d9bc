"""Tasks of one's own, with code: in a Python file, or in a package that is installed.

A package declares an entry point of the group `forced_choice.tasks`: its name is that of the task, its value
a `Task`, or a module with `TASK` and `VARIANTS` as task files have them.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from importlib.machinery import ModuleSpec, SourceFileLoader
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec
from pathlib import Path
from types import ModuleType

from harness.choosing.checking import check_task
from harness.choosing.registry import of_name, tasks_of
from harness.choosing.tasklists import cut_at_comma
from harness.errors import UsageError, did_you_mean, foreign
from harness.task import Task

GROUP = "forced_choice.tasks"
Packages = Mapping[str, Sequence[EntryPoint]]
"""What installed packages declare, by the names of tasks: one of each, if all is well."""


def is_code(given: str) -> bool:
    """Whether a name is a Python file's, with or without what is meant in it."""
    return given.endswith(".py") or ".py:" in given


def load_code(given: str) -> tuple[tuple[Task, ...], str]:
    """The tasks of `PATH.py:NAME`, or of `PATH.py`, which means its `TASK`; and a hash of the file.

    NAME is an attribute that holds a `Task` or several of them, or `TASK:VARIANT` for one of the file's
    `VARIANTS`.

    Raises:
        UsageError: there is no such file or name, it cannot be imported, or holds something else, or a task
            as none can be.
    """
    place = f"--tasks {given}"
    before, _, name = given.partition(".py:") if ".py:" in given else (given.removesuffix(".py"), "", "")
    path = Path(f"{before}.py").expanduser()
    if not path.is_file():
        raise UsageError(
            f"{place}: {path} is {'no file' if path.exists() else 'not there'}{cut_at_comma(path)}"
        )
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{place}: {path} cannot be read: {error.strerror}") from error
    tasks = _tasks_of_file(_imported(path, content, place), path, name or "TASK", place)
    for task in tasks:
        check_task(task, place)
    return tasks, blake2b(content, digest_size=8).hexdigest()


def _tasks_of_file(module: ModuleType, path: Path, name: str, place: str) -> tuple[Task, ...]:
    """The tasks that a name means in a file."""
    attribute, _, variant = name.partition(":")
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


def installed() -> Packages:
    """What installed packages declare, none of it loaded."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group=GROUP):
        same = found.setdefault(point.name, [])
        if point not in same:
            same.append(point)
    return found


def load_installed(points: Sequence[EntryPoint]) -> tuple[Task, ...]:
    """The task of an entry point, and its variants.

    Args:
        points: those of one name.

    Raises:
        UsageError: there are several, it cannot be imported, is something else, or a task as none can be.
    """
    point = points[0]
    if len(points) > 1:
        raise UsageError(
            f"--tasks {point.name}: {_package(point)} and {_package(points[1])} both declare a task"
            f" {point.name!r}; uninstall one of them"
        )
    place = f"--tasks {point.name}: {_package(point)}: {point.value}"
    try:
        found = point.load()
    except Exception as error:  # a package may do anything while it is imported
        raise UsageError(f"{place} cannot be imported: {foreign(error)}") from error
    if isinstance(found, ModuleType):
        return tasks_of(found, point.name, place)
    if not isinstance(found, Task):
        raise UsageError(f"{place} is neither a Task nor a module with a TASK")
    check_task(found, place)
    if found.name != point.name:
        raise UsageError(f"{place} is the task {found.name!r}; name both alike")
    return (found,)


def _imported(path: Path, content: bytes, place: str) -> ModuleType:
    """The module of a file, once for each content; what stands beside it can be imported too."""
    whole = path.resolve()
    digest = blake2b(str(whole).encode() + b"|" + content, digest_size=8).hexdigest()
    name = f"forced_choice_tasks_{digest}"
    if name in sys.modules:
        return sys.modules[name]
    loader = SourceFileLoader(name, str(whole))
    spec = ModuleSpec(name, loader, origin=str(whole))
    spec.has_location = True
    module = module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look there
    sys.path.append(str(whole.parent))
    try:  # not from bytecode beside it, which may be that of an earlier content
        exec(loader.source_to_code(content, str(whole)), module.__dict__)
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, Exception | SystemExit):
            raise UsageError(f"{place}: {path} cannot be imported: {foreign(error)}") from error
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
