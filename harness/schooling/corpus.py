"""The training text: written at random about the knowledge, never in the words of the samples; pure.

Four kinds of documents. Answers and sentences teach the facts, stories the activities; quizzes show what a
lettered question looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from random import Random

from harness.items import LETTERS
from harness.schooling.knowledge import (
    ADAPTER_FIELDS,
    Activity,
    Fact,
    Knowledge,
    Topic,
    capitalised,
    field_of,
)

PEOPLE = (
    ("A man", "he", "his", "him"),
    ("The man", "he", "his", "him"),
    ("A woman", "she", "her", "her"),
    ("The woman", "she", "her", "her"),
    ("A boy", "he", "his", "him"),
    ("The boy", "he", "his", "him"),
    ("A girl", "she", "her", "her"),
    ("The girl", "she", "her", "her"),
)
LINKS = ("Then", "Next,", "After that,", "Now", "Soon", "Once that is done,", "In the end,", "At last,")
BLANK = "___"


@dataclass(frozen=True, slots=True)
class Document:
    """One text, and which of its characters are answers: those count more in training."""

    text: str
    answers: tuple[tuple[int, int], ...]
    """Start and end of each."""


@dataclass(frozen=True, slots=True)
class Lesson:
    """A fact with its topic."""

    topic: Topic
    fact: Fact


class Writer:
    """Writes documents about some lessons and activities."""

    def __init__(self, lessons: Sequence[Lesson], activities: Sequence[Activity], random: Random) -> None:
        self._lessons = lessons
        self._activities = activities
        self._random = random

    def documents(self, kinds: dict[str, float]) -> Iterator[Document]:
        """Documents without end, of each kind as often as its weight says."""
        write: dict[str, Callable[[], Document]] = {
            "quiz": self.quiz,
            "answers": self.answers,
            "sentences": self.sentences,
            "story": self.story,
        }
        names = list(kinds)
        while True:
            (name,) = self._random.choices(names, list(kinds.values()))
            yield write[name]()

    def quiz(self) -> Document:
        """Some lettered questions of one subject, in the form of the benchmark or without its first line."""
        lessons = self._of_one_subject(self._random.choice((1, 1, 2, 3, 4, 6)))
        subject = lessons[0].topic.subject.replace("_", " ")
        parts = _Parts()
        if self._random.random() < 0.8:
            parts.add(f"The following are multiple choice questions (with answers) about {subject}.\n\n")
        for lesson in lessons:
            choices = self._choices(lesson)
            right = LETTERS[choices.index(lesson.fact.answer)]
            lines = [self._question(lesson), *(f"{a}. {b}" for a, b in zip(LETTERS, choices, strict=False))]
            parts.add("\n".join(lines) + "\nAnswer:")
            parts.answer(f" {right}")
            parts.add("\n\n")
        return parts.document()

    def answers(self) -> Document:
        """Questions with the answer itself behind them."""
        parts = _Parts()
        for lesson in self._of_one_subject(self._random.choice((1, 1, 2, 4, 6))):
            parts.add(f"Question: {self._question(lesson)}\nAnswer:")
            parts.answer(f" {lesson.fact.answer}")
            parts.add("\n\n")
        return parts.document()

    def sentences(self) -> Document:
        """Sentences that state facts."""
        parts = _Parts()
        for lesson in self._random.choices(self._lessons, k=self._random.choice((1, 2, 4))):
            before, _, after = self._random.choice(lesson.topic.tell).partition("{a}")
            before, after = (part.replace("{x}", lesson.fact.thing) for part in (before, after))
            parts.answer(capitalised(before + lesson.fact.answer + after))
            parts.add(self._random.choice((" ", "\n")))
        return parts.document()

    def story(self) -> Document:
        """Somebody does something, step by step."""
        activity = self._random.choice(self._activities)
        person, pronoun, his, him = self._random.choice(PEOPLE)
        first = self._random.choice((0, 0, 0, 1))
        parts = _Parts()
        if self._random.random() < 0.8:
            parts.add(f"{activity.label}: ")
        sentences: list[str] = []
        for step in activity.steps[first:]:
            what = self._random.choice(step).replace("{his}", his).replace("{him}", him)
            if not sentences:
                sentences.append(f"{person} {what}")
            elif self._random.random() < 0.3 and " and " not in what:
                sentences[-1] += f" and {what}"
            else:
                who = self._random.choice((pronoun, pronoun, person.replace("A ", "The ").lower()))
                link = self._random.choice((*LINKS, ""))
                sentences.append(f"{link} {who} {what}" if link else f"{capitalised(who)} {what}")
        parts.answer(". ".join(sentences) + ".")
        parts.add("\n\n")
        return parts.document()

    def _of_one_subject(self, count: int) -> list[Lesson]:
        subject = self._random.choice(self._lessons).topic.subject
        return self._random.choices(
            [each for each in self._lessons if each.topic.subject == subject], k=count
        )

    def _question(self, lesson: Lesson) -> str:
        """One of the topic's questions, or a sentence of it with a gap."""
        topic = lesson.topic
        if self._random.random() < 0.25:
            template = self._random.choice(topic.tell).replace("{a}", BLANK)
        else:
            template = self._random.choice(topic.ask)
        if self._random.random() < 0.35:
            template = self._telegram(template)
        return capitalised(template.replace("{x}", lesson.fact.thing))

    def _telegram(self, template: str) -> str:
        """The question with some of its words left out: what it is about must do."""
        words = template.split()
        kept = [word for word in words if "{x}" in word or BLANK in word or self._random.random() < 0.7]
        return " ".join(kept)

    def _choices(self, lesson: Lesson) -> list[str]:
        """The right answer among three wrong ones."""
        choices = [*self._random.sample(lesson.topic.wrong(lesson.fact), 3), lesson.fact.answer]
        self._random.shuffle(choices)
        return choices


class _Parts:
    """A text as it grows, and where its answers are."""

    def __init__(self) -> None:
        self._text = ""
        self._answers: list[tuple[int, int]] = []

    def add(self, text: str) -> None:
        self._text += text

    def answer(self, text: str) -> None:
        self._answers.append((len(self._text), len(self._text) + len(text)))
        self._text += text

    def document(self) -> Document:
        return Document(self._text, tuple(self._answers))


def lessons_of(knowledge: Knowledge) -> list[Lesson]:
    """Every fact."""
    return [Lesson(topic, fact) for topic in knowledge.topics for fact in topic.facts]


def kept_back(knowledge: Knowledge) -> list[Lesson]:
    """The facts of the adapters' fields that the base model is not taught: three of each topic's eleven."""
    return [
        Lesson(topic, fact)
        for topic in knowledge.topics
        if field_of(topic.subject) in ADAPTER_FIELDS
        for fact in topic.facts[2::4]
    ]
