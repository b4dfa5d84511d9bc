"""Many completions at once: each step reads what all of them want next, as one batch a model. No threads.

Who comes with a context that starts like one being read waits until that is read: so no token of a prefix
tree is read twice, however many requests come at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic

import numpy as np

from harness.serving.decoding.completing import Reader, complete
from harness.serving.decoding.job import Completion, Job, Tally, Work
from harness.serving.decoding.spelling import Spell
from harness.serving.models.seam import Ids, Model, P, Segment
from harness.serving.models.weights import Floats
from harness.serving.prefixes import PrefixCache, shared_ids

MAX_RUNNING = 64
"""Outputs that are being made, unless a single request wants more; others wait. Memory follows them."""
MAX_STEP_TOKENS = 512
"""Tokens that a step reads, unless a single completion wants more: a token of a stream waits for a step."""


class Cancelled(Exception):
    """The completion was given up: nobody waits for it any more, or the endpoint stops."""


@dataclass(slots=True)
class Counts(Tally):
    """What was done so far."""

    read: int = 0
    """Tokens read, of contexts and outputs."""
    steps: int = 0
    segments: int = 0
    """Stretches of tokens read; over `steps`, how many share a batch."""
    completions: int = 0
    """That came to an end."""


@dataclass(eq=False, slots=True)
class Task(Generic[P]):
    """A completion on its way."""

    route: str
    job: Job
    cancelled: bool = False
    """May be set from another thread; it is looked at once a step."""
    result: Completion | BaseException | None = None
    ids: Ids = field(init=False)
    work: Work[P, Completion] | None = None
    wanted: Sequence[Segment[P]] = ()
    behind: Task[P] | None = None
    """A task that reads what this one would have to."""
    reading: bool = False
    """Its context is not read to its end yet."""

    def __post_init__(self) -> None:
        self.ids = np.asarray(self.job.context_ids, np.int32)

    @property
    def outputs(self) -> int:
        """How many outputs, or beginnings of one, it makes side by side."""
        beams = self.job.beams
        return len(self.job.seeds) if beams is None else beams.width

    @property
    def tokens(self) -> int:
        """How many it wants read next."""
        return sum(len(segment.ids) for segment in self.wanted)


class Scheduler(Generic[P]):
    """Runs tasks on some models, named by route.

    Attributes:
        counts: what was done so far.
        cache: what is kept of contexts; None: nothing.
    """

    def __init__(self, models: Mapping[str, Model[P]], spell: Spell, cache: PrefixCache[P] | None) -> None:
        self._models = models
        self._spell = spell
        self._waiting: deque[Task[P]] = deque()
        self._running: deque[Task[P]] = deque()
        self.cache = cache
        self.counts = Counts()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self._waiting and not self._running

    def add(self, task: Task[P]) -> None:
        """Take one more."""
        self._waiting.append(task)

    def step(self) -> list[Task[P]]:
        """Do a batch's work; the tasks that have ended, each with its result."""
        ended = [*self._drop_cancelled(), *self._admit()]
        chosen = self._chosen()
        for route in dict.fromkeys(task.route for task in chosen):
            self._feed(self._models[route], [task for task in chosen if task.route == route])
        ended += [task for task in self._running if task.result is not None]
        self._running = deque(task for task in self._running if task.result is None)
        return ended

    def give_up(self, error: Exception) -> list[Task[P]]:
        """End all there is with an error."""
        ended = [*self._waiting, *self._running]
        for task in ended:
            _end(task, error)
        self._waiting.clear()
        self._running.clear()
        return ended

    def _drop_cancelled(self) -> list[Task[P]]:
        dropped = [task for task in (*self._waiting, *self._running) if task.cancelled]
        if dropped:
            self._waiting = deque(task for task in self._waiting if not task.cancelled)
            self._running = deque(task for task in self._running if not task.cancelled)
        for task in dropped:
            _end(task, Cancelled())
        return dropped

    def _admit(self) -> list[Task[P]]:
        """Begin with tasks in their order, but for those that would read what another one is reading.

        Who finds no place is not overtaken: else a request of many outputs would never find room.

        Returns:
            Those that have ended at once, as nothing had to be read for them.
        """
        ended, parked = list[Task[P]](), list[Task[P]]()
        outputs = sum(task.outputs for task in self._running)
        while self._waiting:
            task = self._waiting[0]
            if self._must_wait(task):
                parked.append(self._waiting.popleft())
                continue
            if self._running and outputs + task.outputs > MAX_RUNNING:
                break
            self._begin(self._waiting.popleft())
            if task.result is not None:
                ended.append(task)
                continue
            self._running.append(task)
            outputs += task.outputs
        self._waiting.extendleft(reversed(parked))
        return ended

    def _begin(self, task: Task[P]) -> None:
        model = self._models[task.route]
        task.reading = True
        task.work = complete(Reader(model, self.cache, task.route, self.counts), task.job, self._spell)
        self._go_on(task, None)

    def _must_wait(self, task: Task[P]) -> bool:
        """Whether somebody ahead reads more of the same beginning than is kept, and that will be kept."""
        if self.cache is None or task.job.vectors:
            return False
        if task.behind is not None and task.behind.reading and not task.behind.cancelled:
            return True
        task.behind = None
        ahead = [
            (shared_ids(each.ids, task.ids), each)
            for each in self._running
            if each.reading
            and each.route == task.route
            and not each.job.vectors
            and len(each.ids) <= self.cache.max_tokens
        ]
        if ahead:
            shared, nearest = max(ahead, key=lambda each: each[0])
            if shared > self.cache.find(task.route, task.ids, self._models[task.route].block).known:
                task.behind = nearest
        return task.behind is not None

    def _chosen(self) -> list[Task[P]]:
        """As many as fit into a step, those that waited longest first; they go to the end of the queue."""
        chosen: list[Task[P]] = []
        tokens = 0
        for task in list(self._running):
            tokens += task.tokens
            if chosen and tokens > MAX_STEP_TOKENS:
                break
            chosen.append(task)
            self._running.rotate(-1)
        return chosen

    def _feed(self, model: Model[P], tasks: Sequence[Task[P]]) -> None:
        """Read what some tasks of one model want."""
        segments = [segment for task in tasks for segment in task.wanted]
        try:
            logits = model.feed(segments)
        except Exception as error:  # a fault of the model, such as memory: it is that of all who took part
            for task in tasks:
                _end(task, error)
            return
        self.counts.steps += 1
        self.counts.segments += len(segments)
        self.counts.read += sum(len(segment.ids) for segment in segments)
        at = 0
        for task in tasks:
            count = len(task.wanted)
            self._go_on(task, logits[at : at + count])
            at += count

    def _go_on(self, task: Task[P], logits: Sequence[Floats] | None) -> None:
        """Let a task compute until it wants more read, or has ended."""
        assert task.work is not None
        try:
            task.wanted = next(task.work) if logits is None else task.work.send(logits)
        except StopIteration as end:
            self.counts.completions += 1
            _end(task, end.value)
        except Exception as error:  # such as logits that are no numbers: it is this task's alone
            _end(task, error)
        else:
            task.reading = task.reading and task.wanted[0].past.length < len(task.ids)


def _end(task: Task[P], result: Completion | BaseException) -> None:
    task.reading = False
    task.result = result
    if task.work is not None:
        task.work.close()
