"""Item tables (`items.parquet`) to columns, a few row groups at a time: nothing else is ever in memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.comparison.measures import ahead, golds_among
from harness.comparison.ragged import Ragged
from harness.scoring.metrics import METRICS
from harness.sources import End, Sources
from harness.stored import Run
from harness.viewing.itemtable import NOT_ASKED, SCORED, EndColumns, ItemTable

if TYPE_CHECKING:
    import pyarrow as pa

_PLAIN = ("endpoint", "task", "subject", "shots", "index", "id", "gold", "sums", "n_chars", "unscored")
_CODED = ("endpoint", "task", "subject", "unscored")
"""Columns of few different texts."""
_GROUPS = 16
"""Row groups that are read together."""


class Codes:
    """Numbers for texts, in the order in which they come; the first is 0."""

    def __init__(self, first: Sequence[str] = ()) -> None:
        """Begin with some."""
        self._numbers = {text: number for number, text in enumerate(first)}

    def of(self, column: pa.ChunkedArray, *, null: int) -> NDArray[np.int32]:
        """The numbers of a column of texts that is stored as a dictionary; `null` where it has none."""
        found = []
        for chunk in column.chunks:
            named = [
                self._numbers.setdefault(text, len(self._numbers)) for text in chunk.dictionary.to_pylist()
            ]
            numbers = np.array([*named, null], np.int32)
            at = chunk.indices.fill_null(len(named)).to_numpy(zero_copy_only=False)
            found.append(numbers[at.astype(np.int64)])
        return np.concatenate(found) if found else np.zeros(0, np.int32)

    @property
    def texts(self) -> tuple[str, ...]:
        """All texts, by their numbers."""
        return tuple(self._numbers)


@dataclass(slots=True)
class _Names:
    """What all endpoints of a table share."""

    tasks: Codes = field(default_factory=Codes)
    subjects: Codes = field(default_factory=Codes)
    reasons: Codes = field(default_factory=lambda: Codes(("",)))


@dataclass(slots=True)
class _Part:
    """The items of one endpoint, in the order of its table."""

    columns: dict[str, NDArray[Any]]
    """task, subject, shots, index, choices, row, value, prediction, margin, reason"""
    gold: Ragged[np.int32]
    ids: pa.ChunkedArray


def build(found: Sources) -> ItemTable:
    """The items of all endpoints, those of the baseline first.

    Raises:
        StoreError: an item table cannot be read.
    """
    names = _Names()
    headline = {task.name: task.metrics[0] for task in found.tasks if task.metrics}
    parts = [_read(end, names, headline) for end in found.ends]
    first, at = _joined(parts)
    homes, rows = first
    own = {
        name: _picked([part.columns[name] for part in parts], homes, rows)
        for name in ("task", "subject", "shots", "index", "choices")
    }
    return ItemTable(
        tasks=names.tasks.texts,
        subjects=names.subjects.texts,
        reasons=names.reasons.texts,
        **own,
        ids=_picked_ids(parts, homes, rows),
        gold=_picked_lists([part.gold for part in parts], homes, rows),
        ends=tuple(
            _end(label, part, where) for label, part, where in zip(found.labels, parts, at, strict=True)
        ),
    )


def rows_of(run: Run, rows: Sequence[int], columns: Sequence[str]) -> list[dict[str, Any]]:
    """Some rows of a run's item table, by their positions; each row group is read once.

    Raises:
        StoreError: it cannot be read.
    """
    from pyarrow import parquet

    found: dict[int, dict[str, Any]] = {}
    with run.reading("items.parquet") as path, parquet.ParquetFile(path) as file:
        ends = np.cumsum([file.metadata.row_group(at).num_rows for at in range(file.num_row_groups)])
        groups: dict[int, list[int]] = {}
        for row in rows:
            groups.setdefault(int(np.searchsorted(ends, row, side="right")), []).append(row)
        for group, wanted in groups.items():
            start = int(ends[group - 1]) if group else 0
            table = file.read_row_group(group, columns=list(columns))
            taken = table.take([row - start for row in wanted])
            found |= dict(zip(wanted, taken.to_pylist(), strict=True))
    return [found[row] for row in rows]


# --------------------------------------------------------------------------------------------- one endpoint


def _read(end: End, names: _Names, headline: Mapping[str, str]) -> _Part:
    """One endpoint's items."""
    from pyarrow import chunked_array, string

    read = list(_batches(end, names, headline))
    if not read:
        nothing = {name: np.zeros(0, np.int32) for name in _NAMES}
        return _Part(
            nothing, Ragged(np.zeros(0, np.int32), np.zeros(0, np.int64)), chunked_array([], string())
        )
    return _Part(
        {name: np.concatenate([part.columns[name] for part in read]) for name in _NAMES},
        Ragged(
            np.concatenate([part.gold.values for part in read]),
            np.concatenate([part.gold.lengths for part in read]),
        ),
        chunked_array([chunk for part in read for chunk in part.ids.chunks], string()),
    )


