"""Rows from files and from the hub: the same rows whatever the format, and every fault with its place."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from harness import Task, UsageError
from harness.choosing.registry import load_task, shipped_rows
from harness.data.rowfiles import READERS, read_csv
from harness.data.rows import open_rows
from harness.data.survey import survey
from tests.making import make_task

COMMIT = "0123456789abcdef0123456789abcdef01234567"
RECORDS: list[dict[str, Any]] = [
    {"question": "One and one?", "choices": ["two", "None"], "answer": 0, "subject": "sums"},
    {"question": 'Say\n"yes", é', "choices": ["N/A", "nan"], "answer": 1, "subject": "words"},
    {"question": "Two and two?", "choices": ["NULL", "four "], "answer": 1, "subject": "sums"},
]
PLACES = {
    ".parquet": ["row 0 (from 0)", "row 1 (from 0)", "row 2 (from 0)"],
    ".jsonl": ["line 1", "line 2", "line 3"],
    ".csv": ["line 2", "line 3", "line 5"],
}
"""Where the three records stand in each format; the second spans two lines of the CSV file."""


def write(path: Path, records: Sequence[dict[str, Any]] = RECORDS) -> None:
    """A file of these records, in the format that its name ends in."""
    path.parent.mkdir(exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(pa.Table.from_pylist(list(records)), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            writer.writerows(
                {name: json.dumps(cell) if isinstance(cell, list) else cell for name, cell in record.items()}
                for record in records
            )


def toy(**changes: Any) -> Task:
    """The toy task, with subjects."""
    return make_task(**{"subject_field": "subject", **changes})


def fault(path: Path, task: Task | None = None) -> str:
    """The one line that is said of a file which cannot be opened or read."""
    with pytest.raises(UsageError) as caught:
        list(open_rows(task or make_task(), path.stem, path.parent.parent))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("suffix", READERS)
def test_rows_of_a_file(tmp_path: Path, suffix: str) -> None:
    """Rows come with place, task, subject and the index within it; texts such as "None" stay as they are."""
    path = tmp_path / "toy" / f"test{suffix}"
    write(path)
    rows = list(open_rows(toy(), "test", tmp_path))
    assert [row.place for row in rows] == [f"toy/test{suffix} {place}" for place in PLACES[suffix]]
    assert [(row.task, row.subject, row.index) for row in rows] == [
        ("toy", "sums", 0),
        ("toy", "words", 0),
        ("toy", "sums", 1),
    ]
    assert [row.text("question") for row in rows] == [record["question"] for record in RECORDS]
    assert [list(row.texts("choices")) for row in rows] == [record["choices"] for record in RECORDS]
    assert [row.integer("answer") for row in rows] == [record["answer"] for record in RECORDS]


@pytest.mark.parametrize("suffix", READERS)
def test_rows_can_be_read_again(tmp_path: Path, suffix: str) -> None:
    """Each iteration reads the file anew, also while another one is under way."""
    write(tmp_path / "toy" / f"test{suffix}")
    source = open_rows(toy(), "test", tmp_path)
    half = iter(source)
    next(half)
    assert list(source) == list(source)
    assert [row.index for row in half] == [0, 1]


@pytest.mark.parametrize("suffix", READERS)
def test_provenance_of_a_file(tmp_path: Path, suffix: str) -> None:
    """A source tells its path and the hash of the file's bytes."""
    path = tmp_path / "toy" / f"test{suffix}"
    write(path)
    source = open_rows(toy(), "test", tmp_path)
    assert source.source == str(path)
    assert source.revision == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"


def test_preferred_format(tmp_path: Path) -> None:
    """Where a split is there in several formats, Parquet is read before JSON Lines before CSV."""
    for suffix in reversed(READERS):
        write(tmp_path / "toy" / f"test{suffix}")
        assert open_rows(toy(), "test", tmp_path).name == f"toy/test{suffix}"


