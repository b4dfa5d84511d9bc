"""A run over many workers, simulated: how long it takes, and who has no time left.

The driver of a run, the journals that it writes and the keeper of an account's budget each serve one after
another, first come first served. Workers send what they have done every few milliseconds; each such group is
one event, never a request, and in long runs several groups of a worker are one (`Case.bundle`). Time is the
model's own. What things cost stands in `costs`; `scale` prints what comes of it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from math import ceil, inf
from random import Random

from tests.bench.costs import Costs
from tests.bench.queues import Journal, Lessor, Server

HOP = 0.001
"""Seconds that a message is under way."""
GATHER = 0.015
"""Seconds for which a worker gathers a group, where workers are few (`workers.crew`)."""
CARRY = 0.03
"""Seconds for which what a worker says is gathered until an actor's call carries it (`workers.chunks`)."""
SLOTS = 32
"""Of a lease, at most (`pacing.lessor.BUNDLES`)."""
AHEAD = 0.2
"""Of a lease or a piece: when so much is left of it, the next one is asked for."""
EVENTS = 150_000
"""More groups than that are bundled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A run, and where it goes on."""

    requests: int
    """In all, over all endpoints."""
    workers: int
    endpoints: int = 4
    choices: int = 4
    """Requests an item and endpoint."""
    piece: int = 512
    """Items that a worker takes at a time, for all endpoints."""
    allowance: float = inf
    """Requests a second that the account allows."""
    answers: float = inf
    """Requests a second that all endpoints together can answer."""
    window: int = 8192
    """Rows a worker and endpoint that may be on their way to the disk; then it waits."""
    gather: float = GATHER
    """Seconds, for each endpoint by itself."""
    carry: float = CARRY
    """Seconds, for all of them; where calls carry what is said."""
    round: float = 0.5
    """Seconds for which a lease lasts (`pacing.lending.ROUND`)."""
    slots: int = SLOTS
    """Of a lease, at most."""
    cores: int = 8
    """Of the machine that the driver is on: so many journals are written at the same time."""
    apart: bool = False
    """The budget is kept by a process of its own, not by the driver."""
    seek: bool = False
    """A worker goes straight to the rows of its piece, and need not read those before."""
    spread: float = 0.1
    """How much slower or faster than the others a worker is, at most."""
    seed: int = 0
    most: int = EVENTS
    """Groups; more are bundled."""

    @property
    def items(self) -> int:
        """Of the suite; each is asked at every endpoint."""
        return ceil(self.requests / (self.choices * self.endpoints))

    def bundle(self, pace: float) -> int:
        """How many groups of a worker, with so many seconds from request to request, are one event."""
        groups = self.requests / max(1.0, self.gather / pace)
        return max(1, round(groups / self.most))


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How the sending of a run went: seconds from the first request to the last commit, and those of work."""

    seconds: float
    workers: float = 0.0
    """Of all of them."""
    reading: float = 0.0
    """Of this, spent on rows of others' pieces."""
    driver: float = 0.0
    """Of its interpreter."""
    ledger: float = 0.0
    """Of this, for handing out pieces."""
    journal: float = 0.0
    """Of the busiest thread that writes journals."""
    budget: float = 0.0
    """Of the keeper of the budget; of the driver, where it is that."""
    leases: int = 0


@dataclass(slots=True)
class _Worker:
    """A worker: what it has in hand, and what is on its way."""

    work: float
    """Seconds a request."""
    pace: float
    """Seconds from one request to the next, if nothing holds it up."""
    made: int = 0
    """Rows that are about to be sent."""
    left: int = 0
    """Requests of the piece in hand."""
    coming: float = inf
    """When the next piece is there."""
    place: int = -1
    """Number of the piece that was taken last."""
    debt: float = 0.0
    """Seconds of reading before the next piece."""
    leased: int = 0
    """Requests that may go now."""
    granted: float = inf
    """When the next lease begins."""
    open: int = 0
    """Rows that are not on disk."""
    told: float = 0.0
    """When it sent something last."""
    sent: deque[tuple[float, int]] = field(default_factory=deque)
    """When which of them will be."""
    worked: float = 0.0


