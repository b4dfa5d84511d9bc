"""The plots of reports as charts of altair, for notebooks: what a report shows of the same runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness.reports.drawing import WIDE
from harness.reports.gathered import gather
from harness.reports.palette import theme
from harness.reports.plots import plots_of
from harness.sources import Source

if TYPE_CHECKING:
    import altair as alt


def charts(
    *sources: Source, baseline: str | None = None, margin: float | None = None, width: int = WIDE
) -> Mapping[str, alt.TopLevelMixin]:
    """The plots of a report on some runs, by the names of its files: "accuracy", "differences", ...

    Args:
        sources: runs, as `Run` or by their folder; "FOLDER#LABEL" for one endpoint of a run.
        baseline: the label of the endpoint that the others are compared with; by default the first.
        margin: a difference of a metric below this does not matter in practice; by default as in `compare`.
        width: pixels that a chart may be wide.

    Raises:
        UsageError: a source is no run.
        StoreError: a run's files cannot be read.
    """
    report = gather(sources, baseline=baseline, margin=margin).report
    found: dict[str, alt.TopLevelMixin] = {}
    for of_chapter in plots_of(report).values():
        for plot in of_chapter:
            chart = plot.chart(width)
            chart["config"] = theme()  # type: ignore[index] # a chart takes its keys so
            found[plot.name] = chart
    return found
