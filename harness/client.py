"""One endpoint, asked until a request is answered, has failed for good, or the endpoint is given up.

The first attempt is plain; tenacity is entered only when it failed. What a failure means is decided in
`failures`, when to send in `pacing`, what goes over the wire in `dialects`, how it gets there in `transport`.
"""

from __future__ import annotations

import asyncio
import random
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Self

from harness.caps import Caps, Meter, Price, Spending
from harness.dialects import Dialect
from harness.errors import EndpointRefused, Stopped
from harness.events import Field
from harness.exchange import Failure, Outcome, ScoreRequest
from harness.pacing import AWAY, BUSY, AnyBudget, Budget, Gate, Limits, Outage
from harness.patience import MOST_REFILLS, Case, ClientSettings
from harness.secrets import Secret
from harness.transport import Attempt, Called, Transport, Wire

if TYPE_CHECKING:
    from tenacity import RetryCallState


@dataclass(frozen=True, slots=True)
class Event:
    """Something that people watching want to know."""

    name: str
    """As the log file calls it."""
    message: str = ""
    """The state of the endpoint, empty where it simply goes on."""
    fields: Mapping[str, Field] = field(default_factory=dict)
    """What the log file says of it."""

    @property
    def retry(self) -> str:
        """Why a request is sent again; empty where none is."""
        return str(self.fields["reason"]) if self.name == "retry" else ""


