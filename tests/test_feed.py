"""Between planning and sending: workers wait where nothing may go, and end when nothing will come."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from harness.exchange import ScoreRequest
from harness.feed import ROOM, Feed
from harness.sending import BLOCK


def request(key: int, context: int | None = None) -> ScoreRequest:
    """A request with a context of its own, or that of others."""
    return ScoreRequest(key.to_bytes(16, "big"), [key if context is None else context] * (3 * BLOCK), [1])


class Workers:
    """So many workers that take what may go; a request returns when the test says so."""

    def __init__(self, feed: Feed, count: int) -> None:
        self.feed = feed
        self.out: list[int] = []
        self._returns: dict[int, asyncio.Future[bool]] = {}
        self.tasks = [asyncio.create_task(self._work()) for _ in range(count)]

    async def _work(self) -> None:
        while await self.feed.wait():
            if (one := self.feed.next()) is None:
                continue
            key = int.from_bytes(one.key, "big")
            self.out.append(key)
            self._returns[key] = asyncio.get_running_loop().create_future()
            computed = await self._returns[key]
            self.feed.returned(one, computed=computed)

    async def back(self, *keys: int, computed: bool = True) -> None:
        """These have come back."""
        for key in keys:
            self._returns.pop(key).set_result(computed)
        await settle()

    async def ended(self) -> None:
        """All workers have ended."""
        async with asyncio.timeout(5):
            await asyncio.gather(*self.tasks)


async def settle() -> None:
    """Let everybody do what can be done now."""
    for _ in range(20):
        await asyncio.sleep(0)


async def fed(requests: Sequence[ScoreRequest], workers: int = 4) -> Workers:
    """Workers at a feed with these requests, and nothing more to come."""
    feed = Feed()
    found = Workers(feed, workers)
    await settle()
    await feed.put(requests)
    feed.end()
    await settle()
    return found


async def test_siblings_wait_and_workers_end() -> None:
    """The leader goes alone, its siblings when it is back, and all workers end with the last one."""
    workers = await fed([request(0), request(1, 0), request(2, 0)])
    assert workers.out == [0]
    await workers.back(0)
    assert workers.out == [0, 1, 2]
    await workers.back(1, 2)
    await workers.ended()


async def test_others_fill_the_pool_meanwhile() -> None:
    """As many as there are workers are out at once, where beginnings differ."""
    workers = await fed([request(n) for n in range(6)])
    assert workers.out == [0, 1, 2, 3]
    await workers.back(2)
    assert workers.out == [0, 1, 2, 3, 4]
    await workers.back(0, 1, 3, 4)
    await workers.back(5)
    await workers.ended()


async def test_a_failed_leader_is_replaced() -> None:
    """Where a leader comes back without an answer another goes ahead."""
    workers = await fed([request(0), request(1, 0), request(2, 0)])
    await workers.back(0, computed=False)
    assert workers.out == [0, 1]
    await workers.back(1)
    await workers.back(2)
    await workers.ended()


async def test_putting_waits_for_room() -> None:
    """Whoever puts in more than there is room for waits until enough have been taken."""
    feed = Feed()
    putting = asyncio.create_task(feed.put([request(n) for n in range(ROOM + 2)]))
    await settle()
    assert not putting.done()
    assert feed.next() is not None
    assert feed.next() is not None
    await settle()
    assert putting.done()


@pytest.mark.parametrize("waiting", [True, False])
async def test_closing_ends_everybody(waiting: bool) -> None:
    """Once closed nothing goes out, what is out still returns, and whoever waits is let go."""
    feed = Feed()
    workers = Workers(feed, 2)
    putting = asyncio.create_task(feed.put([request(n, 0) for n in range(ROOM + 3 if waiting else 3)]))
    await settle()
    assert workers.out == [0]
    feed.close()
    await settle()
    assert putting.done()
    await workers.back(0)
    await workers.ended()
    assert workers.out == [0]


async def test_a_worker_that_is_cancelled_takes_nothing_with_it() -> None:
    """What comes after a waiting worker was cancelled goes to another one."""
    feed = Feed()
    workers = Workers(feed, 2)
    await settle()
    workers.tasks[0].cancel()
    await settle()
    await feed.put([request(0)])
    feed.end()
    await settle()
    assert workers.out == [0]
    await workers.back(0)
    async with asyncio.timeout(5):
        await workers.tasks[1]


async def test_what_was_offered_when_the_feed_closed_is_not_waited_for() -> None:
    """A request that somebody was told of and did not take any more keeps nobody waiting."""
    feed = Feed()
    await feed.put([request(0), request(1)])
    assert await feed.wait()
    feed.close()
    assert feed.next() is None
    async with asyncio.timeout(5):
        assert not await feed.wait()