@pytest.mark.parametrize("suffix", READERS)
def test_file_that_vanishes(tmp_path: Path, suffix: str) -> None:
    """A file that is gone when it is read again is one clear line."""
    path = tmp_path / "toy" / f"test{suffix}"
    write(path)
    source = open_rows(toy(), "test", tmp_path)
    path.unlink()
    with pytest.raises(UsageError, match=rf"toy/test{suffix}.*No such file"):
        list(source)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("test.jsonl", b'{"a": 1}\n{"a": \n', {"line 2": "not JSON: Expecting value, column 7"}),
        ("test.jsonl", b"{}\n\n\n[1]\n{}\n", {"line 4": "expected a JSON object, found list"}),
        ("test.jsonl", b"{}\n" + b"[" * 100_000, {"line 2": "not JSON: maximum recursion depth exceeded"}),
        ("test.jsonl", b'{"a": ' + b"1" * 5_000 + b"}\n{}\n", {"line 1": "not JSON: Exceeds the limit"}),
        (
            "test.csv",
            b'question,choices,answer\n"a\nb",[],0\nx,[]\nx,[],0,\ny,[],1\n',
            {"line 4": "2 cells where the header has 3", "line 5": "4 cells where the header has 3"},
        ),
        (
            "test.csv",
            b'question,choices,answer\nx,[],0\n"x,[],0\ny,[],1\n',
            {"line 3": "not CSV up to line 4: unexpected end of data"},
        ),
        (
            "test.csv",
            b'question,choices,answer\n"a"b,[],0\ny,[],1\n"a"c,[],0\n',
            {"line 2": "not CSV: ',' expected after '\"'", "line 4": "not CSV: ',' expected after '\"'"},
        ),
    ],
)
def test_broken_lines(tmp_path: Path, name: str, content: bytes, said: dict[str, str]) -> None:
    """A line that cannot be read is a bad row with its place, and those after it are read."""
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / name).write_bytes(content)
    rows = list(open_rows(toy(), "test", tmp_path))
    found = {row.place.removeprefix(f"toy/{name} "): row.broken for row in rows if row.broken}
    assert found.keys() == said.keys()
    assert all(found[place].startswith(problem) for place, problem in said.items())
    assert all(bool(row.values) != bool(row.broken) or row.values == {} for row in rows)
    assert [row.index for row in rows] == list(range(len(rows)))


def test_long_cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cell may hold a book; one beyond the bound is a bad row that says so, and the next row is read."""
    (tmp_path / "toy").mkdir()
    book = "x" * 300_000
    text = f'question,choices,answer\n{book},"[""a"", ""b""]",0\n'
    (tmp_path / "toy" / "test.csv").write_text(text)
    (row,) = open_rows(make_task(), "test", tmp_path)
    assert row.text("question") == book
    before = csv.field_size_limit(200_000)
    monkeypatch.setattr("harness.data.rowfiles.CELL_CHARACTERS", 200_000)
    (tmp_path / "toy" / "test.csv").write_text(text + "y,[],1\n")
    long, short = open_rows(make_task(), "test", tmp_path)
    csv.field_size_limit(before)
    assert long.broken == "not CSV: a cell of more than 200,000 characters; is a quotation mark missing?"
    assert short.text("question") == "y"


@pytest.mark.parametrize("suffix", READERS)
def test_subjects_stand_in_all_rows_or_in_none(tmp_path: Path, suffix: str) -> None:
    """The first row says which: a row that differs is bad, and has no subject."""
    for first, second in (("sums", ""), ("", "sums")):
        subjects = (first, second, first, second)
        path = tmp_path / "toy" / f"test{suffix}"
        write(path, [{**RECORDS[0], "subject": subject} for subject in subjects])
        rows = list(open_rows(toy(), "test", tmp_path))
        said = "missing or empty; " if first else "is there, and "
        place = PLACES[suffix][0]
        assert [row.subject for row in rows] == [first, "", first, ""]
        assert [bool(row.broken) for row in rows] == [False, True, False, True]
        assert rows[1].broken.startswith(f"field 'subject': {said}{place} has ")
    assert not any(row.broken for row in open_rows(make_task(), "test", tmp_path))


def test_subject_of_another_kind(tmp_path: Path) -> None:
    """A subject that is no text makes a bad row, and says nothing of the others."""
    write(tmp_path / "toy" / "test.jsonl", [{**RECORDS[0], "subject": 3}, *RECORDS])
    bad, *rows = open_rows(toy(), "test", tmp_path)
    assert bad.broken == "field 'subject': expected text, found 3"
    assert not any(row.broken for row in rows)


@pytest.mark.parametrize("suffix", READERS)
def test_subject_that_is_none_is_left_to_the_task(tmp_path: Path, suffix: str) -> None:
    """A row without a subject is read, with an empty one; the task's item function says what is wrong."""
    write(tmp_path / "toy" / f"test{suffix}", [{**RECORDS[0], "subject": None}])
    assert [row.subject for row in open_rows(toy(), "test", tmp_path)] == [""]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_missing_column_is_told_once(tmp_path: Path, suffix: str) -> None:
    """A column that the whole file lacks is reported when it is opened, with the columns it has."""
    path = tmp_path / "toy" / f"test{suffix}"
    write(path, [{"question": "One?", "label": 0}])
    with pytest.raises(UsageError) as caught:
        open_rows(make_task(), "test", tmp_path)
    assert str(caught.value) == (
        f"toy/test{suffix}: no column 'choices' and no 'answer'; it has 'question', 'label'"
    )


