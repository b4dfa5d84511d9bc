"""Tests of the result tables, and of `results/README.md`, which specifies them."""

from __future__ import annotations

import csv
import io
import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from harness.errors import StoreError
from harness.layout import TABLES
from harness.scoring.estimates import Tally
from harness.scoring.metrics import METRICS
from harness.scoring.scores import ItemRecord, ItemScore
from harness.tables import SCORE_COLUMNS, TaskTable, item_types, pivot, write_results
from harness.texts import TEXT_TYPES

README = (Path(__file__).parents[1] / "results" / "README.md").read_text(encoding="utf-8")
TASKS = (
    TaskTable("hellaswag", 10, ("acc", "acc_norm")),
    TaskTable("mmlu", 5, ("acc",), {"mmlu_stem": ("algebra", "physics"), "mmlu_other": ("virology",)}),
)


def item(task: str, index: int, *, subject: str = "", right: bool = True, unscored: str = "") -> ItemScore:
    """An item of two choices; the first is shorter, so acc and acc_norm differ on it."""
    record = ItemRecord(
        ordinal=index,
        task=task,
        subject=subject,
        shots=10,
        index=index,
        id=f"id,{index}",
        gold=(0,) if right else (1,),
        cluster="",
        n_chars=(1, 8),
        n_bytes=(1, 9),
        prompt_hash="ab" * 32,
        context_sha256=("ab" * 32,) * 2,
        n_tokens=(1, 2),
    )
    return ItemScore(record, () if unscored else (-2.0, -2.5), unscored)


def items() -> Iterator[ItemScore]:
    """Three HellaSwag items and seven of MMLU; two of them unscored."""
    yield from (item("hellaswag", n, right=n < 2) for n in range(3))
    yield from (item("mmlu", n, subject="physics", right=n < 1) for n in range(4))
    yield item("mmlu", 0, subject="algebra")
    yield item("mmlu", 1, subject="algebra", unscored="500: busy")
    yield item("mmlu", 0, subject="virology", unscored="not tried")


@pytest.fixture
def frame(tmp_path: Path) -> pd.DataFrame:
    """The accuracy table of those items on two endpoints."""
    return write_results(tmp_path, {"one": items(), "two": items()}, TASKS)


def row(frame: pd.DataFrame, task: str, metric: str = "acc", subject: str = "") -> dict[str, object]:
    """The row of the first endpoint."""
    [found] = [
        each
        for each in frame.to_dict("records")
        if (each["endpoint"], each["task"], each["metric"], each["subject"]) == ("one", task, metric, subject)
    ]
    return {str(name): value for name, value in found.items()}


def test_rows_stand_in_the_stated_order(frame: pd.DataFrame) -> None:
    """Endpoints and tasks as given; a task, its groups, its subjects in alphabetical order."""
    names = [(each["task"], each["subject"], each["metric"]) for each in frame.to_dict("records")]
    one_endpoint = [
        ("hellaswag", "", "acc"),
        ("hellaswag", "", "acc_norm"),
        ("mmlu", "", "acc"),
        ("mmlu_stem", "", "acc"),
        ("mmlu_other", "", "acc"),
        ("mmlu", "algebra", "acc"),
        ("mmlu", "physics", "acc"),
        ("mmlu", "virology", "acc"),
    ]
    assert names == one_endpoint * 2
    assert list(frame["endpoint"]) == ["one"] * 8 + ["two"] * 8


def test_groups_pool_items_not_subjects(frame: pd.DataFrame) -> None:
    """Two of five stem items are right; the mean over its two subjects would be 0.625."""
    assert row(frame, "mmlu_stem")["value"] == 0.4
    assert row(frame, "mmlu_stem")["n"] == 5
    assert row(frame, "mmlu", subject="algebra")["value"] == 1.0
    assert row(frame, "mmlu", subject="physics")["value"] == 0.25


def test_unscored_items_are_counted_and_bounded(frame: pd.DataFrame) -> None:
    """An unscored item is in no mean, and in both bounds."""
    whole = row(frame, "mmlu")
    assert (whole["value"], whole["n"], whole["unscored"]) == (0.4, 5, 2)
    assert (whole["low_bound"], whole["high_bound"]) == (2 / 7, 4 / 7)


def test_a_task_without_a_score_has_empty_cells(frame: pd.DataFrame, tmp_path: Path) -> None:
    """Nothing scored is no accuracy of 0: the cells are empty and the bounds say that nothing is known."""
    lines = (tmp_path / "scores.csv").read_text().splitlines()
    assert "one,mmlu,virology,5,acc,,fraction,,,,0,1,0,1,0" in lines


