"""What `forced-choice tasks` prints: the table of all tasks, the suites, and the page of one task."""

from __future__ import annotations

import json
import sys
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from harness.choosing.catalogue import EXAMPLE, Catalogue, Facts, Page, catalogue, pages
from harness.choosing.resolving import resolve
from harness.choosing.tasklists import NamedSuite, load_suite, suite_names
from harness.errors import UsageError
from harness.inert import inert_json
from harness.runs import prompt_text
from harness.terminal import print_table, say

FEW = 8
"""Variants that are told apart only by their names stand in one line where there are more."""
WIDTH = 100
"""Characters of a line of text."""
COLUMNS = ("task", "items", "shots", "chance", "metrics")


def print_all(*, as_json: bool) -> None:
    """All tasks and suites to stdout; remarks to stderr."""
    found = catalogue()
    if as_json:
        _print_json(catalogue_json(found))
    else:
        print_table(catalogue_table(found))
        _print_lines(["Suites:", *suite_lines(found.suites)])
    for remark in found.remarks:
        say(Console(stderr=True), remark)


def print_one(name: str, *, shots: int | None, data_dir: Path | None, as_json: bool) -> None:
    """One task, each of several of a name, or one suite, to stdout. Raises as `catalogue.pages` does."""
    if name in suite_names():
        resolve([name])  # a package may have called a task of its own so
        if shots is not None:
            raise UsageError(f"--shots {shots}: {name} is a suite, whose tasks have their own; name one task")
        suite = load_suite(name)
        if as_json:
            _print_json(suite_json(suite))
        else:
            _print_lines(suite_lines([suite]))
        return
    found = list(pages(name, shots=shots, data_dir=data_dir))
    if as_json:
        told = [page_json(each) for each in found]
        _print_json(told[0] if len(told) == 1 else told)
        return
    for page in found:
        _print_lines(page_lines(page))


def catalogue_table(found: Catalogue) -> Table:
    """All tasks, each with its variants below it."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True)
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in ("items", "shots", "chance") else "left")
    for family in found.families:
        task, *variants = family.tasks
        table.add_row(*map(Text, _cells(task.name, task)))
        for alike in _groups(variants):
            endings = [each.name.partition(":")[2] for each in alike]
            shown = f":{endings[0]} to :{endings[-1]} ({len(endings)})" if len(alike) > FEW else ""
            for each, ending in zip(alike[:1] if shown else alike, endings, strict=False):
                table.add_row(*map(Text, _cells(f"  {shown or ':' + ending}", each)))
    return table


def suite_lines(suites: Sequence[NamedSuite]) -> Iterator[str]:
    """Each suite: its name, what it is, and its tasks as `--tasks` takes them."""
    for suite in suites:
        yield from textwrap.wrap(f"{suite.name}: {suite.description}", WIDTH, subsequent_indent="    ")
        yield from _wrapped(", ".join(each.text() for each in suite.tasks))


def page_lines(page: Page) -> Iterator[str]:
    """Everything of one task, its prompt last."""
    known = page.facts
    yield known.name
    if page.about:
        yield from page.about.splitlines()
    yield ""
    items = "number unknown" if known.items is None else f"{known.items:,}"
    yield f"Items: {items}, {page.split} of {page.source}"
    yield f"Shots: {page.shots_from}"
    chance = "" if known.chance is None else f"; chance: {known.chance:.4f}"
    yield f"Metrics: {', '.join(known.metrics)}{chance}"
    yield f"Version: {known.version}; hash: {known.hash}"
    if page.variants:
        yield "Variants:"
        yield from _wrapped(", ".join(page.variants))
    yield ""
    head, *prompt = prompt_text(page.prompt).splitlines()
    if page.prompt_of == EXAMPLE:
        without = f", without its {known.shots} shots" if known.shots else ""
        yield f"One prompt, of {EXAMPLE}, which is no row of the data set{without}."
        yield f"Real rows are not at hand: {page.real}."
        head = f"===== {known.name}, {EXAMPLE}{without}"
    else:
        yield f"One prompt, of {page.prompt_of}:"
    yield from (head, *prompt)


def catalogue_json(found: Catalogue) -> dict[str, Any]:
    """The same for programs: no variant is left out."""
    families = []
    for family in found.families:
        task, *variants = map(asdict, family.tasks)
        families.append({**task, "package": family.package, "variants": variants})
    return {"tasks": families, "suites": [suite_json(each) for each in found.suites]}


def suite_json(suite: NamedSuite) -> dict[str, Any]:
    """One suite for programs."""
    return {
        "name": suite.name,
        "description": suite.description,
        "tasks": [each.text() for each in suite.tasks],
    }


def page_json(page: Page) -> dict[str, Any]:
    """One task for programs."""
    item = page.prompt.item
    prompt = {
        "of": page.prompt_of,
        "shots": page.prompt.shots,
        "contexts": page.prompt.contexts(),
        "continuations": [pair.continuation for pair in item.pairs],
        "gold": item.gold,
    }
    told = {
        "about": page.about,
        "source": page.source,
        "split": page.split,
        "shots_from": page.shots_from,
        "variants": page.variants,
        "prompt": prompt,
    }
    return {**asdict(page.facts), **told}


def _groups(variants: Sequence[Facts]) -> Iterator[list[Facts]]:
    """Runs of neighbours that differ in nothing but their names."""
    for _, alike in groupby(variants, lambda each: _cells("", each)):
        yield list(alike)


def _cells(name: str, known: Facts) -> tuple[str, ...]:
    items = "" if known.items is None else f"{known.items:,}"
    chance = "" if known.chance is None else f"{known.chance:.3f}"
    return (name, items, str(known.shots), chance, ", ".join(known.metrics))


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="    ", break_on_hyphens=False)


def _print_json(told: object) -> None:
    sys.stdout.write(inert_json(json.dumps(told, indent=2, ensure_ascii=False)) + "\n")


def _print_lines(lines: Iterable[str]) -> None:
    console = Console()
    for line in lines:
        say(console, line)
