"""Folding journals: in any order, any grouping, any number of times it comes to the same; nothing is lost."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from hashlib import blake2b, sha256
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.errors import StoreError
from harness.exchange import Failure, Outcome, Reply, ScoreRequest, Usage
from harness.journal import Journal
from harness.layout import SHARD
from harness.mending import mend
from harness.merging.folding import fold
from harness.merging.rules import joined_evidence
from harness.replies import StoredReplies
from harness.scoring.scores import AsideRecord, ItemRecord
from harness.shortcut import Names, Shortcut
from harness.watching.judging import Difference
from harness.watching.kept import Kept, Proof, begin_look, joined, keep_proof, kept
from tests.making import listing_of

META = {"identity": '["friendli", "http://h/v1", "m", ""]', "replicate": "0"}
ITEMS, KEYS = 5, 12


def key(number: int) -> bytes:
    """A request key."""
    return blake2b(b"%d" % number, digest_size=16).digest()


def listed(ordinal: int) -> ItemRecord:
    """An item as a run lists it."""
    changes: dict[str, Any] = {"cluster": "", "gold": (1,), "n_chars": (1, 2), "n_bytes": (1, 2)}
    return ItemRecord(
        ordinal=ordinal, task="t", subject="", shots=0, index=ordinal, id=f"{ordinal}", **changes
    )


def outcomes() -> st.SearchStrategy[Outcome]:
    """What may come of a request: one of few keys, so that journals meet; of few values, so that some tie."""
    return st.builds(
        outcome,
        st.integers(0, KEYS - 1),
        st.sampled_from([None, "400", "timeout"]),
        st.sampled_from([-1.0, -2.5]),
        st.sampled_from([None, 99]),
        st.integers(1, 3),
    )


def outcome(number: int, reason: str | None, value: float, read_from: int | None, attempts: int) -> Outcome:
    """The outcome of a request."""
    request = ScoreRequest(key(number), [1, 2], [7])
    if reason is not None:
        return Outcome(request, failure=Failure(reason, "no", None), attempts=attempts)
    source = None if read_from is None else key(read_from)
    reply = Reply([7], [value], None, Usage(2, 1))
    return Outcome(request, reply, latency=-value, attempts=attempts, read_from=source)


def planned(ordinal: int, way: int) -> ItemRecord:
    """An item as planned, in one of several ways that ask by other keys, or ask more beside it."""
    hashed = sha256(b"%d" % ordinal).hexdigest()
    first = 2 * (ordinal + 7 * (way % 2)) % KEYS
    asides = (AsideRecord("empty", (key(0), key(1))),) if way > 1 else ()
    return replace(
        listed(ordinal),
        prompt_hash=hashed,
        context_sha256=(hashed, hashed),
        keys=(key(first), key(first + 1)),
        n_tokens=(1, 1),
        mode="single" if way % 2 else "forced",
        asides=asides,
    )


@dataclass(frozen=True)
class Drawn:
    """What is put into one journal."""

    outcomes: Sequence[Outcome]
    plans: Sequence[tuple[int, int]]
    evidence: str
    looks: int


def drawn() -> st.SearchStrategy[list[Drawn]]:
    """The contents of some journals."""
    plans = st.lists(st.tuples(st.integers(0, ITEMS - 1), st.integers(0, 3)), max_size=4)
    evidence = st.sampled_from(
        [
            "",
            Shortcut(20, _NoNames(), 3, 1e-6).evidence(),
            Shortcut(20, _NoNames(), 4, 1e-5).evidence(),
            '{"largest_difference": 0.25, "why": "in the middle"}',
        ]
    )
    one = st.builds(Drawn, st.lists(outcomes(), max_size=10), plans, evidence, st.integers(0, 2))
    return st.lists(one, min_size=2, max_size=4)


class _NoNames(Names):
    def __init__(self) -> None:
        self.rules = ("piece",)


def write(path: Path, content: Drawn, number: int) -> Path:
    """A real journal with this content, as a shard would have written it."""
    with closing(Journal(path, meta={**META, SHARD: f"{number}/9"})) as journal:
        journal.begin(listing_of(map(listed, range(ITEMS))))
        for each in content.outcomes:
            journal.put(each)
        journal.plan([planned(ordinal, way) for ordinal, way in content.plans])
        journal.flush()
        if content.evidence:
            journal.note_shortcut(content.evidence)
        for at in range(content.looks):
            begin_look(journal, "start", 1000.0 * at + number)
            keep_proof(journal, Proof("start", at, Difference(tokens=1, mean=0.1, largest=0.1, shift=0.1)))
    return path


def content_of(path: Path) -> list[list[tuple[Any, ...]]]:
    """All that stands in a journal."""
    with closing(sqlite3.connect(path)) as opened:
        queries = ("replies ORDER BY key", "items ORDER BY ordinal", "meta ORDER BY name")
        return [opened.execute(f"SELECT * FROM {each}").fetchall() for each in queries]


class Folder:
    """Where journals are made and folded."""

    def __init__(self, folder: Path) -> None:
        """`folder` is empty."""
        self.folder = folder
        self.listing = listing_of(map(listed, range(ITEMS)))
        self.listing.flush()
        self._numbers = count()

    def folded(self, *steps: Sequence[Path]) -> Path:
        """A new journal into which these were folded, step by step."""
        whole = self.folder / f"whole{next(self._numbers)}.sqlite"
        for parts in steps:
            fold(whole, parts, self.listing.path, META)
        return whole


@settings(max_examples=20)
@given(drawn(), st.randoms(use_true_random=False))
def test_any_order_comes_to_the_same(contents: list[Drawn], random: Any) -> None:
    """Folding commutes, associates, and may be repeated; the sum of all is the same, row by row."""
    with tempfile.TemporaryDirectory() as name:
        folder = Folder(Path(name))
        parts = [write(folder.folder / f"{at}.sqlite", each, at + 1) for at, each in enumerate(contents)]
        expected = content_of(folder.folded(parts))
        shuffled = random.sample(parts, len(parts))
        assert content_of(folder.folded(shuffled)) == expected
        assert content_of(folder.folded(*([each] for each in shuffled), parts)) == expected
        whole = folder.folded(parts)
        fold(whole, parts, folder.listing.path, META)
        assert content_of(whole) == expected
        halves = folder.folded(parts[:1]), folder.folded(parts[1:])
        assert content_of(folder.folded([halves[0]], [halves[1]], parts)) == expected


@settings(max_examples=15)
@given(drawn())
def test_nothing_is_lost(contents: list[Drawn]) -> None:
    """What any journal answers is answered, what was forced is not read off, and attempts are the most that
    anybody counted; all looks are there."""
    with tempfile.TemporaryDirectory() as name:
        folder = Folder(Path(name))
        parts = [write(folder.folder / f"{at}.sqlite", each, at + 1) for at, each in enumerate(contents)]
        before = [content_of(each)[0] for each in parts]
        with closing(StoredReplies(folder.folded(parts))) as whole:
            rows = {row[0]: row for row in content_of(whole.path)[0]}
            looks = kept(whole).seen
    assert set(rows) == {row[0] for each in before for row in each}
    for row in (row for each in before for row in each):
        now = rows[row[0]]
        assert (now[4] is None) <= (row[4] is None)
        if row[4] is not None and row[3] is None:
            assert now[3] is None
        assert now[12] >= row[12]
    assert len(looks) == sum(each.looks for each in contents)


def test_a_damaged_row_gives_way(tmp_path: Path) -> None:
    """A row that the disk changed never takes the place of one that is as it was written."""
    folder = Folder(tmp_path)
    reply = Drawn([outcome(0, None, -1.0, None, 1)], [], "", 0)
    worse = Drawn([outcome(0, None, -1.0, 99, 1)], [], "", 0)
    one, other = write(tmp_path / "1.sqlite", reply, 1), write(tmp_path / "2.sqlite", worse, 2)
    sound = content_of(other)[0]
    with closing(sqlite3.connect(one)) as opened, opened:
        opened.execute("UPDATE replies SET token_logprobs = x'0000000000000000'")
    for parts in ([one, other], [other, one]):
        assert content_of(folder.folded(parts))[0] == sound


@pytest.mark.parametrize("value", ["CAST(x'ff' AS TEXT)", "CAST(token_logprobs AS TEXT)"])
def test_a_blob_that_became_a_text(tmp_path: Path, value: str) -> None:
    """A cell that cannot be handed to anybody stops no merge, and its row is never taken for a good one."""
    folder = Folder(tmp_path)
    reply = Drawn([outcome(0, None, -1.0, None, 1)], [], "", 0)
    one, other = write(tmp_path / "1.sqlite", reply, 1), write(tmp_path / "2.sqlite", reply, 2)
    sound = content_of(other)[0]
    change(one, f"UPDATE replies SET token_logprobs = {value}")
    for parts in ([one, other], [other, one]):
        assert content_of(folder.folded(parts))[0] == sound
    whole = folder.folded([one])
    with closing(StoredReplies(whole)) as reader:
        assert reader.logprobs([key(0)]) == {}
    assert mend(whole) == 1


@pytest.mark.parametrize("value", ["sum = NULL", "forced_ids = NULL", "reason = '400'"])
def test_a_row_that_may_not_be(tmp_path: Path, value: str) -> None:
    """It is a failure, whoever has it, and the reply that another has takes its place."""
    folder = Folder(tmp_path)
    reply = Drawn([outcome(0, None, -1.0, None, 2), outcome(1, None, -1.0, None, 1)], [], "", 0)
    one, other = write(tmp_path / "1.sqlite", reply, 1), write(tmp_path / "2.sqlite", reply, 2)
    expected = content_of(folder.folded([other]))[0]
    remade = _without_limits(one, value)
    for parts in ([remade, other], [other, remade]):
        assert content_of(folder.folded(parts))[0] == expected
    whole = folder.folded([remade])
    with closing(StoredReplies(whole)) as reader:
        assert reader.stats().failures == {"damaged": 1}
        assert reader.attempts_of([key(0)]) == {key(0): 2}
        assert reader.answered([key(0), key(1)]) == {key(1)}
    harmed = _without_limits(whole, value)
    fold(harmed, [remade], folder.listing.path, META)
    with closing(StoredReplies(harmed)) as reader:
        assert reader.stats().failures == {"damaged": 1}


def _without_limits(path: Path, value: str) -> Path:
    """A journal whose first request has such a row, as only a disk can make one."""
    with closing(sqlite3.connect(path)) as opened, opened:
        opened.execute("PRAGMA writable_schema = 1")
        (table,) = opened.execute("SELECT sql FROM sqlite_master WHERE name = 'replies'").fetchone()
        loose = table.replace("NOT NULL,", ",").replace(
            "CHECK ((sum IS NULL) = (reason IS NOT NULL))", "CHECK (1)"
        )
        opened.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'replies'", (loose,))
    with closing(sqlite3.connect(path)) as opened, opened:
        opened.execute(f"UPDATE replies SET {value} WHERE key = ?", (key(0),))
    with closing(sqlite3.connect(path)) as opened, opened:
        opened.execute("PRAGMA writable_schema = 1")
        opened.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'replies'", (table,))
    return path


@pytest.mark.parametrize(
    "value",
    ["asides = x'ff'", "mode = CAST(x'ff' AS TEXT)", "keys = CAST(keys AS TEXT)", "n_tokens = x'01'"],
)
def test_a_damaged_plan_gives_way(tmp_path: Path, value: str) -> None:
    """A plan that cannot be read is passed over, wherever it is; with no other, the item is not planned."""
    folder = Folder(tmp_path)
    content = Drawn([], [(0, 2), (1, 0)], "", 0)
    one, other = write(tmp_path / "1.sqlite", content, 1), write(tmp_path / "2.sqlite", content, 2)
    expected = content_of(folder.folded([other]))[1]
    change(one, f"UPDATE items SET {value} WHERE ordinal = 0")
    for parts in ([one, other], [other, one]):
        assert content_of(folder.folded(parts))[1] == expected
    whole = folder.folded([one])
    with closing(StoredReplies(whole)) as reader:
        assert [score.record for score in reader.scores()][:2] == [listed(0), planned(1, 0)]
    harmed = folder.folded([other])
    change(harmed, f"UPDATE items SET {value} WHERE ordinal = 0")
    fold(harmed, [one], folder.listing.path, META)
    with closing(StoredReplies(harmed)) as reader:
        assert [score.record for score in reader.scores()][:2] == [listed(0), planned(1, 0)]
    change(harmed, f"UPDATE items SET {value} WHERE ordinal = 0")
    fold(harmed, [other], folder.listing.path, META)
    assert content_of(harmed)[1] == expected


def change(path: Path, statement: str) -> None:
    """Change a file, as a disk might."""
    with closing(sqlite3.connect(path)) as opened, opened:
        opened.execute(statement)


def test_the_file_that_is_damaged_is_named(tmp_path: Path) -> None:
    """A broken page of a part, or of the list, blames that file, and says what to do; not the whole's."""
    folder = Folder(tmp_path)
    rows = Drawn([outcome(n, None, -1.0, None, 1) for n in range(KEYS)], [], "", 0)
    one = write(tmp_path / "1.sqlite", rows, 1)
    whole = folder.folded([one])
    with closing(sqlite3.connect(one)) as opened:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'replies'"
        (page,), (size,) = opened.execute(query).fetchone(), opened.execute("PRAGMA page_size").fetchone()
    broken = bytearray(one.read_bytes())
    broken[(page - 1) * size : page * size] = b"\x55" * size
    one.write_bytes(broken)
    with pytest.raises(StoreError, match=r"1\.sqlite: is damaged; .* the command of its shard again"):
        fold(whole, [one], folder.listing.path, META)
    empty = tmp_path / "items.sqlite"
    empty.write_bytes(b"")
    with pytest.raises(StoreError, match=r"items\.sqlite: is damaged; delete it, and run any shard again"):
        fold(whole, [], empty, META)


