"""What a Llama is made of, in numpy: projections and an embedding, with or without what an adapter changes.

An adapter's module is one of its own that shares the arrays it does not change. Every module computes each
part of a batch by itself: how BLAS rounds a row depends on how many rows it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from harness.serving.models.seam import Ids
from harness.serving.models.weights import Floats

LowRank = tuple[Floats, Floats]
"""(rank, inputs) and (outputs, rank), scaled: their product is added to a weight of (outputs, inputs)."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a weight that are replaced, each for one id of the vocabulary."""

    ids: npt.NDArray[np.int64]
    """(rows,), rising."""
    values: Floats
    """(rows, hidden)."""

    def put(self, x: Floats, ids: Ids) -> None:
        """Put the replaced rows among the embeddings of some ids."""
        at = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        found = self.ids[at] == ids
        x[found] = self.values[at[found]]


@dataclass(frozen=True, slots=True)
class Linear:
    """A projection, or several of the same input stacked into one."""

    weights: tuple[Floats, ...]
    """(outputs, inputs) each, as they are stored, one below the other."""
    bias: Floats | None = None
    rows: Rows | None = None
    low_rank: LowRank | None = None
    gain: Floats | None = None
    """(outputs,): what the sum is multiplied by before the bias is added; DoRA's magnitudes over norms."""

    def __call__(self, x: Floats, parts: Sequence[slice]) -> Floats:
        """(tokens, inputs) to (tokens, outputs)."""
        y = np.empty((len(x), sum(map(len, self.weights))), np.float32)
        for part in parts:
            self._project(x[part], y[part])
        if self.gain is not None:
            y *= self.gain
        return y if self.bias is None else y + self.bias

    def _project(self, x: Floats, y: Floats) -> None:
        first = 0
        for weight in self.weights:
            np.matmul(x, weight.T, out=y[:, first : first + len(weight)])
            first += len(weight)
        if self.rows is not None:
            y[:, self.rows.ids] = x @ self.rows.values.T
        if self.low_rank is not None:
            down, up = self.low_rank
            y += (x @ down.T) @ up.T


@dataclass(frozen=True, slots=True)
class Embedding:
    """A vector for each id."""

    weight: Floats
    """(vocabulary, hidden)."""
    rows: Rows | None = None
    low_rank: LowRank | None = None
    """Added to the transposed weight: (rank, vocabulary) and (hidden, rank)."""
    gain: Floats | None = None
    """(hidden,), like a projection's."""

    def __call__(self, ids: Ids, parts: Sequence[slice]) -> Floats:
        """(tokens,) to (tokens, hidden)."""
        x: Floats = self.weight[ids]
        if self.rows is not None:
            self.rows.put(x, ids)
        if self.low_rank is not None:
            down, up = self.low_rank
            for part in parts:
                x[part] += down.T[ids[part]] @ up.T
        return x if self.gain is None else x * self.gain
