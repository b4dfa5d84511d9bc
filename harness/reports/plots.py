"""The plots of a report: a function and a row each.

To add one: a function of the report that yields a `Plot` (or none, or several), in `accuracies`, `changes` or
`spreads`, and a row here; it then stands in the report, under a heading, with its numbers as a table, and in
`plots/`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal

from harness.reports.accuracies import accuracy, coverage, subjects
from harness.reports.changes import differences, flips
from harness.reports.drawing import Plot
from harness.reports.records import Report
from harness.reports.spreads import calibration, latency, margins, pace

Chapter = Literal["accuracy", "comparison", "answers", "run"]
"""Of the report: where a plot stands."""
Draw = Callable[[Report], Iterator[Plot]]

PLOTS: tuple[tuple[Chapter, Draw], ...] = (
    ("accuracy", accuracy),
    ("accuracy", subjects),
    ("comparison", differences),
    ("comparison", flips),
    ("answers", calibration),
    ("answers", margins),
    ("run", coverage),
    ("run", latency),
    ("run", pace),
)
"""All plots, in the order in which the report shows them."""


def plots_of(report: Report) -> Mapping[Chapter, list[Plot]]:
    """The plots of a report, by chapter; those that it has nothing for are left out."""
    found: dict[Chapter, list[Plot]] = {chapter: [] for chapter, _ in PLOTS}
    for chapter, draw in PLOTS:
        found[chapter] += draw(report)
    return found
