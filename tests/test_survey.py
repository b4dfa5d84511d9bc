"""The checking pass: everything is counted, everything wrong is named, altered copies are noticed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import Dataset, Row, Split
from harness.choosing.registry import load_task
from harness.data.rows import open_rows
from harness.data.survey import BAD_ROWS_KEPT, ContentHash, bad_rows_error, differences, survey
from harness.items import list_from_text
from tests.making import make_rows, make_task

COLUMNS = ("question", "choices", "answer")


def digest(rows: Sequence[Row], columns: Sequence[str] = COLUMNS) -> str:
    """The content hash of some rows."""
    content = ContentHash(columns)
    for row in rows:
        content.add(row)
    return content.hexdigest()


def write(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """A JSON Lines file of these rows, as the test split of the toy task."""
    (folder / "toy").mkdir(exist_ok=True)
    (folder / "toy" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_counts_in_order_of_appearance() -> None:
    """Rows are counted by subject, subjects in the order in which they first appear."""
    found = survey(make_task(), make_rows(3, subjects=("zoology", "algebra")))
    assert found.rows == 6
    assert list(found.counts.items()) == [("zoology", 3), ("algebra", 3)]
    assert (found.n_bad, found.bad) == (0, ())


def test_bad_rows_are_named_by_place_and_field(tmp_path: Path) -> None:
    """Gold out of range, a missing column, null text and an empty choice: data set, split, line and field."""
    good = {"question": "One and one?", "choices": ["two", "three"], "answer": 0}
    rows: list[dict[str, Any]] = [
        good,
        {**good, "answer": 2},
        {"question": "One and one?", "choices": ["two", "three"]},
        {**good, "question": None},
        {**good, "choices": ["two", ""]},
        good,
    ]
    write(tmp_path, rows)
    task = make_task()
    found = survey(task, open_rows(task, "test", tmp_path))
    assert (found.rows, found.n_bad) == (6, 4)
    text = str(bad_rows_error(found))
    assert text.splitlines() == [
        "4 of 6 rows are no items:",
        "  toy/test.jsonl line 2: field 'answer': gold 2 is out of range for 2 choices",
        "  toy/test.jsonl line 3: field 'answer': missing; the row has 'question', 'choices'",
        "  toy/test.jsonl line 4: field 'question': is null",
        "  toy/test.jsonl line 5: field 'choices[1]': is empty",
        "Mend them, or pass --skip-bad-rows to count them as unscored.",
    ]


def test_first_twenty_are_named_and_all_are_counted() -> None:
    """Of many bad rows the first twenty are listed, and how many more there are."""
    rows = [replace(row, values={**row.values, "answer": 9 + row.index}) for row in make_rows(1_030)]
    found = survey(make_task(), [*make_rows(1), *rows])
    assert (found.n_bad, len(found.bad)) == (1_030, BAD_ROWS_KEPT)
    lines = str(bad_rows_error(found)).splitlines()
    assert len(lines) == 1 + BAD_ROWS_KEPT + 1 + 1
    assert lines[0] == "1,030 of 1,031 rows are no items:"
    assert lines[-2] == "  and 1,010 more"


def test_the_same_problem_everywhere_is_told_once(tmp_path: Path) -> None:
    """A column that all lines lack is reported once, with the first place."""
    write(tmp_path, [{"question": "One and one?", "answer": 0}] * 30)
    task = make_task()
    text = str(bad_rows_error(survey(task, open_rows(task, "test", tmp_path))))
    assert text == (
        "all 30 rows are bad as the first is: toy/test.jsonl line 1: field 'choices': missing; the row has"
        " 'question', 'answer'. Mend them, or pass --skip-bad-rows to count them as unscored."
    )


def test_hash_depends_on_rows_and_their_order_within_a_subject() -> None:
    """Any changed column, a row fewer, or two rows swapped give another hash."""
    rows = make_rows(5)
    changed = [*rows[:-1], replace(rows[-1], values={**rows[-1].values, "answer": 1})]
    other = {digest(rows), digest(rows[:-1]), digest(rows[::-1]), digest(changed)}
    assert len(other) == 4


def test_hash_ignores_other_columns_and_the_order_of_keys() -> None:
    """Ids and notes do not count, nor in which order a file has its columns."""
    rows = make_rows(4)
    noted = [
        replace(row, values={"note": row.place, **dict(reversed(list(row.values.items())))}) for row in rows
    ]
    assert digest(noted) == digest(rows)


@given(st.permutations(["a", "b", "c", "d"]), st.integers())
def test_hash_ignores_the_order_of_subjects(order: list[str], seed: int) -> None:
    """Subjects in any order, one after another or mixed, give the same hash."""
    wanted = digest(make_rows(3, subjects=("a", "b", "c", "d")))
    assert digest(make_rows(3, subjects=order)) == wanted
    mixed = make_rows(3, subjects=order)
    Random(seed).shuffle(mixed)
    assert digest(sorted(mixed, key=lambda row: row.index)) == wanted


def test_hash_is_that_of_the_text_not_of_the_format() -> None:
    """Numbers and lists hash alike whether they are themselves or text in a CSV cell."""
    typed = Row({"question": "é [x]", "choices": ["1", "None"], "answer": 3}, "", subject="s")
    wanted = digest([typed])
    for cell in ('["1", "None"]', "['1', 'None']"):
        assert digest([Row({"question": "é [x]", "choices": cell, "answer": "3"}, "", subject="s")]) == wanted
    assert digest([replace(typed, values={**typed.values, "choices": "1, None"})]) != wanted


def test_hash_by_hand() -> None:
    """The hash is what its description says, so that others can compute it: `sha256sum` will do."""
    row = Row({"b": "ü", "a": 1}, "", subject="s")
    # printf '{"a": "1", "b": "ü"}\n' | sha256sum; printf 's\t<that>\n' | sha256sum
    assert digest([row], ["b", "a"]) == "deb617572d20c06e88a1262d8e63a662cce857561f8ad4cde9112e3cda495dd6"


def plain(value: Any) -> Any:
    """A value as the description of the hash has it: numbers as text, lists that are text as lists."""
    if isinstance(value, dict):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list):
        return [each if isinstance(each, str) else plain(each) for each in value]
    if isinstance(value, str):
        listed = list_from_text(value)
        return value if listed is None else plain(listed)
    return None if value is None else str(value)


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.just('["a", 1]')
VALUES = st.recursive(
    LEAVES,
    lambda deeper: st.lists(deeper, max_size=3) | st.dictionaries(st.text(max_size=3), deeper),
    max_leaves=9,
)


@given(st.dictionaries(st.sampled_from(["question", "choices", "answer", 'a "b"', "é"]), VALUES))
def test_a_line_of_the_hash_is_what_json_writes(values: dict[str, Any]) -> None:
    """Whatever a row holds, its line is that of the standard library, keys sorted."""
    columns = [*values, "missing"]
    line = json.dumps({name: plain(values.get(name)) for name in columns}, sort_keys=True, ensure_ascii=False)
    lines = sha256(f"{line}\n".encode(errors="surrogatepass")).hexdigest()
    assert digest([Row(values, "")], columns) == sha256(f"\t{lines}\n".encode()).hexdigest()


def test_bad_rows_are_hashed_too() -> None:
    """What cannot be an item still counts as content, also text that is no valid Unicode."""
    broken = Row({"question": "\ud800", "choices": None}, "", subject="\ud800")
    assert digest([broken]) != digest([])


def test_differences_from_the_published_split() -> None:
    """Another number of rows or another text is said in a sentence; a match or an unknown split is not."""
    rows = make_rows(3)
    known = survey(make_task(), rows)
    splits = {"test": Split(3, known.content_sha256), "dev": Split(3)}
    task = make_task(dataset=Dataset(hub="none/toy", folder="toy", columns=COLUMNS, splits=splits))
    assert differences(task, "test", known) == []
    assert differences(task, "dev", survey(task, rows[::-1])) == []
    assert differences(task, "unknown", known) == []
    assert differences(task, "test", survey(task, rows[:2])) == [
        "toy/test: 2 rows where the published split has 3"
    ]
    assert differences(task, "test", survey(task, rows[::-1])) == [
        "toy/test: text or order of the rows differs from the published split's"
    ]


@pytest.mark.parametrize("split", ["test", "validation", "dev"])
def test_genuine_mmlu(shared: Path, split: str) -> None:
    """The genuine splits of MMLU have the declared sizes and hashes, 57 subjects, and no bad row."""
    task = load_task("mmlu")
    found = survey(task, open_rows(task, split, shared / "data"))
    declared = task.dataset.splits[split]
    assert (found.rows, found.content_sha256) == (declared.rows, declared.sha256)
    assert len(found.counts) == 57
    assert found.n_bad == 0
    assert differences(task, split, found) == []


@pytest.mark.parametrize(("folder", "rows"), [("hellaswag", 1_453), ("hellaswag_full", 10_042)])
def test_genuine_hellaswag(shared: Path, folder: str, rows: int) -> None:
    """No row of the real HellaSwag items is refused; a part of the split is told from the whole."""
    task = load_task("hellaswag")
    task = replace(task, dataset=replace(task.dataset, folder=folder))
    found = survey(task, open_rows(task, "validation", shared / "data"))
    assert (found.rows, found.n_bad) == (rows, 0)
    assert bool(differences(task, "validation", found)) == (rows != 10_042)
