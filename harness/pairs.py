"""Contexts and continuations to token ids: the boundary rule, checked; pure but for the tokenizer.

Boundary rule (lm-evaluation-harness 0.4.13, `api/model.py`): white space at the end of the context moves to
the front of the continuation; context and whole are encoded, and the continuation's ids are what the whole
has beyond the *count* of the context's ids. The reference does not look whether the context's ids are a
prefix of the whole; here every pair where they are not is marked.

Where a tokenizer is known to split (`seams`) the parts are encoded instead of the whole, each once: the same
ids for less.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from harness.seams import Seams


@dataclass(frozen=True, slots=True)
class Unencoded:
    """A text that could not be turned into ids: of a tokenizer that is asked over a network."""

    why: str
    """Short, in words."""


class Encodes(Protocol):
    """What encoding needs of a tokenizer."""

    @property
    def start_id(self) -> int | None:
        """What stands for an empty context; None where nothing does."""

    @property
    def seams(self) -> Seams | None:
        """What is known of where it splits; None: nothing, and every text is encoded whole."""

    def encode(self, texts: Sequence[str]) -> Sequence[list[int] | Unencoded]:
        """Ids with the leading special tokens."""

    def encode_plain(self, texts: Sequence[str]) -> Sequence[list[int] | Unencoded]:
        """Ids without special tokens."""


class Tokenizes(Encodes, Protocol):
    """What a run needs of a tokenizer."""

    @property
    def sha256(self) -> str:
        """Two tokenizers of equal hash encode alike."""

    @property
    def leading(self) -> list[int]:
        """Ids put in front of every text."""


@dataclass(frozen=True, slots=True)
class EncodedPair:
    """One choice as ids."""

    context_ids: Sequence[int]
    forced_ids: Sequence[int]
    shifted: bool = False
    """The context's ids are no prefix of the whole's: a merge across the seam moved the boundary."""
    dropped: int = 0
    """Ids the context lost on the left to fit `--max-length`."""
    text: tuple[str, str] | None = None
    """The same as text, split at the seam; only where it was asked for."""


def split_seam(context: str, continuation: str) -> tuple[str, str]:
    """Move white space at the end of the context to the front of the continuation."""
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


class NoIds(Exception):
    """Raised where a text of an item could not be turned into ids."""


class Pairs:
    """The pairs of a batch as ids."""

    def __init__(
        self, pairs: Sequence[tuple[str, str]], prefixes: Mapping[str, str], tokenizer: Encodes
    ) -> None:
        """Encode what is needed, each text once.

        Args:
            pairs: contexts and continuations, split where continuations begin (`split_seam`).
            prefixes: by context, what it begins with as many others do.
            tokenizer: of the endpoint that is asked.
        """
        self._start_id = tokenizer.start_id
        self._seams = tokenizer.seams
        self._tokenizer = tokenizer
        self._cuts: dict[str, tuple[list[int], str]] = {}
        whole: dict[str, None] = {}
        alone: dict[str, None] = {}
        for context in dict.fromkeys(context for context, _ in pairs if context):
            if cut := self._cut(context, prefixes.get(context, "")):
                self._cuts[context] = cut
                alone[cut[1]] = None
            else:
                whole[context] = None
        self._try_new(pairs)
        self._tails: dict[tuple[str, str], str] = {}
        """What is encoded alone of the pairs that are known to be split at their seam."""
        for context, rest in pairs:
            if not context:
                alone[rest] = None
            elif self._seams and self._seams.known(context, rest):
                tail = self._tails[context, rest] = self._seams.alone(rest)
                alone[tail] = None
            else:
                whole[context + rest] = None
        self._whole = dict(zip(whole, tokenizer.encode(list(whole)), strict=True))
        self._alone = dict(zip(alone, tokenizer.encode_plain(list(alone)), strict=True)) if alone else {}
        self._joined: dict[str, list[int]] = {}

    def pair(self, context: str, rest: str) -> EncodedPair:
        """The ids of one of the pairs.

        Raises:
            NoIds: the tokenizer has none for a text of it.
        """
        if not context:
            return _after_nothing(_known(self._alone[rest]), self._start_id)
        ids = self._ids(context)
        tail = self._tails.get((context, rest))
        if tail is not None:
            return EncodedPair(ids, _known(self._alone[tail]))
        whole = _known(self._whole[context + rest])
        return EncodedPair(ids, whole[len(ids) :], shifted=whole[: len(ids)] != ids)

    def _try_new(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Try one seam of each new kind: encode its parts and the whole."""
        seams, encode = self._seams, self._tokenizer.encode
        if seams is None:
            return
        new = {seams.kind(*each): each for each in pairs if seams.known(*each) is None}
        if not new:
            return
        heads = encode([context for context, _ in new.values()])
        wholes = encode([context + rest for context, rest in new.values()])
        tails = self._tokenizer.encode_plain([seams.alone(rest) for _, rest in new.values()])
        for (context, rest), head, tail, whole in zip(new.values(), heads, tails, wholes, strict=True):
            seams.learn(context, rest, same=[*_known(head), *_known(tail)] == whole)

    def _cut(self, context: str, prefix: str) -> tuple[list[int], str] | None:
        """The ids of a head that the context shares with others, and the text behind it; None: not so."""
        seams = self._seams
        head = seams.head_of(prefix) if seams and prefix and context.startswith(prefix) else ""
        if not seams or not head:
            return None
        tail = seams.alone(context[len(head) :])
        ids = seams.head_ids(head, lambda: self._tried_head(head, tail, context))
        return None if ids is None else (ids, tail)

    def _tried_head(self, head: str, tail: str, context: str) -> list[int] | None:
        """The ids of a head, if the whole context begins with them."""
        ids, whole = map(_known, self._tokenizer.encode([head, context]))
        (behind,) = map(_known, self._tokenizer.encode_plain([tail]))
        return ids if [*ids, *behind] == whole else None

    def _ids(self, context: str) -> list[int]:
        """The ids of a context; its choices share the list."""
        if context not in self._joined:
            if context in self._cuts:
                ids, tail = self._cuts[context]
                self._joined[context] = [*ids, *_known(self._alone[tail])]
            else:
                self._joined[context] = _known(self._whole[context])
        return self._joined[context]


def _known(ids: list[int] | Unencoded) -> list[int]:
    if isinstance(ids, Unencoded):
        raise NoIds(ids.why)
    return ids


def _after_nothing(ids: list[int], start_id: int | None) -> EncodedPair:
    """An empty context becomes the start token, or the continuation's own first id where that is it."""
    if start_id is None or ids[:1] == [start_id]:
        return EncodedPair(ids[:1], ids[1:])
    return EncodedPair([start_id], ids)
