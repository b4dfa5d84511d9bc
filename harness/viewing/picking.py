"""What a request names: runs, or endpoints of runs, by what addresses call them; and what is made of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from harness.errors import HarnessError, StoreError, UsageError
from harness.reports import page as reported
from harness.reports.gathered import gather
from harness.reports.plots import plots_of
from harness.reports.writing import composed
from harness.sources import Source, Sources, resolve
from harness.viewing.folders import Found
from harness.viewing.pages import Compared

REPORTED = 250_000
"""Rows of items, one an item and endpoint, up to which reports and comparisons are made here."""
MOST_ENDS = 64
"""Runs, or endpoints, that one request may name."""


class NotHere(HarnessError):
    """A request names what is not there."""


@dataclass(frozen=True, slots=True)
class Picked:
    """Runs, or endpoints of runs, that a request names; the baseline first."""

    sources: Sources
    key: tuple[object, ...]
    """Changes when any of their files does."""
    query: str
    """Of addresses that mean the same."""
    title: str
    """How the command line would name them."""

    @property
    def rows(self) -> int:
        """Rows of items, as far as the runs say how many they have."""
        return sum(_items_of(end.run) for end in self.sources.ends)


def picked(there: dict[str, Found], given: Sequence[str], baseline: str) -> Picked:
    """Runs, or endpoints of runs, by what addresses call them.

    Raises:
        UsageError: nothing is named, or something that cannot be compared.
        StoreError: a run is damaged.
        NotHere: there is no such run.
    """
    if not given:
        raise UsageError("no run is named (with=...)")
    if len(given) > MOST_ENDS:
        raise UsageError(f"{len(given)} runs at once are too many")
    order = sorted(given, key=lambda each: each != baseline)
    named = [_named(there, each) for each in order]
    sources: list[Source] = [source for _, source, _ in named]
    found = resolve(sources, fewest=1)
    stamps = tuple((each.key, each.stamp) for each, _, _ in named)
    told = [("with", each) for each in order]
    return Picked(found, (tuple(order), stamps), urlencode(told), " ".join(title for _, _, title in named))


def _named(there: dict[str, Found], name: str) -> tuple[Found, Source, str]:
    """A run by its key, or one endpoint of it by its position behind a point."""
    key, point, position = name.partition(".")
    found = there.get(key)
    if found is None:
        raise NotHere("There is no such run.")
    if found.run is None:
        raise StoreError(f"{found.name}: {found.problem}")
    if not point:
        return found, found.run, str(found.path)
    label = found.run.labels[whole(position, "with", 0, len(found.run.labels) - 1)]
    return found, f"{found.path}#{label}", f"{found.path}#{label}"


def ends_of(there: dict[str, Found], given: Sequence[str]) -> list[tuple[str, str, str, bool]]:
    """All endpoints of the runs that are named, and whether they are: a run alone names all of its own."""
    keys = list(dict.fromkeys(each.partition(".")[0] for each in given))
    found = [there[key] for key in keys if key in there and there[key].run is not None]
    return [
        (name := f"{each.key}.{at}", each.name, label, each.key in given or name in given)
        for each in found
        for at, label in enumerate(each.run.labels if each.run else ())
    ]


def bounded(which: Picked, command: str) -> None:
    """Refuse what would take long, and much memory: the command line does it as well."""
    if which.rows > REPORTED:
        raise UsageError(
            f"{which.rows:,} rows of items are too many for a page that is waited for; give the command:"
            f" forced-choice {command} {which.title}"
        )


def report_of(sources: Sources) -> str:
    """The page that `report` writes."""
    gathered = gather(_again(sources))
    return composed(gathered, plots_of(gathered.report)).text


def compared_of(sources: Sources) -> Compared:
    """What a comparison says."""
    from markupsafe import Markup

    report = gather(_again(sources)).report
    plots = plots_of(report)["comparison"]
    return Compared(
        labels=report.labels,
        tasks=tuple(report.tasks),
        table=reported.compared(report),
        sentences=report.sentences,
        more=report.more,
        remarks=report.remarks,
        plots=plots,
        pictures={plot.name: Markup(plot.inline()) for plot in plots},
    )


def _again(sources: Sources) -> list[Source]:
    """What was resolved, to be resolved once more, in the same order."""
    return [f"{end.run.folder}#{end.label}" for end in sources.ends if end.run]


def whole(text: str, name: str, least: int, most: int) -> int:
    """A number of a request.

    Raises:
        UsageError: it is none, or out of bounds.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 16 and least <= int(text) <= most):
        raise UsageError(f"{name}: {text[:40]!r} is no whole number from {least} to {most}")
    return int(text)


def _items_of(run: Any) -> int:
    tasks = run.manifest.get("tasks") if run else None
    counts = [each.get("items") for each in tasks.values()] if isinstance(tasks, dict) else []
    return sum(each for each in counts if isinstance(each, int))
