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

from harness import Task, UsageError, compare, evaluate
from harness.choosing.catalogue import pages
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
    said = r"--tasks quiz: with 2 shots it needs 2 items of quiz\.shots\.csv, subject words"
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
    with pytest.raises(UsageError, match="separated by semicolons; save it with commas"):
        suite(f"file:{file}")
    file.write_text('questions,choices,answer\na,"[1]",0\n')
    with pytest.raises(UsageError, match=r"no column 'question'; it has 'questions'"):
        suite(f"file:{file}")


def test_all_rows_have_a_subject_or_none(tmp_path: Path) -> None:
    """Subjects in some rows alone would share a line of the tables with the whole: the page says so too."""
    file = write(tmp_path / "quiz.jsonl", [ROWS[0], {**ROWS[1], "subject": None}])
    write(tmp_path / "quiz.shots.jsonl", SHOTS)
    said = "1 of 2 rows are no items:\n  quiz.jsonl line 2: field 'subject': missing or empty; line 1 has one"
    for look in (
        lambda: suite(f"file:{file}"),
        lambda: list(pages(f"file:{file}", shots=None, data_dir=None)),
    ):
        with pytest.raises(BadRows, match=said):
            look()
    skipped = suite(f"file:{file}", shots=1, skip=True)
    assert [bool(record.problem) for record in skipped.listing] == [False, True]
    assert [isinstance(each, Prompt) for _, each in skipped.prompts()] == [True, False]


@pytest.mark.parametrize(("name", "broken"), [("quiz.jsonl", '{"question": \n'), ("quiz.csv", "one,two\n")])
def test_broken_lines_are_listed_among_the_bad_rows(tmp_path: Path, name: str, broken: str) -> None:
    """A line that cannot be read hides no other bad row, and is skipped as they are; rows after it count."""
    rows = [{**ROWS[1], "answer": "Z"}, *ROWS[1:]]
    file = write(tmp_path / name, rows)
    with file.open("a") as text:
        text.write(broken + file.read_text().splitlines()[-1] + "\n")
    with pytest.raises(BadRows) as caught:
        suite(f"file:{file}")
    shown = str(caught.value).splitlines()
    first = 1 if name == "quiz.jsonl" else 2
    assert shown[0] == "2 of 5 rows are no items:"
    assert shown[1].startswith(f"  {name} line {first}: field 'answer': 'Z' is")
    assert shown[2].startswith(f"  {name} line {first + 3}: ")
    skipped = suite(f"file:{file}", skip=True)
    assert [bool(record.problem) for record in skipped.listing] == [True, False, False, True, False]
    assert {record.subject for record in skipped.listing if not record.problem} == {"sums"}


def test_bad_shots_have_a_way_out_of_their_own(tmp_path: Path) -> None:
    """Nothing skips a bad shot, and so nothing says so."""
    file = write(tmp_path / "quiz.jsonl")
    write(tmp_path / "quiz.shots.jsonl", [{**SHOTS[0], "answer": "Z"}, SHOTS[1]])
    for skip in (False, True):
        with pytest.raises(BadRows, match=r"quiz\.shots\.jsonl line 1: field 'answer'") as caught:
            suite(f"file:{file}", shots=1, skip=skip)
        assert "--skip-bad-rows" not in str(caught.value)
        assert "a bad shot cannot be skipped, only --shots 0 asks without any" in str(caught.value)


@pytest.mark.parametrize("draw", ["first_n", "random"])
def test_no_question_is_shown_its_own_answer(tmp_path: Path, draw: str) -> None:
    """Shots may be the very file of the questions: each gets others, and one too few of them is told."""
    rows = [{"question": f"Q{at}?", "choices": ["x", "y"], "answer": at % 2} for at in range(4)]
    file = write(tmp_path / "quiz.jsonl", rows, toml=f'shots_file = "quiz.jsonl"\ndraw = "{draw}"')
    for at, (context, _, _) in enumerate(asked(f"file:{file}", shots=3)):
        assert context.count(f"Q{at}?") == 1
        assert context.count("Answer:") == 4
    said = r"needs 5 items of quiz\.jsonl, which has 4 \(questions stand among them"
    with pytest.raises(UsageError, match=said):
        suite(f"file:{file}", shots=4)
    with pytest.raises(UsageError, match=said):
        list(pages(f"file:{file}@4", shots=None, data_dir=None))
    write(tmp_path / "others.jsonl", [{**row, "question": "Other?"} for row in rows])
    write(file, rows, toml=f'shots_file = "others.jsonl"\ndraw = "{draw}"')
    assert asked(f"file:{file}", shots=4)[0][0].count("Other?") == 4


def test_shots_with_subjects_for_questions_without(tmp_path: Path) -> None:
    """That the shots have subjects and the questions none is said as that."""
    file = write(tmp_path / "quiz.jsonl", [{**row, "subject": None} for row in ROWS])
    write(tmp_path / "quiz.shots.jsonl", SHOTS)
    with pytest.raises(
        UsageError, match=r"shots of quiz\.shots\.jsonl have subjects and the questions have none"
    ):
        suite(f"file:{file}", shots=1)


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
    solved = {"question": "Which side is port?", "choices": ["left", "right"], "answer": "A"}
    write(tmp_path / "worked.jsonl", [solved])
    assert load_own_set(f"file:{file}").name == "seamanship"
    contexts = [context for context, _, _ in asked(f"file:{file}", shots=1)]
    head = "Questions of seamanship.\n\nQuestion: Which side is port?\nA. left\n"
    assert all(context.startswith(head) for context in contexts)
    assert contexts[1].endswith("What does a sextant measure?\nA. depths\nB. angles\nC. speeds\nAnswer:")
    assert [gold for _, _, gold in asked(f"file:{file}:cloze")] == [(0,), (1,), (1,)]


def test_runs_of_own_sets_are_loaded_and_compared(tmp_path: Path) -> None:
    """What a run's identity says of a set of one's own is read back; that the set changed is said."""
    file = write(tmp_path / "quiz.jsonl", ROWS[1:])
    first = evaluate("embedded", tasks=f"file:{file}", out=tmp_path / "one")
    write(file, [*ROWS[1:], {**ROWS[1], "question": "Two and one more?"}])
    with pytest.raises(UsageError, match="tasks: quiz: the content of its files or their settings changed"):
        evaluate("embedded", tasks=f"file:{file}", out=tmp_path / "one")
    second = evaluate("embedded", tasks=f"file:{file}", out=tmp_path / "two")
    remarks = compare(first, second, common_only=True).remarks
    assert any("differ in the files of quiz (own-1-" in each for each in remarks)