_NAMES = (
    *("task", "subject", "shots", "index", "choices"),
    *("row", "value", "prediction", "margin", "reason"),
)


def _batches(end: End, names: _Names, headline: Mapping[str, str]) -> Iterator[_Part]:
    """One endpoint's items, some row groups at a time; those of other endpoints are not read."""
    from pyarrow import compute, parquet

    run = end.run
    if run is None:
        return
    with (
        run.reading("items.parquet") as path,
        parquet.ParquetFile(path, read_dictionary=list(_CODED)) as file,
    ):
        there = set(file.schema_arrow.names)
        judged = {name: metric for name, metric in headline.items() if _columns_of(metric) <= there}
        wanted = [*_PLAIN, *sorted(set().union(*map(_columns_of, judged.values())))]
        start = 0
        for groups in _together(file.metadata, end.label):
            start = groups[0][1]
            table = file.read_row_groups([group for group, _ in groups], columns=wanted)
            mine = compute.equal(table["endpoint"].cast("string"), end.label)
            rows = start + np.flatnonzero(mine.to_numpy(zero_copy_only=False))
            if len(rows):
                yield _part(table.filter(mine), rows, names, judged)


def _columns_of(metric: str) -> set[str]:
    """The columns that tell of a metric."""
    if METRICS[metric].predicts:
        return {f"prediction_{metric}", f"correct_{metric}"}
    return {f"value_{metric}"}


def _together(metadata: Any, label: str) -> Iterator[list[tuple[int, int]]]:
    """The row groups that may have items of an endpoint, with their first rows; some side by side."""
    waiting: list[tuple[int, int]] = []
    start = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        told = group.column(0).statistics  # the first column is the endpoint
        may = told is None or not told.has_min_max or told.min <= label <= told.max
        if may:
            waiting.append((number, start))
        if waiting and (not may or len(waiting) == _GROUPS):
            yield waiting
            waiting = []
        start += group.num_rows
    if waiting:
        yield waiting


def _part(table: pa.Table, rows: NDArray[np.int64], names: _Names, headline: Mapping[str, str]) -> _Part:
    sums, gold = _lists(table["sums"], np.float64), _lists(table["gold"], np.int32)
    task = names.tasks.of(table["task"], null=0)
    values, predictions = _judged(table, task, names.tasks.texts, headline)
    return _Part(
        {
            "task": task,
            "subject": names.subjects.of(table["subject"], null=0),
            "shots": _numbers(table["shots"], 0).astype(np.int32),
            "index": table["index"].to_numpy(),
            "choices": _lists(table["n_chars"], np.int32).lengths.astype(np.int16),
            "row": rows,
            "value": values,
            "prediction": predictions,
            "margin": _margins(sums, gold),
            "reason": names.reasons.of(table["unscored"], null=SCORED),
        },
        gold,
        table["id"],
    )


