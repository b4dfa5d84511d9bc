"""Sets of one's own in a file: formats, shots, the TOML beside it, and what is refused."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from harness import Task, UsageError
from harness.choosing.ownsets import load_own_set
from harness.errors import BadRows
from harness.prompts import Prompt, Selection
from harness.suite import Suite, prepare_suite

ROWS: list[dict[str, Any]] = [
    {"question": "Wie heißt „Tee“?", "choices": ["tea", "thé", "茶"], "answer": "C", "subject": "words"},
    {"question": "Two and one?", "choices": ["three", "four"], "answer": 0, "subject": "sums"},
    {"question": "One and one?", "choices": ["two", "five"], "answer": "two", "subject": "sums"},
]
SHOTS: list[dict[str, Any]] = [
    {"question": "Three and one?", "choices": ["six", "four"], "answer": "B", "subject": "sums"},
    {"question": "Was heißt „yes“?", "choices": ["ja", "nein"], "answer": "A", "subject": "words"},
]


def write(path: Path, rows: Sequence[Mapping[str, Any]] = ROWS, *, toml: str = "") -> Path:
    """Rows in the format that the file's name says, and the TOML beside it, if any."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(each, ensure_ascii=False) + "\n" for each in rows), "utf-8")
    elif path.suffix == ".parquet":
        parquet.write_table(
            pa.Table.from_pylist([{**each, "answer": str(each["answer"])} for each in rows]), path
        )
    else:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(rows[0]))
        writer.writeheader()
        writer.writerows({**each, "choices": json.dumps(each["choices"])} for each in rows)
        path.write_bytes(text.getvalue().encode())
    if toml:
        path.with_suffix(".toml").write_text(toml, "utf-8")
    return path


def suite(given: str, *, shots: int | None = None, skip: bool = False) -> Suite:
    """The suite of one name."""
    return prepare_suite([given], shots=shots, data_dir=None, selection=Selection(), skip_bad_rows=skip)


