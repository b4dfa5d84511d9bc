"""Every task file, and the rules of HellaSwag and MMLU; texts are compared with those of the reference."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness import FieldError, Item, Row, Task
from harness.choosing.registry import declared, load_task, task_names
from harness.data.rows import open_rows
from harness.prompts import Prompt, Selection, shot_drawer
from harness.scoring.metrics import METRICS
from harness.suite import prepare_suite
from tasks.hellaswag import clean

EVERY = [task.name for file in task_names() for task in declared(file)]
"""Every task, and every variant."""
NAMES = [name for name in EVERY if not name.startswith("belebele:") or name == "belebele:zul_Latn"]
"""The same, but one of belebele's languages, which differ in their rows alone."""

GROUPS = {
    "mmlu_stem": (19, 3_153),
    "mmlu_other": (13, 3_107),
    "mmlu_social_sciences": (12, 3_077),
    "mmlu_humanities": (13, 4_705),
}
"""Subjects and test items of each group, as the reference has them."""


def example_item(task: Task, **changes: Any) -> Item:
    """The item of a task's example row, with some columns changed."""
    values = {**task.example, **changes}
    subject = str(values[task.subject_field]) if task.subject_field else ""
    return task.item(Row(values, "example", task=task.name, subject=subject))


@pytest.mark.parametrize("name", NAMES)
def test_example(name: str) -> None:
    """Every task makes an item of its example row, out of the columns that it declares."""
    task = load_task(name)
    item = example_item(task)
    assert item.task == name
    assert all(pair.context and pair.continuation.strip() and pair.choice.strip() for pair in item.pairs)
    assert all(0 <= gold < len(item.pairs) for gold in item.gold)
    assert set(task.dataset.columns) <= set(task.example)
    json.dumps(task.example)


@pytest.mark.parametrize("name", NAMES)
def test_declared_columns_are_all_it_needs(name: str) -> None:
    """An item's text and gold come from the declared columns, so the content hash covers them."""
    task = load_task(name)
    declared = {column: task.example[column] for column in task.dataset.columns}
    bare = task.item(Row(declared, "example", task=name, subject=example_item(task).subject))
    assert replace(bare, id="", cluster="") == replace(example_item(task), id="", cluster="")


@pytest.mark.parametrize("name", NAMES)
def test_declaration(name: str) -> None:
    """Metrics are known, groups hold subjects once, a description ends in white space, continuations begin
    with the delimiter, and it is told how many rows the evaluated split was published with."""
    task = load_task(name)
    subjects = [subject for group in task.groups.values() for subject in group]
    assert task.metrics
    assert set(task.metrics) <= set(METRICS)
    assert len(subjects) == len(set(subjects))
    assert not task.groups or task.subject_field
    assert re.fullmatch(r"(.*\s)?", task.description("some_subject"), flags=re.DOTALL)
    assert all(pair.continuation.startswith(task.delimiter) for pair in example_item(task).pairs)
    assert task.dataset.splits[task.split].rows > 0
    assert (task.shots.draw == "listed") == bool(task.shots.ids)


def test_names_differ() -> None:
    """No two tasks and no two groups are called the same, so that all can stand in one table."""
    groups = [group for name in NAMES if name != "belebele:zul_Latn" for group in load_task(name).groups]
    assert len({*EVERY, *groups}) == len(EVERY) + len(groups)


ROWLESS = ("belebele", "gpqa", "logiqa", "race", "sciq")
"""Tasks of which the shared material has no rows."""


@pytest.mark.parametrize("name", [name for name in NAMES if ":" not in name and name not in ROWLESS])
def test_chance(shared: Path, name: str) -> None:
    """Over the whole split the mean share of right choices is what is declared, or else the example's."""
    task = load_task(name)
    if name == "lambada_openai":
        assert task.chance == 0.0  # one choice, which is right: nothing to be guessed among
        return
    items = [task.item(row) for row in open_rows(task, task.split, shared / "data")]
    shares = [len(item.gold) / len(item.pairs) for item in items]
    if task.chance is None:
        example = example_item(task)
        assert set(shares) == {len(example.gold) / len(example.pairs)}
    else:
        assert len(items) == task.dataset.splits[task.split].rows
        assert task.chance == pytest.approx(sum(shares) / len(shares), abs=5e-7)


