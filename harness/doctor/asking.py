"""One endpoint as probes ask it: through the run's own client, with its retries, budget, meter and checks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from harness.client import Client
from harness.doctor.varied import Varied
from harness.doctor.waking import Awake, awake
from harness.errors import EndpointRefused
from harness.exchange import Outcome, ScoreRequest
from harness.pairs import Tokenizes

MOST_FORCED = 5
"""Tokens of a question that are forced: as many as tell equal values from different ones."""
FEW = 7
"""Questions that are asked again and again. An odd number: two servers that take turns are met crosswise."""


@dataclass(kw_only=True)
class Asking:
    """What probes may use; several of them share what was answered."""

    client: Client
    varied: Varied
    """The client's wire format."""
    questions: Sequence[ScoreRequest]
    """Contexts and continuations to ask, all different; one at least."""
    tokenizer: Tokenizes | None = None
    """The one that was given; None: the endpoint turns texts into ids itself."""
    route: Client | None = None
    """Asks the endpoint for the ids of texts; None: it has no route for that which is known here."""
    management: str | None = None
    """URL of a dedicated endpoint's management API; None: it has none that is known here."""
    max_length: int | None = None
    """Tokens that are meant to fit, context and continuation; None: nobody said."""
    at_once: int = 16
    """Requests in flight that a run would have."""
    waking: float = 900.0
    """Seconds that waking up may take."""
    say: Callable[[str], object] = lambda line: None
    """Told what a person who waits wants to know."""
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    _numbers: count[int] = field(default_factory=count)
    _kept: dict[str, Any] = field(default_factory=dict)

    @property
    def takes_ids(self) -> bool:
        """Whether contexts and continuations go as ids, so that any can be asked."""
        return not self.varied.wants_text

    def request(
        self,
        question: ScoreRequest,
        forced: Sequence[int] | None = None,
        *,
        context: Sequence[int] | None = None,
        top: int = 0,
        fields: Mapping[str, Any] | None = None,
    ) -> ScoreRequest:
        """A question under a key of its own, so that it is asked whatever was asked before.

        Args:
            question: what to ask.
            forced: instead of its own continuation.
            context: instead of its own context.
            top: alternatives to ask for.
            fields: of the body, to be changed or (None) taken out.
        """
        key = b"probe" + next(self._numbers).to_bytes(11)
        if fields:
            self.varied.fields[key] = fields
        return ScoreRequest(
            key,
            question.context_ids if context is None else context,
            question.forced_ids if forced is None else forced,
            top,
            question.text,
        )

    async def wake(self) -> Awake:
        """See to it that a dedicated endpoint is awake; it must have a management API."""
        assert self.management is not None
        return await awake(
            self.management,
            self.client.call,
            self.say,
            patience=self.waking,
            clock=self.clock,
            sleep=self.sleep,
        )

    async def score(self, request: ScoreRequest) -> Outcome:
        """Ask; raises as `Client.score` does."""
        async with self.client.gate:
            return await self.client.score(request)

    async def together(self, requests: Sequence[ScoreRequest], at_once: int) -> list[Outcome]:
        """Ask several, so many at once; outcomes in the order of the requests."""
        todo = iter(enumerate(requests))
        done: dict[int, Outcome] = {}

        async def work() -> None:
            for at, request in todo:
                done[at] = await self.score(request)

        workers = [asyncio.create_task(work()) for _ in range(min(at_once, len(requests)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for each in workers:
                each.cancel()
            await asyncio.gather(*workers, return_exceptions=True)
        return [done[at] for at in range(len(requests))]

    async def ids_of(self, text: str) -> Outcome:
        """What the endpoint's own tokenizer makes of a text; there must be a route."""
        assert self.route is not None
        async with self.route.gate:
            key = b"probe" + next(self._numbers).to_bytes(11)
            return await self.route.score(ScoreRequest(key, (), (), text=("", text)))

    async def first(self) -> Outcome:
        """The answer to the very first question, asked once for all probes; raises as `score` does."""
        found: Outcome = await self._once("first", lambda: self.score(self.request(self.questions[0])))
        return found

    async def alone(self) -> list[Outcome]:
        """Answers to a few questions, one by one, asked once for all probes; raises as `score` does."""
        most = MOST_FORCED if self.takes_ids else None
        few = [self.request(each, each.forced_ids[:most]) for each in self.questions[:FEW]]
        found: list[Outcome] = await self._once("alone", lambda: self.together(few, 1))
        return found

    async def _once(self, name: str, ask: Callable[[], Awaitable[Any]]) -> Any:
        if name not in self._kept:
            try:
                self._kept[name] = await ask()
            except EndpointRefused as error:
                self._kept[name] = error
        if isinstance(kept := self._kept[name], EndpointRefused):
            raise kept
        return kept


def values_of(outcome: Outcome) -> Sequence[float] | None:
    """The log-probabilities, where a reply came that can be believed."""
    return outcome.reply.token_logprobs if outcome.reply is not None else None


def why_not(outcome: Outcome) -> str:
    """Why a request has no reply, in one line."""
    failure = outcome.failure
    if failure is None:
        return ""
    return f"{failure.reason}: {failure.detail}" if failure.detail else failure.reason
