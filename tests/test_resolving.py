"""What `--tasks` means: tasks, variants, suites, `@N`, own files and packages, and what is refused."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from harness import Row, UsageError
from harness.choosing import owncode
from harness.choosing.registry import load_task
from harness.choosing.resolving import LONGEST, NAME, Asked, resolve, title
from harness.choosing.tasklists import load_suite, read_suite, suite_names
from harness.prompts import Selection
from harness.suite import prepare_suite

CODE = '''"""Own: tasks of a test."""
from dataclasses import replace
from harness import Dataset, Item, Row, Shots, Task
from own_helper import context

def item(row: Row) -> Item:
    return row.item(context=context(row), choices=row.texts("choices"), gold=0, gold_field="choices")

TASK = Task(
    name="own", version="1", dataset=Dataset(hub=None, folder="own", columns=("choices",)), split="test",
    item=item, metrics=("acc",), shots=Shots(split="test", draw="first_n"), example={"choices": ["a", "b"]},
)
VARIANTS = (replace(TASK, name="own:short"), replace(TASK, name="own:long"))
OTHER = replace(TASK, name="another")
ALL = [TASK, OTHER]
HIDES = replace(TASK, name="mmlu:cloze")
SUITE = replace(TASK, name="quick")
SPACED = replace(TASK, name="my own")
WRONG = replace(TASK, metrics=("acc_nrm",))
NOTHING = 3
'''


@pytest.fixture
def code(tmp_path: Path) -> Iterator[Path]:
    """A Python file with tasks, and one beside it that it imports."""
    (tmp_path / "own_helper.py").write_text("def context(row):\n    return 'Q:'\n")
    file = tmp_path / "tasks.py"
    file.write_text(CODE)
    yield file
    sys.modules.pop("own_helper", None)


def quiz(folder: Path, name: str = "quiz.jsonl") -> Path:
    """A file of two questions."""
    folder.mkdir(exist_ok=True)
    rows = [{"question": f"Q{at}?", "choices": ["x", "y"], "answer": at} for at in range(2)]
    (folder / name).write_text("".join(json.dumps(each) + "\n" for each in rows))
    return folder / name


def names(*given: str) -> list[str]:
    """The names of the tasks that are meant."""
    return [each.task.name for each in resolve(given)]


def test_shipped_tasks_and_shots() -> None:
    """Tasks and variants by name, and a number of shots that holds for one of them alone."""
    found = resolve(["hellaswag@10", "sample_mmlu:cloze", "mmlu@0"])
    assert [(each.task.name, each.shots) for each in found] == [
        ("hellaswag", 10),
        ("sample_mmlu:cloze", None),
        ("mmlu", 0),
    ]
    assert found[0].task is load_task("hellaswag")


@pytest.mark.parametrize("name", suite_names())
def test_every_suite_names_tasks(name: str) -> None:
    """Each task of a shipped suite exists, once, and takes the shots that the suite says."""
    suite = load_suite(name)
    found = resolve([name])
    assert [each.task.name for each in found] == [each.name for each in suite.tasks]
    assert {each.suite for each in found} == {name}
    assert len(suite.description) > 20


def test_the_suite_of_the_leaderboard() -> None:
    """`openllm_v1` has the leaderboard's shots, and says what it leaves out."""
    suite = load_suite("openllm_v1")
    shots = {each.name: each.shots for each in suite.tasks}
    assert shots == {
        "arc_challenge:openllm": 25,
        "hellaswag:openllm": 10,
        "truthfulqa_mc2": None,
        "mmlu": 5,
        "winogrande:openllm": 5,
    }
    assert "GSM8K" in suite.description


def test_olmes_has_its_ten_tasks() -> None:
    """`olmes` is the ten tasks of the paper, each in OLMES's form."""
    assert len(load_suite("olmes").tasks) == 10
    assert all(each.name.endswith(":olmes") for each in load_suite("olmes").tasks)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("description = 'x'\ntask = []", "no key 'task'. Did you mean tasks"),
        (
            "description = 'x'\n[[tasks]]\nname = 'a'\nshot = 5",
            "[[tasks]] 1: no key 'shot'. Did you mean shots",
        ),
        ("description = 'x'\n[[tasks]]\nname = 'a'\n[[tasks]]\nshots = 5", "[[tasks]] 2"),
        ("description = 'x'\n[[tasks]]\nname = 'a'\nshots = -5", "shots -5: must be 0 or more"),
        ("description = 'x'\n[[tasks]]\nname = 'a@5'\nshots = 5", "beside it; choose one"),
        ("description = 'x'\n[[tasks]]\nname = 'a,b'", "expected the name of one task"),
        ("description = 'x'\ntasks = []", "expected [[tasks]] tables"),
        ("[[tasks]]\nname = 'a'", "description"),
        ("description = ", "not TOML"),
    ],
)
def test_suites_are_read_strictly(tmp_path: Path, text: str, said: str) -> None:
    """What a suite must not say is told with the file and the place."""
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_suite(file)
    assert str(caught.value).startswith("suites/mine.toml: ")
    assert said in str(caught.value)


