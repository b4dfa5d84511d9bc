"""From runs to files: `report.html`, and each of its plots in `plots/`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.comparison.columns import Place
from harness.files import file_errors, replacing
from harness.reports.documents import documents
from harness.reports.drawing import Plot
from harness.reports.gathered import Gathered, gather
from harness.reports.page import Page, page
from harness.reports.plots import Chapter, plots_of
from harness.sources import Source

NAME = "report.html"
FOLDER = "plots"


@dataclass(frozen=True, slots=True)
class Written:
    """What was written."""

    file: Path
    size: int
    """Bytes of the page."""
    plots: tuple[Path, ...]
    folder: Path
    """Where these stand."""
    left_out: Sequence[str]
    """What the page had no room for, in sentences."""


class _Everything:
    """A container of every item."""

    def __contains__(self, place: object) -> bool:
        return isinstance(place, Place)


def write_report(
    given: Sequence[Source],
    *,
    out: Path | None = None,
    baseline: str | None = None,
    margin: float | None = None,
) -> Written:
    """Write a report of some runs; the same runs give the same bytes.

    Args:
        given: runs, or endpoints of runs, as `compare` takes them.
        out: the file; by default `report.html` in the folder of the second run, or of the only one. Its plots
            go into `plots/` beside it, those of a file of another name, `page.html`, into `page-plots/`.
        baseline: the label of the endpoint that the others are compared with; by default the first.
        margin: a difference of a metric below this does not matter in practice (a fraction); by default as
            `compare` has it.

    Raises:
        UsageError: something is no run.
        StoreError: a run's files cannot be read, or the report's cannot be written.
    """
    gathered = gather(given, baseline=baseline, margin=margin)
    plots = plots_of(gathered.report)
    found = composed(gathered, plots)
    text = found.text.encode("utf-8", "replace")
    file = gathered.sources.folder / NAME if out is None else out
    with file_errors(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        folder = file.parent / (FOLDER if file.name == NAME else f"{file.stem}-{FOLDER}")
        written = tuple(_pictures(folder, plots))
        with replacing(file) as path:
            path.write_bytes(text)
    return Written(file, len(text), written, folder, found.left_out)


def composed(gathered: Gathered, plots: Mapping[Chapter, Sequence[Plot]]) -> Page:
    """The page of what was gathered.

    Raises:
        StoreError: a run's texts cannot be read.
    """
    return page(gathered.report, plots, partial(documents, gathered.shelves, gathered.said, _Everything()))


def _pictures(folder: Path, plots: Mapping[Chapter, Sequence[Plot]]) -> Iterator[Path]:
    """Each plot as SVG and PNG; those that an earlier report had, and this one has not, are taken away."""
    folder.mkdir(exist_ok=True)
    drawn = [plot for of_chapter in plots.values() for plot in of_chapter]
    contents = {f"{plot.name}.svg": plot.svg().encode() for plot in drawn}
    contents |= {f"{plot.name}.png": plot.png() for plot in drawn}
    for old in (*folder.glob("*.svg"), *folder.glob("*.png")):
        if old.name not in contents and old.stem.partition("-")[0] in KNOWN:
            old.unlink()
    for name, content in contents.items():
        with replacing(folder / name) as path:
            path.write_bytes(content)
        yield folder / name


KNOWN = {
    *("accuracy", "subjects", "differences", "flips", "calibration", "margins"),
    *("unscored", "latency", "pace"),
}
"""What files of plots are called, before their numbers."""