def test_metrics_may_differ_on_an_item(frame: pd.DataFrame, tmp_path: Path) -> None:
    """acc takes the higher sum, acc_norm the higher one a character; a task shows only its own metrics."""
    with (tmp_path / "items.csv").open(newline="") as file:
        first, *_, last = csv.DictReader(file)
    assert (first["prediction_acc"], first["correct_acc"]) == ("0", "1")
    assert (first["prediction_acc_norm"], first["correct_acc_norm"]) == ("1", "0")
    assert (last["unscored"], last["sums"], last["prediction_acc"], last["correct_acc"]) == (
        "not tried",
        "[]",
        "",
        "",
    )


def test_both_item_tables_say_the_same(frame: pd.DataFrame, tmp_path: Path) -> None:
    """CSV and Parquet have the same columns and rows; lists are lists, or JSON text."""
    rows = parquet.read_table(tmp_path / "items.parquet").to_pylist()
    with (tmp_path / "items.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    shown = [
        {k: json.dumps(v) if isinstance(v, list) else "" if v is None else str(v) for k, v in each.items()}
        for each in rows
    ]
    assert shown == read
    assert len(rows) == 20
    assert rows[0]["sums"] == [-2.0, -2.5]
    assert [each["unscored"] for each in rows[-4:]] == [None, None, "500: busy", "not tried"]


SUMS = st.floats(max_value=0, allow_nan=False, allow_infinity=False)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(SUMS, st.sampled_from([None, True, False])), min_size=1, max_size=5))
def test_lists_in_the_csv_are_json(choices: list[tuple[float, bool | None]]) -> None:
    """Whatever numbers and nulls a list has, its cell is what the standard library writes."""
    sums, greedy = zip(*choices, strict=True)
    record = replace(item("hellaswag", 0).record, n_chars=(1,) * len(sums), n_bytes=(2,) * len(sums))
    score = ItemScore(record, sums, greedy=greedy)
    with TemporaryDirectory() as folder:
        write_results(Path(folder), {"one": [score]}, [TaskTable("hellaswag", 0, ("nll",))])
        with (Path(folder) / "items.csv").open(newline="") as file:
            (row,) = csv.DictReader(file)
    assert row["sums"] == json.dumps(sums)
    assert row["greedy"] == json.dumps([None if each is None else int(each) for each in greedy])
    assert row["context_sha256"] == json.dumps(record.context_sha256)


def test_the_same_scores_give_the_same_bytes(tmp_path: Path) -> None:
    """Writing twice gives the same files."""
    names = ("scores.csv", "items.csv", "items.parquet")
    contents = []
    for _ in range(2):
        write_results(tmp_path, {"one": items()}, TASKS)
        contents.append([(tmp_path / name).read_bytes() for name in names])
    assert contents[0] == contents[1]
    assert sorted(each.name for each in tmp_path.iterdir()) == sorted(names)


def test_numbers_have_ten_digits(tmp_path: Path) -> None:
    """One of three, as it stands in the file; a subject's column is empty on the task's row."""
    scores = [item("hellaswag", n, right=n < 1) for n in range(3)]
    write_results(tmp_path, {"a,b": scores}, [TaskTable("hellaswag", 0, ("acc",))])
    assert (tmp_path / "scores.csv").read_text().splitlines()[1] == (
        '"a,b",hellaswag,,0,acc,0.3333333333,fraction,0.3333333333,0.06149194472,0.7923403992,3,0,'
        "0.3333333333,0.3333333333,0"
    )


def test_a_run_of_nothing_writes_whole_files(tmp_path: Path) -> None:
    """An endpoint without items still has its rows, and readable tables."""
    frame = write_results(tmp_path, {"one": []}, [TaskTable("hellaswag", 0, ("acc",))])
    assert row(frame, "hellaswag")["n"] == 0
    assert parquet.read_table(tmp_path / "items.parquet").num_rows == 0


