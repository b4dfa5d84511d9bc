"""One budget for many workers, by leases: used up, and never exceeded, whoever comes, goes or dies.

Whole workers are in virtual time (`tests/leased.py`); what they hold is tested by itself.
"""

from __future__ import annotations

import asyncio
import pickle
import random
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import Stopped
from harness.exchange import ScoreRequest
from harness.pacing import (
    AIM,
    Ask,
    Budget,
    Capacity,
    Grant,
    LeasedBudget,
    Lessor,
    Limit,
    Limits,
    Slot,
    Terms,
)
from harness.pacing.lending import LATE, LEAD, ROUND
from harness.pacing.slots import Clocks, Slots
from tests.leased import OFF, Stay, Wire, work
from tests.test_paces import Headed, mixed, of_sizes
from tests.virtual_time import (
    Bucketed,
    Simulated,
    Windowed,
    client_of,
    in_virtual_time,
    sends,
    tokens_of,
)

BEGIN = 1000.0
"""Where virtual time begins."""


def minutes(arrived: Sequence[tuple[float, int]], end: int = 150) -> list[tuple[int, int]]:
    """Requests and tokens of the minutes that begin every fifteen seconds of a run."""
    found = []
    for begin in range(0, end - 59, 15):
        minute = [tokens for at, tokens in arrived if begin <= at - BEGIN < begin + 60]
        found.append((len(minute), sum(minute)))
    return found


def stays_of(workers: int, requests: Sequence[ScoreRequest], seed: int) -> list[Stay]:
    """One worker stays; the places of the others are left and taken again, half of them by dying."""
    draw = random.Random(seed)
    stays = [Stay(requests=requests)]
    for _ in range(workers - 1):
        begin = 0.0
        while begin < 140:
            end = begin + draw.uniform(15, 60)
            stays.append(Stay(begin, min(150.0, end), dies=draw.random() < 0.5, requests=requests))
            begin = end + draw.uniform(0, 5)
    return stays


# ------------------------------------------------------------------------------------------- whole workers


@pytest.mark.parametrize("workers", [2, 4, 8])
@pytest.mark.parametrize(
    ("rpm", "tpm", "requests"),
    [
        (600, None, of_sizes(10)),
        (3_000, None, of_sizes(10)),
        (None, 600_000, mixed(10, 80, 500, 3000)),
        (6_000, 300_000, mixed(80, 120, 700)),
    ],
)
def test_workers_use_an_allowance_and_never_exceed_it(
    rpm: float | None, tpm: float | None, requests: Sequence[ScoreRequest], workers: int
) -> None:
    """Within two hundredths of what is allowed is used in every minute while workers come, go and die, and a
    server that counts any 60 seconds refuses nothing; each worker asks for slots a few times a second."""

    async def run() -> tuple[Windowed, list[tuple[Stay, Wire]]]:
        endpoint = Windowed(rpm or float("inf"), tpm or float("inf"))
        stays = stays_of(workers, requests, seed=workers)
        wires = await work(endpoint, stays, rpm=rpm, tpm=tpm)
        return endpoint, list(zip(stays, wires, strict=True))

    endpoint, wires = in_virtual_time(run())
    assert endpoint.refused == []
    largest = max(map(tokens_of, requests)) / tpm if tpm else 0  # the last may not fit
    for number, tokens in minutes(endpoint.arrived):
        used = tokens / tpm if tpm else number / (rpm or 1)
        assert 0.98 - largest <= used <= 1
    assert all(wire.calls <= 3 * (stay.end - stay.begin) + 3 for stay, wire in wires)


@pytest.mark.parametrize("requests", [of_sizes(10), mixed(10, 80, 500)], ids=["alike", "mixed"])
@pytest.mark.parametrize(("workers", "seconds"), [(8, 2.0), (40, 4.0)])
def test_many_workers_ask_less_often(workers: int, seconds: float, requests: Sequence[ScoreRequest]) -> None:
    """Where more workers ask than a keeper can answer, rounds are longer: each asks once in a round or so, as
    much is used, and nothing is refused."""

    async def run() -> tuple[Windowed, list[Wire]]:
        endpoint = Windowed(6_000)
        stays = [Stay(requests=requests) for _ in range(workers)]
        return endpoint, await work(endpoint, stays, rpm=6_000, asks=workers / seconds)

    endpoint, wires = in_virtual_time(run())
    assert endpoint.refused == []
    assert all(0.98 <= number / 6_000 <= 1 for number, _ in minutes(endpoint.arrived))
    assert sum(wire.calls for wire in wires) <= 1.5 * workers * 150 / seconds


