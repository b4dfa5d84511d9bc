"""Variants: the same rows asked otherwise. Their texts are written out here, and by OLMES's paper."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness import Item, Row, Task, UsageError
from harness.choosing.registry import declared, load_task, task_names
from harness.data.rows import open_rows
from harness.prompts import Prompt, Selection, shot_drawer
from harness.scoring.asides import takes_orders
from harness.suite import Suite, prepare_suite

VARIANTS = [task for file in task_names() for task in declared(file)[1:]]
OLMES = {
    "arc_challenge": ("acc_pmi", "ABBDC"),
    "arc_easy": ("acc_norm", "BDACC"),
    "boolq": ("acc", "AABBA"),
    "commonsense_qa": ("acc_pmi", "BDCEA"),
    "hellaswag": ("acc_norm", "DADBC"),
    "mmlu": ("acc_norm", ""),
    "openbookqa": ("acc_pmi", "DCDAB"),
    "piqa": ("acc_norm", "AABBB"),
    "social_iqa": ("acc_norm", "ACBCA"),
    "winogrande": ("acc", "AABAB"),
}
"""The standard's tasks: how each normalises, and the letters that its five shots answer."""


def example_item(name: str, **changes: Any) -> Item:
    """The item of a task's example row, with some columns changed."""
    task = load_task(name)
    values = {**task.example, **changes}
    subject = str(values[task.subject_field]) if task.subject_field else ""
    return task.item(Row(values, "example", task=name, subject=subject))


def base(task: Task) -> Task:
    """The task that a variant is one of."""
    return load_task(task.name.partition(":")[0])


@pytest.mark.parametrize(
    "task", [task for task in VARIANTS if task.name.endswith(":mc")], ids=lambda t: t.name
)
def test_letters_of_a_task_that_scores_texts(task: Task) -> None:
    """`mc` shows every choice in its order behind a letter, scores the letters, and leaves all else alone."""
    shown, texts = example_item(task.name), example_item(base(task).name)
    (context,) = {pair.context for pair in shown.pairs}
    lines = [f"{letter}. {pair.choice.strip()}" for letter, pair in zip("ABCDE", texts.pairs, strict=False)]
    assert context.endswith("\n" + "\n".join(lines) + "\nAnswer:")
    assert [pair.continuation for pair in shown.pairs] == [f" {line[0]}" for line in lines]
    assert (shown.gold, shown.id, shown.cluster) == (texts.gold, texts.id, texts.cluster)
    assert (task.shots, task.dataset, task.split) == (base(task).shots, base(task).dataset, base(task).split)
    assert task.metrics == ("acc",)
    assert takes_orders(task)


@pytest.mark.parametrize("name", ["commonsense_qa", "leaderboard_mmlu_pro", "mmlu", "sample_mmlu"])
def test_texts_of_a_task_that_scores_letters(name: str) -> None:
    """`cloze` shows no choice and scores their texts, as MMLU's continuation form in the reference."""
    lettered, item = example_item(name), example_item(f"{name}:cloze")
    question = load_task(name).example["question"]
    assert {pair.context for pair in item.pairs} == {f"Question: {question}\nAnswer:"}
    assert all(f". {pair.choice}\n" in lettered.pairs[0].context for pair in item.pairs)
    assert all(pair.continuation == f" {pair.choice}" for pair in item.pairs)
    assert (item.gold, len(item.pairs)) == (lettered.gold, len(lettered.pairs))
    assert load_task(f"{name}:cloze").shots == load_task(name).shots
    assert not takes_orders(load_task(f"{name}:cloze"))


def test_mmlu_cloze_says_nothing_of_multiple_choice() -> None:
    """The line before a question that shows no choices does not call it multiple choice."""
    assert load_task("mmlu:cloze").description("us_foreign_policy") == (
        "The following are questions (with answers) about us foreign policy.\n\n"
    )
    assert example_item("mmlu:cloze", question=" What?\n").pairs[0].context == "Question: What?\nAnswer:"