def test_an_interrupted_writing_leaves_the_old_files(frame: pd.DataFrame, tmp_path: Path) -> None:
    """When scores cannot be read to the end, nothing is replaced and nothing is left lying about."""
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir()}

    def broken() -> Iterator[ItemScore]:
        yield item("hellaswag", 0)
        raise StoreError("journal damaged")

    with pytest.raises(StoreError, match="journal damaged"):
        write_results(tmp_path, {"one": broken()}, TASKS)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir()} == before


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    """The error names the folder."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match=r"file/run: "):
        write_results(tmp_path / "file" / "run", {"one": items()}, TASKS)


def test_pivot_puts_endpoints_side_by_side(frame: pd.DataFrame) -> None:
    """One row for each task or group and metric, one column for each endpoint, unscored items named."""
    table = pivot(frame)
    assert list(table.columns) == ["one", "two"]
    assert list(table.index.get_level_values("task")) == [
        *("hellaswag", "hellaswag", "mmlu", "mmlu_stem", "mmlu_other"),
    ]
    assert table.loc[("hellaswag", "", 10, "acc_norm", 3), "one"] == "0.3333 ± 0.3333"
    assert table.loc[("mmlu", "", 5, "acc", 7), "two"] == "0.4000 ± 0.2449 (2 unscored)"
    assert table.loc[("mmlu_other", "", 5, "acc", 1), "one"] == "- (1 unscored)"
    assert len(pivot(frame, subjects=True)) == 8


# ------------------------------------------------------------------------------------- results/README.md


def section(title: str) -> str:
    """The text below a heading, up to the next one."""
    return re.split(r"^## ", README.split(f"\n## {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def table(text: str, header: str) -> dict[str, str]:
    """First and second cell of each row of the table that has this header."""
    rows = text.split(f"| {header} |", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    cells = [line.strip("| ").split(" | ") for line in rows]
    return {each[0].strip("`"): each[1].strip("`") for each in cells}


def excerpt(text: str) -> list[dict[str, str]]:
    """The rows of the CSV in a section."""
    return list(csv.DictReader(io.StringIO(text.split("```csv\n", 1)[1].split("```", 1)[0])))


def test_readme_names_the_columns_of_the_accuracy_table() -> None:
    """All of them, in order, and all metrics."""
    text = section("`scores.csv`")
    assert tuple(table(text, "Column | Type | Meaning")) == SCORE_COLUMNS
    named = table(text, "Metric | Of an item")
    orders = [name for name in METRICS if name.startswith("acc_order_")]
    assert list(named) == [
        each.replace(orders[0], "acc_order_<k>") for each in METRICS if each not in orders[1:]
    ]


def test_readme_names_the_columns_of_the_item_tables() -> None:
    """All of them, in order, with their types."""
    named = table(section("`items.parquet`, `items.csv`"), "Column | Parquet type | Meaning")
    types = item_types([METRICS["acc_norm"], METRICS["mc2"]], ["empty"])
    shown = {"acc_norm": "<metric>", "mc2": "<metric>", "_empty": "_<aside>"}
    written = {
        re.sub("|".join(shown), lambda found: shown[found[0]], name): kind for name, kind in types.items()
    }
    assert list(written.items()) == list(named.items())


def test_readme_names_the_columns_of_the_texts() -> None:
    """All of them, in order, with their types."""
    named = table(section("`texts.parquet`"), "Column | Parquet type | Meaning")
    assert list(named.items()) == list(TEXT_TYPES.items())


def test_readme_names_the_columns_of_the_journal() -> None:
    """All columns of its three tables, in order."""
    text = section("`journal/*.sqlite`")
    with closing(sqlite3.connect(":memory:")) as made:
        for statement in TABLES:
            made.execute(statement)
        for name in ("meta", "replies", "items"):
            columns = [each[1] for each in made.execute(f"PRAGMA table_info({name})")]
            assert list(table(text.split(f"Table `{name}`", 1)[1], "Column | Type | Meaning")) == columns


def test_readme_excerpt_of_the_accuracy_table_is_true() -> None:
    """Each row follows from its counts, and is written as the program writes it."""
    shown = excerpt(section("`scores.csv`"))
    assert tuple(shown[0]) == SCORE_COLUMNS
    for each in shown:
        tally = Tally(int(each["n"]), unscored=int(each["unscored"]))
        tally.total = tally.squares = round(float(each["value"]) * tally.n)
        for name, value in asdict(tally.estimate()).items():
            assert each[name] == f"{value:.10g}", each


def test_readme_excerpt_of_the_items_is_true(tmp_path: Path) -> None:
    """Written again, its rows are the same, predictions and all."""
    text = section("`items.parquet`, `items.csv`")
    scores = []
    for each in excerpt(text):
        record = ItemRecord(
            ordinal=0,
            task=each["task"],
            subject=each["subject"],
            shots=int(each["shots"]),
            index=int(each["index"]),
            id=each["id"],
            cluster="",
            prompt_hash=each["prompt_hash"],
            gold=tuple(json.loads(each["gold"])),
            n_chars=tuple(json.loads(each["n_chars"])),
            n_bytes=tuple(json.loads(each["n_bytes"])),
            n_words=tuple(json.loads(each["n_words"])),
            mode=each["mode"],
            n_tokens=tuple(json.loads(each["n_tokens"])),
            context_sha256=tuple(json.loads(each["context_sha256"])),
        )
        greedy = tuple(map(bool, json.loads(each["greedy"])))
        scores.append(ItemScore(record, tuple(json.loads(each["sums"])), greedy=greedy))
    own = ("acc", "acc_norm", "acc_bytes", "acc_token")
    tasks = [TaskTable("hellaswag", 0, own), TaskTable("mmlu", 0, ("acc",))]
    write_results(tmp_path, {each["endpoint"]: scores}, tasks)
    assert (tmp_path / "items.csv").read_text() == text.split("```csv\n", 1)[1].split("```", 1)[0]
