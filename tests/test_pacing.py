"""Budgets of requests and tokens a minute, and outages, on a clock that the tests move."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import EndpointRefused
from harness.exchange import ScoreRequest
from harness.pacing import AIM, BURST, IN_A_ROW, Budget, Limit, Limits, Outage, Share
from tests.fake_endpoint import FakeClock
from tests.virtual_time import in_virtual_time

# ------------------------------------------------------------------------------------------------- budget

gaps = st.one_of(st.just(0.0), st.floats(min_value=0, max_value=5), st.floats(min_value=0, max_value=0.01))
demands = st.lists(st.tuples(gaps, st.integers(min_value=1, max_value=5000)), min_size=1, max_size=60)
limits = st.one_of(st.none(), st.floats(min_value=6, max_value=60_000))


def sent(budget: Budget, demand: Sequence[tuple[float, int]], shares: int = 1) -> list[tuple[float, int]]:
    """When each request of a demand (gap before it, tokens) goes out, and its tokens; shares take turns."""
    starts: list[tuple[float, int]] = []

    async def one(share: Share, tokens: int) -> None:
        loop = asyncio.get_running_loop()
        await share.wait(tokens, loop.time, asyncio.sleep)
        starts.append((loop.time(), tokens))

    async def all_of_them() -> None:
        of = [budget.share() for _ in range(shares)]
        async with asyncio.TaskGroup() as group:
            for number, (gap, tokens) in enumerate(demand):
                await asyncio.sleep(gap)
                group.create_task(one(of[number % shares], tokens))

    in_virtual_time(all_of_them())
    return starts


def check_windows(starts: Sequence[tuple[float, float]], a_minute: float, burst: float) -> None:
    """No stretch of time holds more than the rate allows in it, plus one burst; none of a minute more than is
    allowed, but for a single request that is more than that."""
    rate = AIM * a_minute / 60
    total = [0.0]
    for _, cost in starts:
        total.append(total[-1] + cost)
    for begin in range(len(starts)):
        for end in range(begin, len(starts)):
            seconds, cost = starts[end][0] - starts[begin][0], total[end + 1] - total[begin]
            assert cost <= (rate * seconds + burst) * (1 + 1e-6)
            assert cost <= a_minute * (1 + 1e-9) or seconds > 60 or begin == end


@settings(deadline=None)
@given(demands, limits, limits.map(lambda limit: limit and 100 * limit), st.integers(1, 3))
def test_no_window_holds_more_than_is_allowed(
    demand: Sequence[tuple[float, int]], rpm: float | None, tpm: float | None, shares: int
) -> None:
    """Whatever is asked for, no stretch of time exceeds an allowance by more than a burst, or one request; no
    minute exceeds it at all."""
    starts = sent(Budget(rpm, tpm), demand, shares)
    assert len(starts) == len(demand)
    if rpm is not None:
        check_windows([(at, 1) for at, _ in starts], rpm, max(1, BURST * AIM * rpm / 60))
    if tpm is not None:
        largest = max(tokens for _, tokens in starts)
        check_windows(starts, tpm, max(largest, BURST * AIM * tpm / 60))


@settings(deadline=None)
@given(demands, limits, limits)
def test_first_come_first_served(
    demand: Sequence[tuple[float, int]], rpm: float | None, tpm: float | None
) -> None:
    """Nobody overtakes within a share, however small its request."""
    assert [tokens for _, tokens in sent(Budget(rpm, tpm), demand)] == [tokens for _, tokens in demand]


def test_an_idle_budget_lets_the_first_request_go() -> None:
    """Slow allowances do not make the first request wait, and unused time is not saved up."""
    times = [at - 1000 for at, _ in sent(Budget(rpm=6), [(0, 10), (0, 10), (1000, 10), (0, 10)])]
    assert times == pytest.approx([0, 10 / AIM, 1000, 1000 + 10 / AIM])


def test_a_large_request_waits_until_it_is_saved_up() -> None:
    """More tokens than a burst go through after a longer wait, and those behind queue."""
    times = [at - 1000 for at, _ in sent(Budget(tpm=60_000), [(0, 9850), (0, 985)])]
    assert times == pytest.approx([10 - BURST, 10 + 1 - BURST])


def test_more_than_a_minute_holds_goes_alone() -> None:
    """A request beyond all that is allowed in a minute is sent once nothing else was for a minute."""
    times = [at - 1000 for at, _ in sent(Budget(tpm=600), [(0, 100), (0, 900)])]
    assert times[1] - times[0] >= 60


def test_without_limits_nothing_waits() -> None:
    """A budget without allowances is open, and only there to be paused."""
    budget = Budget()
    assert budget.open
    assert [at for at, _ in sent(budget, [(0, 10**9)] * 3)] == [1000] * 3
    assert budget.open


def test_a_pause_holds_everybody_back() -> None:
    """Nothing goes out before the end of the longest pause; without limits the budget is open again then."""
    budget = Budget()
    budget.pause(1010.0)
    budget.pause(1004.0)
    assert not budget.open
    assert budget.paused(1009.9)
    assert not budget.paused(1010.0)
    assert [at for at, _ in sent(budget, [(0, 1), (2, 1), (20, 1)])] == [1010, 1010, 1022]
    assert budget.open


def test_a_pause_that_comes_while_somebody_waits() -> None:
    """Who was to go within a pause waits for its end too."""
    budget = Budget(rpm=60)

    async def wait(share: Share) -> float:
        loop = asyncio.get_running_loop()
        await share.wait(1, loop.time, asyncio.sleep)
        return loop.time()

    async def work() -> list[float]:
        share = budget.share()
        waiting = [asyncio.create_task(wait(share)) for _ in range(3)]
        await asyncio.sleep(0.5)
        budget.pause(1020.0)
        return await asyncio.gather(*waiting)

    assert in_virtual_time(work())[1:] == pytest.approx([1020, 1020 + 1 / AIM])


# ------------------------------------------------------------------------------------------------- shares


def shares_of(
    budget: Budget, tokens: Sequence[int], waiting: Sequence[int], until: Sequence[float]
) -> list[list[float]]:
    """When shares send that always have so many requests of so many tokens waiting, until a moment each."""
    sent: list[list[float]] = [[] for _ in tokens]

    async def ask(share: Share, which: int) -> None:
        loop = asyncio.get_running_loop()
        while loop.time() < 1000 + until[which]:
            await share.wait(tokens[which], loop.time, asyncio.sleep)
            sent[which].append(loop.time() - 1000)

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            for which in range(len(tokens)):
                share = budget.share()
                for _ in range(waiting[which]):
                    group.create_task(ask(share, which))

    in_virtual_time(all_of_them())
    return sent


@pytest.mark.parametrize("waiting", [(1, 64), (64, 1), (2, 8, 32), (1, 4, 16, 64)])
def test_shares_are_equal_whatever_waits(waiting: Sequence[int]) -> None:
    """Endpoints of an account get the same, and together all of it, however much each has waiting."""
    n = len(waiting)
    sent = shares_of(Budget(rpm=600), [10] * n, waiting, [60] * n)
    counts = [sum(5 <= at < 60 for at in each) for each in sent]  # the first one there has a burst alone
    assert max(counts) - min(counts) <= 1
    assert 0.97 * 600 <= sum(at < 60 for each in sent for at in each) <= 600


def test_shares_of_tokens_are_equal() -> None:
    """Where tokens are what is scarce, shares get as many tokens, not as many requests."""
    sizes = (50, 500, 2000)
    sent = shares_of(Budget(tpm=300_000), sizes, (4, 4, 4), (60, 60, 60))
    tokens = [size * sum(at < 60 for at in each) for size, each in zip(sizes, sent, strict=True)]
    assert max(tokens) - min(tokens) <= 2 * max(sizes)
    assert sum(tokens) >= 0.97 * 300_000


def test_what_an_idle_share_leaves_goes_to_the_others() -> None:
    """A share that has nothing to send costs the others nothing, and has saved up nothing meanwhile."""
    budget = Budget(rpm=600)
    sent = shares_of(budget, (10, 10), (8, 8), (60, 20))
    alone = sum(30 <= at < 60 for at in sent[0])
    assert alone == pytest.approx(30 * AIM * 10, abs=2)
    late = shares_of(budget, (10, 10), (8, 8), (20, 20))  # two shares more, the idle ones still there
    assert sum(at < 20 for at in late[0]) == pytest.approx(sum(at < 20 for at in late[1]), abs=1)


# ------------------------------------------------------------------------------------- whatever ends a wait


class StoppedForTest(Exception):
    pass


async def waits(budget: Budget, n: int) -> list[asyncio.Task[float]]:
    """Requests that wait at a share; one before them has gone. Each gives the second at which it goes."""
    share = budget.share()
    loop = asyncio.get_running_loop()

    async def wait() -> float:
        await share.wait(1, loop.time, asyncio.sleep)
        return loop.time() - 1000

    first, *others = [asyncio.create_task(wait()) for _ in range(n + 1)]
    await first
    return others


@pytest.mark.parametrize("which", [(0,), (1,), (0, 1), (2,), (0, 2), (1, 2, 3)])
def test_a_cancelled_request_gives_its_turn_to_the_next(which: Sequence[int]) -> None:
    """Who is cancelled, watching the clock or behind, costs the others nothing: it might never have come."""

    async def work() -> list[float]:
        budget = Budget(rpm=60)
        tasks = await waits(budget, 5)
        await asyncio.sleep(0.3)
        for each in which:
            tasks[each].cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert budget.waiting == 0
        return [each for each in ended if isinstance(each, float)]

    expected = [n / AIM for n in range(1, 6 - len(which))]
    assert in_virtual_time(work()) == pytest.approx(expected)


def test_a_stopped_run_ends_every_wait_for_the_budget() -> None:
    """What sleep raises reaches everybody who waits, one after the other."""

    async def work() -> tuple[list[object], int]:
        budget = Budget(rpm=1)
        share = budget.share()
        loop = asyncio.get_running_loop()

        async def sleep(seconds: float) -> None:
            raise StoppedForTest

        waiting = [share.wait(1, loop.time, sleep) for _ in range(6)]
        ended = await asyncio.gather(*waiting, return_exceptions=True)
        return [type(each) for each in ended], budget.waiting

    assert in_virtual_time(work()) == ([type(None), *[StoppedForTest] * 5], 0)


# ------------------------------------------------------------------------------ what the endpoint says itself


def told(requests: Limit = Limit(), tokens: Limit = Limit()) -> Limits:  # noqa: B008
    """What a reply says."""
    return Limits(requests, tokens)


def test_an_endpoint_brings_the_budget_down() -> None:
    """What a reply says of the allowance counts where it is less, and never adds to what a flag says."""
    for rpm, allowed, gap in ((None, 60, 1), (600, 60, 1), (60, 600, 1)):
        budget = Budget(rpm=rpm)
        budget.follow(told(Limit(allowed=allowed)), 1000.0)
        times = [at - 1000 for at, _ in sent(budget, [(0, 5)] * 4)]
        assert times == pytest.approx([n * gap / AIM for n in range(4)])


def test_an_endpoint_may_allow_more_again() -> None:
    """What a later reply says goes before what an earlier one said."""
    budget = Budget()
    budget.follow(told(Limit(allowed=60)), 1000.0)
    assert sent(budget, [(0, 5)] * 3)[-1][0] == pytest.approx(1000 + 2 / AIM)
    budget.follow(told(Limit(allowed=6000)), 1000.0)
    assert sent(budget, [(0, 5)] * 200)[-1][0] == pytest.approx(1000 + 4, abs=1)


def test_nothing_left_pauses_until_the_reset() -> None:
    """With no request, or no token, left nothing goes out until there are more; else there is no pause."""
    for limits_said, until in (
        (told(Limit(left=0, reset=7)), 7),
        (told(Limit(left=3, reset=7), Limit(left=0, reset=2)), 2),
        (told(Limit(left=1, reset=7), Limit(left=1, reset=7)), 0),
        (told(Limit(left=0)), 0),
    ):
        budget = Budget()
        budget.follow(limits_said, 1000.0)
        assert [at - 1000 for at, _ in sent(budget, [(0, 5)])] == [until]


# ------------------------------------------------------------------------------------------------- outage

OWN = ScoreRequest(b"own", [1], [2])
GOOD = ScoreRequest(b"good", [3], [4])


class Endpoint:
    """An endpoint that is down until a moment, and everything the bar in front of it does."""

    def __init__(self, *, up_at: float, patience: float = 1800, concurrency: int = 4) -> None:
        self.clock = FakeClock()
        self.up_at = self.clock.now + up_at
        self.probed: list[ScoreRequest] = []
        self.told: list[str] = []
        self.bar = Outage(
            patience=patience,
            first_wait=1.0,
            at_once=lambda: concurrency,
            clock=self.clock,
            sleep=self.clock.sleep,
            report=self.told.append,
        )

    async def probe(self, request: ScoreRequest) -> str:
        self.probed.append(request)
        await asyncio.sleep(0)
        if self.clock.now < self.up_at:
            return "503: down"
        self.bar.succeeded(request)
        return ""

    def fail(self, times: int, reason: str = "503") -> None:
        for _ in range(times):
            self.bar.failed(reason)


def test_the_bar_falls_after_failures_in_a_row() -> None:
    """Twenty failures in a row make an endpoint suspect; one success starts the count anew."""
    endpoint = Endpoint(up_at=0)
    endpoint.fail(IN_A_ROW - 1)
    endpoint.bar.succeeded(GOOD)
    endpoint.fail(IN_A_ROW - 1)
    assert not endpoint.bar.suspected
    endpoint.fail(1)
    assert endpoint.bar.suspected


def test_a_busy_endpoint_is_not_suspected_so_soon() -> None:
    """Where it only says "too busy", every worker must have met that twice."""
    endpoint = Endpoint(up_at=0, concurrency=32)
    endpoint.fail(63, "429")
    assert not endpoint.bar.suspected
    endpoint.fail(1, "429")
    assert endpoint.bar.suspected


async def test_a_false_alarm_costs_one_probe() -> None:
    """If a request that succeeded before succeeds again at once, nobody waited and no outage is counted."""
    endpoint = Endpoint(up_at=0)
    endpoint.bar.succeeded(GOOD)
    endpoint.fail(IN_A_ROW)
    await endpoint.bar.wait(OWN, endpoint.probe)
    assert endpoint.probed == [GOOD]
    assert (endpoint.bar.ended, endpoint.clock.slept, endpoint.told) == (0, [], [])


async def test_an_outage_is_sat_out_by_one_prober() -> None:
    """All workers wait, one probes after growing waits, and all go on when it succeeds."""
    endpoint = Endpoint(up_at=200)
    endpoint.fail(IN_A_ROW)
    await asyncio.gather(*(endpoint.bar.wait(OWN, endpoint.probe) for _ in range(4)))
    assert endpoint.clock.slept == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert endpoint.probed == [OWN] * 10
    assert endpoint.bar.ended == 1
    assert not endpoint.bar.suspected
    assert endpoint.told[3] == (
        "24 failures in a row (503: down); waiting, next try in 8 s, giving up in 30 min (--patience)"
    )
    assert endpoint.told[-1] == ""


async def test_patience_ends() -> None:
    """An endpoint that stays down is given up, for all workers, at the end of the patience and not later."""
    endpoint = Endpoint(up_at=10_000, patience=100)
    endpoint.fail(IN_A_ROW)
    waiting = [endpoint.bar.wait(OWN, endpoint.probe) for _ in range(3)]
    errors = await asyncio.gather(*waiting, return_exceptions=True)
    assert [str(error) for error in errors] == ["no success for 2 min (--patience): 503: down"] * 3
    assert all(isinstance(error, EndpointRefused) for error in errors)
    assert sum(endpoint.clock.slept) == 100


async def test_a_reply_in_flight_raises_the_bar() -> None:
    """A success that was still under way ends the waiting without a further probe."""
    endpoint = Endpoint(up_at=10_000)
    endpoint.fail(IN_A_ROW)

    async def sleep(seconds: float) -> None:
        endpoint.bar.succeeded(GOOD)

    endpoint.bar._sleep = sleep
    await endpoint.bar.wait(OWN, endpoint.probe)
    assert endpoint.probed == [OWN]
    assert endpoint.bar.ended == 1


async def test_another_worker_takes_over_from_a_prober_that_is_gone() -> None:
    """When the probing worker is cancelled the next one goes on where it was, without an extra probe."""
    endpoint = Endpoint(up_at=5)
    endpoint.fail(IN_A_ROW)
    asleep = asyncio.Event()

    async def sleep_for_ever(seconds: float) -> None:
        asleep.set()
        await asyncio.Event().wait()

    endpoint.bar._sleep = sleep_for_ever
    prober = asyncio.create_task(endpoint.bar.wait(OWN, endpoint.probe))
    await asleep.wait()
    endpoint.bar._sleep = endpoint.clock.sleep
    other = asyncio.create_task(endpoint.bar.wait(GOOD, endpoint.probe))
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
    endpoint.bar._sleep = sleep
    endpoint.fail(IN_A_ROW)
    waiting = [endpoint.bar.wait(OWN, endpoint.probe) for _ in range(4)]
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(each) for each in ended] == [StoppedForTest] * 4
    assert endpoint.probed == [OWN]


def test_doubt_lowers_the_bar_only_in_silence() -> None:
    """A request that used up its attempts is suspicious where nothing else succeeded meanwhile."""
    endpoint = Endpoint(up_at=0)
    endpoint.bar.doubt(0, "500")
    assert not endpoint.bar.suspected  # nothing ever succeeded: no request to probe with
    endpoint.bar.succeeded(GOOD)
    endpoint.bar.doubt(0, "500")
    assert not endpoint.bar.suspected
    endpoint.bar.doubt(1, "500")
    assert endpoint.bar.suspected


@pytest.mark.parametrize("reason", ["connection", "502", "503", "504"])
def test_doubt_before_anything_succeeded(reason: str) -> None:
    """What no request can be to blame for lowers the bar even where nothing ever succeeded."""
    endpoint = Endpoint(up_at=0)
    endpoint.bar.doubt(0, reason)
    assert endpoint.bar.suspected


# ---------------------------------------------------------------------------------------- what is told of it


def test_a_pause_is_news_once() -> None:
    """What is refused within a second of the first refusal belongs to its pause; a longer one is another."""
    budget = Budget()
    asked = (1010.0, 1010.9, 1004.0, 1012.5, 1013.0)
    assert [budget.pause(until) for until in asked] == [True, False, False, True, False]
    assert budget.paused(1012.9)


def test_a_budget_says_what_it_allows() -> None:
    """Allowances as they are by now, and how many requests of a size go out a second at most."""
    budget = Budget(rpm=600)
    assert (budget.allowed, Budget().allowed) == ((600, None), (None, None))
    assert budget.fastest(50) == pytest.approx(AIM * 10)
    assert not budget.follow(told(Limit(allowed=60), Limit(allowed=6_000)), 1000.0)
    assert budget.allowed == (60, 6_000)
    assert budget.fastest(50) == pytest.approx(AIM)
    assert budget.fastest(200) == pytest.approx(AIM / 2)
    assert (Budget().fastest(50), Budget(tpm=60).fastest(0)) == (None, None)
    assert budget.follow(told(Limit(left=0, reset=7)), 1000.0)
    assert not budget.follow(told(Limit(left=0, reset=7)), 1000.5)
