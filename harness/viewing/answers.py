"""What requests are answered with: pages, data, and what went wrong."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from harness.errors import HarnessError
from harness.inert import inert
from harness.sources import Sources
from harness.viewing import pages
from harness.viewing.building import glimpse
from harness.viewing.itemtable import ItemTable, Query, counts_of
from harness.viewing.opened import Library, Searched, lines


def failed(request: web.Request, status: int, title: str, message: str) -> web.Response:
    """What went wrong: as JSON where data was asked for, else as a page."""
    if "application/json" in request.headers.get("Accept", ""):
        response = as_json({"error": inert(message)})
    else:
        response = html(pages.error_page(title, message))
    response.set_status(status)
    return response


class Noting:
    """Notes what is wrong with a file of a run, so that the others are still shown."""

    def __init__(self, problems: list[str], name: str) -> None:
        self._problems, self._name = problems, name

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if not isinstance(error, Exception):
            return False
        said = str(error) if isinstance(error, HarnessError) else f"cannot be read ({type(error).__name__})"
        self._problems.append(f"{self._name}: {said}")
        return True


def facts_of(table: ItemTable) -> dict[str, Any]:
    """What there is to choose among."""
    return {
        "labels": [inert(end.label) for end in table.ends],
        "tasks": list(table.tasks),
        "subjects": dict(counts_of(table)),
        "items": len(table),
    }


def glimpsed(sources: Sources, start: int, length: int) -> dict[str, Any] | None:
    """A page of all items in their order, read by itself."""
    seen = glimpse(sources, range(start, start + length))
    if seen is None:
        return None
    shown = range(len(seen.table))
    told = lines(seen.table, shown, Library(sources, seen.table).questions(shown))
    rows = [{**each, "at": start + at} for at, each in enumerate(told)]
    return {"items": seen.items, "matching": seen.items, "note": "", "rows": rows}


def page_of(
    library: Library, query: Query, searched: Searched | None, start: int, length: int
) -> dict[str, Any]:
    """Some of the items that are asked for, in their order, and how many they are in all."""
    table = library.table
    asking = None if searched is None else searched.found
    found, matching = table.where(query, asking, most=start + length)
    shown = found[start:].tolist()
    partly = searched is not None and not searched.whole
    return {
        "items": len(table),
        "matching": matching,
        "note": "Not all questions were searched for the words: there are too many" if partly else "",
        "rows": lines(table, shown, library.questions(shown)),
    }


def html(text: str) -> web.Response:
    """A page."""
    return web.Response(body=text.encode("utf-8", "replace"), content_type="text/html", charset="utf-8")


def as_json(value: Any) -> web.Response:
    """Data."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return web.Response(
        body=text.encode("utf-8", "replace"), content_type="application/json", charset="utf-8"
    )
