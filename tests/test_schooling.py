"""What the samples ask and the training text says: the rules of the knowledge, held by reading all of it."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from random import Random

import pytest

from harness.choosing.registry import shipped_rows
from harness.items import LETTERS
from harness.schooling import __main__ as command
from harness.schooling import knowledge, samples
from harness.schooling.corpus import Document, Lesson, Writer, kept_back, lessons_of
from harness.schooling.knowledge import ADAPTER_FIELDS, FIELDS, FOLDER, Knowledge, field_of
from harness.schooling.tokens import BOS, EOS, VOCABULARY, train_tokenizer

KINDS = {"quiz": 1.0, "answers": 4.0, "sentences": 2.0, "story": 2.0}
SUBJECTS = [subject for subjects in FIELDS.values() for subject in subjects]
IN_A_ROW = 5
"""So many words in a row stand in both, the samples and the training text, by no accident any more."""


@pytest.fixture(scope="module")
def known() -> Knowledge:
    """All that ships."""
    return knowledge.load()


@pytest.fixture(scope="module")
def splits(known: Knowledge) -> dict[str, list[samples.Row]]:
    """The samples made of it."""
    return samples.splits(known)


@pytest.fixture(scope="module")
def texts(known: Knowledge) -> list[str]:
    """2,000 documents of training text about everything, as words in lower case."""
    return [spelled(each.text) for each in written(lessons_of(known), known, 2_000)]


def written(
    lessons: list[Lesson], known: Knowledge, count: int, kinds: dict[str, float] = KINDS, *, seed: int = 1
) -> list[Document]:
    """Documents about some lessons and all activities, of these kinds."""
    writer = Writer(lessons, known.activities, Random(seed))
    return list(islice(writer.documents(kinds), count))


def words(text: str) -> tuple[str, ...]:
    """The words of a text, in lower case, without punctuation."""
    return tuple(re.findall(r"[a-z0-9']+", text.lower()))


def spelled(text: str) -> str:
    """The words of a text, each between two spaces, so that `in` finds whole words only."""
    return f" {' '.join(words(text))} "


def runs(texts: Iterable[str]) -> set[tuple[str, ...]]:
    """Every run of `IN_A_ROW` words of some texts; what stands for a thing or an answer is a word."""
    return {
        each[start : start + IN_A_ROW]
        for each in map(words, texts)
        for start in range(len(each) - IN_A_ROW + 1)
    }


def questions(splits: dict[str, list[samples.Row]]) -> list[samples.Row]:
    """Every question of the sample, solved or asked."""
    return splits["sample_mmlu/dev.jsonl"] + splits["sample_mmlu/test.jsonl"]


def gold(row: samples.Row) -> str:
    """The right answer of a question."""
    return str(row["choices"][row["answer"]])


def is_about(text: str, lesson: Lesson) -> bool:
    """Whether a text names the lesson's thing, as words."""
    return spelled(lesson.fact.thing) in spelled(text)


# --------------------------------------------------------------------------------------------- knowledge


def test_there_is_as_much_as_the_readme_says(known: Knowledge) -> None:
    """8 subjects have 4 topics of 11 facts each, and there are 120 activities."""
    assert Counter(topic.subject for topic in known.topics) == dict.fromkeys(SUBJECTS, 4)
    assert len(SUBJECTS) == len(set(SUBJECTS)) == 8
    assert {len(topic.facts) for topic in known.topics} == {11}
    assert len(known.activities) == 120
    assert set(ADAPTER_FIELDS) < set(FIELDS)


def test_names_are_unique(known: Knowledge) -> None:
    """No topic of a subject, no thing of a topic, and no activity is there twice."""
    topics = [(topic.subject, topic.name) for topic in known.topics]
    assert len(topics) == len(set(topics))
    for topic in known.topics:
        assert len({fact.thing.lower() for fact in topic.facts}) == len(topic.facts), topic.name
    for labels in ([each.label for each in known.activities], [each.scene for each in known.activities]):
        assert len(labels) == len(set(labels))


def test_templates_have_their_gaps(known: Knowledge) -> None:
    """A sentence has one gap for the thing and one for the answer, a question one for the thing alone."""
    for topic in known.topics:
        assert topic.tell and topic.ask and topic.sample, topic.name
        for template in topic.tell:
            assert sorted(re.findall(r"{.*?}", template)) == ["{a}", "{x}"], template
        for template in (*topic.ask, *topic.sample):
            assert re.findall(r"{.*?}", template) == ["{x}"], template
        both = (*topic.tell, *topic.ask, *topic.sample)
        assert len(set(both)) == len(both), topic.name


