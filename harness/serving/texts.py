"""Output ids as text, and a completion as the choices of a reply.

The text of an id is what it adds after an ordinary token: so a word keeps the space in front of it, which a
tokenizer strips at the start of a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from harness.serving.decoding.job import Completion, Job, Output, Piece
from harness.serving.decoding.sampling import Scored
from harness.serving.decoding.spelling import Growth
from harness.serving.wire import Choice, Logprobs
from harness.tokenizing import Tokenizer

_ANCHOR = "a"
_KEPT = 2**16
"""Ids whose texts are remembered."""


class Texts:
    """Renders the ids of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._anchor = tokenizer.encode_plain([_ANCHOR])[0]
        self._anchor_text = tokenizer.decode(self._anchor)
        self.token = lru_cache(maxsize=_KEPT)(self._token)
        self._alone = lru_cache(maxsize=_KEPT)(self._single)

    def text(self, ids: Sequence[int]) -> str:
        """The text that these ids add, special tokens dropped."""
        return self._alone(ids[0]) if len(ids) == 1 else self._after_anchor(ids, keep_special=False)

    def choices(self, completion: Completion, job: Job, *, first: int, logprobs: bool) -> Iterator[Choice]:
        """The choices of a reply, numbered from `first`."""
        for index, output in enumerate(completion.outputs, first):
            yield self._choice(output, completion.echoed, job, index, logprobs=logprobs)

    def piece(self, piece: Piece) -> Logprobs:
        """What a chunk of a stream says of its token."""
        return Logprobs(
            text_offset=[piece.offset],
            token_logprobs=[piece.scored.logprob],
            tokens=[self.token(piece.scored.token)],
            top_logprobs=[self._alternatives(piece.scored)],
        )

    def _choice(
        self, output: Output, echoed: Sequence[Scored], job: Job, index: int, *, logprobs: bool
    ) -> Choice:
        """An output, behind the context where that is echoed."""
        ids = [each.token for each in output.tokens]
        scored: list[Scored | None] = [*output.tokens]
        if job.echo:
            ids = [*job.context_ids, *ids]
            scored = [None, *echoed, *scored]
        growth = self._growth(ids, opening=job.echo)
        text = growth.text
        if output.text is not None:  # a stop phrase may end it within a token
            begin = growth.starts[len(ids) - len(output.tokens)] if output.tokens else len(text)
            text = text[:begin] + output.text
        return Choice(
            index=index,
            text=text,
            seed=output.seed,
            finish_reason=output.finish_reason,
            tokens=ids,
            logprobs=self._logprobs(ids, growth.starts, scored) if logprobs else None,
        )

    def _growth(self, ids: Sequence[int], *, opening: bool) -> Growth:
        growth = Growth(self.text, opening=self._tokenizer.decode if opening else None)
        for each in ids:
            growth.add(each)
        growth.close()
        return growth

    def _logprobs(
        self, ids: Sequence[int], starts: Sequence[int], scored: Sequence[Scored | None]
    ) -> Logprobs:
        return Logprobs(
            text_offset=list(starts),
            token_logprobs=[None if each is None else each.logprob for each in scored],
            tokens=[self.token(each) for each in ids],
            top_logprobs=[None if each is None else self._alternatives(each) for each in scored],
        )

    def _alternatives(self, scored: Scored) -> dict[str, float]:
        """The likeliest tokens and the chosen one; of ids that read alike the likeliest is kept."""
        found: dict[str, float] = {}
        for token_id, logprob in (*scored.top, (scored.token, scored.logprob)):
            found.setdefault(self.token(token_id), logprob)
        return found

    def _token(self, token_id: int) -> str:
        """The text of one id, special tokens by name; fragments of a character are replacement characters."""
        return self._after_anchor([token_id], keep_special=True)

    def _single(self, token_id: int) -> str:
        return self._after_anchor([token_id], keep_special=False)

    def _after_anchor(self, ids: Sequence[int], *, keep_special: bool) -> str:
        whole = self._tokenizer.decode([*self._anchor, *ids], keep_special=keep_special)
        return whole[len(self._anchor_text) :]
