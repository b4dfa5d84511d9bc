"""forced-choice: how good is an LLM endpoint, or an adapter, at multiple choice?

This is the public face. Task files need nothing but the records named here; from a script or a notebook:

    from harness import charts, compare, evaluate, load_run

    run = evaluate("embedded", "embedded:geography", tasks="sample_mmlu:cloze")
    run.scores                                     # a pandas frame; also run.items, run.texts
    print(*compare(run).verdicts, sep="\\n")
    charts(run)["accuracy"]                        # a chart of altair, as a report has it

A notebook shows runs and comparisons as tables (`example.ipynb`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from harness.errors import FieldError, HarnessError, StoreError, UsageError

if TYPE_CHECKING:
    from harness.charting import charts
    from harness.compared import compare
    from harness.evaluating import evaluate
    from harness.items import Item, Pair, Row
    from harness.stored import load_run
    from harness.task import Dataset, Shots, Split, Task

__all__ = [
    "Dataset",
    "FieldError",
    "HarnessError",
    "Item",
    "Pair",
    "Row",
    "Shots",
    "Split",
    "StoreError",
    "Task",
    "UsageError",
    "charts",
    "compare",
    "evaluate",
    "load_run",
]

__version__ = "0.1.0"

_LATER = {
    **dict.fromkeys(("Item", "Pair", "Row"), "harness.items"),
    **dict.fromkeys(("Dataset", "Shots", "Split", "Task"), "harness.task"),
    "charts": "harness.charting",
    "compare": "harness.compared",
    "evaluate": "harness.evaluating",
    "load_run": "harness.stored",
}
"""What a task file or `--help` should not have to wait for, and where it stands."""


def __getattr__(name: str) -> Any:
    """Import what is public when it is first asked for."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    """What is public, also what is imported later."""
    return sorted({*globals(), *_LATER})
