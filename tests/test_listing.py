"""The list of what a run asks for, made while rows are checked."""

from __future__ import annotations

import gc
import json
from pathlib import Path

import pytest

from harness.data import listing
from harness.data.listing import CHUNK, Listing
from harness.plan import listed
from harness.prompts import Selection
from harness.scoring.scores import ItemRecord
from harness.suite import Suite, prepare_suite


def record(ordinal: int) -> ItemRecord:
    """A record with something in every field that a check knows."""
    return ItemRecord(
        ordinal=ordinal,
        task="toy",
        subject="é",
        shots=1,
        index=ordinal,
        id=f"id {ordinal}",
        gold=(0, 2),
        cluster="c",
        n_chars=(1, 2, 3),
        n_bytes=(1, 2, 4),
        problem="bad row" if ordinal % 2 else "",
    )


@pytest.mark.parametrize("count", [0, 1, CHUNK, 3 * CHUNK + 1])
def test_records_come_back_as_they_were(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records come back whole and in order, as often as wanted, from memory or from the temporary file."""
    monkeypatch.setattr(listing, "IN_MEMORY", CHUNK * 100)
    found = Listing()
    for ordinal in range(count):
        found.add(record(ordinal))
    assert list(found) == list(found) == [record(ordinal) for ordinal in range(count)]


def test_two_readers_do_not_disturb_each_other() -> None:
    """A reader may begin while another is half way, and see records that come later."""
    found = Listing()
    for ordinal in range(3 * CHUNK):
        found.add(record(ordinal))
    first, second = iter(found), iter(found)
    assert [next(first).ordinal for _ in range(CHUNK + 1)][-1] == next(second).ordinal + CHUNK
    found.add(record(3 * CHUNK))
    assert [each.ordinal for each in first] == list(range(CHUNK + 1, 3 * CHUNK + 1))


def test_the_temporary_file_ends_with_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left open when the list is gone."""
    monkeypatch.setattr(listing, "IN_MEMORY", 1)
    found = Listing()
    for ordinal in range(CHUNK):
        found.add(record(ordinal))
    file = found._file
    del found
    gc.collect()
    assert file.closed


@pytest.mark.parametrize("selection", [Selection(), Selection(limit=2), Selection(sample=2, seed=3)])
def test_a_suite_lists_what_it_asks(tmp_path: Path, selection: Selection) -> None:
    """The list is that of the prompts that are made, whatever is chosen: golds and bad rows too."""
    for name in ("one", "two"):
        rows = [
            {"question": f"{name} {at}?", "choices": ["x", "ÿ"], "answer": at % 3, "subject": f"s{at % 2}"}
            for at in range(9)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    suite = prepare_suite(
        [f"file:{tmp_path}/one.jsonl", f"file:{tmp_path}/two.jsonl:cloze"],
        shots=None,
        data_dir=None,
        selection=selection,
        skip_bad_rows=True,
    )
    made = [listed(prompt, ordinal) for ordinal, prompt in Suite.prompts(suite)]
    assert list(suite.records()) == made
    assert len(made) == suite.size == (18 if selection == Selection() else 8)