def test_mmlu_s_original_groups(shared: Path) -> None:
    """The paper counts anatomy as "other": 18 subjects and 3,018 items are STEM; prompts are the same."""
    task, variant = load_task("mmlu"), load_task("mmlu:original_groups")
    counts = Counter(row.subject for row in open_rows(task, "test", shared / "data"))
    sizes = {
        name: (len(subjects), sum(counts[each] for each in subjects))
        for name, subjects in variant.groups.items()
    }
    assert sizes == {
        "mmlu_stem_original": (18, 3_018),
        "mmlu_other_original": (14, 3_242),
        "mmlu_social_sciences_original": (12, 3_077),
        "mmlu_humanities_original": (13, 4_705),
    }
    assert "anatomy" in variant.groups["mmlu_other_original"]
    assert (variant.item, variant.shots, variant.description) == (task.item, task.shots, task.description)


@pytest.mark.parametrize(("name", "shots"), [("hellaswag", 10), ("winogrande", 5)])
def test_the_n_plus_1_quirk(name: str, shots: int) -> None:
    """The reference draws one shot more for these tasks and drops one, unless the split is named, as by its
    group `openllm`: other shots for all items but, now and then, the first."""
    quirky, leaderboard = load_task(name).shots, load_task(f"{name}:openllm").shots
    assert leaderboard.default == shots
    pool = [example_item(name) for _ in range(100)]
    one, other = Random(1234), Random(1234)
    draw_more, draw = (shot_drawer(rule, shots, pool) for rule in (quirky, leaderboard))
    where = {id(item): at for at, item in enumerate(pool)}
    differ = 0
    for _ in range(5):
        more = [where[id(item)] for item in draw_more(None)]
        named = [where[id(item)] for item in draw(None)]
        assert more == one.sample(range(100), shots + 1)[:shots]
        assert named == other.sample(range(100), shots)
        differ += more != named
    assert differ >= 4


def test_leaderboard_s_headline() -> None:
    """The first Open LLM Leaderboard reported HellaSwag's acc_norm and WinoGrande's acc."""
    assert load_task("hellaswag:openllm").metrics[0] == "acc_norm"
    assert load_task("winogrande:openllm").metrics[0] == "acc"
    leaderboard = load_task("arc_challenge:openllm")
    assert (leaderboard.metrics[0], leaderboard.shots.default) == ("acc_norm", 25)


@pytest.mark.parametrize("name", OLMES)
def test_olmes_declares(name: str) -> None:
    """Both forms of each task: five shots, the standard's normalisation first, its own version."""
    cloze, lettered = load_task(f"{name}:olmes"), load_task(f"{name}:olmes_mc")
    assert cloze.metrics[0] == OLMES[name][0]
    assert lettered.metrics == ("acc",)
    assert cloze.shots == lettered.shots
    assert cloze.shots.default == 5
    assert cloze.version == lettered.version == "0.1"
    assert name == "mmlu" or len(cloze.shots.ids) == 5


