"""What was read lately, as a tree of pages, so that what starts alike need not be read again.

A page holds the keys and values of up to one block of tokens; its place in the tree says what came before.
Only the last page of a context is shorter than a block. Bounded in tokens and in bytes; the least recently
used leaf goes first. Used from the model's thread alone.

Sources: Kwon et al., "Efficient Memory Management for Large Language Model Serving with PagedAttention",
2023, arXiv:2309.06180 (pages); Zheng et al., "SGLang: Efficient Execution of Structured Language Model
Programs", 2023, arXiv:2312.07104 (a tree of what was read, least recently used leaves evicted).
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Generic

import numpy as np

from harness.serving.models.seam import Ids, Model, P, Span
from harness.serving.models.weights import Floats

MAX_TOKENS = 65_536
MAX_BYTES = 256 * 2**20

_ORDERED = np.dtype(">i4")
"""Ids as bytes of this kind sort like the ids."""


@dataclass(eq=False, slots=True)
class _Page(Generic[P]):
    """Some tokens after the tokens of the pages above."""

    key: bytes
    above: _Page[P] | None
    past: P | None = None
    """What was read of these tokens alone; the root, which has none, has no past."""
    row: Floats | None = None
    """Logits of what follows, (vocabulary,), where a context ended here."""
    below: list[_Page[P]] = field(default_factory=list)
    """By key."""

    @property
    def tokens(self) -> int:
        return len(self.key) // _ORDERED.itemsize

    @property
    def nbytes(self) -> int:
        return (
            len(self.key)
            + (0 if self.past is None else self.past.nbytes)
            + (0 if self.row is None else self.row.nbytes)
        )

    def find(self, key: bytes) -> _Page[P] | None:
        """The page below with just these tokens."""
        at = bisect_left(self.below, key, key=_key)
        return self.below[at] if at < len(self.below) and self.below[at].key == key else None

    def shared(self, key: bytes) -> int:
        """How many leading tokens some page below shares with these: a neighbour by key shares most."""
        at = bisect_left(self.below, key, key=_key)
        return max((_shared(page.key, key) for page in self.below[max(at - 1, 0) : at + 1]), default=0)


@dataclass(frozen=True, slots=True)
class Found(Generic[P]):
    """What is known of a context."""

    known: int
    """Leading tokens whose keys and values are kept."""
    pages: tuple[P, ...] = ()
    """Of the whole pages among them, and of the last one too where the whole context is known."""
    row: Floats | None = None
    """Logits of what follows the whole context, (vocabulary,), where it was read to its end before."""

    @property
    def spans(self) -> list[Span[P]]:
        """The pages, to be joined."""
        return [Span(page, 0, page.length) for page in self.pages]


class PrefixCache(Generic[P]):
    """Contexts of some models, each model's under a name of its own.

    Attributes:
        max_tokens: how many tokens are kept at most.
        tokens: how many tokens are kept.
        nbytes: how many bytes they hold.
    """

    def __init__(self, *, max_tokens: int = MAX_TOKENS, max_bytes: int = MAX_BYTES) -> None:
        self.max_tokens = max_tokens
        self._max_bytes = max_bytes
        self._roots: dict[Hashable, _Page[P]] = {}
        self._used: OrderedDict[_Page[P], None] = OrderedDict()
        """Least recently used first, and each page before those above it: so the first is always a leaf."""
        self.tokens = 0
        self.nbytes = 0

    def __len__(self) -> int:
        """How many pages are kept."""
        return len(self._used)

    def find(self, name: Hashable, ids: Ids, block: int) -> Found[P]:
        """What is known of a context; that counts as a use of it."""
        page, pages, known = self._root(name), list[_Page[P]](), 0
        for key in _keys(ids, block):
            below = page.find(key)
            if below is None:
                known += page.shared(key)
                break
            page = below
            pages.append(page)
            known += page.tokens
        self._touch(page)
        read = sum(each.tokens for each in pages)
        row = page.row if read == len(ids) else None
        pasts = (each.past for each in pages if row is not None or each.tokens == block)
        return Found(known, tuple(past for past in pasts if past is not None), row)

    def add(self, name: Hashable, ids: Ids, model: Model[P], past: P, row: Floats) -> None:
        """Keep a context that was read; others go where it does not fit, or its end where it never would."""
        page, at = self._root(name), 0
        for key in _keys(ids, model.block):
            end = at + len(key) // _ORDERED.itemsize
            below = page.find(key)
            if below is None:
                below = _Page(key, page, model.join((Span(past, at, end),), 0))
                page.below.insert(bisect_left(page.below, key, key=_key), below)
                self._count(below, 1)
            page, at = below, end
        self._touch(page)
        if page.row is None:
            page.row = row
            self.nbytes += row.nbytes
        self._shrink()

    def _root(self, name: Hashable) -> _Page[P]:
        return self._roots.setdefault(name, _Page(b"", None))

    def _touch(self, page: _Page[P]) -> None:
        """This page and those above it were used last."""
        while page.above is not None:
            self._used[page] = None
            self._used.move_to_end(page)
            page = page.above

    def _shrink(self) -> None:
        while self.tokens > self.max_tokens or self.nbytes > self._max_bytes:
            page, _ = self._used.popitem(last=False)
            self._count(page, -1)
            if page.above is not None:
                page.above.below.remove(page)

    def _count(self, page: _Page[P], sign: int) -> None:
        self.tokens += sign * page.tokens
        self.nbytes += sign * page.nbytes


def shared_ids(a: Ids, b: Ids) -> int:
    """How many leading ids two contexts share."""
    count = min(len(a), len(b))
    differ = a[:count] != b[:count]
    return int(differ.argmax()) if differ.any() else count


def _key(page: _Page[P]) -> bytes:
    return page.key


def _keys(ids: Ids, block: int) -> Iterator[bytes]:
    whole = ids.astype(_ORDERED)
    return (whole[start : start + block].tobytes() for start in range(0, len(ids), block))


def _shared(a: bytes, b: bytes) -> int:
    return shared_ids(np.frombuffer(a, _ORDERED), np.frombuffer(b, _ORDERED))
