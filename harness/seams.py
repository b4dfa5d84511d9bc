"""Where a tokenizer splits for sure, so that what stands on both sides is encoded on its own, and only once.

Endings after a context, and questions after the shots of their subject, make texts of which most is the same.
A tokenizer splits before a space that follows what is no space, if nothing in its vocabulary reaches across
(then neither merges nor a best path can), and if its rules for cutting text into words, which look at kinds
of characters, cut there. The first is looked up in the vocabulary; the second is tried on the text in which
each combination of kinds occurs first, and what was tried once is known. A seam that was not shown is never
used.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Sequence
from unicodedata import category

_SPACES = "\u0120\u2581 "
"""How a space is written in vocabularies: byte-level, SentencePiece, plainly."""
_ACROSS = re.compile(f"([^{_SPACES}])[{_SPACES}]")
_SEAM = re.compile(r"(?<=\S)(?= \S)")
_PRINTED = (*range(33, 127), *range(161, 173), *range(174, 256))
_BYTES = {byte: chr(byte) for byte in _PRINTED} | {
    byte: chr(256 + at) for at, byte in enumerate(sorted(set(range(256)).difference(_PRINTED)))
}
"""How byte-level vocabularies write bytes (GPT-2's `bytes_to_unicode`)."""
_PROBE = ("a", " b")
_FAR = 400
"""Characters from the end of a prefix within which a seam is looked for."""
_HEADS = 8
"""Beginnings that are remembered: subjects come one after another."""

Encode = Callable[[Sequence[str]], Sequence[list[int]]]
"""Ids of texts without special tokens."""


class Seams:
    """What is known of one tokenizer's seams; endpoints that share the tokenizer share it."""

    def __init__(self, pieces: Callable[[], Iterable[str]], encode: Encode) -> None:
        """Nothing is looked up before the first question.

        Args:
            pieces: all pieces of the vocabulary as they are written there, added tokens too.
            encode: ids of texts without special tokens.
        """
        self._pieces = pieces
        self._encode = encode
        self._dropped: int | None = None
        """Characters that a tail loses where it is encoded alone: the space, if one comes in front anyway."""
        self._looked = False
        self._kinds: dict[tuple[str, str], str] = {}
        """Of the characters around seams, as they were met."""
        self._tried: dict[str, bool] = {}
        """By kind."""
        self._joined_to_space: frozenset[str] = frozenset()
        """What stands before a space within a piece, as the vocabulary writes it: mostly white space."""
        self._heads: dict[str, list[int] | None] = {}
        self._lock = threading.Lock()

    def known(self, head: str, tail: str) -> bool | None:
        """Whether head and tail can be encoded alone; None: it has to be tried (`learn`)."""
        kind = self.kind(head, tail)
        return self._tried.get(kind) if kind else False

    def kind(self, head: str, tail: str) -> str:
        """The kinds of characters around a seam, two before and three after it; empty: it is none."""
        around = head[-2:], tail[:3]
        kind = self._kinds.get(around)
        if kind is None:
            usable = self._drops() is not None and _is_seam(*around) and not self._reaches(head[-1])
            kind = self._kinds[around] = "".join(map(_kind, f"{around[0]}|{around[1]}")) if usable else ""
        return kind

    def learn(self, head: str, tail: str, same: bool) -> None:
        """Take in whether ids of head and tail, encoded alone, are those of the whole."""
        kind = self.kind(head, tail)
        with self._lock:
            self._tried[kind] = same and self._tried.get(kind, True)

    def alone(self, tail: str) -> str:
        """The text to encode in a tail's place."""
        return tail[self._drops() or 0 :]

    def head_of(self, prefix: str) -> str:
        """The beginning of a prefix up to its last seam; empty where it has none."""
        if self._drops() is None:
            return ""
        at = 0
        for found in _SEAM.finditer(prefix, max(0, len(prefix) - _FAR)):
            if not self._reaches(prefix[found.start() - 1]):
                at = found.start()
        return prefix[:at]

    def head_ids(self, head: str, tried: Callable[[], list[int] | None]) -> list[int] | None:
        """The ids of a beginning that many texts have; None: it must not be encoded alone.

        Args:
            head: the beginning; the last few are remembered.
            tried: what to ask where it is not remembered.
        """
        with self._lock:
            if head not in self._heads:
                if len(self._heads) >= _HEADS:
                    del self._heads[next(iter(self._heads))]
                self._heads[head] = tried()
            return self._heads[head]

    def _drops(self) -> int | None:
        if not self._looked:
            with self._lock:
                if not self._looked:
                    self._look()
                    self._looked = True  # last: other threads go by it
        return self._dropped

    def _look(self) -> None:
        head, tail = _PROBE
        whole, first, *alone = self._encode([head + tail, head, tail, tail[1:]])
        drops = [at for at, ids in enumerate(alone) if [*first, *ids] == whole]
        if drops:
            found = (each for piece in self._pieces() for each in _ACROSS.findall(piece))
            self._joined_to_space = frozenset(found)
            self._dropped = drops[0]

    def _reaches(self, character: str) -> bool:
        """Whether a piece may hold this character, or the last byte of it, and a space behind it."""
        return bool(self._joined_to_space) and not self._joined_to_space.isdisjoint(
            (character, _BYTES[character.encode(errors="replace")[-1]])
        )


def _is_seam(before: str, after: str) -> bool:
    return bool(_SEAM.search(before[-1:] + after[:2]))


def _kind(character: str) -> str:
    """The character itself; of letters only which kind they are."""
    if character.isascii():
        return "a" if character.islower() else "A" if character.isupper() else character
    return category(character)
