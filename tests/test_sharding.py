"""`sharding` and `shards`: every item in one shard and no other, whoever cuts."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.errors import UsageError
from harness.items import Item
from harness.prompts import Prompt, Selection
from harness.sharding import Piece, Shard, cut, parse_shard
from harness.shards import PieceReader, one_shard, pieces_of, small_pieces
from harness.suite import Suite, prepare_suite


@given(
    size=st.integers(0, 300),
    shards=st.integers(1, 40),
    breaks=st.sets(st.integers(1, 299)),
    joined=st.sets(st.integers(1, 299)),
    shift=st.integers(0, 1000),
)
def test_every_position_is_in_one_run(
    size: int, shards: int, breaks: set[int], joined: set[int], shift: int
) -> None:
    """However positions are cut, the runs are as many as asked for and hold each position once, in order."""
    runs = cut(
        size, shards, breaks=sorted(each for each in breaks if each < size), joined=joined, shift=shift
    )
    assert len(runs) == shards
    assert [each for run in runs for each in run] == list(range(size))


@given(size=st.integers(1, 5000), shards=st.integers(1, 64), shift=st.integers(0, 100))
def test_runs_are_about_equally_long(size: int, shards: int, shift: int) -> None:
    """Where nothing belongs together, no run has two positions more than another."""
    lengths = [len(run) for run in cut(size, shards, shift=shift)]
    assert max(lengths) - min(lengths) <= 1


def test_a_cut_moves_to_other_shots_nearby_and_never_into_a_text() -> None:
    """Cuts go to breaks within a quarter of a shard, and else behind what is joined."""
    assert cut(100, 2, breaks=[42]) == [range(42), range(42, 100)]
    assert cut(100, 2, breaks=[30]) == [range(50), range(50, 100)]
    assert cut(100, 2, joined={50, 51}) == [range(52), range(52, 100)]


@pytest.mark.parametrize("text", ["", "3", "0/3", "4/3", "1/0", "-1/3", "1/3/5", "a/b", "1/1000000"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    """What is not I/N with I from 1 to N is refused in a line that names the flag."""
    with pytest.raises(UsageError, match="--shard"):
        parse_shard(text)


@given(amount=st.integers(0, 10_000), of=st.integers(1, 50))
def test_parts_add_up(amount: int, of: int) -> None:
    """The shards' parts of a cap add up to the cap."""
    assert sum(Shard(number, of).part(amount) for number in range(1, of + 1)) == amount


@pytest.fixture(scope="module")
def suite() -> Suite:
    """Two shipped tasks, one with subjects and shots."""
    return prepare_suite(
        ["sample_mmlu", "sample_hellaswag"],
        shots=2,
        data_dir=None,
        selection=Selection(),
        skip_bad_rows=False,
    )


def _shown(prompts: object) -> list[tuple[int, str, str]]:
    assert isinstance(prompts, list)
    return [
        (ordinal, each.item.id, each.first_context) for ordinal, each in prompts if isinstance(each, Prompt)
    ]


@pytest.mark.parametrize("of", [1, 2, 3, 7, 1000])
def test_shards_are_the_suite(suite: Suite, of: int) -> None:
    """All shards together ask each item of the suite once, with the same prompt and ordinal, and list it."""
    whole = _shown(list(suite.prompts()))
    numbers = range(1, of + 1) if of < 100 else (1, 500, 1000)
    parts = [one_shard(suite, Shard(number, of)) for number in numbers]
    found = [each for part in parts for each in _shown(list(part.prompts()))]
    if of < 100:
        assert sorted(found) == whole
    assert set(found) <= set(whole)
    for part in parts:
        listed = [each.ordinal for each in part.listing]
        assert listed == [ordinal for ordinal, _ in part.prompts()]
        assert part.size == len(listed)
        assert [each for batch in part.batches(5) for each in batch] == list(part.prompts())


def test_every_task_is_spread_over_all_shards(suite: Suite) -> None:
    """Each of few shards has its part of every task, so that all take about as long."""
    for number in (1, 2, 3):
        assert {piece.task for piece in pieces_of(suite, Shard(number, 3))} == {0, 1}


def test_pieces_in_any_order_and_for_several(suite: Suite) -> None:
    """A reader gives the prompts of any piece at any time, also one that comes before those that it read."""
    whole = dict(suite.prompts())
    pieces = small_pieces(suite, 7)
    assert sum(map(len, pieces)) == suite.size
    reader = PieceReader(suite, keep=2)
    for piece in [*pieces, *reversed(pieces), pieces[0], pieces[0]]:
        got = list(reader.prompts(piece))
        assert len(got) == len(piece)
        assert all(_text(prompt) == _text(whole[ordinal]) for ordinal, prompt in got)
    assert reader.prompts(pieces[0]) is reader.prompts(pieces[0])


def _text(prompt: object) -> str:
    assert isinstance(prompt, Prompt)
    return prompt.first_context


def test_random_shots_are_those_of_the_whole(tmp_path: Path) -> None:
    """Where shots are drawn at random, in file order, a piece's are those that its items have in the run."""
    suite = prepare_suite(
        ["sample_hellaswag"], shots=3, data_dir=None, selection=Selection(sample=9), skip_bad_rows=False
    )
    whole = dict(suite.prompts())
    for ordinal, prompt in PieceReader(suite).prompts(Piece(0, 4, 9)):
        assert _text(prompt) == _text(whole[ordinal])
        assert isinstance(prompt, Prompt)
        assert isinstance(prompt.item, Item)
