"""What goes to a person's terminal, or into a file or pipe in its place: inert, and without secrets."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from harness.inert import inert
from harness.redacting import redacted


def show_other_signs() -> None:
    """Let a terminal that lacks a sign show another one, instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def say(console: Console, line: str) -> None:
    """Print a line as it is, without markup and emoji codes: endpoints and data sets may hold anything."""
    console.out(inert(redacted(line)), highlight=False)


def print_table(table: Table) -> None:
    """To stdout; a file has no width that the table would have to fit in."""
    out = Console()
    if not out.is_terminal:
        wide = out.options.update(width=10_000)
        out = Console(width=max(out.width, out.measure(table, options=wide).maximum))
    out.print(Inert(table))


class Inert:
    """Anything that rich can show, without what a terminal would obey beside rich's own styles."""

    def __init__(self, content: RenderableType) -> None:
        self._content = content

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Segment]:
        for segment in console.render(self._content, options):
            yield segment if segment.control else Segment(inert(segment.text), segment.style)


def pairs_table(pairs: Iterable[tuple[str, str]]) -> Table:
    """Terms on the left, which are never cut, and what each means."""
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    for term, meaning in pairs:
        table.add_row(Text(term), Text(meaning))
    return table


@contextmanager
def reader_may_leave() -> Iterator[None]:
    """Print to a reader that may go away, as `head` does, without a word and without another exit code."""
    try:
        yield
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # the latter is how rich puts it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
