"""`run`: evaluate tasks on endpoints."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from harness.settings import FILES, RunSettings


def run(
    suite: Annotated[Path | None, Parameter(metavar="SUITE.toml", show_default=False)] = None,
    /,
    *,
    settings: RunSettings | None = None,
    dump_suite: Annotated[bool, Parameter(group=FILES, negative="", show_default=False)] = False,
) -> int:
    """Evaluate, and print the accuracy table.

    Args:
        suite: A suite file: tasks, endpoints with their budgets, and any flag by its name, as TOML. \
What flags say wins.
        dump_suite: Print this command line as a suite file, and do nothing else.
    """
    settings = settings or RunSettings()  # which says what is needed
    if dump_suite:
        from harness.suitefile import dump_suite as dumped

        sys.stdout.write(dumped(settings))
        return 0
    from harness.foreground import evaluated, run_async
    from harness.prepare import prepare
    from harness.printing import print_result
    from harness.terminal import reader_may_leave

    result = run_async(evaluated(prepare(settings)))
    with reader_may_leave():
        print_result(result, as_json=settings.json)
    return int(result.exit)
