"""Item tables (`items.parquet`) to columns of single endpoints, a few row groups at a time.

Nothing else is ever in memory; row groups that have nothing of what is wanted are not read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.comparison.measures import ahead, golds_among
from harness.comparison.ragged import Ragged
from harness.scoring.metrics import METRICS
from harness.sources import End
from harness.stored import Run
from harness.viewing.itemtable import SCORED

if TYPE_CHECKING:
    import pyarrow as pa

_PLAIN = ("endpoint", "task", "subject", "shots", "index", "id", "gold", "sums", "n_chars", "unscored")
_CODED = ("endpoint", "task", "subject", "unscored")
"""Columns of few different texts."""
_GROUPS = 16
"""Row groups that are read together."""
_SMALL = 1000
"""Items that are looked for in single row groups."""


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
class Names:
    """What all endpoints of a table share."""

    tasks: Codes = field(default_factory=Codes)
    subjects: Codes = field(default_factory=Codes)
    reasons: Codes = field(default_factory=lambda: Codes(("",)))


@dataclass(slots=True)
class Part:
    """The items of one endpoint, in the order of its table."""

    columns: dict[str, NDArray[Any]]
    """task, subject, shots, index, choices, row, value, prediction, margin, reason"""
    gold: Ragged[np.int32]
    ids: pa.ChunkedArray


def read(
    end: End, names: Names, headline: Mapping[str, str], window: range | None = None
) -> tuple[Part, int]:
    """One endpoint's items, and how many it has in all.

    Args:
        end: the endpoint, of a run.
        names: texts that stand for numbers in the columns; new ones are put there.
        headline: the metric of each task by which it is judged.
        window: only its items at these positions; by default all.

    Raises:
        StoreError: the item table cannot be read.
    """
    from pyarrow import parquet

    run = end.run
    if run is None:
        return _nothing(), 0
    with (
        run.reading("items.parquet") as path,
        parquet.ParquetFile(path, read_dictionary=list(_CODED)) as file,
    ):
        shares = list(_shares(file, end.label))
        total = sum(each.rows for each in shares)
        parts = list(_parts(file, end.label, shares, names, headline, window or range(total)))
    return (_together(parts) if parts else _nothing()), total


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


_NAMES = (
    *("task", "subject", "shots", "index", "choices"),
    *("row", "value", "prediction", "margin", "reason"),
)


@dataclass(frozen=True, slots=True)
class _Share:
    """What a row group has of an endpoint."""

    group: int
    start: int
    """Where the group begins in the file."""
    rows: int
    """Rows of the endpoint."""


def _shares(file: Any, label: str) -> Iterator[_Share]:
    """The row groups that have items of an endpoint; most say so without being read."""
    from pyarrow import compute

    start = 0
    for number in range(file.metadata.num_row_groups):
        group = file.metadata.row_group(number)
        told = group.column(0).statistics  # the first column is the endpoint
        low, high = (told.min, told.max) if told is not None and told.has_min_max else ("", None)
        if low == high == label:
            yield _Share(number, start, group.num_rows)
        elif high is None or low <= label <= high:
            column = file.read_row_group(number, columns=["endpoint"])["endpoint"].cast("string")
            if rows := compute.sum(compute.equal(column, label)).as_py():
                yield _Share(number, start, rows)
        start += group.num_rows


def _parts(
    file: Any,
    label: str,
    shares: Sequence[_Share],
    names: Names,
    headline: Mapping[str, str],
    window: range,
) -> Iterator[Part]:
    """The items of an endpoint at some positions, so many row groups at a time as are quick to hold."""
    from pyarrow import compute

    there = set(file.schema_arrow.names)
    judged = {name: metric for name, metric in headline.items() if _columns_of(metric) <= there}
    wanted = [*_PLAIN, *sorted(set().union(*map(_columns_of, judged.values())))]
    first = 0
    for each in _runs_of(shares, window):
        rows = sum(share.rows for share in each)
        begin, stop = max(window.start - first, 0), min(window.stop - first, rows)
        first += rows
        if begin >= stop:
            continue
        table = file.read_row_groups([share.group for share in each], columns=wanted)
        mine = compute.equal(table["endpoint"].cast("string"), label)
        at = each[0].start + np.flatnonzero(mine.to_numpy(zero_copy_only=False))
        yield _part(table.filter(mine).slice(begin, stop - begin), at[begin:stop], names, judged)


def _runs_of(shares: Sequence[_Share], window: range) -> Iterator[list[_Share]]:
    """Row groups that stand side by side, some at a time; of a small window one by one."""
    most = _GROUPS if len(window) > _SMALL else 1
    waiting: list[_Share] = []
    for share in shares:
        if waiting and (len(waiting) == most or share.group != waiting[-1].group + 1):
            yield waiting
            waiting = []
        waiting.append(share)
    if waiting:
        yield waiting


def _together(parts: Sequence[Part]) -> Part:
    from pyarrow import chunked_array, string

    return Part(
        {name: np.concatenate([part.columns[name] for part in parts]) for name in _NAMES},
        Ragged(
            np.concatenate([part.gold.values for part in parts]),
            np.concatenate([part.gold.lengths for part in parts]),
        ),
        chunked_array([chunk for part in parts for chunk in part.ids.chunks], string()),
    )


def _nothing() -> Part:
    from pyarrow import chunked_array, string

    columns = {name: np.zeros(0, np.int32) for name in _NAMES}
    return Part(columns, Ragged(np.zeros(0, np.int32), np.zeros(0, np.int64)), chunked_array([], string()))


def _columns_of(metric: str) -> set[str]:
    """The columns that tell of a metric."""
    if METRICS[metric].predicts:
        return {f"prediction_{metric}", f"correct_{metric}"}
    return {f"value_{metric}"}


def _part(table: pa.Table, rows: NDArray[np.int64], names: Names, headline: Mapping[str, str]) -> Part:
    sums, gold = _lists(table["sums"], np.float64), _lists(table["gold"], np.int32)
    task = names.tasks.of(table["task"], null=0)
    values, predictions = _judged(table, task, names.tasks.texts, headline)
    return Part(
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
