"""The parts of `harness.workers` by themselves: ledger, messages, the way between, texts."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule
from pyarrow import parquet, table

from harness.checked import Known
from harness.data.survey import Survey
from harness.errors import EndpointRefused, Stopped, StoreError
from harness.exchange import Failure, Outcome, Reply, ScoreRequest
from harness.layout import reply_row
from harness.settings import RunSettings
from harness.sharding import Piece
from harness.workers.channel import ChannelLost, connected
from harness.workers.ledger import Ledger
from harness.workers.line import STOPPED, Line
from harness.workers.messages import (
    Answer,
    Before,
    Begin,
    Call,
    Counted,
    Counts,
    Ended,
    Keep,
    Lookup,
    Stop,
)
from harness.workers.texts import TextPieces
from harness.workers.wire import encoded, to_run, to_worker
from tests.crews import channels

WORKERS = ("w1", "w2", "w3")
LABELS = ("a", "b")


class Hands(RuleBasedStateMachine):
    """Workers take pieces, do them, and are lost, in any order: each piece is done once for each endpoint."""

    taken = Bundle("taken")

    @initialize(pieces=st.integers(1, 12))
    def begin(self, pieces: int) -> None:
        self.pieces = [Piece(0, 10 * n, 10 * n + 10) for n in range(pieces)]
        self.ledger = Ledger(self.pieces, LABELS)
        self.held: dict[tuple[str, Piece], str] = {}
        self.done: set[tuple[str, Piece]] = set()

    @rule(target=taken, worker=st.sampled_from(WORKERS), label=st.sampled_from(LABELS))
    def take(self, worker: str, label: str) -> tuple[str, str, Piece | None]:
        piece = self.ledger.take(worker, label)
        left = [
            each for each in self.pieces if (label, each) not in self.held and (label, each) not in self.done
        ]
        if piece is None:
            assert not left
        else:
            assert piece in left
            self.held[label, piece] = worker
        return worker, label, piece

    @rule(took=taken)
    def do(self, took: tuple[str, str, Piece | None]) -> None:
        worker, label, piece = took
        if piece is None:
            return
        counts = self.held.get((label, piece)) == worker
        assert self.ledger.done(worker, label, piece) == counts
        if counts:
            del self.held[label, piece]
            self.done.add((label, piece))

    @rule(worker=st.sampled_from(WORKERS))
    def lose(self, worker: str) -> None:
        theirs = [each for each, whose in self.held.items() if whose == worker]
        assert self.ledger.lost(worker) == len(theirs)
        for each in theirs:
            del self.held[each]

    @invariant()
    def agree(self) -> None:
        if hasattr(self, "ledger"):
            for label in LABELS:
                done = sum(each[0] == label for each in self.done)
                assert self.ledger.over(label) == (done == len(self.pieces))
            for worker in WORKERS:
                assert self.ledger.held(worker) == sum(whose == worker for whose in self.held.values())


TestHands = Hands.TestCase


def test_a_worker_gets_for_others_what_it_has_for_one() -> None:
    """A piece that a worker has for one endpoint it gets for the others too, while others get other ones."""
    pieces = [Piece(0, n, n + 1) for n in range(4)]
    ledger = Ledger(pieces, LABELS)
    assert [ledger.take("w1", "a"), ledger.take("w2", "a"), ledger.take("w1", "a")] == pieces[:3]
    assert ledger.take("w2", "b") == pieces[1]
    assert [ledger.take("w1", "b"), ledger.take("w1", "b"), ledger.take("w1", "b")] == [
        pieces[0],
        pieces[2],
        pieces[3],
    ]


# ---------------------------------------------------------------------------------------------- messages


def test_messages_come_back_as_they_went(tmp_path: Path) -> None:
    """Settings with paths, rows of bytes, and counts are after the way what they were before."""
    begin = Begin(
        name="w",
        part=0.5,
        version="0",
        settings=RunSettings(endpoint=("embedded",), tasks="sample_mmlu", data_dir=tmp_path, out=tmp_path),
        environ={"FRIENDLI_TOKEN": "secret"},
        folder="/",
        identity="{}",
        rows={
            "sample_mmlu": Known(
                "sha256:0", Survey(rows=1, counts={"a": 1}, n_bad=0, bad=(), content_sha256="")
            )
        },
        leading=[Piece(0, 3, 4)],
        addresses={},
        replies={"embedded": 3},
        capped=False,
        gather=0.1,
        logs=True,
    )
    assert to_worker(encoded(begin)) == begin
    counted = Counted({"embedded": Counts(items_done=3, retries={"429": 2})})
    assert to_run(encoded(counted)) == counted
    known = Call(1, Lookup("embedded", [b"\0" * 16]))
    assert to_run(encoded(known)) == known
    request = ScoreRequest(b"k" * 16, [1, 2], [3])
    outcomes = [
        Outcome(request, Reply([3], [-0.5], [{"a": -0.5}], greedy=True)),
        Outcome(request, failure=Failure("400", "no")),
    ]
    rows = Call(2, Keep("embedded", [reply_row(each) for each in outcomes], []))
    assert to_run(encoded(rows)) == rows


@given(st.binary(max_size=60))
def test_what_is_no_message_is_refused(content: bytes) -> None:
    """Any bytes are a message or a clean error."""
    for read in (to_run, to_worker):
        with suppress(ChannelLost):
            read(content)


async def test_a_line_brings_each_answer_to_who_asked() -> None:
    """Answers that come in another order find their calls; errors are raised as what they are."""
    ours, theirs = channels()
    told: list[object] = []
    line = Line(theirs, told.append)
    running = asyncio.create_task(line.run())
    asking = [asyncio.create_task(line.call(Before(label))) for label in ("a", "b", "c", "d")]
    calls = [to_run(await ours.receive()) for _ in asking]
    numbers = {call.what.label: call.call for call in calls if isinstance(call, Call)}  # type: ignore[union-attr]
    for answer in (
        Answer(numbers["d"], error="no room"),
        Answer(numbers["c"], error=STOPPED),
        Answer(numbers["b"], error="401", reason="401"),
        Answer(numbers["a"], 7),
        Stop(),
    ):
        await ours.send(encoded(answer))
    found = await asyncio.gather(*asking, return_exceptions=True)
    assert found[0] == 7
    assert [type(each) for each in found[1:]] == [EndpointRefused, Stopped, StoreError]
    assert isinstance(found[1], EndpointRefused)
    assert found[1].reason == "401"
    line.tell(Ended())
    await running
    assert told == [Stop()]


async def test_who_waits_on_a_lost_line_hears_of_it() -> None:
    """A call whose run is gone fails with the reason, and so does every later one."""
    ours, theirs = channels()
    line = Line(theirs, lambda message: None)
    running = asyncio.create_task(line.run())
    asking = asyncio.create_task(line.call(Before("a")))
    await ours.receive()
    ours.lose("the power failed")
    with pytest.raises(StoreError, match="the power failed"):
        await asking
    with pytest.raises(ChannelLost):
        await running
    with pytest.raises(StoreError, match="the power failed"):
        await line.call(Before("b"))


async def test_a_socket_carries_messages_whole() -> None:
    """Messages of any size come whole and in order, and the end of the other side is told."""
    one, other = socket.socketpair()
    ours, theirs = await connected(one), await connected(other)
    sizes = (0, 1, 70_000, 5_000_000, 3)
    sending = asyncio.create_task(_send(ours, sizes))
    assert [len(await theirs.receive()) for _ in sizes] == list(sizes)
    await sending
    await ours.close()
    with pytest.raises(ChannelLost):
        await theirs.receive()
    await theirs.close()


async def _send(channel: object, sizes: tuple[int, ...]) -> None:
    for size in sizes:
        await channel.send(b"x" * size)  # type: ignore[attr-defined]


# ------------------------------------------------------------------------------------------------- texts


@pytest.mark.parametrize("whole", [True, False])
def test_texts_are_put_together_in_the_order_of_the_run(tmp_path: Path, whole: bool) -> None:
    """Pieces that come in any order stand in the run's; an unfinished lot never replaces an earlier file."""
    pieces = [Piece(0, n, n + 1) for n in range(4)]
    path = tmp_path / "texts.parquet"
    parquet.write_table(table({"index": [99]}), path)
    texts = TextPieces(path, pieces, {"a": "t1", "b": "t1"})
    for piece in (pieces[2], pieces[0], pieces[3], pieces[1]):
        assert texts.wanted(piece, "a")
        parquet.write_table(table({"index": [piece.start]}), tmp_path / "one.parquet")
        texts.put(piece, "t1", (tmp_path / "one.parquet").read_bytes())
        assert not texts.wanted(piece, "b")
    texts.close(complete=whole)
    assert parquet.read_table(path)["index"].to_pylist() == ([0, 1, 2, 3] if whole else [99])
    assert not (tmp_path / "texts.parts").exists()
