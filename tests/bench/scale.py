"""How far a run goes: simulated over up to a thousand workers and 10^9 requests, and what becomes the limit.

    python -m tests.bench.scale                    # tables, of the costs in `costs`; two minutes
    python -m tests.bench.scale --measure          # of this machine's costs; some minutes more
    python -m tests.bench.scale --measure-only     # these costs alone
    python -m tests.bench.scale --check            # these costs, and real runs beside the model

`fleet` simulates the sending; what stands before and after it, and segments, which nobody waits for, have
closed forms. `harness/README.md` has the tables under "How far it goes".
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import ceil
from pathlib import Path

from harness.pacing.lending import ROUND
from harness.pacing.lessor import ASKS, BUNDLES, IN_ALL
from harness.workers import actorbudgets
from harness.workers.crew import EACH, FEWEST, GATHER_S, LONGEST_S, MESSAGES_S, MOST
from tests.bench.costs import RAY, SOCKETS, Costs
from tests.bench.fleet import CARRY, Case, simulate
from tests.bench.measuring import machine, table
from tests.bench.queues import GROUP

SIZES = ((10**6, 4), (10**7, 10), (10**9, 100))
"""Requests, and endpoints that they go to, four choices an item: 62,500, 250,000 and 2,500,000 items."""
WORKERS = (1, 2, 8, 32, 100, 300, 1000)
FULL = 0.9
"""Share of the time of sending from which on somebody is the limit."""
CALLS = 0.25
"""Share of a driver's time that calls of actors should take, at most."""
ROUNDS = 40
"""Leases' time for which a keeper is simulated, in seconds of its allowance."""

