"""Endpoints of runs to one table of their items: joined by what they were asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from harness.comparison.ragged import Ragged
from harness.sources import Sources
from harness.viewing.itemtable import NOT_ASKED, EndColumns, ItemTable
from harness.viewing.rows import Names, Part, read

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Glimpse:
    """Some items that stand one after another, read by themselves."""

    table: ItemTable
    """Of these items alone."""
    items: int
    """How many there are in all."""


def build(found: Sources) -> ItemTable:
    """The items of all endpoints, those of the baseline first.

    Raises:
        StoreError: an item table cannot be read.
    """
    names = Names()
    return _table(found, names, [read(end, names, _headline(found))[0] for end in found.ends])


def glimpse(found: Sources, window: range) -> Glimpse | None:
    """The items at some positions, without the others; None where endpoints were asked different items.

    Raises:
        StoreError: an item table cannot be read.
    """
    names = Names()
    parts, totals = zip(*(read(end, names, _headline(found), window) for end in found.ends), strict=True)
    if len(set(totals)) > 1 or not _alike(parts):
        return None
    return Glimpse(_table(found, names, parts), totals[0])


def _headline(found: Sources) -> dict[str, str]:
    """The metric of each task by which it is judged."""
    return {task.name: task.metrics[0] for task in found.tasks if task.metrics}


def _table(found: Sources, names: Names, parts: Sequence[Part]) -> ItemTable:
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


def _end(label: str, part: Part, where: NDArray[np.int64]) -> EndColumns:
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
    parts: Sequence[Part],
) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]], list[NDArray[np.int64]]]:
    """All items: which endpoint has each first, and where; and where each endpoint has it."""
    keys = [_keys(part) for part in parts]
    if _alike(parts):
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


def _keys(part: Part) -> NDArray[np.int64]:
    """What tells items apart, shape (4, items)."""
    return np.stack([part.columns[name] for name in ("task", "subject", "shots", "index")]).astype(np.int64)


def _alike(parts: Sequence[Part]) -> bool:
    """Whether all endpoints were asked the same items in the same order."""
    return all(np.array_equal(_keys(parts[0]), _keys(each)) for each in parts[1:])


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


def _picked_ids(parts: Sequence[Part], homes: NDArray[np.int64], rows: NDArray[np.int64]) -> pa.ChunkedArray:
    from pyarrow import array, chunked_array

    if not homes.any() and len(rows) == len(parts[0].ids):
        return parts[0].ids  # the baseline has all of them, in this order
    starts = np.cumsum([0, *(len(part.ids) for part in parts[:-1])])
    whole = chunked_array([chunk for part in parts for chunk in part.ids.chunks], parts[0].ids.type)
    return whole.take(array(starts[homes] + rows))