def test_code(code: Path) -> None:
    """A file's task, a variant of it, another attribute, a tuple of tasks; the file is imported once."""
    assert names(str(code)) == names(f"{code}:TASK") == ["own"]
    assert names(f"{code}:TASK:long") == ["own:long"]
    assert names(f"{code}:VARIANTS") == ["own:short", "own:long"]
    assert names(f"{code}:ALL@3") == ["own", "another"]
    assert resolve([f"{code}:OTHER"])[0].task is resolve([f"{code}:OTHER"])[0].task
    assert str(code.parent) not in sys.path


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (":TSK", "has no TSK. Did you mean TASK"),
        (":NOTHING", "NOTHING of tasks.py is neither a Task nor a tuple of Tasks"),
        (":TASK:lng", "no such variant of own. Did you mean own:long"),
        (":ALL:long", "ALL of tasks.py holds several tasks"),
        (":HIDES", "is called mmlu:cloze, as one that ships with the program"),
        (":SUITE", "is called quick, as one that ships with the program"),
        (":SPACED", "the name 'my own' is not fit for tables and files"),
    ],
)
def test_code_that_is_refused(code: Path, name: str, said: str) -> None:
    """Whatever is wrong with a task of one's own is one line with its file."""
    with pytest.raises(UsageError) as caught:
        resolve([f"{code}{name}"])
    assert str(caught.value).startswith(f"--tasks {code}{name}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [("1 / 0", "ZeroDivisionError"), ("import sys; sys.exit(3)", "SystemExit"), ("", "It declares no Task")],
)
def test_code_that_breaks(tmp_path: Path, text: str, said: str) -> None:
    """A file that cannot be imported, ends the program or holds nothing is named."""
    (tmp_path / "broken.py").write_text(text)
    with pytest.raises(UsageError, match=said):
        resolve([str(tmp_path / "broken.py")])
    with pytest.raises(UsageError, match=r"gone\.py is not there"):
        resolve([str(tmp_path / "gone.py") + ":TASK"])


def test_code_that_was_edited_is_read_anew(tmp_path: Path) -> None:
    """A file is what it says now, also where it was changed within a second and a session."""
    file = tmp_path / "mine.py"
    found = []
    for letter in "QR":
        file.write_text(
            CODE.replace("from own_helper import context", "").replace("context(row)", f"'{letter}:'")
        )
        (asked,) = resolve([str(file)])
        found.append((asked.task.item(Row(asked.task.example, "")).pairs[0].context, asked.origin))
    assert [context for context, _ in found] == ["Q:", "R:"]
    assert found[0][1].kind == found[1][1].kind == "code"
    assert found[0][1].content != found[1][1].content


def test_a_package_that_is_doubled_does_not_stop_others(packages: Callable[..., None]) -> None:
    """Two packages of one name are an error of whoever asks for it, not of a shipped task."""
    packages(("own", "own_package"), ("own", "own_package:TASK"))
    assert names("copa") == ["copa"]


@pytest.mark.parametrize("given", ["file:{}/sp ace", "{}/my", "{}/sp ace.py"])
def test_paths_with_commas(tmp_path: Path, given: str) -> None:
    """A path that was cut at a comma of its own is told so."""
    for name in ("sp ace, comma.jsonl", "my,tasks.py", "sp ace.py,more.py"):
        (tmp_path / name).write_text("")
    with pytest.raises(UsageError, match=r"a comma separates two tasks, and may stand in no path: rename it"):
        resolve([given.format(tmp_path)])


def test_an_own_task_runs_with_rows_of_its_own(code: Path) -> None:
    """Rows of a task in a file are found below `--data-dir`, as those of shipped tasks are."""
    (code.parent / "own").mkdir()
    (code.parent / "own" / "test.jsonl").write_text('{"choices": ["a", "b"]}\n')
    suite = prepare_suite(
        [str(code)], shots=0, data_dir=code.parent, selection=Selection(), skip_bad_rows=False
    )
    assert [record.task for record in suite.listing] == ["own"]


