"""`harness.workers.chunks`: messages as a stream of chunks."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.workers.channel import ChannelLost
from harness.workers.chunks import GATHER, LONGEST, Inbox, Outbox, gathering


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
    """The first chunk goes at once; what is said in the time of gathering after it is one chunk, and one that
    is full waits for nothing."""
    outbox = Outbox(chunk=20, gather=3600)
    async with asyncio.timeout(60):
        await outbox.put(b"first")
        assert await outbox.take() == b"\0\0\0\5first"
        taking = asyncio.create_task(outbox.take())
        for each in (b"one", b"two"):
            await outbox.put(each)
            await asyncio.sleep(0)
        assert not taking.done()
        await outbox.put(b"three")
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


def test_many_workers_gather_longer() -> None:
    """However many workers there are, they call so often at most, until chunks would come too late."""
    assert [gathering(workers) for workers in (1, 8)] == [GATHER, GATHER]
    calls = [workers / gathering(workers) for workers in (8, 16, 100, 200)]
    assert calls == pytest.approx([8 / GATHER] * 4)
    assert gathering(10_000) == LONGEST
