"""The model of scale: where queueing has a closed form the simulation agrees with it."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.pacing.lending import ROUND
from harness.pacing.lessor import BUNDLES
from harness.workers.keeping import MOST_OPEN
from tests.bench import costing, fleet, scale
from tests.bench.costs import SOCKETS, Costs
from tests.bench.fleet import Case, simulate
from tests.bench.queues import COMMIT, Journal, Lessor, Server

ASK = 500e-6
FREE = Costs(
    ask=ASK, start=0, survey=0, skip=0, call=0, row=0, commit=0, shallow=0, deep=0, take=0, lease=0, slot=0,
    table=0, merge=0,
)  # fmt: skip
"""Nothing costs anything but asking."""


def alike(**fields: object) -> Case:
    """A run over workers none of which is faster than another."""
    defaults: dict[str, object] = {"requests": 100_000, "workers": 4, "piece": 64, "spread": 0.0}
    return Case(**{**defaults, **fields})  # type: ignore[arg-type]


def test_the_model_has_the_programs_constants() -> None:
    """What the model assumes of leases and windows is what the program does."""
    case = alike()
    assert (case.round, case.slots, case.window) == (ROUND, BUNDLES, MOST_OPEN)
    assert fleet.SLOTS == costing.SLOTS


def test_one_worker_takes_as_long_as_its_requests() -> None:
    """Where nothing else costs anything, one worker needs n times the cost of a request."""
    course = simulate(alike(workers=1), FREE)
    assert course.seconds == pytest.approx(100_000 * ASK, rel=0.001)
    assert course.workers == pytest.approx(100_000 * ASK)


@pytest.mark.parametrize("workers", [2, 8, 50])
def test_workers_share_the_requests_until_somebody_is_full(workers: int) -> None:
    """Twice as many workers take half the time, but for the last pieces."""
    course = simulate(alike(workers=workers, piece=8), FREE)
    last = 2 * 8 * 16 * ASK + 1
    assert 100_000 * ASK / workers <= course.seconds <= 100_000 * ASK / workers + last


@pytest.mark.parametrize("workers", [40, 100, 400])
def test_a_full_driver_serves_at_the_rate_of_its_cost(workers: int) -> None:
    """However many workers there are, a row leaves the driver every so many microseconds."""
    costs = replace(FREE, row=20e-6)  # 25 workers fill it
    course = simulate(alike(workers=workers, requests=1_000_000), costs)
    assert course.seconds == pytest.approx(1_000_000 * 20e-6, rel=0.02)
    assert course.driver / course.seconds > 0.98


def test_a_full_journal_is_the_limit_of_its_own_endpoint() -> None:
    """Four journals take four times as many rows as one; they are as many as endpoints, or cores."""
    costs = replace(FREE, shallow=50e-6, deep=50e-6)
    found = [
        400_000 / simulate(alike(requests=400_000, workers=200, piece=4, **kind), costs).seconds
        for kind in ({"endpoints": 1}, {"endpoints": 4}, {"endpoints": 4, "cores": 2})
    ]
    assert found == pytest.approx([20_000, 80_000, 40_000], rel=0.03)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    workers=st.integers(1, 60),
    row=st.floats(0, 50e-6),
    deep=st.floats(0, 50e-6),
    endpoints=st.integers(1, 8),
    window=st.integers(64, 8192),
)
def test_no_run_is_faster_than_its_busiest_part(
    workers: int, row: float, deep: float, endpoints: int, window: int
) -> None:
    """All requests are done, all work is worked, and nobody has worked longer than the run took."""
    case = alike(workers=workers, requests=20_000, endpoints=endpoints, window=window, piece=8)
    course = simulate(case, replace(FREE, row=row, shallow=deep, deep=deep))
    assert course.workers == pytest.approx(20_000 * ASK)
    assert course.driver == pytest.approx(20_000 * row)
    assert course.seconds >= max(course.workers / workers, course.driver, course.journal) - 1e-9


@settings(max_examples=40, deadline=None, derandomize=True)
@given(load=st.floats(0.05, 0.95), seed=st.integers(0, 1000))
def test_waiting_at_a_server_is_that_of_theory(load: float, seed: int) -> None:
    """Jobs that come evenly at a server that is not full never wait (D/D/1)."""
    server = Server()
    for number in range(200):
        at = number * 1.0 + seed
        assert server.serve(at, load) == pytest.approx(at + load)


@pytest.mark.parametrize("load", [0.3, 0.6, 0.8])
def test_random_arrivals_wait_as_pollaczek_and_khinchine_say(load: float) -> None:
    """Jobs that come at random wait load / 2 (1 - load) of their own, constant work in the mean (M/D/1)."""
    draw, server, now, waited = Random(1), Server(), 0.0, 0.0
    number = 200_000
    for _ in range(number):
        now += draw.expovariate(load)
        waited += server.serve(now, 1.0) - now - 1.0
    assert waited / number == pytest.approx(load / (2 * (1 - load)), rel=0.05)


def test_a_server_refuses_what_comes_out_of_order() -> None:
    """First come, first served: a job from before another is a fault of the model."""
    server = Server()
    server.serve(2.0, 1.0)
    with pytest.raises(ValueError, match="behind"):
        server.serve(1.0, 1.0)


def test_rows_that_come_together_share_a_commit() -> None:
    """A commit is paid for once a gathering, and by what comes while one is written once more."""
    journal = Journal(commit=0.001, row=0.0)
    journal.keep(0.0, 10)
    journal.keep(COMMIT / 2, 10)
    assert journal.worked == 0.001
    journal.keep(2 * COMMIT, 10)
    assert journal.worked == 0.002


@pytest.mark.parametrize(("workers", "allowance"), [(2, 500.0), (8, 2_000.0), (64, 100.0)])
def test_what_is_leased_is_the_allowance(workers: int, allowance: float) -> None:
    """Workers that could do more do what the account allows, no more, and lose next to nothing of it."""
    case = alike(workers=workers, requests=int(40 * allowance), allowance=allowance, piece=4, apart=True)
    course = simulate(case, FREE)
    assert case.requests / course.seconds == pytest.approx(allowance, rel=0.03)


def test_a_keeper_grants_one_behind_the_other() -> None:
    """Grants of an account begin where the one before has ended."""
    lessor = Lessor(Server(), 0.0, 100.0)
    assert [lessor.lease(0.0, 1, 50), lessor.lease(0.0, 1, 50), lessor.lease(0.2, 1, 10)] == [0.0, 0.5, 1.0]


def test_a_full_keeper_is_the_limit() -> None:
    """Leases that take longer than what they allow leave part of the allowance unused."""
    case = alike(workers=50, requests=40_000, endpoints=1, allowance=1000.0, piece=4, apart=True)
    course = simulate(case, replace(FREE, lease=0.05))  # ten requests a lease: 20 leases a second
    assert case.requests / course.seconds == pytest.approx(200, rel=0.05)
    assert course.budget / course.seconds > 0.95


def test_endpoints_that_are_full_are_the_limit() -> None:
    """Workers wait for endpoints that answer so many requests a second in all."""
    course = simulate(alike(workers=10, answers=1000.0, piece=4), FREE)
    assert 100_000 / course.seconds == pytest.approx(1000, rel=0.03)


def test_reading_on_to_ones_own_piece_costs_each_worker_all_rows() -> None:
    """Without a way to the piece all workers read everything; with one they read nothing of others'."""
    case, costs = alike(workers=8, piece=16), replace(FREE, skip=1e-3)
    reading = simulate(case, costs).reading
    assert reading == pytest.approx((8 - 1) * case.items * 1e-3, rel=0.05)
    assert simulate(replace(case, seek=True), costs).reading == 0


