"""Whether a `Task` says what a task must, told by field before any of its rows is read; pure.

Python does not look at what a dataclass is given, and a task file may be somebody's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from reprlib import repr as short
from typing import get_args, get_type_hints

from harness.converting import description_of, example_row, item_of
from harness.errors import RowError, UsageError, did_you_mean
from harness.scoring.metrics import METRICS
from harness.task import Dataset, Shots, Split, Task

DRAWS = get_args(get_type_hints(Shots)["draw"])
METRIC_NAMES = [name for name in METRICS if not name.startswith("acc_order_")]
"""Those that are worth listing."""


def check_task(task: Task, place: str) -> None:
    """Refuse a task that is declared wrongly.

    Args:
        task: the task.
        place: what messages begin with; it names the file or the package.

    Raises:
        UsageError: a field holds what it cannot, or the example row is no item of the task; the text names
            the field.
    """
    for problem in _problems(task):
        raise UsageError(f"{place}: {_called(task)}{problem}")


def _problems(task: Task) -> Iterator[str]:
    """What is wrong, the first of it; later fields are looked at only where those before them are right."""
    for holder, record, kind in (
        ("", task, Task),
        ("dataset.", task.dataset, Dataset),
        ("shots.", task.shots, Shots),
    ):
        if not isinstance(record, kind):
            yield f"{holder.rstrip('.')} is {short(record)}; expected a {kind.__name__}"
        for name, (fits, expected) in _FIELDS[kind].items():
            if not fits(getattr(record, name)):
                yield f"{holder}{name} is {short(getattr(record, name))}; expected {expected}"
    for metric in task.metrics:
        if metric not in METRICS:
            yield f"no metric {metric!r}. {did_you_mean(metric, METRIC_NAMES)}"
    if (task.shots.draw == "listed") != bool(task.shots.ids):
        yield f"shots.ids is {short(task.shots.ids)} with shots.draw = {task.shots.draw!r}; both go together"
    try:
        description_of(task, item_of(task, example_row(task)).subject)
    except RowError as error:
        yield f"its example is no item: {error}"
    except UsageError as error:
        yield str(error).partition(": ")[2]  # it has a place already


def _called(task: Task) -> str:
    return f"the task {task.name!r}: " if _words(task.name) else ""


def _text(value: object) -> bool:
    return isinstance(value, str)


def _words(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _share(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def _or_none(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or fits(value)


def _tuple(fits: Callable[[object], bool], least: int = 0) -> Callable[[object], bool]:
    return lambda value: isinstance(value, tuple) and len(value) >= least and all(map(fits, value))


def _mapping(fits: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: (
        isinstance(value, Mapping) and all(map(_text, value)) and all(map(fits, value.values()))
    )


_TRUTH = (lambda value: isinstance(value, bool)), "True or False"
_NAMES = _tuple(_words), 'a tuple of texts, such as ("question", "answer")'

_FIELDS: Mapping[type, Mapping[str, tuple[Callable[[object], bool], str]]] = {
    Task: {
        "name": (_words, "a text"),
        "version": (_words, 'a text, such as "1.0"'),
        "split": (_words, 'a text, such as "test"'),
        "item": (callable, "a function of a row"),
        "metrics": (_tuple(_words, 1), 'a tuple of names, such as ("acc",)'),
        "example": (lambda value: isinstance(value, Mapping), "a row as a dict"),
        "subject_field": (_or_none(_words), "the name of a column, or None"),
        "description": (callable, "a function of a subject"),
        "groups": (_mapping(_tuple(_text)), 'tuples of subjects by name, such as {"stem": ("physics",)}'),
        "shot_delimiter": (_text, "a text"),
        "delimiter": (_text, "a text"),
        "chance": (_or_none(_share), "a number from 0 to 1, or None"),
    },
    Dataset: {
        "hub": (_or_none(_words), 'a repository of the hub, such as "cais/mmlu", or None'),
        "folder": (_words, "the name of a folder"),
        "columns": _NAMES,
        "config": (_or_none(_words), "a text, or None"),
        "files": (_mapping(lambda value: isinstance(value, Path)), "a Path of each split"),
        "splits": (_mapping(lambda value: isinstance(value, Split)), "a Split of each split"),
    },
    Shots: {
        "split": (_words, 'a text, such as "train"'),
        "draw": (lambda value: value in DRAWS, f"one of {', '.join(DRAWS)}"),
        "ids": _NAMES,
        "without_own": _TRUTH,
        "never_own": _TRUTH,
        "default": (_number, "a number, 0 or more"),
        "fixed": _TRUTH,
    },
}
"""What each field may hold, and how that is said."""
