"""What the instant endpoint says: log-probabilities out of thin air, and the bodies that carry them; pure.

The log-probability of a token depends on the id before it and on itself. Each id before permutes the ids by a
multiplication, and the rank of an id in that order gives its value; so the likeliest ids are found without
looking at the others. The letters " A" to " D" are always among the twenty likeliest, as in a trained model
after "Answer:".
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import accumulate
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple, cast

import msgspec
from tokenizers import Tokenizer

LETTERS = (" A", " B", " C", " D")
LETTER_RANKS = 16
"""A letter's rank is below this, so that it is among the twenty likeliest."""
_KEPT = 2**19
"""Positions that are remembered, some 200 bytes each."""
_FACTOR, _STEP, _SPREAD = 0x9E3779B1, 0x85EBCA6B, 0xC2B2AE35
"""Odd: of the id, of the id before it, of all ids before it."""

_NESTED = re.compile(rb"\s*\[\s*\[")
_ENCODE = msgspec.json.Encoder().encode

_Position = tuple[bytes, bytes]
"""The log-probability of an id, and the likeliest at its place, as JSON."""
_NOTHING: _Position = (b"null", b"null")
_VALUE, _TOP = itemgetter(0), itemgetter(1)


class Asked(msgspec.Struct):
    """A body: Friendli's with `tokens`, or an OpenAI-style one with `prompt` (ids, or a list of such)."""

    tokens: list[int] | None = None
    forced_output_tokens: list[int] | None = None
    prompt: msgspec.Raw = msgspec.Raw()
    logprobs: int | None = None
    max_tokens: int | None = None
    echo: bool = False


class Answer(NamedTuple):
    """A reply and what it counts for."""

    body: bytes
    prompt_tokens: int
    forced_tokens: int
    """Of OpenAI-style prompts the generated ones."""


def texts_of(tokenizer: Path) -> list[str]:
    """The text of each id as it is decoded behind another one: with its space.

    Args:
        tokenizer: a `tokenizer.json`.
    """
    backend = Tokenizer.from_file(str(tokenizer))
    size = backend.get_vocab_size()
    anchor = backend.encode("a", add_special_tokens=False).ids
    alone = len(backend.decode(anchor))
    whole = backend.decode_batch([[*anchor, each] for each in range(size)], skip_special_tokens=False)
    return [text[alone:] for text in whole]


