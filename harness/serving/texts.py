"""Output ids as text, and a completion as the choice of a reply.

The text of an id is what it adds after an ordinary token: so a word keeps the space in front of it, which a
tokenizer strips at the start of a text.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache

from harness.serving.completing import Completion, Job
from harness.serving.sampling import Scored
from harness.serving.wire import Choice, Logprobs
from harness.tokenizing import Tokenizer

_ANCHOR = "a"
_BROKEN = "\ufffd"
_MOST_FRAGMENTS = 8
"""Ids that may wait for the rest of a character; UTF-8 needs four bytes at most."""


class Texts:
    """Renders the ids of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._anchor = tokenizer.encode_plain([_ANCHOR])[0]
        self._anchor_text = tokenizer.decode(self._anchor)
        self.token = lru_cache(maxsize=2**16)(self._token)
        self._alone = lru_cache(maxsize=2**16)(lambda token_id: self.text([token_id]))

    def text(self, ids: Sequence[int]) -> str:
        """The text that these ids add, special tokens dropped."""
        return self._after_anchor(ids, keep_special=False)

    def _token(self, token_id: int) -> str:
        """The text of one id, special tokens by name; fragments of a character are replacement characters."""
        return self._after_anchor([token_id], keep_special=True)

    def choice(self, completion: Completion, job: Job, *, index: int, logprobs: bool) -> Choice:
        """A choice of a reply: the output, behind the context where that is echoed."""
        scored: list[Scored | None] = [*completion.output]
        ids = [each.token for each in completion.output]
        if job.echo:
            ids = [*job.context_ids, *ids]
            scored = [None, *completion.echoed, *scored]
        return Choice(
            index=index,
            text=self.text(ids),
            seed=job.seed,
            finish_reason=completion.finish_reason,
            tokens=ids,
            logprobs=self._logprobs(ids, scored) if logprobs else None,
        )

    def _logprobs(self, ids: Sequence[int], scored: Sequence[Scored | None]) -> Logprobs:
        return Logprobs(
            text_offset=list(self._offsets(ids)),
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

    def _offsets(self, ids: Sequence[int]) -> Iterator[int]:
        """Characters of text in front of each id; fragments of one character all start where it starts."""
        start = offset = 0
        for index in range(len(ids)):
            yield offset
            added = self._alone(ids[index]) if start == index else self.text(ids[start : index + 1])
            if not added.endswith(_BROKEN) or index + 1 - start == _MOST_FRAGMENTS:
                start, offset = index + 1, offset + len(added)

    def _after_anchor(self, ids: Sequence[int], *, keep_special: bool) -> str:
        whole = self._tokenizer.decode([*self._anchor, *ids], keep_special=keep_special)
        return whole[len(self._anchor_text) :]
