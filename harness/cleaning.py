"""What an endpoint said, as it may be kept: without the secrets that it was sent, and bounded; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

from harness.errors import ReplyError
from harness.exchange import Reply
from harness.failures import LINE, one_line
from harness.secrets import SHORTEST, Secret, redact

MOST_NAMED = 2**20
"""Characters of alternatives that a reply may name: they are kept."""
_LOOKED_AT = 2**18
"""Characters, so many that after them no secret that is cut in two can come to stand in the line."""


class Cleaner:
    """Takes out what an endpoint was sent and may repeat."""

    def __init__(self, secrets: Sequence[Secret]) -> None:
        self._secrets = secrets
        # A token of a model's vocabulary may hold a few characters by accident, and no more.
        self._long = [each for each in secrets if len(each.reveal()) >= SHORTEST]
        self._least = min((len(each.reveal()) for each in self._long), default=MOST_NAMED)

    def text(self, content: bytes) -> str:
        """A body as text; whatever it is."""
        return redact(content.decode(errors="replace"), self._secrets)

    def line(self, text: str) -> str:
        """A text in one line, short and inert."""
        line = one_line(redact(text[:_LOOKED_AT], self._secrets), 2 * LINE)
        # Once more before the cut: what stood apart in the text may stand together in the line.
        return one_line(redact(line, self._secrets))

    def reply(self, reply: Reply) -> Reply:
        """A reply with what it calls tokens: that was never sent, but may repeat what was.

        Raises:
            ReplyError: it names more than anybody asked for.
        """
        top, texts = reply.top_logprobs, reply.token_texts
        names = [*texts, *chain.from_iterable(top or ())]
        longest = max(map(len, names), default=0)
        if longest * len(names) > MOST_NAMED and sum(map(len, names)) > MOST_NAMED:
            raise ReplyError(f"the reply names more than {MOST_NAMED:,} characters of alternatives")
        if longest < self._least:  # as almost always: no form of a secret is shorter than itself
            return reply
        found = {name: redact(name, self._long) for name in names if len(name) >= self._least}
        changed = {name: written for name, written in found.items() if name != written}
        if not changed:
            return reply
        if top is not None:
            top = [{changed.get(name, name): value for name, value in each.items()} for each in top]
        return replace(reply, top_logprobs=top, token_texts=[changed.get(name, name) for name in texts])
