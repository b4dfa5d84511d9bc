"""One endpoint's share of a run: a planner ahead of a pool of workers, and the journal behind them.

    prompts ─batch─▶ encode, plan (thread) ─▶ already answered? ─▶ feed ─▶ workers ─▶ client ─▶ journal

A request is *open* from the moment it is planned until its outcome is committed; an equal one that comes
by in the meantime waits for it. Memory follows the feed and the concurrency, not the suite.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass

from harness.errors import EndpointRefused, HarnessError, Stopped
from harness.exchange import Outcome, ScoreRequest
from harness.feed import Feed
from harness.learning import Learner
from harness.plan import PlannedItem
from harness.planning import Batch, planned
from harness.reading import Reading
from harness.shortcut import merged
from harness.work import Work


@dataclass(slots=True)
class _Ticket:
    """An item some of whose requests are open."""

    open: int
    ordinal: int
    shifted: bool
    truncated: bool
    failed: bool = False


class Pool:
    """Plans and sends everything one endpoint is asked."""

    def __init__(self, work: Work, stop: asyncio.Event) -> None:
        """Nothing is done before `run`; setting `stop` lets requests in flight end and sends no more."""
        self._work = work
        self._stop = stop if work.enough is None else _Either(stop, work.enough)
        self._gate = work.client.gate
        self._feed = Feed()
        self._open: dict[bytes, list[_Ticket]] = {}
        self._failed: set[bytes] = set()
        self._reading = Reading(work.lesson, work.asked.keys, work.read_before)
        self._read: set[bytes] = set()
        """Told by the replies to others, and not yet committed."""
        self._learner: Learner | None = None
        self._learnt: set[bytes] = set()
        """Asked by the learner; their items find them answered."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="plan")
        self._lookups = ThreadPoolExecutor(1, thread_name_prefix="lookup")

    async def run(self) -> None:
        """Work until everything is answered, the endpoint refuses, or the run is stopped.

        Raises:
            EndpointRefused: the endpoint must not be asked any more; what was in flight is dropped.
            UsageError: `--on-overflow fail` met an item that is too long.
            StoreError: the journal cannot be written.
        """
        loop = asyncio.get_running_loop()
        work = self._work

        def committed(keys: Sequence[bytes]) -> None:
            loop.call_soon_threadsafe(self._committed, keys)

        work.journal.on_commit = committed
        if work.names is not None:
            answered = work.journal.answered if work.journal.may_answer() else None
            self._learner = Learner(
                work.names, work.asked.keys, self._ask, answered, work.lesson, work.leading
            )
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._plan_all())
                for _ in range(self._gate.most):
                    group.create_task(self._worker())
        except* HarnessError as errors:
            raise _first(errors) from None
        finally:
            for interrupt in (work.interrupt, self._learner and self._learner.interrupt):
                if interrupt:
                    interrupt()
            for each in (self._thread, self._lookups):
                await asyncio.to_thread(each.shutdown, cancel_futures=True)
            await asyncio.to_thread(work.journal.flush)
            await asyncio.sleep(0)  # lets the callbacks of the last commit run

    # ------------------------------------------------------------------------------------------ planning

    async def _plan_all(self) -> None:
        """Plan batch after batch, the next one while this one is handed out."""
        batches = self._batches()
        coming = self._in_thread(batches)
        try:
            while not self._stop.is_set() and (batch := await coming) is not None:
                coming = self._in_thread(batches)
                await self._hand_out(batch)
        finally:
            if not coming.cancel() and not coming.cancelled():
                coming.exception()  # seen, or no longer of interest
        self._work.forecast.whole = not self._stop.is_set()
        self._feed.end()

    def _in_thread(self, batches: Iterator[Batch]) -> asyncio.Future[Batch | None]:
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._thread, lambda: next(batches, None))

    def _batches(self) -> Iterator[Batch]:
        """Planned items, batch by batch; runs in the planning thread."""
        work = self._work
        top_of = self._learner.top_of if self._learner else lambda encoded: 0
        noted = None
        try:
            for batch in planned(work.suite, work.asked, top_of):
                if work.lesson.found is not None and work.lesson.found is not noted:
                    noted = work.lesson.found
                    work.journal.note_shortcut(noted.evidence())
                (work.keep or work.journal.plan)([item.record for item in batch.items])
                yield batch
                if work.texts is not None:  # only now: the first requests need not wait for it
                    for item in batch.items:
                        work.texts.add(item, work.asked.tokenizer.sha256)
        except (Stopped, CancelledError):
            return

    async def _ask(self, request: ScoreRequest) -> Outcome:
        """Send a request of the learner's; what came is on disk before anything else is planned."""
        if self._work.before is not None:
            await self._work.before()
        async with self._gate:
            if self._stop.is_set():
                raise Stopped
            self._work.progress.sending()
            try:
                outcome = await self._work.client.score(request)
            finally:
                self._work.progress.in_flight -= 1
        if outcome.reply is not None:
            self._learnt.add(request.key)
            self._work.journal.put(outcome)
            await asyncio.to_thread(self._work.journal.flush)
        return outcome

    async def _hand_out(self, batch: Batch) -> None:
        """Queue what the journal cannot answer; equal requests once."""
        progress = self._work.progress
        if batch.bad:
            progress.items_done += batch.bad
            progress.items_unscored += batch.bad
            progress.unscorable["bad row"] += batch.bad
        fresh = self._claim(batch.items)
        loop = asyncio.get_running_loop()
        answered = await loop.run_in_executor(self._lookups, self._work.journal.answered, list(fresh))
        reused = [request for key, request in fresh.items() if key in answered - self._learnt]
        progress.requests_reused += len(merged(reused))
        self._resolve(answered)
        learnt = [request for key, request in fresh.items() if key in self._learnt]
        wanted = merged([request for key, request in fresh.items() if key not in answered])
        self._work.forecast.add([*learnt, *wanted])
        if wanted and self._work.before is not None:
            await self._work.before()
        if not self._stop.is_set():
            await self._feed.put(wanted)

    def _claim(self, batch: Sequence[PlannedItem]) -> dict[bytes, ScoreRequest]:
        """Mark requests as open; those that were not yet.

        Claimed before the journal is asked: a key that is not open is either committed, and then the
        journal knows it, or was never sent.
        """
        fresh: dict[bytes, ScoreRequest] = {}
        progress = self._work.progress
        for item in batch:
            keys = dict.fromkeys(item.record.all_keys())
            if not keys:
                progress.items_done += 1
                progress.items_unscored += 1
                if not item.encoded.passing:
                    progress.unscorable[item.encoded.problem] += 1
                self._tell_finished(item.record.ordinal)
                continue
            ticket = _Ticket(
                len(keys), item.record.ordinal, item.encoded.shifted, bool(item.encoded.truncated)
            )
            for request in item.requests:
                if request.key not in keys:
                    continue
                del keys[request.key]
                if request.key not in self._open:
                    self._open[request.key] = []
                    fresh[request.key] = request
                self._open[request.key].append(ticket)
        return fresh

    # ------------------------------------------------------------------------------------------- sending

    async def _worker(self) -> None:
        gate, feed = self._gate, self._feed
        while not self._stop.is_set() and await feed.wait():  # outside: who waits holds no slot
            async with gate:
                while not self._stop.is_set() and (request := feed.next()) is not None:
                    await self._send(request)
                    if not gate.stays():
                        break
        feed.close()

    async def _send(self, request: ScoreRequest) -> None:
        progress = self._work.progress
        progress.sending()
        try:
            outcome = await self._work.client.score(request, lambda: self._feed.delayed(request))
        except Stopped:
            self._feed.returned(request, computed=False)
        else:
            await self._put(outcome)
        finally:
            progress.in_flight -= 1

    async def _put(self, outcome: Outcome) -> None:
        """Keep an outcome and what it tells of other choices; what it does not tell is sent on its own."""
        taken = self._reading.take(outcome)
        told = [outcome, *taken.read]
        self._failed.update(each.request.key for each in told if each.failure is not None)
        self._read.update(each.request.key for each in taken.read)
        self._work.journal.put(*told)
        if taken.forget:
            await self._force(taken.forget)
        self._feed.returned(outcome.request, computed=outcome.failure is None, again=taken.again)

    async def _force(self, requests: Sequence[ScoreRequest]) -> None:
        """Forget what was read of these, and send them, each by itself."""
        journal, lesson = self._work.journal, self._work.lesson
        await asyncio.to_thread(journal.forget, [each.key for each in requests])
        journal.note_shortcut(json.dumps({"largest_difference": lesson.changed, "why": lesson.why}))
        self._feed.add(requests)

    async def doubt(self, difference: float, why: str) -> None:
        """Another process has found alternatives that are not what forcing gives, by so many nats."""
        doubted = self._reading.doubt(difference)
        self._work.lesson.why = why
        if doubted:
            await self._force(doubted)

    # -------------------------------------------------------------------------------------------- ending

    def _committed(self, keys: Sequence[bytes]) -> None:
        """Outcomes are on disk: only now do they count."""
        read = self._read.intersection(keys)
        self._read -= read
        self._work.progress.requests_done += len(keys) - len(read)
        self._work.progress.choices_read += len(read)
        self._resolve(keys)

    def _resolve(self, keys: Sequence[bytes] | set[bytes]) -> None:
        progress = self._work.progress
        for key in keys:
            failed = key in self._failed
            self._failed.discard(key)
            for ticket in self._open.pop(key, ()):
                ticket.open -= 1
                ticket.failed |= failed
                if not ticket.open:
                    progress.items_done += 1
                    progress.items_unscored += ticket.failed
                    progress.shifted += ticket.shifted
                    progress.truncated += ticket.truncated
                    self._tell_finished(ticket.ordinal)
        if self._work.moved is not None:
            self._work.moved()

    def _tell_finished(self, ordinal: int) -> None:
        if self._work.finished is not None:
            self._work.finished(ordinal)


@dataclass(frozen=True, slots=True)
class _Either:
    """Set once one of two events is."""

    one: asyncio.Event
    other: asyncio.Event

    def is_set(self) -> bool:
        """Whether it is."""
        return self.one.is_set() or self.other.is_set()


def _first(errors: BaseExceptionGroup[HarnessError]) -> HarnessError:
    """The error to report of several at once: a refusal explains the others."""
    leaves: list[HarnessError] = []
    stack: list[BaseException] = [errors]
    while stack:
        error = stack.pop()
        if isinstance(error, BaseExceptionGroup):
            stack.extend(error.exceptions)
        elif isinstance(error, HarnessError):
            leaves.append(error)
    return next((error for error in leaves if isinstance(error, EndpointRefused)), leaves[0])
