"""The seam between the endpoint and a language model: what a model must offer to be served.

A model reads tokens in order. What it has read so far is its past; a past is fed by one owner, and everyone
else works on a branch of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from harness.serving.weights import Floats

Ids = npt.NDArray[np.int32]


class Past(Protocol):
    """What a model keeps of the tokens that it has read: their keys and values."""

    @property
    def length(self) -> int:
        """How many tokens were read."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory it holds."""

    def branch(self, length: int, room: int) -> Self:
        """A past of its own that has read the first `length` tokens only, with room for more of them."""


P = TypeVar("P", bound=Past)


class Model(Protocol[P]):
    """A causal language model. It is used from one thread at a time."""

    @property
    def vocab_size(self) -> int:
        """Ids run from 0 to this, exclusive."""

    @property
    def max_length(self) -> int:
        """The most tokens of input and output together."""

    @property
    def eos_ids(self) -> frozenset[int]:
        """Ids that end a generated text."""

    @property
    def block(self) -> int:
        """How many tokens one `feed` should bring at most: memory and time to cancellation follow it."""

    def start(self, room: int) -> P:
        """The past of nothing read yet, with room for some tokens."""

    def feed(self, past: P, ids: Sequence[int] | Ids, *, last_only: bool) -> Floats:
        """Read `ids` after `past`, which grows by them.

        Returns:
            Logits of the token that follows each id (or the last id only): (ids or 1, vocabulary).
        """
