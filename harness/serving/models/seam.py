"""The seam between the endpoint and a language model: what a model must offer to be served.

A model reads tokens in order. What it has read so far is its past; a past is fed by one owner, and everyone
else works on a copy of some part of it. Many pasts are fed at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from harness.serving.models.weights import Floats

Ids = npt.NDArray[np.int32]


class Past(Protocol):
    """What a model keeps of the tokens that it has read: their keys and values."""

    @property
    def length(self) -> int:
        """How many tokens were read."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory it holds."""


P = TypeVar("P", bound=Past)


@dataclass(frozen=True, slots=True)
class Span(Generic[P]):
    """The tokens of a past from `start` to `stop`, exclusive."""

    past: P
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Segment(Generic[P]):
    """Tokens to be read after a past, which grows by them."""

    past: P
    ids: Ids
    """(tokens,)"""
    rows: int
    """Of how many of the last tokens the logits are wanted."""
    vectors: Mapping[int, Floats] = field(default_factory=dict)
    """By position in `ids`: what is read in place of the token's embedding, (hidden,)."""


class Model(Protocol[P]):
    """A causal language model. It is used from one thread at a time."""

    @property
    def vocab_size(self) -> int:
        """Ids run from 0 to this, exclusive."""

    @property
    def hidden(self) -> int:
        """Numbers in the embedding of a token."""

    @property
    def max_length(self) -> int:
        """The most tokens of input and output together."""

    @property
    def eos_ids(self) -> frozenset[int]:
        """Ids that end a generated text."""

    @property
    def block(self) -> int:
        """How many tokens a segment should bring at most: memory and time to cancellation follow it."""

    def join(self, spans: Sequence[Span[P]], room: int) -> P:
        """A past of its own, made of spans that follow one another, with room for more tokens."""

    def feed(self, segments: Sequence[Segment[P]]) -> list[Floats]:
        """Read each segment after its past.

        Returns:
            For each segment the logits of what follows its last tokens: (rows, vocabulary).
        """


def start(model: Model[P], room: int = 0) -> P:
    """The past of nothing read yet."""
    return model.join((), room)


def fork(model: Model[P], past: P, room: int = 0) -> P:
    """A copy of a whole past."""
    return model.join((Span(past, 0, past.length),), room)
