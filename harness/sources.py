"""What `compare` is given: runs, endpoints of runs, sample files of others; resolved, read, named.

| Source | means |
| --- | --- |
| `RUN` | every endpoint of a run, by the run's folder |
| `RUN#LABEL` | one of them |
| `lm-eval:PATH` | a sample file of lm-evaluation-harness, or a folder of such files |
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from harness.columnar import columns_of, records_of, task_facts
from harness.comparison.columns import Columns, Place, TaskFacts, place_of
from harness.comparison.findings import Flip
from harness.errors import UsageError, did_you_mean
from harness.exports import QUESTION, Text
from harness.lmeval import PREFIX, read_samples
from harness.runs import changed_field
from harness.settings import MARGIN
from harness.stored import Run, load_run

Source = str | Path | Run
"""A run, where one stands, or where other people's results do."""


@dataclass(frozen=True)
class End:
    """One endpoint to compare: of a run, or out of sample files."""

    label: str
    """As its run calls it."""
    run: Run | None
    samples: Path | None = None

    @property
    def place(self) -> str:
        """Where it comes from, shortly."""
        return self.run.folder.name if self.run else str(self.samples)


@dataclass(frozen=True)
class Sources:
    """All endpoints of a comparison, the baseline first."""

    ends: tuple[End, ...]
    labels: tuple[str, ...]
    """What they are called, all different."""
    folder: Path
    """Where the comparison's files go by default: the second run's folder, or the only one's."""

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs, each once."""
        return tuple({id(end.run): end.run for end in self.ends if end.run}.values())

    @cached_property
    def tasks(self) -> tuple[TaskFacts, ...]:
        """The tasks of all runs, in the order of their tables; of equal ones the first."""
        found: dict[str, TaskFacts] = {}
        for run in self.runs:
            for task in task_facts(run):
                found.setdefault(task.name, task)
        return tuple(found.values())

    def columns(self) -> list[Columns]:
        """Read all scores."""
        return [self._read(end, label) for end, label in zip(self.ends, self.labels, strict=True)]

    def repeats(self) -> list[Columns]:
        """Read what was scored a second time, as noise."""
        return [
            columns_of(end.run, end.label, called=label, repeated=True)
            for end, label in zip(self.ends, self.labels, strict=True)
            if end.run and end.run.has_repeats(end.label)
        ]

    def margin(self, given: float | None) -> float:
        """A difference below which does not matter: where none is given, what all those runs had for it that
        were to stop once decided, else `MARGIN`."""
        if given is not None:
            return given
        own = {order["margin"] for run in self.runs if (order := run.manifest.get("random_order"))}
        return float(own.pop()) if len(own) == 1 else MARGIN

    def told_margin(self, given: float | None) -> Iterator[str]:
        """What a reader must know of the margin, where it is another than usual and nobody gave it."""
        margin = self.margin(given)
        if given is None and margin != MARGIN:
            yield f"--margin is {margin:g} here, as the run had it that was to stop once decided"

    def remarks(self) -> Iterator[str]:
        """What a reader must know of where the numbers come from."""
        for run in self.runs:
            if run.status not in ("complete", "decided"):
                yield f"{run.folder} is {run.status}: compared is what its tables hold"
        yield from _differences(self.runs)

    def texts(self, flips: Sequence[Flip]) -> dict[Place, Text]:
        """What flipped items ask, out of the first run that stored it."""
        wanted = {(each.place.task, each.place.subject, each.place.index): each.place for each in flips}
        found: dict[Place, Text] = {}
        for run in self.runs:
            if len(found) < len(wanted):
                for key, context, choices in run.texts_of(wanted):
                    found.setdefault(wanted[key], Text(context[-QUESTION:], choices))
        return found

    def _read(self, end: End, label: str) -> Columns:
        if end.run:
            return columns_of(end.run, end.label, called=label)
        run = self.runs[0]
        first = next(each.label for each in self.ends if each.run is run)
        records = {place_of(each): each for each in records_of(run, first)}
        metrics = {task.name: task.metrics for task in self.tasks}
        return read_samples(end.samples or Path(), records, metrics, label=label)


def resolve(given: Sequence[Source], *, baseline: str | None = None, fewest: int = 2) -> Sources:
    """Find what is to be compared; nothing but each `run.json` is read.

    Args:
        given: runs, endpoints of runs, sample files.
        baseline: the label of the endpoint that the others are compared with; by default the first.
        fewest: endpoints that there must be.

    Raises:
        UsageError: something is no run, or there are too few endpoints.
    """
    runs: dict[Path, Run] = {}
    ends = tuple(end for each in given for end in _ends(each, runs))
    labels = _labels(ends)
    if not runs:
        raise UsageError("compare: give at least one run; sample files are compared with the items of a run")
    if len(ends) < fewest:
        only = labels[0]
        raise UsageError(
            f"compare: {only} is the only endpoint; name a second run, or make one with two endpoints"
            " (--endpoint given twice)"
        )
    order = list(range(len(ends)))
    if baseline is not None:
        if baseline not in labels:
            raise UsageError(f"--baseline: no endpoint {baseline!r}. {did_you_mean(baseline, labels)}")
        order.sort(key=lambda position: labels[position] != baseline)
    folders = [run.folder for run in runs.values()]
    return Sources(
        tuple(ends[each] for each in order),
        tuple(labels[each] for each in order),
        folders[1] if len(folders) > 1 else folders[0],
    )


def _ends(given: Source, runs: dict[Path, Run]) -> Iterator[End]:
    """The endpoints that one source names; runs already read are found in `runs`, new ones put there."""
    if isinstance(given, Run):
        run, label = runs.setdefault(given.folder.resolve(), given), None
    elif not isinstance(given, str | Path):
        raise UsageError(f"compare: {given!r} is no run; give runs, or their folders, one by one")
    else:
        text = str(given)
        if text.startswith(PREFIX):
            yield End(PREFIX.rstrip(":"), None, Path(text.removeprefix(PREFIX)))
            return
        folder, label = _split(text)
        resolved = folder.resolve()
        if resolved not in runs:
            runs[resolved] = load_run(folder)
        run = runs[resolved]
    if label is not None:
        run.endpoint(label)
    for each in run.labels if label is None else (label,):
        yield End(each, run)


def _split(text: str) -> tuple[Path, str | None]:
    """RUN#LABEL; a `#` may stand in either."""
    for position in (len(text), *(at for at, sign in enumerate(text) if sign == "#")):
        try:
            found = Path(text[:position]).is_dir()
        except OSError as error:  # a name that no file can have
            raise UsageError(f"{text[:80]}: {error.strerror or error}") from error
        if found:
            return Path(text[:position]), text[position + 1 :] or None
    return Path(text), None


