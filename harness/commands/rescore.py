"""`rescore`: a run's tables anew, from its journal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from harness.errors import StoreError, UsageError


def rescore(
    folder: Annotated[Path, Parameter(metavar="RUN")],
    /,
    *,
    metrics: Annotated[str, Parameter(metavar="NAME[,NAME]", show_default=False)] = "",
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Write the tables, and print the accuracy.

    Args:
        folder: The run's folder.
        metrics: Report these beside those that the run has; all: those that need no request.
        json: Print the accuracy table as JSON on stdout, for programs.
    """
    from rich.console import Console

    from harness.manifest import Exit
    from harness.printing import print_accuracy
    from harness.rescoring import rescore as score_anew
    from harness.terminal import reader_may_leave, say

    try:
        found = score_anew(folder, metrics)
    except StoreError as error:
        raise UsageError(str(error)) from error
    with reader_may_leave():
        print_accuracy(found.accuracy, as_json=json)
        say(Console(stderr=True), f"Files: {found.folder}/ (scores.csv, items.csv, items.parquet)")
    return int(Exit.UNSCORED if found.unscored else Exit.DONE)