def test_nothing_there(tmp_path: Path) -> None:
    """A missing split or data set names the flag, what was tried, and what is there."""
    with pytest.raises(UsageError, match=r"--data-dir .*nowhere: no such folder"):
        open_rows(toy(), "test", tmp_path / "nowhere")
    with pytest.raises(UsageError, match="It holds no folders"):
        open_rows(toy(), "test", tmp_path)
    (tmp_path / "toys").mkdir()
    with pytest.raises(UsageError, match="Did you mean toys"):
        open_rows(toy(), "test", tmp_path)
    write(tmp_path / "toy" / "dev.jsonl")
    with pytest.raises(UsageError) as caught:
        open_rows(toy(), "test", tmp_path)
    assert str(caught.value) == (
        f"--data-dir {tmp_path}: none of toy/test.parquet, toy/test.jsonl, toy/test.csv; toy holds dev.jsonl"
    )


def test_file_instead_of_a_folder(tmp_path: Path) -> None:
    """A file given as the data folder is no folder."""
    (tmp_path / "test.parquet").write_bytes(b"")
    with pytest.raises(UsageError, match="no such folder"):
        open_rows(toy(), "test", tmp_path / "test.parquet")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("test.parquet", b"", "toy/test.parquet: not a readable Parquet file"),
        (
            "test.parquet",
            b"PAR1 and then something else PAR1",
            "toy/test.parquet: not a readable Parquet file",
        ),
        ("test.jsonl", b'{"question": "\xe9"}\n', "toy/test.jsonl line 1: not UTF-8 text"),
        ("test.jsonl", "{}\n".encode("utf-16"), "toy/test.jsonl line 1: not UTF-8 text"),
        ("test.csv", b"", "toy/test.csv: no column 'question'"),
        (
            "test.csv",
            b"question;choices;answer\n",
            "test.csv: its cells are separated by semicolons; save it with",
        ),
        ("test.csv", b"question\tchoices\tanswer\n", "test.csv: its cells are separated by tabs"),
        ("test.csv", b"question|choices|answer\n", "test.csv: its cells are separated by bars"),
        (
            "test.csv",
            b"questions\n",
            "no column 'question' and no 'choices' and no 'answer'; it has 'questions'",
        ),
        (
            "test.csv",
            b'"question"s,choices,answer\n',
            "toy/test.csv line 1: not CSV: ',' expected after '\"'",
        ),
        ("test.csv", b"question,choices,answer,answer\n", "a column is there twice"),
        ("test.csv", b"question,choices,answer\nx,[],0\n\xff,[],0\n", "toy/test.csv line 3: not UTF-8 text"),
    ],
)
def test_unreadable_file(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    """A file that is damaged or of another kind is one clear line with its place, never a traceback."""
    path = tmp_path / "toy" / name
    path.parent.mkdir()
    path.write_bytes(content)
    assert said in fault(path)


def test_parquet_damaged_in_the_middle(tmp_path: Path) -> None:
    """A Parquet file whose footer is sound and whose pages are not fails with its name while it is read."""
    path = tmp_path / "toy" / "test.parquet"
    records = [{**RECORDS[0], "question": hashlib.sha256(str(i).encode()).hexdigest()} for i in range(3000)]
    write(path, records)
    content = bytearray(path.read_bytes())
    content[4:4000] = bytes(3996)
    path.write_bytes(content)
    assert fault(path).startswith("toy/test.parquet: unreadable after 0 rows: ")


def test_parquet_text_that_is_not_utf8(tmp_path: Path) -> None:
    """A text column that holds other bytes is an error of the file, with how far it could be read."""
    path = tmp_path / "toy" / "test.parquet"
    path.parent.mkdir()
    question = pa.array([b"good", b"\xff"]).view(pa.string())
    columns = {"question": question, "choices": pa.array([["a"], ["b"]]), "answer": pa.array([0, 0])}
    parquet.write_table(pa.table(columns), path)
    assert fault(path).startswith("toy/test.parquet: unreadable after 0 rows: ")


def test_byte_order_marks_and_line_ends_of_windows(tmp_path: Path) -> None:
    """A mark at the beginning is no part of the first column, and carriage returns are no part of cells."""
    (tmp_path / "toy").mkdir()
    text = 'question,choices,answer\r\nx,"[""a""]",0\r\n\r\ny,"[""b""]",0\r\n'
    (tmp_path / "toy" / "test.csv").write_bytes(text.encode("utf-8-sig"))
    rows = list(open_rows(make_task(), "test", tmp_path))
    assert [row.text("question") for row in rows] == ["x", "y"]
    assert [row.place for row in rows] == ["toy/test.csv line 2", "toy/test.csv line 4"]
    (tmp_path / "toy" / "test.jsonl").write_bytes('{"question": "x"}\r\n'.encode("utf-8-sig"))
    (row,) = open_rows(make_task(), "test", tmp_path)
    assert row.text("question") == "x"


@given(cells=st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1))
def test_any_text_survives_csv(tmp_path_factory: pytest.TempPathFactory, cells: list[str]) -> None:
    """Whatever a cell holds, quotes and line ends too, it is read back, with the line its row begins on."""
    path = tmp_path_factory.mktemp("csv") / "test.csv"
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(["text", "end"])
    begins = []
    for cell in cells:
        begins.append(f"line {written.getvalue().count(chr(10)) + 1}")
        writer.writerow([cell, "."])
    path.write_bytes(written.getvalue().encode())
    rows = list(read_csv(path, "test.csv").records())
    assert [row.values["text"] for row in rows] == cells
    assert [row.place for row in rows] == begins


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_copies_of_real_rows(shared: Path, tmp_path: Path, suffix: str) -> None:
    """A genuine split, with its answers "None", written in another format: the same items and content."""
    task = load_task("mmlu")
    genuine = open_rows(task, "validation", shared / "data")
    write(tmp_path / "mmlu" / f"validation{suffix}", [dict(row.values) for row in genuine])
    copy = open_rows(task, "validation", tmp_path)
    assert survey(task, copy) == survey(task, genuine)
    assert [task.item(row) for row in copy] == [task.item(row) for row in genuine]