def _labels(ends: Sequence[End]) -> tuple[str, ...]:
    """As their runs call them; where that is not enough with the run's folder, then with a number."""
    counts = Counter(end.label for end in ends)
    named = [end.label if counts[end.label] == 1 else f"{end.place}/{end.label}" for end in ends]
    seen: Counter[str] = Counter()
    unique = []
    for name in named:
        seen[name] += 1
        unique.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return tuple(unique)


def _differences(runs: Sequence[Run]) -> Iterator[str]:
    """What else differs between runs than the endpoints: fields of the suite that prompts do not show."""
    for run in runs[1:]:
        both = f"{runs[0].folder} and {run.folder}"
        ours, theirs = runs[0].stored.identity, run.stored.identity
        for name in ("tokenizer", "bos", "max_length", "chat_template", "template"):
            one, other = getattr(ours, name), getattr(theirs, name)
            if one != other:
                yield (
                    f"{both} differ in {name} ({_short(one)}, {_short(other)}): their endpoints were not"
                    " asked in quite the same way"
                )
        for task in ours.tasks.keys() & theirs.tasks.keys():
            if ours.tasks[task] != theirs.tasks[task]:
                field, here, there = changed_field(ours.tasks[task], theirs.tasks[task])
                yield f"{both} differ in the {field} of {task} ({here}, {there})"


def _short(value: object) -> str:
    shown = json.dumps(value)
    return shown if len(shown) <= 20 else f"{shown[:17]}..."
