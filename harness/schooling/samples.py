"""The samples: rows with the columns of MMLU and HellaSwag, made from the knowledge; pure.

The same seed gives the same rows. Within a subject (and over all activities) gold stands in each of the four
places equally often, as near as their number allows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from random import Random
from typing import Any

from harness.schooling.knowledge import FIELDS, Activity, Knowledge, capitalised

SEED = 20
DEV = 5
"""Solved questions of each subject; its other facts are asked."""

Row = Mapping[str, Any]


def splits(knowledge: Knowledge) -> dict[str, list[Row]]:
    """All rows, by the file they belong in: `<folder>/<split>.jsonl`."""
    questions = {
        subject: list(_questions(knowledge, subject)) for group in FIELDS.values() for subject in group
    }
    return {
        "sample_mmlu/dev.jsonl": [row for rows in questions.values() for row in rows[:DEV]],
        "sample_mmlu/test.jsonl": [row for rows in questions.values() for row in rows[DEV:]],
        "sample_hellaswag/validation.jsonl": list(_scenes(knowledge.activities)),
    }


def write(knowledge: Knowledge, folder: Path) -> None:
    """Write every split below `folder`, one JSON object a line."""
    for name, rows in splits(knowledge).items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def _questions(knowledge: Knowledge, subject: str) -> Iterator[Row]:
    """One question a fact, the topics in turn."""
    random = Random(f"{SEED} {subject}")
    topics = [topic for topic in knowledge.topics if topic.subject == subject]
    facts = [
        (topic, number, fact)
        for in_turn in zip_longest(*([(topic, *each) for each in enumerate(topic.facts)] for topic in topics))
        for topic, number, fact in filter(None, in_turn)
    ]
    for (topic, number, fact), place in zip(facts, _places(len(facts), random), strict=True):
        template = topic.sample[number % len(topic.sample)]
        yield {
            "question": capitalised(template.replace("{x}", fact.thing)),
            "subject": subject,
            "choices": _inserted(random.sample(topic.wrong(fact), 3), fact.answer, place),
            "answer": place,
        }


def _scenes(activities: Iterable[Activity]) -> Iterator[Row]:
    activities = tuple(activities)
    random = Random(f"{SEED} scenes")
    for number, (activity, place) in enumerate(
        zip(activities, _places(len(activities), random), strict=True)
    ):
        right, *wrong = activity.endings
        random.shuffle(wrong)
        yield {
            "ind": number,
            "activity_label": activity.label,
            "ctx_a": activity.scene,
            "ctx_b": activity.start,
            "endings": _inserted(wrong, right, place),
            "label": str(place),
        }


def _places(count: int, random: Random) -> list[int]:
    """Where gold stands, evenly over the four places."""
    places = [number % 4 for number in range(count)]
    random.shuffle(places)
    return places


def _inserted(wrong: list[str], right: str, place: int) -> list[str]:
    return [*wrong[:place], right, *wrong[place:]]
