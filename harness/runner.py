"""A run from start to tables: open the folder, send, score, write.

What can be wrong before the first request is found earlier, by `prepare`. From then on nothing is lost:
whatever happens to an endpoint, the tables are written from what the journals hold.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from harness.background import entered_beside, to_its_end
from harness.caps import Spending, told
from harness.clients import Clients
from harness.earlier import Earlier, earlier
from harness.embedded import served
from harness.endpoints import Endpoint
from harness.errors import EndpointRefused, Stopped, StoreError, UsageError
from harness.journal import Journal
from harness.manifest import (
    EndpointRun,
    Exit,
    exit_code,
    manifest,
    remarks_of,
    told_greedy,
    told_ties,
    untried,
)
from harness.pool import Pool, Work
from harness.prepare import Prepared, asked_of, fail_on_overflow, names_of
from harness.prices import caps_of
from harness.probing import Ready, ready, told_of
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
    sending: float
    """Of it, until all was sent."""
    remarks: Sequence[str]
    """What a reader must know beside the numbers, one sentence each."""


async def evaluate(prepared: Prepared, console: Console, stop: asyncio.Event | None = None) -> RunResult:
    """Run, or continue, and write every file of the run.

    Args:
        prepared: what `prepare` gave.
        console: where progress goes.
        stop: once set, what is in flight ends, the tables are written, and the run can be continued.

    Raises:
        UsageError: the run's folder cannot be used, the server of an embedded endpoint does not start, or
            an endpoint that tokenizes for itself does not show what `--bos` asks for.
        EndpointRefused: it refuses to tokenize, and no other endpoint is left; nothing was written.
        StoreError: its files cannot be written, not even at the end.
    """
    stop = stop or asyncio.Event()
    begun = time.time()
    path = prepared.folder
    before, spending = await asyncio.to_thread(_spending, prepared, stop)
    clients = Clients(prepared, console, stop, spending)
    async with ready(prepared, clients.tokenizing, stop) as found:
        prepared = found.prepared
        with RunFolder(path, prepared.identity) as folder, ExitStack() as journals:
            folder.write_manifest(manifest(prepared, "running", begun, earlier=before))
            chat = prepared.chats.get(prepared.endpoints[0].label)
            folder.write_prompts(_first_prompts(prepared.suite), chat)
            lost = _Lost(stop)
            async with entered_beside(served(prepared.endpoints, lost)) as addresses:
                # In a thread: the server of an embedded endpoint starts in the meantime.
                parts = await to_its_end(asyncio.to_thread(_parts, prepared, folder, journals))
                for part in parts:
                    part.refused = found.refused.get(part.endpoint.label, "")
                    part.meter = clients.meters[part.endpoint.label]
                async with shown([part.progress for part in parts], console):
                    await _send_all(found, parts, folder, clients, await addresses, lost)
            ended = _Ended(begun, before, lost.why, spending.reason, stop.is_set())
            remarks = [*remarks_of(prepared, parts, lost.why), *told_of(found.asked)]
            return await _concluded(prepared, parts, folder, remarks, ended)


def _spending(prepared: Prepared, stop: asyncio.Event) -> tuple[Earlier, Spending]:
    """What earlier sessions sent, and the count that goes on from there."""
    try:
        before = earlier(prepared.folder)
    except StoreError as error:
        raise UsageError(f"--out {prepared.folder}: {error}") from error
    spending = Spending(
        caps_of(prepared.settings),
        hourly=prepared.prices.hourly,
        seconds=before.seconds,
        clock=time.monotonic,
        stop=stop.set,
    )
    before.count(spending, prepared.prices)
    return before, spending


@dataclass(frozen=True, slots=True)
class _Ended:
    """How the sending ended."""

    begun: float
    before: Earlier
    broken: str
    """What broke the run, or empty."""
    cap: str
    """The cap that stopped it, or empty."""
    stopped: bool

    @property
    def interrupted(self) -> bool:
        """Whether somebody asked it to stop."""
        return self.stopped and not self.broken and not self.cap


async def _concluded(
    prepared: Prepared,
    parts: Sequence[EndpointRun],
    folder: RunFolder,
    remarks: Sequence[str],
    ended: _Ended,
) -> RunResult:
    """Write the tables from the journals, and last of all what became of the run."""
    sent = time.time()
    for part in parts:
        part.after = part.journal.stats()
    scores = {part.endpoint.label: part.journal.scores() for part in parts}
    accuracy = await asyncio.to_thread(write_results, folder.path, scores, prepared.suite.tables())
    remarks = [*remarks, *told_greedy(accuracy), *told_ties(accuracy)]
    remarks += [told(ended.cap, untried(parts))] if ended.cap else []
    unscored = int(accuracy["unscored"].sum())
    code = exit_code(unscored, parts, interrupted=ended.interrupted, capped=bool(ended.cap))
    folder.write_manifest(
        manifest(
            prepared,
            code.status,
            ended.begun,
            sent=sent,
            parts=parts,
            remarks=remarks,
            earlier=ended.before,
        )
    )
    whole, sending = time.time() - ended.begun, sent - ended.begun
    return RunResult(folder.path, accuracy, parts, code, whole, sending, remarks)


def _parts(prepared: Prepared, folder: RunFolder, journals: ExitStack) -> list[EndpointRun]:
    return [_part(prepared, endpoint, folder, journals) for endpoint in prepared.endpoints]


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
    asked = journal.begin(prepared.suite.listing)
    return EndpointRun(endpoint, journal, Progress(endpoint.label, asked), before=journal.stats())


async def _send_all(
    found: Ready,
    parts: Sequence[EndpointRun],
    folder: RunFolder,
    clients: Clients,
    addresses: Mapping[str, str],
    lost: _Lost,
) -> None:
    """Run all pools side by side; one that fails stops only itself.

    `addresses`: where embedded endpoints are; `lost`: is told what breaks the run.
    """
    prepared = found.prepared
    settings = prepared.settings
    stop = lost.stop
    async with AsyncExitStack() as opened:
        texts = opened.enter_context(_texts(folder, parts, stop)) if settings.store_text else None
        await _long_items(found)
        pools = []
        for part in parts:
            if part.refused:
                continue
            clients.tell(part)
            label = part.endpoint.label
            client = clients.scoring(part.endpoint, addresses)
            work = Work(
                suite=prepared.suite,
                asked=asked_of(prepared, part.endpoint),
                names=names_of(prepared, part.endpoint, part.lesson),
                lesson=part.lesson,
                interrupt=found.asked[label].interrupt if label in found.asked else None,
                journal=part.journal,
                client=await opened.enter_async_context(client),
                progress=part.progress,
                forecast=part.forecast,
                texts=texts,
            )
            pools.append(_guarded(Pool(work, stop), part, lost))
        await asyncio.gather(*pools)


async def _long_items(found: Ready) -> None:
    """Look for items that are to end the run where only the endpoint could tell how long they are."""
    for tokenizer in found.asked.values():
        with suppress(EndpointRefused, Stopped):  # the pool will meet the same
            await asyncio.to_thread(fail_on_overflow, found.prepared, [tokenizer])


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


async def _guarded(pool: Pool, part: EndpointRun, lost: _Lost) -> None:
    """Run a pool: a refusal ends it alone, files that cannot be written end the run."""
    try:
        await pool.run()
    except EndpointRefused as error:
        part.refused = str(error)
        part.progress.message = f"stopped: {error}"
    except StoreError as error:
        lost(str(error))


class _Lost:
    """Told what breaks a run: stops it, and keeps why."""

    def __init__(self, stop: asyncio.Event) -> None:
        self.stop = stop
        self._said: list[str] = []

    def __call__(self, why: str) -> None:
        self._said.append(why)
        self.stop.set()

    @property
    def why(self) -> str:
        """All of it, once each; empty where nothing broke."""
        return "; ".join(dict.fromkeys(self._said))


def _first_prompts(suite: Suite) -> Iterator[Prompt]:
    """The first few prompts of each task."""
    for task in suite.tasks:
        yield from islice((each for each in task.prompts() if isinstance(each, Prompt)), PROMPTS_SHOWN)


def _slug(name: str) -> str:
    """A name fit for a file; the digest beside it tells names apart."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name)[:60].strip("._") or "endpoint"
