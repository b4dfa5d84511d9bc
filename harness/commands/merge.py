"""`merge`: what shards of a run have, put together."""

from __future__ import annotations

from pathlib import Path
from shlex import quote
from typing import Annotated

from cyclopts import Parameter

from harness.errors import StoreError, UsageError


def merge(
    folder: Annotated[Path, Parameter(metavar="DIR")],
    /,
    *,
    json: Annotated[bool, Parameter(negative="", show_default=False)] = False,
) -> int:
    """Merge, and print the accuracy table.

    Args:
        folder: The run's folder, as --out of run --shard named it.
        json: Print the accuracy table as JSON on stdout, for programs.
    """
    from rich.console import Console

    from harness.manifest import Exit
    from harness.merging.whole import merge as put_together
    from harness.printing import print_accuracy, program
    from harness.showing import merged_lines
    from harness.terminal import reader_may_leave, say

    console = Console(stderr=True)
    try:
        found = put_together(folder)
    except StoreError as error:
        raise UsageError(str(error)) from error
    except KeyboardInterrupt:
        say(console, f"Stopped, nothing is lost. To go on: {program()} merge {quote(str(folder))}")
        return int(Exit.INTERRUPTED)
    with reader_may_leave():
        print_accuracy(found.accuracy, as_json=json)
        for line in merged_lines(found, program=program()):
            say(console, line)
    return int(found.exit)