DRIVER, SEGMENTS = "to the driver", "in segments"


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How a whole run went: seconds of each of its parts, and who was at work while requests were sent."""

    reading: float
    """All rows, before the first request."""
    sending: float
    merging: float
    """Segments into one journal."""
    tables: float
    busy: Mapping[str, float]
    """Share of the time of sending."""

    @property
    def whole(self) -> float:
        """From the command to its tables."""
        return self.reading + self.sending + self.merging + self.tables

    @property
    def limit(self) -> str:
        """What took longest, or, if that is sending, who was at work all the time."""
        parts = {"reading": self.reading, "merging": self.merging, "tables": self.tables}
        longest = max(parts, key=lambda name: parts[name])
        if parts[longest] > self.sending:
            return longest
        busiest = max(self.busy, key=lambda name: self.busy[name])
        return busiest if self.busy[busiest] >= FULL else "the last pieces"


def case_of(requests: int, endpoints: int, workers: int, asks: float = ASKS) -> Case:
    """A run as the program does it: pieces and groups as `workers.crew` has them, leases as `pacing.lessor`.

    `asks`: how many the keeper of a budget answers a second at most.
    """
    case = Case(requests=requests, endpoints=endpoints, workers=workers)
    piece = min(MOST, max(FEWEST, ceil(case.items / (EACH * workers))))
    gather = min(LONGEST_S, max(GATHER_S, workers * endpoints / MESSAGES_S))
    lasts = max(ROUND, workers * endpoints / asks)
    slots = max(1, min(BUNDLES, IN_ALL // workers))
    return replace(case, piece=piece, gather=gather, round=lasts, slots=slots)


def to_driver(case: Case, costs: Costs) -> Told:
    """The run reads all rows; then workers start, are handed pieces, and send what comes of them."""
    course = simulate(case, costs)
    busy = {
        "workers": (course.workers - course.reading) / case.workers,
        "reading": course.reading / case.workers,
        "driver": course.driver,
        "journals": course.journal,
        "budget": course.budget,
        "ledger": course.ledger,
    }
    return Told(
        reading=2 * costs.start + case.items * costs.survey,
        sending=course.seconds,
        merging=0.0,
        tables=case.items * case.endpoints * costs.table,
        busy={name: worked / course.seconds for name, worked in busy.items()},
    )


def in_segments(case: Case, costs: Costs, at_once: int = 1) -> Told:
    """Each shard is a run of its own, with its own journals and tables; `merge` folds them.

    Args:
        case: the run; as many shards as workers.
        costs: of the machine.
        at_once: endpoints whose journals are folded at the same time.
    """
    own = case.requests / case.workers
    slowest = 1 + case.spread * (case.workers - 1) / (case.workers + 1)
    row = costs.row + costs.stored(own / case.endpoints) + costs.commit / GROUP
    work = own * (costs.ask * slowest + row)
    passing = (case.workers - 1) / case.workers * case.items * costs.skip
    tables = case.items * case.endpoints * costs.table
    sending = max(work, case.requests / min(case.answers, case.allowance)) + passing + tables / case.workers
    return Told(
        reading=costs.start + case.items * costs.survey,
        sending=sending,
        merging=case.requests * costs.merge / at_once,
        tables=tables,
        busy={"workers": (sending - passing) / sending, "reading": passing / sending},
    )


# ---------------------------------------------------------------------------------------------------- tables


def courses(costs: Costs, sizes: Sequence[tuple[int, int]] = SIZES, workers: Sequence[int] = WORKERS) -> str:
    """Runs of all sizes over so many workers, both ways."""
    rows = []
    for requests, endpoints in sizes:
        for number in workers:
            case = case_of(requests, endpoints, number)
            for way, told in ((DRIVER, to_driver(case, costs)), (SEGMENTS, in_segments(case, costs))):
                parts = (told.reading, told.sending, told.merging, told.tables, told.whole)
                shares = (f"{told.busy[name]:.0%}" if name in told.busy else "" for name in SHARES)
                name = f"10^{len(str(requests)) - 1} to {endpoints}, {number:,}"
                rate = f"{requests / told.sending:,.0f}"
                rows.append((name, way, *map(_time, parts), rate, *shares, told.limit))
    head = ("requests to endpoints, workers", "way", "reading", "sending", "merging", "tables", "whole")
    return table((*head, "requests/s", *SHARES, "limit"), rows)


SHARES = ("workers", "driver", "journals", "ledger")


def _time(seconds: float) -> str:
    """Seconds as people say them."""
    for unit, name in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 10 * unit:
            return f"{seconds / unit:,.0f} {name}"
    return f"{seconds:.0f} s"


def limits(costs: Costs, endpoints: int = 4, choices: int = 4) -> str:
    """From how many workers on each is the limit, were it alone."""
    trips = costs.trip / CARRY * costs.ask
    called = CALLS if costs.trip else 0.0
    few = costs.row + costs.call * endpoints / GATHER_S * costs.ask
    disk = costs.commit / GROUP
    ledger = costs.take / (choices * FEWEST)
    most = (costs.row + ledger) / (1 - costs.call * MESSAGES_S - called)
    rows = (
        ("driver, groups of 15 ms", few + trips + ledger),
        (f"driver, {MESSAGES_S:,} groups a second", most),
        ("a journal that is small, of its own rows", costs.shallow + disk),
        ("a journal of a million rows or more, likewise", costs.deep + disk),
        ("ledger, pieces of 16 items", ledger),
        ("`merge` takes as long as sending", costs.merge),
        ("tables take as long as sending", costs.table / choices),
    )
    found = [
        (name, f"{each * 1e6:.1f}", f"{1 / each:,.0f}", f"{costs.ask / each:,.0f}") for name, each in rows
    ]
    reading = choices * endpoints * costs.ask / costs.skip
    found.append(("others' rows take as long as one's own", "", "", f"{reading:,.0f}"))
    return table(("limit", "µs a row", "requests/s", "workers"), found)


def budgets(costs: Costs, asks: float, endpoints: int = 4) -> str:
    """The keeper of a budget, with leases as they are and with those of half a second whatever happens."""
    rows = []
    for allowance in (1_000.0, 20_000.0):
        for workers in WORKERS[2:]:
            case = case_of(int(ROUNDS * allowance), endpoints, workers, asks)
            case = replace(case, allowance=allowance, apart=True, carry=carried(workers))
            cells = []
            for each in (case, replace(case, round=ROUND, slots=BUNDLES)):
                course = simulate(each, costs)
                most = min(allowance, workers / costs.ask)
                cells.append(f"{course.leases / course.seconds:,.0f}")
                cells.append(f"{course.budget / course.seconds:.0%}")
                cells.append(f"{case.requests / course.seconds / most:.0%}")
            rows.append((f"{allowance:,.0f} requests/s, {workers:,}", *cells))
    head = ("allowance, workers", "leases/s", "keeper", "used")
    return table((*head, "half a second: leases/s", "keeper", "used"), rows)


def check(costs: Costs, found: Mapping[int, tuple[float, float]]) -> str:
    """What a request costs in real runs over so many workers, beside what the model says, in microseconds."""
    from tests.bench.costing import CHOICES
    from tests.bench.costing import MANY as ITEMS

    rows = []
    for workers, (run, theirs) in found.items():
        case = replace(case_of(CHOICES * ITEMS, 1, workers), choices=CHOICES)
        course = simulate(case, costs)
        asking, sending = (each / case.requests for each in (course.workers, course.driver + course.journal))
        read = costs.survey / CHOICES
        said = (sending + read + costs.table / CHOICES, asking)
        cells = [f"{each * 1e6:.0f}" for each in (run, said[0], theirs, said[1])]
        rows.append((str(workers), *cells))
    return table(("workers", "run", "model", "its workers", "model"), rows)


def carried(workers: int) -> float:
    """Seconds for which what a worker says should gather until a call carries it."""
    return max(CARRY, workers * RAY.trip / CALLS)


def listed(costs: Costs) -> str:
    """The costs, in microseconds."""
    rows = [(each.name, f"{getattr(costs, each.name) * 1e6:,.2f}") for each in fields(Costs)]
    return table(("cost", "µs"), rows)


def main() -> int:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="measure this machine's costs first")
    parser.add_argument("--measure-only", action="store_true", help="and print nothing else")
    parser.add_argument("--check", action="store_true", help="measure, and hold real runs against the model")
    given = parser.parse_args()
    costs = SOCKETS
    if given.measure or given.measure_only or given.check:
        from tests.bench.costing import measured, of_workers

        with tempfile.TemporaryDirectory() as scratch:
            costs = measured(Path(scratch), say=lambda text: print(text, file=sys.stderr, flush=True))
            found = {each: of_workers(Path(scratch), each) for each in (1, 2)} if given.check else {}
    print(f"{machine()}\n\n{listed(costs)}\n")
    if given.check:
        print(check(costs, found))
    elif not given.measure_only:
        ray = replace(costs, trip=RAY.trip, lease=costs.lease + RAY.trip / 2)
        for name, each, asks in (("Processes", costs, ASKS), ("Ray", ray, actorbudgets.ASKS)):
            print(f"{name}:\n\n{limits(each)}\n\n{budgets(each, asks)}\n", flush=True)
        print(courses(costs))
    return 0


if __name__ == "__main__":
    sys.exit(main())
