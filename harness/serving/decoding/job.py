"""What a completion is asked for, and what it comes to. Records only."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from harness.serving.decoding.sampling import Sampling, Scored
from harness.serving.decoding.steering import Steering
from harness.serving.models.seam import P, Segment
from harness.serving.models.weights import Floats

FinishReason = Literal["stop", "length"]
BeamSearchType = Literal["DETERMINISTIC", "NAIVE_SAMPLING", "STOCHASTIC"]

T = TypeVar("T")
Work = Generator[Sequence[Segment[P]], Sequence[Floats], T]
"""A computation that asks for segments to be read, is sent their logits, and ends with a result. So it knows
nothing of batches: whoever runs many of them reads the segments of all at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """What ends an output before its length does."""

    tokens: frozenset[int] = frozenset()
    """Each ends the output, and is its last token."""
    stop_tokens: frozenset[int] = frozenset()
    """Likewise; of beams, only once each of them holds one."""
    phrases: tuple[str, ...] = ()
    """The output ends in front of the first of them."""
    min_tokens: int = 0
    """Before so many tokens nothing ends it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Beams:
    """A search for a likely output instead of a drawn one."""

    width: int
    kind: BeamSearchType = "DETERMINISTIC"
    length_penalty: float = 1.0
    """Log-probabilities are divided by the output's length to this power before outputs are compared."""
    early_stopping: bool = False
    """End as soon as `width` outputs have ended."""
    pre_normalization: bool = False
    """Outputs that have ended compete with open ones for the places of the search, all of them normalised."""
    post_normalization: bool = True
    """The best output is the best after normalisation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """A token of an output that nothing can take back any more, for whoever watches it grow."""

    output: int
    """Which of the outputs."""
    scored: Scored
    text: str
    offset: int
    """Characters of the output in front of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One completion to be made; its ids are known to be the model's and to fit its length."""

    context_ids: Sequence[int]
    max_tokens: int
    """Of output; 0 only where the context is echoed."""
    forced_ids: Sequence[int] = ()
    """The output, where it is given; then nothing is drawn, and nothing ends it."""
    top: int = 0
    """How many alternatives to report a position."""
    echo: bool = False
    """Score the context too."""
    vectors: Mapping[int, Floats] = field(default_factory=dict)
    """By position in the context: what is read in place of the token's embedding, (hidden,)."""
    seeds: Sequence[int] = (0,)
    """An output each."""
    sampling: Sampling = Sampling()
    steering: Steering = Steering()
    ending: Ending = Ending()
    beams: Beams | None = None
    """Then there is one output."""
    after: Sampling | None = None
    """Report log-probabilities after this, as an honest endpoint does not."""
    emit: Callable[[Piece], object] | None = None
    """Told of each token as soon as nothing can take it back."""


@dataclass(slots=True)
class Tally:
    """Positions of contexts, counted as they are read."""

    prompt_computed: int = 0
    """Positions whose keys and values were not kept from before."""
    prompt_cached: int = 0
    """Positions whose keys and values were kept, also where they were read again."""


@dataclass(frozen=True, slots=True)
class Output:
    """One output."""

    tokens: Sequence[Scored]
    finish_reason: FinishReason
    seed: int
    text: str | None = None
    """Where a stop phrase cut it; else its text is that of its tokens."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What the model made of a job."""

    outputs: Sequence[Output]
    cached_tokens: int = 0
    """Tokens of the context whose keys and values were kept from before."""
    echoed: Sequence[Scored] = ()
    """The context's tokens behind the first, where they were to be scored."""


def together(works: Sequence[Work[P, T]]) -> Work[P, list[T]]:
    """Run computations side by side: what all of them want read is asked for at once."""
    results: dict[int, T] = {}
    wanted: dict[int, Sequence[Segment[P]]] = {}

    def go_on(index: int, logits: Sequence[Floats] | None) -> None:
        try:
            wanted[index] = next(works[index]) if logits is None else works[index].send(logits)
        except StopIteration as end:
            wanted.pop(index, None)
            results[index] = end.value

    for index in range(len(works)):
        go_on(index, None)
    while wanted:
        logits = yield [segment for segments in wanted.values() for segment in segments]
        at = 0
        for index, count in [(index, len(segments)) for index, segments in wanted.items()]:
            go_on(index, logits[at : at + count])
            at += count
    return [results[index] for index in range(len(works))]
