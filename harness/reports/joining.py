"""All items of a report, endpoints side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from harness.comparison.columns import Columns, Place
from harness.comparison.findings import Findings
from harness.comparison.measures import margins, side_of
from harness.errors import StoreError
from harness.reports.records import Items
from harness.sources import End, Sources
from harness.stored import Run


def joined(
    found: Sources, columns: Sequence[Columns], tasks: Mapping[str, str], findings: Findings | None
) -> Items:
    """All items of all endpoints, those of the baseline first."""
    where = [{place: position for position, place in enumerate(each.places)} for each in columns]
    places = list(dict.fromkeys(place for each in columns for place in each.places))
    home = [next(number for number, known in enumerate(where) if place in known) for place in places]
    first = [(columns[number], where[number][place]) for number, place in zip(home, places, strict=True)]
    golds = [each.gold.lists() for each in columns]
    parts = [
        _part(end, each, known, places, tasks)
        for end, each, known in zip(found.ends, columns, where, strict=True)
    ]
    numbers = {place: position for position, place in enumerate(places)}
    flips: list[dict[int, str]] = [{} for _ in columns]
    for flip in findings.flips if findings else ():
        flips[found.labels.index(flip.endpoint)][numbers[flip.place]] = flip.kind
    return Items(
        places=places,
        ids=[each.ids[at] for each, at in first],
        gold=[golds[number][at] for number, (_, at) in zip(home, first, strict=True)],
        choices=[int(each.choice_bytes.lengths[at]) for each, at in first],
        sums=[each["sums"] for each in parts],
        predictions=[each["predictions"] for each in parts],
        values=[each["values"] for each in parts],
        margins=[each["margins"] for each in parts],
        unscored=[each["unscored"] for each in parts],
        flips=flips,
    )


def _part(
    end: End,
    columns: Columns,
    known: Mapping[Place, int],
    places: Sequence[Place],
    tasks: Mapping[str, str],
) -> dict[str, list[Any]]:
    """One endpoint's part of all items, in their order; what it was not asked is empty."""
    reasons = run_of(end).item_table(end.label, ["unscored"])["unscored"].to_pylist()
    sums = columns.sums.lists()
    at = np.flatnonzero(columns.scored)
    ahead = np.full(len(columns.places), np.nan)
    ahead[at] = margins(side_of(columns, at))
    values = {name: each.tolist() for name, each in columns.values.items()}
    predictions = {name: each.tolist() for name, each in columns.predictions.items()}
    margin = ahead.tolist()
    found: dict[str, list[Any]] = {
        name: [] for name in ("sums", "predictions", "values", "margins", "unscored")
    }
    for place in places:
        position = known.get(place)
        metric = tasks[place.task]
        if position is None:
            cells: tuple[Any, ...] = ((), -1, np.nan, np.nan, None)
        else:
            cells = (
                sums[position],
                predictions[metric][position] if metric in predictions else -1,
                values[metric][position] if metric in values else np.nan,
                margin[position],
                reasons[position] or "",
            )
        for name, cell in zip(found, cells, strict=True):
            found[name].append(cell)
    return found


def run_of(end: End) -> Run:
    """The run of an endpoint; raises `StoreError` where it has none."""
    if end.run is None:
        raise StoreError(f"{end.place}: is no run")
    return end.run
