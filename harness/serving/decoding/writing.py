"""One output as it grows: what ends it, and which of its tokens nothing can take back any more."""

from __future__ import annotations

from harness.serving.decoding.job import FinishReason, Job, Output, Piece
from harness.serving.decoding.sampling import Scored
from harness.serving.decoding.spelling import Growth, Phrases, Spell


class Writing:
    """An output that is being made.

    Attributes:
        ids: its tokens so far.
    """

    def __init__(self, job: Job, index: int, spell: Spell) -> None:
        self._job = job
        self._index = index
        self._tokens: list[Scored] = []
        self._emitted = 0
        self._phrases = Phrases(job.ending.phrases)
        spelled = bool(job.ending.phrases) or job.emit is not None
        self._growth = Growth(spell) if spelled else None
        """Only where somebody looks at the text."""
        self.ids: list[int] = []

    def add(self, scored: Scored) -> Output | None:
        """One more token; the output, where that ends it."""
        self._tokens.append(scored)
        self.ids.append(scored.token)
        ending = self._job.ending
        if self._growth is not None:
            self._growth.add(scored.token)
            cut = self._found(self._growth)
            if cut is not None:
                return self._cut(self._growth, cut)
            self._emit(self._growth, len(self._growth.text) - self._phrases.held(self._growth.text))
        if len(self.ids) >= ending.min_tokens and scored.token in ending.tokens | ending.stop_tokens:
            return self.end("stop")
        return self.end("length") if len(self.ids) == self._job.max_tokens else None

    def end(self, reason: FinishReason) -> Output:
        """The output as it is."""
        if self._growth is not None:
            self._growth.close()
            cut = self._found(self._growth)
            if cut is not None:
                return self._cut(self._growth, cut)
            self._emit(self._growth, len(self._growth.text))
        return Output(self._tokens, reason, self._job.seeds[self._index])

    def _found(self, growth: Growth) -> int | None:
        """Where a stop phrase begins that leaves the least number of tokens in front of it."""
        least = self._job.ending.min_tokens
        if len(growth.starts) < least:
            return None
        return self._phrases.find(growth.text, least=growth.starts[least - 1] + 1 if least else 0)

    def _cut(self, growth: Growth, at: int) -> Output:
        """The output in front of a stop phrase: the tokens that begin in front of it."""
        kept = sum(start < at for start in growth.starts)
        self._emit(growth, at, upto=kept)
        return Output(self._tokens[:kept], "stop", self._job.seeds[self._index], growth.text[:at])

    def _emit(self, growth: Growth, safe: int, *, upto: int | None = None) -> None:
        """Tell of tokens whose text lies within the first `safe` characters, or of all up to a number."""
        if self._job.emit is None:
            return
        while self._emitted < len(growth.ends):
            index = self._emitted
            start, end = growth.starts[index], growth.ends[index]
            if end > safe if upto is None else index >= upto:
                return
            text = growth.text[self._told(growth) : min(end, safe)]
            self._job.emit(Piece(output=self._index, scored=self._tokens[index], text=text, offset=start))
            self._emitted += 1

    def _told(self, growth: Growth) -> int:
        """Characters told of so far."""
        return growth.ends[self._emitted - 1] if self._emitted else 0