def test_a_question_has_three_wrong_answers_at_least(known: Knowledge) -> None:
    """A topic has four different answers or more, and no thing gives its own answer away."""
    for topic in known.topics:
        assert len({answer.lower() for answer in topic.answers}) == len(topic.answers) >= 4, topic.name
        for fact in topic.facts:
            assert spelled(fact.answer) not in spelled(fact.thing), fact


def test_samples_and_training_text_share_no_wording(known: Knowledge) -> None:
    """No run of five words, a thing counted as one, stands in a sample question and in any other template."""
    taught = runs(template for topic in known.topics for template in (*topic.tell, *topic.ask))
    for topic in known.topics:
        for template in topic.sample:
            assert not runs([template]) & taught, template


def test_activities_are_whole(known: Knowledge) -> None:
    """Four different endings, and steps with wordings whose only gaps are "his" and "him"."""
    for each in known.activities:
        assert each.label and each.scene and each.start
        assert len({ending.lower() for ending in each.endings}) == 4, each.label
        assert each.steps and all(each.steps), each.label
        for wording in (wording for step in each.steps for wording in step):
            assert set(re.findall(r"{.*?}", wording)) <= {"{his}", "{him}"}, wording


def test_everything_is_plain_ascii() -> None:
    """The files of the knowledge and the rows hold ASCII alone, as the small tokenizer was meant for."""
    files = [*FOLDER.glob("*.toml"), *shipped_rows().rglob("*.jsonl")]
    assert len(files) == len(SUBJECTS) + 2 + 3
    for file in files:
        assert file.read_bytes().isascii(), file


# ----------------------------------------------------------------------------------------------- samples


def shipped() -> Iterator[Path]:
    """The files of rows in the package."""
    yield from (file for file in shipped_rows().rglob("*") if file.is_file())