def asked(given: str, *, shots: int | None = None) -> list[tuple[str, list[str], tuple[int, ...]]]:
    """Context, continuations and gold of each prompt."""
    prompts = [each for _, each in suite(given, shots=shots).prompts()]
    assert all(isinstance(each, Prompt) for each in prompts)
    return [
        (each.contexts()[0], [pair.continuation for pair in each.item.pairs], each.item.gold)
        for each in prompts
        if isinstance(each, Prompt)
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    """The same questions in any format are the same prompts, in letters and as cloze."""
    file = write(tmp_path / f"quiz{suffix}")
    assert asked(f"file:{file}")[0] == (
        "Wie heißt „Tee“?\nA. tea\nB. thé\nC. 茶\nAnswer:",
        [" A", " B", " C"],
        (2,),
    )
    assert asked(f"file:{file}:cloze")[1:] == [
        ("Question: Two and one?\nAnswer:", [" three", " four"], (0,)),
        ("Question: One and one?\nAnswer:", [" two", " five"], (0,)),
    ]


def test_names(tmp_path: Path) -> None:
    """A set is called after its file, or as its TOML says; signs unfit for files are replaced."""
    file = write(tmp_path / "my quiz.v2.jsonl")
    assert load_own_set(f"file:{file}").name == load_own_set(f"file:{file}:mc").name == "my_quiz.v2"
    assert load_own_set(f"file:{file}:cloze").name == "my_quiz.v2:cloze"
    write(file, toml='name = "quiz"')
    assert load_own_set(f"file:{file}:cloze").name == "quiz:cloze"


def test_windows_files(tmp_path: Path) -> None:
    """A byte order mark, CRLF and empty lines change nothing."""
    lines = [json.dumps(each) for each in ROWS]
    file = tmp_path / "quiz.jsonl"
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n\r\n".join(lines).encode() + b"\r\n")
    assert asked(f"file:{file}") == asked(f"file:{write(tmp_path / 'plain.jsonl')}")
    table = write(tmp_path / "table.csv")
    table.write_bytes(b"\xef\xbb\xbf" + table.read_bytes())
    assert asked(f"file:{table}") == asked(f"file:{tmp_path / 'plain.jsonl'}")


def test_shots(tmp_path: Path) -> None:
    """Shots come from the file beside, within the subject, and only where they are asked for."""
    file = write(tmp_path / "quiz.jsonl", toml="shots = 1")
    write(tmp_path / "quiz.shots.csv", SHOTS)
    first, second, _ = asked(f"file:{file}")
    assert first[0].startswith("Was heißt „yes“?\nA. ja\nB. nein\nAnswer: A\n\nWie heißt")
    assert second[0].startswith("Three and one?\nA. six\nB. four\nAnswer: B\n\nTwo and one?")
    assert asked(f"file:{file}", shots=0)[0][0].startswith("Wie heißt")
    said = r"--tasks quiz: with 2 shots it needs 2 items of quiz/shots, subject words"
    with pytest.raises(UsageError, match=said):
        suite(f"file:{file}", shots=2)


def test_shots_without_subjects_serve_all(tmp_path: Path) -> None:
    """Shots that name no subject stand before questions of every subject."""
    file = write(tmp_path / "quiz.jsonl")
    write(tmp_path / "quiz.shots.jsonl", [{**SHOTS[0], "subject": None}])
    assert all(context.startswith("Three and one?") for context, _, _ in asked(f"file:{file}", shots=1))


def test_shots_that_are_not_there(tmp_path: Path) -> None:
    """Asking for shots without a file of them names the file that would hold them."""
    file = write(tmp_path / "quiz.jsonl")
    with pytest.raises(UsageError, match=r"--tasks quiz: there are no shots.*quiz\.shots\.jsonl"):
        suite(f"file:{file}", shots=1)


def test_settings(tmp_path: Path) -> None:
    """The TOML sets prompt, description, delimiters, metrics and shots, to one form or to both."""
    write(tmp_path / "worked.jsonl", SHOTS)
    toml = """
shots_file = "worked.jsonl"
shots = 1
description = "About {subject}:"
shot_delimiter = "\\n--\\n"
metrics = ["acc", "acc_bytes"]
[cloze]
prompt = "{question} ="
delimiter = "\\n"
description = ""
"""
    file = write(tmp_path / "quiz.jsonl", toml=toml)
    assert asked(f"file:{file}:cloze")[1] == (
        "Three and one? =\nfour\n--\nTwo and one? =",
        ["\nthree", "\nfour"],
        (0,),
    )
    assert asked(f"file:{file}")[1][0].startswith("About sums:\n--\nThree and one?\nA. six")
    task = load_own_set(f"file:{file}:cloze")
    assert (task.metrics, task.shots.default, task.delimiter) == (("acc", "acc_bytes"), 1, "\n")


@pytest.mark.parametrize(
    ("toml", "said"),
    [
        ("promt = 'x'", "no key 'promt'. Did you mean prompt"),
        ("[cloze]\nanswer = 'text'", "no key 'answer'"),
        ("shots = 'two'", "shots"),
        ("shots = -1", "shots -1: must be 0 or more"),
        ("draw = 'last_n'", "draw"),
        ("metrics = ['acc_nrm']", "no metric 'acc_nrm'. Did you mean acc_norm"),
        ("metrics = []", "metrics: none given"),
        ("prompt = '{question} {answer}'", "no placeholder {answer}"),
        ("prompt = 'Say it.'", "{question} is missing"),
        ("prompt = '{question}'", "{choices} is missing, without which mc cannot be asked"),
        ("description = '{question}'", "no placeholder {question}"),
        ("shots_file = 'gone.jsonl'", "shots_file gone.jsonl: no such file"),
        ("shots_file = 'quiz.toml'", "ends in none of .parquet, .jsonl, .csv"),
        ("prompt = ", "not TOML"),
    ],
)
def test_wrong_settings(tmp_path: Path, toml: str, said: str) -> None:
    """What a TOML must not say is one line that names the file, the key and the way out."""
    file = write(tmp_path / "quiz.jsonl", toml=toml)
    with pytest.raises(UsageError) as caught:
        load_own_set(f"file:{file}")
    assert str(caught.value).startswith(f"--tasks file:{file}: ")
    assert "quiz.toml" in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("gone.jsonl", "gone.jsonl is not there"),
        ("quiz.jsonl:clze", "no form 'clze'. Did you mean cloze?"),
        ("quiz.json", "ends in none of .parquet, .jsonl, .csv"),
        ("folder.jsonl", "is no file"),
        ("empty.jsonl", "no rows in empty.jsonl"),
        ("header.csv", "no rows in header.csv"),
        ("broken.jsonl", "broken.jsonl line 1: not JSON"),
        ("latin.csv", "latin.csv line 2: not UTF-8 text"),
        ("twice.jsonl", "twice.shots.jsonl and twice.shots.csv are there; keep one"),
    ],
)
def test_files_that_are_none(tmp_path: Path, name: str, said: str) -> None:
    """A file that cannot be a set is named in one line."""
    for each in ("quiz.jsonl", "twice.jsonl", "twice.shots.jsonl", "twice.shots.csv"):
        write(tmp_path / each)
    (tmp_path / "quiz.json").write_text("[]")
    (tmp_path / "folder.jsonl").mkdir()
    (tmp_path / "empty.jsonl").write_text("\n")
    (tmp_path / "header.csv").write_text("question,choices,answer\n")
    (tmp_path / "broken.jsonl").write_text("{")
    (tmp_path / "latin.csv").write_bytes(b"question,choices,answer\n\xe9,x,y\n")
    with pytest.raises(UsageError) as caught:
        load_own_set(f"file:{tmp_path / name}")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bad_rows_are_listed_or_skipped(tmp_path: Path) -> None:
    """Rows that are no items are told by file, line and field; skipped, they are unscored items."""
    file = write(tmp_path / "quiz.jsonl", [{**ROWS[0], "answer": "Z"}, *ROWS[1:], {**ROWS[2], "choices": []}])
    with pytest.raises(BadRows) as caught:
        suite(f"file:{file}")
    assert "2 of 4 rows are no items" in str(caught.value)
    assert "quiz.jsonl line 1: field 'answer': 'Z' is" in str(caught.value)
    assert "quiz.jsonl line 4: field 'choices'" in str(caught.value)
    problems = [record.problem for record in suite(f"file:{file}", skip=True).listing]
    assert [bool(each) for each in problems] == [True, False, False, True]


