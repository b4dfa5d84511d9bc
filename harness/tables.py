"""Scores to the files of a run: the accuracy table and every item.

`results/README.md` specifies the files. The same scores give the same bytes. This module does not know where
scores come from.
"""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.files import ParquetFile, file_errors, replacing
from harness.metrics import METRICS, Metric, Tally, Verdict, pooled
from harness.scores import ItemScore

if TYPE_CHECKING:
    import pandas as pd

_FRACTIONS = ("value", "stderr", "ci_low", "ci_high", "low_bound", "high_bound")
SCORE_COLUMNS = (
    *("endpoint", "task", "subject", "shots", "metric", "value", "unit", "stderr", "ci_low", "ci_high"),
    *("n", "unscored", "low_bound", "high_bound"),
)
SCORE_TEXTS = ("endpoint", "task", "subject", "metric", "unit")
"""Columns of the accuracy table that hold texts; the others hold numbers."""
ITEM_TYPES: Mapping[str, str] = {
    "endpoint": "string",
    "task": "string",
    "subject": "string",
    "shots": "int32",
    "index": "int64",
    "id": "string",
    "cluster": "string",
    "gold": "list<int32>",
    "prompt_hash": "string",
    "context_sha256": "list<string>",
    "sums": "list<double>",
    "n_tokens": "list<int32>",
    "n_chars": "list<int32>",
    "n_bytes": "list<int32>",
    "unscored": "string",
}
"""Columns of the item tables and their Parquet types; two more a metric follow (`item_types`)."""
_GROUP = 4096
"""Rows of a row group: some hundred bytes each."""