def _judged(
    table: pa.Table, task: NDArray[np.int32], tasks: Sequence[str], headline: Mapping[str, str]
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Value and prediction of each item, by the headline of its task."""
    values, predictions = np.full(len(task), np.nan, np.float32), np.full(len(task), -1, np.int16)
    for number in np.unique(task).tolist():
        metric = headline.get(tasks[number])
        if metric is None:
            continue
        at = task == number
        predicts = METRICS[metric].predicts
        column = _numbers(table[f"{'correct' if predicts else 'value'}_{metric}"], np.nan)
        values[at] = column[at]
        if predicts:
            predictions[at] = _numbers(table[f"prediction_{metric}"], -1)[at]
    return values, predictions


def _margins(sums: Ragged[np.float64], gold: Ragged[np.int32]) -> NDArray[np.float32]:
    """Of each item; NaN where it is unscored, or has no wrong choice."""
    found = np.full(len(sums.lengths), np.nan, np.float32)
    at = np.flatnonzero((sums.lengths > 0) & (gold.lengths > 0))
    if len(at):
        scored = sums.take(at)
        found[at] = ahead(scored, golds_among(scored, gold.take(at)))
    return found


def _lists(column: pa.ChunkedArray, kind: type[Any]) -> Ragged[Any]:
    """A column of lists; null is an empty one."""
    array = column.combine_chunks()
    lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    return Ragged(array.flatten().to_numpy(zero_copy_only=False).astype(kind), lengths.astype(np.int64))


def _numbers(column: pa.ChunkedArray, none: float) -> NDArray[np.float64]:
    """A column of numbers; null becomes `none`."""
    return np.asarray(column.cast("float64").fill_null(none).to_numpy(), np.float64)


# -------------------------------------------------------------------------------------------- all endpoints


def _end(label: str, part: _Part, where: NDArray[np.int64]) -> EndColumns:
    """One endpoint's columns over all items; `where` has -1 for those that it was not asked."""
    there = where >= 0

    def spread(name: str, none: float, kind: type[Any]) -> NDArray[Any]:
        column = np.full(len(where), none, kind)
        column[there] = part.columns[name][where[there]]
        return column

    return EndColumns(
        label,
        row=spread("row", -1, np.int64),
        value=spread("value", np.nan, np.float32),
        prediction=spread("prediction", -1, np.int16),
        margin=spread("margin", np.nan, np.float32),
        reason=spread("reason", NOT_ASKED, np.int32),
    )


def _joined(
    parts: Sequence[_Part],
) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], list[NDArray[np.int64]]]:
    """All items: which endpoint has each first, and where; and where each endpoint has it."""
    keys = [
        np.stack([part.columns[name] for name in ("task", "subject", "shots", "index")]) for part in parts
    ]
    if all(np.array_equal(keys[0], each) for each in keys[1:]):
        count = keys[0].shape[1]
        return (np.zeros(count, np.int64), np.arange(count)), [np.arange(count)] * len(parts)
    whole = np.concatenate(keys, axis=1)
    _, firsts, numbers = np.unique(whole, axis=1, return_index=True, return_inverse=True)
    order = np.argsort(firsts, kind="stable")  # items as they come, not as their names are sorted
    turn = np.empty(len(order), np.int64)
    turn[order] = np.arange(len(order))
    numbers = turn[numbers.reshape(-1)]
    lengths = [each.shape[1] for each in keys]
    starts = np.cumsum([0, *lengths])
    at = []
    for start, length in zip(starts[:-1].tolist(), lengths, strict=True):
        where = np.full(len(order), -1, np.int64)
        where[numbers[start : start + length]] = np.arange(length)
        at.append(where)
    first = firsts[order]
    homes = np.searchsorted(starts, first, side="right") - 1
    return (homes, first - starts[homes]), at


def _picked(
    columns: Sequence[NDArray[Any]], homes: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[Any]:
    """Of each item, what the endpoint says that has it first."""
    starts = np.cumsum([0, *map(len, columns[:-1])])
    return np.concatenate(columns)[starts[homes] + rows]


def _picked_lists(
    columns: Sequence[Ragged[np.int32]], homes: NDArray[np.int64], rows: NDArray[np.int64]
) -> Ragged[np.int32]:
    starts = np.cumsum([0, *(len(each.lengths) for each in columns[:-1])])
    whole = Ragged(
        np.concatenate([each.values for each in columns]), np.concatenate([each.lengths for each in columns])
    )
    return whole.take(starts[homes] + rows)


def _picked_ids(parts: Sequence[_Part], homes: NDArray[np.int64], rows: NDArray[np.int64]) -> pa.ChunkedArray:
    from pyarrow import array, chunked_array

    if not homes.any() and len(rows) == len(parts[0].ids):
        return parts[0].ids  # the baseline has all of them, in this order
    starts = np.cumsum([0, *(len(part.ids) for part in parts[:-1])])
    whole = chunked_array([chunk for part in parts for chunk in part.ids.chunks], parts[0].ids.type)
    return whole.take(array(starts[homes] + rows))