comings = st.lists(
    st.tuples(st.floats(0, 60), st.floats(1, 60), st.booleans(), st.integers(1, 64)), min_size=1, max_size=7
)


@settings(deadline=None, max_examples=6)
@given(comings, st.floats(0, 0.05), st.sampled_from([60, 600, 1200]), st.integers(0, 1000))
def test_no_server_ever_refuses(
    comings: Sequence[tuple[float, float, bool, int]], delay: float, rpm: int, seed: int
) -> None:
    """Whoever comes and goes, however long messages are under way: neither a window of 60 seconds nor a
    bucket of one second is ever exceeded; one worker stays, and nothing is left unused."""
    stays = [
        Stay(end=90),
        *(Stay(begin, begin + span, dies=dies, gate=gate) for begin, span, dies, gate in comings),
    ]
    for make in (Windowed, Bucketed):
        endpoint = make(rpm, seed=seed)
        in_virtual_time(work(endpoint, stays, rpm=rpm, delay=delay, seed=seed))
        assert endpoint.refused == []
        lost = sum(stay.dies for stay in stays) * max(1, ROUND * rpm / 60)
        for number, _ in minutes(endpoint.arrived, 90):
            assert number >= 0.98 * rpm - 1 - lost


@pytest.mark.parametrize(
    ("rpm", "tpm", "requests"),
    [(60, None, of_sizes(10)), (None, 6_000, of_sizes(100)), (None, 600, of_sizes(300))],
)
def test_little_is_shared_among_many(
    rpm: float | None, tpm: float | None, requests: Sequence[ScoreRequest]
) -> None:
    """Eight workers with a request a second, or one in half a minute: all is used, and each has its turn."""

    async def run() -> tuple[Windowed, list[int]]:
        endpoint = Windowed(rpm or float("inf"), tpm or float("inf"))
        done = [0] * 8
        mine = [[ScoreRequest(b"%016d" % n, [n] * (tokens_of(requests[0]) - 1), [2])] for n in range(8)]

        class Counted(Windowed):
            """Counts whose requests come."""

            async def admits(self, request: ScoreRequest) -> bool:
                """Whether the last minute has room."""
                done[request.context_ids[0]] += 1
                return await super().admits(request)

        endpoint = Counted(rpm or float("inf"), tpm or float("inf"))
        await work(endpoint, [Stay(end=480, requests=each) for each in mine], rpm=rpm, tpm=tpm)
        return endpoint, done

    endpoint, done = in_virtual_time(run())
    assert endpoint.refused == []
    allowed = 8 * (rpm or (tpm or 0) / tokens_of(requests[0]))
    assert 0.97 * allowed - 2 <= sum(done) <= allowed + 1
    assert max(done) - min(done) <= 1 + 0.05 * max(done)


def test_adapters_share_fairly_whatever_their_workers() -> None:
    """An adapter on one worker gets as much as one on five."""

    async def run() -> list[int]:
        endpoint = Windowed(1200)
        stays = [Stay(end=60, label="a", requests=of_sizes(20))] * 5
        await work(endpoint, [*stays, Stay(end=60, label="b", requests=of_sizes(30))], rpm=1200)
        late = [tokens for at, tokens in endpoint.arrived if at > BEGIN + 2]
        return [late.count(20), late.count(30)]

    several, one = in_virtual_time(run())
    assert several == pytest.approx(one, rel=0.03)
    assert several + one >= 0.97 * 20 * 58


def test_who_needs_little_takes_little_from_the_others() -> None:
    """A worker with one request at a time leaves the rest to one that could send all."""

    async def run() -> Windowed:
        endpoint = Windowed(1200)
        await work(endpoint, [Stay(end=90, gate=1), Stay(end=90, gate=64)], rpm=1200)
        return endpoint

    endpoint = in_virtual_time(run())
    assert endpoint.refused == []
    assert all(number >= 0.98 * 1200 for number, _ in minutes(endpoint.arrived, 90))


def test_workers_that_are_not_held_back_hardly_notice() -> None:
    """Where much more is allowed than workers can send, they send nearly as much as without a limit."""

    async def run(rpm: float | None) -> Simulated:
        endpoint = Simulated()
        await work(endpoint, [Stay(end=30, gate=20)] * 2, rpm=rpm)
        return endpoint

    free, allowed = (in_virtual_time(run(rpm)).rate(2, 30) for rpm in (None, 60_000))
    assert allowed >= 0.98 * free


