"""One endpoint's share of a run: a planner ahead of a pool of workers, and the journal behind them.

    prompts ─batch─▶ encode, plan (thread) ─▶ already answered? ─▶ queue ─▶ workers ─▶ client ─▶ journal

A request is *open* from the moment it is planned until its outcome is committed; an equal one that comes
by in the meantime waits for it. Memory follows the queue and the concurrency, not the suite.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from harness.chatting.chat import Chat
from harness.client import Client
from harness.encoding import Bound, Tokenizes, encode_prompts
from harness.errors import EndpointRefused, HarnessError
from harness.exchange import Outcome, ScoreRequest
from harness.items import BadItem
from harness.journal import Journal
from harness.plan import KeyMaker, PlannedItem, plan_item
from harness.progress import Progress
from harness.prompts import Prompt
from harness.scoring.asides import asides
from harness.suite import Suite

BATCH = 128
"""Items encoded at a time: large enough to fill the tokenizer's threads, small enough to start at once."""


class Stopped(Exception):
    """Raised where a worker would wait while the run is being stopped."""


class TakesTexts(Protocol):
    """Where planned items are kept as text."""

    def add(self, item: PlannedItem, tokenizer: str) -> None:
        """Keep one item."""


@dataclass(slots=True)
class _Ticket:
    """An item some of whose requests are open."""

    open: int
    failed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What a pool is given."""

    suite: Suite
    tokenizer: Tokenizes
    bound: Bound
    chat: Chat | None = None
    """Prompts become chats; None: they are plain text."""
    as_text: bool = False
    """Requests bring their texts: the wire format wants them."""
    interrupt: Callable[[], None] | None = None
    """Ends what the tokenizer waits for, where it is one that waits."""
    keys: KeyMaker
    journal: Journal
    client: Client
    progress: Progress
    concurrency: int
    texts: TakesTexts | None = None


class Pool:
    """Plans and sends everything one endpoint is asked."""

    def __init__(self, work: Work, stop: asyncio.Event) -> None:
        """Nothing is done before `run`; setting `stop` lets requests in flight end and sends no more."""
        self._work = work
        self._stop = stop
        self._queue: asyncio.Queue[ScoreRequest | None] = asyncio.Queue(max(64, 2 * work.concurrency))
        self._open: dict[bytes, list[_Ticket]] = {}
        self._failed: set[bytes] = set()
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

        def committed(keys: Sequence[bytes]) -> None:
            loop.call_soon_threadsafe(self._committed, keys)

        self._work.journal.on_commit = committed
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._plan_all())
                for _ in range(self._work.concurrency):
                    group.create_task(self._worker())
        except* HarnessError as errors:
            raise _first(errors) from None
        finally:
            if self._work.interrupt is not None:
                self._work.interrupt()
            for each in (self._thread, self._lookups):
                await asyncio.to_thread(each.shutdown, cancel_futures=True)
            await asyncio.to_thread(self._work.journal.flush)
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
        for _ in range(self._work.concurrency):
            await self._queue.put(None)

    def _in_thread(self, batches: Iterator[list[PlannedItem]]) -> asyncio.Future[list[PlannedItem] | None]:
        loop = asyncio.get_running_loop()
        return loop.run_in_executor(self._thread, lambda: next(batches, None))

    def _batches(self) -> Iterator[list[PlannedItem]]:
        """Planned items, batch by batch; runs in the planning thread."""
        work = self._work
        needs = work.suite.needs
        prompts = iter(work.suite.prompts())
        while batch := list(islice(prompts, BATCH)):
            numbered = [(ordinal, prompt) for ordinal, prompt in batch if isinstance(prompt, Prompt)]
            bad = [ordinal for ordinal, prompt in batch if isinstance(prompt, BadItem)]
            beside = [asides(prompt, needs[prompt.item.task]) for _, prompt in numbered]
            every = [*(prompt for _, prompt in numbered), *(each for own in beside for each in own.values())]
            try:
                encoded = iter(
                    encode_prompts(every, work.tokenizer, work.bound, chat=work.chat, as_text=work.as_text)
                )
            except (Stopped, CancelledError):
                return
            items = list(islice(encoded, len(numbered)))
            planned = [
                plan_item(item, ordinal, work.keys, {name: next(encoded) for name in own})
                for (ordinal, _), item, own in zip(numbered, items, beside, strict=True)
            ]
            work.journal.plan([item.record for item in planned])
            work.progress.items_done += len(bad)
            work.progress.items_unscored += len(bad)
            work.progress.unscorable.update(["bad row"] * len(bad))
            yield planned
            if work.texts is not None:  # only now: the first requests need not wait for it
                for item in planned:
                    work.texts.add(item, work.tokenizer.sha256)

    async def _hand_out(self, batch: Sequence[PlannedItem]) -> None:
        """Queue what the journal cannot answer; equal requests once."""
        fresh = self._claim(batch)
        loop = asyncio.get_running_loop()
        answered = await loop.run_in_executor(self._lookups, self._work.journal.answered, list(fresh))
        self._work.progress.requests_reused += len(answered)
        self._resolve(answered)
        for key, request in fresh.items():
            if key not in answered:
                if self._stop.is_set():
                    return
                await self._queue.put(request)

    def _claim(self, batch: Sequence[PlannedItem]) -> dict[bytes, ScoreRequest]:
        """Mark requests as open; those that were not yet.

        Claimed before the journal is asked: a key that is not open is either committed, and then the
        journal knows it, or was never sent.
        """
        fresh: dict[bytes, ScoreRequest] = {}
        progress = self._work.progress
        for item in batch:
            progress.shifted += item.encoded.shifted
            progress.truncated += item.encoded.truncated
            keys = dict.fromkeys(item.record.all_keys())
            if not keys:
                progress.items_done += 1
                progress.items_unscored += 1
                if not item.encoded.passing:
                    progress.unscorable[item.encoded.problem] += 1
                continue
            ticket = _Ticket(len(keys))
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
        work = self._work
        while (request := await self._queue.get()) is not None:
            if self._stop.is_set():
                continue
            work.progress.sending()
            try:
                outcome = await work.client.score(request)
            except Stopped:
                continue
            finally:
                work.progress.in_flight -= 1
            self._put(outcome)

    def _put(self, outcome: Outcome) -> None:
        if outcome.failure is not None:
            self._failed.add(outcome.request.key)
        self._work.journal.put(outcome)

    # -------------------------------------------------------------------------------------------- ending

    def _committed(self, keys: Sequence[bytes]) -> None:
        """Outcomes are on disk: only now do they count."""
        self._work.progress.requests_done += len(keys)
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
