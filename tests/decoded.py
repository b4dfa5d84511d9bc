"""Completions without threads or HTTP: a computation run to its end, and a model that is a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from harness.serving.decoding.completing import Reader, complete
from harness.serving.decoding.job import Completion, Job, T, Work
from harness.serving.models.seam import Model, P, Segment, Span
from harness.serving.models.weights import Floats
from harness.serving.prefixes import PrefixCache


def letters(ids: Sequence[int]) -> str:
    """Each id as a letter: 0 is "a"."""
    return "".join(chr(ord("a") + each) for each in ids)


def finish(model: Model[P], work: Work[P, T]) -> T:
    """What a computation comes to, each segment read when it is asked for."""
    try:
        wanted = next(work)
        while True:
            wanted = work.send(model.feed(wanted))
    except StopIteration as end:
        result: T = end.value
        return result


def run(model: Model[P], job: Job, cache: PrefixCache[P] | None = None) -> Completion:
    """The job's completion, by default with nothing kept."""
    return finish(model, complete(Reader(model, cache), job, letters))


@dataclass(slots=True)
class Said:
    """The past of a `Table`: the ids themselves."""

    ids: list[int]

    @property
    def length(self) -> int:
        return len(self.ids)

    @property
    def nbytes(self) -> int:
        return 4 * len(self.ids)


class Table:
    """A model whose logits are a function of all ids so far."""

    hidden = 1
    max_length = 1000
    block = 4

    def __init__(
        self, logits: Callable[[Sequence[int]], Sequence[float]], *, eos: Sequence[int] = ()
    ) -> None:
        self._logits = logits
        self.eos_ids = frozenset(eos)
        self.read = 0
        self.batches: list[int] = []

    @property
    def vocab_size(self) -> int:
        return len(self._logits([]))

    def join(self, spans: Sequence[Span[Said]], room: int) -> Said:
        return Said([each for span in spans for each in span.past.ids[span.start : span.stop]])

    def feed(self, segments: Sequence[Segment[Said]]) -> list[Floats]:
        self.batches.append(len(segments))
        return [self._one(segment) for segment in segments]

    def _one(self, segment: Segment[Said]) -> Floats:
        rows = []
        for token in segment.ids.tolist():
            segment.past.ids.append(token)
            rows.append(self._logits(segment.past.ids))
        self.read += len(segment.ids)
        return np.asarray(rows[len(rows) - segment.rows :], np.float32).reshape(segment.rows, self.vocab_size)