@pytest.fixture
def packages(code: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Declares entry points, name and value each, in the time of a test."""
    monkeypatch.syspath_prepend(str(code.parent))
    code.rename(code.parent / "own_package.py")

    def declare(*pairs: tuple[str, str]) -> None:
        points = [EntryPoint(name, value, owncode.GROUP) for name, value in pairs]
        monkeypatch.setattr(owncode, "entry_points", lambda group: points if group == owncode.GROUP else [])

    return declare


def test_tasks_of_packages(packages: Callable[..., None]) -> None:
    """An entry point names a module with a task and variants, or a task alone."""
    packages(("own", "own_package"), ("another", "own_package:OTHER"))
    assert names("own", "own:short@2", "another") == ["own", "own:short", "another"]
    with pytest.raises(UsageError, match=r"no such variant of own\. Did you mean own:short"):
        resolve(["own:shrt"])
    with pytest.raises(UsageError, match=r"no task .anothr.\. Did you mean another"):
        resolve(["anothr"])


@pytest.mark.parametrize(
    ("pairs", "name", "said"),
    [
        ([("quick", "own_package:SUITE")], "quick", "hides the suite quick that ships with the program"),
        ([("arc_challenge", "own_package")], "quick", "hides the task arc_challenge that ships"),
        ([("own", "own_package:WRONG")], "own", "no metric 'acc_nrm'. Did you mean acc_norm"),
        ([("own", "no_such_module")], "own", "no_such_module cannot be imported: ModuleNotFoundError"),
        ([("other", "own_package:OTHER")], "other", "is the task 'another'; name both alike"),
        ([("own", "own_package:NOTHING")], "own", "is neither a Task nor a module with a TASK"),
        ([("own", "own_package"), ("own", "own_package:TASK")], "own", "both declare a task 'own'"),
        (
            [("mmlu", "own_package")],
            "mmlu",
            "hides the task mmlu that ships with the program; rename its entry point",
        ),
    ],
)
def test_packages_that_are_refused(
    packages: Callable[..., None], pairs: list[tuple[str, str]], name: str, said: str
) -> None:
    """A package that is wrong, doubled, or hides what ships is named, never preferred in silence."""
    packages(*pairs)
    with pytest.raises(UsageError) as caught:
        resolve([name])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("mmlu@five", "no task 'mmlu@five'. What follows @ is a number of shots"),
        ("quiz.csv", "For a file of questions write file:quiz.csv"),
        ("openlm_v1", "Did you mean openllm_v1"),
        ("openllm_v1@5", "a suite's tasks have their own shots"),
        ("truthfulqa_mc1@5", "shots of truthfulqa_mc1 is fixed by its authors, at 0; leave out @5"),
        ("@5", "no task ''"),
    ],
)
def test_names_that_mean_nothing(name: str, said: str) -> None:
    """A name that is not known is told with what was probably meant."""
    with pytest.raises(UsageError) as caught:
        resolve([name])
    assert str(caught.value).startswith("--tasks")
    assert said in str(caught.value)


def test_two_of_one_name(tmp_path: Path) -> None:
    """A run asks a task of one name once: the same twice is that, two different ones are an error."""
    one, other = quiz(tmp_path / "a"), quiz(tmp_path / "b", "quiz.jsonl")
    other.write_text(other.read_text().replace("Q0", "Q7"))
    assert names("copa", "quick", f"file:{one}", f"file:{one}:mc")[0] == "copa"
    with pytest.raises(UsageError, match=r"a/quiz\.jsonl and file:.*b/quiz\.jsonl are both called quiz"):
        resolve([f"file:{one}", f"file:{other}"])
    with pytest.raises(
        UsageError, match="mmlu is asked twice, by openllm_v1 with 5 of shots and by mmlu with"
    ):
        resolve(["openllm_v1", "mmlu"])


def test_an_own_file_does_not_hide_a_shipped_task(tmp_path: Path) -> None:
    """A file called as a shipped task, variant or suite is refused, with the way out."""
    for name in ("mmlu.jsonl", "quick.jsonl"):
        with pytest.raises(UsageError, match=r"as one that ships with the program; rename it"):
            resolve([f"file:{quiz(tmp_path, name)}"])
    (tmp_path / "mmlu.toml").write_text('name = "our_mmlu"')
    assert names(f"file:{tmp_path / 'mmlu.jsonl'}") == ["our_mmlu"]


def test_a_run_is_called_after_what_it_asks(tmp_path: Path) -> None:
    """Folders are called after suites, tasks and files, never after paths; long lists are cut and counted."""
    given = ["sample_mmlu:cloze", "quick", f"file:{quiz(tmp_path)}:cloze", "boolq@3"]
    assert title(resolve(given)) == "sample_mmlu_cloze-quick-quiz_cloze-boolq"
    many = title(
        [Asked(load_task(f"belebele:{each}_Latn")) for each in ("deu", "fra", "ita", "spa", "por", "pol")]
    )
    assert many.startswith("belebele_deu_Latn-belebele_fra_Latn-")
    assert many.endswith("_more")
    assert len(many) <= LONGEST
    assert "/" not in many
    assert NAME.fullmatch(many)


def test_shots_of_a_task_win(tmp_path: Path) -> None:
    """`@N` wins over `--shots`; where a suite has its way against it, that is remarked."""
    file = quiz(tmp_path)
    shown = quiz(tmp_path, "quiz.shots.jsonl")
    shown.write_text(shown.read_text().replace("Q", "Solved Q"))

    def shots(*given: str, all_tasks: int | None) -> list[int]:
        suite = prepare_suite(
            given, shots=all_tasks, data_dir=None, selection=Selection(), skip_bad_rows=False
        )
        assert not any(each.remarks for each in suite.tasks)
        return [each.shots for each in suite.tasks]

    assert shots(f"file:{file}@2", "sample_mmlu:cloze@0", "sample_mmlu", all_tasks=1) == [2, 0, 1]
    assert shots(f"file:{file}@2", "sample_mmlu", all_tasks=None) == [2, 5]