def test_bundles_change_next_to_nothing() -> None:
    """Where a worker's groups are taken together, for speed, a run takes as long within two per cent."""
    for workers in (4, 40, 200):
        case = replace(scale.case_of(1_000_000, 4, workers), most=1_000_000)
        whole, bundled = (simulate(each, SOCKETS) for each in (case, replace(case, most=10_000)))
        assert bundled.seconds == pytest.approx(whole.seconds, rel=0.02)
        assert bundled.driver == pytest.approx(whole.driver, rel=0.1)


def test_the_same_seed_gives_the_same_course() -> None:
    """The model has no time and no chance but its own."""
    case = Case(requests=50_000, workers=7)
    assert simulate(case, SOCKETS) == simulate(case, SOCKETS) != simulate(replace(case, seed=1), SOCKETS)


def test_segments_wait_for_nobody_and_are_merged_one_by_one() -> None:
    """Shards scale with workers; what is left is the fold, whose time does not."""
    costs = replace(FREE, merge=20e-6)
    few, many = (scale.in_segments(scale.case_of(10**6, 4, workers), costs) for workers in (10, 100))
    assert few.sending / many.sending == pytest.approx(10, rel=0.03)
    assert few.merging == many.merging == pytest.approx(20.0)
    assert many.limit == "merging"
    assert few.limit == "workers"


def test_the_tables_name_the_limit() -> None:
    """A thousand workers fill the driver, one fills nobody."""
    told = {
        workers: scale.to_driver(scale.case_of(10**6, 4, workers), replace(SOCKETS, table=0)).limit
        for workers in (1, 1000)
    }
    assert told == {1: "workers", 1000: "driver"}
    lines = scale.courses(SOCKETS, [(10**5, 4)], [1, 2]).splitlines()
    assert len(lines) == 2 + 2 * 2
    assert "driver, groups of 15 ms" in scale.limits(SOCKETS)


def test_a_long_journal_costs_more_a_row() -> None:
    """From the cost of a small file to that of a large one, in the mean over its growth."""
    costs = Costs(shallow=10.0, deep=20.0)
    assert [costs.stored(each) for each in (1, 1e6, 1e9)] == pytest.approx([10.0, 15.0, 20.0], abs=0.1)
