"""What a disk changes in a journal never counts: it is seen, told, and asked for again."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.caps import Volume
from harness.errors import StoreError
from harness.exchange import Outcome, Reply, ScoreRequest, Usage
from harness.journal import Journal
from harness.layout import CHECKED, checksum, reply_row, row_is_sound, sound
from harness.manifest import Exit
from harness.mending import mend
from harness.replies import StoredReplies
from harness.rescoring import rescore
from harness.scoring.scores import NOT_TRIED
from harness.watching.kept import Kept, kept
from tests.fake_endpoint import FakeEndpoint
from tests.ledger import note
from tests.making import listing_of
from tests.running import Bench, bench
from tests.test_journal import META, failed, key, listed, planned, success

__all__ = ["bench"]

FLIPS = 400
ITEM_CHANGES = (
    "asides = x'ff'",
    "keys = CAST(keys AS TEXT)",
    "n_tokens = x'0102'",
    "prompt_hash = CAST(prompt_hash AS TEXT)",
    "mode = CAST(x'ff' AS TEXT)",
    "problem = CAST(x'ff' AS TEXT)",
)
"""What a disk may make of what planning filled."""


def with_top(number: int) -> Outcome:
    """A request of which alternatives were named."""
    reply = Reply([7, 8], [-0.5, -0.25], [{" A": -0.5}, {"b": -0.25}], Usage(10, 2, 4), greedy=False)
    return Outcome(ScoreRequest(key(number), [1], [7, 8], top=1), reply, attempts=3)


def a_journal(path: Path, items: int = 3) -> None:
    """One of so many items, each with two replies: plain ones, and ones with alternatives."""
    with closing(Journal(path, meta=META)) as journal:
        journal.begin(listing_of([listed(n) for n in range(items)]))
        journal.plan([planned(n) for n in range(items)])
        for n in range(items):
            journal.put(success(2 * n, -0.5 - n, -1.25), with_top(2 * n + 1))
        journal.put(failed(99))


def change(path: Path, column: str, value: object, number: int) -> None:
    """Set a cell of the row of a request, as a disk might."""
    with closing(sqlite3.connect(path)) as journal, journal:
        journal.execute("PRAGMA ignore_check_constraints = 1")
        journal.execute(f"UPDATE replies SET {column} = ? WHERE key = ?", (value, key(number)))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A journal of three items."""
    a_journal(tmp_path / "j.sqlite")
    return tmp_path / "j.sqlite"


@given(bit=st.integers(0, 7), data=st.data())
def test_every_bit_counts(bit: int, data: st.DataObject) -> None:
    """A row that differs by a bit in anything that scores are made from has another checksum."""
    row = reply_row(with_top(1))
    assert row_is_sound(row)
    cells = [row[0], row[1], *row[3:8]]
    name = data.draw(st.sampled_from(["key", "forced_ids", "token_logprobs", "top_logprobs"]))
    cell = bytearray(cast(bytearray, cells[CHECKED.index(name)]))
    cell[data.draw(st.integers(0, len(cell) - 1))] ^= 1 << bit
    cells[CHECKED.index(name)] = cell
    assert not sound([*cells, row[-1]])


def test_bytes_that_move_from_one_column_to_the_next_are_seen() -> None:
    """A changed length in a row's head moves what stands behind it; the bytes are the same."""
    rest: tuple[Any, ...] = (None, -1.0, b"", None, None)
    assert checksum(b"ab", b"c", *rest) != checksum(b"a", b"bc", *rest)
    assert checksum(b"a", b"b", None, None, None, None, None) != checksum(b"a", b"b", *rest)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("forced_ids", b"\x07\0\0\0"),
        ("read_from", key(5)),
        ("sum", -0.7500000001),
        ("sum", "text"),
        ("token_logprobs", b"\0" * 16),
        ("top_logprobs", None),
        ("greedy", 1),
        ("checksum", 5),
        ("checksum", "text"),
    ],
)
def test_a_changed_row_is_never_a_score(path: Path, column: str, value: object) -> None:
    """Whoever reads the file finds the item unscored, with the reason, and nothing of the row anywhere."""
    change(path, column, value, 3)
    with closing(StoredReplies(path)) as journal:
        found = {score.record.ordinal: score.unscored for score in journal.scores()}
        assert found == {0: "", 1: found[1], 2: ""}
        assert found[1].startswith("damaged: the journal was changed on disk")
        assert key(3) not in journal.logprobs([key(3), key(2)])
        assert key(3) not in {each[0] for each in journal.tokens()}
        assert {row[0] for row in journal.rows_of([key(2), key(3)])} == {key(2)}


