"""The endpoints of a run that are one base model and its adapters: adapters are held against their base.

The base is asked once for all of them: by its own watch where it is an endpoint of the run, else by a client
that is made for this.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from harness.client import Client
from harness.encoding import EncodedItem
from harness.endpoints import Endpoint
from harness.errors import EndpointRefused, Stopped
from harness.journal import Journal
from harness.watching.asking import ask_all
from harness.watching.judging import Looked
from harness.watching.kept import begin_look, requests_of_look
from harness.work import Work

_Given = TypeVar("_Given")

Whom = tuple[str, str, str]
"""Wire format, URL (or what stands for it) and base model."""

LOOKS_AT_BASE = 2
"""At a base that is no endpoint of the run: at the start, and at the end."""


class Member(Protocol):
    """A watch, as its family sees it."""

    endpoint: Endpoint
    work: Work
    journal: Journal

    def encoded(self) -> Sequence[EncodedItem]:
        """The items that it looks at."""

    def now(self) -> float:
        """Seconds since the epoch."""

    async def look(self, moment: str) -> Looked:
        """What its endpoint says of them."""

    async def noted(self, note: Callable[[], _Given]) -> _Given:
        """Change what its journal keeps of looks."""


@dataclass(frozen=True, slots=True)
class AtBase:
    """What came of a look at the base."""

    values: Looked
    encoded: Sequence[EncodedItem] = ()
    """What was asked."""
    why: str = ""
    """Why there is nothing, or empty."""


class Family:
    """What the watches of one base model share.

    Attributes:
        members: the watches of the base and of its adapters, as far as they are endpoints of the run.
        over: set once all of them have asked everything.
    """

    def __init__(self, connect: Callable[[Endpoint], Awaitable[Client]], stop: asyncio.Event) -> None:
        """Take what opens a client of an endpoint that the run does not ask."""
        self.members: list[Member] = []
        self.over = asyncio.Event()
        self._connect = connect
        self._stop = stop
        self._ended = self._closed = 0
        self._outside: dict[str, asyncio.Task[AtBase]] = {}
        self._client: Client | None = None

    def one_ended(self) -> None:
        """One of them has asked everything that it will."""
        self._ended += 1
        if self._ended == len(self.members):
            self.over.set()

    async def one_closed(self) -> None:
        """One of them asks nothing any more, and waits for nothing."""
        self._closed += 1
        if self._closed == len(self.members):
            for each in self._outside.values():
                each.cancel()
            await asyncio.gather(*self._outside.values(), return_exceptions=True)

    @property
    def base(self) -> Member | None:
        """The base's own watch, where the run asks it."""
        return next((each for each in self.members if not each.endpoint.adapter), None)

    def looks_at_base(self, asker: Member) -> int:
        """How often the base is looked at on behalf of this one."""
        return LOOKS_AT_BASE if self.base is None and asker is self.members[0] else 0

    async def look_at_base(self, moment: str, asker: Member) -> AtBase:
        """What the base says of the items that an adapter is asked; never an error."""
        found = await (self._in_the_run(self.base, moment) if self.base else self._beside(moment))
        encoded = await asyncio.to_thread(asker.encoded)
        if not found.why and _ids(found.encoded) != _ids(encoded):
            return AtBase((), why="the base model is asked with other token ids")
        return found

    async def _in_the_run(self, base: Member, moment: str) -> AtBase:
        try:
            return AtBase(await base.look(moment), await asyncio.to_thread(base.encoded))
        except EndpointRefused as error:
            return AtBase((), why=_cannot(error))
        except asyncio.CancelledError:
            if _cancelling():
                raise
            return AtBase((), why="the base model was given up")

    async def _beside(self, moment: str) -> AtBase:
        """On behalf of the first of them, whoever wants to know."""
        if moment not in self._outside:
            self._outside[moment] = asyncio.create_task(self._look(moment, self.members[0]))
        return await asyncio.shield(self._outside[moment])

    async def _look(self, moment: str, asker: Member) -> AtBase:
        """Ask a base that is no endpoint of the run; its replies are kept in the adapter's journal."""
        work, endpoint = asker.work, replace(asker.endpoint, adapter="", replicate=0)
        try:
            encoded = await asyncio.to_thread(asker.encoded)
            number = await asker.noted(lambda: begin_look(asker.journal, moment, asker.now(), of_base=True))
            requests = requests_of_look(encoded, endpoint.identity, number)
            work.forecast.add(requests)
            if self._client is None:
                self._client = await self._connect(endpoint)
            return AtBase(await ask_all(work, self._client, requests, self._stop), encoded)
        except EndpointRefused as error:
            return AtBase((), why=_cannot(error))
        except Stopped:
            return AtBase((), why="the run was stopped")


def _cannot(error: EndpointRefused) -> str:
    return f"the base model cannot be asked ({error})"


def _cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _ids(encoded: Sequence[EncodedItem]) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    return [(tuple(pair.context_ids), tuple(pair.forced_ids)) for each in encoded for pair in each.pairs]