def test_the_rows_that_ship_are_made_of_the_knowledge(known: Knowledge, tmp_path: Path) -> None:
    """Written anew, the rows are those of the package, byte for byte, and no other file is there."""
    samples.write(known, tmp_path)
    made = {file.relative_to(tmp_path): file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    assert made == {file.relative_to(shipped_rows()): file.read_bytes() for file in shipped()}


def test_the_command_writes_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m harness.schooling samples --data DIR` writes them, and needs no torch for it."""
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(sys, "argv", ["schooling", "samples", "--data", str(tmp_path)])
    command.main()
    for file in shipped():
        assert (tmp_path / file.relative_to(shipped_rows())).read_bytes() == file.read_bytes()


def test_sizes(splits: dict[str, list[samples.Row]]) -> None:
    """Five solved questions a subject, 200 asked and 100 scenes at least."""
    dev, test = splits["sample_mmlu/dev.jsonl"], splits["sample_mmlu/test.jsonl"]
    assert Counter(row["subject"] for row in dev) == dict.fromkeys(SUBJECTS, 5)
    assert {row["subject"] for row in test} == set(SUBJECTS)
    assert len(test) >= 200
    assert len(splits["sample_hellaswag/validation.jsonl"]) >= 100


def test_gold_stands_in_each_place_equally_often(splits: dict[str, list[samples.Row]]) -> None:
    """Of a subject's questions, and of the scenes, no place has more than one gold more than another."""
    places: dict[str, Counter[int]] = {}
    for row in questions(splits):
        places.setdefault(row["subject"], Counter())[row["answer"]] += 1
    scenes = splits["sample_hellaswag/validation.jsonl"]
    places["scenes"] = Counter(int(row["label"]) for row in scenes)
    for name, counts in places.items():
        assert set(counts) == {0, 1, 2, 3}, name
        assert max(counts.values()) - min(counts.values()) <= 1, name


def test_one_choice_is_right_and_three_are_not(
    known: Knowledge, splits: dict[str, list[samples.Row]]
) -> None:
    """Choices are four different texts, and gold is the answer of the fact that is asked for."""
    asked = [fact for topic in known.topics for fact in topic.facts]
    for row in questions(splits):
        assert len({choice.lower() for choice in row["choices"]}) == 4, row
        assert any(
            fact.answer == gold(row) and spelled(fact.thing) in spelled(row["question"]) for fact in asked
        ), row
    right = {activity.label: activity.endings[0] for activity in known.activities}
    for row in splits["sample_hellaswag/validation.jsonl"]:
        assert len({ending.lower() for ending in row["endings"]}) == 4, row
        assert row["endings"][int(row["label"])] == right[row["activity_label"]]


def test_no_question_is_there_twice(splits: dict[str, list[samples.Row]]) -> None:
    """Every fact is asked for once: no solved question is asked again."""
    asked = [row["question"].lower() for row in questions(splits)]
    assert len(asked) == len(set(asked)) == 8 * 4 * 11


def test_no_sample_stands_in_the_training_text(
    splits: dict[str, list[samples.Row]], texts: list[str]
) -> None:
    """In 2,000 documents there is no question of the sample, and no scene."""
    text = "\n".join(texts)
    asked = [row["question"] for row in questions(splits)]
    asked += [row["ctx_a"] for row in splits["sample_hellaswag/validation.jsonl"]]
    assert [each for each in asked if spelled(each) in text] == []


def test_no_ending_stands_in_the_training_text(known: Knowledge, texts: list[str]) -> None:
    """No ending, right or wrong, is in 2,000 documents; of a right one not even five words in a row are."""
    text = "\n".join(texts)
    assert [end for each in known.activities for end in each.endings if spelled(end) in text] == []
    read = runs(texts)
    assert [each.label for each in known.activities if runs([each.endings[0]]) & read] == []


def test_row_shapes(splits: dict[str, list[samples.Row]]) -> None:
    """Rows have the columns of the benchmarks that they are modelled on, as plain JSON."""
    (first, *_) = questions(splits)
    assert list(first) == ["question", "subject", "choices", "answer"]
    (scene, *_) = splits["sample_hellaswag/validation.jsonl"]
    assert list(scene) == ["ind", "activity_label", "ctx_a", "ctx_b", "endings", "label"]
    assert json.loads(json.dumps(scene)) == scene
    numbers = [row["ind"] for row in splits["sample_hellaswag/validation.jsonl"]]
    assert numbers == list(range(len(numbers)))


def test_topics_take_turns(known: Knowledge, splits: dict[str, list[samples.Row]]) -> None:
    """The first five questions of a subject are about all of its topics."""
    for subject in SUBJECTS:
        topics = [topic for topic in known.topics if topic.subject == subject]
        rows = [row for row in splits["sample_mmlu/dev.jsonl"] if row["subject"] == subject]
        for row, topic in zip(rows, [*topics, topics[0]], strict=True):
            assert set(row["choices"]) <= set(topic.answers), row


# ---------------------------------------------------------------------------------------------- kept back


def test_three_facts_of_each_topic_are_kept_back(known: Knowledge) -> None:
    """They are facts of the adapters' fields, all of whose topics have them."""
    counts = Counter((lesson.topic.subject, lesson.topic.name) for lesson in kept_back(known))
    topics = [topic for topic in known.topics if field_of(topic.subject) in ADAPTER_FIELDS]
    assert counts == {(topic.subject, topic.name): 3 for topic in topics}
    assert set(kept_back(known)) < set(lessons_of(known))


def test_solved_questions_are_about_facts_that_were_taught(
    known: Knowledge, splits: dict[str, list[samples.Row]]
) -> None:
    """No kept-back fact is among the first five questions of its subject."""
    withheld = kept_back(known)
    for row in splits["sample_mmlu/dev.jsonl"]:
        for lesson in withheld:
            assert gold(row) != lesson.fact.answer or not is_about(row["question"], lesson), row


def test_what_is_kept_back_is_not_written(known: Knowledge) -> None:
    """A writer of the other lessons gives no kept-back thing its answer, as an answer or in a sentence."""
    withheld = kept_back(known)
    taught = [lesson for lesson in lessons_of(known) if lesson not in set(withheld)]
    answered = set()
    for document in written(taught, known, 2_000, {"answers": 1.0}):
        for part in document.text.removesuffix("\n\n").split("\n\n"):
            question, _, answer = part.partition("\nAnswer: ")
            answered.add((spelled(question), answer))
    for lesson in withheld:
        thing, answer = spelled(lesson.fact.thing), lesson.fact.answer
        assert not any(given == answer and thing in question for question, given in answered), lesson
    told = {document.text.strip() for document in written(taught, known, 2_000, {"sentences": 1.0})}
    for lesson in withheld:
        for sentence in filled(lesson):
            assert not any(sentence in each for each in told), sentence


def filled(lesson: Lesson) -> list[str]:
    """The sentences that state a fact."""
    return [
        knowledge.capitalised(each.replace("{x}", lesson.fact.thing).replace("{a}", lesson.fact.answer))
        for each in lesson.topic.tell
    ]


# ------------------------------------------------------------------------------------------ training text


def test_the_same_seed_writes_the_same_text(known: Knowledge) -> None:
    """Documents follow from the seed alone."""
    lessons = lessons_of(known)
    first, again, other = (written(lessons, known, 50, seed=seed) for seed in (3, 3, 4))
    assert first == again != other


@pytest.mark.parametrize("kind", KINDS)
def test_answers_are_marked(known: Knowledge, kind: str) -> None:
    """Marked pieces lie in order within the text, none of them empty, and no gap is left unfilled."""
    for document in written(lessons_of(known), known, 300, {kind: 1.0}):
        edges = [place for piece in document.answers for place in piece]
        assert edges == sorted(edges)
        assert edges[-1] <= len(document.text)
        assert all(document.text[start:end].strip() for start, end in document.answers)
        assert not re.search("[{}]", document.text), document.text


def test_a_lettered_answer_is_right(known: Knowledge) -> None:
    """Behind the letter of a quiz stands the answer that belongs to the thing asked for."""
    facts = {(spelled(each.fact.thing), each.fact.answer) for each in lessons_of(known)}
    for document in written(lessons_of(known), known, 200, {"quiz": 1.0}):
        blocks = document.text.removesuffix("\n\n").split("\n\n")
        blocks = [block for block in blocks if "\nAnswer:" in block]
        marked = [document.text[start:end] for start, end in document.answers]
        assert [block.rpartition("Answer:")[2] for block in blocks] == marked
        for block, letter in zip(blocks, marked, strict=True):
            question, *choices, _ = block.split("\n")
            assert [choice[:3] for choice in choices] == [f"{each}. " for each in LETTERS[:4]]
            assert len(set(choices)) == 4
            right = choices[LETTERS.index(letter.strip())][3:]
            assert any(thing in spelled(question) and answer == right for thing, answer in facts), block


def test_documents_come_as_often_as_their_weights_say(known: Knowledge) -> None:
    """A kind of weight 0 is never written, and one of three times the weight about three times as often."""
    kinds = {"story": 0.0, "answers": 3.0, "quiz": 1.0}
    lettered = sum("\nA. " in document.text for document in written(lessons_of(known), known, 400, kinds))
    assert 60 < lettered < 140


# --------------------------------------------------------------------------------------------- tokenizer


def test_tokenizer(known: Knowledge) -> None:
    """Letters are single tokens, `<s>` goes in front, and any text comes back whole."""
    documents = written(lessons_of(known), known, 300)
    tokenizer = train_tokenizer(document.text for document in documents)
    assert tokenizer.get_vocab_size() <= VOCABULARY
    assert None not in (tokenizer.token_to_id(BOS), tokenizer.token_to_id(EOS))
    letters = [tokenizer.encode(f" {letter}", add_special_tokens=False).ids for letter in "ABCDEFGHIJ"]
    assert {len(ids) for ids in letters} == {1}
    assert len({ids[0] for ids in letters}) == 10
    texts = [*(document.text for document in documents[:50]), "Été, naïve: 東京!\n"]
    for text in texts:
        ids = tokenizer.encode(text).ids
        assert ids[0] == tokenizer.token_to_id(BOS)
        assert tokenizer.decode(ids) == text
        assert tokenizer.encode(text, add_special_tokens=False).ids == ids[1:]


def test_a_tokenizer_without_letters_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the vocabulary has no room for the letters, they are named."""
    monkeypatch.setattr("harness.schooling.tokens.VOCABULARY", 2 + 256)
    with pytest.raises(ValueError, match="no single tokens"):
        train_tokenizer(["some text"])


# ------------------------------------------------------------------------------------------ broken files


def test_a_file_of_another_shape_says_where(tmp_path: Path) -> None:
    """A key too many, or a topic without facts, is an error that names the place."""
    for subject in SUBJECTS:
        (tmp_path / f"{subject}.toml").write_bytes((FOLDER / f"{subject}.toml").read_bytes())
    assert len(knowledge.load(tmp_path).topics) == 32
    (tmp_path / "nations.toml").write_text('[[topic]]\nname = "x"\n')
    with pytest.raises(ValueError, match=r"missing required field `tell` - at `\$.topic\[0\]`"):
        knowledge.load(tmp_path)
