"""A run from start to tables: open the folder, send, score, write.

What can be wrong before the first request is found earlier, by `prepare`. From then on nothing is lost:
whatever happens to an endpoint, the tables are written from what the journals hold.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from harness.client import Client, ClientSettings, Event
from harness.dialects import dialect
from harness.embedded import served
from harness.endpoints import Endpoint
from harness.errors import EndpointRefused, StoreError, UsageError
from harness.journal import Journal
from harness.manifest import EndpointRun, Exit, exit_code, manifest, remarks_of
from harness.pacing import Budget
from harness.plan import KeyMaker
from harness.pool import Pool, Stopped, Work
from harness.prepare import Prepared
from harness.progress import Progress, shown
from harness.prompts import Prompt
from harness.runs import PROMPTS_SHOWN, RunFolder
from harness.suite import Suite
from harness.tables import write_results
from harness.texts import TextWriter

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console


@dataclass(frozen=True, slots=True)
class RunResult:
    """How a run ended."""

    folder: Path
    accuracy: pd.DataFrame
    """The rows of `scores.csv`."""
    parts: Sequence[EndpointRun]
    exit: Exit
    seconds: float
    """Wall time of the whole."""
    remarks: Sequence[str]
    """What a reader must know beside the numbers, one sentence each."""


async def evaluate(prepared: Prepared, console: Console, stop: asyncio.Event | None = None) -> RunResult:
    """Run, or continue, and write every file of the run.

    Args:
        prepared: what `prepare` gave.
        console: where progress goes.
        stop: once set, what is in flight ends, the tables are written, and the run can be continued.

    Raises:
        UsageError: the run's folder cannot be used, or the server of an embedded endpoint does not start.
        StoreError: its files cannot be written, not even at the end.
    """
    stop = stop or asyncio.Event()
    begun = time.time()
    with RunFolder(prepared.folder, prepared.identity) as folder, ExitStack() as journals:
        folder.write_manifest(manifest(prepared, "running", begun))
        folder.write_prompts(_first_prompts(prepared.suite))
        parts = [_part(prepared, endpoint, folder, journals) for endpoint in prepared.endpoints]
        async with shown([part.progress for part in parts], console):
            broken = await _send_all(prepared, parts, folder, stop)
        sent = time.time()
        scores = {part.endpoint.label: part.journal.scores() for part in parts}
        accuracy = await asyncio.to_thread(write_results, folder.path, scores, prepared.suite.tables())
        unscored = int(accuracy["unscored"].sum())
        code = exit_code(unscored, parts, interrupted=stop.is_set() and not broken)
        remarks = remarks_of(prepared, parts, broken)
        folder.write_manifest(manifest(prepared, code.status, begun, sent=sent, parts=parts, remarks=remarks))
        return RunResult(folder.path, accuracy, parts, code, time.time() - begun, remarks)


def _part(prepared: Prepared, endpoint: Endpoint, folder: RunFolder, journals: ExitStack) -> EndpointRun:
    """Open an endpoint's journal and list in it what this run asks for."""
    identity = endpoint.identity
    name = f"{_slug(endpoint.wire_model or 'endpoint')}-{identity.digest()}"
    if identity.replicate:
        name += f"-r{identity.replicate}"
    meta = {"identity": identity.text(), "replicate": str(identity.replicate)}
    try:
        journal = Journal(folder.journal(name), meta=meta, fsync=prepared.settings.fsync)
    except StoreError as error:
        raise UsageError(f"--out {folder.path}: {error}") from error
    journals.callback(journal.close)
    asked = journal.begin(prepared.suite.records())
    return EndpointRun(endpoint, journal, Progress(endpoint.label, asked))


async def _send_all(
    prepared: Prepared, parts: Sequence[EndpointRun], folder: RunFolder, stop: asyncio.Event
) -> str:
    """Run all pools side by side; one that fails stops only itself. What broke the run, or nothing."""
    settings = prepared.settings
    accounts = {part.endpoint.account for part in parts}
    budgets = {account: Budget(rpm=settings.rpm, tpm=settings.tpm) for account in accounts}
    broken: list[str] = []

    def lost(why: str) -> None:
        broken.append(why)
        stop.set()

    async with AsyncExitStack() as opened:
        addresses = await opened.enter_async_context(served(prepared.endpoints, lost))
        texts = opened.enter_context(_texts(folder, parts, stop)) if settings.store_text else None
        pools = []
        for part in parts:
            address = addresses.get(part.endpoint.base_url, part.endpoint.base_url)
            client = _client(prepared, part, address, budgets[part.endpoint.account], stop)
            work = Work(
                suite=prepared.suite,
                tokenizer=prepared.tokenizers[part.endpoint.label],
                bound=prepared.bound,
                keys=KeyMaker(part.endpoint.identity),
                journal=part.journal,
                client=await opened.enter_async_context(client),
                progress=part.progress,
                concurrency=settings.concurrency,
                texts=texts,
            )
            pools.append(_guarded(Pool(work, stop), part, stop, broken))
        await asyncio.gather(*pools)
    return "; ".join(dict.fromkeys(broken))


@contextmanager
def _texts(folder: RunFolder, parts: Sequence[EndpointRun], stop: asyncio.Event) -> Iterator[TextWriter]:
    """The writer of `texts.parquet`; what was planned only in part never replaces a whole one."""
    texts = TextWriter(folder.path / "texts.parquet")
    complete = False
    try:
        yield texts
        complete = not stop.is_set() and not all(part.refused for part in parts)
    finally:
        texts.close(complete=complete)


async def _guarded(pool: Pool, part: EndpointRun, stop: asyncio.Event, broken: list[str]) -> None:
    """Run a pool: a refusal ends it alone, files that cannot be written end the run."""
    try:
        await pool.run()
    except EndpointRefused as error:
        part.refused = str(error)
        part.progress.message = f"stopped: {error}"
    except StoreError as error:
        broken.append(str(error))
        stop.set()


def _client(
    prepared: Prepared, part: EndpointRun, address: str, budget: Budget, stop: asyncio.Event
) -> Client:
    settings = prepared.settings
    found = prepared.secrets[part.endpoint.label]

    async def sleep(seconds: float) -> None:
        """Wait, but not beyond the stop of the run."""
        if await _set_within(stop, seconds):
            raise Stopped

    return Client(
        base_url=address,
        dialect=dialect(part.endpoint.dialect),
        model=part.endpoint.wire_model,
        headers=found.headers(),
        secrets=[found.token] if found.token else [],
        settings=ClientSettings(
            timeout=settings.timeout, attempts=settings.attempts, patience=settings.patience
        ),
        budget=budget,
        concurrency=settings.concurrency,
        sleep=sleep,
        on_event=_listener(part.progress),
    )


def _listener(progress: Progress) -> Callable[[Event], None]:
    """Fold what happens to requests into the counters people see."""

    def listen(event: Event) -> None:
        if event.retry:
            progress.retries[event.retry] += 1
        progress.message = event.message

    return listen


async def _set_within(stop: asyncio.Event, seconds: float) -> bool:
    """Whether the event is set, waiting for it at most so long."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return False
    return True


def _first_prompts(suite: Suite) -> Iterator[Prompt]:
    """The first few prompts of each task."""
    for task in suite.tasks:
        yield from islice((each for each in task.prompts() if isinstance(each, Prompt)), PROMPTS_SHOWN)


def _slug(name: str) -> str:
    """A name fit for a file; the digest beside it tells names apart."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name)[:60].strip("._") or "endpoint"
