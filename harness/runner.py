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

from harness.accounts import Paces
from harness.background import entered_beside, to_its_end
from harness.client import Client, ClientSettings, Event
from harness.dialects import Dialect, dialect
from harness.embedded import served
from harness.endpoints import Endpoint
from harness.errors import EndpointRefused, StoreError, UsageError
from harness.journal import Journal
from harness.manifest import EndpointRun, Exit, exit_code, manifest, remarks_of, told_greedy, told_ties
from harness.pacing import Capacity, Gate
from harness.pool import Pool, Stopped, Work
from harness.prepare import Prepared, asked_of, fail_on_overflow, names_of
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
    clients = _Clients(prepared, console, stop)
    path = prepared.folder
    async with ready(prepared, clients.tokenizing, stop) as found:
        prepared = found.prepared
        with RunFolder(path, prepared.identity) as folder, ExitStack() as journals:
            folder.write_manifest(manifest(prepared, "running", begun))
            chat = prepared.chats.get(prepared.endpoints[0].label)
            folder.write_prompts(_first_prompts(prepared.suite), chat)
            lost = _Lost(stop)
            async with entered_beside(served(prepared.endpoints, lost)) as addresses:
                # In a thread: the server of an embedded endpoint starts in the meantime.
                parts = await to_its_end(asyncio.to_thread(_parts, prepared, folder, journals))
                for part in parts:
                    part.refused = found.refused.get(part.endpoint.label, "")
                async with shown([part.progress for part in parts], console):
                    await _send_all(found, parts, folder, clients, await addresses, lost)
            broken = lost.why
            remarks = [*remarks_of(prepared, parts, broken), *told_of(found.asked)]
            return await _concluded(prepared, parts, folder, remarks, begun, stop.is_set() and not broken)


async def _concluded(
    prepared: Prepared,
    parts: Sequence[EndpointRun],
    folder: RunFolder,
    remarks: Sequence[str],
    begun: float,
    interrupted: bool,
) -> RunResult:
    """Write the tables from the journals, and last of all what became of the run."""
    sent = time.time()
    scores = {part.endpoint.label: part.journal.scores() for part in parts}
    accuracy = await asyncio.to_thread(write_results, folder.path, scores, prepared.suite.tables())
    remarks = [*remarks, *told_greedy(accuracy), *told_ties(accuracy)]
    code = exit_code(int(accuracy["unscored"].sum()), parts, interrupted=interrupted)
    folder.write_manifest(manifest(prepared, code.status, begun, sent=sent, parts=parts, remarks=remarks))
    return RunResult(folder.path, accuracy, parts, code, time.time() - begun, remarks)


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
    return EndpointRun(endpoint, journal, Progress(endpoint.label, asked))


async def _send_all(
    found: Ready,
    parts: Sequence[EndpointRun],
    folder: RunFolder,
    clients: _Clients,
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


class _Clients:
    """Makes the clients of a run: one pace an account, one listener an endpoint."""

    def __init__(self, prepared: Prepared, console: Console, stop: asyncio.Event) -> None:
        self._prepared = prepared
        self._stop = stop
        self._paces = Paces(prepared.allowances, prepared.settings.concurrency)
        self._heard = {each.label: _Listener(each.label, console) for each in prepared.endpoints}

    def tell(self, part: EndpointRun) -> None:
        """What happens on an endpoint goes to its counters from now on."""
        self._heard[part.endpoint.label].progress = part.progress

    def scoring(self, endpoint: Endpoint, addresses: Mapping[str, str]) -> Client:
        """A client that scores; `addresses` tell where embedded endpoints are in this run."""
        address = addresses.get(endpoint.base_url, endpoint.base_url)
        wire, gate = dialect(endpoint.dialect), self._paces.gate(endpoint)
        return self._made(endpoint, wire, address, endpoint.wire_model, gate)

    def tokenizing(self, endpoint: Endpoint, route: Dialect, at_once: int) -> Client:
        """A client that tokenizes: as the base model does, whose tokenizer adapters have."""
        return self._made(endpoint, route, endpoint.base_url, endpoint.model, Capacity(at_once).gate())

    def _made(
        self, endpoint: Endpoint, wire: Dialect, address: str, model: str | None, gate: Gate
    ) -> Client:
        settings = self._prepared.settings
        found = self._prepared.secrets[endpoint.label]
        return Client(
            base_url=address,
            dialect=wire,
            model=model,
            headers=found.headers(),
            secrets=[found.token] if found.token else [],
            variables=found.variables,
            settings=ClientSettings(
                timeout=settings.timeout, attempts=settings.attempts, patience=settings.patience
            ),
            budget=self._paces.budget(endpoint),
            gate=gate,
            sleep=self._sleep,
            on_event=self._heard[endpoint.label],
        )

    async def _sleep(self, seconds: float) -> None:
        """Wait, but not beyond the stop of the run."""
        if await _set_within(self._stop, seconds):
            raise Stopped


class _Listener:
    """Folds what happens to requests into the counters people see; says it where there are none yet."""

    def __init__(self, label: str, console: Console) -> None:
        self.progress: Progress | None = None
        self._label = label
        self._console = console

    def __call__(self, event: Event) -> None:
        if self.progress is None:
            if event.message:
                self._console.out(f"{self._label}: {event.message}", highlight=False)
            return
        if event.retry:
            self.progress.retries[event.retry] += 1
        self.progress.message = event.message


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