# ------------------------------------------------------------------------------------- what is heard and told


def test_without_limits_nobody_is_asked() -> None:
    """A budget without limits is open, and no message goes out."""

    async def run() -> list[Wire]:
        return await work(Simulated(), [Stay(end=10)] * 2)

    assert [wire.calls for wire in in_virtual_time(run())] == [0, 0]


def test_what_one_worker_is_told_all_obey() -> None:
    """An endpoint that tells its allowance to one worker is asked no faster by any. What was sent before is
    too much, and shows once: what is under way when nothing is left is refused, and all wait."""

    async def run() -> Headed:
        endpoint = Headed(rpm=600)
        await work(endpoint, [Stay(end=135, gate=8)] * 4)
        return endpoint

    endpoint = in_virtual_time(run())
    assert len(endpoint.refused) <= 4
    for number, _ in minutes(endpoint.arrived, 135):
        assert 0.93 * 600 <= number <= 600


@pytest.mark.parametrize("rpm", [None, 6000])
def test_a_pause_that_one_worker_sees_holds_all(rpm: float | None) -> None:
    """After a 429 with `Retry-After` no worker sends before it is over, with limits or without."""

    class Busy(Simulated):
        """Refuses one request, and says for how long."""

        def __init__(self) -> None:
            super().__init__()
            self.headers = {"Retry-After": "7"}
            self.came: list[float] = []

        async def admits(self, request: ScoreRequest) -> bool:
            """Whether it is not the hundredth."""
            self.came.append(asyncio.get_running_loop().time() - BEGIN)
            return len(self.came) != 100

    async def run() -> Busy:
        endpoint = Busy()
        await work(endpoint, [Stay(end=30, gate=10)] * 3, rpm=rpm)
        return endpoint

    came = in_virtual_time(run()).came
    told = came[99]
    assert [at for at in came if told + 0.2 < at < told + 7] == []
    assert sum(told + 7 <= at < told + 9 for at in came) >= 100


async def _terms_of(lessor: Lessor) -> Terms:
    return (await lessor.lease("x", "", Ask())).terms