def test_what_was_changed_is_asked_for_again(path: Path) -> None:
    """It becomes a failure, which counts as often as it was sent, and gives way to a reply."""
    with closing(StoredReplies(path)) as journal:
        true = [score.sums for score in journal.scores()]
        attempts = journal.stats().attempts
    change(path, "sum", -3.5, 3)
    change(path, "greedy", None, 5)
    change(path, "attempts", 5, 5)
    assert mend(path) == 2
    assert mend(path) == 0
    with closing(Journal(path, meta=META)) as journal:
        assert journal.answered([key(n) for n in range(6)]) == {key(n) for n in (0, 1, 2, 4)}
        stats = journal.stats()
        assert (stats.attempts, stats.failures) == (attempts + 2, {"500": 1, "damaged": 2})
        journal.put(with_top(3), with_top(5))
        journal.flush()
        assert [score.sums for score in journal.scores()] == true


@pytest.mark.parametrize("column", ["key", "forced_ids", "token_logprobs", "top_logprobs"])
def test_a_blob_that_became_a_text(path: Path, column: str) -> None:
    """One changed bit of a cell's type leaves its bytes: readers go on, be they UTF-8 or not, and it is asked
    again."""
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(f"UPDATE replies SET {column} = CAST({column} AS TEXT) WHERE rowid = 2")
        assert file.execute(f"SELECT typeof({column}) FROM replies WHERE rowid = 2").fetchone() == ("text",)
    with closing(StoredReplies(path)) as reader:
        assert [bool(score.unscored) for score in reader.scores()] == [True, False, False]
        assert reader.rows_of([key(1)]) == []
        assert reader.logprobs([key(1)]) == {}
        assert key(1) not in {each[0] for each in reader.tokens()}
    assert mend(path) == 1
    assert mend(path) == 0
    with closing(Journal(path, meta=META)) as journal:
        assert journal.stats().failures == {"500": 1, "damaged": 1}
        assert journal.attempts_of([key(1)]) == {key(1): 3}
        journal.put(with_top(1))
        journal.flush()
        assert [score.unscored for score in journal.scores()] == ["", "", ""]


@pytest.mark.parametrize("value", [None, "CAST(x'ff61' AS TEXT)"])
def test_a_failure_whose_reason_was_changed(path: Path, value: str | None) -> None:
    """Neither stops a reader; one without a reason is damaged."""
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("PRAGMA ignore_check_constraints = 1")
        file.execute(f"UPDATE replies SET reason = {value or 'NULL'} WHERE sum IS NULL")
    with closing(StoredReplies(path)) as reader:
        assert reader.stats().failures == {"\ufffda" if value else "damaged": 1}
    assert mend(path) == (0 if value else 1)


@pytest.mark.parametrize("change", ITEM_CHANGES)
def test_an_item_that_was_changed(path: Path, change: str) -> None:
    """Whoever reads it is told that the command of the run mends it; that it does."""
    with closing(StoredReplies(path)) as reader:
        true = list(reader.scores())
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(f"UPDATE items SET {change} WHERE ordinal = 1")
    with closing(StoredReplies(path)) as reader, pytest.raises(StoreError, match=r"damaged"):
        list(reader.scores())
    with closing(Journal(path, meta=META)) as journal:
        journal.begin(listing_of([listed(n) for n in range(3)]))
        assert [score.unscored for score in journal.scores()] == ["", NOT_TRIED, ""]
        journal.plan([planned(1)])
        journal.flush()
        assert list(journal.scores()) == true


