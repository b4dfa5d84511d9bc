"""Every item of some endpoints, in columns that stay in memory: some tens of bytes an item and endpoint.

A table is asked (`Query`) for the items that are like this, in that order, from there on; it answers with
positions. Texts are not in it: what an item asks is read when it is shown (`opened`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from harness.comparison.columns import Place
from harness.comparison.ragged import Ragged
from harness.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

NEAR = 0.1
"""Nats: a margin within this is nearly a tie."""
HALF = 0.5
"""A value below this counts as wrong, of metrics that have something between."""
NOT_ASKED, SCORED = -1, 0
"""Reasons: the endpoint has no such item; there is none."""
MOST_ROWS = 200
"""In one answer."""

Show = Literal[
    "all items", "wrong", "right", "flipped", "became right", "became wrong", "nearly a tie", "unscored"
]
SHOWS: tuple[Show, ...] = (
    *("all items", "wrong", "right", "flipped", "became right", "became wrong", "nearly a tie", "unscored"),
)
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class EndColumns:
    """What came of all items on one endpoint, shape (items,) each."""

    label: str
    row: NDArray[np.int64]
    """Where the item stands in its run's item table; -1 where it was not asked."""
    value: NDArray[np.float32]
    """By the task's headline: 1 right, 0 wrong, of some metrics what is between; NaN where there is none."""
    prediction: NDArray[np.int16]
    """Likewise; -1 where there is none."""
    margin: NDArray[np.float32]
    """Nats by which the likeliest right choice is ahead; NaN where there is none."""
    reason: NDArray[np.int32]
    """Why it is unscored, as a position in `ItemTable.reasons`; or `SCORED`, `NOT_ASKED`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Which items are asked for."""

    show: str = "all items"
    end: int | None = None
    """On this endpoint; None: on any."""
    task: str = ""
    subject: str = ""
    search: str = ""
    sort: str = ""
    """"" (the order of the run), "item", "task", or the position of an endpoint, by its margin."""
    descending: bool = False

    @property
    def plain(self) -> bool:
        """Whether it is all items in their order."""
        return self == Query(end=self.end)


