"""Chance without luck: whether a fault strikes depends on the request and on nothing around it. Pure.

A draw is a hash of the seed, the fault's name, the request's path and body, and how often that very body came
before. So the same seed strikes the same requests in whatever order and however many at once they come, and a
retry draws anew.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b


@dataclass(frozen=True, slots=True)
class Draw:
    """The draws of one request."""

    seed: int
    request: bytes
    """Hash of path and body."""
    before: int
    """How often it came before."""

    def number(self, name: str) -> float:
        """What this name draws: from 0 to below 1."""
        text = f"{self.seed} {self.before} {name} ".encode() + self.request
        return (int.from_bytes(blake2b(text, digest_size=8).digest()) >> 11) / 2**53

    def strikes(self, name: str, share: float) -> bool:
        """Whether a fault strikes that strikes this share of requests."""
        return share > 0 and self.number(name) < share

    def pick(self, name: str, n: int) -> int:
        """One of 0 to n-1, for a detail of the fault of this name."""
        return int(self.number(f"{name} detail") * n)


_REMEMBERED = 2**20
"""Different requests whose count is kept; the one that came first is forgotten first."""


class Draws:
    """Gives each request its draws; it remembers a number and a count of different requests."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._seen: dict[int, int] = {}

    def of(self, path: str, body: bytes) -> Draw:
        """The draws of a request that has just come."""
        digest = blake2b(path.encode("utf-8", "surrogateescape") + b"\0" + body, digest_size=8).digest()
        key = int.from_bytes(digest)
        before = self._seen.get(key, 0)
        self._seen[key] = before + 1
        if len(self._seen) > _REMEMBERED:
            del self._seen[next(iter(self._seen))]
        return Draw(self._seed, digest, before)
