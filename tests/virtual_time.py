"""Endpoints on a clock that costs nothing: an event loop whose time passes only where everybody waits.

The clients, budgets and gates on it are the real ones; what is simulated is the endpoint behind them, which
stands in the place of the transport.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections import deque
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any, TypeVar

from harness.caps import Meter
from harness.client import Client
from harness.dialects import dialect
from harness.exchange import Reply, ScoreRequest
from harness.failures import classify
from harness.pacing import AnyBudget, Gate, limits_of
from harness.patience import ClientSettings
from harness.transport import Attempt

_Result = TypeVar("_Result")

REFUSING = 0.005
"""Seconds that a refusal takes."""


# --------------------------------------------------------------------------------------------------- time


class _Jump(selectors.SelectSelector):
    """Instead of waiting, lets the loop's time pass."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        assert timeout is not None, "everybody waits, and for nothing"
        self.loop.now += max(0.0, timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop with a clock of its own; nothing outside the process can be waited for."""

    def __init__(self) -> None:
        selector = _Jump()
        selector.loop = self
        self.now = 1000.0
        super().__init__(selector)

    def time(self) -> float:
        """Seconds since some moment."""
        return self.now


def in_virtual_time(work: Coroutine[Any, Any, _Result]) -> _Result:
    """Run a coroutine to its end, in no time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


# ---------------------------------------------------------------------------------------------- endpoints


class Simulated:
    """An endpoint in the place of a transport; it notes when it answered, and when it refused.

    Attributes:
        answered: moments of replies, with the tokens of their requests.
        refused: moments of refusals.
    """

    def __init__(self, *, seconds: float = 0.2, jitter: float = 0.25, seed: int = 0) -> None:
        """Take what a request takes once it is begun, and the share by which that varies."""
        self.seconds = seconds
        self._jitter = jitter
        self._random = random.Random(seed)
        self.answered: list[tuple[float, int]] = []
        self.refused: list[float] = []
        self.headers: Mapping[str, str] = {}
        """Of every refusal."""

    async def send(self, request: ScoreRequest, body: bytes) -> Attempt:
        """Answer, or refuse."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        if not await self.admits(request):
            self.refused.append(loop.time())
            await asyncio.sleep(REFUSING)
            decision = classify(429, self.headers, now=0.0)
            limits = limits_of(self.headers, now=0.0) if self.headers else None
            return Attempt(loop.time() - began, None, decision, "busy", 429, limits)
        try:
            await asyncio.sleep(self.seconds * (1 + self._random.uniform(-self._jitter, self._jitter)))
        finally:
            self.leaves()
        self.answered.append((loop.time(), tokens_of(request)))
        return Attempt(loop.time() - began, Reply(request.forced_ids, [-1.0] * len(request.forced_ids)))

    async def admits(self, request: ScoreRequest) -> bool:
        """Whether this request is taken."""
        return True

    def leaves(self) -> None:
        """A request that was taken is done."""

    def rate(self, begin: float, end: float) -> float:
        """Replies a second between two moments of a run."""
        return sum(begin <= at - 1000.0 < end for at, _ in self.answered) / (end - begin)

    @property
    def share_refused(self) -> float:
        """Of all requests."""
        return len(self.refused) / max(1, len(self.refused) + len(self.answered))


class Refusing(Simulated):
    """So many at once, and 429 for all others."""

    def __init__(self, capacity: int, **given: Any) -> None:
        super().__init__(**given)
        self.capacity = capacity
        self.busy = 0

    async def admits(self, request: ScoreRequest) -> bool:
        """Whether there is room."""
        if self.busy >= self.capacity:
            return False
        self.busy += 1
        return True

    def leaves(self) -> None:
        """Room for another."""
        self.busy -= 1


class Queueing(Simulated):
    """So many at once, and all others wait."""

    def __init__(self, capacity: int, **given: Any) -> None:
        super().__init__(**given)
        self.room = asyncio.Semaphore(capacity)
        self.most = 0
        self._inside = 0

    async def admits(self, request: ScoreRequest) -> bool:
        """Wait for room."""
        self._inside += 1
        self.most = max(self.most, self._inside)
        await self.room.acquire()
        return True

    def leaves(self) -> None:
        """Room for another."""
        self._inside -= 1
        self.room.release()


class Windowed(Simulated):
    """So many requests and tokens in any 60 seconds, and 429 beyond; what it is sent is under way first."""

    def __init__(self, rpm: float = float("inf"), tpm: float = float("inf"), **given: Any) -> None:
        super().__init__(**given)
        self.rpm, self.tpm = rpm, tpm
        self.window: deque[tuple[float, int]] = deque()
        self.in_window = 0
        self.arrived: list[tuple[float, int]] = []

    async def admits(self, request: ScoreRequest) -> bool:
        """Whether the last minute has room."""
        await asyncio.sleep(self._random.uniform(0, 0.1))
        now, tokens = asyncio.get_running_loop().time(), tokens_of(request)
        while self.window and self.window[0][0] <= now - 60:
            self.in_window -= self.window.popleft()[1]
        if len(self.window) + 1 > self.rpm or self.in_window + tokens > self.tpm:
            return False
        self.window.append((now, tokens))
        self.in_window += tokens
        self.arrived.append((now, tokens))
        return True


class Bucketed(Simulated):
    """A bucket of a second's worth of requests, two at least, that fills evenly, and 429 once it is empty."""

    def __init__(self, rpm: float, **given: Any) -> None:
        super().__init__(**given)
        self._fills = rpm / 60
        self.most = self.level = max(2.0, self._fills)
        self.arrived: list[tuple[float, int]] = []
        self._at = -float("inf")

    async def admits(self, request: ScoreRequest) -> bool:
        """Whether the bucket holds one."""
        await asyncio.sleep(self._random.uniform(0, 0.1))
        now = asyncio.get_running_loop().time()
        self.level = min(self.most, self.level + (now - self._at) * self._fills)
        self._at = now
        if self.level < 1:
            return False
        self.level -= 1
        self.arrived.append((now, tokens_of(request)))
        return True


def tokens_of(request: ScoreRequest) -> int:
    """As a budget counts them."""
    return len(request.context_ids) + len(request.forced_ids)


# ------------------------------------------------------------------------------------------------ clients


def client_of(
    endpoint: Simulated,
    gate: Gate,
    budget: AnyBudget | None = None,
    share: str = "",
    meter: Meter | None = None,
    **changes: Any,
) -> Client:
    """The real client, with a simulated endpoint in the place of its transport."""
    loop = asyncio.get_running_loop()
    client = Client(
        base_url="http://127.0.0.1:1/v1",
        dialect=dialect("friendli"),
        model=None,
        headers={},
        secrets=[],
        settings=ClientSettings(**changes),
        budget=budget,
        share=share,
        gate=gate,
        meter=meter,
        clock=loop.time,
        jitter=random.Random(1).uniform,
    )
    client._transport = endpoint  # type: ignore[assignment]
    return client


REQUEST = ScoreRequest(b"0" * 16, [1], [2])


async def sends(client: Client, until: float, requests: Sequence[ScoreRequest] = (REQUEST,)) -> None:
    """What a pool does: as many workers as can be of use, each of which asks until a moment of the run."""
    loop = asyncio.get_running_loop()
    gate = client.gate
    turn = 0

    async def work() -> None:
        nonlocal turn
        while True:
            async with gate:
                while True:
                    turn += 1
                    await client.score(requests[turn % len(requests)])
                    if not gate.stays():
                        break

    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(work()) for _ in range(gate.most)]
        await asyncio.sleep(until - loop.time() + 1000.0)
        for each in workers:
            each.cancel()
