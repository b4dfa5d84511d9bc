"""What notebooks show in the place of a `repr`: small HTML, in the colours of whoever shows it.

Every text is escaped, and what would act without being seen is replaced (`inert`). This module does not know
what it shows.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from harness.inert import inert

_CELL = "padding:.2em .9em .2em 0;border-bottom:1px solid rgba(128,128,128,.3);vertical-align:top;text-align:"
_SMALL = "font-size:.9em;opacity:.8;margin:.3em 0"


def text(content: object) -> str:
    """Text as HTML."""
    return escape(inert(str(content)))


def table(header: Sequence[str], rows: Iterable[Sequence[object]], numeric: Sequence[bool]) -> str:
    """A table; numbers stand to the right.

    Args:
        header: names of the columns.
        rows: their cells.
        numeric: which columns stand to the right.
    """
    sides = ["right" if each else "left" for each in numeric]
    names = "".join(
        f'<th scope="col" style="{_CELL}{side};font-weight:500">{text(name)}</th>'
        for name, side in zip(header, sides, strict=True)
    )
    lines = "".join(f"<tr>{_cells(row, sides)}</tr>" for row in rows)
    return (
        '<div style="overflow-x:auto">'
        '<table style="border-collapse:collapse;font-variant-numeric:tabular-nums">'
        f"<thead><tr>{names}</tr></thead><tbody>{lines}</tbody></table></div>"
    )


def panel(title: str, parts: Iterable[str]) -> str:
    """A heading, and what stands below it (HTML already)."""
    inner = "".join(parts)
    return f'<div><p style="margin:.2em 0 .5em"><strong>{text(title)}</strong></p>{inner}</div>'


def notes(lines: Iterable[str], *, most: int) -> str:
    """Sentences, small; so many, and how many there are beside."""
    told = list(lines)
    more = [f"and {len(told) - most:,} more"] if len(told) > most else []
    items = "".join(f"<li>{text(line)}</li>" for line in (*told[:most], *more))
    return f'<ul style="{_SMALL}">{items}</ul>' if items else ""


def note(line: str) -> str:
    """One small sentence."""
    return f'<p style="{_SMALL}">{text(line)}</p>'


def _cells(row: Sequence[object], sides: Sequence[str]) -> str:
    cells = zip(row, sides, strict=True)
    return "".join(f'<td style="{_CELL}{side}">{text(cell)}</td>' for cell, side in cells)
