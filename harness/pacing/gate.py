"""So many requests in flight and no more: slots that workers take, shared fairly by an account's endpoints.

The adapters of a base endpoint are computed by the same machines, and so share one `Capacity`; each has a
`Gate` of its own. A slot that falls free goes to what is to be tried again, else to the gate that has fewest.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType

from harness.pacing.level import Level


class Capacity:
    """How many requests are in flight on all endpoints that share it.

    Attributes:
        adaptive: what finds out how many may be; None: that never changes.
        limit: how many may be.
        most: what that never goes beyond.
        held: how many are.
        waiting: how many want to be.
        turn: the turn of the request that was let in last, as its gate counts them.
    """

    def __init__(self, level: Level | int) -> None:
        """Take a level that adapts, or a fixed one."""
        self.adaptive = level if isinstance(level, Level) else None
        self.limit = level.number if isinstance(level, Level) else level
        self.most = level.most if isinstance(level, Level) else level
        self.held = self.waiting = self.turn = 0
        self._gates: list[Gate] = []

    def gate(self) -> Gate:
        """A gate for one more endpoint."""
        gate = Gate(self)
        self._gates.append(gate)
        return gate

    def adapt(self) -> None:
        """Let in as many as the level says by now."""
        if self.adaptive is not None and self.adaptive.number != self.limit:
            self.limit = self.adaptive.number
            self.hand_out()

    def hand_out(self) -> None:
        """Give free slots to who waits for one."""
        while self.waiting and self.held < self.limit:
            min((each for each in self._gates if each.waiting), key=_next).admit()

    def others_want(self, gate: Gate) -> bool:
        """Whether a slot of this gate is wanted more by another, or for what is to be tried again."""
        return any(each.returning or (each.newcomers and each.poorer_than(gate)) for each in self._gates)


class Gate:
    """One endpoint's way to the slots; for one event loop.

    Whoever sends requests enters, sends one or several, and leaves; `async with` does both.

    Attributes:
        held: slots taken by this gate.
        turns: requests let in here, as if this gate had always wanted as many as the others.
        returning: who waits to try again what failed.
        newcomers: who waits to begin.
    """

    def __init__(self, capacity: Capacity) -> None:
        """`Capacity.gate` makes them."""
        self._capacity = capacity
        self.held = self.turns = 0
        self.returning: deque[asyncio.Future[None]] = deque()
        self.newcomers: deque[asyncio.Future[None]] = deque()

    @property
    def level(self) -> int:
        """How many slots there are now, those of other gates to the same capacity included."""
        return self._capacity.limit

    @property
    def most(self) -> int:
        """How many there are at most: so many workers can be of use."""
        return self._capacity.most

    @property
    def waiting(self) -> int:
        """How many wait here."""
        return len(self.returning) + len(self.newcomers)

    # ------------------------------------------------------------------------------------- in and out again

    def try_enter(self) -> bool:
        """Take a slot if one is free and nobody waits for it."""
        capacity = self._capacity
        if capacity.waiting or capacity.held >= capacity.limit:
            return False
        self._take()
        self._count()
        return True

    async def enter(self, *, again: bool = False) -> None:
        """Wait for a slot: first come, first served, but who tries again comes first."""
        if self.try_enter():
            return
        queue = self.returning if again else self.newcomers
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(admitted)
        self._capacity.waiting += 1
        try:
            await admitted
        except BaseException:
            if admitted.done() and not admitted.cancelled():
                self.leave()  # admitted, and ended in the same moment
            elif admitted in queue:
                queue.remove(admitted)
                self._capacity.waiting -= 1
            raise

    def leave(self) -> None:
        """Give the slot back."""
        self.held -= 1
        self._capacity.held -= 1
        self._capacity.hand_out()

    def stays(self) -> bool:
        """Whether who has a slot may send its next request by it: like leaving and entering, for less."""
        capacity = self._capacity
        if capacity.held > capacity.limit or (capacity.waiting and capacity.others_want(self)):
            return False
        self._count()
        return True

    async def outside(self, waiting: Callable[[], Awaitable[None]]) -> None:
        """Leave, wait for something, and enter again; the slot is held whatever comes of it."""
        self.leave()
        try:
            await waiting()
            await self.enter(again=True)
        except BaseException:
            self._take()  # beyond the limit perhaps, but whoever is thrown out of here leaves now
            raise

    async def __aenter__(self) -> None:
        if not self.try_enter():
            await self.enter()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()

    def admit(self) -> None:
        """Give a slot to the first who waits here; none to one who no longer does."""
        admitted = (self.returning or self.newcomers).popleft()
        self._capacity.waiting -= 1
        if not admitted.done():
            self._take()
            self._count()
            admitted.set_result(None)

    def poorer_than(self, other: Gate) -> bool:
        """Whether a slot of the other gate should come here; of an odd one both have turns."""
        return self.held + 1 < other.held or (self.held < other.held and self.turns < other.turns)

    def _take(self) -> None:
        self.held += 1
        self._capacity.held += 1

    def _count(self) -> None:
        """Count a request; who was idle meanwhile has saved up no turns."""
        capacity = self._capacity
        self.turns = capacity.turn = max(self.turns, capacity.turn - 1) + 1

    # ---------------------------------------------------------------------------------------- what came back

    @property
    def epoch(self) -> int:
        """What to hand in with what comes of a request that is sent now."""
        level = self._capacity.adaptive
        return level.epoch if level is not None else 0

    def answered(self, sent: int, seconds: float, *, limited: bool = False) -> None:
        """A request got its reply after so many seconds; `limited`: the budget holds requests back too."""
        capacity = self._capacity
        if capacity.adaptive is not None:
            capacity.adaptive.answered(sent, seconds, loaded=capacity.waiting > 0 and not limited)
            capacity.adapt()

    def refused(self, sent: int, pause: float = 0.0) -> None:
        """A request was answered "too busy", with so many seconds that everybody waits."""
        capacity = self._capacity
        if capacity.adaptive is not None:
            capacity.adaptive.refused(sent, in_flight=capacity.held, pause=pause)
            capacity.adapt()

    def troubled(self) -> None:
        """A request met a fault of the endpoint."""
        if self._capacity.adaptive is not None:
            self._capacity.adaptive.troubled()


def _next(gate: Gate) -> tuple[bool, int, int]:
    """The lowest is let in next."""
    return not gate.returning, gate.held, gate.turns