def shipped(**changes: Any) -> Task:
    """A task whose rows ship with the program."""
    return replace(load_task("sample_mmlu"), **changes)


@pytest.mark.parametrize("split", ["dev", "test"])
def test_rows_that_ship(tmp_path: Path, split: str) -> None:
    """Rows that ship come from the package without a data folder, and where that has no such folder."""
    write(tmp_path / "toy" / "test.jsonl")
    for data_dir in (None, tmp_path):
        source = open_rows(shipped(), split, data_dir)
        assert source.source == str(shipped_rows() / f"sample_mmlu/{split}.jsonl")
        assert source.name == f"sample_mmlu/{split}.jsonl"
        assert len(list(source)) == shipped().dataset.splits[split].rows
        assert source.revision.startswith("sha256:")


def test_rows_that_ship_can_be_replaced(tmp_path: Path) -> None:
    """Where the data folder has a folder of that name, rows come from there alone."""
    path = tmp_path / "sample_mmlu" / "test.csv"
    write(path, RECORDS[:2])
    source = open_rows(shipped(), "test", tmp_path)
    assert (source.source, len(list(source))) == (str(path), 2)
    with pytest.raises(UsageError, match=r"none of sample_mmlu/dev\.parquet.*sample_mmlu holds test\.csv"):
        open_rows(shipped(), "dev", tmp_path)


def test_rows_that_are_nowhere(tmp_path: Path) -> None:
    """A task whose rows are neither on the hub nor in the package says where they are looked for."""
    task = toy(dataset=replace(make_task().dataset, hub=None))
    for data_dir in (None, tmp_path):
        with pytest.raises(
            UsageError, match=r"--tasks toy: its rows .* with DIR/toy/test\.parquet \(or toy/test\.jsonl"
        ):
            open_rows(task, "test", data_dir)


def test_rows_of_the_hub_never_ship(tmp_path: Path) -> None:
    """A task of the hub is not looked for in the package: a data folder without it is an error."""
    with pytest.raises(UsageError, match="none of sample_mmlu/test"):
        open_rows(shipped(dataset=replace(shipped().dataset, hub="none/sample")), "test", tmp_path)


