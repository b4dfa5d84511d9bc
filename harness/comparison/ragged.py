"""Lists of unequal length in one array: a choice a number, some choices an item; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

_Number = TypeVar("_Number", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Ragged(Generic[_Number]):
    """Some lists of numbers, one after another."""

    values: NDArray[_Number]
    """All numbers, shape (sum of lengths,)."""
    lengths: NDArray[np.int64]
    """Of each list, shape (lists,)."""

    @property
    def starts(self) -> NDArray[np.int64]:
        """Where each list begins in `values`."""
        return np.cumsum(self.lengths) - self.lengths

    def take(self, positions: NDArray[np.int64]) -> Ragged[_Number]:
        """The lists at these positions, in this order."""
        return Ragged(self.values[self.flat(positions)], self.lengths[positions])

    def flat(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where the numbers of these lists stand in `values`."""
        lengths = self.lengths[positions]
        first = np.repeat(self.starts[positions] - (np.cumsum(lengths) - lengths), lengths)
        return first + np.arange(len(first))

    def spread(self, each: NDArray[Any]) -> NDArray[Any]:
        """One value a list, repeated for each of its numbers."""
        return np.repeat(each, self.lengths)

    def lists(self) -> list[tuple[Any, ...]]:
        """As Python tuples."""
        values, ends = self.values.tolist(), np.cumsum(self.lengths).tolist()
        return [tuple(values[start:end]) for start, end in zip([0, *ends[:-1]], ends, strict=bool(ends))]

    def within(self, reduce: np.ufunc, values: NDArray[Any]) -> NDArray[Any]:
        """One number a list, out of values that stand as `self.values` do; no list may be empty.

        Args:
            reduce: `np.add`, `np.maximum`, ...
            values: shape (sum of lengths,).
        """
        return np.asarray(reduce.reduceat(values, self.starts)) if len(self.lengths) else values[:0]


def ragged(lists: Iterable[Sequence[Any]], kind: type[_Number]) -> Ragged[_Number]:
    """Lists of Python numbers as one array of this kind."""
    held = list(lists)
    lengths = np.fromiter(map(len, held), np.int64, len(held))
    values = np.fromiter((each for one in held for each in one), kind, int(lengths.sum()))
    return Ragged(values, lengths)