def test_evidence_that_cannot_be_read(tmp_path: Path) -> None:
    """It is as good as absent, and what another journal says stands."""
    folder = Folder(tmp_path)
    said = Shortcut(20, _NoNames(), 4, 1e-5).evidence()
    one, other = (write(tmp_path / f"{n}.sqlite", Drawn([], [], said, 0), n) for n in (1, 2))
    change(one, "UPDATE meta SET value = '{}' WHERE name = 'shortcut'")
    with closing(StoredReplies(folder.folded([one, other]))) as reader:
        assert reader.meta["shortcut"] == said
    with closing(StoredReplies(folder.folded([one]))) as reader:
        assert "shortcut" not in reader.meta


def test_items_that_stand_elsewhere(tmp_path: Path) -> None:
    """Plans that were made from another list are found by what their items are."""
    folder = Folder(tmp_path)
    moved = [replace(planned(ordinal, 0), ordinal=ITEMS - 1 - ordinal) for ordinal in range(ITEMS)]
    with closing(Journal(tmp_path / "1.sqlite", meta=META)) as journal:
        journal.begin(listing_of(sorted(moved, key=lambda each: each.ordinal)))
        journal.plan(moved)
        journal.flush()
    with closing(StoredReplies(folder.folded([tmp_path / "1.sqlite"]))) as whole:
        assert [score.record for score in whole.scores()] == [planned(ordinal, 0) for ordinal in range(ITEMS)]


