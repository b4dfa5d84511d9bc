"""Whole runs at an endpoint's pace, in virtual time: the real client, budget and gate, a simulated endpoint.

The bars are those that the program promises: nearly all of an allowance is used and none of it exceeded; a
hidden capacity is found within half a minute and hardly ever exceeded.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import pytest

from harness.exchange import ScoreRequest
from harness.failures import classify
from harness.pacing import Budget, Capacity, Level, limits_of
from harness.transport import Attempt
from tests.virtual_time import (
    REQUEST,
    Queueing,
    Refusing,
    Simulated,
    Windowed,
    client_of,
    in_virtual_time,
    sends,
    tokens_of,
)

_Endpoint = TypeVar("_Endpoint", bound=Simulated)


def of_sizes(*sizes: int) -> list[ScoreRequest]:
    """Requests of so many tokens."""
    return [ScoreRequest(b"%016d" % n, [1] * (size - 1), [2]) for n, size in enumerate(sizes)]


def mixed(*sizes: int) -> list[ScoreRequest]:
    """Some hundred requests of these sizes, in no order."""
    draw = random.Random(3)
    return of_sizes(*(draw.choice(sizes) for _ in range(499)))


# ------------------------------------------------------------------------------------------------- budgets


@pytest.mark.parametrize(
    ("rpm", "tpm", "requests", "scarce"),
    [
        (600, None, of_sizes(10), "rpm"),
        (6_000, None, of_sizes(10), "rpm"),
        (None, 600_000, mixed(10, 80, 500, 3000), "tpm"),
        (600, 1_200_000, mixed(10, 80, 500, 3000), "rpm"),
        (6_000, 300_000, mixed(80, 120, 700), "tpm"),
        (60, 20_000, mixed(10, 80, 500, 3000), ""),
        (None, 6_000, of_sizes(80, 900), "tpm"),
    ],
)
def test_an_allowance_is_used_and_never_exceeded(
    rpm: float | None, tpm: float | None, requests: Sequence[ScoreRequest], scarce: str
) -> None:
    """Of what is scarce 0.97 are used in each minute, the first one too; a server that counts any 60 seconds
    refuses nothing, whatever the sizes of requests and however long they are under way."""

    async def run() -> Windowed:
        endpoint = Windowed(rpm or float("inf"), tpm or float("inf"))
        client = client_of(endpoint, Capacity(64).gate(), Budget(rpm, tpm))
        await sends(client, 150, requests)
        return endpoint

    endpoint = in_virtual_time(run())
    assert endpoint.refused == []
    for begin in (0, 45, 90):
        minute = [tokens for at, tokens in endpoint.arrived if begin <= at - 1000 < begin + 60]
        used = {"rpm": len(minute) / (rpm or 1), "tpm": sum(minute) / (tpm or 1)}
        largest = (
            max(map(tokens_of, requests)) / tpm if tpm and scarce == "tpm" else 0
        )  # the last may not fit
        assert used.get(scarce, 1) >= 0.97 - largest


@pytest.mark.parametrize("gates", [(2, 64), (64, 2), (4, 16, 64), (3, 3, 100, 8)])
def test_adapters_share_a_budget_fairly(gates: Sequence[int]) -> None:
    """Adapters get the same number of requests a minute, whatever the concurrency of each."""

    async def run() -> list[int]:
        budget = Budget(rpm=600)
        endpoints = [Simulated() for _ in gates]
        clients = [
            client_of(endpoint, Capacity(gate).gate(), budget)
            for endpoint, gate in zip(endpoints, gates, strict=True)
        ]
        await asyncio.gather(*(sends(client, 60) for client in clients))
        return [sum(at - 1000 > 5 for at, _ in endpoint.answered) for endpoint in endpoints]

    found = in_virtual_time(run())
    assert max(found) - min(found) <= 0.02 * max(found)
    assert sum(found) >= 0.97 * 550


def test_what_an_idle_adapter_leaves_is_used() -> None:
    """When one adapter is done the others have its share at once."""

    async def run() -> tuple[Simulated, Simulated]:
        budget = Budget(rpm=600)
        long, short = Simulated(), Simulated()
        await asyncio.gather(
            sends(client_of(long, Capacity(8).gate(), budget), 60),
            sends(client_of(short, Capacity(8).gate(), budget), 20),
        )
        return long, short

    long, short = in_virtual_time(run())
    assert long.rate(2, 20) == pytest.approx(4.9, rel=0.05)
    assert short.rate(2, 20) == pytest.approx(4.9, rel=0.05)
    assert long.rate(22, 60) == pytest.approx(9.8, rel=0.03)


class Headed(Windowed):
    """Counts every 60 seconds, and says in each reply how it stands."""

    async def send(self, request: ScoreRequest, body: bytes) -> Attempt:
        """Answer, with headers."""
        attempt = await super().send(request, body)
        left = self.rpm - len(self.window)
        reset = self.window[0][0] + 60 - asyncio.get_running_loop().time()
        headers = {
            "X-RateLimit-Limit-Requests": f"{self.rpm:.0f}",
            "X-RateLimit-Remaining-Requests": f"{max(0, left):.0f}",
            "X-RateLimit-Reset-Requests": f"{max(0.0, reset):.3f}s",
        }
        return attempt._replace(limits=limits_of(headers, now=0.0))


@pytest.mark.parametrize("rpm", [None, 6000, 300])
def test_headers_are_followed(rpm: float | None) -> None:
    """An endpoint that tells its allowance is asked no faster, with no flag or one that is too high, and not
    faster than a flag says either; a level is not cut for it."""

    async def run() -> tuple[Headed, int]:
        endpoint = Headed(rpm=600)
        gate = Capacity(Level()).gate()
        await sends(client_of(endpoint, gate, Budget(rpm)), 120)
        return endpoint, gate.level

    endpoint, level = in_virtual_time(run())
    allowed = min(600, rpm or 600)
    assert endpoint.refused == []
    assert level >= 4
    for begin in (0, 60):
        minute = sum(begin <= at - 1000 < begin + 60 for at, _ in endpoint.arrived)
        assert 0.97 * allowed <= minute <= allowed


def test_an_account_that_others_use_up_is_left_alone_until_the_reset() -> None:
    """Where the headers say that nothing is left nobody asks before there is more, and the level stays."""

    async def run() -> tuple[Headed, int]:
        endpoint = Headed(rpm=600)
        now = asyncio.get_running_loop().time()
        endpoint.window.extend([(now - 30.0, 0)] * 580)  # asked for by somebody else, half a minute ago
        gate = Capacity(Level()).gate()
        await sends(client_of(endpoint, gate), 60)
        return endpoint, gate.level

    endpoint, level = in_virtual_time(run())
    assert len(endpoint.refused) <= 4
    assert level >= 4
    assert sum(at - 1000 < 30 for at, _ in endpoint.arrived) == 20
    assert sum(30 <= at - 1000 < 60 for at, _ in endpoint.arrived) >= 0.95 * 300


# ---------------------------------------------------------------------------------------------- concurrency


def adapted(
    make: Callable[[], _Endpoint],
    seconds: float,
    *,
    adapters: int = 1,
    capacities: Mapping[float, int] | None = None,
) -> tuple[_Endpoint, list[int]]:
    """An endpoint that was asked for a while by adapters that find out together how much it takes, and the
    levels that they tried; its capacity may change at given seconds."""

    async def run() -> tuple[_Endpoint, list[int]]:
        endpoint = make()
        loop = asyncio.get_running_loop()
        for at, capacity in (capacities or {}).items():
            loop.call_later(at, setattr, endpoint, "capacity", capacity)
        levels: list[int] = []
        shared = Capacity(Level(on_change=lambda level, reason: levels.append(level)))
        await asyncio.gather(*(sends(client_of(endpoint, shared.gate()), seconds) for _ in range(adapters)))
        return endpoint, levels

    return in_virtual_time(run())


def fixed_rate(make: Callable[[], Simulated], at_once: int) -> float:
    """Replies a second with a fixed number at once."""

    async def run() -> Simulated:
        endpoint = make()
        await sends(client_of(endpoint, Capacity(at_once).gate()), 12)
        return endpoint

    return in_virtual_time(run()).rate(2, 12)


@pytest.mark.parametrize("retry_after", ["", "1"])
@pytest.mark.parametrize(
    ("capacity", "latency", "seconds"),
    [(2, 0.2, 90), (5, 0.2, 90), (50, 0.2, 60), (200, 0.2, 40), (200, 0.8, 60)],
)
def test_a_hidden_capacity_is_found(capacity: int, latency: float, seconds: int, retry_after: str) -> None:
    """From second 30 on throughput is at least 0.90 of the best fixed setting, which is to send just as many
    as are taken; over the whole run at most 2 % are refused."""

    def make() -> Refusing:
        endpoint = Refusing(capacity, seconds=latency)
        endpoint.headers = {"Retry-After": retry_after} if retry_after else {}
        return endpoint

    endpoint, levels = adapted(make, seconds)
    best = fixed_rate(make, capacity)
    assert best == pytest.approx(capacity / latency, rel=0.05)
    assert endpoint.rate(30, seconds) >= 0.90 * best
    assert endpoint.share_refused <= 0.02
    assert max(levels) <= 2 * max(capacity, 4)


def test_a_capacity_that_drops_and_recovers() -> None:
    """A drop is followed within seconds, at the price of two bursts of refusals; a recovery step by step."""
    endpoint, levels = adapted(lambda: Refusing(60), 100, capacities={30: 20, 50: 60})
    assert endpoint.rate(20, 30) >= 0.90 * 300
    assert endpoint.rate(32, 50) >= 0.90 * 100
    assert endpoint.rate(90, 100) >= 0.90 * 300
    assert endpoint.share_refused <= 0.02
    assert sum(1030 <= at < 1032 for at in endpoint.refused) <= 60
    assert min(levels[8:]) >= 15


@pytest.mark.parametrize("capacity", [1, 10, 32])
def test_an_endpoint_that_queues_is_not_flooded(capacity: int) -> None:
    """One that refuses nothing is kept busy with a short queue: never more than four times what it takes, or
    eight, and no more than twice as much once that is known."""
    endpoint, levels = adapted(lambda: Queueing(capacity), 60)
    assert endpoint.rate(30, 60) >= 0.95 * capacity / endpoint.seconds
    assert endpoint.refused == []
    assert endpoint.most <= max(8, 4 * capacity)
    assert levels[-1] <= max(8, 2 * capacity)


def test_adapters_share_what_their_endpoint_takes() -> None:
    """Adapters of one base endpoint find out together how much it takes, and each has as much of it."""
    done = [0, 0, 0]

    class Counted(Refusing):
        """Counts for each adapter."""

        async def send(self, request: ScoreRequest, body: bytes) -> Attempt:
            """Answer, or refuse."""
            attempt = await super().send(request, body)
            done[request.context_ids[0]] += attempt.reply is not None
            return attempt

    async def run() -> Counted:
        endpoint = Counted(20)
        shared = Capacity(Level())
        requests = [ScoreRequest(b"%016d" % n, [n], [2]) for n in range(3)]
        await asyncio.gather(
            *(sends(client_of(endpoint, shared.gate()), 60, [request]) for request in requests)
        )
        return endpoint

    endpoint = in_virtual_time(run())
    assert endpoint.rate(30, 60) >= 0.90 * 100
    assert endpoint.share_refused <= 0.02
    assert max(done) <= 1.03 * min(done)


# ------------------------------------------------------------------------------------------- slots and waits


class Failing(Simulated):
    """Answers some requests with 503, and others as it should."""

    def __init__(self, fails: Callable[[ScoreRequest], bool], headers: Mapping[str, str]) -> None:
        super().__init__(jitter=0)
        self.fails = fails
        self.headers = headers

    async def send(self, request: ScoreRequest, body: bytes) -> Attempt:
        """Answer, or fail."""
        if not self.fails(request):
            return await super().send(request, body)
        return Attempt(0.0, None, classify(503, self.headers, now=0.0), "down", 503)


def test_what_waits_to_be_tried_again_holds_no_slot() -> None:
    """While a request backs off another goes by its slot; then it is the first to go again."""
    first, *others = of_sizes(10, 20, 30, 40)
    order: list[int] = []

    async def run() -> None:
        failed: list[ScoreRequest] = []
        endpoint = Failing(lambda request: request is first and not failed, {"Retry-After": "0.3"})
        gate = Capacity(1).gate()
        client = client_of(endpoint, gate)

        async def score(request: ScoreRequest) -> None:
            async with gate:
                scoring = asyncio.create_task(client.score(request))
                await asyncio.sleep(0)
                if request is first:
                    failed.append(request)
                outcome = await scoring
                assert outcome.reply is not None
                order.append(tokens_of(request))

        await asyncio.gather(*map(score, (first, *others)))
        assert (gate.held, gate.waiting) == (0, 0)
        assert asyncio.get_running_loop().time() == pytest.approx(1000 + 4 * 0.2)

    in_virtual_time(run())
    assert order == [20, 30, 10, 40]


def test_an_adapter_that_is_down_takes_no_slots_from_the_others() -> None:
    """Requests that wait for the end of an outage leave the endpoint's slots to the adapter that is up."""

    async def run() -> tuple[Simulated, Simulated, int]:
        shared = Capacity(4)
        down, up = Failing(lambda request: True, {}), Simulated(jitter=0)
        await asyncio.gather(*(sends(client_of(each, shared.gate()), 120) for each in (down, up)))
        return down, up, shared.held

    down, up, held = in_virtual_time(run())
    assert down.answered == []
    assert up.rate(60, 120) >= 0.95 * 4 / 0.2
    assert held == 0


def test_a_fixed_number_is_kept() -> None:
    """With a number given there are just as many in flight, refused or not."""

    async def run() -> int:
        endpoint = Refusing(10)
        gate = Capacity(20).gate()
        client = client_of(endpoint, gate)
        await sends(client, 5, [REQUEST])
        return gate.level

    assert in_virtual_time(run()) == 20