def test_the_run_itself_is_heard_too() -> None:
    """Whoever asks the lessor's budget in its own process pauses workers as well."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        own = Budget()
        lessor = Lessor(own, clock=loop.time)
        budget = LeasedBudget(lessor, "w", clock=loop.time)
        listening = loop.create_task(budget.listen())
        await asyncio.sleep(1)
        assert budget.open
        own.pause(loop.time() + 5)
        await asyncio.sleep(1)
        assert not budget.open and budget.paused(loop.time())
        assert budget.alone(10, loop.time()) == pytest.approx(4)
        await budget.share().wait(10, loop.time, asyncio.sleep)
        assert loop.time() == pytest.approx(BEGIN + 6) and budget.open
        own.follow(Limits(Limit(600), Limit(6000)), loop.time())
        await asyncio.sleep(1)
        assert budget.allowed == (600, 6000)
        assert budget.fastest(10) == pytest.approx(AIM * 10)
        assert not budget.open
        listening.cancel()

    in_virtual_time(run())


def test_what_is_said_travels_over_any_wire() -> None:
    """Asks, grants, terms and limits come out of msgpack, JSON and pickle as they went in."""

    async def run() -> Grant:
        lessor = Lessor(Budget(rpm=600), clock=asyncio.get_running_loop().time)
        assert msgspec.json.decode(msgspec.json.encode(await _terms_of(lessor)), type=Terms) == Terms(
            rpm=600, holders=1
        )
        free = await Lessor(Budget()).lease("w", "", Ask(costs=(1,)))
        assert msgspec.json.decode(msgspec.json.encode(free), type=Grant) == free
        return await lessor.lease("w", "a", Ask(costs=(3, 4), more=5, typical=6))

    grant = in_virtual_time(run())
    assert len(grant.slots) == 7
    ask = Ask(costs=(1, 2), more=3, typical=4, after=0.5, travel=0.1, requests=5, tokens=6)
    limits = Limits(Limit(600), Limit(left=0, reset=1.5))
    for each in (grant, ask, limits):
        assert pickle.loads(pickle.dumps(each)) == each
        assert msgspec.json.decode(msgspec.json.encode(each), type=type(each)) == each
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(each), type=type(each)) == each


# --------------------------------------------------------------------------------------- given back, and lost


def leases(*asks: tuple[float, str, Ask], rpm: float = 600, gone: float | None = None) -> list[Grant]:
    """What is granted to asks that come at given seconds; "a" may be gone at some moment."""

    async def run() -> list[Grant]:
        loop = asyncio.get_running_loop()
        lessor = Lessor(Budget(rpm), clock=loop.time)
        if gone is not None:
            loop.call_later(gone, lessor.gone, "a")

        async def one(at: float, holder: str, ask: Ask) -> Grant:
            await asyncio.sleep(at)
            return await lessor.lease(holder, "", ask)

        return await asyncio.gather(*(one(*each) for each in asks))

    return in_virtual_time(run())


FULL = Ask(costs=(1,) * 100)


def test_slots_are_planned_a_round_ahead_and_dealt_in_turns() -> None:
    """Who asks at the same time gets slots in turns, at just those moments at which a budget lets go."""
    one, other = leases((0, "a", FULL), (0, "b", FULL))
    moments = [[slot.moment for slot in grant.slots] for grant in (one, other)]
    assert sorted(moments[0] + moments[1])[:4] == [BEGIN] * 4  # the burst
    assert abs(len(moments[0]) - len(moments[1])) <= 1
    assert one.until == BEGIN + ROUND
    assert BEGIN + ROUND - 0.11 <= max(moments[0] + moments[1]) <= BEGIN + ROUND
    assert len(moments[0] + moments[1]) == 9  # a burst of half a second, and half a second


def test_who_comes_late_waits_for_the_next_round() -> None:
    """It is planned before its moments come."""
    first, second = leases((0, "a", FULL), (0.01, "b", FULL))
    assert second.made == pytest.approx(first.until - LEAD)
    assert min(slot.moment for slot in second.slots) >= first.until


@pytest.mark.parametrize(("back", "gone"), [(Ask(requests=4, tokens=4), None), (Ask(), 0.1), (Ask(), None)])
def test_what_comes_back_is_granted_again(back: Ask, gone: float | None) -> None:
    """What a holder gives back, and what it could still have used when it ends, goes to others at once; where
    nothing is heard of it it counts as sent."""
    asks = [(0, "a", FULL), (0.1, "a", back), (0.2, "b", FULL)]
    *_, other = leases(*asks, gone=gone)
    came_back = back.requests > 0 or gone is not None
    assert (other.made < BEGIN + 0.3) == came_back
    if came_back:
        assert 3 <= len(other.slots) <= 5


def test_no_more_comes_back_than_was_lent() -> None:
    """Nonsense in a message makes no slots."""
    _, _, other = leases((0, "a", Ask(costs=(1,))), (0.1, "a", Ask(requests=50)), (0.2, "b", FULL), rpm=600)
    assert len(other.slots) <= 10


def test_a_lease_that_comes_late_is_given_back() -> None:
    """Slots whose life is over when they arrive are not used, and the lessor has them again."""

    async def run() -> tuple[list[float], int]:
        loop = asyncio.get_running_loop()
        endpoint = Windowed(600)
        lessor = Lessor(Budget(600), clock=lambda: loop.time() + OFF)
        wire = Wire(lessor, random.Random(1), 0.0)
        budget = LeasedBudget(wire, "w", rpm=600, clock=loop.time)
        client = client_of(endpoint, Capacity(8).gate(), budget)
        way = wire._way

        async def stuck() -> None:
            await asyncio.sleep(2.0 if 20 <= loop.time() - BEGIN < 21 else 0.0)
            await way()

        wire._way = stuck  # type: ignore[method-assign]
        await sends(client, 60)
        return [at - BEGIN for at, _ in endpoint.arrived], len(endpoint.refused)

    arrived, refused = in_virtual_time(run())
    assert refused == 0
    assert sum(20.7 <= at < 22 for at in arrived) == 0
    assert sum(30 <= at < 60 for at in arrived) >= 0.97 * 300


def test_a_run_that_stops_ends_every_wait() -> None:
    """Where sleeping raises, as it does once a run stops, all that wait end, though no lease ever comes; a
    request that is cancelled keeps nobody back."""

    async def run() -> list[object]:
        loop = asyncio.get_running_loop()
        lessor = Lessor(Budget(rpm=6), clock=loop.time)
        budget = LeasedBudget(lessor, "w", rpm=6, clock=loop.time)
        share = budget.share()
        stop = asyncio.Event()

        async def sleep(seconds: float) -> None:
            try:
                async with asyncio.timeout(seconds):
                    await stop.wait()
            except TimeoutError:
                return
            raise Stopped

        waits = [loop.create_task(share.wait(1, loop.time, sleep)) for _ in range(5)]
        await asyncio.sleep(1)
        waits[1].cancel()
        await asyncio.sleep(14)
        assert [each.done() for each in waits] == [True, True, True, False, False]
        assert budget.waiting == 2
        stop.set()
        found = await asyncio.gather(*waits, return_exceptions=True)
        assert budget.waiting == 0
        await budget.close()
        return [type(each) for each in found]

    none = type(None)
    assert in_virtual_time(run()) == [none, asyncio.CancelledError, none, Stopped, Stopped]


# ------------------------------------------------------------------------------------------ slots and clocks

grants = st.lists(st.tuples(st.floats(0, 2), st.integers(1, 3), st.integers(0, 50)), max_size=12)
takes = st.lists(st.tuples(st.floats(0, 0.5), st.integers(0, 60)), max_size=30)


@given(grants, takes, st.tuples(st.booleans(), st.booleans()).filter(any), st.floats(0, 0.2))
def test_slots_are_used_in_their_time_or_given_back(
    granted: Sequence[tuple[float, int, int]],
    takes: Sequence[tuple[float, int]],
    counted: tuple[bool, bool],
    unsure: float,
) -> None:
    """At no moment has more been used than slots have come, none is used after its life, and what is not used
    comes back; `when` tells the first moment at which a request may go."""
    clocks = Clocks()
    clocks.least, clocks.most = 100.0 - unsure, 100.0
    slots = Slots()
    all_slots = tuple(Slot(moment=at, requests=n, tokens=tokens) for at, n, tokens in sorted(granted))
    slots.add(Grant(slots=all_slots, came=0, made=0, until=0, terms=Terms()), clocks)
    now, used = 100.0, (0, 0)
    for gap, tokens in takes:
        now += gap
        due = [slot for slot in all_slots if slot.moment + 100.0 <= now]
        alive = [slot for slot in due if slot.moment + 100.0 - unsure + LATE > now]
        if slots.take(tokens, now, counted):
            used = used[0] + counted[0], used[1] + tokens * counted[1]
            assert sum(slot.requests for slot in alive) >= counted[0]
            assert sum(slot.tokens for slot in alive) >= tokens * counted[1]
        elif (when := slots.when(tokens, counted)) is not None:
            assert when > now
            assert replace_nothing(slots, tokens, when, counted)
        assert used[0] <= sum(slot.requests for slot in due)
        assert used[1] <= sum(slot.tokens for slot in due)
    slots.drop()
    back = slots.unused()
    if counted[0]:
        assert used[0] + back[0] == sum(slot.requests for slot in all_slots)
    if counted[1]:
        assert used[1] + back[1] == sum(slot.tokens for slot in all_slots)


def replace_nothing(slots: Slots, tokens: int, when: float, counted: tuple[bool, bool]) -> bool:
    """Whether a request could be let go at a moment; nothing changes."""
    return pickle.loads(pickle.dumps(slots)).take(tokens, when, counted)  # type: ignore[no-any-return]


@given(
    st.lists(st.tuples(st.floats(0, 0.3), st.floats(0, 0.6), st.floats(0, 0.3)), min_size=1, max_size=20),
    st.floats(-1e6, 1e6),
    st.floats(-5e-5, 5e-5),
)
def test_clocks_are_bounded_from_both_sides(
    trips: Sequence[tuple[float, float, float]], off: float, drift: float
) -> None:
    """Whatever the ways there and back take, the true difference of the clocks lies between the bounds; they
    are no farther apart than the best trip was long."""
    clocks, now, best = Clocks(), 0.0, 1.0
    for there, held, back in trips:
        came, made = now + there, now + there + held

        def keeper(at: float) -> float:
            return at * (1 + drift) - off

        grant = Grant(slots=(), came=keeper(came), made=keeper(made), until=0, terms=Terms())
        clocks.heard(now, made + back, grant)
        now = made + back
        best = min(best, there + back)
        assert clocks.least - 1e-4 <= now - keeper(now) <= clocks.most + 1e-4
        assert clocks.most - clocks.least <= best + 0.01
        now += 0.5


def test_another_keeper_has_another_clock() -> None:
    """A lessor that was started anew elsewhere is believed at once."""
    clocks = Clocks()
    for origin in (0.0, 5e5):
        clocks.heard(10.0, 10.2, Grant(slots=(), came=origin, made=origin, until=0, terms=Terms()))
        assert (clocks.least, clocks.most) == pytest.approx((10.0 - origin, 10.2 - origin))
