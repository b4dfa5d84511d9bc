"""`forced-choice tasks`: the list of all tasks, and the page of one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import Row, Shots, Task
from harness.choosing import catalogue
from harness.choosing.catalogue import example_item, facts, pages, task_hash
from harness.choosing.registry import load_task, task_names
from harness.choosing.tasklists import suite_names
from harness.cli import main
from harness.items import Item
from tests.making import make_task

Say = Callable[..., str]


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Say:
    """What the command prints on stdout; it must end well."""

    def said(*arguments: str) -> str:
        assert main(["tasks", *arguments]) == 0
        return capsys.readouterr().out

    return said


def write_quiz(folder: Path, *answers: object) -> str:
    """A file of questions and one of shots; its name for `--tasks`."""
    rows = [
        {"question": f"Q{at}?", "choices": ["x", "y", "z", "w"][: 2 + 2 * (at % 2)], "answer": answer}
        for at, answer in enumerate(answers)
    ]
    for name in ("quiz.jsonl", "quiz.shots.jsonl"):
        (folder / name).write_text("".join(json.dumps(each) + "\n" for each in rows))
    return f"file:{folder / 'quiz.jsonl'}"


def test_everything_is_listed(say: Say) -> None:
    """Every task has a line with items, shots, chance and metrics; variants below, suites at the end."""
    lines = say().splitlines()
    by_name = {line.split()[0]: line.split() for line in lines if line.strip()}
    assert {*task_names(), *(f"{name}:" for name in suite_names())} <= by_name.keys()
    assert by_name["boolq"][:5] == ["boolq", "3,270", "0", "0.500", "acc"]
    below = lines[[line.split()[:1] for line in lines].index(["sample_mmlu"]) + 1]
    assert below.split()[:4] == [":cloze", "312", "5", "0.250"]
    assert any("mmlu@5" in line for line in lines)
    assert all(len(line.rstrip()) <= 110 for line in lines)


def test_many_languages_are_one_line(say: Say) -> None:
    """Variants that differ in nothing but their names are one line where there are many; the page has all."""
    languages = [line for line in say().splitlines() if "_Latn" in line]
    assert len(languages) == 1
    assert ":acm_Arab to :zul_Latn (122)" in languages[0]
    assert "belebele:yor_Latn" in say("belebele")


def test_the_list_for_programs(say: Say) -> None:
    """JSON leaves out no variant, and has every number whole."""
    told = json.loads(say("--json"))
    tasks = {task["name"]: task for task in told["tasks"]}
    assert list(tasks) == task_names()
    assert len(tasks["belebele"]["variants"]) == 122
    assert tasks["mmlu"]["items"] == 14_042
    assert tasks["leaderboard_mmlu_pro"]["chance"] == load_task("leaderboard_mmlu_pro").chance
    assert {suite["name"] for suite in told["suites"]} == set(suite_names())
    every = [each for task in told["tasks"] for each in (task, *task["variants"])]
    by_hash = {each["hash"]: each["name"] for each in every if each["name"] != "belebele:eng_Latn"}
    assert len(by_hash) == len(every) - 1


def test_a_suite_by_name(say: Say) -> None:
    """Of a suite its tasks are shown as `--tasks` takes them."""
    assert "winogrande:openllm@5" in say("openllm_v1")
    assert json.loads(say("quick", "--json"))["tasks"][0] == "arc_challenge"


def test_a_page_without_rows(say: Say) -> None:
    """Without a network the prompt is the example's, and that is said beside it."""
    text = say("boolq")
    assert "Paper: Clark et al." in text
    assert "CC BY-SA 3.0" in text
    assert "of the example row, which is no row of the data set.\n" in text
    assert "===== boolq, the example row\n" in text
    item = example_item(load_task("boolq"))
    assert isinstance(item, Item)
    assert item.pairs[0].context in text
    assert f"hash: {task_hash(load_task('boolq'))}" in text


def test_a_page_without_rows_says_what_its_shots_need(say: Say) -> None:
    """Where shots are usual and none are at hand, nothing says 0 of them, but which files would hold them."""
    text = say("leaderboard_mmlu_pro")
    assert "Shots: 5, " in text
    assert "without its 5 shots" in text
    assert "0 shots" not in text
    folder = load_task("leaderboard_mmlu_pro").dataset.folder
    assert f"takes them from DIR/{folder}/test.parquet and DIR/{folder}/validation.parquet" in " ".join(
        text.split()
    )
    assert "DIR/truthful_qa/validation.parquet (or" in say("truthfulqa_mc1")
    assert say("leaderboard_mmlu_pro@0").count("Answer:") == say("leaderboard_mmlu_pro").count("Answer:")


