"""Rows of sets of one's own: which choice an answer means, what a prompt holds, what is refused."""

from __future__ import annotations

from string import ascii_uppercase
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import FieldError, Item, Row, UsageError
from harness.choosing.ownitems import AnswerRule, OwnForm, checked_template

MC = "{context}\n{question}\n{choices}\nAnswer:"


def form(prompt: str = MC, *, lettered: bool = True, **changes: Any) -> OwnForm:
    """A form, lettered unless said otherwise."""
    settings: dict[str, Any] = {"delimiter": " ", "answer": "auto", "settings": "toy.toml"}
    return OwnForm(lettered=lettered, prompt=prompt, **{**settings, **changes})


def row(**values: Any) -> Row:
    """A row of the toy file."""
    base = {"question": "Which?", "choices": ["red", "green", "blue"], "answer": 1}
    return Row({**base, **values}, "toy.jsonl line 1", task="toy")


def gold(**values: Any) -> int:
    """What the answer of a row means."""
    rule: AnswerRule = values.pop("rule", "auto")
    item = form(answer=rule)(row(**values))
    assert isinstance(item, Item)
    (position,) = item.gold
    return position


@pytest.mark.parametrize("answer", [2, 2.0, "2", " 2 ", "C", "c", "blue", " blue "])
def test_an_answer_is_an_index_a_letter_or_a_text(answer: object) -> None:
    """All ways to write an answer mean the same choice."""
    assert gold(answer=answer) == 2


@pytest.mark.parametrize(
    ("choices", "answer", "rule", "position"),
    [
        (["B", "A"], 0, "auto", 0),
        (["B", "A"], "A", "letter", 0),
        (["B", "A"], "A", "text", 1),
        (["1", "0"], "0", "index", 0),
        (["1", "0"], "0", "text", 1),
        (["1", "0"], 0, "auto", 0),
        (["1", "0"], 0, "text", 1),
        (["A", "B"], "B", "auto", 1),
        (["0", "1"], "1", "auto", 1),
    ],
)
def test_readings_that_agree_or_are_chosen(
    choices: list[str], answer: object, rule: AnswerRule, position: int
) -> None:
    """A number is an index; a text may be read in any way that agrees, or in the way that the TOML says."""
    assert gold(choices=choices, answer=answer, rule=rule) == position


@pytest.mark.parametrize(("choices", "answer"), [(["B", "A"], "A"), (["1", "0"], "0"), (["b", "a"], "a")])
def test_readings_that_differ_are_an_error(choices: list[str], answer: str) -> None:
    """An answer that is a letter or index of one choice and the text of another is not guessed at."""
    with pytest.raises(FieldError, match=r"say which is meant with answer = .* in toy\.toml") as caught:
        gold(choices=choices, answer=answer)
    assert caught.value.field == "answer"
    assert "choices[0]" in caught.value.problem
    assert "choices[1]" in caught.value.problem


@given(st.lists(st.text("AB01cd", min_size=1, max_size=2), min_size=2, max_size=5, unique=True), st.data())
def test_every_reading_is_considered(choices: list[str], data: st.DataObject) -> None:
    """Against the rule said plainly: the set of all readings has one member, or the row is refused."""
    answer = data.draw(st.sampled_from([*choices, "0", "1", "A", "b", "x"]))
    meant = {at for at in range(len(choices)) if answer in (str(at), ascii_uppercase[at], choices[at])}
    meant |= {at for at in range(len(choices)) if answer.upper() == ascii_uppercase[at]}
    try:
        found = gold(choices=choices, answer=answer)
    except FieldError:
        assert len(meant) != 1
    else:
        assert meant == {found}


