"""How far a run goes: simulated over up to a thousand workers and 10^9 requests, and what becomes the limit.

    python -m tests.bench.scale                         # tables, of the costs in `costs`
    python -m tests.bench.scale --measure               # tables of this machine's costs; some minutes
    python -m tests.bench.scale --measure-only          # the costs alone

`fleet` simulates the sending; what stands before and after it has a closed form. `harness/README.md` has the
tables under "How far it goes".
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from math import inf
from pathlib import Path

from tests.bench.costs import RAY, SOCKETS, Costs
from tests.bench.fleet import GATHER, GROUP, Case, simulate
from tests.bench.measuring import machine, table

SIZES = ((10**6, 4), (10**7, 10), (10**9, 100))
"""Requests, and endpoints that they go to, four choices an item: 62,500, 250,000 and 2,500,000 items."""
WORKERS = (1, 2, 8, 32, 100, 300, 1000)
FULL = 0.95
"""Share of the time from which on somebody has no time left."""
EACH, FEWEST, MOST = 16, 16, 512
"""Pieces a worker, and items of a piece (`workers.crew`)."""
MESSAGES = 1_000.0
"""Messages a second that a driver should get, at most."""
LONGEST = 1.0
"""Seconds that replies may wait in a worker: so much is asked again if it is lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """How a whole run went."""

    before: float
    """Seconds until the first request."""
    sending: float
    after: float
    """Seconds from the last commit to the tables."""
    merge: float
    """Of these."""
    busy: dict[str, float]
    """How much of the time of sending each was at work, 1: all of it."""
    requests: int

    @property
    def whole(self) -> float:
        """Seconds."""
        return self.before + self.sending + self.after

    @property
    def limit(self) -> str:
        """What took most of the time: a phase, or while requests are sent who was at work all the time."""
        phases = {"reading before": self.before, "sending": self.sending, "merge": self.merge}
        phases["tables"] = self.after - self.merge
        longest = max(phases, key=lambda each: phases[each])
        if longest != "sending":
            return longest
        others = {name: share for name, share in self.busy.items() if share >= FULL and name != "workers"}
        return max(others, key=lambda each: others[each]) if others else "workers"