@pytest.mark.parametrize(
    ("raw", "cleaned"),
    [
        ("  A plain text. ", "A plain text."),
        ("Mix it. [title] Bake it.", "Mix it.. Bake it."),
        ("[header] How to bake [title] Mix", " How to bake. Mix"),
        ("[step] Do this", " Do this"),
        ("One [substeps] two", "One two"),
        ("One  two", "One two"),
        ("One    two", "One  two"),
        ("[a [b] c]", " c]"),
        ("[title] First", " First"),
        ("ends with a tag [step]", "ends with a tag "),
        ("an [open bracket", "an [open bracket"),
    ],
)
def test_hellaswag_clean(raw: str, cleaned: str) -> None:
    """Strip, " [title]" to ". ", tags out, two spaces to one in a single pass, and no strip at the end."""
    assert clean(raw) == cleaned


def test_hellaswag_example() -> None:
    """Activity and scene are cleaned together; an ending that begins with a tag keeps a space."""
    item = example_item(load_task("hellaswag"))
    assert item.pairs[0].context == (
        "Home and Garden: How to oil a squeaky hinge. Find the hinge that squeaks. Swing the door slowly and"
        " listen at each of its hinges in turn."
    )
    assert item.pairs[0].choice == " Mark the noisy one with a piece of tape so that you find it again."
    assert item.pairs[0].continuation == " " + item.pairs[0].choice
    assert item.pairs[3].continuation == " Close the door, and the squeak will turn into a different door."
    assert (item.id, item.cluster, item.gold) == ("7", "wikihow~7", (0,))


def test_hellaswag_capitalize_lowers_the_rest() -> None:
    """The second half of a scene gets a capital and loses all others, as in the reference."""
    item = example_item(load_task("hellaswag"), ctx_a="He sits.", ctx_b="a man in a NASA cap")
    assert item.pairs[0].context == "Home and Garden: He sits. A man in a nasa cap"


def test_hellaswag_without_id_and_source() -> None:
    """Copies without ids and sources give items without id and cluster."""
    item = example_item(load_task("hellaswag"), ind=None, source_id=None)
    assert (item.id, item.cluster) == ("", "")


def test_hellaswag_ending_of_tags_alone() -> None:
    """An ending of which cleaning leaves nothing is an error, not an empty choice."""
    with pytest.raises(FieldError, match=r"field 'endings\[2\]': is empty"):
        example_item(load_task("hellaswag"), endings=["one", "two", "[step]", "four"])


def test_mmlu_example() -> None:
    """The question is stripped, choices are not, and a letter is forced."""
    task = load_task("mmlu")
    item = example_item(task, question=" What?\n", choices=["a ", "None", "N/A", "nan"])
    assert item.pairs[0].context == "What?\nA. a \nB. None\nC. N/A\nD. nan\nAnswer:"
    assert [pair.continuation for pair in item.pairs] == [" A", " B", " C", " D"]
    assert [pair.choice for pair in item.pairs] == ["A", "B", "C", "D"]
    assert task.description("us_foreign_policy") == (
        "The following are multiple choice questions (with answers) about us foreign policy.\n\n"
    )


def test_sample_mmlu_example() -> None:
    """The sample is asked as MMLU is, its variant without letters: the text of an answer is forced."""
    item = example_item(load_task("sample_mmlu"))
    question = "In Peru, the capital city is called what?"
    assert item.pairs[0].context == f"{question}\nA. Lima\nB. Nairobi\nC. Oslo\nD. Warsaw\nAnswer:"
    assert [pair.continuation for pair in item.pairs] == [" A", " B", " C", " D"]
    task = load_task("sample_mmlu:cloze")
    item = example_item(task)
    assert {pair.context for pair in item.pairs} == {f"Question: {question}\nAnswer:"}
    assert [pair.continuation for pair in item.pairs] == [" Lima", " Nairobi", " Oslo", " Warsaw"]
    assert task.description("nations") == ""


def test_sample_mmlu_groups() -> None:
    """The subjects of the rows that ship are those of the groups; task and variant name them differently."""
    task, variant = load_task("sample_mmlu"), load_task("sample_mmlu:cloze")
    subjects = [subject for group in task.groups.values() for subject in group]
    assert {row.subject for row in open_rows(task, "test", None)} == set(subjects)
    assert list(task.groups.values()) == list(variant.groups.values())
    assert not set(task.groups) & set(variant.groups)