@pytest.mark.parametrize(
    ("name", "question", "listed"),
    [
        (
            "arc_challenge",
            "Question: A wet towel dries faster on a windy day. What does the wind do?\nAnswer:",
            "Question: A wet towel dries faster on a windy day. What does the wind do?\n A. It cools the"
            " towel until the water freezes.\n B. It carries moist air away from the towel.\n C. It presses"
            " the water out of the towel.\n D. It makes the water in the towel lighter.\nAnswer:",
        ),
        (
            "boolq",
            "The bridge -- The bridge was built for walkers. It is closed from sunset to sunrise.\n"
            "Question: is the bridge open at night?\nAnswer:",
            "The bridge -- The bridge was built for walkers. It is closed from sunset to sunrise.\n"
            "Question: is the bridge open at night?\n A. yes\n B. no\nAnswer:",
        ),
        (
            "commonsense_qa",
            "Question: Where would you look for a fork after the dishes are done?\nAnswer:",
            "Question: Where would you look for a fork after the dishes are done?\n A. garden\n B. drawer\n"
            " C. bathtub\n D. road\n E. letterbox\nAnswer:",
        ),
        (
            "mmlu",
            "Question: Which planet of the Solar System takes the least time to go around the Sun?\nAnswer:",
            "Question: Which planet of the Solar System takes the least time to go around the Sun?\n"
            " A. Venus\n B. Mercury\n C. Mars\n D. Neptune\nAnswer:",
        ),
        (
            "openbookqa",
            "Question: A puddle in the yard is gone by noon because the water\nAnswer:",
            "Question: A puddle in the yard is gone by noon because the water\n A. turned into stone\n"
            " B. went into the air\n C. was never there\n D. became heavier\nAnswer:",
        ),
        (
            "piqa",
            "Goal: To keep a door from slamming in the wind,\nAnswer:",
            "Goal: To keep a door from slamming in the wind,\n A. put a wedge under it.\n B. put a wedge on"
            " top of the roof.\nAnswer:",
        ),
        (
            "social_iqa",
            "Question: Ada carried her neighbour's shopping up the stairs. How would the neighbour feel about"
            " her?\nAnswer:",
            "Question: Ada carried her neighbour's shopping up the stairs. How would the neighbour feel about"
            " her?\n A. afraid\n B. thankful\n C. hungry\nAnswer:",
        ),
    ],
)
def test_olmes_prompts(name: str, question: str, listed: str) -> None:
    """The paper's formats (its figures 6 to 23), of our example rows."""
    cloze, lettered = example_item(f"{name}:olmes"), example_item(f"{name}:olmes_mc")
    assert {pair.context for pair in cloze.pairs} == {question}
    assert {pair.context for pair in lettered.pairs} == {listed}
    assert [pair.continuation for pair in lettered.pairs] == [
        f" {letter}" for letter in "ABCDE"[: len(lettered.pairs)]
    ]
    assert cloze.gold == lettered.gold


def test_olmes_counts_the_space_of_an_answer() -> None:
    """An answer of the cloze form is one character longer than its text: the standard counts its space."""
    item = example_item("arc_easy:olmes")
    assert [pair.choice for pair in item.pairs] == [" a mirror", " a star", " a moon", " a window"]
    assert [pair.continuation for pair in item.pairs] == [pair.choice for pair in item.pairs]


def test_olmes_boolq_turns_yes_and_no_around() -> None:
    """ "yes" is the first choice there, the second one in the reference."""
    for label, gold in ((0, (1,)), (1, (0,))):
        assert example_item("boolq:olmes", label=label).gold == gold
        assert example_item("boolq:olmes_mc", label=label).gold == gold
    assert [pair.continuation for pair in example_item("boolq:olmes").pairs] == [" yes", " no"]


def test_olmes_hellaswag() -> None:
    """No "Answer:" where the endings are scored; a full stop before a title is not doubled."""
    changes = {"ctx_a": "[header] How to bake [title] Mix it. [title] Bake it."}
    ours, cloze, lettered = (
        example_item(f"hellaswag{form}", **changes) for form in ("", ":olmes", ":olmes_mc")
    )
    assert ours.pairs[0].context == "Home and Garden: How to bake. Mix it.. Bake it."
    assert cloze.pairs[0].context == "Home and Garden: How to bake. Mix it. Bake it."
    assert (
        cloze.pairs[0].continuation == "  Mark the noisy one with a piece of tape so that you find it again."
    )
    assert lettered.pairs[0].context.startswith(
        "Home and Garden: How to bake. Mix it. Bake it.\nChoose the best continuation:\n A.  Mark the noisy"
    )
    assert lettered.pairs[0].context.endswith("a different door.\nAnswer:")


def test_olmes_winogrande() -> None:
    """Scored behind the gap as the reference does, or with the gap shown and the options behind letters."""
    assert example_item("winogrande:olmes").pairs == example_item("winogrande").pairs
    assert example_item("winogrande:olmes_mc").pairs[0].context == (
        "Fill in the blank: Ben lent Carl his coat because ___ had come without one.\n A. Ben\n B. Carl"
        "\nAnswer:"
    )