def piece_of(items: int, workers: int) -> int:
    """Items of a piece, as the program cuts them."""
    return min(MOST, max(FEWEST, -(-items // (EACH * workers))))


def gather_of(workers: int, endpoints: int) -> float:
    """Seconds for which workers should gather, so that messages alone do not fill the driver."""
    return min(LONGEST, max(GATHER, workers * endpoints / MESSAGES))


def case_of(requests: int, endpoints: int, workers: int) -> Case:
    """A run as the program does it today, no endpoint being slow."""
    case = Case(requests=requests, endpoints=endpoints, workers=workers)
    return replace(case, piece=piece_of(case.items, workers))


def by_driver(case: Case, costs: Costs) -> Told:
    """Workers send replies to the driver, which reads all rows first, as each worker does after it."""
    course = simulate(case, costs)
    journals = min(case.endpoints, case.cores)
    busy = {
        "workers": course.workers / case.workers / course.seconds,
        "driver": course.driver / course.seconds,
        "journals": course.journal / course.seconds,
        "budget": course.budget / course.seconds,
        "ledger": course.ledger / course.seconds,
    }
    if course.reading > course.workers / 2:
        busy["reading"] = busy["workers"]
    assert journals
    return Told(
        before=2 * (costs.start + case.items * costs.survey),
        sending=course.seconds,
        after=case.items * case.endpoints * costs.table,
        merge=0.0,
        busy=busy,
        requests=case.requests,
    )


def by_segments(case: Case, costs: Costs, *, at_once: int = 1) -> Told:
    """Each shard is a run of its own with journals of its own; `merge` then folds them, so many at once."""
    items, own = case.items, case.requests / case.workers
    row = costs.row + costs.stored(own / case.endpoints) + costs.commit / GROUP
    reading = 0.0 if case.seek else (case.workers - 1) / case.workers * items * costs.skip
    slowest = 1 + case.spread * (case.workers - 1) / (case.workers + 1)
    work = own * (costs.ask * slowest + row)
    pace = max(work + reading, case.requests / min(case.answers, case.allowance))
    tables = items * case.endpoints * costs.table
    merge = case.requests * costs.merge / at_once
    busy = {"workers": (work + reading) / pace}
    if reading > work:
        busy["reading"] = busy["workers"]
    return Told(
        before=costs.start + items * costs.survey,
        sending=pace + tables / case.workers,
        after=merge + tables / at_once,
        merge=merge,
        busy=busy,
        requests=case.requests,
    )


# ---------------------------------------------------------------------------------------------------- tables


def courses(costs: Costs, ways: Sequence[tuple[str, Callable[[Case], Told]]]) -> str:
    """Runs of all sizes over so many workers, each way."""
    rows = []
    for requests, endpoints in SIZES:
        for workers in WORKERS:
            for name, way in ways:
                told = way(case_of(requests, endpoints, workers))
                rows.append(_course(name, requests, endpoints, workers, told))
    head = ("requests", "endpoints", "workers", "way", "before", "sending", "after", "whole", "requests/s")
    return table((*head, "driver", "journals", "ledger", "limit"), rows)


def _course(name: str, requests: int, endpoints: int, workers: int, told: Told) -> list[str]:
    shares = [f"{told.busy[each]:.0%}" if each in told.busy else "" for each in ("driver", "journals", "ledger")]
    seconds = [_time(each) for each in (told.before, told.sending, told.after, told.whole)]
    rate = f"{requests / told.sending:,.0f}"
    return [f"10^{len(str(requests)) - 1}", str(endpoints), f"{workers:,}", name, *seconds, rate, *shares, told.limit]


def _time(seconds: float) -> str:
    if seconds < 600:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 36_000 else f"{seconds / 3600:,.0f} h"


def limits(costs: Costs, endpoints: int = 4, choices: int = 4) -> str:
    """From how many workers on each is the limit, by its own cost and that of a request alone."""
    rate = 1 / costs.ask
    group = max(1.0, GATHER * rate / endpoints)
    ledger = costs.take / (choices * FEWEST)
    driver = costs.row + (costs.call + costs.trip / endpoints) / group + ledger
    best = costs.row + costs.call / (LONGEST * rate / endpoints) + ledger
    deep, shallow = (each + costs.commit / GROUP for each in (costs.deep, costs.shallow))
    rows = [
        ("driver, groups of 20 ms", f"{driver * 1e6:.0f} µs a row", _rate(driver), _workers(rate, driver)),
        ("driver, groups of a second", f"{best * 1e6:.0f} µs a row", _rate(best), _workers(rate, best)),
        ("one journal, small", f"{shallow * 1e6:.0f} µs a row", _rate(shallow), _workers(rate, shallow)),
        ("one journal, a million rows", f"{deep * 1e6:.0f} µs a row", _rate(deep), _workers(rate, deep)),
        ("ledger, pieces of 16 items", f"{ledger * 1e6:.1f} µs a row", _rate(ledger), _workers(rate, ledger)),
        ("reading others' rows", f"{costs.skip * 1e6:.0f} µs an item", "",
         f"{choices * endpoints * costs.ask / costs.skip:,.0f}"),
        ("merge, as long as sending", f"{costs.merge * 1e6:.0f} µs a row", _rate(costs.merge),
         _workers(rate, costs.merge)),
    ]
    return table(("limit", "costs", "requests/s", "workers"), rows)


def _rate(cost: float) -> str:
    return f"{1 / cost:,.0f}"


def _workers(rate: float, cost: float) -> str:
    return f"{1 / cost / rate:,.0f}"


def budgets(costs: Costs, endpoints: int = 4) -> str:
    """The keeper of a budget, with the leases of today and with those that are recommended."""
    rows = []
    for allowance in (1_000.0, 20_000.0):
        for workers in (8, 32, 100, 300, 1000):
            case = replace(case_of(int(40 * allowance), endpoints, workers), allowance=allowance, apart=True)
            cells = []
            for each in (case, replace(case, round=round_of(workers, endpoints), slots=slots_of(workers))):
                course = simulate(each, costs)
                share = case.requests / course.seconds / min(allowance, workers / costs.ask)
                cells += [f"{course.leases / course.seconds:,.0f}", f"{course.budget / course.seconds:.0%}"]
                cells += [f"{share:.0%}"]
            rows.append((f"{allowance:,.0f}", f"{workers:,}", *cells))
    head = ("requests/s allowed", "workers", "leases/s", "keeper", "used")
    return table((*head, "leases/s, longer", "keeper", "used"), rows)


def round_of(workers: int, endpoints: int) -> float:
    """Seconds that a lease should last, so that a keeper has a thousand or two a second."""
    return max(0.5, workers * endpoints / 2_000)


def slots_of(workers: int) -> int:
    """Slots that a lease should have at most."""
    return min(32, max(1, 2_048 // workers))


def ways(costs: Costs) -> list[tuple[str, Callable[[Case], Told]]]:
    """How a run may go: as it is, with what is recommended, on Ray, and in segments."""

    def longer(case: Case) -> Case:
        return replace(case, gather=gather_of(case.workers, case.endpoints), seek=True, window=2**15)

    return [
        ("to the driver", lambda case: by_driver(case, costs)),
        ("gathered longer", lambda case: by_driver(longer(case), costs)),
        ("segments", lambda case: by_segments(case, costs)),
        ("segments, merged on 8 cores", lambda case: by_segments(replace(case, seek=True), costs, at_once=8)),
    ]


def listed(costs: Costs) -> str:
    """The costs, in microseconds but for the start."""
    rows = [(each.name, f"{getattr(costs, each.name) * 1e6:,.2f}") for each in fields(Costs)]
    return table(("cost", "µs"), rows)


def main() -> int:
    """Print the tables as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="measure this machine's costs first")
    parser.add_argument("--measure-only", action="store_true", help="and print nothing else")
    parser.add_argument("--ask", type=float, help="microseconds a request costs a worker")
    given = parser.parse_args()
    costs = SOCKETS
    if given.measure or given.measure_only:
        from tests.bench.costing import measured

        with tempfile.TemporaryDirectory() as scratch:
            costs = measured(Path(scratch), say=lambda text: print(text, file=sys.stderr, flush=True))
    if given.ask:
        costs = replace(costs, ask=given.ask * 1e-6)
    print(f"{machine()}\n\n{listed(costs)}\n")
    if not given.measure_only:
        ray = replace(costs, trip=RAY.trip, lease=RAY.lease)
        for name, each in (("Processes", costs), ("Ray", ray)):
            print(f"{name}:\n\n{limits(each)}\n\n{budgets(each)}\n")
        print(courses(costs, ways(costs)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
