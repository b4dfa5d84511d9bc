"""Adding a benchmark is one file: what `tasks/README.md` shows is taken out of it and run."""

from __future__ import annotations

import importlib
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness import Row
from harness.choosing.owncode import load_code
from harness.choosing.registry import PACKAGE, declared, task_names
from harness.prompts import Prompt, Selection
from harness.suite import prepare_suite

README = Path(__file__).parents[1] / "tasks" / "README.md"
ROWS = [
    {"id": "c2", "country": "Peru", "cities": ["Lima", "Cusco"], "answer": 0},
    {"id": "c3", "country": "Kenya", "cities": ["Mombasa", "Nairobi", "Kisumu"], "answer": 1},
]
SHOT = {"id": "c4", "country": "Norway", "cities": ["Bergen", "Oslo"], "answer": 1}


@pytest.fixture
def capitals(tmp_path: Path) -> Path:
    """The skeleton as a file, its variant appended, and rows below `data/`."""
    skeleton, variant = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    (tmp_path / "capitals.py").write_text(skeleton + "\n\n" + variant)
    folder = tmp_path / "data" / "capitals"
    folder.mkdir(parents=True)
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "train.jsonl").write_text(json.dumps(SHOT) + "\n")
    return tmp_path / "capitals.py"


@pytest.fixture
def among_the_tasks(capitals: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The skeleton among the task files, for the time of a test."""
    task_names()
    package = importlib.import_module(PACKAGE)
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(capitals.parent)])
    importlib.invalidate_caches()
    yield capitals
    sys.modules.pop(f"{PACKAGE}.capitals", None)


def asked(names: list[str], data_dir: Path, shots: int) -> list[Prompt]:
    """The prompts of some tasks."""
    suite = prepare_suite(names, shots=shots, data_dir=data_dir, selection=Selection(), skip_bad_rows=False)
    return [prompt for _, prompt in suite.prompts() if isinstance(prompt, Prompt)]


def test_the_skeleton_is_a_task_file(among_the_tasks: Path) -> None:
    """Put among the task files it is listed and loaded, and its example is an item, in both its forms."""
    assert "capitals" in task_names()
    task, variant = declared("capitals")
    assert (task.name, variant.name) == ("capitals", "capitals:mc")
    item, lettered = (each.item(Row(each.example, "example", task=each.name)) for each in (task, variant))
    assert [pair.continuation for pair in item.pairs] == [" Porto", " Lisbon", " Faro"]
    assert [pair.continuation for pair in lettered.pairs] == [" A", " B", " C"]
    assert item.gold == lettered.gold == (1,)


def test_the_skeleton_runs(among_the_tasks: Path) -> None:
    """Its prompts are made of rows of a folder, with shots of the train split before each question."""
    prompts = asked(["capitals", "capitals:mc"], among_the_tasks.parent / "data", shots=1)
    shot = "Question: What is the capital of Norway?\nAnswer: Oslo\n\n"
    assert [prompt.item.id for prompt in prompts] == ["c2", "c3", "c2", "c3"]
    assert prompts[0].contexts()[0] == f"{shot}Question: What is the capital of Peru?\nAnswer:"
    assert [pair.continuation for pair in prompts[1].item.pairs] == [" Mombasa", " Nairobi", " Kisumu"]
    assert prompts[2].contexts()[0] == (
        "Question: What is the capital of Norway?\nA. Bergen\nB. Oslo\nAnswer: B\n\n"
        "Question: What is the capital of Peru?\nA. Lima\nB. Cusco\nAnswer:"
    )


def test_the_skeleton_runs_by_its_path(capitals: Path) -> None:
    """A file elsewhere is a task as well: named by its path, its variant too."""
    (variant,), _ = load_code(f"{capitals}:TASK:mc")
    assert variant.name == "capitals:mc"
    prompts = asked([f"{capitals}:TASK"], capitals.parent / "data", shots=0)
    assert [len(prompt.item.pairs) for prompt in prompts] == [2, 3]


def test_every_field_is_in_the_readme() -> None:
    """The table of fields names all that a task may declare, and nothing else."""
    task = declared("copa")[0]
    table = README.read_text().partition("## Fields of `Task`")[2].partition("##")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, flags=re.MULTILINE)) == set(task.__dataclass_fields__)


def test_every_task_is_in_the_readme() -> None:
    """The tables name every task file, and every kind of variant with the tasks that have it."""
    text = README.read_text()
    files = re.findall(r"`(\w+)\.py`", text.partition("| File |")[2].partition("\n\n")[0])
    assert sorted(files) == task_names()
    table = text.partition("| Variant |")[2].partition("\n\n")[0]
    told = {
        (name, form)
        for forms, names in re.findall(r"^\| (`:.*?) \| (.*?) \|", table, flags=re.MULTILINE)
        for form in re.findall(r"`:(\w+)`", forms)
        for name in re.findall(r"`(\w+)`", names)
    }
    there = {tuple(task.name.split(":")) for file in task_names() for task in declared(file)[1:]}
    assert told - {("belebele", "LANGUAGE")} == {each for each in there if each[0] != "belebele"}