@dataclass(frozen=True, slots=True, kw_only=True)
class ItemTable:
    """All items of some endpoints, the baseline first; columns have the shape (items,)."""

    tasks: tuple[str, ...]
    subjects: tuple[str, ...]
    reasons: tuple[str, ...]
    task: NDArray[np.int32]
    """A position in `tasks`; likewise `subject`."""
    subject: NDArray[np.int32]
    shots: NDArray[np.int32]
    index: NDArray[np.int64]
    ids: pa.ChunkedArray
    gold: Ragged[np.int32]
    choices: NDArray[np.int16]
    ends: tuple[EndColumns, ...]

    def __len__(self) -> int:
        return len(self.index)

    @property
    def nbytes(self) -> int:
        """Bytes that it takes."""
        own = (
            self.task,
            self.subject,
            self.shots,
            self.index,
            self.choices,
            self.gold.values,
            self.gold.lengths,
        )
        each = (
            getattr(end, name)
            for end in self.ends
            for name in ("row", "value", "prediction", "margin", "reason")
        )
        return int(sum(column.nbytes for column in (*own, *each))) + int(self.ids.nbytes)

    def place(self, at: int) -> Place:
        """Which item stands there."""
        return Place(
            self.tasks[self.task[at]],
            int(self.shots[at]),
            self.subjects[self.subject[at]],
            int(self.index[at]),
        )

    def golds(self, positions: Sequence[int]) -> list[list[int]]:
        """The right choices of some items."""
        return [list(each) for each in self.gold.take(np.array(positions, np.int64)).lists()]

    def where(
        self, query: Query, asking: Mask | None = None, *, most: int | None = None
    ) -> tuple[NDArray[np.int64], int]:
        """The positions of the items that are asked for, in order, and how many they are.

        Args:
            query: which.
            asking: of each item, whether what it asks has the words searched for.
            most: so many positions, the first ones; None: all.

        Raises:
            UsageError: the query cannot be meant.
        """
        kept = self._like(query)
        named = (("task", self.tasks, self.task), ("subject", self.subjects, self.subject))
        for name, names, column in named:
            if wanted := getattr(query, name):
                kept &= column == (names.index(wanted) if wanted in names else -1)
        if query.search:
            kept &= self._named(query.search) | (False if asking is None else asking)
        found = np.flatnonzero(kept)
        return self._sorted(found, query, len(found) if most is None else most), len(found)

    def _like(self, query: Query) -> Mask:
        """The items that `show` is about."""
        if query.show not in SHOWS:
            raise UsageError(f"show: there is no {query.show[:80]!r}; choose among {', '.join(SHOWS)}")
        if query.end is not None and not 0 <= query.end < len(self.ends):
            raise UsageError("on: there is no such endpoint")
        shown = range(len(self.ends)) if query.end is None else [query.end]
        if query.show == "all items":
            return np.ones(len(self), np.bool_)
        found = np.zeros(len(self), np.bool_)
        for number in shown:
            found |= self._is(query.show, number)
        return found

    def _is(self, show: str, number: int) -> Mask:
        end = self.ends[number]
        right, wrong = end.value >= HALF, end.value < HALF
        if show in ("wrong", "right"):
            return wrong if show == "wrong" else right
        if show == "nearly a tie":
            return np.abs(end.margin) < NEAR
        if show == "unscored":
            return end.reason > SCORED
        gained, lost, moved = self.flips(number)
        return {"became right": gained, "became wrong": lost}.get(show, gained | lost | moved)

    def flips(self, number: int, at: NDArray[np.int64] | slice = slice(None)) -> tuple[Mask, Mask, Mask]:
        """Which items became right, wrong, or wrong in another way, on this endpoint, beside the baseline.

        Args:
            number: the endpoint's position.
            at: of these items; by default of all.
        """
        one, other = self.ends[0], self.ends[number]
        before, after = one.prediction[at], other.prediction[at]
        known = (before >= 0) & (after >= 0) & (before != after)
        was, now = one.value[at] >= HALF, other.value[at] >= HALF
        return known & now & ~was, known & was & ~now, known & ~was & ~now

    def _named(self, words: str) -> Mask:
        """Items whose id, task, subject or index is like the words."""
        from pyarrow import compute

        low = words.casefold()
        found = np.asarray(
            compute.match_substring(self.ids, words, ignore_case=True)
            .combine_chunks()
            .to_numpy(zero_copy_only=False)
        ).astype(np.bool_)
        for names, column in ((self.tasks, self.task), (self.subjects, self.subject)):
            like = np.fromiter((low in each.casefold() for each in names), np.bool_, len(names))
            found |= like[column]
        if words.isascii() and words.isdigit() and len(words) < 19:
            found |= self.index == int(words)
        return found

    def _sorted(self, found: NDArray[np.int64], query: Query, most: int) -> NDArray[np.int64]:
        """So many of them, those that come first; equal ones stay in the order of the run."""
        if not query.sort:
            return (found[::-1] if query.descending else found)[:most]
        key = self._key(found, query)
        key = -key if query.descending else key
        near = np.arange(len(key))
        if most < len(key):  # to sort a million takes long, to find the first few does not
            near = np.flatnonzero(key <= np.partition(key, most)[most])
        return found[near[np.argsort(key[near], kind="stable")]][:most]

    def _key(self, found: NDArray[np.int64], query: Query) -> NDArray[Any]:
        """By what items are sorted; what has nothing there comes last, in either direction."""
        if query.sort == "item":
            return self.index[found]
        if query.sort == "task":
            outer, inner = (np.argsort(np.argsort(np.array(each))) for each in (self.tasks, self.subjects))
            return np.asarray(outer[self.task[found]] * len(self.subjects) + inner[self.subject[found]])
        if query.sort.isascii() and query.sort.isdigit() and int(query.sort) < len(self.ends):
            margin = self.ends[int(query.sort)].margin[found]
            return np.nan_to_num(
                margin, nan=-np.inf if query.descending else np.inf, posinf=None, neginf=None
            )
        raise UsageError(f"sort: there is no {query.sort[:80]!r}")


def counts_of(table: ItemTable) -> Mapping[str, Sequence[str]]:
    """Subjects by task, in alphabetical order; tasks without any are left out."""
    width = max(1, len(table.subjects))
    found: dict[str, list[str]] = {}
    for pair in np.unique(table.task.astype(np.int64) * width + table.subject).tolist():
        task, subject = divmod(pair, width)
        if table.subjects[subject]:
            found.setdefault(table.tasks[task], []).append(table.subjects[subject])
    return {task: sorted(subjects) for task, subjects in found.items()}
