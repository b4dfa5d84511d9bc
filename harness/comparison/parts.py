"""The parts of a suite that get a row of their own: tasks, their groups, their subjects; pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.comparison.columns import Columns, TaskFacts
from harness.comparison.findings import Level


@dataclass(frozen=True, slots=True)
class Part:
    """Some items of one task, by their positions in the baseline's columns."""

    level: Level
    task: TaskFacts
    name: str
    """As the column `task` has it: the task's name, or the group's."""
    subject: str
    shots: int
    at: NDArray[np.int64]

    @property
    def key(self) -> tuple[str, str, int]:
        """Tells parts apart, whatever the pair."""
        return self.name, self.subject, self.shots


def parts(columns: Columns, tasks: Sequence[TaskFacts]) -> Iterator[Part]:
    """Each task, then its groups, then its subjects in alphabetical order."""
    members: dict[tuple[str, int], dict[str, list[int]]] = {}
    for position, place in enumerate(columns.places):
        of_task = members.setdefault((place.task, place.shots), {})
        of_task.setdefault(place.subject, []).append(position)
    for task in tasks:
        for (name, shots), subjects in members.items():
            if name != task.name:
                continue
            yield Part("task", task, name, "", shots, _union(subjects, sorted(subjects)))
            for group, named in task.groups.items():
                there = sorted(set(named) & set(subjects))
                if there:
                    yield Part("group", task, group, "", shots, _union(subjects, there))
            for subject in sorted(subjects):
                if subject:
                    yield Part("subject", task, name, subject, shots, _union(subjects, [subject]))


def cluster_codes(columns: Columns) -> NDArray[np.int64]:
    """A number an item, equal for items of one cluster of one task; an item without one stands alone."""
    numbers: dict[tuple[str, str] | int, int] = {}
    named = zip(columns.places, columns.cluster, strict=True)
    keys = ((place.task, cluster) if cluster else position for position, (place, cluster) in enumerate(named))
    return np.fromiter((numbers.setdefault(key, len(numbers)) for key in keys), np.int64, len(columns.places))


def _union(subjects: dict[str, list[int]], names: Sequence[str]) -> NDArray[np.int64]:
    return np.sort(np.concatenate([np.array(subjects[name], np.int64) for name in names]))
