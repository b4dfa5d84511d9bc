"""Messages as a stream of chunks, and the ends of it that stand in actors; no Ray is needed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.pacing import Lends
from harness.workers.actors import WorkerActor, own_build
from harness.workers.channel import Channel, ChannelLost
from harness.workers.chunks import Inbox, Outbox
from tests.ray.toys import echo
from tests.virtual_time import in_virtual_time


async def carried(messages: list[bytes], chunk: int, most: int) -> tuple[list[bytes], list[bytes]]:
    """What comes out of an inbox, and the chunks that came there."""
    outbox, inbox = Outbox(chunk=chunk, gather=0, most=most), Inbox(most=most)
    chunks, heard = [], []

    async def say() -> None:
        for each in messages:
            await outbox.put(each)
        outbox.end("all is said")

    async def carry() -> None:
        while (taken := await outbox.take()) is not None:
            chunks.append(taken)
            await inbox.room()
            inbox.feed(taken)
        inbox.end(outbox.why)

    async def hear() -> None:
        with pytest.raises(ChannelLost, match="all is said"):
            while True:
                heard.append(await inbox.next())

    async with asyncio.timeout(60):
        await asyncio.gather(say(), carry(), hear())
    return heard, chunks


@given(
    st.lists(st.integers(0, 40).flatmap(lambda n: st.binary(min_size=n, max_size=n)), max_size=12),
    st.integers(1, 30),
    st.integers(1, 60),
)
async def test_what_is_said_is_heard(messages: list[bytes], chunk: int, most: int) -> None:
    """Messages come out as they went in, in order, whatever chunks carry, and no chunk is too long."""
    heard, chunks = await carried(messages, chunk, most)
    assert heard == messages
    assert all(0 < len(each) <= chunk for each in chunks)


async def test_little_goes_together() -> None:
    """What is said within the time of gathering is one chunk, and a full chunk waits for nothing."""
    outbox = Outbox(chunk=20, gather=3600)
    taking = asyncio.create_task(outbox.take())
    for each in (b"one", b"two"):
        await outbox.put(each)
        await asyncio.sleep(0)
    assert not taking.done()
    await outbox.put(b"three")
    async with asyncio.timeout(60):
        assert await taking == b"\0\0\0\3one\0\0\0\3two\0\0\0\5th"
        outbox.end("over")
        assert await outbox.take() == b"ree"
    assert await outbox.take() is None


async def test_who_says_too_much_waits() -> None:
    """Where much waits already, who says more waits until some of it is taken; once it has ended, nobody."""
    outbox = Outbox(chunk=10, gather=0, most=10)
    await outbox.put(b"twelve bytes")
    saying = asyncio.create_task(outbox.put(b"more"))
    await asyncio.sleep(0)
    assert not saying.done()
    await outbox.take()
    await saying
    waiting = asyncio.create_task(outbox.put(b"still more"))
    await asyncio.sleep(0)
    outbox.end("closed")
    with pytest.raises(ChannelLost, match="closed"):
        await waiting


async def test_nothing_for_a_while() -> None:
    """Who waits for a chunk is told after the time that nothing is there yet."""
    assert await Outbox().take(0) == b""


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
