"""`plan`: what a run would take, before anything is sent."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from harness.errors import StoreError, UsageError
from harness.settings import RunSettings


def plan(
    suite: Annotated[Path | None, Parameter(metavar="SUITE.toml", show_default=False)] = None,
    /,
    *,
    settings: RunSettings | None = None,
) -> int:
    """Print what a run would take.

    Args:
        suite: A suite file, as run takes it. What flags say wins.
    """
    from harness.terminal import reader_may_leave

    with reader_may_leave():
        print_outlook(settings or RunSettings())
    return 0


def print_outlook(settings: RunSettings) -> None:
    """What a run would take, for people, or as JSON for programs; what is assumed goes to stderr.

    Raises:
        UsageError: settings or data are wrong, or the run's folder cannot be read.
    """
    from rich.console import Console

    from harness.foretold import outlook_table, remarks
    from harness.merging.spent import refuse_unmerged, sent_before
    from harness.outlook import foreseen
    from harness.prepare import prepare
    from harness.runs import whose
    from harness.terminal import print_table, say

    prepared = prepare(settings, send=False)
    names = {whose(each.identity): each.label for each in prepared.endpoints}
    if prepared.shard is None:
        refuse_unmerged(prepared.folder)  # as the run would be
    try:
        outlook, spent = foreseen(prepared), sent_before(prepared.folder, names)
    except StoreError as error:
        raise UsageError(str(error)) from error
    lines = list(remarks(prepared, outlook, spent))
    if settings.json:
        sys.stdout.write(json.dumps({**outlook.document(), "remarks": lines}, indent=2) + "\n")
    else:
        print_table(outlook_table(outlook))
    for line in lines:
        say(Console(stderr=True), line)
