"""Budgets of requests and tokens a minute, and outages, on a clock that the tests move."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import EndpointRefused
from harness.exchange import ScoreRequest
from harness.pacing import AIM, BURST, IN_A_ROW, Budget, Outage
from tests.fake_endpoint import FakeClock

# ------------------------------------------------------------------------------------------------- budget

gaps = st.one_of(st.just(0.0), st.floats(min_value=0, max_value=5), st.floats(min_value=0, max_value=0.01))
demands = st.lists(st.tuples(gaps, st.integers(min_value=1, max_value=5000)), min_size=1, max_size=60)
limits = st.one_of(st.none(), st.floats(min_value=6, max_value=60_000))


def sent(budget: Budget, demand: Sequence[tuple[float, int]]) -> list[tuple[float, int]]:
    """When each request of a demand (gap before it, tokens) goes out, and its tokens."""
    now, starts = 0.0, []
    for gap, tokens in demand:
        now += gap
        starts.append((now + budget.reserve(now, tokens), tokens))
    return starts


def check_windows(starts: Sequence[tuple[float, float]], a_minute: float, burst: float) -> None:
    """No stretch of time holds more than the rate allows in it, plus one burst."""
    rate = AIM * a_minute / 60
    total = [0.0]
    for _, cost in starts:
        total.append(total[-1] + cost)
    for begin in range(len(starts)):
        for end in range(begin, len(starts)):
            seconds = starts[end][0] - starts[begin][0]
            assert total[end + 1] - total[begin] <= (rate * seconds + burst) * (1 + 1e-9)


@given(demands, limits, limits.map(lambda limit: limit and 100 * limit))
def test_no_window_holds_more_than_is_allowed(
    demand: Sequence[tuple[float, int]], rpm: float | None, tpm: float | None
) -> None:
    """Whatever is asked for, no stretch of time exceeds an allowance by more than a burst, or one request."""
    starts = sent(Budget(rpm, tpm), demand)
    if rpm is not None:
        check_windows([(at, 1) for at, _ in starts], rpm, max(1, BURST * AIM * rpm / 60))
    if tpm is not None:
        largest = max(tokens for _, tokens in starts)
        check_windows(starts, tpm, max(largest, BURST * AIM * tpm / 60))


@given(demands, limits, limits)
def test_first_come_first_served(
    demand: Sequence[tuple[float, int]], rpm: float | None, tpm: float | None
) -> None:
    """Nobody overtakes, however small its request."""
    times = [at for at, _ in sent(Budget(rpm, tpm), demand)]
    assert times == sorted(times)


@pytest.mark.parametrize(
    ("rpm", "tpm", "tokens"),
    [(30, None, 1), (600, None, 1), (6_000, None, 1), (None, 600_000, 500), (600, 50_000, 80)],
)
def test_a_minute_is_used_and_not_exceeded(rpm: float | None, tpm: float | None, tokens: int) -> None:
    """Busy workers get at least 0.97 of the allowance in the first minute, and never more than all of it."""
    budget = Budget(rpm, tpm)
    workers = [0.0] * 64
    starts: list[float] = []
    while workers[0] < 180:
        now = heapq.heappop(workers)
        starts.append(now + budget.reserve(now, tokens))
        late = 0.004 * (len(starts) % 3)  # wake-ups are a little late, replies take a moment
        heapq.heappush(workers, starts[-1] + late + 0.05)
    allowed = min(rpm or float("inf"), (tpm or float("inf")) / tokens)
    assert sum(at < 60 for at in starts) >= 0.97 * allowed
    assert all(sum(at <= each < at + 60 for each in starts) <= allowed for at in starts[:: len(starts) // 50])


def test_an_idle_budget_lets_the_first_request_go() -> None:
    """Slow allowances do not make the first request wait, and unused time is not saved up."""
    budget = Budget(rpm=6)
    assert budget.reserve(0.0, 10) == 0
    assert budget.reserve(0.0, 10) == pytest.approx(10 / AIM)
    assert budget.reserve(1000.0, 10) == 0
    assert budget.reserve(1000.0, 10) == pytest.approx(10 / AIM)


def test_a_large_request_waits_until_it_is_saved_up() -> None:
    """More tokens than a burst go through after a longer wait, and those behind queue."""
    budget = Budget(tpm=60_000)
    assert budget.reserve(0.0, 9850) == pytest.approx(10 - BURST)
    assert budget.reserve(0.0, 985) == pytest.approx(10 + 1 - BURST)


def test_without_limits_nothing_waits() -> None:
    """A budget without allowances is only there to be paused."""
    budget = Budget()
    assert [budget.reserve(5.0, 10**9) for _ in range(3)] == [0, 0, 0]


def test_a_pause_holds_everybody_back() -> None:
    """Nothing goes out before the end of the longest pause; who wakes up in it is told to reserve again."""
    budget = Budget()
    budget.pause(10.0)
    budget.pause(4.0)
    assert budget.reserve(2.0, 1) == 8.0
    assert budget.paused(9.9)
    assert not budget.paused(10.0)
    assert budget.reserve(11.0, 1) == 0


# ------------------------------------------------------------------------------------------------- outage

OWN = ScoreRequest(b"own", [1], [2])
GOOD = ScoreRequest(b"good", [3], [4])


class Endpoint:
    """An endpoint that is down until a moment, and everything a gate in front of it does."""

    def __init__(self, *, up_at: float, patience: float = 1800, concurrency: int = 4) -> None:
        self.clock = FakeClock()
        self.up_at = self.clock.now + up_at
        self.probed: list[ScoreRequest] = []
        self.told: list[str] = []
        self.gate = Outage(
            patience=patience,
            first_wait=1.0,
            concurrency=concurrency,
            clock=self.clock,
            sleep=self.clock.sleep,
            report=self.told.append,
        )

    async def probe(self, request: ScoreRequest) -> str:
        self.probed.append(request)
        await asyncio.sleep(0)
        if self.clock.now < self.up_at:
            return "503: down"
        self.gate.succeeded(request)
        return ""

    def fail(self, times: int, reason: str = "503") -> None:
        for _ in range(times):
            self.gate.failed(reason)


def test_the_gate_closes_after_failures_in_a_row() -> None:
    """Twenty failures in a row make an endpoint suspect; one success starts the count anew."""
    endpoint = Endpoint(up_at=0)
    endpoint.fail(IN_A_ROW - 1)
    endpoint.gate.succeeded(GOOD)
    endpoint.fail(IN_A_ROW - 1)
    assert not endpoint.gate.suspected
    endpoint.fail(1)
    assert endpoint.gate.suspected


def test_a_busy_endpoint_is_not_suspected_so_soon() -> None:
    """Where it only says "too busy", every worker must have met that twice."""
    endpoint = Endpoint(up_at=0, concurrency=32)
    endpoint.fail(63, "429")
    assert not endpoint.gate.suspected
    endpoint.fail(1, "429")
    assert endpoint.gate.suspected


async def test_a_false_alarm_costs_one_probe() -> None:
    """If a request that succeeded before succeeds again at once, nobody waited and no outage is counted."""
    endpoint = Endpoint(up_at=0)
    endpoint.gate.succeeded(GOOD)
    endpoint.fail(IN_A_ROW)
    await endpoint.gate.wait(OWN, endpoint.probe)
    assert endpoint.probed == [GOOD]
    assert (endpoint.gate.ended, endpoint.clock.slept, endpoint.told) == (0, [], [])


async def test_an_outage_is_sat_out_by_one_prober() -> None:
    """All workers wait, one probes after growing waits, and all go on when it succeeds."""
    endpoint = Endpoint(up_at=200)
    endpoint.fail(IN_A_ROW)
    await asyncio.gather(*(endpoint.gate.wait(OWN, endpoint.probe) for _ in range(4)))
    assert endpoint.clock.slept == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert endpoint.probed == [OWN] * 10
    assert endpoint.gate.ended == 1
    assert not endpoint.gate.suspected
    assert endpoint.told[3] == (
        "24 failures in a row (503: down); waiting, next try in 8 s, giving up in 30 min (--patience)"
    )
    assert endpoint.told[-1] == ""


async def test_patience_ends() -> None:
    """An endpoint that stays down is given up, for all workers, at the end of the patience and not later."""
    endpoint = Endpoint(up_at=10_000, patience=100)
    endpoint.fail(IN_A_ROW)
    waiting = [endpoint.gate.wait(OWN, endpoint.probe) for _ in range(3)]
    errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(error) for error in errors] == ["no success for 2 min (--patience): 503: down"] * 3
    assert all(isinstance(error, EndpointRefused) for error in errors)
    assert sum(endpoint.clock.slept) == 100


async def test_a_reply_in_flight_opens_the_gate() -> None:
    """A success that was still under way ends the waiting without a further probe."""
    endpoint = Endpoint(up_at=10_000)
    endpoint.fail(IN_A_ROW)

    async def sleep(seconds: float) -> None:
        endpoint.gate.succeeded(GOOD)

    endpoint.gate._sleep = sleep
    await endpoint.gate.wait(OWN, endpoint.probe)
    assert endpoint.probed == [OWN]
    assert endpoint.gate.ended == 1


async def test_another_worker_takes_over_from_a_prober_that_is_gone() -> None:
    """When the probing worker is cancelled the next one goes on where it was, without an extra probe."""
    endpoint = Endpoint(up_at=5)
    endpoint.fail(IN_A_ROW)
    asleep = asyncio.Event()

    async def sleep_for_ever(seconds: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    endpoint.gate._sleep = sleep_for_ever
    prober = asyncio.create_task(endpoint.gate.wait(OWN, endpoint.probe))
    await asleep.wait()
    endpoint.gate._sleep = endpoint.clock.sleep
    other = asyncio.create_task(endpoint.gate.wait(GOOD, endpoint.probe))
    prober.cancel()
    await asyncio.wait([prober, other])
    assert prober.cancelled()
    assert endpoint.probed == [OWN, GOOD, GOOD, GOOD]


async def test_a_stopped_run_ends_every_wait() -> None:
    """What sleep raises ends the wait of all workers, and none of them sends another probe for it."""

    class StoppedForTest(Exception):
        pass

    async def sleep(seconds: float) -> None:
        raise StoppedForTest

    endpoint = Endpoint(up_at=10_000)
    endpoint.gate._sleep = sleep
    endpoint.fail(IN_A_ROW)
    waiting = [endpoint.gate.wait(OWN, endpoint.probe) for _ in range(4)]
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in ended] == [StoppedForTest] * 4
    assert endpoint.probed == [OWN]


def test_doubt_closes_the_gate_only_in_silence() -> None:
    """A request that used up its attempts is suspicious where nothing else succeeded meanwhile."""
    endpoint = Endpoint(up_at=0)
    endpoint.gate.doubt(0)
    assert not endpoint.gate.suspected  # nothing ever succeeded: no request to probe with
    endpoint.gate.succeeded(GOOD)
    endpoint.gate.doubt(0)
    assert not endpoint.gate.suspected
    endpoint.gate.doubt(1)
    assert endpoint.gate.suspected
