"""Scores to the files of a run: the accuracy table and every item.

`results/README.md` specifies the files. The same scores give the same bytes. This module does not know where
scores come from.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness.files import ParquetFile, csv_lines, file_errors, json_cell, replacing, safe_cell, write_csv
from harness.scoring.estimates import Summary, pooled
from harness.scoring.metrics import METRICS, Metric, Verdict, exists
from harness.scoring.scores import NOT_ASKED, NOT_TRIED, ItemScore

if TYPE_CHECKING:
    import pandas as pd

_FRACTIONS = ("value", "stderr", "ci_low", "ci_high", "low_bound", "high_bound")
SCORE_COLUMNS = (
    *("endpoint", "task", "subject", "shots", "metric", "value", "unit", "stderr", "ci_low", "ci_high"),
    *("n", "unscored", "low_bound", "high_bound", "ties"),
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
    "n_words": "list<int32>",
    "greedy": "list<int8>",
    "mode": "string",
    "unscored": "string",
}
"""Columns of the item tables and their Parquet types; those of asides and metrics follow (`item_types`)."""
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
    asides: tuple[str, ...] = ()
    """What was asked beside, by name (`harness.scoring.asides`)."""


def item_types(metrics: Sequence[Metric], asides: Sequence[str] = ()) -> dict[str, str]:
    """All columns of the item tables of a run that reports these metrics and asked these asides."""
    types = dict(ITEM_TYPES)
    for name in asides:
        types |= {f"sums_{name}": "list<double>", f"unscored_{name}": "string"}
    for metric in metrics:
        types |= _metric_types(metric)
    return types


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
    asked = {task.name: task.asides for task in tasks}
    metrics = [each for each in METRICS.values() if any(each.name in task.metrics for task in tasks)]
    rows: list[dict[str, Any]] = []
    asides = list(dict.fromkeys(name for task in tasks for name in task.asides))
    with file_errors(folder), ExitStack() as files:
        add_item = files.enter_context(_item_files(folder, item_types(metrics, asides)))
        for label, stream in scores.items():
            summaries: Summaries = defaultdict(dict)
            for score in stream:
                verdicts = judge(score, reported[score.record.task], summaries)
                judged = [cell for each in metrics for cell in _metric_cells(each, verdicts.get(each.name))]
                beside = _aside_cells(score, asides, asked[score.record.task])
                add_item([*_item_row(label, score), *beside, *judged])
            rows += [row for task in tasks for row in _score_rows(label, task, summaries)]
        frame = _frame(rows)
        path = files.enter_context(replacing(folder / "scores.csv"))
        write_csv(frame, path)
    return frame


def pivot(frame: pd.DataFrame, *, subjects: bool = False) -> pd.DataFrame:
    """The accuracy table for people: a row for each task or group and metric, a column for each endpoint.

    Cells read "0.2871 ± 0.0045", and name the unscored items where there are any. The index has the levels
    task, subject, shots, metric and items (scored or not, on the endpoint that was asked most); `subjects`
    adds the rows of single subjects.
    """
    import pandas as pd

    cells: dict[tuple[Any, ...], dict[str, str]] = {}
    items: dict[tuple[Any, ...], int] = {}
    for row in frame.to_dict("records"):
        if subjects or not row["subject"]:
            place = (row["task"], row["subject"], row["shots"], row["metric"])
            items[place] = max(items.get(place, 0), row["n"] + row["unscored"])
            cells.setdefault(place, {})[row["endpoint"]] = _cell(row)
    places = [(*place, items[place]) for place in cells]
    index = pd.MultiIndex.from_tuples(places, names=["task", "subject", "shots", "metric", "items"])
    labels = list(dict.fromkeys(frame["endpoint"]))
    return pd.DataFrame([[cell.get(label, "") for label in labels] for cell in cells.values()], index, labels)


Summaries = defaultdict[tuple[str, str], dict[str, Summary]]
"""By task and metric, then by subject."""


@contextmanager
def _item_files(folder: Path, types: Mapping[str, str]) -> Iterator[Callable[[Sequence[Any]], None]]:
    """Both item tables, open for writing; what is given takes one row."""
    with (
        replacing(folder / "items.parquet") as parquet_path,
        replacing(folder / "items.csv") as csv_path,
        closing(ParquetFile(parquet_path, types, _GROUP)) as parquet,
        csv_path.open("w", newline="", encoding="utf-8", errors="replace") as text,
    ):
        write_row = csv_lines(text)
        write_row(types)
        writes = [_AS_JSON.get(kind) for kind in types.values()]

        def add(row: Sequence[Any]) -> None:
            parquet.add(row)
            cells = zip(writes, row, strict=True)
            write_row([write(each) if write and each is not None else each for write, each in cells])

        yield add


def _numbers(values: Iterable[float | None]) -> str:
    """Finite numbers and nulls, in JSON: but for the nulls as Python writes them."""
    return str([*values]).replace("None", "null")


_AS_JSON: Mapping[str, Callable[[Any], str]] = {
    **dict.fromkeys(("list<int8>", "list<int32>", "list<double>"), _numbers),
    "list<string>": json_cell,
    "string": safe_cell,
}
"""How cells of a Parquet type are written in the CSV, unless they are written as they are. JSON proper takes
three times as long as `_numbers`."""


def judge(score: ItemScore, metrics: Sequence[Metric], summaries: Summaries) -> dict[str, Verdict]:
    """The verdicts on one item, by metric, counted; none of metrics that have nothing to judge."""
    record = score.record
    verdicts: dict[str, Verdict] = {}
    for metric in metrics:
        if not metric.applies(record) or score.unscored == NOT_ASKED:
            continue
        of_task = summaries[record.task, metric.name]
        summary = of_task.get(record.subject) or of_task.setdefault(record.subject, metric.summary())
        if score.unscored or metric.missing(score):
            summary.unscored += 1
        elif (verdict := metric.judge(score)) is not None:
            verdicts[metric.name] = verdict
            summary.add(verdict.value, verdict.weight, verdict.group)
            summary.ties += verdict.tied
    return verdicts


def _item_row(label: str, score: ItemScore) -> list[Any]:
    """The cells of `ITEM_TYPES`."""
    record = score.record
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
        record.n_words,
        tuple(None if each is None else int(each) for each in score.greedy),
        record.mode or None,
        score.unscored or None,
    ]


def _aside_cells(score: ItemScore, asides: Sequence[str], asked: Sequence[str]) -> list[Any]:
    """Sums and reason of each aside; both empty where the item has no such one."""
    cells: list[Any] = []
    for name in asides:
        found = score.asides.get(name)
        if found:
            cells += [found.sums or None, found.unscored or None]
        else:
            waits = score.sums and name in asked and exists(name, score.record)
            cells += [None, NOT_TRIED if waits else None]
    return cells


def _metric_types(metric: Metric) -> dict[str, str]:
    """The columns of the item tables that tell of a metric."""
    if metric.predicts:
        return {f"prediction_{metric.name}": "int32", f"correct_{metric.name}": "int32"}
    return {f"value_{metric.name}": "double"} if metric.per_item else {}


def _metric_cells(metric: Metric, verdict: Verdict | None) -> list[Any]:
    """What stands there."""
    if metric.predicts:
        return [verdict.prediction, int(verdict.correct)] if verdict else [None, None]
    return [verdict.value if verdict else None] if metric.per_item else []


def _score_rows(label: str, task: TaskTable, summaries: Summaries) -> Iterator[dict[str, Any]]:
    """The rows of one endpoint and task: the task, its groups, its subjects in alphabetical order."""
    by_metric = {name: summaries[task.name, name] for name in task.metrics}
    subjects = sorted({subject for each in by_metric.values() for subject in each})
    groups = [(name, "", set(members) & set(subjects)) for name, members in task.groups.items()]
    parts = [
        (task.name, "", set(subjects)),
        *(group for group in groups if group[2]),
        *((task.name, subject, {subject}) for subject in subjects if subject),
    ]
    for name, subject, members in parts:
        for metric, found in by_metric.items():
            inside = (found[member] for member in sorted(members) if member in found)
            yield {
                "endpoint": label,
                "task": name,
                "subject": subject,
                "shots": task.shots,
                "metric": metric,
                "unit": METRICS[metric].unit,
                **asdict(pooled(inside, METRICS[metric].summary()).estimate()),
            }


def _frame(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame(list(rows), columns=list(SCORE_COLUMNS)).astype(dict.fromkeys(_FRACTIONS, "float64"))


def _cell(row: Mapping[Any, Any]) -> str:
    """Value and standard error of a row of `scores.csv`; NaN where there is none."""
    text = _number(row["value"]) if row["value"] == row["value"] else "-"
    if row["stderr"] == row["stderr"]:
        text += f" ± {_number(row['stderr'])}"
    return f"{text} ({row['unscored']:,} unscored)" if row["unscored"] else text


def _number(value: float) -> str:
    """Four decimals; of perplexities that fill the screen four digits."""
    return f"{value:.4f}" if abs(value) < 100_000 else f"{value:.3e}"
