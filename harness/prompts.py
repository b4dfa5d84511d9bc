"""Items to prompts: description, shots, question; pure.

Shots are drawn for the whole split in file order, before any limit, sample or shard, so that no option
changes a prompt. Which shots: lm-evaluation-harness 0.4.13, `api/samplers.py` and `api/task.py`. This
module does not know where rows come from, nor what a token is.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from random import Random
from typing import NamedTuple

from harness.converting import description_of, item_of, item_or_bad
from harness.errors import UsageError
from harness.items import BadItem, Item, Pair, Row
from harness.task import Shots, Task

SHOTS_SEED = 1234
"""The reference's default seed for drawing shots."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """An item with the text that stands before its contexts."""

    item: Item
    prefix: str
    """Description and shots; the same for all choices."""
    shots: int
    description: str = ""
    """What the prefix begins with; a chat template has a place of its own for it."""
    examples: Sequence[Item] = ()
    """The shots, which stand in the prefix as text."""
    delimiter: str = " "
    """As of the task: what continuations begin with that is no part of the choice."""
    bare: bool = False
    """Its pairs are the whole of it: no chat template is put around them."""
    orders: tuple[Item, ...] = ()
    """The item with its choices in the other cyclic orders, where they are asked; pairs stand as the
    item's own do, so each choice keeps its place and only its letter differs."""

    @property
    def first_context(self) -> str:
        """The whole text before the first choice, as it is without a chat template."""
        return self.prefix + self.item.pairs[0].context

    def contexts(self) -> tuple[str, ...]:
        """The whole text before each choice; choices that share a context share the string."""
        own = dict.fromkeys(pair.context for pair in self.item.pairs)
        whole = {context: self.prefix + context for context in own}
        return tuple(whole[pair.context] for pair in self.item.pairs)


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which items of a split are evaluated; counted within each subject."""

    limit: int | None = None
    """The first N."""
    sample: int | None = None
    """N at random, the same ones for the same seed whatever else is asked."""
    seed: int = 0

    def indices(self, task: str, counts: Mapping[str, int]) -> dict[str, Collection[int]]:
        """The chosen indices of each subject, given how many items each has."""
        return {subject: self._of(f"{task}/{subject}", count) for subject, count in counts.items()}

    def _of(self, name: str, count: int) -> Collection[int]:
        if self.sample is not None:
            chosen = Random(f"{self.seed}/{name}").sample(range(count), min(self.sample, count))
            return frozenset(chosen)
        return range(count if self.limit is None else min(self.limit, count))


def shot_text(shot: Item, delimiter: str) -> str:
    """A solved question: the context and continuation of its first right choice, and the delimiter."""
    right = shot.pairs[shot.gold[0]]
    return right.context + right.continuation + delimiter


def shot_drawer(rule: Shots, shots: int, pool: Sequence[Item]) -> Callable[[Item | None], Sequence[Item]]:
    """A function that gives each item, asked in file order, its shots out of `pool`.

    Where the rule draws at random, one generator is consumed item after item, so every item of the split
    has to be asked for. A row that is no item is asked for as None.
    """
    if shots == 0 or not pool:  # `check_pools` lets nothing but rows that are no items have no pool
        return lambda item: ()
    if rule.draw == "first_n":
        first = tuple(pool[:shots])
        if not rule.without_own and not rule.never_own:
            return lambda item: first
        return lambda item: first if _is_apart(item, first) else list(islice(_others(item, pool), shots))
    if rule.draw == "listed":
        by_id = {item.id: item for item in pool}
        listed = tuple(by_id[each] for each in rule.ids[:shots])
        return lambda item: listed
    generator = Random(SHOTS_SEED)

    def draw(item: Item | None) -> Sequence[Item]:
        drawn = generator.sample(pool, shots + rule.without_own)
        if not rule.without_own and not rule.never_own:
            return drawn
        others = list(_others(item, drawn))
        if len(others) < shots:  # too many of them are the item: draw from what is left without it
            others = generator.sample(list(_others(item, pool)), shots)
        return others[:shots]

    return draw


def check_pools(
    task: Task,
    shots: int,
    pools: Mapping[str, Sequence[Item]],
    subjects: Iterable[str],
    own: Mapping[str, int] | None = None,
) -> None:
    """Refuse shots that cannot be drawn.

    Args:
        task: the benchmark.
        shots: how many each item is to get.
        pools: the items that they are drawn from, by subject.
        subjects: those that items have.
        own: how often, at most, an item of a subject stands in its own pool.

    Raises:
        UsageError: a subject has too few items to draw from.
    """
    if not shots:
        return
    subjects = list(subjects)
    if pools and "" not in pools and subjects == [""]:
        raise UsageError(
            f"--tasks {task.name}: the shots of {_where(task, '')} have subjects and the questions have none;"
            " give the questions theirs, or take the column out of the shots"
        )
    if task.shots.ids:
        _check_listed(task, shots, pools, subjects)
    for subject in subjects:
        copies = (own or {}).get(subject, 0)
        needed, found = shots + task.shots.without_own + copies, len(pools.get(subject, ()))
        if found < needed:
            why = " (questions stand among them, and none is a shot of its own)" if copies else ""
            raise UsageError(
                f"--tasks {task.name}: with {shots} shots it needs {needed} items of"
                f" {_where(task, subject)}, which has {found}{why}; --shots asks with fewer"
            )


def _check_listed(
    task: Task, shots: int, pools: Mapping[str, Sequence[Item]], subjects: Iterable[str]
) -> None:
    """Raise `UsageError` where shots that are named by id are too few, or not among the rows."""
    ids = task.shots.ids
    if shots > len(ids):
        raise UsageError(f"--shots {shots}: {task.name} has {len(ids)} shots, which were chosen by hand")
    for subject in subjects:
        there = {item.id for item in pools.get(subject, ())}
        missing = [each for each in ids[:shots] if each not in there]
        if missing:
            raise UsageError(
                f"--shots {shots}: the shots of {task.name} were chosen by hand, and {_where(task, subject)}"
                f" lacks {len(missing)} of them, by id: {', '.join(missing)}"
            )


def _where(task: Task, subject: str) -> str:
    """Where the shots of a subject come from, for messages."""
    split = task.shots.split
    file = task.dataset.files.get(split)
    source = file.name if file else f"{task.dataset.folder}/{split}"
    return source + (f", subject {subject}" if subject else "")


def prompts(
    task: Task,
    rows: Iterable[Row],
    *,
    shots: int,
    pools: Mapping[str, Sequence[Item]],
    chosen: Mapping[str, Collection[int]],
    orders: bool = False,
    wanted: Callable[[int], bool] | None = None,
) -> Iterator[Prompt | BadItem]:
    """The prompts of the chosen items, in file order.

    Args:
        task: the benchmark.
        rows: all rows of the evaluated split, in file order; none is read beyond the last chosen one.
        shots: how many solved examples.
        pools: the items shots are drawn from, by subject.
        chosen: which indices of each subject, as `Selection.indices` gives them.
        orders: with each item in the other cyclic orders of its choices.
        wanted: of the chosen items only these, by their position among them, get a prompt; it is asked when
            their row comes. None: all.
    """
    drawers: dict[str, Callable[[Item | None], Sequence[Item]]] = {}
    fronts = _Fronts(task)
    size = left = sum(map(len, chosen.values()))
    reading = iter(rows)
    all_draw = bool(shots) and task.shots.draw == "random"  # also for rows that nobody asks for
    while left and (row := next(reading, None)) is not None:
        subject = row.subject
        is_chosen = row.index in chosen.get(subject, ())
        left -= is_chosen
        if is_chosen and wanted is not None:
            is_chosen = wanted(size - left - 1)
        if not is_chosen and not all_draw:
            continue
        item = item_or_bad(task, row)
        if subject not in drawers:
            drawers[subject] = shot_drawer(task.shots, shots, pools.get(subject, ()))
        drawn = drawers[subject](item if isinstance(item, Item) else None)
        if not is_chosen:
            continue
        if isinstance(item, BadItem):
            yield item
            continue
        front = fronts.of(subject, drawn)
        others = other_orders(task, row, item) if orders else ()
        yield Prompt(item, front.prefix, shots, front.description, drawn, task.delimiter, orders=others)


class _Front(NamedTuple):
    """What stands before the questions of a subject."""

    description: str
    shots: Sequence[Item]
    prefix: str
    """Both, as text."""


class _Fronts:
    """Makes what stands before questions, anew only where it is not that of the subject's question before."""

    def __init__(self, task: Task) -> None:
        self._task = task
        self._last: dict[str, _Front] = {}

    def of(self, subject: str, shots: Sequence[Item]) -> _Front:
        """Before a question of this subject, with these shots."""
        last = self._last.get(subject)
        if last is None or last.shots is not shots:
            description = last.description if last else description_of(self._task, subject)
            last = _Front(description, shots, prompt_prefix(self._task, subject, shots))
            self._last[subject] = last
        return last


