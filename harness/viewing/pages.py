"""The pages, out of `templates/` and the parts of reports' pages; every text in them is escaped.

This module does not know who asks, nor how runs are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from harness.exports import Cells
from harness.inert import inert
from harness.reports import page as reported
from harness.reports.drawing import Plot
from harness.reports.palette import darkened, series
from harness.reports.records import AccuracyRow, Section
from harness.viewing.folders import Found, State
from harness.viewing.itemtable import SHOWS

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
PAGE = 50
"""Runs in one page of the list."""
TASKS, ENDS = 3, 4
"""Tasks and endpoints of a run whose accuracy stands in the list."""
SORTS = ("run", "state", "tasks", "begun")
_TYPES = {"css": "text/css", "js": "text/javascript"}


@dataclass(frozen=True, slots=True)
class Headline:
    """One task of a run in the list: its headline metric, and the value of each endpoint."""

    task: str
    metric: str
    values: tuple[tuple[str, float], ...]


@dataclass(frozen=True, slots=True)
class Listed:
    """One run of the list."""

    found: Found
    state: State
    tasks: tuple[str, ...] = ()
    endpoints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Which runs of the list are wanted."""

    search: str = ""
    sort: str = "begun"
    descending: bool = True
    page: int = 1

    def but(self, **changes: object) -> str:
        """The address of the list with something changed."""
        told = {
            "q": self.search,
            "sort": self.sort,
            "down": int(self.descending),
            "page": self.page,
            **changes,
        }
        return f"/?{urlencode({name: value for name, value in told.items() if value not in ('', None)})}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """What a comparison says, ready to be shown."""

    labels: tuple[str, ...]
    tasks: tuple[str, ...]
    table: Cells | None
    sentences: tuple[str, ...]
    more: tuple[str, ...]
    remarks: tuple[str, ...]
    plots: Sequence[Plot]
    pictures: Mapping[str, str]
    """By the name of a plot: its SVG."""


def listed(found: Found, now: float) -> Listed:
    """What the list says of a run, out of its `run.json` alone."""
    if found.run is None:
        return Listed(found, found.state(now))
    return Listed(found, found.state(now), tuple(found.run.stored.tasks), found.run.labels)


def chosen(runs: Iterable[Listed], asked: Asked) -> list[Listed]:
    """The runs that are wanted, sorted: each word of the search is in its name, state, tasks or labels."""
    words = asked.search.casefold().split()
    kept = [each for each in runs if all(word in _searched(each) for word in words)]
    keys = {
        "run": lambda each: each.found.name.casefold(),
        "state": lambda each: each.state,
        "tasks": lambda each: " ".join(each.tasks),
        "begun": lambda each: each.found.begun,
    }
    return sorted(kept, key=keys.get(asked.sort, keys["begun"]), reverse=asked.descending)


def headlines(found: Found) -> list[Headline]:
    """The accuracy that the list shows of a run.

    Raises:
        StoreError: its accuracy table cannot be read.
    """
    run = found.run
    if run is None or not (run.folder / "scores.csv").exists():
        return []
    scores = run.scores
    own = scores[scores["subject"] == ""]
    shown = []
    for name, task in list(run.stored.tasks.items())[:TASKS]:
        rows = own[(own["task"] == name) & (own["metric"] == next(iter(task.metrics), ""))]
        values = tuple(zip(rows["endpoint"][:ENDS], map(float, rows["value"][:ENDS]), strict=True))
        if values:
            shown.append(Headline(name, task.metrics[0], values))
    return shown


def list_page(
    folder: str,
    runs: Sequence[Listed],
    asked: Asked,
    accuracy: Mapping[str, Sequence[Headline]],
    *,
    every: int,
) -> str:
    """The list of runs.

    Args:
        folder: that is looked at.
        runs: those that are wanted.
        asked: which these are, and the page of them.
        accuracy: by the key of a run.
        every: how many runs there are in all.
    """
    pages = max(1, -(-len(runs) // PAGE))
    page = min(max(1, asked.page), pages)
    return _rendered(
        "list.html",
        folder=folder,
        runs=runs[(page - 1) * PAGE : page * PAGE],
        matching=len(runs),
        asked=asked,
        page=page,
        pages=pages,
        accuracy=accuracy,
        every=every,
        sorts=SORTS,
        most_tasks=TASKS,
        most_ends=ENDS,
    )


def run_page(
    shown: Listed,
    accuracy: Sequence[AccuracyRow],
    sections: Sequence[Section],
    problems: Sequence[str],
    *,
    items: bool,
) -> str:
    """One run.

    Args:
        shown: the run.
        accuracy: its accuracy table.
        sections: its settings and hashes.
        problems: what of it could not be read.
        items: whether it has an item table.
    """
    labels = shown.endpoints
    return _rendered(
        "run.html",
        run=shown,
        labels=labels,
        parts=reported.accuracy_parts(shown.tasks, accuracy),
        colours=dict(zip(labels, series(labels), strict=True)),
        sections=sections,
        problems=problems,
        remarks=shown.found.run.remarks if shown.found.run else (),
        items=urlencode({"with": shown.found.key}) if items else "",
        shows=SHOWS,
    )


def compare_page(
    chosen_ends: Sequence[tuple[str, str, str, bool]], compared: Compared | None, query: str, baseline: str
) -> str:
    """Some endpoints beside one another.

    Args:
        chosen_ends: of each endpoint of the runs that were picked: what addresses call it, its run, its
            label, and whether it is compared.
        compared: what came of it; None where fewer than two are picked.
        query: of the addresses of their items.
        baseline: what addresses call the baseline.
    """
    return _rendered(
        "compare.html",
        ends=chosen_ends,
        compared=compared,
        items=query,
        report=f"/report?{query}",
        baseline=baseline,
        shows=SHOWS,
    )


def error_page(title: str, message: str) -> str:
    """Something that cannot be shown."""
    return _rendered("error.html", title=title, message=message)


@cache
def static(name: str) -> tuple[str, str] | None:
    """A style or script of the pages, and its type; None where there is no such."""
    made: Mapping[str, Callable[[], str]] = {
        "style.css": _style,
        "tables.js": reported.table_library,
        "items.js": partial(reported.script, "items.js"),
        "view.js": partial(_own, "view.js"),
    }
    return (made[name](), _TYPES[name.rpartition(".")[2]]) if name in made else None


@cache
def environment() -> Environment:
    """Renders our templates, and the parts of reports'."""
    from jinja2 import FileSystemLoader

    made = reported.environment().overlay(loader=FileSystemLoader([TEMPLATES, reported.TEMPLATES]))
    made.filters = {**made.filters, "inert": inert}
    return made


def _rendered(name: str, **values: Any) -> str:
    return environment().get_template(name).render(**values)


def _style() -> str:
    dark = f"@media screen and (prefers-color-scheme: dark) {{\n{darkened()}\n}}"
    return f"{reported.script('report.css')}\n{_own('view.css')}\n{dark}\n"


def _own(name: str) -> str:
    return (TEMPLATES / name).read_text("utf-8")


def _searched(each: Listed) -> str:
    told = (each.found.name, each.state, *each.tasks, *each.endpoints, each.found.begun)
    return inert(" ".join(told)).casefold()