def test_sample_hellaswag_example() -> None:
    """Activity, scene and the beginning of the last sentence make the context."""
    item = example_item(load_task("sample_hellaswag"))
    assert item.pairs[0].context == (
        "Making toast: A boy is hungry in the morning. He puts two slices of bread into the toaster. When the"
        " toast pops up, the boy"
    )
    assert item.pairs[1].continuation == " gets some butter and spreads it over the toast."
    assert (item.id, item.cluster, item.gold) == ("0", "", (1,))


@pytest.mark.parametrize("name", ["sample_hellaswag", "sample_mmlu"])
def test_rows_that_ship_are_as_many_as_declared(name: str) -> None:
    """Every split of the package is there whole, and each of its rows is an item."""
    task = load_task(name)
    for split, published in task.dataset.splits.items():
        assert len([task.item(row) for row in open_rows(task, split, None)]) == published.rows


def test_mmlu_unknown_subject() -> None:
    """A subject that is none of the 57 is an error of that column."""
    with pytest.raises(FieldError, match="field 'subject': 'alchemy' is none of the 57 subjects"):
        example_item(load_task("mmlu"), subject="alchemy")


def test_mmlu_groups() -> None:
    """Four groups hold 57 subjects, as many each as in the reference."""
    task = load_task("mmlu")
    assert {name: len(subjects) for name, subjects in task.groups.items()} == {
        name: subjects for name, (subjects, _) in GROUPS.items()
    }
    assert "anatomy" in task.groups["mmlu_stem"]


def test_mmlu_group_sizes(shared: Path) -> None:
    """On the genuine test split each group has as many items as in the reference, 14,042 in all."""
    task = load_task("mmlu")
    counts = Counter(row.subject for row in open_rows(task, "test", shared / "data"))
    sizes = {name: sum(counts[subject] for subject in subjects) for name, subjects in task.groups.items()}
    assert sizes == {name: items for name, (_, items) in GROUPS.items()}
    assert counts.total() == 14_042
    assert (counts["professional_law"], counts["anatomy"], counts["virology"]) == (1_534, 135, 166)


@pytest.mark.parametrize("name", ["hellaswag", "mmlu"])
def test_same_as_the_reference(shared: Path, name: str) -> None:
    """Every 0-shot record: contexts, continuations and gold are the reference's, character by character."""
    task = load_task(name)
    wanted = {
        (record["task"].removeprefix(name).removeprefix("_"), record["doc_id"]): record
        for record in map(json.loads, (shared / "golden" / "requests.jsonl").read_text().splitlines())
        if record["shots"] == 0 and re.fullmatch(rf"{name}(_.*)?", record["task"])
    }
    assert len(wanted) == {"hellaswag": 25, "mmlu": 57 * 3}[name]
    for row in open_rows(task, task.split, shared / "data"):
        record = wanted.pop((row.subject, row.index), None)
        if record is None:
            continue
        item = task.item(row)
        assert [task.description(row.subject) + pair.context for pair in item.pairs] == record["contexts"]
        assert [pair.continuation for pair in item.pairs] == record["continuations"]
        assert item.gold == (int(record["gold"]),)
    assert not wanted


def race_problem(answer: str) -> str:
    """The questions of an article whose only one has this answer."""
    return str([{"question": "Who?", "answer": answer, "options": ["a", "b", "c", "d"]}])


