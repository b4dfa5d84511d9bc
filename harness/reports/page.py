"""A report as one HTML page that needs nothing else: no host is asked, whatever the texts in it say.

All text is escaped (jinja2's autoescape), and what would act without being seen is replaced (`inert`). The
page's own policy then forbids every script but those that are part of it, by their hashes, and every address.
This module does not know where a report comes from.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.comparison.words import points
from harness.errors import HarnessError
from harness.exports import Cells, cells
from harness.inert import inert
from harness.reports.drawing import Plot
from harness.reports.itemdata import BLOCK, FLIPPED, LIMIT, RIGHT, WRONG, Documents, Packed, pack
from harness.reports.palette import darkened, series
from harness.reports.plots import Chapter
from harness.reports.records import AccuracyRow, Coverage, Report

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES = Path(__file__).parent / "templates"
_TAG = 80
"""Bytes of the element that holds a block, beside its content."""


@dataclass(frozen=True, slots=True)
class Page:
    """A page, and what it does not hold."""

    text: str
    left_out: Sequence[str]
    """In sentences."""


def page(
    report: Report, plots: Mapping[Chapter, Sequence[Plot]], documents: Documents, *, limit: int = LIMIT
) -> Page:
    """The whole page, of at most so many bytes.

    Args:
        report: what it shows.
        plots: its plots, by chapter.
        documents: reads the documents of all items.
        limit: bytes that it may have.
    """
    nothing = Packed("", (), len(report.items), 0, Counter(), Counter(), Counter(), texts=False)
    empty = _rendered(report, plots, nothing)
    room = limit - len(empty.encode()) - 4096
    room -= _TAG * (room // BLOCK + 1)
    items = pack(report, documents, room=room)
    return Page(_rendered(report, plots, items), left_out(items))


def scripts() -> tuple[str, ...]:
    """The scripts of a page with items, in order: DataTables as itables ships it, then our own."""
    return table_library(), script("items.js"), script("page.js")


def script(name: str) -> str:
    """One of our own scripts."""
    return (TEMPLATES / name).read_text("utf-8")


@cache
def table_library() -> str:
    """DataTables with jQuery, which it leaves in `forcedChoice.jQuery`.

    itables ships a module; a page that is opened from a disk cannot import one, so it becomes a plain script.

    Raises:
        HarnessError: this itables has it otherwise.
    """
    text = (files("itables") / "html" / "dt_bundle.js").read_text("utf-8")
    exported = re.search(r"export\{[^}]*?(\w+) as jQuery[^}]*\}", text)
    if exported is None or "</script" in text.lower():
        raise HarnessError("itables: its DataTables is not as expected; install itables 2.9")
    end = f"globalThis.forcedChoice={{jQuery:{exported[1]}}}"
    body = text[: exported.start()] + end + text[exported.end() :]
    return f"(()=>{{{body}\n}})();\n"


def policy(contents: Sequence[str]) -> str:
    """The page's content security policy: these scripts, styles of its own, no address at all."""
    hashes = " ".join(f"'sha256-{b64encode(sha256(each.encode()).digest()).decode()}'" for each in contents)
    return (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data:;"
        " base-uri 'none'; form-action 'none'"
    )


@cache
def environment() -> Environment:
    """Renders the templates; every text in them is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    made = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    made.filters |= {"four": four, "points": points, "count": "{:,}".format, "letter": letter}
    made.tests["hash"] = re.compile("[0-9a-f]{16,}").fullmatch
    return made


def four(value: float) -> str:
    """Four decimals, as everywhere in the tables."""
    if value != value:
        return "–"
    return f"{value:.4f}".replace("-", "\N{MINUS SIGN}") if abs(value) < 100_000 else f"{value:.3e}"


def letter(position: int) -> str:
    """What a choice is called: A, B, ...; beyond Z by its number."""
    return chr(65 + position) if 0 <= position < 26 else str(position + 1)


def _shown(value: Any) -> Any:
    """Text as it may be looked at; what is markup already stays."""
    return value if not isinstance(value, str) or hasattr(value, "__html__") else inert(value)


def _rendered(report: Report, plots: Mapping[Chapter, Sequence[Plot]], items: Packed) -> str:
    from markupsafe import Markup

    contents = scripts()
    pictures = {plot.name: Markup(plot.inline()) for of_chapter in plots.values() for plot in of_chapter}
    return (
        environment()
        .get_template("report.html")
        .render(
            report=report,
            plots=plots,
            pictures=pictures,
            items=items,
            left_out=left_out(items),
            parts=accuracy_parts(report.tasks, report.accuracy),
            compared=compared(report),
            covered=covered(report),
            colours=dict(zip(report.labels, series(report.labels), strict=True)),
            policy=policy(contents),
            scripts=[Markup(each) for each in contents],
            style=Markup(script("report.css")),
            darkened=Markup(darkened()),
        )
    )


def accuracy_parts(
    tasks: Iterable[str], accuracy: Sequence[AccuracyRow]
) -> Sequence[tuple[str, list[AccuracyRow], list[AccuracyRow]]]:
    """Of each task: its own rows and those of its groups, and those of its subjects."""
    found = []
    for task in tasks:
        rows = [row for row in accuracy if row.of == task]
        subjects = [row for row in rows if row.level == "subject" and row.headline]
        found.append((task, [row for row in rows if row.level != "subject"], subjects))
    return found


def covered(report: Report) -> list[tuple[str, list[Coverage | None]]]:
    """Of each task: how far each endpoint has scored it; None where it was not asked."""
    found = {(each.task, each.endpoint): each for each in report.coverage}
    return [(task, [found.get((task, label)) for label in report.labels]) for task in report.tasks]


def compared(report: Report) -> Cells | None:
    """The table of differences, as `compare` prints it."""
    return cells(report.findings) if report.findings else None


def left_out(items: Packed) -> list[str]:
    """What the page does not hold, in sentences; nothing where it holds everything."""
    said = []
    if not items.texts:
        said.append(
            "Prompts and choices are not here: the run stored no texts, or there is no room for them."
        )
    if items.held < items.items:
        said.append(
            f"Of {items.items:,} items {items.held:,} are listed, those that flipped or are wrong first:"
            " more do not fit into one page."
        )
    names = {FLIPPED: "flipped", WRONG: "wrong or unscored", RIGHT: "right"}
    kept = items.ranks - items.unstored
    missing = {name: kept[rank] - items.documents[rank] for rank, name in names.items()}
    if items.texts and any(missing.values()):
        told = ", ".join(
            f"{count:,} of {kept[rank]:,} {names[rank]} ones"
            for rank, count in zip(names, missing.values(), strict=True)
            if count
        )
        said.append(f"Whole prompts, choices and tokens are left out of {told}.")
    if said:
        said.append("forced-choice view shows every item whole.")
    if items.texts and (count := items.unstored.total()):
        said.append(f"Of {count:,} items no prompt is stored: they were not asked, or the run kept no texts.")
    return said
