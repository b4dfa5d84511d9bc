"""What is where: addresses to pages and data.

| Address | Answers with |
| --- | --- |
| `/` | the list of runs; `q`, `sort`, `down`, `page` |
| `/run/KEY` | one run |
| `/run/KEY/events` | how far it has come, as server-sent events |
| `/compare?with=KEY&with=KEY.1` | runs, or endpoints of runs, beside one another; `baseline` |
| `/report?with=KEY` | the report of such |
| `/items?with=KEY` | some of their items, as JSON: `show`, `on`, `task`, `subject`, `search`, `sort`, `down`,
`start`, `length` |
| `/item?with=KEY&at=N` | one of them whole, as JSON |
| `/facts?with=KEY` | their endpoints, tasks and subjects, as JSON |
| `/static/NAME` | styles and scripts |

All work on files is done in threads. What is slow to make is made once, and kept until the run's files
change.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from harness.errors import HarnessError, UsageError
from harness.inert import inert
from harness.reports import page as reported
from harness.reports.gathered import accuracy_rows
from harness.reports.settled import sections_of
from harness.sources import Sources, resolve
from harness.viewing import pages
from harness.viewing.answers import Noting, as_json, facts_of, failed, glimpsed, html, page_of
from harness.viewing.building import build
from harness.viewing.folders import Folders, Found, Stamp
from harness.viewing.guarding import POLICY, add_headers, refuse
from harness.viewing.itemtable import MOST_ROWS, Query
from harness.viewing.live import Watched
from harness.viewing.opened import Library, Searched
from harness.viewing.pages import Asked, Compared, Headline
from harness.viewing.picking import (
    MOST_ENDS,
    NotHere,
    Picked,
    bounded,
    compared_of,
    ends_of,
    picked,
    report_of,
    whole,
)
from harness.viewing.shelves import Shelf

EVERY = 5.0
"""Seconds between two looks at a run in progress."""
_MEGABYTE = 1_000_000
_Made = TypeVar("_Made")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(slots=True)
class Viewer:
    """All that the page knows."""

    folders: Folders
    every: float = EVERY
    now: Callable[[], float] = time.time
    libraries: Shelf[Library] = field(
        default_factory=lambda: Shelf(lambda each: each.table.nbytes, 512 * _MEGABYTE)
    )
    searches: Shelf[Searched] = field(
        default_factory=lambda: Shelf(lambda each: each.found.nbytes, 32 * _MEGABYTE)
    )
    reports: Shelf[str] = field(default_factory=lambda: Shelf(len, 100 * _MEGABYTE))
    compared: Shelf[Compared] = field(default_factory=lambda: Shelf(lambda _: _MEGABYTE, 32 * _MEGABYTE))
    accuracy: dict[tuple[str, Stamp], list[Headline]] = field(default_factory=dict)
    watched: dict[str, Watched] = field(default_factory=dict)
    busy: asyncio.Lock = field(default_factory=asyncio.Lock)
    """Reports and comparisons are made one at a time."""

    # ------------------------------------------------------------------------------------------------ pages

    async def list(self, request: web.Request) -> web.Response:
        """The list of runs."""
        asked = Asked(
            search=request.query.get("q", "")[:200],
            sort=request.query.get("sort", "begun"),
            descending=request.query.get("down", "1") != "0",
            page=whole(request.query.get("page", "1"), "page", 1, 1_000_000),
        )
        return html(await asyncio.to_thread(self._list, asked))

    async def run(self, request: web.Request) -> web.Response:
        """One run."""
        found = await self._found(request.match_info["key"])
        return html(await asyncio.to_thread(self._run, found))

    async def compare(self, request: web.Request) -> web.Response:
        """Endpoints beside one another."""
        baseline = request.query.get("baseline", "")
        given = request.query.getall("with", [])
        there = await asyncio.to_thread(self.folders.found)
        ends = ends_of(there, given)
        chosen = [key for key, _, _, is_chosen in ends if is_chosen]
        if len(chosen) < 2:
            return html(pages.compare_page(ends, None, "", baseline))
        baseline = baseline if baseline in chosen else chosen[0]
        which = await asyncio.to_thread(picked, there, chosen, baseline)
        bounded(which, "compare")
        compared = await self._slowly(self.compared, which, compared_of)
        return html(pages.compare_page(ends, compared, which.query, baseline))

    async def report(self, request: web.Request) -> web.Response:
        """The report of some runs, as `report` writes it."""
        which = await self._picked(request)
        bounded(which, "report")
        text = await self._slowly(self.reports, which, report_of)
        response = html(text)
        response.headers["Content-Security-Policy"] = (
            reported.policy(reported.scripts()) + "; frame-ancestors 'none'"
        )
        return response

    async def static(self, request: web.Request) -> web.Response:
        """A style or a script."""
        found = await asyncio.to_thread(pages.static, request.match_info["name"])
        if found is None:
            raise NotHere("There is no such file.\n")
        text, kind = found
        return web.Response(
            text=text, content_type=kind, charset="utf-8", headers={"Content-Security-Policy": POLICY}
        )

    # ----------------------------------------------------------------------------------------------- data

    async def items(self, request: web.Request) -> web.Response:
        """Some items."""
        asked = request.query
        length = whole(asked.get("length", "25"), "length", 1, MOST_ROWS)
        start = whole(asked.get("start", "0"), "start", 0, 1 << 40)
        query = Query(
            show=asked.get("show", "all items"),
            end=whole(asked["on"], "on", 0, MOST_ENDS) if asked.get("on") else None,
            task=asked.get("task", ""),
            subject=asked.get("subject", ""),
            search=asked.get("search", "")[:200],
            sort=asked.get("sort", ""),
            descending=asked.get("down", "0") == "1",
        )
        which = await self._picked(request)
        if query.plain and not self.libraries.has(which.key):
            seen = await asyncio.to_thread(glimpsed, which.sources, start, length)
            if seen is not None:  # the first page waits for nothing but itself
                return as_json(seen)
        library = await self._library(which)
        searched = None
        if query.search:
            searched = await self.searches.get(
                (which.key, query.search), lambda: library.search(query.search)
            )
        return as_json(await asyncio.to_thread(page_of, library, query, searched, start, length))

    async def facts(self, request: web.Request) -> web.Response:
        """What there is to choose among; with it everything is ready to be filtered."""
        library = await self._library(await self._picked(request))
        return as_json(await asyncio.to_thread(facts_of, library.table))

    async def item(self, request: web.Request) -> web.Response:
        """One item, whole."""
        library = await self._library(await self._picked(request))
        at = whole(request.query.get("at", ""), "at", 0, len(library.table) - 1)
        return as_json(await asyncio.to_thread(library.item, at))

    async def events(self, request: web.Request) -> web.StreamResponse:
        """How far a run has come, until it ends or nobody listens any more."""
        key = request.match_info["key"]
        await self._found(key)
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        last = ""
        while True:
            told = await asyncio.to_thread(self._snapshot, key)
            text = inert(json.dumps(told, ensure_ascii=False))
            # What has not changed is a comment: it shows whether anybody still listens.
            await response.write(
                (f"data: {text}\n\n" if text != last else ":\n\n").encode("utf-8", "replace")
            )
            if told["state"] not in ("running", "dead"):
                return response
            last = text
            await asyncio.sleep(self.every)

    # ----------------------------------------------------------------------------------------------- within

    def _list(self, asked: Asked) -> str:
        there = self.folders.found()
        runs = pages.chosen((pages.listed(each, self.now()) for each in there.values()), asked)
        first = (min(asked.page, max(1, -(-len(runs) // pages.PAGE))) - 1) * pages.PAGE
        accuracy = {each.found.key: self._accuracy(each.found) for each in runs[first : first + pages.PAGE]}
        return pages.list_page(str(self.folders.root), runs, asked, accuracy, every=len(there))

    def _accuracy(self, found: Found) -> Sequence[Headline]:
        at = (found.key, found.stamp)
        if at not in self.accuracy:
            for old in [each for each in self.accuracy if each[0] == found.key]:
                self.accuracy.pop(old, None)
            try:
                self.accuracy[at] = pages.headlines(found)
            except Exception:  # whatever is wrong with one table must not hide the other runs
                self.accuracy[at] = []
        return self.accuracy.get(at, [])

    def _run(self, found: Found) -> str:
        shown = pages.listed(found, self.now())
        if found.run is None:
            return pages.run_page(shown, (), (), (), items=False)
        problems: list[str] = []
        accuracy: list[Any] = []
        sections: list[Any] = []
        if (found.path / "scores.csv").exists():
            with Noting(problems, "scores.csv"):
                accuracy = list(accuracy_rows(resolve([found.run], fewest=1)))
        with Noting(problems, "run.json"):
            sections = list(sections_of(found.run, many=False))
        return pages.run_page(
            shown, accuracy, sections, problems, items=(found.path / "items.parquet").exists()
        )

    def _snapshot(self, key: str) -> dict[str, Any]:
        found = self.folders.found().get(key)
        if found is None:
            return {"state": "damaged", "at": "", "endpoints": []}
        watched = self.watched.setdefault(key, Watched())
        return watched.told(found, self.now())

    async def _found(self, key: str) -> Found:
        found = (await asyncio.to_thread(self.folders.found)).get(key)
        if found is None:
            raise NotHere("There is no such run.")
        return found

    async def _picked(self, request: web.Request) -> Picked:
        there = await asyncio.to_thread(self.folders.found)
        given, baseline = request.query.getall("with", []), request.query.get("baseline", "")
        return await asyncio.to_thread(picked, there, given, baseline)

    async def _slowly(self, shelf: Shelf[_Made], which: Picked, make: Callable[[Sources], _Made]) -> _Made:
        """What takes long to make: one after another, unless it is there already."""
        if shelf.has(which.key):
            return await shelf.get(which.key, lambda: make(which.sources))
        async with self.busy:
            return await shelf.get(which.key, lambda: make(which.sources))

    async def _library(self, which: Picked) -> Library:
        return await self.libraries.get(which.key, lambda: Library(which.sources, build(which.sources)))


def application(
    folder: Path, *, every: float = EVERY, now: Callable[[], float] = time.time
) -> web.Application:
    """The page over a folder of runs.

    Args:
        folder: its runs are shown, wherever in it they stand.
        every: seconds between two looks at a run in progress.
        now: the time, seconds since the epoch.
    """
    viewer = Viewer(Folders(folder), every, now)
    app = web.Application(middlewares=[_answered], client_max_size=0)
    app.on_response_prepare.append(add_headers)
    for address, handler in (
        ("/", viewer.list),
        ("/run/{key}", viewer.run),
        ("/run/{key}/events", viewer.events),
        ("/compare", viewer.compare),
        ("/report", viewer.report),
        ("/items", viewer.items),
        ("/item", viewer.item),
        ("/facts", viewer.facts),
        ("/static/{name}", viewer.static),
    ):
        app.router.add_get(address, handler, allow_head=False)
    return app


@web.middleware
async def _answered(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Refuse what may not ask; what goes wrong becomes a page, or JSON where data was asked for."""
    try:
        refuse(request)
        return await handler(request)
    except (web.HTTPNotFound, NotHere) as error:
        said = str(error) if isinstance(error, NotHere) else "No page has this address."
        return failed(request, 404, "There is nothing here", said)
    except UsageError as error:
        return failed(request, 400, "That cannot be shown", str(error))
    except HarnessError as error:
        return failed(request, 500, "That cannot be read", str(error))
    except (web.HTTPException, ConnectionError, asyncio.CancelledError):
        raise
    except Exception as error:  # files may be broken in ways that nobody has foreseen
        told = " ".join(str(error).split())[:200]
        said = f"A file of this run cannot be read ({type(error).__name__}: {told})"
        return failed(request, 500, "That cannot be read", said)
