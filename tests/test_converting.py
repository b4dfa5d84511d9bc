"""Code of somebody's own that fails on a row is a bad row with its place, never a traceback."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import FieldError, Item, Row, UsageError
from harness.cli import main
from harness.converting import description_of, item_of, item_or_bad
from harness.data.survey import bad_rows_error, survey
from harness.errors import RowError
from harness.items import BadItem
from harness.prompts import other_orders, prompts
from tests.making import item_of as good
from tests.making import make_rows, make_task

CODE = '''"""Ratios."""
from harness import Dataset, Item, Row, Shots, Task

def item(row: Row) -> Item:
    ratio = 1 / row.values["of"]
    return row.item(context=f"{ratio}?", choices=row.texts("choices"), gold=0, gold_field="choices")

TASK = Task(
    name="ratios", version="1", dataset=Dataset(hub=None, folder="ratios", columns=("of", "choices")),
    split="test", item=item, metrics=("acc",), shots=Shots(split="test", draw="first_n"),
    example={"of": 1, "choices": ["a", "b"]},
)
'''


def returning(change: Any) -> Any:
    """An item function that returns what a good one does, changed."""
    return lambda row: change(good(row))


@pytest.mark.parametrize(
    ("item", "said"),
    [
        (lambda row: 1 / 0, r"^ZeroDivisionError: division by zero \(test_converting\.py line \d+\)$"),
        (lambda row: row.values["gone"], "^KeyError: 'gone'"),
        (lambda row: row.item(context=3, choices=["a"], gold=0, gold_field="answer"), "^TypeError: "),
        (lambda row: row.item(context="?", choices=["a"], gold="a", gold_field="answer"), "^TypeError: "),
        (
            lambda row: row.item(context="?", choices=[], gold=0, gold_field="answer"),
            "gold 0 is out of range",
        ),
        (lambda row: None, r"^the task's item\(\) returned NoneType, which is no Item$"),
        (lambda row: "text", "returned str, which is no Item"),
        (returning(lambda item: replace(item, pairs=())), "without choices"),
        (returning(lambda item: replace(item, pairs=3)), "^TypeError: "),
        (returning(lambda item: replace(item, id=7)), "some that are no texts"),
        (returning(lambda item: replace(item, pairs=(replace(item.pairs[0], context=3),))), "no texts"),
        (
            returning(lambda item: replace(item, pairs=(replace(item.pairs[0], choice="\ud800"),))),
            "half a char",
        ),
        (returning(lambda item: replace(item, id="\ud800")), "half a char"),
        (returning(lambda item: replace(item, gold=(5,))), r"right choices are \(5,\), of 2"),
        (returning(lambda item: replace(item, gold=())), r"right choices are \(\), of 2"),
        (returning(lambda item: replace(item, index=5)), "the Item of another row"),
    ],
)
def test_whatever_code_does_is_a_bad_row(item: Any, said: str) -> None:
    """What is raised or returned instead of an item is told in one line, with where it was raised."""
    (row,) = make_rows(1)
    with pytest.raises(RowError, match=said) as caught:
        item_of(make_task(item=item), row)
    assert "\n" not in str(caught.value)
    bad = item_or_bad(make_task(item=item), row)
    assert isinstance(bad, BadItem)
    assert bad.problem == f"bad row: test row 0, {caught.value}"


def test_what_is_raised_on_purpose_stays() -> None:
    """A `FieldError` names its field, and a break from outside is nothing of a row's."""

    def refuses(row: Row) -> Item:
        raise FieldError("question", "is too easy")

    def stops(row: Row) -> Item:
        raise KeyboardInterrupt

    (row,) = make_rows(1)
    with pytest.raises(FieldError, match="field 'question': is too easy"):
        item_of(make_task(item=refuses), row)
    with pytest.raises(KeyboardInterrupt):
        item_of(make_task(item=stops), row)


def failing(row: Row) -> Item:
    """What fails on every row."""
    found: Item = row.values["gone"]
    return found


def failing_at(*indices: int) -> Any:
    """An item function that fails on some rows."""

    def item(row: Row) -> Item:
        return good(row) if row.index not in indices else failing(row)

    return item


def test_rows_that_code_fails_on_are_counted_and_listed() -> None:
    """They stand among the bad rows, with their places, and are no prompts."""
    task = make_task(item=failing_at(1, 3))
    found = survey(task, make_rows(4))
    assert (found.rows, found.n_bad) == (4, 2)
    assert "  test row 3: KeyError: 'gone'" in str(bad_rows_error(found))
    made = prompts(task, make_rows(4), shots=0, pools={}, chosen={"": range(4)})
    assert [isinstance(each, BadItem) for each in made] == [False, True, False, True]


def test_an_order_that_code_fails_on_is_not_asked() -> None:
    """Where another order of the choices cannot be made, there is none, and the item stays."""

    def item(row: Row) -> Item:
        return good(row) if not row.shift else failing(row)

    (row,) = make_rows(1)
    assert other_orders(make_task(item=item), row, good(row)) == ()


@pytest.mark.parametrize(
    ("description", "said"),
    [
        (
            lambda subject: 1 / 0,
            "its description of the subject 'a' fails: ZeroDivisionError: division by zero",
        ),
        (lambda subject: None, "its description of the subject 'a' is no text but NoneType"),
    ],
)
def test_a_description_that_fails(description: Any, said: str) -> None:
    """It is found while rows are checked, by the first row of the subject, and named."""
    task = make_task(description=description)
    with pytest.raises(UsageError, match=f"--tasks toy: {said}"):
        survey(task, make_rows(2, subjects=["a"]))
    with pytest.raises(UsageError):
        description_of(task, "a")
    bad = Row({}, "line 1", task="toy", broken="not JSON")
    assert survey(task, [bad]).n_bad == 1


def test_a_run_of_code_that_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command says file, line, error and way out, exit 2; where rows are skipped the reason names it."""
    (tmp_path / "ratios.py").write_text(CODE)
    (tmp_path / "ratios").mkdir()
    rows = [{"of": of, "choices": ["a", "b"]} for of in (1, 0, 2)]
    (tmp_path / "ratios" / "test.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    command = [
        "run",
        "--tasks",
        str(tmp_path / "ratios.py"),
        "--data-dir",
        str(tmp_path),
        "--endpoint",
        "embedded",
    ]
    assert main([*command, "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "forced-choice: 1 of 3 rows are no items:",
        "  ratios/test.jsonl line 2: ZeroDivisionError: division by zero (ratios.py line 5)",
        "Mend them, or pass --skip-bad-rows to count them as unscored.",
    ]
    (tmp_path / "ratios.py").write_text(CODE.replace("1 / row", "1.5 / row"))
    from harness.prompts import Selection
    from harness.suite import prepare_suite

    suite = prepare_suite(
        [str(tmp_path / "ratios.py")],
        shots=None,
        data_dir=tmp_path,
        selection=Selection(),
        skip_bad_rows=True,
    )
    assert [bool(record.problem) for record in suite.listing] == [False, True, False]
    assert "ZeroDivisionError" in [record.problem for record in suite.listing][1]