@pytest.mark.parametrize("change", ["metrics=()", "version=3", "item=lambda row: 1 / 0", "example={}"])
def test_a_package_whose_task_is_none_is_a_remark(
    change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is wrong with an installed task, also with its name, the list of the others is printed."""
    from importlib.metadata import EntryPoint

    module = tmp_path.name
    text = "from tests.making import make_task\nTASK = make_task(name='mine', {})\n"
    (tmp_path / f"{module}.py").write_text(text.format(change))
    monkeypatch.syspath_prepend(str(tmp_path))
    group = "forced_choice.tasks"
    found = {
        "mine": [EntryPoint("mine", module, group)],
        "twice": [EntryPoint("twice", module, group), EntryPoint("twice", f"{module}:TASK", group)],
        "quick": [EntryPoint("quick", module, group)],
    }
    monkeypatch.setattr(catalogue, "installed", lambda: found)
    assert main(["tasks"]) == 0
    printed = capsys.readouterr()
    said = " ".join(printed.err.split())
    assert "the task 'mine': " in said
    assert "both declare a task 'twice'" in said
    assert "hides the suite quick that ships with the program" in said
    assert "boolq" in printed.out
    assert "mine" not in printed.out


def test_a_page_with_rows_that_ship(say: Say) -> None:
    """Rows that ship give the first real prompt, with as many shots as are asked for."""
    text = say("sample_mmlu", "--shots", "2")
    assert "One prompt, of sample_mmlu/test.jsonl line 1:" in text
    assert text.count("Answer:") == 3
    assert "sample_mmlu:cloze" in text
    assert say("sample_mmlu@2") == text
    told = json.loads(say("sample_mmlu", "--json"))
    assert (told["prompt"]["shots"], len(told["prompt"]["continuations"])) == (5, 4)


def test_a_page_with_rows_of_a_folder(say: Say, tmp_path: Path) -> None:
    """`--data-dir` gives the first row there."""
    folder = tmp_path / "boolq"
    folder.mkdir()
    row = {**load_task("boolq").example, "question": "is this the first row"}
    (folder / "validation.jsonl").write_text(json.dumps(row) + "\n")
    text = say("boolq", "--data-dir", str(tmp_path))
    assert "Question: is this the first row?\nAnswer:" in text
    assert "of boolq/validation.jsonl line 1:" in text


def test_a_page_of_an_own_set(say: Say, tmp_path: Path) -> None:
    """Of a file all rows are counted, and the chance is the mean over them."""
    name = write_quiz(tmp_path, 0, 1, "y", "w")
    text = say(name)
    assert f"Items: 4, questions of {tmp_path / 'quiz.jsonl'}" in text
    assert "chance: 0.3750" in text
    assert "Q0?\nA. x\nB. y\nAnswer:" in text
    assert say(name, "--shots", "1").count("Answer:") == 2


def test_bad_rows_of_an_own_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page checks every row, and lists the bad ones as a run does."""
    assert main(["tasks", write_quiz(tmp_path, 0, 1, 7)]) == 2
    assert "quiz.jsonl line 3: field 'answer': '7' is no index from 0 to 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bolq"], "no task 'bolq'. Did you mean boolq"),
        (["--shots", "1"], "show the prompt of one task; name it"),
        (["boolq", "--shots", "-1"], "--shots -1: must be 0 or more"),
        (["sample_mmlu", "--shots", "99"], "--tasks sample_mmlu: with 99 shots it needs 99 items"),
        (["quick", "--shots", "3"], "--shots 3: quick is a suite, whose tasks have their own; name one task"),
        (
            ["boolq", "--shots", "3"],
            "--shots 3: shots are rows, and there are none here. --data-dir DIR takes them from"
            " DIR/boolq/validation.parquet and DIR/boolq/train.parquet (or .jsonl, .csv)",
        ),
        (
            ["mmlu@2"],
            "--tasks mmlu@2: shots are rows, and there are none here. --data-dir DIR takes them from",
        ),
    ],
)
def test_wrong_use(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong use is one line and exit 2."""
    assert main(["tasks", *arguments]) == 2
    printed = capsys.readouterr()
    assert said in printed.err
    assert printed.out == ""


@pytest.mark.parametrize(
    "change",
    [
        {"version": "2"},
        {"metrics": ("acc", "acc_norm")},
        {"shots": Shots(split="dev", draw="random")},
        {"shot_delimiter": "\n"},
        {"description": lambda subject: "Hard ones:\n"},
        {"groups": {"all": ("",)}},
        {"split": "dev"},
        {
            "item": lambda row: row.item(
                context="?", choices=row.texts("choices"), gold=0, gold_field="answer"
            )
        },
        {"dataset": replace(make_task().dataset, config="other")},
        {"example": {"question": "One and two?", "choices": ["two", "three"], "answer": 0}},
    ],
)
def test_the_hash_covers_what_numbers_depend_on(change: dict[str, Any]) -> None:
    """A change of anything that changes prompts or scores changes the hash; nothing else does."""
    assert task_hash(make_task(**change)) != task_hash(make_task())
    assert task_hash(replace(make_task(), name="other")) == task_hash(make_task())


def test_chance() -> None:
    """Chance is what the task says, or the share of right choices in its example; one choice has none."""

    def one_choice(row: Row) -> Item:
        return row.item(context="?", choices=["x"], gold=0, gold_field="answer")

    assert facts(make_task()).chance == 0.5
    assert facts(replace(make_task(), chance=0.4)).chance == 0.4
    assert facts(make_task(item=one_choice)).chance is None


def test_a_broken_package_does_not_hide_the_list(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A package whose task cannot be loaded is told on stderr, and all others are listed."""
    from importlib.metadata import EntryPoint

    broken = EntryPoint("mine", "no_such_module", "forced_choice.tasks")
    monkeypatch.setattr(catalogue, "installed", lambda: {"mine": [broken]})
    assert main(["tasks"]) == 0
    printed = capsys.readouterr()
    assert "no_such_module cannot be imported" in printed.err
    assert "boolq" in printed.out


def test_pages_of_several_tasks(tmp_path: Path) -> None:
    """A name that means several tasks gives a page of each."""
    file = tmp_path / "mine.py"
    file.write_text(
        "from dataclasses import replace\nfrom tests.making import make_task\n"
        "BOTH = (make_task(), make_task(name='other'))\n"
    )
    found = list(pages(f"{file}:BOTH", shots=None, data_dir=None))
    assert [page.facts.name for page in found] == ["toy", "other"]
    assert isinstance(load_task("boolq"), Task)
