"""What goes to a person's terminal, or into a file or pipe in its place."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.table import Table
from rich.text import Text


def show_other_signs() -> None:
    """Let a terminal that lacks a sign show another one, instead of ending the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def say(console: Console, line: str) -> None:
    """Print a line as it is: neither markup nor emoji codes, as endpoints and data sets may hold anything."""
    console.out(line, highlight=False)


def print_table(table: Table) -> None:
    """To stdout; a file has no width that the table would have to fit in."""
    out = Console()
    if not out.is_terminal:
        wide = out.options.update(width=10_000)
        out = Console(width=max(out.width, out.measure(table, options=wide).maximum))
    out.print(table)


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