@pytest.mark.parametrize("name", [name for name in OLMES if name != "mmlu"])  # whose subjects have their own
def test_olmes_shots_are_in_the_train_split(shared: Path, name: str) -> None:
    """The five shots are found by id in the genuine train split, and answer the letters that the standard's
    do; where the split is not at hand, they are said to be missing."""
    data = shared / "data"

    def prepared() -> Suite:
        name_of_form = [f"{name}:olmes_mc"]
        return prepare_suite(
            name_of_form, shots=None, data_dir=data, selection=Selection(limit=1), skip_bad_rows=False
        )

    if not (data / name / "train.parquet").is_file():
        with pytest.raises(UsageError, match="train"):
            prepared()
        return
    (task,) = prepared().tasks
    (prompt,) = task.prompts()
    assert isinstance(prompt, Prompt)
    solved = prompt.prefix.split("\n\n")[:-1]
    assert "".join(each[-1] for each in solved) == OLMES[name][1]
    assert all(each[:-1].endswith("\nAnswer: ") for each in solved)


ANSWERS = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3", "Correct Answer")
WORDS = st.text("abcdefgh", min_size=1, max_size=6)


@given(st.lists(WORDS, min_size=4, max_size=4, unique=True), WORDS)
def test_gpqa_orders_answers_by_their_own_text(answers: list[str], question: str) -> None:
    """Whatever the texts: each answer has one letter, gold is the right one's, and neither place nor form of
    the row changes the order."""
    row = {"Question": question, **dict(zip(ANSWERS, answers, strict=True))}
    tasks = [load_task(name) for name in ("gpqa", "gpqa:diamond", "gpqa:n_shot")]
    items = [task.item(Row(row, "x", task=task.name, index=at)) for at, task in enumerate(tasks)]
    lines = items[0].pairs[0].context.split("\nChoices:\n")[1].split("\n")[:-1]
    assert sorted(line.partition(") ")[2] for line in lines) == sorted(answers)
    assert lines[items[0].gold[0]] == f"({'ABCD'[items[0].gold[0]]}) {answers[3]}"
    assert {item.gold for item in items} == {items[0].gold}
    assert all("\n".join(lines) in item.pairs[0].context for item in items)


def test_gpqa_spreads_the_right_answers() -> None:
    """Over many rows the right answer stands about as often behind each letter."""
    found = Counter(example_item("gpqa", Question=f"Question {i}?").gold[0] for i in range(2_000))
    assert all(400 < found[place] < 600 for place in range(4))


def test_gpqa_prompts() -> None:
    """The letters stand in brackets, in the prompt and as what is scored; with shots the words are others."""
    item, shot = example_item("gpqa"), example_item("gpqa:n_shot")
    question = "A cyclist rides 12 km at 24 km/h and the same way back at 8 km/h. What is her mean speed over"
    assert item.pairs[0].context.startswith(f"What is the correct answer to this question:{question}")
    assert shot.pairs[0].context.startswith(f"Question: {question}")
    assert [pair.continuation for pair in item.pairs] == [" (A)", " (B)", " (C)", " (D)"]
    assert "\nChoices:\n(A) " in item.pairs[0].context
    assert load_task("gpqa").description("") == ""
    assert load_task("gpqa:n_shot").description("").endswith("exactly.\n")


def test_gpqa_cleans_answers_and_not_the_question() -> None:
    """The reference's cleaning of answers: strip, " [title]", double spaces; brackets stay."""
    item = example_item("gpqa", **{"Correct Answer": " [1] a [title] b  c "}, Question=" Why  so? ")
    assert ") [1] a. b c\n" in item.pairs[0].context
    assert "question: Why  so? \nChoices:" in item.pairs[0].context


def test_gpqa_zeroshot_stays_without_shots() -> None:
    """Its number of shots is final, as in the reference; the `n_shot` variants take any, but not the item."""
    assert load_task("gpqa:diamond").shots.fixed
    shots = load_task("gpqa:diamond_n_shot").shots
    assert (shots.fixed, shots.without_own) == (False, True)