@pytest.mark.parametrize(
    ("name", "changes", "says"),
    [
        ("copa", {"question": "reason"}, "field 'question': 'reason' is neither 'cause' nor 'effect'"),
        ("winogrande", {"sentence": "No gap here."}, "field 'sentence': has no gap"),
        ("winogrande", {"answer": "3"}, "field 'answer': gold 2 is out of range for 2 choices"),
        ("social_iqa", {"label": "0"}, "field 'label': gold -1 is out of range for 3 choices"),
        ("arc_easy", {"answerKey": "E"}, "field 'answerKey': 'E' is none of the labels A, B, C, D"),
        ("leaderboard_mmlu_pro", {"answer": "J"}, "field 'answer': gold 9 is out of range for 7 choices"),
        ("leaderboard_mmlu_pro", {"answer": "x"}, "field 'answer': expected a letter from A to J, found 'x'"),
        (
            "leaderboard_mmlu_pro",
            {"options": ["a"] * 11},
            "field 'answer': 11 answers; there are letters for 10",
        ),
        ("race", {"problems": "[{'question': 'a'}]"}, "field 'problems': expected a list of records"),
        ("race", {"problems": "[]"}, "field 'problems': holds no question"),
        ("race", {"problems": race_problem("")}, "field 'problems': expected a list of records"),
        ("race", {"problems": race_problem("AB")}, "field 'problems': expected a list of records"),
        ("leaderboard_mmlu_pro", {"answer": "AB"}, "expected a letter from A to J, found 'AB'"),
        ("race", {"problems": "[" * 9999}, "field 'problems': expected a list of records"),
        (
            "truthfulqa_mc1",
            {"mc1_targets": {"choices": ["a", "b"], "labels": [0, 1]}},
            r"field 'mc1_targets.labels': expected 1 for the first answer alone, found \[0, 1\]",
        ),
        (
            "truthfulqa_mc2",
            {"mc2_targets": {"choices": ["a", "b"], "labels": [1, 1]}},
            r"field 'mc2_targets.labels': expected 2 of 0 and 1, of each one at least, found \[1, 1\]",
        ),
        (
            "truthfulqa_mc2",
            {"mc2_targets": {"choices": ["a", "b"], "labels": [1, 0, 0]}},
            r"field 'mc2_targets.labels': expected 2 of 0 and 1, of each one at least, found \[1, 0, 0\]",
        ),
        ("lambada_openai", {"text": "two\nlines"}, "field 'text': has no last word behind a space"),
        ("lambada_openai", {"text": " one"}, "field 'text': has no last word behind a space"),
        ("lambada_openai", {"text": "it ends in a "}, "field 'text': has no last word behind a space"),
        ("logiqa", {"label": "e"}, "field 'label': expected a letter from a to d, found 'e'"),
        ("logiqa", {"options": ["a", "b", "c"]}, "field 'options': expected 4 texts, found 3"),
        ("belebele", {"correct_answer_num": "0"}, "field 'correct_answer_num': gold -1 is out of range"),
        ("gpqa", {"Incorrect Answer 2": None}, "field 'Incorrect Answer 2': is null"),
        ("sciq", {"distractor3": " "}, "field 'distractor3': is empty"),
        ("boolq:olmes", {"label": 2}, "field 'label': gold -1 is out of range for 2 choices"),
        ("winogrande:mc", {"sentence": "No gap."}, "field 'sentence': has no gap"),
        ("mmlu:cloze", {"subject": "alchemy"}, "field 'subject': 'alchemy' is none of the 57 subjects"),
    ],
)
def test_rows_that_are_no_items(name: str, changes: dict[str, Any], says: str) -> None:
    """What breaks a benchmark's own rules is said by field."""
    with pytest.raises(FieldError, match=says):
        example_item(load_task(name), **changes)


def test_race_writes_earlier_answers_into_the_prompt() -> None:
    """A sentence gets its gap filled, a question its answer below; the last one stands bare."""
    task = load_task("race")
    context = example_item(task).pairs[0].context
    assert context.endswith("Mia waters the plants of three neighbours\nWhy does she keep a list?")
    problems = str(task.example["problems"]).replace("of  _  .", "of whom?")
    context = example_item(task, problems=problems).pairs[0].context
    assert "\n\nQuestion: Mia waters the plants of whom?\nAnswer: three neighbours\nWhy" in context


def test_mmlu_pro_is_the_reference_s(shared: Path) -> None:
    """Every test row: the question and its options behind letters, as the reference has them."""
    task = load_task("leaderboard_mmlu_pro")
    rows = open_rows(task, "test", shared / "data")
    count = 0
    for row in rows:
        options = "".join(
            f"{letter}. {text}\n" for letter, text in zip("ABCDEFGHIJ", row.values["options"], strict=False)
        )
        item = task.item(row)
        assert item.pairs[0].context == f"{row.values['question']}\n{options}Answer:"
        assert item.pairs[item.gold[0]].choice == row.values["answer"]
        count += 1
    assert count == 12_032


