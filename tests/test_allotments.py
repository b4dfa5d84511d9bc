"""Caps over several processes: never passed, used up, and nobody is refused what another gives back."""

from __future__ import annotations

import asyncio
import pickle
import random
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.allotments import LIFE, Allotment, Allots, Allotter, LeasedSpending, Need
from harness.caps import Amount, Caps, Price, Spending, Volume
from harness.client import Client
from harness.errors import Stopped
from harness.pacing import Capacity
from tests.virtual_time import REQUEST, Simulated, client_of, in_virtual_time, sends

PRICE = Price(prompt=3000.0, forced=20_000.0)


class Wire:
    """What a worker sees of the allotter: each message is under way for up to 50 ms."""

    def __init__(self, allots: Allots, draw: random.Random) -> None:
        self.allots = allots
        self.calls = 0
        self._draw = draw

    async def _way(self) -> None:
        await asyncio.sleep(self._draw.uniform(0, 0.05))

    async def allot(self, holder: str, need: Need) -> Allotment:
        """There and back."""
        self.calls += 1
        await self._way()
        found = await self.allots.allot(holder, need)
        await self._way()
        return found

    async def settle(self, holder: str, number: int, unused: Amount) -> None:
        """There."""
        self.calls += 1
        await self._way()
        await self.allots.settle(holder, number, unused)


async def spent(
    caps: Caps, paces: Sequence[float], sizes: Sequence[tuple[int, int]], end: float, dies: int = 0
) -> tuple[Volume, Spending, list[bool], list[Wire]]:
    """Workers that send one after another, each with so many seconds between; what was sent in all, the
    spending, whether it was stopped, and the wires. The first `dies` of them die after a second."""
    loop = asyncio.get_running_loop()
    stopped: list[bool] = []
    spending = Spending(caps, stop=lambda: stopped.append(True))
    allotter, draw = Allotter(spending), random.Random(1)
    wires, sent = [Wire(allotter, draw) for _ in paces], Volume()

    async def one(number: int) -> None:
        nonlocal sent
        name = f"worker {number}"
        mine = LeasedSpending(wires[number], name, clock=loop.time)
        meter = mine.meter(PRICE)
        at = number
        while loop.time() - 1000 < (1.0 if number < dies else end):
            size = sizes[at % len(sizes)]
            if not meter.allows(*size) and not await meter.more(*size):
                assert meter.reason
                break
            at += 1
            await asyncio.sleep(paces[number])
        sent += meter.sent
        if number < dies:
            allotter.gone(name)
        else:
            await mine.close()

    await asyncio.gather(*(one(number) for number in range(len(paces))))
    return sent, spending, stopped, wires


sizes = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 5)), min_size=1, max_size=20)
paces = st.lists(st.floats(0.001, 2), min_size=1, max_size=8)


@settings(deadline=None, max_examples=30)
@given(paces, sizes, st.integers(1, 200), st.integers(1, 3000), st.floats(0.01, 20), st.integers(0, 3))
def test_no_cap_is_passed_by_many(
    paces: Sequence[float],
    sizes: Sequence[tuple[int, int]],
    requests: int,
    tokens: int,
    cost: float,
    dies: int,
) -> None:
    """Whatever workers send, however fast, and whoever dies: in all it is within every cap, and once a cap is
    reached all are told which."""
    caps = Caps(requests=requests, tokens=tokens, cost=cost)
    sent, spending, stopped, _ = in_virtual_time(spent(caps, paces, sizes, 10, dies))
    assert sent.requests <= requests
    assert sent.tokens <= tokens
    assert PRICE.of(sent) <= cost * (1 + 1e-6)
    assert stopped == [True] * bool(spending.reason)
    if not spending.reason and not dies:
        assert spending.leaves(Volume(), 0.0)


@pytest.mark.parametrize("paces", [[0.01] * 8, [0.001, 0.5, 3.0], [0.1], [0.02, 0.02, 8.0, 8.0]])
@pytest.mark.parametrize("caps", [Caps(requests=997), Caps(tokens=11_000), Caps(cost=50.0)])
def test_a_cap_is_used_up_by_many(caps: Caps, paces: Sequence[float]) -> None:
    """The run is stopped when no further request fits in, though some workers are slow, and hold what others
    need; until then everybody goes on."""
    sizes = [(10, 1)]
    sent, _, stopped, wires = in_virtual_time(spent(caps, paces, sizes, 1000))
    assert stopped == [True]
    one = Volume(1, 10, 1)
    assert caps.beyond(sent.requests + 1, sent.tokens + 11, PRICE.of(sent + one))
    assert sum(wire.calls for wire in wires) <= 0.5 * sent.requests


