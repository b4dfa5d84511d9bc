"""One endpoint of a run and what is asked beside its items: looks at start, middle and end, and the sample
that is repeated.

All of it goes through the endpoint's own client, gate, budget and meter. A look at the start comes before
anything else is sent; where an adapter turns out not to be applied there, nothing else is.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TypeVar

from harness.caps import Volume
from harness.encoding import EncodedItem, encode_prompts
from harness.endpoints import Endpoint
from harness.errors import EndpointRefused, Stopped
from harness.forecast import Forecast
from harness.journal import Journal
from harness.learning import Lesson
from harness.plan import KeyMaker
from harness.pool import Pool
from harness.progress import Progress
from harness.prompts import Prompt
from harness.scoring.scores import ItemRecord
from harness.suite import Suite
from harness.watching.asking import ask_all
from harness.watching.chosen import END, MIDDLE, START
from harness.watching.family import Family
from harness.watching.judging import EQUAL, Finding, Looked, difference, unproven
from harness.watching.kept import Proof, begin_look, keep_proof, requests_of_look
from harness.work import Runs, Work

_Given = TypeVar("_Given")

SAMPLE = "sample 1"
"""What keys of repeated items say: that they are asked for the second time."""

RESERVE = 20
"""Looks are left out unless the caps of the run leave so many times what they take."""


class Watch:
    """Stands where the endpoint's pool would, and runs it.

    Attributes:
        endpoint: the endpoint.
        work: of its pool.
        journal: of the endpoint.
        repeated: the items that were repeated, as they were planned.
        notes: what was left out, and why.
    """

    def __init__(
        self,
        work: Work,
        endpoint: Endpoint,
        journal: Journal,
        family: Family,
        *,
        moments: Sequence[str],
        prompts: Callable[[], Sequence[Prompt]],
        sample: Suite | None,
        leaves: Callable[[Volume], bool],
        stop: asyncio.Event,
        pool: Callable[[Work, asyncio.Event], Runs] = Pool,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Nothing is asked before `run`.

        Args:
            work: of the pool.
            endpoint: the endpoint.
            journal: where what is asked beside the pool is kept too.
            family: the endpoints that have its base model.
            moments: when it is looked at.
            prompts: the items that are looked at; called in a thread.
            sample: the items to repeat.
            leaves: whether the caps of the run leave so much.
            stop: of the run.
            pool: makes what asks the items.
            clock: seconds since the epoch.
        """
        self.endpoint = endpoint
        self.work = work
        self.journal = journal
        self.repeated: list[ItemRecord] = []
        self.notes: list[Finding] = []
        self._family = family
        self._moments = moments
        self._prompts = prompts
        self._sample = sample
        self._leaves = leaves
        self._stop = stop
        self._pool = pool
        self._clock = clock
        self._encoded: Sequence[EncodedItem] | None = None
        self._encoding = threading.Lock()
        self._noting = asyncio.Lock()
        self._begun: asyncio.Task[None] | None = None
        self._looks: dict[str, asyncio.Task[Looked]] = {}
        self._repeating = Progress(work.progress.label, sample.size if sample else 0)
        self._half = 0.0
        """Items done at which half of the session is over; 0: it has not begun."""
        family.members.append(self)

    async def run(self) -> None:
        """Run the pool, then repeat the sample, then look a last time.

        Raises:
            EndpointRefused: the endpoint must not be asked any more, or its adapter is not applied.
            UsageError, StoreError: as of `Pool.run`.
        """
        try:
            try:
                await self._pool(replace(self.work, before=self.begin, moved=self._moved), self._stop).run()
                await self._repeat()
            finally:
                self._family.one_ended()
            await self._end()
        finally:
            await self._close()
            self._count_repeated()

    # -------------------------------------------------------------------------------------------- looking

    def encoded(self) -> Sequence[EncodedItem]:
        """The items that are looked at; to be called in a thread, as their ids may have to be asked for."""
        with self._encoding:
            if self._encoded is None:
                asked = self.work.asked
                self._encoded = list(
                    encode_prompts(
                        self._prompts(), asked.tokenizer, asked.bound, chat=asked.chat, as_text=asked.as_text
                    )
                )
            return self._encoded

    async def look(self, moment: str) -> Looked:
        """What the endpoint says of the items at this moment; it is asked once.

        Raises:
            EndpointRefused: the endpoint must not be asked any more.
        """
        if moment not in self._looks:
            self._looks[moment] = asyncio.create_task(self._look(moment))
        return await asyncio.shield(self._looks[moment])

    async def _look(self, moment: str) -> Looked:
        with suppress(Stopped):
            encoded = await asyncio.to_thread(self.encoded)
            number = await self.noted(lambda: begin_look(self.journal, moment, self._clock()))
            requests = requests_of_look(encoded, self.endpoint.identity, number)
            self.work.forecast.add(requests)
            return await ask_all(self.work, self.work.client, requests, self._stop)
        return ()

    def now(self) -> float:
        """Seconds since the epoch."""
        return self._clock()

    async def noted(self, note: Callable[[], _Given]) -> _Given:
        """Change what the journal keeps of looks, one change after another."""
        async with self._noting:
            return await asyncio.to_thread(note)

    async def _prove(self, moment: str) -> Proof:
        """Hold the adapter against its base."""
        own, base = await asyncio.gather(self.look(moment), self._family.look_at_base(moment, self))
        found = None if base.why else difference(base.values, own)
        why = base.why or ("" if found else "not every reply came")
        proof = Proof(moment, int(self._clock()), found, why)
        await self.noted(lambda: keep_proof(self.journal, proof))
        return proof

    # ------------------------------------------------------------------------------------------- when

    async def begin(self) -> None:
        """Look before anything is sent, and after what else comes before that; whoever comes later waits for
        the same look.

        Raises:
            EndpointRefused: the endpoint must not be asked any more, or its adapter is not applied.
        """
        if self.work.before is not None:
            await self.work.before()
        if self._begun is None:
            self._begun = asyncio.create_task(self._begin())
        await asyncio.shield(self._begun)

    async def _begin(self) -> None:
        if not self._moments:
            return
        with suppress(Stopped):
            if not self._leaves(await asyncio.to_thread(self._room)):
                self._left_out("nothing is asked beside the items: the caps of the run leave too little room")
                self._moments = ()
                return
        if self.endpoint.adapter:
            proof = await self._prove(START)
            if proof.found is not None and proof.found.largest <= EQUAL:
                raise EndpointRefused(
                    f"adapter {self.endpoint.adapter} is not applied: the log-probabilities of"
                    f" {proof.found.tokens:,} tokens are those of the base model; see that it is loaded under"
                    " this name (--no-probe does not look)"
                )
        else:
            await self.look(START)
        progress = self.work.progress
        self._half = (progress.items_done + progress.items_total) / 2

    def _moved(self) -> None:
        """Look in the middle, once half of the items are done."""
        if not self._half or self.work.progress.items_done < self._half:
            return
        if MIDDLE in self._moments and MIDDLE not in self._looks and not self._stop.is_set():
            self._looks[MIDDLE] = asyncio.create_task(self._look(MIDDLE))

    async def _end(self) -> None:
        """Look once nobody asks this base model or its adapters any more."""
        if self._stop.is_set() or self._begun is None or END not in self._moments:
            return
        await self._family.over.wait()
        if self._stop.is_set():
            return
        try:
            if MIDDLE in self._looks:
                await self._looks[MIDDLE]
            if self.endpoint.adapter:
                await self._prove(END)
            else:
                await self.look(END)
        except EndpointRefused as error:  # everything is scored: that stands
            self._left_out(f"the endpoint was not looked at in the end: {error}")
        await asyncio.to_thread(self.journal.flush)
        await asyncio.sleep(0)  # lets the callbacks of the last commit run

    async def _close(self) -> None:
        tasks = [*self._looks.values(), *([self._begun] if self._begun else [])]
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._family.one_closed()

    # ----------------------------------------------------------------------------------------- repeating

    async def _repeat(self) -> None:
        """Score the sample again, as the items themselves were, at the same concurrency."""
        if self._sample is None or self._stop.is_set():
            return
        work = self.work
        forced = work.lesson.tried and work.lesson.found is None and not work.lesson.elsewhere
        again = replace(
            work,
            suite=self._sample,
            asked=replace(work.asked, keys=KeyMaker(self.endpoint.identity, SAMPLE)),
            names=None if forced else work.names,
            lesson=Lesson(),
            progress=self._repeating,
            texts=None,
            finished=None,
            enough=None,
            keep=self.repeated.extend,
            before=self.begin,
        )
        await Pool(again, self._stop).run()

    def _count_repeated(self) -> None:
        """What was counted apart while the sample was repeated belongs to the endpoint too."""
        progress, apart = self.work.progress, self._repeating
        progress.requests_done += apart.requests_done
        progress.requests_reused += apart.requests_reused
        progress.choices_read += apart.choices_read

    # ------------------------------------------------------------------------------------------- leaving out

    def _room(self) -> Volume:
        """What the caps have to leave, so that all looks together are a small part of it."""
        forecast = Forecast()
        looks = len(self._moments) + self._family.looks_at_base(self)
        forecast.add(looks * RESERVE * requests_of_look(self.encoded(), self.endpoint.identity, 0))
        return forecast.volume

    def _left_out(self, why: str) -> None:
        if self.endpoint.adapter:
            self.notes.append(unproven("this session", why))
        else:
            self.notes.append(Finding(check="drift", when="this session", verdict="not checked", says=why))