class FakeBuilder:
    """What `datasets.load_dataset_builder` returns, as far as it is used: one split, held in memory."""

    def __init__(self, revision: str, records: Sequence[dict[str, Any]] = RECORDS) -> None:
        self.hash = revision
        self.records = records

    def download_and_prepare(self) -> None:
        """Nothing is to be downloaded."""

    def as_dataset(self, split: str) -> Any:
        """The split "test"."""
        if split != "test":
            raise ValueError(f"Unknown split \"{split}\". Should be one of ['test'].\nAnd more lines.")
        table = pa.Table.from_pylist(list(self.records))
        batches = SimpleNamespace(iter=lambda batch_size: iter(table.to_batches(max_chunksize=2)))
        return SimpleNamespace(column_names=table.column_names, with_format=lambda kind: batches)


def use_hub(monkeypatch: pytest.MonkeyPatch, load: Callable[[str, str | None], FakeBuilder]) -> None:
    """Put `load` in the place of `datasets.load_dataset_builder`."""
    monkeypatch.setitem(
        sys.modules,
        "datasets",
        SimpleNamespace(load_dataset_builder=load, config=SimpleNamespace(HF_HUB_OFFLINE=True)),
    )


def test_rows_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a data folder rows come from the hub, in batches, with the commit that it resolved."""
    asked: list[tuple[str, str | None]] = []

    def load(hub: str, config: str | None) -> FakeBuilder:
        asked.append((hub, config))
        return FakeBuilder(COMMIT)

    use_hub(monkeypatch, load)
    source = open_rows(toy(), "test", None)
    assert asked == [("none/toy", None)]
    assert (source.source, source.revision) == ("none/toy", COMMIT)
    rows = list(source)
    assert [row.place for row in rows] == [f"none/toy test row {number} (from 0)" for number in range(3)]
    assert [(row.subject, row.index) for row in rows] == [("sums", 0), ("words", 0), ("sums", 1)]
    assert [row.values for row in rows] == RECORDS
    assert list(source) == rows


def test_revision_that_is_no_commit(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no commit (a folder of that name was loaded) is not recorded as one."""
    use_hub(monkeypatch, lambda hub, config: FakeBuilder("a1b2c3"))
    assert open_rows(toy(), "test", None).revision == ""


def test_hub_lacks_a_column(monkeypatch: pytest.MonkeyPatch) -> None:
    """A column that is missing on the hub is told once, before any row is read."""
    use_hub(monkeypatch, lambda hub, config: FakeBuilder(COMMIT, [{"text": "One?"}]))
    with pytest.raises(UsageError, match="none/toy test: no column 'question' and no 'choices'"):
        open_rows(toy(), "test", None)


def test_hub_lacks_the_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown split is one line out of what the library says."""
    use_hub(monkeypatch, lambda hub, config: FakeBuilder(COMMIT))
    with pytest.raises(UsageError) as caught:
        open_rows(toy(), "train", None)
    assert str(caught.value) == (
        "--tasks toy: none/toy, split train, cannot be loaded from the hub: it has no split 'train';"
        " there are 'test'. Pass --data-dir to read a local copy."
    )


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ConnectionError("Couldn't reach 'none/toy' on the Hub (OfflineModeIsEnabled)"),
            "HF_HUB_OFFLINE is set, and no copy is kept on this machine. Unset it, or pass --data-dir",
        ),
        (
            FileNotFoundError("Dataset 'none/toy' doesn't exist on the Hub"),
            "doesn't exist on the Hub. Pass --data-dir",
        ),
        (OSError(), "from the hub: OSError. Pass --data-dir"),
        (
            RuntimeError("Dataset 'none/toy' is a gated dataset on the Hub."),
            "it is gated, and you are not logged in. Accept its terms on its page on the hub and set",
        ),
        (KeyError("anything else"), "anything else"),
    ],
)
def test_hub_is_not_to_be_had(monkeypatch: pytest.MonkeyPatch, error: Exception, said: str) -> None:
    """Network gone, gated, unknown: one clear line that names the task, the reason and the way out."""

    def load(hub: str, config: str | None) -> FakeBuilder:
        raise error

    use_hub(monkeypatch, load)
    with pytest.raises(UsageError) as caught:
        open_rows(toy(dataset=replace(make_task().dataset, config="easy")), "test", None)
    text = str(caught.value)
    assert text.startswith("--tasks toy: none/toy (easy), split test, cannot be loaded from the hub: ")
    assert said in text
    assert "--data-dir" in text
    assert "\n" not in text