@dataclass(frozen=True, slots=True)
class TaskTable:
    """What the tables need to know of a task."""

    name: str
    shots: int
    metrics: tuple[str, ...]
    groups: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Named unions of subjects; each becomes a row, pooled over its items."""


def item_types(metrics: Sequence[Metric]) -> dict[str, str]:
    """All columns of the item tables of a run that reports these metrics, with their types."""
    pairs = {f"{part}_{m.name}": "int32" for m in metrics for part in ("prediction", "correct")}
    return {**ITEM_TYPES, **pairs}


def write_results(
    folder: Path, scores: Mapping[str, Iterable[ItemScore]], tasks: Sequence[TaskTable]
) -> pd.DataFrame:
    """Write `scores.csv`, `items.parquet` and `items.csv`; the rows of `scores.csv`.

    Args:
        folder: the run's folder.
        scores: by label of the endpoint, in the order of the tables; each is read once, item by item.
        tasks: all tasks that scores belong to, in the order of the tables.

    Raises:
        StoreError: a file cannot be written; those of an earlier run then stay as they were.
    """
    reported = {task.name: [METRICS[name] for name in task.metrics] for task in tasks}
    metrics = [each for each in METRICS.values() if any(each.name in task.metrics for task in tasks)]
    rows: list[dict[str, Any]] = []
    with file_errors(folder), ExitStack() as files:
        add_item = files.enter_context(_item_files(folder, metrics))
        for label, stream in scores.items():
            tallies: _Tallies = defaultdict(lambda: defaultdict(Tally))
            for score in stream:
                verdicts = _judge(score, reported[score.record.task], tallies)
                add_item(_item_row(label, score, [verdicts.get(each.name) for each in metrics]))
            rows += [row for task in tasks for row in _score_rows(label, task, tallies)]
        frame = _frame(rows)
        path = files.enter_context(replacing(folder / "scores.csv"))
        frame.to_csv(path, index=False, float_format="%.10g", lineterminator="\n", encoding="utf-8")
    return frame


def pivot(frame: pd.DataFrame, *, subjects: bool = False) -> pd.DataFrame:
    """The accuracy table for people: a row for each task or group and metric, a column for each endpoint.

    Cells read "0.2871 ± 0.0045", and name the unscored items where there are any. The index has the levels
    task, subject, shots, metric and items (scored or not); `subjects` adds the rows of single subjects.
    """
    import pandas as pd

    cells: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in frame.to_dict("records"):
        if subjects or not row["subject"]:
            items = row["n"] + row["unscored"]
            place = (row["task"], row["subject"], row["shots"], row["metric"], items)
            cells.setdefault(place, {})[row["endpoint"]] = _cell(row)
    index = pd.MultiIndex.from_tuples(list(cells), names=["task", "subject", "shots", "metric", "items"])
    labels = list(dict.fromkeys(frame["endpoint"]))
    return pd.DataFrame([[cell.get(label, "") for label in labels] for cell in cells.values()], index, labels)


_Tallies = defaultdict[tuple[str, str], defaultdict[str, Tally]]
"""By task and metric, then by subject."""


@contextmanager
def _item_files(folder: Path, metrics: Sequence[Metric]) -> Iterator[Callable[[Sequence[Any]], None]]:
    """Both item tables, open for writing; what is given takes one row."""
    types = item_types(metrics)
    with (
        replacing(folder / "items.parquet") as parquet_path,
        replacing(folder / "items.csv") as csv_path,
        closing(ParquetFile(parquet_path, types, _GROUP)) as parquet,
        csv_path.open("w", newline="", encoding="utf-8") as text,
    ):
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(types)

        def add(row: Sequence[Any]) -> None:
            parquet.add(row)
            lines.writerow([json.dumps(each) if isinstance(each, tuple) else each for each in row])

        yield add


def _judge(score: ItemScore, metrics: Sequence[Metric], tallies: _Tallies) -> dict[str, Verdict]:
    """The verdicts on one item, by metric, counted; none where it is unscored."""
    record = score.record
    verdicts: dict[str, Verdict] = {}
    for metric in metrics:
        tally = tallies[record.task, metric.name][record.subject]
        if score.unscored:
            tally.add_unscored()
        else:
            verdicts[metric.name] = verdict = metric.judge(score)
            tally.add(verdict.correct)
    return verdicts


def _item_row(label: str, score: ItemScore, verdicts: Sequence[Verdict | None]) -> list[Any]:
    record = score.record
    judged = [(each.prediction, int(each.correct)) if each else (None, None) for each in verdicts]
    return [
        label,
        record.task,
        record.subject,
        record.shots,
        record.index,
        record.id,
        record.cluster,
        record.gold,
        record.prompt_hash,
        record.context_sha256,
        score.sums,
        record.n_tokens,
        record.n_chars,
        record.n_bytes,
        score.unscored or None,
        *(cell for pair in judged for cell in pair),
    ]


def _score_rows(label: str, task: TaskTable, tallies: _Tallies) -> Iterator[dict[str, Any]]:
    """The rows of one endpoint and task: the task, its groups, its subjects in alphabetical order."""
    by_metric = {name: tallies[task.name, name] for name in task.metrics}
    subjects = sorted({subject for each in by_metric.values() for subject in each})
    groups = [(name, "", set(members) & set(subjects)) for name, members in task.groups.items()]
    parts = [
        (task.name, "", set(subjects)),
        *(group for group in groups if group[2]),
        *((task.name, subject, {subject}) for subject in subjects if subject),
    ]
    for name, subject, members in parts:
        for metric, tally in by_metric.items():
            estimate = pooled(tally[member] for member in sorted(members)).estimate()
            yield {
                "endpoint": label,
                "task": name,
                "subject": subject,
                "shots": task.shots,
                "metric": metric,
                "unit": METRICS[metric].unit,
                **asdict(estimate),
            }


def _frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(list(rows), columns=list(SCORE_COLUMNS)).astype(dict.fromkeys(_FRACTIONS, "float64"))


def _cell(row: Mapping[Any, Any]) -> str:
    """Value and standard error of a row of `scores.csv`; NaN where there is none."""
    text = f"{row['value']:.4f}" if row["value"] == row["value"] else "-"
    if row["stderr"] == row["stderr"]:
        text += f" ± {row['stderr']:.4f}"
    return f"{text} ({row['unscored']:,} unscored)" if row["unscored"] else text
