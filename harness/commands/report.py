"""`report`: one page to show and to look into."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from cyclopts import Parameter

from harness.compare_settings import ReportSettings
from harness.errors import StoreError, UsageError

_DEFAULTS = ReportSettings()


def report(
    *run: Annotated[str, Parameter(metavar="RUN", show_default=False)],
    settings: ReportSettings = _DEFAULTS,
) -> int:
    """Write the page, and say where it is.

    Args:
        run: A run's folder, several, or FOLDER#LABEL for one endpoint of it. The first \
endpoint is the baseline.
    """
    print_report(run, settings)
    return 0


def print_report(sources: Sequence[str], settings: ReportSettings) -> None:
    """Write a report; where it is, and what had no room in it, goes to stderr.

    Raises:
        UsageError: a run cannot be read, or a file cannot be written.
    """
    from rich.console import Console

    from harness.printing import way_out
    from harness.reports.writing import write_report
    from harness.terminal import say

    if not sources:
        raise UsageError("report: give a run's folder, as the run named it at its end: results/...")
    try:
        found = write_report(sources, out=settings.out, baseline=settings.baseline, margin=settings.margin)
    except StoreError as error:
        raise UsageError(f"{error}{way_out(error, settings.out)}") from error
    console = Console(stderr=True)
    for line in found.left_out:
        say(console, line)
    plots = f"{len(found.plots) // 2} plots in {found.folder}/" if found.plots else "no plots"
    say(console, f"Report: {found.file} ({found.size / 1e6:.1f} MB); {plots}")
