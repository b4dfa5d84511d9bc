"""Rows and items: typed access names what is wrong, and nothing wrong becomes an item."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import FieldError, Item, Row
from harness.items import list_from_text
from tests.making import item_of

GOOD = {"question": "One and one?", "choices": ["two", "three"], "answer": 0}


def row(**values: Any) -> Row:
    """A row with these columns."""
    return Row(values, "toy/test.jsonl line 1", task="toy", subject="sums", index=3)


def problem(**changes: Any) -> str:
    """What is said of the good row with some columns changed."""
    with pytest.raises(FieldError) as caught:
        item_of(row(**{**GOOD, **changes}))
    return str(caught.value)


CHOICES = {"text": ["yes", "no"], "label": ["A", "B"]}


@pytest.mark.parametrize("choices", [CHOICES, json.dumps(CHOICES)], ids=["record", "CSV cell"])
def test_labelled_choices(choices: object) -> None:
    """Texts and the position of the labelled one, from a record or from JSON in a cell."""
    assert row(choices=choices, key=" B ").labelled("choices", "key") == (("yes", "no"), 1)


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"choices": CHOICES, "key": "C"}, "field 'key': 'C' is none of the labels A, B"),
        (
            {"choices": {**CHOICES, "label": ["A"]}, "key": "A"},
            r"field 'choices.text': expected 1 texts, found 2",
        ),
        ({"choices": {"text": ["yes"]}, "key": "A"}, "field 'choices.label': missing"),
        ({"choices": ["yes", "no"], "key": "A"}, "field 'choices': expected a record"),
        ({"choices": "{yes", "key": "A"}, "field 'choices': expected a record"),
        ({"choices": CHOICES}, "field 'key': missing"),
    ],
)
def test_labelled_choices_that_are_none(values: dict[str, Any], says: str) -> None:
    """What is no record, has no labels, or names none of them is said by field."""
    with pytest.raises(FieldError, match=says):
        row(**values).labelled("choices", "key")


def test_letters_are_written_as_a_benchmark_has_them() -> None:
    """Line and choice are formats; braces in question and answers are text."""
    item = row().lettered(
        question="{0}?",
        answers=("{a}", "{}"),
        gold=1,
        gold_field="answer",
        line="({}) {}",
        choice="({})",
    )
    assert item.pairs[0].context == "{0}?\n(A) {a}\n(B) {}\nAnswer:"
    assert [pair.continuation for pair in item.pairs] == [" (A)", " (B)"]


def test_item_takes_its_place_from_the_row() -> None:
    """An item knows its task, subject and index, and forces a space and the choice."""
    item = item_of(row(**GOOD))
    assert (item.task, item.subject, item.index, item.gold) == ("toy", "sums", 3, (0,))
    assert [(p.context, p.continuation, p.choice) for p in item.pairs] == [
        ("Q: One and one?\nA:", " two", "two"),
        ("Q: One and one?\nA:", " three", "three"),
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"question": None}, "field 'question': is null"),
        ({"question": " \n"}, "field 'question': is empty"),
        ({"question": 7}, "field 'question': expected text, found 7"),
        ({"question": "\ud800"}, "field 'question': holds half a character (a lone surrogate): '\\ud800'"),
        ({"choices": None}, "field 'choices': is null"),
        ({"choices": ["two", None]}, "field 'choices[1]': is null"),
        ({"choices": ["two", " "]}, "field 'choices[1]': is empty"),
        ({"choices": ["two", 3]}, "field 'choices[1]': expected text, found 3"),
        ({"choices": {"two": 1}}, "field 'choices': expected a list of texts, found {'two': 1}"),
        ({"choices": "two"}, "field 'choices': expected a list such as [\"yes\", \"no\"], found 'two'"),
        ({"choices": '"two"'}, "field 'choices': expected a list such as"),
        ({"answer": None}, "field 'answer': is null"),
        ({"answer": 2}, "field 'answer': gold 2 is out of range for 2 choices"),
        ({"answer": -1}, "field 'answer': gold -1 is out of range for 2 choices"),
        ({"answer": "B"}, "field 'answer': expected an integer, found 'B'"),
        ({"answer": ""}, "field 'answer': expected an integer, found ''"),
        ({"answer": True}, "field 'answer': expected an integer, found True"),
        ({"answer": 0.5}, "field 'answer': expected an integer, found 0.5"),
    ],
)
def test_what_is_wrong_is_named(changes: dict[str, Any], said: str) -> None:
    """Each wrong column raises an error that names it and what was found."""
    assert said in problem(**changes)


def test_missing_column_is_named_with_those_that_are_there() -> None:
    """A missing column is told together with the columns of the row."""
    with pytest.raises(FieldError, match="field 'question': missing; the row has 'text', 'answer'"):
        row(text="One and one?", answer=0).text("question")


def test_number_of_texts_is_checked() -> None:
    """A list of the wrong length is an error."""
    with pytest.raises(FieldError, match="expected 4 texts, found 2"):
        row(**GOOD).texts("choices", exactly=4)


def test_texts_are_cleaned_and_then_must_not_be_empty() -> None:
    """`clean` is applied to each text, and a text of which it leaves nothing is an error."""
    marked = row(endings=["[step] Go", "[title]"])
    with pytest.raises(FieldError, match=r"field 'endings\[1\]': is empty"):
        marked.texts("endings", clean=lambda text: text.replace("[title]", ""))
    assert marked.texts("endings", clean=str.upper) == ("[STEP] GO", "[TITLE]")


def test_numbers_written_as_text() -> None:
    """An integer may be written as text, as HellaSwag's labels and all CSV cells are."""
    assert row(label="3").integer("label") == 3


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (188.0, "188"), (7, "7"), ("a-1", "a-1"), (0.5, "0.5")]
)
def test_optional(value: object, text: str) -> None:
    """Ids are text, without the ".0" that a column with nulls gets, and empty where there is none."""
    assert row(ind=value).optional("ind") == text
    assert row().optional("ind") == ""


