"""Tests of `texts.parquet`: each item once, in order, whole."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from harness.encoding import EncodedItem
from harness.errors import StoreError
from harness.pairs import EncodedPair
from harness.plan import EndpointIdentity, KeyMaker, PlannedItem, plan_item
from harness.texts import TEXT_TYPES, TextWriter
from tests.making import make_prompt

MAKER = KeyMaker(EndpointIdentity(dialect="friendli", base_url="http://h/v1", model="m", adapter=""))


def planned(ordinal: int, *, problem: str = "") -> PlannedItem:
    """An item of two choices."""
    prompt = make_prompt(f"Question {ordinal}:", [" yes", " no é"])
    pairs = (EncodedPair([1, 2, ordinal], [7]), EncodedPair([1, 2, ordinal], [8, 2**32 - 1]))
    encoded = EncodedItem(prompt, prompt.contexts(), () if problem else pairs, problem)
    return plan_item(encoded, ordinal, MAKER)


def rows(path: Path) -> list[dict[str, Any]]:
    """What the file holds."""
    return [dict(each) for each in parquet.read_table(path).to_pylist()]


def test_a_row_holds_texts_and_ids(tmp_path: Path) -> None:
    """Contexts, choices and ids as they were planned; an item that cannot be sent has texts only."""
    writer = TextWriter(tmp_path / "texts.parquet")
    writer.add(planned(0), "hash")
    writer.add(planned(1, problem="longer than --max-length"), "hash")
    writer.close()
    first, second = rows(tmp_path / "texts.parquet")
    assert first == {
        "task": "toy",
        "subject": "",
        "index": 0,
        "contexts": ["Question 0:", "Question 0:"],
        "choices": ["yes", "no é"],
        "context_ids": [[1, 2, 0], [1, 2, 0]],
        "forced_ids": [[7], [8, 2**32 - 1]],
        "tokenizer": "hash",
    }
    assert list(first) == list(TEXT_TYPES)
    assert (second["choices"], second["context_ids"], second["forced_ids"]) == (["yes", "no é"], [], [])


def test_items_of_several_endpoints_are_written_once(tmp_path: Path) -> None:
    """Whoever plans an item first writes it; rows that were no items leave gaps that do not matter."""
    ordinals = [n for n in range(300) if n % 7]
    writer = TextWriter(tmp_path / "texts.parquet")

    def endpoint() -> None:
        for ordinal in ordinals:
            writer.add(planned(ordinal), "hash")

    threads = [threading.Thread(target=endpoint) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    writer.close()
    assert [each["contexts"][0] for each in rows(tmp_path / "texts.parquet")] == [
        f"Question {n}:" for n in ordinals
    ]


def test_the_same_items_give_the_same_bytes(tmp_path: Path) -> None:
    """Row groups do not depend on who came first, nor on time."""
    contents = []
    for repeat in range(2):
        writer = TextWriter(tmp_path / "texts.parquet")
        for ordinal in range(300):
            for _ in range(repeat + 1):
                writer.add(planned(ordinal), "hash")
        writer.close()
        contents.append((tmp_path / "texts.parquet").read_bytes())
    assert contents[0] == contents[1]
    assert [each.name for each in tmp_path.iterdir()] == ["texts.parquet"]


def test_each_tokenizer_has_its_own_rows(tmp_path: Path) -> None:
    """Endpoints with tokenizers of their own split texts differently: both splits are kept."""
    writer = TextWriter(tmp_path / "texts.parquet")
    for ordinal in range(3):
        writer.add(planned(ordinal), "one")
        writer.add(planned(ordinal), "two")
    writer.close()
    assert [each["tokenizer"] for each in rows(tmp_path / "texts.parquet")] == ["one"] * 3 + ["two"] * 3


def test_an_incomplete_file_never_replaces_another(tmp_path: Path) -> None:
    """What a stopped run planned is better than nothing, and worse than what an earlier one wrote."""
    path = tmp_path / "texts.parquet"
    for n_items, complete, expected in ((2, False, 2), (1, False, 2), (3, True, 3), (1, True, 1)):
        writer = TextWriter(path)
        for ordinal in range(n_items):
            writer.add(planned(ordinal), "hash")
        writer.close(complete=complete)
        assert len(rows(path)) == expected
        assert [each.name for each in tmp_path.iterdir()] == ["texts.parquet"]


def test_nothing_planned_is_no_file(tmp_path: Path) -> None:
    """A writer that was given nothing leaves an earlier file alone, and may be closed twice."""
    writer = TextWriter(tmp_path / "texts.parquet")
    writer.close()
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    """The error names the file."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"texts\.parquet: "):
        TextWriter(tmp_path / "file" / "texts.parquet").add(planned(0), "hash")
