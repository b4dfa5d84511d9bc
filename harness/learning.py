"""How an endpoint's alternatives are read is learnt from it, when the first item comes that could use it.

The item's choices are forced one by one, with alternatives: what the replies call the tokens, and whether the
alternatives are what forcing gives, is all in there. The replies are kept, so that the item is answered by them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from harness.encoding import EncodedItem
from harness.exchange import Outcome, ScoreRequest
from harness.plan import KeyMaker
from harness.shortcut import TOPS, Names, Seen, Shortcut, is_single, learn, seen_in

TRIES = 3
"""Items that may fail to show it before it is given up."""
MOST_CHOICES = 10
"""Choices of an item that are forced for it."""
TOO_MANY = ("400", "422")
"""Reasons of failure by which an endpoint may say that it names no so many alternatives."""


@dataclass(slots=True)
class Lesson:
    """What has been learnt of one endpoint in this session."""

    found: Shortcut | None = None
    why: str = ""
    """Why choices are not read off alternatives; empty where they are, or nothing came that could be."""
    tried: bool = False
    """The endpoint was asked."""


class Learner:
    """Learns once, in the thread that plans; requests are made on the event loop.

    Attributes:
        lesson: what has been learnt so far.
    """

    def __init__(
        self,
        names: Names,
        keys: KeyMaker,
        ask: Callable[[ScoreRequest], Awaitable[Outcome]],
        answered: Callable[[Sequence[bytes]], set[bytes]],
        lesson: Lesson,
    ) -> None:
        """Take how to ask; call it on the event loop that asks.

        Args:
            names: of the endpoint's vocabulary.
            keys: of its requests.
            ask: sends a request until it is answered or has failed for good, and keeps what came.
            answered: which of some keys have a reply already.
            lesson: is filled.
        """
        self.lesson = lesson
        self._names = names
        self._keys = keys
        self._ask = ask
        self._answered = answered
        self._loop = asyncio.get_running_loop()
        self._tries = 0
        self._waiting: Future[Outcome] | None = None
        self._interrupted = False

    def top_of(self, encoded: EncodedItem) -> int:
        """How many alternatives to ask for, so that the item's choices can be read off them; 0: none.

        Raises:
            EndpointRefused: the endpoint must not be asked any more.
            CancelledError: of `concurrent.futures`: it was interrupted.
        """
        if not is_single(encoded):
            return 0
        if self.lesson.found is None and self._tries < TRIES:
            if top := self._earlier(encoded):
                return top
            self._tries += 1
            self.lesson.tried = True
            self._learn(encoded)
        return self.lesson.found.top if self.lesson.found else 0

    def _earlier(self, encoded: EncodedItem) -> int:
        """What was asked for in an earlier session, if that answered the whole item; else 0."""
        context, forced = encoded.pairs[0].context_ids, [pair.forced_ids for pair in encoded.pairs]
        for top in TOPS:
            keys = set(self._keys.keys(context, forced, top=top))
            if self._answered(list(keys)) == keys:
                return top
        return 0

    def interrupt(self) -> None:
        """End what waits, and what would wait; callable from any thread."""
        self._interrupted = True
        if self._waiting is not None:
            self._waiting.cancel()

    def _learn(self, encoded: EncodedItem) -> None:
        context = encoded.pairs[0].context_ids
        forced = list({pair.forced_ids[0]: pair.forced_ids for pair in encoded.pairs}.values())
        for top in TOPS:
            keys = self._keys.keys(context, forced, top=top)
            requests = [
                ScoreRequest(key, context, ids, top) for key, ids in zip(keys, forced, strict=True)
            ]
            first = self._outcome(requests[0])
            if first.failure is None or first.failure.reason not in TOO_MANY:
                break
        outcomes = [first]
        if first.failure is None:
            outcomes += [self._outcome(each) for each in requests[1:MOST_CHOICES]]
        found = self._found(outcomes, top)
        self.lesson.found, self.lesson.why = (None, found) if isinstance(found, str) else (found, "")

    def _found(self, outcomes: list[Outcome], top: int) -> Shortcut | str:
        seen: list[Seen] = []
        for each in outcomes:
            if each.reply is None:
                said = each.failure
                return f"asked for alternatives, it failed: {said.reason if said else ''}"
            shown = seen_in(each.request, each.reply)
            if shown is None:
                return "it does not say what it calls the tokens that it was forced to put out"
            seen.append(shown)
        return learn(seen, self._names, top)

    def _outcome(self, request: ScoreRequest) -> Outcome:
        """Have the event loop ask."""

        async def asked() -> Outcome:
            return await self._ask(request)

        self._waiting = asyncio.run_coroutine_threadsafe(asked(), self._loop)
        if self._interrupted:
            self._waiting.cancel()
        try:
            return self._waiting.result()
        finally:
            self._waiting = None