class _Simulation:
    """Workers, the driver, and what stands behind it."""

    def __init__(self, case: Case, costs: Costs) -> None:
        self._case, self._costs = case, costs
        stored = costs.stored(case.requests / case.endpoints)
        self._journals = [Journal(costs.commit, stored) for _ in range(min(case.endpoints, case.cores))]
        self._turns = count()
        self._driver = Server()
        self._unit = case.piece * case.choices * case.endpoints
        self._pieces = ceil(case.requests / self._unit)
        self._taken = 0
        self._ledger = self._read = 0.0
        draw = Random(case.seed)
        works = [costs.ask * (1 + case.spread * draw.uniform(-1, 1)) for _ in range(case.workers)]
        self._workers = [_Worker(work, max(work, case.workers / case.answers)) for work in works]
        self._bundle = case.bundle(max(costs.ask, case.workers / min(case.answers, case.allowance)))
        part = min(case.allowance / case.workers, 1 / costs.ask)
        self._grant = max(1, int(case.round * part)) if case.allowance < inf else 0
        """Requests of the leases that a worker asks for at a time; 0: nobody asks."""
        slots = min(case.slots, max(1, self._grant // case.endpoints))
        work = costs.lease + (slots - 1) * costs.slot
        self._lessor = Lessor(Server() if case.apart else self._driver, work, case.allowance)

    def run(self) -> Course:
        """Simulate to the end."""
        stagger = self._case.gather / len(self._workers)
        heap = [(number * stagger, number) for number in range(len(self._workers))]
        while heap:
            now, number = heappop(heap)
            later = self._turn(self._workers[number], now)
            if later < inf:
                heappush(heap, (later, number))
        return Course(
            seconds=max(self._driver.free, *(each.free for each in self._journals)),
            workers=sum(each.worked for each in self._workers),
            reading=self._read,
            driver=self._driver.worked,
            ledger=self._ledger,
            journal=max(each.worked for each in self._journals),
            budget=self._lessor.worked,
            leases=self._lessor.leases,
        )

    def _turn(self, worker: _Worker, now: float) -> float:
        """A worker sends what it has made and begins with more; when its next turn is, infinite: never."""
        while worker.sent and worker.sent[0][0] <= now:
            worker.open -= worker.sent.popleft()[1]
        if worker.made:
            self._send(worker, now)
        if worker.coming == inf and worker.left <= AHEAD * self._unit:
            self._take(worker, now)
        if not worker.left:
            if worker.coming > now:
                return worker.coming
            self._begin(worker)
        if self._grant and (wait := self._leave(worker, now)):
            return wait
        room = self._case.window * self._case.endpoints - worker.open
        if room <= 0:
            return worker.sent[0][0]
        return now + self._make(worker, room)

    def _make(self, worker: _Worker, room: int) -> float:
        """The next group, or bundle of them; seconds until it is made."""
        rows = min(self._bundle * max(1, int(self._case.gather / worker.pace)), worker.left, room)
        if self._grant:
            rows = min(rows, worker.leased)
            worker.leased -= rows
        worker.made = rows
        worker.left -= rows
        debt, worker.debt = worker.debt, 0.0
        worker.worked += rows * worker.work + debt
        return rows * worker.pace + debt

    def _send(self, worker: _Worker, now: float) -> None:
        """By way of the driver, to each endpoint's journal."""
        rows, worker.made = worker.made, 0
        costs, endpoints = self._costs, self._case.endpoints
        # Rows that are let go slowly share messages, and these calls; those of a burst are as near as can be.
        since = now - worker.told if self._grant else rows * worker.pace
        worker.told = now
        messages = min(float(rows), endpoints * since / self._case.gather)
        trips = min(messages, since / self._case.carry)
        groups = max(1, round(messages / endpoints))
        work = trips * costs.trip + messages * costs.call + rows * costs.row
        there = self._driver.serve(now + HOP, work)
        done, first = 0.0, next(self._turns)  # what is left over of a group goes to each in turn
        for part in range(parts := min(len(self._journals), rows)):
            journal = self._journals[(first + part) % len(self._journals)]
            own = rows // parts + (part < rows % parts)
            done = max(done, journal.keep(there, own, groups * max(1, endpoints // len(self._journals))))
        worker.open += rows
        worker.sent.append((done + HOP, rows))

    def _take(self, worker: _Worker, now: float) -> None:
        """Ask for the next piece, for every endpoint."""
        if self._taken == self._pieces:
            return
        work = self._case.endpoints * self._costs.take
        self._ledger += work
        worker.coming = self._driver.serve(now + HOP, work) + HOP
        between = 0 if self._case.seek else self._taken - worker.place - 1
        reading = between * self._case.piece * self._costs.skip
        self._read += reading
        worker.debt += reading
        worker.place = self._taken
        self._taken += 1

    def _begin(self, worker: _Worker) -> None:
        """Go on with the piece that has come; the last one may be shorter."""
        last = worker.place == self._pieces - 1
        worker.left = self._case.requests - worker.place * self._unit if last else self._unit
        worker.coming = inf

    def _leave(self, worker: _Worker, now: float) -> float:
        """Ask for a lease in time; when the worker may go on, 0: now."""
        if worker.granted <= now:
            worker.leased += self._grant
            worker.granted = inf
        if worker.granted == inf and worker.leased <= AHEAD * self._grant:
            calls = min(self._case.endpoints, self._grant)
            worker.granted = self._lessor.lease(now + HOP, calls, self._grant) + HOP
        return 0.0 if worker.leased else worker.granted


def simulate(case: Case, costs: Costs) -> Course:
    """The sending of a run whose replies go to the driver."""
    return _Simulation(case, costs).run()
