"""All watches of a run: which there are, and what they found, once everything is sent."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path

from harness.client import Client
from harness.clients import Clients
from harness.encoding import EncodedItem
from harness.endpoints import Endpoint
from harness.errors import EndpointRefused, Stopped
from harness.manifest import EndpointRun
from harness.pool import Pool
from harness.prepare import Prepared
from harness.prompts import Prompt
from harness.scoring.scores import ItemRecord, ItemScore
from harness.suite import Suite
from harness.tables import write_results
from harness.watching.chosen import drawn, look_at, moments, shares
from harness.watching.family import Family, Whom
from harness.watching.findings import write_checks
from harness.watching.judging import Difference, difference
from harness.watching.kept import findings, keep_noise, kept
from harness.watching.noise import measured
from harness.watching.watch import Watch
from harness.work import Runs, Work

REPEATS = "repeats"
"""The folder in a run's that has the tables of the repeated items."""


class Watches:
    """Makes the watches of a run; their clients are closed with `opened`."""

    def __init__(
        self,
        prepared: Prepared,
        clients: Clients,
        addresses: Mapping[str, str],
        opened: AsyncExitStack,
        stop: asyncio.Event,
        pool: Callable[[Work, asyncio.Event], Runs] = Pool,
    ) -> None:
        """Nothing is asked yet; `addresses` tell where embedded endpoints are, `pool` makes what asks the
        items."""
        self._prepared = prepared
        self._clients = clients
        self._addresses = addresses
        self._opened = opened
        self._stop = stop
        self._pool = pool
        self._families: dict[Whom, Family] = {}
        self._all: list[tuple[EndpointRun, Watch]] = []
        self._prompts: Sequence[Prompt] | None = None
        self._reading = threading.Lock()
        self._sample = sample_of(prepared)

    def over(self, part: EndpointRun, work: Work) -> Watch:
        """The watch that stands where an endpoint's pool would; all are made before any is run."""
        endpoint = part.endpoint
        family = self._families.setdefault(whom(endpoint), Family(self._connect, self._stop))
        watch = Watch(
            work,
            endpoint,
            part.journal,
            family,
            moments=moments_of(self._prepared, endpoint),
            prompts=self.prompts,
            sample=self._sample,
            leaves=part.meter.leaves,
            stop=self._stop,
            pool=self._pool,
        )
        self._all.append((part, watch))
        return watch

    def prompts(self) -> Sequence[Prompt]:
        """The items that are looked at; read once, by whoever comes first."""
        with self._reading:
            if self._prompts is None:
                self._prompts = looked_at(self._prepared)
            return self._prompts

    def conclude(self, folder: Path) -> None:
        """Judge what came, and write it: `checks.csv`, and the tables of repeated items.

        Raises:
            StoreError: a file cannot be written, or a journal cannot be read.
        """
        repeated: dict[str, list[ItemScore]] = {}
        tables = self._prepared.suite.tables()
        for part, watch in self._all:
            journal, endpoint = watch.journal, watch.endpoint
            if watch.repeated:
                repeated[endpoint.label] = journal.scores_of(watch.repeated)
                metrics = {table.name: table.metrics for table in tables}
                noise = measured(*_twice(watch, repeated[endpoint.label]), metrics)
                if noise is not None:
                    keep_noise(journal, noise)
            encoded: Sequence[EncodedItem] = ()
            if kept(journal).seen:
                with suppress(EndpointRefused, Stopped):  # of an endpoint that would have to be asked for ids
                    encoded = watch.encoded()
            part.findings = [*findings(journal, endpoint.identity, encoded), *watch.notes]
        if repeated:
            (folder / REPEATS).mkdir(exist_ok=True)
            write_results(folder / REPEATS, repeated, tables)
        write_checks(folder, {part.endpoint.label: part.findings for part, _ in self._all})

    async def _connect(self, endpoint: Endpoint) -> Client:
        return await self._opened.enter_async_context(self._clients.beside(endpoint, self._addresses))


def whom(endpoint: Endpoint) -> Whom:
    """The base model that an endpoint is, or is an adapter of."""
    return endpoint.dialect, endpoint.identity.base_url, endpoint.model


def moments_of(prepared: Prepared, endpoint: Endpoint) -> tuple[str, ...]:
    """When an endpoint of a run is looked at."""
    if not prepared.settings.probe:
        return ()
    proof = any(each.adapter and whom(each) == whom(endpoint) for each in prepared.endpoints)
    of = prepared.whole.size if prepared.shard else None
    return moments(prepared.suite.size, proof=proof, of=of)


def looked_at(prepared: Prepared) -> list[Prompt]:
    """The items that every endpoint of a run is asked again and again."""
    return look_at([task.prompts() for task in prepared.whole.tasks], prepared.whole.size)


def sample_of(prepared: Prepared) -> Suite | None:
    """The items that `--repeat-sample` has scored twice, as a suite of their own."""
    count, suite = prepared.settings.repeat_sample, prepared.suite
    if count is None:
        return None
    each_task = zip(suite.tasks, shares([task.size for task in suite.tasks], count), strict=True)
    tasks = [
        replace(task, chosen=drawn(task.task.name, task.chosen, share)) for task, share in each_task if share
    ]
    return replace(suite, tasks=tuple(tasks))


def _twice(
    watch: Watch, seconds: Sequence[ItemScore]
) -> tuple[list[ItemScore], list[ItemScore], list[Difference]]:
    """The repeated items as the run scored them, as they were scored again, and how far tokens differ."""
    journal = watch.journal
    there = journal.records_at({_place(each.record) for each in seconds})
    pairs = [(there[_place(each.record)], each) for each in seconds if _place(each.record) in there]
    records = [record for record, _ in pairs]
    said = journal.logprobs([key for one, other in pairs for key in (*one.keys, *other.record.keys)])
    differences = [
        found
        for one, other in pairs
        if len(one.keys) == len(other.record.keys)
        and (found := difference([*map(said.get, one.keys)], [*map(said.get, other.record.keys)]))
    ]
    return journal.scores_of(records), [each for _, each in pairs], differences


def _place(record: ItemRecord) -> tuple[str, str, int]:
    return record.task, record.subject, record.index