def test_workers_that_send_fast_ask_seldom() -> None:
    """Far from the cap a worker asks about once in the life of an allotment."""
    sent, _, stopped, wires = in_virtual_time(spent(Caps(requests=10**6), [0.002] * 4, [(10, 1)], 30))
    assert stopped == []
    assert sent.requests >= 4 * 450 * 30
    assert max(wire.calls for wire in wires) <= 3 * 30 / LIFE


def test_what_earlier_sessions_spent_counts() -> None:
    """A cap that is reached already stops the run at the first request; nothing is sent."""

    async def run() -> None:
        spending = Spending(Caps(requests=10))
        spending.earlier(Volume(10, 0, 0), PRICE)
        allotter = Allotter(spending)
        meter = LeasedSpending(allotter, "w").meter(PRICE)
        assert not meter.allows(1, 1)
        assert not await meter.more(1, 1)
        assert (meter.reason, spending.reason) == ("--max-requests 10", "--max-requests 10")
        assert not meter.leaves(Volume(1, 1, 1))
        assert not await meter.more(1, 1)
        assert meter.sent == Volume()

    in_virtual_time(run())


def test_hours_go_on_while_an_allotment_lives() -> None:
    """What endpoints take by the hour is reserved for the life of an allotment too."""
    now = 0.0
    spending = Spending(Caps(cost=1.0), hourly=3600.0, clock=lambda: now)
    assert spending.reserve(Amount(1, 1, 0.0), Amount(1, 1, 0.0), seconds=1.5) is None
    assert spending.reserve(Amount(1, 1, 0.0), Amount(9, 9, 5.0), seconds=0.5) == Amount(9, 9, 0.25)
    now = 0.9
    assert spending.reserve(Amount(1, 1, 0.0), Amount(1, 1, 0.0), seconds=0.5) is None


def test_allotments_shrink() -> None:
    """Each of several gets half of its part of what is left at most, and in the end what a request takes."""
    spending = Spending(Caps(requests=100))
    least, wish = Amount(1, 5, 0.0), Amount(50, 250, 0.0)
    found = [spending.reserve(least, wish, parts=2) for _ in range(40)]
    requests = [each.requests for each in found if each is not None]
    assert requests[:4] == [25, 18, 14, 10]
    assert requests[-3:] == [1, 1, 1]
    assert sum(requests) == 100
    assert found[-1] is None and not spending.reason
    spending.give_back(Amount(2, 10, 0.0))
    assert spending.reserve(least, wish, parts=2) == Amount(1, 250, 0.0)


def test_a_client_waits_for_more_and_stops_at_the_cap() -> None:
    """Clients of two workers send until the cap is reached, to the last request, and end with its reason."""

    async def run() -> tuple[int, str]:
        endpoint, spending = Simulated(), Spending(Caps(requests=333))
        allotter, draw = Allotter(spending), random.Random(2)

        async def one(name: str) -> None:
            mine = LeasedSpending(Wire(allotter, draw), name, clock=asyncio.get_running_loop().time)
            client: Client = client_of(endpoint, Capacity(8).gate(), meter=mine.meter(PRICE))
            with pytest.raises(ExceptionGroup) as raised:
                await sends(client, 600, [REQUEST])
            assert raised.group_contains(Stopped, match="--max-requests 333")
            await mine.close()

        await asyncio.gather(one("a"), one("b"))
        return len(endpoint.answered), spending.reason

    sent, reason = in_virtual_time(run())
    assert reason == "--max-requests 333"
    assert 333 - 16 <= sent <= 333  # what was in flight when the run stopped is cancelled here


def test_what_is_said_travels_over_any_wire() -> None:
    """Needs and allotments come out of msgpack and pickle as they went in."""
    amount = Amount(3, 40, 0.5)
    for each in (Need(amount, amount, 3, amount, amount), Allotment(1, amount, "--max-cost 1")):
        assert pickle.loads(pickle.dumps(each)) == each
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(each), type=type(each)) == each