def test_fixed_shots_stay_as_they_are(shared: Path) -> None:
    """A task whose prompt has its own examples gets no shots, whatever `--shots` says, and that is told."""
    suite = prepare_suite(
        ["truthfulqa_mc1"],
        shots=5,
        data_dir=shared / "data",
        selection=Selection(limit=2),
        skip_bad_rows=False,
    )
    (task,) = suite.tasks
    assert task.shots == 0
    assert any(remark.startswith("truthfulqa_mc1 is asked with 0 shots") for remark in task.remarks)
    asked = [prompt for _, prompt in suite.prompts() if isinstance(prompt, Prompt)]
    assert [prompt.contexts()[0].count("\nQ: ") for prompt in asked] == [6, 6]


def test_both_of_truthfulqa_have_the_same_prompt() -> None:
    """The question stands behind the same six examples; in mc2 all answers labelled 1 are right."""
    one, several = load_task("truthfulqa_mc1"), load_task("truthfulqa_mc2")
    question = one.example["question"]
    assert example_item(one).pairs[0].context == example_item(several, question=question).pairs[0].context
    assert example_item(several).gold == (0, 1)


@pytest.mark.parametrize(
    ("text", "context", "continuation"),
    [
        ("the pot by the door", "the pot by the", " door"),
        ("she said:\n\nWhat  for?", "she said:\n\nWhat ", " for?"),
        ("two\nlines here", "two\nlines", " here"),
    ],
)
def test_lambada(text: str, context: str, continuation: str) -> None:
    """What follows the last space is forced, with the space; other white space divides no words."""
    task = load_task("lambada_openai")
    (pair,) = example_item(task, text=text).pairs
    assert (pair.context, pair.continuation, pair.choice) == (context, continuation, continuation.strip())


def test_sciq_without_a_paragraph() -> None:
    """Where there is no paragraph its line stays, empty, as in the reference; leading white space goes."""
    task = load_task("sciq")
    question = f"Question: {task.example['question']}\nAnswer:"
    assert example_item(task, support="").pairs[0].context == f"\n{question}"
    assert example_item(task, support="\n Roots. ").pairs[0].context == f"Roots. \n{question}"
    assert example_item(task).pairs[3].continuation == " water"


def test_logiqa_shows_letters_and_scores_texts() -> None:
    """The options stand behind letters; the task scores their texts, its variant the letters."""
    item, lettered = example_item(load_task("logiqa")), example_item(load_task("logiqa:mc"))
    assert item.pairs[0].context == lettered.pairs[0].context
    assert item.pairs[0].context.endswith(
        "?\nChoices:\nA. Some of the dancers joined the band.\nB. Everyone who can read music sings in the"
        " choir.\nC. Some of the dancers did not join the band.\nD. No one in the band dances.\nAnswer:"
    )
    assert item.pairs[2].continuation == " Some of the dancers did not join the band."
    assert [pair.continuation for pair in lettered.pairs] == [" A", " B", " C", " D"]
    assert item.gold == lettered.gold == (2,)


def test_belebele() -> None:
    """122 languages, each with rows of its own; the letters are followed by colons."""
    tasks = declared("belebele")[1:]
    assert len({task.dataset.config for task in tasks}) == 122
    assert len({task.dataset.folder for task in tasks}) == 122
    assert all(task.name == f"belebele:{task.dataset.config}" for task in tasks)
    assert load_task("belebele").dataset == load_task("belebele:eng_Latn").dataset
    item = example_item(load_task("belebele"), question=" Why? ")
    assert item.pairs[0].context.endswith(
        "half a day.\nQ: Why?\nA: For the spring\nB: For high water\nC: For an icebreaker\nD: For a pilot"
        "\nAnswer:"
    )
    assert (item.gold, item.cluster) == ((2,), "https://example.org/wiki/Harbour")
    assert item.id == "https://example.org/wiki/Harbour#1"


def test_belebele_s_shots_are_the_first_others() -> None:
    """Shots come from the split itself: the first of it, without the item."""
    task = load_task("belebele")
    items = [example_item(task, question=f"{i}?") for i in range(5)]
    draw = shot_drawer(task.shots, 2, items)
    assert [list(map(items.index, draw(item))) for item in items] == [[1, 2], [0, 2], [0, 1], [0, 1], [0, 1]]