def test_what_is_asked_beside_a_damaged_item(path: Path) -> None:
    """The way out is told by those who read that alone."""
    with closing(sqlite3.connect(path)) as file, file:
        file.execute("UPDATE items SET asides = x'ff' WHERE ordinal = 1")
    told = "an item in it is damaged; give the command of the run again"
    with closing(StoredReplies(path)) as reader, pytest.raises(StoreError, match=told):
        reader.asides()


@pytest.mark.parametrize("name", ["shortcut", "adopted", "watched"])
@pytest.mark.parametrize("value", ["'{}'", "'nothing'", "'[1]'", "CAST(x'ff' AS TEXT)"])
def test_notes_that_cannot_be_read(path: Path, name: str, value: str) -> None:
    """They are as good as absent."""
    with closing(sqlite3.connect(path)) as file, file:
        file.execute(f"INSERT INTO meta VALUES (?, {value})", (name,))
    with closing(Journal(path, meta=META)) as journal:
        assert "shortcut" not in journal.meta
        assert journal.adopted() == Volume()
        assert kept(journal) == Kept()
        journal.note_shortcut('{"largest_difference": 0.5, "why": "changed"}')
    with closing(StoredReplies(path)) as reader:
        assert "changed" in reader.meta["shortcut"]


def test_a_changed_key_leaves_its_own_free(path: Path) -> None:
    """Where the key itself was changed, in its row or in the index of keys, the request is asked again."""
    content = path.read_bytes()
    at = content.index(key(3), content.index(b"CREATE TABLE replies"))
    places = [at, content.index(key(3), at + 1)]
    assert content.count(key(3)) == 3  # in the table, in its index, in its item
    for place in places:
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        mend(path)
        with closing(Journal(path, meta=META)) as journal:
            assert key(3) not in journal.answered([key(3)])
            journal.put(with_top(3))
            journal.flush()
            assert key(3) in journal.answered([key(3)])
            assert [score.unscored for score in journal.scores()] == ["", "", ""]


def flipped(content: bytes, chance: Random) -> bytes:
    """A file one bit of which has changed."""
    changed = bytearray(content)
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def scores_in(path: Path) -> Iterator[tuple[int, tuple[float, ...], str]]:
    """Each item that a journal can be asked for: its ordinal, its sums, why it has none."""
    with closing(StoredReplies(path)) as journal:
        for score in journal.scores():
            yield score.record.ordinal, score.sums, score.unscored


def test_a_bit_anywhere_in_the_file(path: Path) -> None:
    """Whichever bit of a journal changes: it is refused, or each item has the sums that it had, or none."""
    content, true = path.read_bytes(), {ordinal: sums for ordinal, sums, _ in scores_in(path)}
    chance, wrong = Random(9), 0
    for _ in range(FLIPS):
        path.write_bytes(flipped(content, chance))
        try:
            found = list(scores_in(path))
        except StoreError:
            continue
        wrong += sum(not why and sums != true.get(ordinal) for ordinal, sums, why in found)
    note("bits changed in journals", tried=FLIPS, lost=wrong, unit="bits")
    assert not wrong


async def test_a_run_whose_journal_was_changed(bench: Bench) -> None:
    """Tables that are made anew have no score of what was changed; the same command asks for that alone, says
    so, and ends with the tables of a run that nothing happened to."""
    async with FakeEndpoint() as endpoint:
        url = f"it={endpoint.base_url}"
        await bench.run(url)
        true, sent = bench.scores(), len(endpoint.bodies)
        (journal,) = (bench.folder / "run/journal").glob("*.sqlite")
        with closing(sqlite3.connect(journal)) as file, file:
            file.execute("UPDATE replies SET sum = sum / 2 WHERE rowid IN (3, 30, 60)")
        assert rescore(bench.folder / "run").accuracy["unscored"].max() > 0
        result = await bench.run(url)
        assert len(endpoint.bodies) - sent == 3
    assert result.exit is Exit.DONE
    assert bench.scores() == true
    (told,) = [each for each in result.remarks if "changed on disk" in each]
    assert told.startswith("it: 3 rows of its journal had been changed on disk: ")
    note("bits changed in journals", tried=3, lost=0, unit="bits")
