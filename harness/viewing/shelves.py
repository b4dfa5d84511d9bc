"""What is kept while the page is open: as little as it takes to answer quickly, within bounds."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

_Kept = TypeVar("_Kept")


@dataclass(slots=True)
class Shelf(Generic[_Kept]):
    """Things that take long to make, by what they are made of; the least used go first.

    What is being made is made once, whoever else asks for it meanwhile.
    """

    size: Callable[[_Kept], int]
    """Bytes of one."""
    room: int
    """Bytes of all; the newest stays, whatever its size."""
    _kept: OrderedDict[Hashable, _Kept] = field(default_factory=OrderedDict)
    _made: dict[Hashable, asyncio.Lock] = field(default_factory=dict)

    def has(self, key: Hashable) -> bool:
        """Whether there is something under a key already."""
        return key in self._kept

    async def get(self, key: Hashable, make: Callable[[], _Kept]) -> _Kept:
        """What is kept under a key; made in a thread where it is not."""
        async with self._made.setdefault(key, asyncio.Lock()):
            try:
                if key not in self._kept:
                    self._kept[key] = await asyncio.to_thread(make)
            finally:
                self._made.pop(key, None)
            self._kept.move_to_end(key)
            found = self._kept[key]
        while len(self._kept) > 1 and sum(map(self.size, self._kept.values())) > self.room:
            self._kept.popitem(last=False)
        return found