def prompt_prefix(task: Task, subject: str, shots: Sequence[Item]) -> str:
    """What stands before a question: the description, then the shots, each with its delimiter."""
    return description_of(task, subject) + "".join(shot_text(shot, task.shot_delimiter) for shot in shots)


def other_orders(task: Task, row: Row, item: Item) -> tuple[Item, ...]:
    """The item of a task with lettered choices in their other cyclic orders.

    In order `shift` the choice at position j stands `shift` places later, and its pair is put back to j. None
    where the task's code fails to give one of them.
    """
    count = len(item.pairs)
    found = []
    for shift in range(1, count):
        shifted = item_or_bad(task, replace(row, shift=shift))
        if isinstance(shifted, BadItem) or len(shifted.pairs) != count:
            return ()
        pairs = tuple(shifted.pairs[(at + shift) % count] for at in range(count))
        found.append(replace(item, pairs=pairs))
    return tuple(found)


def pools_by_subject(task: Task, rows: Iterable[Row]) -> dict[str, list[Item]]:
    """The items that shots may be, by subject, in file order; raises `RowError` for a bad row."""
    pools: dict[str, list[Item]] = {}
    for row in rows:
        item = item_of(task, row)
        if not task.shots.ids or item.id in task.shots.ids:
            pools.setdefault(row.subject, []).append(item)
    return pools


def question_of(item: Item) -> tuple[tuple[Pair, ...], tuple[int, ...]]:
    """What makes two items the same question, wherever they stand."""
    return item.pairs, item.gold


def _others(item: Item | None, pool: Iterable[Item]) -> Iterator[Item]:
    """Those that are not the item itself."""
    return (each for each in pool if item is None or question_of(each) != question_of(item))


def _is_apart(item: Item | None, shots: Sequence[Item]) -> bool:
    """Whether the item itself is none of the shots."""
    return item is None or all(question_of(each) != question_of(item) for each in shots)