def test_several_golds_and_contexts() -> None:
    """An item may have several right choices, and a context for each choice."""
    item = row().item(context=["A", "B"], choices=["x", "y"], gold=(0, 1), gold_field="labels")
    assert item.gold == (0, 1)
    assert [pair.context for pair in item.pairs] == ["A", "B"]
    with pytest.raises(FieldError, match="field 'labels': no choice is right"):
        row().item(context="A", choices=["x", "y"], gold=(), gold_field="labels")


def test_uneven_lists_are_a_mistake_of_the_task_file() -> None:
    """Contexts or continuations that are fewer than the choices are never cut to fit."""
    with pytest.raises(ValueError, match="zip"):
        row().item(context=["A"], choices=["x", "y"], gold=0, gold_field="label")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))))
def test_list_cells_round_trip(values: list[str]) -> None:
    """A list written into a cell as JSON or as Python is read back as it was."""
    assert list_from_text(json.dumps(values)) == values
    assert list_from_text(repr(values)) == values


@given(st.text())
def test_any_text_as_a_list_is_a_list_or_none(text: str) -> None:
    """Text that spells no list gives None, whatever it is, and never an exception."""
    assert isinstance(list_from_text(text), list | None)
    assert isinstance(list_from_text(f"[{text}]"), list | None)


@given(
    st.dictionaries(st.sampled_from(list(GOOD)), st.none() | st.integers() | st.text() | st.lists(st.text()))
)
def test_any_row_is_an_item_or_a_field_error(values: dict[str, Any]) -> None:
    """Whatever a row holds, it becomes a sound item, or the field at fault is named."""
    try:
        item = item_of(row(**values))
    except FieldError as error:
        assert error.field.partition("[")[0] in GOOD
    else:
        assert isinstance(item, Item)
        assert all(0 <= gold < len(item.pairs) for gold in item.gold)
        assert all(pair.choice.strip() for pair in item.pairs)
