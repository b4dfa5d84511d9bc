"""What a person sees at the end of a run: the accuracy table and where things are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.table import Table

from harness.manifest import Exit
from harness.progress import duration, retries_text

if TYPE_CHECKING:
    import pandas as pd

    from harness.runner import RunResult


def accuracy_table(accuracy: pd.DataFrame) -> Table:
    """Tasks and groups down, endpoints across: value and standard error in per cent.

    Args:
        accuracy: the rows of `scores.csv`.
    """
    whole = accuracy[accuracy["subject"] == ""]
    labels = list(dict.fromkeys(whole["endpoint"]))
    table = Table(title="Accuracy in %, ± standard error", title_justify="left", title_style="bold")
    for name in ("task", "shots", "metric"):
        table.add_column(name)
    for name in ["items", *labels]:
        table.add_column(name, justify="right")
    cells = {(row["task"], row["metric"], row["endpoint"]): row for row in whole.to_dict("records")}
    for task, metric in dict.fromkeys((task, metric) for task, metric, _ in cells):
        rows = [cells[task, metric, label] for label in labels]
        asked = rows[0]["n"] + rows[0]["unscored"]
        table.add_row(task, str(rows[0]["shots"]), metric, f"{asked:,}", *map(_cell, rows))
    return table


def _cell(row: dict[str, object]) -> str:
    import pandas as pd

    value, stderr, unscored = row["value"], row["stderr"], row["unscored"]
    if pd.isna(value):
        return "no item scored"
    text = f"{100 * value:.2f}" + ("" if pd.isna(stderr) else f" ± {100 * stderr:.2f}")
    if not unscored:
        return text
    return f"{text}\n{unscored:,} unscored: {100 * row['low_bound']:.2f} to {100 * row['high_bound']:.2f}"


def closing_lines(result: RunResult) -> Iterator[str]:
    """What was done, what must be known beside the numbers, where the files are, and what to do next."""
    for part in result.parts:
        progress = part.progress
        line = f"{part.endpoint.label}: {progress.requests_done:,} requests in {duration(result.seconds)}"
        if progress.requests_reused:
            line += f", {progress.requests_reused:,} more from the journal"
        if progress.retries:
            line += f", retries {retries_text(progress.retries)}"
        yield line
    yield from result.remarks
    yield f"Files: {result.folder}/ (scores.csv, items.csv, run.json, ...)"
    if result.exit is Exit.INTERRUPTED:
        yield "Interrupted; the same command continues this run."
    elif result.exit is not Exit.DONE:
        yield "Not every item is scored; the same command tries the others again."
