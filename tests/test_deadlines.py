"""One timer for many: each block has its own time, to the moment, and whoever cancels it is heard."""

from __future__ import annotations

import asyncio

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st

from harness.deadlines import Deadline, Deadlines
from tests.virtual_time import in_virtual_time

LIMIT = 10.0


class Counting(Deadlines):
    """Counts how often its timer rings."""

    rung = 0

    def _look(self) -> None:
        self.rung += 1
        super()._look()


async def block(deadlines: Deadlines, begins: float, takes: float) -> tuple[str, float]:
    """How a block ended that begins and takes so many seconds, and how long it took."""
    await asyncio.sleep(begins)
    loop = asyncio.get_running_loop()
    since = loop.time()
    try:
        with Deadline(deadlines):
            await asyncio.sleep(takes)
    except TimeoutError:
        return "late", loop.time() - since
    return "in time", loop.time() - since


@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30).filter(lambda it: it != LIMIT)), max_size=30)
)
def test_each_has_its_own_time(blocks: list[tuple[int, int]]) -> None:
    """Whenever blocks begin, those that take too long are ended when their time is up, and no others."""

    async def all_of_them() -> list[tuple[str, float]]:
        deadlines = Deadlines(LIMIT)
        return await asyncio.gather(*(block(deadlines, begins, takes) for begins, takes in blocks))

    expected = [("late", LIMIT) if takes > LIMIT else ("in time", takes) for _, takes in blocks]
    found = in_virtual_time(all_of_them())
    assert [how for how, _ in found] == [how for how, _ in expected]
    assert [took for _, took in found] == pytest.approx([took for _, took in expected])


def test_one_timer_is_enough() -> None:
    """A thousand requests that take a second each make the timer ring a hundred times, not a thousand."""

    async def ask() -> int:
        deadlines = Counting(LIMIT)
        for _ in range(1000):
            assert (await block(deadlines, 0, 1))[0] == "in time"
        return deadlines.rung

    assert in_virtual_time(ask()) in range(90, 120)


async def test_who_is_cancelled_is_not_late() -> None:
    """A cancellation from outside stays one."""
    asking = asyncio.create_task(block(Deadlines(LIMIT), 0, 5))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert asking.cancelled()


def test_cancelled_and_late_at_once() -> None:
    """Where both come before the block can end, it is the cancellation that counts, as with asyncio's own."""

    async def both() -> str:
        deadlines = Deadlines(LIMIT)
        asking = asyncio.create_task(block(deadlines, 0, 99))
        asyncio.get_running_loop().call_later(LIMIT, asking.cancel)
        try:
            return (await asking)[0]
        except asyncio.CancelledError:
            return "cancelled"

    assert in_virtual_time(both()) == "cancelled"


def test_an_outer_limit_counts_too() -> None:
    """Within a shorter limit of asyncio's, that one's time is up first, and its owner hears of it."""

    async def nested() -> float:
        loop = asyncio.get_running_loop()
        since = loop.time()
        try:
            async with asyncio.timeout(LIMIT / 2):
                with Deadline(Deadlines(LIMIT)):
                    await asyncio.sleep(99)
        except TimeoutError:
            return loop.time() - since
        return 0.0

    assert in_virtual_time(nested()) == pytest.approx(LIMIT / 2)


def test_a_task_goes_on_after_a_late_block() -> None:
    """What timed out leaves nothing behind: the same task can wait, and be late, again."""

    async def twice() -> list[str]:
        deadlines = Deadlines(LIMIT)
        found = [(await block(deadlines, 0, takes))[0] for takes in (99, 1, 99)]
        task = asyncio.current_task()
        assert task is not None
        assert task.cancelling() == 0
        return found

    assert in_virtual_time(twice()) == ["late", "in time", "late"]


def test_an_error_in_a_block_is_that_error() -> None:
    """What a block raises by itself passes through, and its time is nobody's business any more."""

    async def fails() -> None:
        deadlines = Deadlines(LIMIT)
        with pytest.raises(ZeroDivisionError), Deadline(deadlines):
            raise ZeroDivisionError
        await asyncio.sleep(5 * LIMIT)

    in_virtual_time(fails())


def test_what_a_late_block_raises_itself_is_heard() -> None:
    """Where the cancellation is answered by another error, that one is told."""

    async def fails() -> None:
        with pytest.raises(ZeroDivisionError), Deadline(Deadlines(LIMIT)):
            try:
                await asyncio.sleep(99)
            finally:
                raise ZeroDivisionError

    in_virtual_time(fails())


def test_a_late_block_may_take_its_time_to_end() -> None:
    """What is late is cancelled once: it can clean up for longer than the limit, while others come and go."""

    async def slow(deadlines: Deadlines) -> str:
        try:
            with Deadline(deadlines):
                try:
                    await asyncio.sleep(99)
                finally:
                    await asyncio.sleep(3 * LIMIT)
        except TimeoutError:
            return "late"
        return "in time"

    async def all_of_them() -> list[object]:
        deadlines = Deadlines(LIMIT)
        others = (block(deadlines, begins, 99) for begins in range(3, 60, 3))
        return await asyncio.gather(slow(deadlines), *others)

    first, *others = in_virtual_time(all_of_them())
    assert first == "late"
    assert others == [("late", LIMIT)] * 19


def test_a_coarse_clock_does_not_make_the_timer_ring_for_ever() -> None:
    """On a clock of milliseconds, as uvloop's, a timer comes a little early: what is due then is due."""

    async def ask() -> int:
        deadlines = Counting(0.0504)
        found = await asyncio.gather(*(block(deadlines, begins * 0.0021, 9) for begins in range(60)))
        assert {how for how, _ in found} == {"late"}
        return deadlines.rung

    assert uvloop.run(ask()) <= 60 + 5
