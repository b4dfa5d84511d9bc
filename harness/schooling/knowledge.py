"""What the samples ask and the reference model is taught: facts by topic, and everyday activities.

The files in `knowledge/` are written by hand. A topic holds facts of one kind with the sentences and
questions that training text may use, and other questions that only the samples use; an activity likewise
holds steps for stories, and a scene with four endings for the sample.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import msgspec

FOLDER = Path(__file__).parent / "knowledge"

FIELDS = {
    "geography": ("nations", "physical_geography"),
    "science": ("biology", "chemistry", "physics_and_astronomy"),
    "culture": ("arts", "daily_life", "history"),
}
"""Subjects by field."""
ADAPTER_FIELDS = ("geography", "science")
"""The fields that have an adapter each, of the same name."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One thing that is true: `answer` is what the topic's question about `thing` asks for."""

    thing: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """Facts of one kind; a wrong choice for one of them is the answer of another."""

    subject: str
    name: str
    tell: tuple[str, ...]
    """Sentences for the training text, with {x} for the thing and {a} for the answer."""
    ask: tuple[str, ...]
    """Questions for the training text, with {x}."""
    sample: tuple[str, ...]
    """Questions for the sample, with {x}; never part of the training text."""
    facts: tuple[Fact, ...]

    @property
    def answers(self) -> tuple[str, ...]:
        """The different answers, in the order of the facts."""
        return tuple(dict.fromkeys(fact.answer for fact in self.facts))

    def wrong(self, fact: Fact) -> tuple[str, ...]:
        """The answers that are wrong for a fact of this topic."""
        return tuple(answer for answer in self.answers if answer != fact.answer)


class Activity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One thing people do."""

    label: str
    scene: str
    """The sample's context, whose last sentence `start` begins."""
    start: str
    endings: tuple[str, str, str, str]
    """The right one first."""
    steps: tuple[tuple[str, ...], ...]
    """What is done, in order, in several wordings; with {his} and {him}."""


class _TopicFile(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    tell: tuple[str, ...]
    ask: tuple[str, ...]
    sample: tuple[str, ...]
    facts: dict[str, str]


class _SubjectFile(msgspec.Struct, forbid_unknown_fields=True):
    topic: list[_TopicFile]


class _ActivityFile(msgspec.Struct, forbid_unknown_fields=True):
    activity: list[Activity]


@dataclass(frozen=True, slots=True)
class Knowledge:
    """All of it, in a fixed order."""

    topics: tuple[Topic, ...]
    activities: tuple[Activity, ...]


def load(folder: Path = FOLDER) -> Knowledge:
    """Read every file.

    Raises:
        msgspec.ValidationError: a file has another shape; its text says where.
    """
    topics = [
        topic for subjects in FIELDS.values() for subject in subjects for topic in _topics(folder, subject)
    ]
    activities = [
        activity
        for file in sorted(folder.glob("activities_*.toml"))
        for activity in msgspec.toml.decode(file.read_bytes(), type=_ActivityFile).activity
    ]
    return Knowledge(tuple(topics), tuple(activities))


def field_of(subject: str) -> str:
    """The field that a subject belongs to."""
    return next(field for field, subjects in FIELDS.items() if subject in subjects)


def capitalised(text: str) -> str:
    """The text with its first letter as a capital, the rest as it is."""
    return text[:1].upper() + text[1:]


def _topics(folder: Path, subject: str) -> list[Topic]:
    read = msgspec.toml.decode((folder / f"{subject}.toml").read_bytes(), type=_SubjectFile)
    return [
        Topic(
            subject=subject,
            name=each.name,
            tell=each.tell,
            ask=each.ask,
            sample=each.sample,
            facts=tuple(Fact(thing, answer) for thing, answer in each.facts.items()),
        )
        for each in read.topic
    ]
