"""What stands for the journal in a worker: rows are made here, and committed by the run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from harness.exchange import Outcome
from harness.layout import item_row, reply_row
from harness.replies import JournalStats
from harness.scoring.scores import ItemRecord
from harness.workers.line import Line
from harness.workers.messages import Forget, Keep, Lookup, Note

MOST_OPEN = 8192
"""Rows that may be on their way; beyond that nothing more is planned until the run has caught up."""


class KeptByRun:
    """One endpoint's journal, as a worker sees it. Methods may be called from any thread; those that wait, as
    they ask the run, from any but the event loop's. Groups are committed in the order in which they are sent.

    Attributes:
        on_commit: called with the keys of outcomes that are on disk.
        failure: why nothing is kept any more, or None.
    """

    def __init__(self, line: Line, label: str, replies: int, gather: float) -> None:
        """Take the way to the run, whose journal holds so many replies by now.

        `gather`: seconds that the first row of a group waits for others.
        """
        self.on_commit: Callable[[Sequence[bytes]], None] | None = None
        self.failure: Exception | None = None
        self._line = line
        self._label = label
        self._gather = gather
        self._stats = JournalStats(replies=replies)
        self._outcomes: list[Outcome] = []
        self._records: list[ItemRecord] = []
        self._gathering = False
        self._changed = threading.Condition()
        self._taken = self._kept = 0
        """Rows that were handed over here, and those that are on disk."""

    def put(self, *outcomes: Outcome) -> None:
        """Take outcomes; raises what made an earlier group fail."""
        self._take(outcomes, ())

    def plan(self, records: Sequence[ItemRecord]) -> None:
        """Take items as planned; raises what made an earlier group fail."""
        self._take((), records)

    def answered(self, keys: Sequence[bytes]) -> set[bytes]:
        """Which of these have a reply; waits first where too much is on its way."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken - self._kept < MOST_OPEN or self.failure is not None)
            self._raise()
        return set(self._line.call_from_thread(Lookup(self._label, keys), list[bytes]))

    def forget(self, keys: Sequence[bytes]) -> None:
        """Drop what is stored under these keys."""
        self.flush()
        self._line.call_from_thread(Forget(self._label, keys))

    def note_shortcut(self, evidence: str) -> None:
        """Keep what shows that choices may be read off alternatives."""
        self._line.loop.call_soon_threadsafe(self._line.tell, Note(self._label, evidence))

    def may_answer(self) -> bool:
        """Whether there was any reply when the worker began."""
        return self._stats.replies > 0

    def stats(self) -> JournalStats:
        """How many replies there were when the worker began; nothing else is known here."""
        return self._stats

    def flush(self) -> None:
        """Return when all that was taken so far is on disk; raises where it cannot be."""
        with self._changed:
            taken = self._taken
            self._changed.wait_for(lambda: self._kept >= taken or self.failure is not None)
            self._raise()

    def _take(self, outcomes: Sequence[Outcome], records: Sequence[ItemRecord]) -> None:
        with self._changed:
            self._raise()
            self._outcomes += outcomes
            self._records += records
            self._taken += len(outcomes) + len(records)
            gathering, self._gathering = self._gathering, True
        if not gathering:
            self._line.loop.call_soon_threadsafe(self._line.loop.call_later, self._gather, self._send)

    def _raise(self) -> None:
        if self.failure is not None:
            raise self.failure

    def _send(self) -> None:
        with self._changed:
            outcomes, self._outcomes = self._outcomes, []
            records, self._records = self._records, []
            self._gathering = False
        keeping = self._line.loop.create_task(self._keep(outcomes, records))
        _running.add(keeping)
        keeping.add_done_callback(_running.discard)

    async def _keep(self, outcomes: Sequence[Outcome], records: Sequence[ItemRecord]) -> None:
        rows = Keep(self._label, [*map(reply_row, outcomes)], [*map(item_row, records)])
        try:
            await self._line.call(rows)
        except Exception as error:  # whatever it is, those who wait must hear of it
            with self._changed:
                self.failure = error
                self._changed.notify_all()
            return
        with self._changed:
            self._kept += len(outcomes) + len(records)
            self._changed.notify_all()
        if outcomes and self.on_commit is not None:
            self.on_commit([each.request.key for each in outcomes])


_running: set[object] = set()
"""Tasks that nobody else holds."""