class Answers:
    """Bodies of replies, for one vocabulary."""

    def __init__(self, texts: Sequence[str], *, whole_context: bool = False) -> None:
        """Prepare the tables.

        Args:
            texts: of each id.
            whole_context: values depend on all ids before, not on the last one alone: then no two items
                have the same, and mixing them up shows.
        """
        self._size = len(texts)
        self._mask = (1 << max(6, (self._size - 1).bit_length())) - 1
        self._inverse = pow(_FACTOR, -1, self._mask + 1)
        self._values = [_value(rank) for rank in range(self._mask + 1)]
        self._texts = [_ENCODE(text)[1:-1] for text in texts]
        self._lengths = [len(text) for text in texts]
        known = {text: each for each, text in enumerate(texts)}
        letters = [known[text] for text in LETTERS if text in known]
        self._letters = {
            each: [_value(rank + (i + 1) / 8) for rank in range(LETTER_RANKS)]
            for i, each in enumerate(letters)
        }
        self._whole_context = whole_context
        self._known: defaultdict[int, dict[int, _Position]] = defaultdict(dict)

    def friendli(self, asked: Asked) -> Answer:
        """The reply to forced ids behind `tokens`."""
        context, forced = asked.tokens or [], asked.forced_output_tokens or []
        choice = self._choice(self.seeds(context, forced), forced, asked.logprobs, 0)
        return _completion([choice], len(context), len(forced))

    def openai(self, asked: Asked) -> Answer:
        """The reply to one or several prompts of ids, echoed with one more token."""
        prompts = _prompts(bytes(asked.prompt))
        choices = [
            self._echo(ids, asked.logprobs, index) if asked.echo else self._next(ids, asked.logprobs, index)
            for index, ids in enumerate(prompts)
        ]
        return _completion(choices, sum(map(len, prompts)), len(prompts))

    def likeliest(self, seed: int, count: int) -> list[tuple[int, bytes]]:
        """So many ids of the highest log-probability, the likeliest first, with it as JSON text."""
        found = [(float(own[_letter_rank(seed, each)]), each) for each, own in self._letters.items()]
        rank = 0
        while len(found) < count + len(self._letters) and rank <= self._mask:
            each = (self._inverse * (rank - _STEP * seed)) & self._mask
            if each < self._size and each not in self._letters:
                found.append((float(self._values[rank]), each))
            rank += 1
        found.sort(reverse=True)
        return [(each, self.value(seed, each)) for _, each in found[:count]]

    def value(self, seed: int, token_id: int) -> bytes:
        """The log-probability of an id as JSON text.

        Args:
            seed: the id before it, or what stands for all before it.
            token_id: whose it is.
        """
        if token_id in self._letters:
            return self._letters[token_id][_letter_rank(seed, token_id)]
        return self._values[(_FACTOR * token_id + _STEP * seed) & self._mask]

    def seeds(self, context: Sequence[int], forced: Sequence[int]) -> list[int]:
        """What the values of the forced ids depend on, one number each."""
        last = [context[-1] if context else 0, *forced[:-1]]
        if not self._whole_context:
            return last
        sums = accumulate(forced[:-1], initial=sum(context))
        return [(each + _SPREAD * before) & self._mask for each, before in zip(last, sums, strict=True)]

    # ------------------------------------------------------------------------------------------- parts

    def _echo(self, ids: list[int], top: int | None, index: int) -> bytes:
        seeds = self.seeds(ids[:1], [*ids[1:], 0])
        after = self.likeliest(seeds[-1], 1)[0][0]
        return self._choice(seeds, [*ids[1:], after], top, index, first=ids[:1])

    def _next(self, ids: list[int], top: int | None, index: int) -> bytes:
        seeds = self.seeds(ids, [0])
        return self._choice(seeds, [self.likeliest(seeds[0], 1)[0][0]], top, index)

    def _choice(
        self,
        seeds: Sequence[int],
        forced: Sequence[int],
        top: int | None,
        index: int,
        first: Sequence[int] = (),
    ) -> bytes:
        """One entry of `choices`; `first` stands before it and has no log-probability."""
        ids = [*first, *forced]
        texts = list(map(self._texts.__getitem__, ids))
        logprobs = b"null"
        if top is not None:
            positions = [_NOTHING] * len(first) + self._positions(seeds, forced, top)
            offsets = list(accumulate(map(self._lengths.__getitem__, ids[:-1]), initial=0))
            logprobs = b'{"text_offset":%b,"token_logprobs":[%b],"tokens":["%b"],"top_logprobs":[%b]}' % (
                _ENCODE(offsets),
                b",".join(map(_VALUE, positions)),
                b'","'.join(texts),
                b",".join(map(_TOP, positions)),
            )
        return b'{"index":%d,"text":"%b","seed":0,"finish_reason":"length","tokens":%b,"logprobs":%b}' % (
            index,
            b"".join(texts),
            _ENCODE(ids),
            logprobs,
        )

    def _positions(self, seeds: Sequence[int], forced: Sequence[int], top: int) -> list[_Position]:
        """What is said at each position, remembered: the endpoint must cost less than who asks it."""
        known = self._known[top]
        size = self._size
        keys = [seed * size + each for seed, each in zip(seeds, forced, strict=True)]
        found = list(map(known.get, keys))
        if None not in found:
            return cast(list[_Position], found)
        if len(known) > _KEPT:
            known.clear()
        return [known.get(key) or self._position(known, key, top) for key in keys]

    def _position(self, known: dict[int, _Position], key: int, top: int) -> _Position:
        """The likeliest by text, and the forced one beside them where it is none of them.

        Of ids that read alike the likeliest is kept, as in all objects keyed by text.
        """
        seed, forced = divmod(key, self._size)
        found: dict[bytes, bytes] = {}
        for each, value in [*self.likeliest(seed, top), (forced, self.value(seed, forced))]:
            found.setdefault(self._texts[each], value)
        tops = b"{%b}" % b",".join([b'"%b":%b' % each for each in found.items()])
        known[key] = position = (self.value(seed, forced), tops)
        return position


def _value(rank: float) -> bytes:
    """The log-probability of a rank: likely ids few, unlikely ones many; the sum of all is below 1."""
    return b"%.6f" % -(1.1 * math.log(rank + 1) + 2.3)


def _letter_rank(seed: int, token_id: int) -> int:
    return ((_FACTOR * token_id + _STEP * seed) >> 7) % LETTER_RANKS


def _prompts(raw: bytes) -> list[list[int]]:
    if _NESTED.match(raw):
        return msgspec.json.decode(raw, type=list[list[int]])
    return [msgspec.json.decode(raw, type=list[int])]


def _completion(choices: Sequence[bytes], prompt: int, forced: int) -> Answer:
    body = (
        b'{"id":"cmpl-instant","object":"text_completion","model":"instant","choices":[%b],'
        b'"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}}'
        % (b",".join(choices), prompt, forced, prompt + forced)
    )
    return Answer(body, prompt, forced)
