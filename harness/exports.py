"""A comparison as files and as tables for people.

`results/README.md` specifies the files. A table format is one function and one line of `FORMATS`. This module
does not know where scores come from.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.comparison.columns import Place
from harness.comparison.findings import Findings, Flip, Row
from harness.comparison.matching import Mismatch
from harness.comparison.verdicts import decisive_p
from harness.comparison.words import families, headlines, p_number, points, sentences
from harness.files import file_errors, json_cell, replacing, write_csv
from harness.inert import inert, inert_json

if TYPE_CHECKING:
    import pandas as pd

COMPARISON_COLUMNS = tuple(field.name for field in fields(Row))
_COUNTS = (
    *("shots", "n", "unscored", "clusters", "wrong_to_right", "right_to_wrong", "wrong_to_wrong"),
    *("family", "items_needed", "headline"),
)
"""Columns of whole numbers, some of which may be empty."""
FLIP_COLUMNS = (
    *("baseline", "endpoint", "task", "subject", "shots", "index", "id", "metric", "flip", "gold"),
    *("baseline_prediction", "prediction", "baseline_margin", "margin", "gold_logprob_change"),
    *("question", "choices"),
)
MISMATCH_COLUMNS = ("baseline", "endpoint", "task", "subject", "shots", "index", "why")
FILES = ("comparison.csv", "flips.csv", "mismatches.csv")

QUESTION = 600
"""Characters of the end of a context that a flip is shown with."""


@dataclass(frozen=True, slots=True)
class Text:
    """What an item asks, for the eye."""

    question: str
    """The end of its first context."""
    choices: tuple[str, ...]


def comparison_frame(findings: Findings) -> pd.DataFrame:
    """The rows of `comparison.csv`."""
    import pandas as pd

    columns = {name: [getattr(row, name) for row in findings.rows] for name in COMPARISON_COLUMNS}
    frame = pd.DataFrame(columns, columns=list(COMPARISON_COLUMNS))
    return frame.astype(dict.fromkeys(_COUNTS, "Int64"))


def flip_frame(flips: Iterable[Flip], texts: Mapping[Place, Text]) -> pd.DataFrame:
    """The rows of `flips.csv`; what is asked is empty where texts were not stored."""
    import pandas as pd

    return pd.DataFrame([_flip_row(flip, texts) for flip in flips], columns=list(FLIP_COLUMNS))


def mismatch_frame(mismatches: Iterable[Mismatch]) -> pd.DataFrame:
    """The rows of `mismatches.csv`."""
    import pandas as pd

    rows = [(each.baseline, each.endpoint, *_place(each.place), each.why) for each in mismatches]
    return pd.DataFrame(rows, columns=list(MISMATCH_COLUMNS))


def write_comparison(folder: Path, findings: Findings, texts: Mapping[Place, Text]) -> None:
    """Write `comparison.csv`, `flips.csv`, and where there are any `mismatches.csv`.

    Raises:
        StoreError: a file cannot be written.
    """
    frames = (
        comparison_frame(findings),
        flip_frame(findings.flips, texts),
        mismatch_frame(findings.mismatches),
    )
    with file_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, frame in zip(FILES, frames, strict=True):
            if name == "mismatches.csv" and frame.empty:
                (folder / name).unlink(missing_ok=True)  # of an earlier comparison
                continue
            with replacing(folder / name) as path:
                write_csv(frame, path)


@dataclass(frozen=True, slots=True)
class Cells:
    """A table for people: what every format shows."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    """Which columns stand to the right."""


def cells(findings: Findings, *, subjects: bool = False) -> Cells:
    """The comparison by headline metrics: the suite, tasks and groups; `subjects` adds theirs."""
    shown = [row for row in findings.rows if row.headline] if subjects else headlines(findings)
    baseline = findings.labels[0]
    return Cells(
        (
            "task",
            "metric",
            "endpoint",
            "items",
            baseline,
            "value",
            "difference, points",
            "flips",
            "p",
            "verdict",
        ),
        tuple(_cells(row) for row in shown),
        (False, False, False, True, True, True, True, True, True, False),
    )


def markdown(findings: Findings, *, subjects: bool = False) -> str:
    """A GitHub-flavoured table, and the verdicts as a list."""
    from tabulate import tabulate

    table = cells(findings, subjects=subjects)
    rows = [[markdown_safe(cell) for cell in row] for row in table.rows]
    header = [markdown_safe(cell) for cell in table.header]
    lines = tabulate(rows, header, tablefmt="github", disable_numparse=True, colalign=_alignment(table))
    verdicts = "\n".join(f"- {markdown_safe(line)}" for line in sentences(findings))
    return f"{lines}\n\n{families(findings)}\n\n{verdicts}\n"


def latex(findings: Findings, *, subjects: bool = False) -> str:
    """A `tabular` for the package booktabs; verdicts stand above it as comments."""
    from tabulate import tabulate

    table = cells(findings, subjects=subjects)
    lines = tabulate(
        table.rows, table.header, tablefmt="latex_booktabs", disable_numparse=True, colalign=_alignment(table)
    )
    told = (*sentences(findings), families(findings))
    verdicts = "\n".join(f"% {' '.join(line.split())}" for line in told if line)
    return inert(f"{verdicts}\n{lines}\n").replace("\N{MINUS SIGN}", "$-$")  # pdflatex does not know the sign


def as_json(findings: Findings, *, subjects: bool = False) -> str:
    """All rows of `comparison.csv` as JSON, whatever `subjects` says; null where a cell is empty."""
    rows = [{name: _json_value(getattr(row, name)) for name in COMPARISON_COLUMNS} for row in findings.rows]
    return inert_json(json.dumps(rows, indent=2, ensure_ascii=False, allow_nan=False)) + "\n"


def markdown_safe(text: str) -> str:
    """Text that stays in its table cell and is no markup: names may hold anything."""
    return " ".join(re.sub(r"([\\`*|<&~\[\]])", r"\\\1", inert(text)).split())


FORMATS: Mapping[str, Callable[..., str]] = {"markdown": markdown, "latex": latex, "json": as_json}
"""By the name that `--format` gives it."""


def _flip_row(flip: Flip, texts: Mapping[Place, Text]) -> Sequence[Any]:
    text = texts.get(flip.place, Text("", ()))
    return (
        flip.baseline,
        flip.endpoint,
        *_place(flip.place),
        flip.id,
        flip.metric,
        flip.kind,
        json.dumps(flip.gold),
        flip.baseline_prediction,
        flip.prediction,
        flip.baseline_margin,
        flip.margin,
        flip.gold_logprob_change,
        text.question,
        json_cell(text.choices) if text.choices else "",
    )


def _place(place: Place) -> tuple[str, str, int, int]:
    return place.task, place.subject, place.shots, place.index


def _cells(row: Row) -> tuple[str, ...]:
    interval = f" ({points(row.ci_low)} to {points(row.ci_high)})" if row.ci_low == row.ci_low else ""
    p_value = decisive_p(row)
    return (
        f"{row.task} {row.subject}".strip() or "all tasks",
        row.statistic,
        row.endpoint,
        f"{row.n:,}" + (f" ({row.unscored:,} unscored)" if row.unscored else ""),
        _fraction(row.baseline_value),
        _fraction(row.value),
        f"{points(row.difference)}{interval}" if row.n else "-",
        "-"
        if row.wrong_to_right is None
        else f"+{row.wrong_to_right:,} \N{MINUS SIGN}{row.right_to_wrong or 0:,}",
        "-" if math.isnan(p_value) else p_number(p_value).removeprefix("= "),
        row.verdict or "-",
    )


def _fraction(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"


def _alignment(table: Cells) -> list[str]:
    return ["right" if each else "left" for each in table.numeric]


def _json_value(value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    return None if isinstance(value, float) and not math.isfinite(value) else value
