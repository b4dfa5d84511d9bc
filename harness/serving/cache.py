"""Contexts that were read lately, so that what follows them, or starts like them, need not read them again.

Bounded in tokens and in bytes; the least recently used goes first. Used from the model's thread alone.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic

from harness.serving.model import Ids, P
from harness.serving.weights import Floats

MAX_TOKENS = 65_536
MAX_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class Prefix(Generic[P]):
    """A context that was read."""

    ids: Ids
    past: P
    """Never fed again: who continues the context branches it."""
    logprobs: Floats
    """Of the token that follows the whole context: (vocabulary,)."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory it holds."""
        return self.ids.nbytes + self.past.nbytes + self.logprobs.nbytes


class PrefixCache(Generic[P]):
    """Prefixes by their ids, least recently used first.

    Attributes:
        tokens: how many tokens are kept.
        nbytes: how many bytes they hold.
    """

    def __init__(self, *, max_tokens: int = MAX_TOKENS, max_bytes: int = MAX_BYTES) -> None:
        self._max_tokens = max_tokens
        self._max_bytes = max_bytes
        self._prefixes: OrderedDict[bytes, Prefix[P]] = OrderedDict()
        self.tokens = 0
        self.nbytes = 0

    def __len__(self) -> int:
        return len(self._prefixes)

    def get(self, ids: Ids) -> Prefix[P] | None:
        """The prefix of exactly these ids."""
        key = ids.tobytes()
        if key in self._prefixes:
            self._prefixes.move_to_end(key)
        return self._prefixes.get(key)

    def nearest(self, ids: Ids) -> tuple[Prefix[P], int] | None:
        """The prefix that shares the most leading ids with these, and how many it shares."""
        best: tuple[Prefix[P], int] | None = None
        for prefix in self._prefixes.values():
            shared = _shared(prefix.ids, ids)
            if best is None or shared >= best[1]:  # among equals the one used last
                best = prefix, shared
        if best is not None:
            self._prefixes.move_to_end(best[0].ids.tobytes())
        return best

    def add(self, prefix: Prefix[P]) -> None:
        """Keep a prefix; others go where it would not fit, and one that could never fit is not kept."""
        if len(prefix.ids) > self._max_tokens or prefix.nbytes > self._max_bytes:
            return
        self._drop(prefix.ids.tobytes())
        while self._prefixes and (
            self.tokens + len(prefix.ids) > self._max_tokens or self.nbytes + prefix.nbytes > self._max_bytes
        ):
            self._drop(next(iter(self._prefixes)))
        self._prefixes[prefix.ids.tobytes()] = prefix
        self.tokens += len(prefix.ids)
        self.nbytes += prefix.nbytes

    def _drop(self, key: bytes) -> None:
        gone = self._prefixes.pop(key, None)
        if gone is not None:
            self.tokens -= len(gone.ids)
            self.nbytes -= gone.nbytes


def _shared(a: Ids, b: Ids) -> int:
    count = min(len(a), len(b))
    differ = a[:count] != b[:count]
    return int(differ.argmax()) if differ.any() else count