@pytest.mark.parametrize(
    ("values", "field", "problem"),
    [
        ({"answer": 3}, "answer", "'3' is no index from 0 to 2"),
        ({"answer": -1}, "answer", "no index from 0 to 2"),
        ({"answer": "D"}, "answer", "no letter from A to C"),
        ({"answer": "pink"}, "answer", "the text of no choice"),
        ({"answer": "9" * 5000}, "answer", "the text of no choice"),
        ({"answer": None}, "answer", "is null"),
        ({"answer": True}, "answer", "expected an index"),
        ({"answer": 1.5}, "answer", "expected an index"),
        ({"answer": [1]}, "answer", "expected an index"),
        ({"answer": "1", "rule": "letter"}, "answer", "'1' is no letter from A to C"),
        ({"answer": "", "rule": "auto"}, "answer", "no index"),
        ({"question": " \n"}, "question", "is empty"),
        ({"question": 7}, "question", "expected text"),
        ({"choices": ["a"]}, "choices", "an item needs two at least"),
        ({"choices": []}, "choices", "0 of them"),
        ({"choices": ["a", " a"]}, "choices[1]", "is the same as choices[0], 'a'"),
        ({"choices": ["a", ""]}, "choices[1]", "is empty"),
        ({"choices": ["a", 4]}, "choices[1]", "expected text, found 4"),
        ({"choices": "red, green"}, "choices", "expected a list such as"),
        ({"choices": [f"c{i}" for i in range(27)]}, "choices", "there are letters for 26"),
        ({"subject": 4}, "subject", "expected text"),
        ({"context": ["x"]}, "context", "expected text"),
        ({"question": "half \ud800"}, "question", "half a character"),
        ({"contex": "lost"}, "contex", "call it 'context'"),
        ({"Subject": "x"}, "Subject", "call it 'subject'"),
    ],
)
def test_bad_rows(values: dict[str, Any], field: str, problem: str) -> None:
    """What is no item is refused by field, with what was expected."""
    with pytest.raises(FieldError) as caught:
        gold(**values)
    assert caught.value.field == field
    assert problem in caught.value.problem


def test_a_lettered_item() -> None:
    """The context, the question and its lettered choices; what is forced is a letter, and what identifies the
    row is kept."""
    item = form()(row(context=" A wall. ", id=7.0, cluster="wall", extra="ignored"))
    assert {pair.context for pair in item.pairs} == {"A wall.\nWhich?\nA. red\nB. green\nC. blue\nAnswer:"}
    assert [(pair.continuation, pair.choice) for pair in item.pairs] == [
        (" A", "A"),
        (" B", "B"),
        (" C", "C"),
    ]
    assert (item.id, item.cluster, item.gold) == ("7", "wall", (1,))


def test_a_cloze_item() -> None:
    """Without letters the texts are forced, after the delimiter; an empty context leaves no empty line."""
    asked = form("{context}\nQ: {question}\nA:", lettered=False, delimiter="\n")(row(context=None))
    assert asked.pairs[0].context == "Q: Which?\nA:"
    assert [pair.continuation for pair in asked.pairs] == ["\nred", "\ngreen", "\nblue"]


def test_twenty_six_letters() -> None:
    """There are letters for 26 choices; texts are forced of any number."""
    many = [f"c{at}" for at in range(30)]
    item = form()(row(choices=many[:26], answer="Z"))
    assert (item.pairs[25].choice, item.gold) == ("Z", (25,))
    assert len(form("{question}", lettered=False)(row(choices=many)).pairs) == 30


def test_braces_in_rows_are_text() -> None:
    """What a row holds is never taken for a placeholder."""
    item = form("{{}} {question}", lettered=False)(row(question="{choices} {0} {"))
    assert item.pairs[0].context == "{} {choices} {0} {"


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{qestion}", "no placeholder {qestion}. Did you mean question?"),
        ("{question.__class__}", "no placeholder {question.__class__}"),
        ("{question[0]}", "no placeholder {question[0]}"),
        ("{question!r}", "no placeholder {question!r}"),
        ("{question:{choices}}", "no placeholder {question:{choices}}"),
        ("{}", "no placeholder {}"),
        ("{question", "a brace that is meant is written twice"),
        ("}", "a brace that is meant is written twice"),
    ],
)
def test_templates_run_no_code(template: str, said: str) -> None:
    """A placeholder is a known name in braces; attributes, indices, conversions and formats are refused."""
    with pytest.raises(UsageError) as caught:
        checked_template(template, "here")
    assert str(caught.value).startswith("here: ")
    assert said in str(caught.value)


def test_white_space_at_the_end_of_a_template_is_dropped() -> None:
    """The delimiter stands there, whatever the end of a multi-line text in TOML looks like."""
    assert checked_template("Q: {question}\nA: \n", "here") == "Q: {question}\nA:"
