"""What stands in actors of Ray, without Ray: workers, and keepers of budgets."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from harness.pacing import Ask, Lends
from harness.pacing.allowance import MINUTE
from harness.workers.actorbudgets import BudgetActor
from harness.workers.actors import WorkerActor, own_build
from harness.workers.channel import Channel, ChannelLost
from tests.ray.toys import echo
from tests.virtual_time import in_virtual_time


async def said_by(actor: WorkerActor) -> tuple[bytes, str]:
    """All bytes that a worker has to say, and why it says no more."""
    said = b""
    while isinstance(chunk := await actor.get(), bytes):
        said += chunk
    return said, chunk


async def test_a_worker_in_an_actor() -> None:
    """It tells what it is built of, takes what is put, says what it has to say, and that it has ended."""
    actor = WorkerActor(echo, {})
    assert await actor.begin() == own_build()
    await actor.put(b"\0\0\0\5hel")
    await actor.put(b"lo\0\0\0\3end")
    assert await said_by(actor) == (b"\0\0\0\5hello", "the worker has ended")


async def test_what_breaks_a_worker_is_not_shown() -> None:
    """Of an error in a worker only the kind is told: its text may hold anything, and Ray prints it."""
    actor = WorkerActor(echo, {})
    await actor.begin()
    await actor.put(b"\0\0\0\5break")
    assert await said_by(actor) == (b"", "the worker broke down (ValueError)")


def test_a_silent_run_is_gone() -> None:
    """A worker that nobody asks for anything loses its channel, and ends; one that is asked works on."""

    async def story() -> list[str]:
        ended: list[str] = []

        async def works(channel: Channel, lenders: Mapping[int, Lends]) -> None:
            with pytest.raises(ChannelLost) as lost:
                await channel.receive()
            ended.append(str(lost.value))

        actor = WorkerActor(works, {}, silence=60)
        await actor.begin()
        for _ in range(20):
            assert await actor.get() == b""
        assert not ended
        await asyncio.sleep(61)
        assert await actor.get() == "the run has been silent for 60 s"
        return ended

    assert in_virtual_time(story()) == ["the run has been silent for 60 s"]


async def test_a_keeper_of_a_budget() -> None:
    """It grants what its account allows, and tells news of it."""
    keeper = BudgetActor(600, None, again=False)
    granted = await keeper.lease("a worker", "a", Ask(costs=(10, 10)))
    assert sum(slot.requests for slot in granted.slots) == 2
    await keeper.pause(30)
    terms = await keeper.news("another", granted.terms.version)
    assert (terms.rpm, terms.tpm) == (600, None)
    assert 29 < terms.pause <= 30
    await keeper.gone("a worker")


async def test_a_keeper_in_the_place_of_a_lost_one() -> None:
    """It does not know what went out in the last minute, so it lets nothing out before that has passed."""
    keeper = BudgetActor(600, None, again=True)
    assert MINUTE - 1 < (await keeper.news("a worker", -1)).pause <= MINUTE
