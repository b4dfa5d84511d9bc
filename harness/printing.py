"""What several commands say at their end: the accuracy table to stdout, for people or programs; all else to
stderr."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from rich.console import Console

from harness.descriptions import NAME
from harness.terminal import print_table, say

if TYPE_CHECKING:
    from pathlib import Path

    import pandas as pd

    from harness.errors import StoreError
    from harness.runner import RunResult


def print_result(result: RunResult, *, as_json: bool) -> None:
    """The accuracy table for people, or for programs; what must be known beside it goes to stderr."""
    from harness.showing import closing_lines

    print_accuracy(result.accuracy, as_json=as_json)
    console = Console(stderr=True)
    for line in closing_lines(result, program=program()):
        say(console, line)


def print_accuracy(accuracy: pd.DataFrame, *, as_json: bool) -> None:
    """The accuracy table alone."""
    from harness.showing import accuracy_table

    if as_json:
        sys.stdout.write(accuracy.to_json(orient="records", indent=2) + "\n")
    else:
        print_table(accuracy_table(accuracy))


def way_out(error: StoreError, out: Path | None) -> str:
    """What to do about a run's folder that cannot be written, where no other was given."""
    unwritable = isinstance(error.__cause__, PermissionError) and out is None
    return "; choose another place with --out" if unwritable else ""


def program() -> str:
    """How this program can be called again."""
    called = sys.argv[0]
    if called.endswith("__main__.py"):
        return "python -m harness"
    if called.endswith(".py"):
        return f"python {called}"
    return NAME if shutil.which(NAME) == called else called
