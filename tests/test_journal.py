"""Tests of the journal: what is committed stays, what fails is said, what is stored comes back."""

from __future__ import annotations

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from hashlib import blake2b, sha256
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import StoreError
from harness.exchange import Failure, Outcome, Reply, ScoreRequest, Usage
from harness.journal import GROUP_ROWS, Journal
from harness.layout import SCHEMA, item_record, item_row
from harness.replies import JournalStats, StoredReplies
from harness.scoring.scores import NOT_TRIED, ItemRecord
from tests.making import listing_of

META = {"identity": '["friendli", "http://h/v1", "m", ""]', "replicate": "0"}


def key(number: int) -> bytes:
    """A request key."""
    return blake2b(b"%d" % number, digest_size=16).digest()


def success(number: int, *values: float) -> Outcome:
    """A request that was answered."""
    values = values or (-1.0,)
    ids = list(range(len(values)))
    return Outcome(ScoreRequest(key(number), [1, 2], ids), Reply(ids, values, None, Usage(2, len(values))))


def failed(number: int, reason: str = "500", detail: str = "busy") -> Outcome:
    """A request that failed for good."""
    return Outcome(ScoreRequest(key(number), [1, 2], [3]), failure=Failure(reason, detail, 500), attempts=8)


def listed(ordinal: int) -> ItemRecord:
    """An item as a run lists it."""
    return ItemRecord(
        ordinal=ordinal,
        task="mmlu",
        subject="law",
        shots=5,
        index=ordinal,
        id=f"é-{ordinal}",
        gold=(1,),
        cluster="c",
        n_chars=(1, 300),
        n_bytes=(1, 301),
    )