def test_a_column_that_is_missing_is_told_once(tmp_path: Path) -> None:
    """A table without a needed column is refused by that column's name."""
    file = tmp_path / "quiz.csv"
    file.write_text('question;choices;answer\na;"[1]";0\n')
    with pytest.raises(UsageError, match=r"no column 'question' and no 'choices' and no 'answer'; it has"):
        suite(f"file:{file}")


def test_all_rows_have_a_subject_or_none(tmp_path: Path) -> None:
    """Subjects in some rows alone would share a line of the tables with the whole."""
    file = write(tmp_path / "quiz.jsonl", [ROWS[0], {**ROWS[1], "subject": None}])
    with pytest.raises(UsageError, match="1 of 2 rows have no subject"):
        suite(f"file:{file}")


def test_a_changed_file_is_another_version(tmp_path: Path) -> None:
    """Rows, shots and settings are all in the version, so that a run of the old ones is not continued."""
    file = write(tmp_path / "quiz.jsonl")
    versions = [load_own_set(f"file:{file}").version]

    def changed() -> Task:
        task = load_own_set(f"file:{file}")
        assert task.version not in versions
        versions.append(task.version)
        return task

    write(file, ROWS[:2])
    changed()
    write(tmp_path / "quiz.shots.jsonl", SHOTS)
    changed()
    write(file, ROWS[:2], toml='delimiter = "  "')
    assert changed().delimiter == "  "
    assert load_own_set(f"file:{file}").version == versions[-1]


def test_the_example_of_the_readme(tmp_path: Path) -> None:
    """The questions and the settings that README.md shows are a set, asked as it says."""
    text = (Path(__file__).parents[1] / "README.md").read_text()
    section = text[text.index("## Your own questions") : text.index("## Suite files")]
    (questions,), (settings,) = (
        re.findall(f"```{kind}\n(.*?)```", section, flags=re.DOTALL) for kind in ("json", "toml")
    )
    rows = [json.loads(line) for line in questions.splitlines()]
    file = write(tmp_path / "questions.jsonl", rows, toml=settings)
    write(tmp_path / "worked.jsonl", rows)
    assert load_own_set(f"file:{file}").name == "seamanship"
    contexts = [context for context, _, _ in asked(f"file:{file}", shots=1)]
    head = "Questions of seamanship.\n\nQuestion: Which part of a ship is the bow?\nA. the front\n"
    assert all(context.startswith(head) for context in contexts)
    assert contexts[1].endswith("What does a sextant measure?\nA. depths\nB. angles\nC. speeds\nAnswer:")
    assert [gold for _, _, gold in asked(f"file:{file}:cloze")] == [(0,), (1,), (1,)]
