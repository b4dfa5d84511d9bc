"""A task that is declared wrongly is refused when it is loaded, by field."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import Dataset, Shots, Split, Task, UsageError
from harness.choosing.catalogue import facts
from harness.choosing.checking import _FIELDS, check_task
from harness.choosing.registry import declared, task_names
from harness.cli import main
from tests.making import make_task

CODE = "from tests.making import make_task\nTASK = make_task({})\n"


def shots(**changes: Any) -> dict[str, Any]:
    """A task's shots, changed."""
    return {"shots": replace(make_task().shots, **changes)}


def dataset(**changes: Any) -> dict[str, Any]:
    """A task's data set, changed."""
    return {"dataset": replace(make_task().dataset, **changes)}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"metrics": ("acc_nrm",)}, "the task 'toy': no metric 'acc_nrm'. Did you mean acc_norm"),
        ({"metrics": ()}, "the task 'toy': metrics is (); expected a tuple of names"),
        ({"metrics": "acc"}, "metrics is 'acc'; expected a tuple of names, such as (\"acc\",)"),
        ({"metrics": ("acc", 3)}, "metrics is ('acc', 3)"),
        ({"name": 3}, "code.py: name is 3; expected a text"),
        ({"version": 1.0}, "version is 1.0; expected a text"),
        ({"split": None}, "split is None; expected a text"),
        ({"item": "item"}, "item is 'item'; expected a function of a row"),
        ({"description": "Questions."}, "description is 'Questions.'; expected a function of a subject"),
        (
            {"description": lambda subject: None},
            "code.py: the task 'toy': its description is no text but NoneType",
        ),
        ({"groups": {"all": "ab"}}, "groups is {'all': 'ab'}; expected tuples of subjects"),
        ({"subject_field": ""}, "subject_field is ''; expected the name of a column"),
        ({"delimiter": None}, "delimiter is None; expected a text"),
        ({"chance": 25}, "chance is 25; expected a number from 0 to 1"),
        ({"dataset": "cais/mmlu"}, "dataset is 'cais/mmlu'; expected a Dataset"),
        (dataset(columns="question"), "dataset.columns is 'question'; expected a tuple of texts"),
        (dataset(splits={"test": 5}), "dataset.splits is {'test': 5}; expected a Split of each split"),
        (dataset(files={"test": "test.jsonl"}), "dataset.files is {'test': 'test.jsonl'}; expected a Path"),
        (dataset(folder=""), "dataset.folder is ''"),
        ({"shots": 5}, "shots is 5; expected a Shots"),
        (shots(draw="wrong"), "shots.draw is 'wrong'; expected one of first_n, random, listed"),
        (shots(draw=["first_n"]), "shots.draw is ['first_n']"),
        (shots(draw="listed"), "shots.ids is () with shots.draw = 'listed'; both go together"),
        (shots(ids=("a",)), "shots.ids is ('a',) with shots.draw = 'first_n'; both go together"),
        (shots(default=-1), "shots.default is -1; expected a number, 0 or more"),
        (shots(default=True), "shots.default is True"),
        (shots(fixed="yes"), "shots.fixed is 'yes'; expected True or False"),
        ({"example": []}, "example is []; expected a row as a dict"),
        ({"example": {}}, "its example is no item: field 'choices': missing; the row has no columns"),
        ({"item": lambda row: 1 / 0}, "its example is no item: ZeroDivisionError: division by zero"),
    ],
)
def test_wrong_declarations(change: dict[str, Any], said: str) -> None:
    """What a field cannot hold is one line with the place, the task, the field, and what it may hold."""
    with pytest.raises(UsageError) as caught:
        check_task(make_task(**change), "code.py")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.data())
def test_no_value_breaks_the_check(data: st.DataObject) -> None:
    """Whatever a field of any of the records holds, the answer is a task that has facts, or one line."""
    kind = data.draw(st.sampled_from([Task, Dataset, Shots]))
    name = data.draw(st.sampled_from([each.name for each in dataclasses.fields(kind)]))
    leaf = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just(len)
    value = data.draw(st.recursive(leaf, lambda inner: st.lists(inner, max_size=2) | st.tuples(inner)))
    holder = {Dataset: dataset, Shots: shots}.get(kind, dict)
    task = make_task(**holder(**{name: value}))
    try:
        check_task(task, "code.py")
    except UsageError as error:
        assert str(error).startswith("code.py: ")
        assert "\n" not in str(error)
    else:
        facts(task)


def test_every_field_is_checked() -> None:
    """No field of the three records is left out."""
    for kind, checks in _FIELDS.items():
        names = {each.name for each in dataclasses.fields(kind)}
        assert set(checks) == names - ({"dataset", "shots"} if kind is Task else set())


def test_shipped_tasks_pass() -> None:
    """Every task that ships is declared rightly, variants too."""
    for name in task_names():
        assert declared(name)[0].name == name
    check_task(make_task(**dataset(splits={"test": Split(3)})), "code.py")


@pytest.mark.parametrize("change", ["metrics=('nope',)", "metrics=()", "version=None", "example={}"])
@pytest.mark.parametrize("command", [["tasks"], ["run", "--endpoint", "embedded", "--tasks"]])
def test_wrong_declarations_are_refused_by_commands(
    tmp_path: Path, change: str, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Both commands say it in one line that names the file, and exit with 2."""
    (tmp_path / "mine.py").write_text(CODE.format(change))
    assert main([*command, str(tmp_path / "mine.py")]) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(f"forced-choice: --tasks {tmp_path / 'mine.py'}: the task 'toy': ")
    assert printed.err.count("\n") == 1