class Client:
    """Scores requests on one endpoint; an async context manager, shared by all workers of a pool."""

    def __init__(
        self,
        *,
        base_url: str,
        dialect: Dialect,
        model: str | None,
        headers: Mapping[str, str],
        secrets: Sequence[Secret],
        variables: Sequence[str] = (),
        tls: ssl.SSLContext | None = None,
        settings: ClientSettings,
        budget: AnyBudget | None,
        share: str = "",
        gate: Gate,
        meter: Meter | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        jitter: Callable[[float, float], float] = random.uniform,
        on_event: Callable[[Event], None] | None = None,
    ) -> None:
        """Nothing is opened before the context is entered.

        Args:
            base_url: ends in /v1.
            dialect: the wire format.
            model: as the body names it; None or empty: left out.
            headers: sent with every request, credentials among them.
            secrets: removed from everything the endpoint says.
            variables: that token and team came from; empty: the usual ones of the wire format.
            tls: whose certificates are believed; None: those that the system knows.
            settings: patience with attempts, requests, and the endpoint.
            budget: of the account, shared with its other endpoints; None: no limits.
            share: what the endpoint is called there.
            gate: entered by whoever calls `score`; left while a request waits to be tried again.
            meter: asked before each attempt, which it counts; None: all are allowed.
            clock: seconds from any origin, the same for all clients of a budget.
            sleep: waits so many seconds; what it raises ends the request and passes through.
            jitter: a random number between two.
            on_event: told of retries and changes of state.
        """
        self._dialect = dialect
        self._model = model
        self._settings = settings
        self.gate = gate
        self._meter = meter if meter is not None else Spending(Caps()).meter(Price())
        self._budget: AnyBudget = budget if budget is not None else Budget()
        self._share = self._budget.share(share)
        self._clock = clock
        self._sleep = sleep
        self._jitter = jitter
        self._on_event = on_event
        self._message = ""
        self._resting = 0
        self._down_since = 0.0
        wire = Wire(
            url=f"{base_url.rstrip('/')}/{dialect.path}",
            headers=headers,
            secrets=secrets,
            variables=variables,
            timeout=settings.timeout,
            connect_timeout=settings.connect_timeout,
            connections=gate.most,
            tls=tls,
        )
        self._transport = Transport(wire, dialect, clock)
        self._outage = Outage(
            patience=settings.patience,
            first_wait=settings.probe_wait,
            at_once=lambda: gate.level,
            clock=clock,
            sleep=sleep,
            report=self._state_changed,
        )

    async def __aenter__(self) -> Self:
        await self._transport.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._transport.close()

    @property
    def waiting(self) -> int:
        """How many requests are not on their way: they wait for the budget, another try, an outage's end."""
        return len(self._share.queue) + self._resting

    async def score(self, request: ScoreRequest, delayed: Callable[[], object] | None = None) -> Outcome:
        """Send a request until it is answered or has failed for good; the caller is inside the gate.

        Args:
            request: what to send.
            delayed: called once, if the first attempt has failed and others follow.

        Raises:
            EndpointRefused: the endpoint must not be asked any more.
            Stopped: a cap of the run allows no further attempt.
        """
        body = self._dialect.build(request, self._model)
        if self._outage.suspected or not self._budget.open:
            await self._passage(request)
        attempt = await self._attempt(request, body)
        if attempt.reply is not None:
            return Outcome(request, attempt.reply, latency=attempt.seconds)
        case = Case(request, body, attempt, self._outage.successes)
        case.add(attempt, self._backoff(attempt, 0), self._settings.timeout)
        if delayed is not None and attempt.retryable:
            delayed()
        return await self._persist(case)

    async def call(self, method: str, url: str) -> Called:
        """Call a management route of the endpoint once; it scores nothing, and counts nowhere."""
        return await self._transport.call(method, url)

    # ------------------------------------------------------------------------------------- trying again

    async def _persist(self, case: Case) -> Outcome:
        """Let tenacity send again what failed once."""
        from tenacity import AsyncRetrying, retry_if_result

        retrying = AsyncRetrying(
            sleep=self._rest,
            retry=retry_if_result(lambda attempt: attempt.retryable),
            wait=lambda _: 0.0 if case.exhausted(self._settings) else case.wait,
            stop=lambda _: self._given_up(case),
            before_sleep=lambda _: self._before_sleep(case),
            retry_error_callback=_last_result,
        )
        attempt: Attempt = await retrying(self._next_attempt, case)
        failure = None
        if attempt.reply is None:
            failure = Failure(attempt.reason, attempt.detail, attempt.status)
            self._tell_of(case, "failed", detail=attempt.detail)
        return Outcome(case.request, attempt.reply, failure, attempt.seconds, case.sent)

    async def _next_attempt(self, case: Case) -> Attempt:
        if not case.seen:
            case.seen = True
            return case.last
        ended, suspected = self._outage.ended, self._outage.suspected
        await self._passage(case.request)
        if self._outage.ended > ended:
            case.refill(self._outage.successes)
        exhausted = case.exhausted(self._settings)  # it still is, where no probe failed
        if exhausted and suspected and case.spare and case.last.reason in AWAY:
            case.spare = exhausted = False
        if not exhausted:
            attempt = await self._attempt(case.request, case.body)
            case.add(attempt, self._backoff(attempt, case.attempts), self._settings.timeout)
        return case.last

    def _given_up(self, case: Case) -> bool:
        """Whether a failed request is left at that: not while an outage may be what failed it."""
        if not case.exhausted(self._settings):
            return False
        if case.refills >= MOST_REFILLS:
            return True
        self._outage.doubt(case.successes, case.last.reason)
        return not self._outage.suspected

    def _backoff(self, attempt: Attempt, before: int) -> float:
        """Seconds to the next attempt: what the endpoint asks for, else exponential with full jitter."""
        if attempt.decision is None or not attempt.retryable:
            return 0.0
        if attempt.decision.retry_after is not None:
            return attempt.decision.retry_after
        doubled = self._settings.backoff_base * 2.0 ** min(before, 60)
        return self._jitter(0.0, min(doubled, self._settings.backoff_cap))

    def _before_sleep(self, case: Case) -> None:
        if not case.exhausted(self._settings):
            self._tell_of(case, "retry", wait=round(case.wait, 3))
            case.spent, case.wait = case.spent + case.wait, 0.0

    # ---------------------------------------------------------------------------------------- one attempt

    async def _passage(self, request: ScoreRequest) -> None:
        """Wait while the endpoint is down, then for the budget: nobody pays for what is not sent."""
        while True:
            while self._outage.suspected:
                await self._outside(lambda: self._outage.wait(request, self._probe))
            await self._paced(request)
            if not self._outage.suspected:
                return

    async def _paced(self, request: ScoreRequest) -> None:
        if not self._budget.open:
            tokens = len(request.context_ids) + len(request.forced_ids)
            await self._share.wait(tokens, self._clock, self._sleep)

    async def _rest(self, seconds: float) -> None:
        """Wait before the next attempt; others are let in meanwhile."""
        await self._outside(lambda: self._sleep(seconds))

    async def _outside(self, waiting: Callable[[], Awaitable[None]]) -> None:
        self._resting += 1
        try:
            await self.gate.outside(waiting)
        finally:
            self._resting -= 1

    async def _attempt(self, request: ScoreRequest, body: bytes) -> Attempt:
        """Send once, if a cap allows it, and let all workers know what that says about the endpoint."""
        meter, sizes = self._meter, (len(request.context_ids), len(request.forced_ids))
        if not meter.allows(*sizes) and not await meter.more(*sizes):
            raise Stopped(self._meter.reason)
        sent = self.gate.epoch
        attempt = await self._transport.send(request, body)
        if attempt.limits is not None:
            self._follow(attempt.limits)
        decision = attempt.decision
        if decision is None:
            self._outage.succeeded(request)
            self.gate.answered(sent, attempt.seconds, limited=self._budget.waiting > 0)
        elif decision.action == "stop":
            raise EndpointRefused(self._transport.refusal(attempt), attempt.reason)
        elif decision.action == "retry":
            self._failed(attempt, sent)
        return attempt

    def _follow(self, limits: Limits) -> None:
        """The endpoint has told what its account allows."""
        budget, before = self._budget, self._budget.allowed
        if budget.follow(limits, self._clock()):
            self._tell("paused", seconds=round(limits.wait, 3), reason="X-RateLimit-Remaining is 0")
        if budget.allowed != before:
            rpm, tpm = budget.allowed
            self._tell("limits", requests_a_minute=rpm, tokens_a_minute=tpm, reason="X-RateLimit-Limit")

    def _failed(self, attempt: Attempt, sent: int) -> None:
        """An attempt failed by the endpoint's fault."""
        self._outage.failed(attempt.reason)
        if attempt.reason != BUSY:
            self.gate.troubled()
            return
        pause = attempt.retry_after
        if pause is not None and self._budget.pause(self._clock() + pause):
            self._tell("paused", seconds=round(pause, 3), reason="Retry-After")
        if attempt.limits is None or not attempt.limits.exhausted:  # else it is the rate, not the number
            self.gate.refused(sent, pause or 0.0)

    async def _probe(self, request: ScoreRequest) -> str:
        """Send once to see whether the endpoint answers at all; what failed, or nothing.

        Nobody else sends meanwhile. Those that wait for the budget or hold a slot have yet to find that out,
        so a probe does not queue with them: it waits as long as the budget asks of a single request.
        """
        tokens = len(request.context_ids) + len(request.forced_ids)
        if (wait := self._budget.alone(tokens, self._clock())) > 0:
            await self._sleep(wait)
        attempt = await self._attempt(request, self._dialect.build(request, self._model))
        return str(attempt) if attempt.retryable else ""

    # ------------------------------------------------------------------------------------------- telling

    def _state_changed(self, message: str) -> None:
        before, self._message = self._message, message
        if not message:
            self._tell("outage_ended", seconds=round(self._clock() - self._down_since, 3))
        elif not before:
            self._down_since = self._clock()
            self._tell("outage_begun", said=message)
        else:
            self._tell("outage_probe", said=message)

    def _tell_of(self, case: Case, name: str, **fields: Field) -> None:
        """Something happened to a request."""
        last = case.last
        key = case.request.key.hex()
        self._tell(name, key=key, reason=last.reason, status=last.status, attempt=case.sent, **fields)

    def _tell(self, name: str, **fields: Field) -> None:
        if self._on_event is not None:
            self._on_event(Event(name, self._message, fields))


def _last_result(state: RetryCallState) -> Attempt:
    """Tenacity's last word: the failed attempt itself, not an exception about it."""
    assert state.outcome is not None
    attempt: Attempt = state.outcome.result()
    return attempt
