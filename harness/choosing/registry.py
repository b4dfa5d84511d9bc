"""Which benchmarks there are: task files, listed by name and loaded one at a time.

Task files are the package `harness.tasks` where the program is installed, and the folder `tasks/` beside the
package in a bare checkout, loaded under the same name. Nothing imports them but this module.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from traceback import format_exception_only
from types import ModuleType

import harness
from harness.errors import UsageError, did_you_mean
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
        said = " ".join(format_exception_only(error)[-1].split())
        raise UsageError(f"--tasks {name}: {_file(name)} cannot be imported: {said}") from error
    return tasks_of(module, name, f"--tasks {name}: {module.__file__}")


def about(name: str) -> str:
    """What a task file says of itself, its docstring. Raises as `load_task` does."""
    declared(name)
    return (importlib.import_module(f"{PACKAGE}.{name}").__doc__ or "").strip()


def tasks_of(module: ModuleType, name: str, place: str) -> tuple[Task, ...]:
    """The `TASK` of a module, which must be called so, and its `VARIANTS`, called after it.

    Args:
        module: a task file, imported.
        name: what the task must be called.
        place: what messages begin with; it names the file.

    Raises:
        UsageError: the module declares something else.
    """
    task = getattr(module, "TASK", None)
    if not isinstance(task, Task):
        raise UsageError(f"{place} has no TASK")
    if task.name != name:
        raise UsageError(f"{place} declares the task {task.name!r}; name both alike")
    variants: list[Task] = []
    for each in getattr(module, "VARIANTS", ()):
        if not isinstance(each, Task):
            raise UsageError(f"{place}: VARIANTS holds {each!r}, which is no Task")
        if not each.name.startswith(f"{name}:"):
            raise UsageError(f"{place} declares the variant {each.name!r}; its name must begin with {name}:")
        variants.append(each)
    return (task, *variants)


def _package() -> ModuleType:
    """The package of task files, made known to Python where only the folder beside us holds it."""
    if PACKAGE not in sys.modules and importlib.util.find_spec(PACKAGE) is None:
        folder = Path(harness.__path__[0]).parent / "tasks"
        spec = importlib.util.spec_from_file_location(
            PACKAGE, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )
        if spec is None or spec.loader is None or not (folder / "__init__.py").is_file():
            raise UsageError(f"--tasks: no task files, neither in the package {PACKAGE} nor in {folder}")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules[PACKAGE] = module
    return importlib.import_module(PACKAGE)


def _file(name: str) -> str:
    """The path of a task file, for messages."""
    spec = importlib.util.find_spec(f"{PACKAGE}.{name}")
    return str(spec.origin) if spec and spec.origin else name