def test_an_item_that_is_another_by_now(tmp_path: Path) -> None:
    """A plan of an item whose content differs is not taken."""
    folder = Folder(tmp_path)
    other = replace(planned(0, 0), n_bytes=(5, 5))
    with closing(Journal(tmp_path / "1.sqlite", meta=META)) as journal:
        journal.begin(listing_of([other]))
        journal.plan([other])
        journal.flush()
    with closing(StoredReplies(folder.folded([tmp_path / "1.sqlite"]))) as whole:
        assert next(whole.scores()).record == listed(0)


@pytest.mark.parametrize("order", [1, -1])
def test_evidence_against_reading_weighs_most(order: int) -> None:
    """That alternatives were once not what forcing gives stays, with the largest difference that was seen."""
    texts = [
        Shortcut(20, _NoNames(), 4, 1e-5).evidence(),
        '{"largest_difference": 0.25, "why": "it changed"}',
        '{"largest_difference": 0.125, "why": "later"}',
    ]
    assert '"why"' in joined_evidence(texts[::order])
    assert '"largest_difference": 0.25' in joined_evidence(texts[::order])
    assert joined_evidence(texts[::order]) == joined_evidence(texts)


def test_nothing_noted_stays_nothing() -> None:
    """Of journals that saw nothing there is nothing to join."""
    assert joined([Kept(), Kept()]) == Kept()