def planned(ordinal: int) -> ItemRecord:
    """The same item with its two requests, which have the keys 2n and 2n + 1."""
    hashed = sha256(b"%d" % ordinal).hexdigest()
    return replace(
        listed(ordinal),
        prompt_hash=hashed,
        context_sha256=(hashed, hashed),
        keys=(key(2 * ordinal), key(2 * ordinal + 1)),
        n_tokens=(1, 70_000),
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where a journal is made."""
    return tmp_path / "j.sqlite"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    """A new journal."""
    with closing(Journal(path, meta=META)) as opened:
        yield opened


def test_a_reply_comes_back_as_the_sum_of_its_tokens(journal: Journal) -> None:
    """What was put is found again as the score of its item, to the last bit."""
    journal.begin(listing_of([listed(0)]))
    journal.plan([planned(0)])
    journal.put(success(0, -0.1, -0.2, -0.3))
    journal.put(success(1, -1e-9))
    journal.flush()
    [score] = journal.scores()
    assert score.record == planned(0)
    assert score.sums == (-0.6, -1e-9)


def test_every_column_of_a_reply_is_kept(journal: Journal, path: Path) -> None:
    """Ids, log-probabilities, alternatives, usage, latency and attempts can be read back from the file."""
    reply = Reply([7, 8], [-0.5, -0.25], [{" A": -0.5}, {"b": -0.25}], Usage(10, 2, 4), greedy=False)
    journal.put(Outcome(ScoreRequest(key(0), [1], [7, 8], top=1), reply, latency=0.25, attempts=3))
    journal.flush()
    with closing(sqlite3.connect(path)) as reader:
        reader.row_factory = sqlite3.Row
        row = dict(reader.execute("SELECT * FROM replies").fetchone())
    assert 0 < row.pop("checksum") < 2**32
    assert msgspec.msgpack.decode(row.pop("top_logprobs")) == [{" A": -0.5}, {"b": -0.25}]
    assert row == {
        "key": key(0),
        "forced_ids": bytes([7, 0, 0, 0, 8, 0, 0, 0]),
        "n_context": 1,
        "read_from": None,
        "sum": -0.75,
        "token_logprobs": bytes([0, 0, 0, 0, 0, 0, 0xE0, 0xBF, 0, 0, 0, 0, 0, 0, 0xD0, 0xBF]),
        "greedy": 0,
        "prompt_tokens": 10,
        "completion_tokens": 2,
        "cached_tokens": 4,
        "latency_ms": 250.0,
        "attempts": 3,
        "reason": None,
        "detail": None,
        "status": None,
    }


def test_a_reply_counts_only_once_committed(path: Path) -> None:
    """When `on_commit` names a key, another reader of the file already finds it."""
    seen: list[bool] = []

    def look(keys: object) -> None:
        with closing(StoredReplies(path)) as other:
            seen.append(other.answered([key(0), key(1)]) == {key(0), key(1)})

    with closing(Journal(path, meta=META, on_commit=look)) as journal:
        journal.put(success(0))
        journal.put(success(1))
        journal.flush()
        assert seen[-1]


def test_rows_are_committed_in_groups(path: Path) -> None:
    """Rows that come together are committed together, and on_commit names each once, in order."""
    groups: list[list[bytes]] = []
    with closing(Journal(path, meta=META, on_commit=lambda keys: groups.append(list(keys)))) as journal:
        for number in range(3 * GROUP_ROWS):
            journal.put(success(number))
        journal.flush()
    assert [each for group in groups for each in group] == [key(n) for n in range(3 * GROUP_ROWS)]
    assert len(groups) < 300


def test_a_group_is_committed_without_being_asked_for(path: Path) -> None:
    """A single row does not wait for others for ever."""
    committed = threading.Event()
    with closing(Journal(path, meta=META, on_commit=lambda keys: committed.set())) as journal:
        journal.put(success(0))
        assert committed.wait(10)


def test_a_success_replaces_a_failure_and_stays(journal: Journal) -> None:
    """A stored failure gives way to a reply; a stored reply gives way to nothing."""
    journal.begin(listing_of([listed(0)]))
    journal.plan([planned(0)])
    journal.put(success(1, -2.0))
    for outcome, expected in (
        (failed(0, "500"), "500: busy"),
        (failed(0, "429"), "429: busy"),
        (success(0, -1.0), ""),
        (failed(0), ""),
        (success(0, -5.0), ""),
    ):
        journal.put(outcome)
        journal.flush()
        [score] = journal.scores()
        assert score.unscored == expected
    assert score.sums == (-1.0, -2.0)


def test_answered_works_from_other_threads_and_leaves_failures_out(journal: Journal) -> None:
    """Any thread may ask, with any number of keys; a failure is no answer."""
    for number in range(1000):
        journal.put(failed(number) if number % 2 else success(number))
    journal.flush()
    found: list[set[bytes]] = []
    asking = threading.Thread(target=lambda: found.append(journal.answered([key(n) for n in range(3000)])))
    asking.start()
    asking.join()
    assert found == [{key(n) for n in range(0, 1000, 2)}]


def test_scores_come_in_order_and_two_may_read_at_once(journal: Journal) -> None:
    """Each iterator is one reader of its own, and sees the file as it was when it began."""
    journal.begin(listing_of(listed(ordinal) for ordinal in range(700)))
    journal.plan([planned(ordinal) for ordinal in reversed(range(699))])
    for number in range(2 * 699):
        journal.put(success(number, -float(number + 1)))
    journal.flush()
    one, two = journal.scores(), journal.scores()
    assert next(one).record.ordinal == 0
    journal.begin(listing_of([]))
    rest = list(one)
    assert [score.record.ordinal for score in rest] == list(range(1, 700))
    assert rest[4].sums == (-11.0, -12.0)
    assert rest[-1].unscored == NOT_TRIED
    assert list(two) == []


def test_begin_lists_anew_but_knows_what_was_planned(path: Path) -> None:
    """A new session replaces the items; replies to the same items are found before they are planned again."""
    with closing(Journal(path, meta=META)) as first:
        assert first.begin(listing_of(listed(ordinal) for ordinal in range(3))) == 3
        first.plan([planned(0), planned(2)])
        for number in (0, 1, 4, 5):
            first.put(success(number))
    altered = replace(listed(2), n_bytes=(1, 302))
    with closing(Journal(path, meta=META)) as second:
        second.begin(listing_of([replace(altered, ordinal=0), replace(listed(0), ordinal=1)]))
        scores = list(second.scores())
    assert [score.record for score in scores] == [replace(altered, ordinal=0), replace(planned(0), ordinal=1)]
    assert [bool(score.sums) for score in scores] == [False, True]


def test_a_list_that_cannot_be_copied_changes_nothing(journal: Journal) -> None:
    """`begin` is all or nothing, and can be given again."""
    journal.begin(listing_of([listed(0)]))
    gone = listing_of([listed(1)])
    gone.flush()
    gone.path.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError):
        journal.begin(gone)
    assert [score.record for score in journal.scores()] == [listed(0)]
    assert journal.begin(listing_of([listed(1)])) == 1


def test_stats_count_all_that_is_stored(journal: Journal) -> None:
    """Replies, failures by reason, attempts and tokens; what the endpoint never said is None."""
    first = success(0)
    read = replace(success(5), reply=Reply([0], [-1.0]), attempts=0, read_from=first.request.key)
    for outcome in (first, read, success(1, -1.0, -2.0), failed(2), failed(3), failed(4, "timeout")):
        journal.put(outcome)
    journal.flush()
    assert journal.stats() == JournalStats(
        replies=2,
        read=1,
        failures={"500": 2, "timeout": 1},
        attempts=26,
        context_tokens=52,
        forced_tokens=27,
        prompt_tokens=4,
        completion_tokens=3,
        cached_tokens=None,
    )


def test_one_odd_reply_does_not_stop_the_writer(journal: Journal) -> None:
    """Texts and counts that SQLite cannot hold are bent, not fatal."""
    reply = Reply([0], [-1.0], None, Usage(10**30, -1, 2))
    journal.put(Outcome(ScoreRequest(key(0), [1], [0]), reply))
    journal.put(failed(1, detail="half \ud800 a character"))
    journal.flush()
    stats = journal.stats()
    assert (stats.replies, stats.prompt_tokens, stats.cached_tokens) == (1, None, 2)
    assert stats.failures == {"500": 1}


CHILD = """
import sys
from pathlib import Path
from harness.journal import Journal
from tests.test_journal import META, success

def shout(keys):
    sys.stdout.write("".join(f"{key.hex()}\\n" for key in keys))
    sys.stdout.flush()

journal = Journal(Path(sys.argv[1]), meta=META, on_commit=shout)
for number in range(10**9):
    journal.put(success(number, -float(number), -0.5))
    if number % 500 == 499:
        journal.flush()
"""


def test_what_was_committed_survives_sigkill(path: Path) -> None:
    """Every key that a killed process had named is found again, with its reply."""
    root = Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(path)], stdout=subprocess.PIPE, text=True, env=environment
    )
    assert child.stdout is not None
    with child.stdout:
        named = [child.stdout.readline() for _ in range(2500)]
        child.send_signal(signal.SIGKILL)
        named += child.stdout.readlines()
    assert child.wait() == -signal.SIGKILL
    keys = [bytes.fromhex(line) for line in named if line.endswith("\n")]
    assert len(keys) >= 2500
    with closing(Journal(path, meta=META)) as journal:
        assert journal.answered(keys) == set(keys)
        journal.put(success(-1))


def test_a_closed_journal_is_one_plain_file(path: Path) -> None:
    """Closing folds the log in, so that the file can be copied, and read where nothing can be written."""
    with closing(Journal(path, meta=META)) as journal:
        journal.begin(listing_of([listed(0)]))
        journal.plan([planned(0)])
        journal.put(success(0))
        journal.put(success(1))
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    before = path.read_bytes()
    with closing(StoredReplies(path)) as reader:
        assert reader.meta == {"schema": SCHEMA, **META}
        assert [score.sums for score in reader.scores()] == [(-1.0, -1.0)]
    assert path.read_bytes() == before


def test_closing_twice_is_once_and_nothing_is_put_after(journal: Journal) -> None:
    """A closed journal says so instead of losing what it is given."""
    journal.close()
    journal.close()
    with pytest.raises(StoreError, match="closed"):
        journal.put(success(0))


def test_another_endpoints_journal_is_refused(journal: Journal, path: Path) -> None:
    """The error names what differs, and both values."""
    with pytest.raises(StoreError, match="replicate is 0 there and 1 now"):
        Journal(path, meta={**META, "replicate": "1"})
    with pytest.raises(StoreError, match="tokenizer is nothing there and x now"):
        Journal(path, meta={**META, "tokenizer": "x"})


def test_another_schema_is_refused(journal: Journal, path: Path) -> None:
    """A file of another version of this program is neither read nor changed."""
    journal.close()
    with closing(sqlite3.connect(path)) as writer, writer:
        writer.execute("UPDATE meta SET value = '0' WHERE name = 'schema'")
    for opening in (partial(Journal, path, meta=META), partial(StoredReplies, path)):
        with pytest.raises(StoreError, match=f"schema 0, this version reads {SCHEMA}"):
            opening()


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to look at" * 50, b"SQLite format 3\0"]
)
def test_a_file_that_is_no_database_is_one_clear_line(path: Path, content: bytes) -> None:
    """The file is named and stays as it was."""
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"j\.sqlite: is no journal of this program") as caught:
        Journal(path, meta=META)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


def test_another_programs_database_is_left_alone(path: Path) -> None:
    """A database that is no journal is refused without a change."""
    with closing(sqlite3.connect(path)) as writer, writer:
        writer.execute("CREATE TABLE recipes (name)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="is no journal"):
        Journal(path, meta=META)
    assert path.read_bytes() == before


def test_damage_inside_the_file_is_one_clear_line(journal: Journal, path: Path) -> None:
    """A page that was overwritten is found when it is read, and named as damage."""
    journal.begin(listing_of(listed(ordinal) for ordinal in range(2000)))
    journal.close()
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 8192] = b"\xff" * 8192
    path.write_bytes(content)
    with (
        pytest.raises(StoreError, match=r"j\.sqlite: is damaged"),
        closing(StoredReplies(path)) as reader,
    ):
        list(reader.scores())


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    """A folder that is a file, and a folder that is not there."""
    (tmp_path / "file").write_text("")
    for folder in ("file", "nowhere"):
        with pytest.raises(StoreError, match="cannot be opened; its folder must exist"):
            Journal(tmp_path / folder / "j.sqlite", meta=META)


def test_a_writer_that_fails_is_heard_of(journal: Journal) -> None:
    """Where the disk takes no more, `flush` and every later `put` raise; nothing waits for ever."""
    journal.put(success(0))
    journal.flush()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(
        resource.RLIMIT_FSIZE, (100_000, hard)
    )  # SQLite sees a failing write, as on a full disk
    try:
        with pytest.raises(StoreError, match=r"j\.sqlite: "):
            for number in range(1, 20 * GROUP_ROWS):
                journal.put(success(number))
            journal.flush()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert journal.failure is not None
    with pytest.raises(StoreError):
        journal.put(success(1))
    assert journal.answered([key(0)]) == {key(0)}


def test_a_failure_nobody_heard_of_is_raised_by_close(path: Path) -> None:
    """What could not be written is never lost in silence, not even at the end."""

    def broken(keys: object) -> None:
        raise ZeroDivisionError("listener")

    journal = Journal(path, meta=META, on_commit=broken)
    journal.put(success(0))
    with pytest.raises(StoreError, match="listener"):
        journal.close()
    journal.close()


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
NUMBERS = st.lists(st.integers(0, 2**32 - 1), max_size=6).map(tuple)
DIGESTS = st.lists(st.binary(min_size=32, max_size=32).map(bytes.hex), max_size=4).map(tuple)


@settings(max_examples=50, deadline=None)
@given(
    st.builds(
        ItemRecord,
        ordinal=st.just(0),
        task=TEXTS,
        subject=TEXTS,
        shots=st.integers(0, 99),
        index=st.integers(0, 2**40),
        id=TEXTS,
        gold=NUMBERS,
        cluster=TEXTS,
        n_chars=NUMBERS,
        n_bytes=NUMBERS,
        prompt_hash=st.sampled_from(["", "0" * 64, "ab" * 32]),
        context_sha256=DIGESTS,
        keys=st.lists(st.binary(min_size=16, max_size=16), max_size=4).map(tuple),
        n_tokens=NUMBERS,
        problem=TEXTS,
    )
)
def test_a_record_comes_back_as_it_was(record: ItemRecord) -> None:
    """Packing loses nothing, whatever texts and numbers an item has."""
    assert item_record(item_row(record)) == record
