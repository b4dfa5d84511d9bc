"""How an endpoint's alternatives are read is learnt from it, when the first item comes that could use it.

The item's choices are forced one by one, with alternatives: what the replies call the tokens, and whether the
alternatives are what forcing gives, is all in there. The replies are kept, so that the item is answered by
them. An item that an earlier session has answered is left as it was asked then.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from harness.encoding import EncodedItem
from harness.exchange import Outcome, ScoreRequest
from harness.plan import KeyMaker
from harness.shortcut import NOT_NAMED, SHARED, TOPS, Names, Seen, Shortcut, is_single, learn, seen_in

TRIES = 3
"""Items of a task that may fail to show it before it is given up for this task."""
FAILURES = 10
"""Items of all tasks that may fail themselves meanwhile."""
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
    elsewhere: bool = False
    """Other processes of the run read choices off alternatives."""
    changed: float = 0.0
    """Nats by which alternatives differed from forcing later in the run; 0: they never did."""


class Failed(Exception):
    """Raised where an item cannot be asked at all, which says nothing about alternatives."""


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
        answered: Callable[[Sequence[bytes]], set[bytes]] | None,
        lesson: Lesson,
        leading: Callable[[], Iterable[EncodedItem]] | None = None,
    ) -> None:
        """Take how to ask; call it on the event loop that asks.

        Args:
            names: of the endpoint's vocabulary.
            keys: of its requests.
            ask: sends a request until it is answered or has failed for good, and keeps what came.
            answered: which of some keys had a reply before this session; None: none has.
            lesson: is filled.
            leading: where only a part of a run is asked: the items that the whole would learn from, in its
                order, so that all parts learn the same, and ask every item as the whole would.
        """
        self.lesson = lesson
        self._leading = leading
        self._silent: set[tuple[str, str, int]] = set()
        """Items of the whole that come before the one that shows it."""
        self._names = names
        self._keys = keys
        self._ask = ask
        self._answered = answered
        self._loop = asyncio.get_running_loop()
        self._tries: Counter[str] = Counter()
        self._failures = 0
        self._settled = False
        """No other item could show more."""
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
        earlier = self._earlier(encoded)
        if earlier is not None:
            return earlier
        if self._leading is not None:
            self._lead(self._leading())
            self._leading = None
        if _place(encoded) in self._silent:
            return 0
        if not self._settled and self._tries[encoded.prompt.item.task] < TRIES:
            self._try(encoded)
        return self.lesson.found.top if self.lesson.found else 0

    def _lead(self, items: Iterable[EncodedItem]) -> None:
        """Try what the whole run would try before it came to its part; what an earlier session asked is not
        asked again."""
        for each in items:
            earlier = self._earlier(each) if is_single(each) else 0
            if earlier or self._settled:
                return
            if is_single(each):
                if earlier is None and self._tries[each.prompt.item.task] < TRIES:
                    self._try(each)
                if self.lesson.found is not None:
                    return
                self._silent.add(_place(each))

    def _try(self, encoded: EncodedItem) -> None:
        self.lesson.tried = True
        try:
            found = self._learnt(encoded)
        except Failed as error:
            self.lesson.why = str(error)
            self._failures += 1
            self._settled = self._failures == FAILURES
            return
        self._tries[encoded.prompt.item.task] += 1
        self._settled = found not in (NOT_NAMED, SHARED)
        self.lesson.found, self.lesson.why = (None, found) if isinstance(found, str) else (found, "")

    def interrupt(self) -> None:
        """End what waits, and what would wait; callable from any thread."""
        self._interrupted = True
        if (waiting := self._waiting) is not None:
            waiting.cancel()

    def _earlier(self, encoded: EncodedItem) -> int | None:
        """What an earlier session asked for that answered the whole item; None where none did."""
        if self._answered is None:
            return None
        context, forced = encoded.pairs[0].context_ids, [pair.forced_ids for pair in encoded.pairs]
        for top in (0, *TOPS):
            keys = set(self._keys.keys(context, forced, top=top))
            if self._answered(list(keys)) == keys:
                return top
        return None

    def _learnt(self, encoded: EncodedItem) -> Shortcut | str:
        """What an item shows; raises `Failed` where it cannot be asked."""
        first, top = self._first(encoded)
        if first.reply is None:
            return f"it names no alternatives: {_said(first)}"
        outcomes = [first, *map(self._outcome, self._requests(encoded, top)[1:MOST_CHOICES])]
        seen: list[Seen] = []
        for each in outcomes:
            if each.reply is None:
                raise Failed(f"asked for alternatives, it failed: {_said(each)}")
            shown = seen_in(each.request, each.reply)
            if shown is None:
                return "it does not say what it calls the tokens that it was forced to put out"
            seen.append(shown)
        return learn(seen, self._names, top)

    def _first(self, encoded: EncodedItem) -> tuple[Outcome, int]:
        """The item's first choice, forced with as many alternatives as the endpoint takes, and that number.

        It has failed only where that is for the alternatives; else `Failed` is raised.
        """
        for top in TOPS:
            outcome = self._outcome(self._requests(encoded, top)[0])
            if outcome.failure is None:
                return outcome, top
            if outcome.failure.reason not in TOO_MANY:
                break
            if top == TOPS[0] and self._outcome(self._requests(encoded, 0)[0]).failure is not None:
                break
        else:
            return outcome, 0
        raise Failed(f"asked for alternatives, it failed: {_said(outcome)}")

    def _requests(self, encoded: EncodedItem, top: int) -> list[ScoreRequest]:
        """The item's choices, equal ones once."""
        context = encoded.pairs[0].context_ids
        forced = list({pair.forced_ids[0]: pair.forced_ids for pair in encoded.pairs}.values())
        keys = self._keys.keys(context, forced, top=top)
        return [ScoreRequest(key, context, ids, top) for key, ids in zip(keys, forced, strict=True)]

    def _outcome(self, request: ScoreRequest) -> Outcome:
        """Have the event loop ask."""

        async def asked() -> Outcome:
            return await self._ask(request)

        waiting = self._waiting = asyncio.run_coroutine_threadsafe(asked(), self._loop)
        if self._interrupted:
            waiting.cancel()
        try:
            return waiting.result()
        finally:
            self._waiting = None


def _place(encoded: EncodedItem) -> tuple[str, str, int]:
    item = encoded.prompt.item
    return item.task, item.subject, item.index


def _said(outcome: Outcome) -> str:
    return outcome.failure.reason if outcome.failure else "no reply"
