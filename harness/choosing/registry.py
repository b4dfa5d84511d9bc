"""Which benchmarks there are: task files, listed by name and loaded one at a time.

Task files stand inside the package `harness` where the program is installed, and in the folder `tasks/`
beside it in a checkout. They are loaded as `harness.tasks` from where the running `harness` has them,
whatever else Python would find under that name. Nothing imports them but this module.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from reprlib import repr as short
from types import ModuleType

import harness
from harness.choosing.checking import check_task
from harness.errors import UsageError, did_you_mean, foreign
from harness.task import Task

PACKAGE = "harness.tasks"


def task_names() -> list[str]:
    """The names of all task files, sorted; none of them is loaded."""
    found = pkgutil.iter_modules(_package().__path__)
    return sorted(each.name for each in found if not each.ispkg and not each.name.startswith("_"))


def load_task(name: str) -> Task:
    """The task of that name, `FILE` or, for a variant, `FILE:VARIANT`.

    A file declares its variants as a tuple `VARIANTS` beside its `TASK`.

    Raises:
        UsageError: there is no such task, or its file cannot be imported or declares no task of its name.
    """
    known, file_name = task_names(), name.partition(":")[0]
    if file_name not in known:
        raise UsageError(f"--tasks: no task {name!r}. {did_you_mean(file_name, known)}")
    task, *variants = declared(file_name)
    return of_name(name, task, variants, f"--tasks {name}")


def of_name(name: str, task: Task, variants: Sequence[Task], place: str) -> Task:
    """The task or the variant of that name; `UsageError`, which begins with `place`, if there is none."""
    for each in (task, *variants):
        if each.name == name:
            return each
    if not variants:
        raise UsageError(f"{place}: {task.name} has no variants")
    hint = did_you_mean(name, [each.name for each in variants])
    raise UsageError(f"{place}: no such variant of {task.name}. {hint}")


def shipped_rows() -> Path:
    """The folder of rows that ship with the program, laid out as `--data-dir` is."""
    return Path(_package().__path__[0]) / "data"


def suites_folder() -> Path:
    """The folder of the named suites, one TOML file each."""
    return Path(_package().__path__[0]) / "suites"


def declared(name: str) -> tuple[Task, ...]:
    """The task that a task file declares, and its variants. Raises as `load_task` does."""
    try:
        module = importlib.import_module(f"{PACKAGE}.{name}")
    except Exception as error:  # a task file may do anything while it is imported
        raise UsageError(f"--tasks {name}: {_file(name)} cannot be imported: {foreign(error)}") from error
    return tasks_of(module, name, f"--tasks {name}: {module.__file__}")


def about(name: str) -> str:
    """What a task file says of itself, its docstring. Raises as `load_task` does."""
    declared(name)
    return (importlib.import_module(f"{PACKAGE}.{name}").__doc__ or "").strip()


def tasks_of(module: ModuleType, name: str, place: str) -> tuple[Task, ...]:
    """The `TASK` of a module, which must be called so, and its `VARIANTS`, called after it; all checked.

    Args:
        module: a task file, imported.
        name: what the task must be called.
        place: what messages begin with; it names the file.

    Raises:
        UsageError: the module declares something else, or a task as none can be.
    """
    task = getattr(module, "TASK", None)
    if not isinstance(task, Task):
        raise UsageError(f"{place} has no TASK")
    if task.name != name:
        raise UsageError(f"{place} declares the task {task.name!r}; name both alike")
    check_task(task, place)
    declared = getattr(module, "VARIANTS", ())
    if not isinstance(declared, tuple | list):
        raise UsageError(f"{place}: VARIANTS is {short(declared)}; expected a tuple of Tasks")
    variants: list[Task] = []
    for each in declared:
        if not isinstance(each, Task):
            raise UsageError(f"{place}: VARIANTS holds {short(each)}, which is no Task")
        check_task(each, place)
        if not each.name.startswith(f"{name}:"):
            raise UsageError(f"{place} declares the variant {each.name!r}; its name must begin with {name}:")
        variants.append(each)
    return (task, *variants)


def _package() -> ModuleType:
    """The package of task files, loaded from where the running `harness` has them."""
    if PACKAGE in sys.modules:
        return sys.modules[PACKAGE]
    folder = _folder()
    spec = importlib.util.spec_from_file_location(
        PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[PACKAGE] = module
    return module


def _folder() -> Path:
    """The folder of the task files: inside the package, else beside it.

    Beside it there may be a folder of that name that is somebody else's: ours has suites and rows.
    """
    package = Path(harness.__path__[0])
    inside, beside = package / "tasks", package.parent / "tasks"
    for folder in (inside, beside):
        ours = all((folder / each).is_dir() for each in ("suites", "data"))
        if ours and (folder / "__init__.py").is_file():
            return folder
    raise UsageError(f"--tasks: no task files, neither in {inside} nor in {beside}")


def _file(name: str) -> str:
    """The path of a task file, for messages."""
    spec = importlib.util.find_spec(f"{PACKAGE}.{name}")
    return str(spec.origin) if spec and spec.origin else name
