"""All pools of a run, side by side: each with its client, its probe and what is watched; one that fails stops
only itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager, nullcontext, suppress
from functools import partial
from shutil import rmtree
from typing import TYPE_CHECKING

from harness.asking import Asking
from harness.background import to_its_end
from harness.doctor.brief import Brief
from harness.errors import EndpointRefused, Stopped, StoreError
from harness.heartbeat import told_begun, told_ended
from harness.manifest import EndpointRun
from harness.opening import Lost
from harness.planning import leading
from harness.pool import Pool
from harness.prepare import asked_of, fail_on_overflow, names_of
from harness.probing import Ready
from harness.runs import RunFolder
from harness.texts import TextWriter
from harness.watching.session import Watches
from harness.watching.watch import Watch
from harness.work import Runs, Work
from harness.workers.texts import PARTS

if TYPE_CHECKING:
    from harness.deciding.referee import Referee


async def send_all(
    found: Ready,
    parts: Sequence[EndpointRun],
    folder: RunFolder,
    asking: Asking,
    addresses: Mapping[str, str],
    lost: Lost,
) -> None:
    """Run all pools side by side; one that fails stops only itself.

    `addresses`: where embedded endpoints are; `lost`: is told what breaks the run.
    """
    clients, briefs, referee = asking.clients, asking.briefs, asking.referee
    prepared = found.prepared
    settings = prepared.settings
    stop = lost.stop
    async with AsyncExitStack() as opened:
        turn = referee.turn if referee else None
        keeping = settings.store_text and asking.engine is None
        texts = opened.enter_context(_texts(folder, parts, stop, turn)) if keeping else None
        await _long_items(found)
        pool: Callable[[Work, asyncio.Event], Runs] = Pool
        if asking.engine is not None:
            from harness.workers.crew import crew_of

            crew = crew_of(found, parts, folder, asking, asking.engine, addresses, lost)
            pool = (await opened.enter_async_context(crew)).pool
        watches = Watches(prepared, clients, addresses, opened, stop, pool)
        pools = []
        for part in parts:
            if part.refused:
                told_ended(part)
                continue
            clients.tell(part.endpoint, part.progress)
            label = part.endpoint.label
            client = clients.scoring(part.endpoint, addresses)
            brief = briefs.over(prepared, part, addresses, opened)
            asked = asked_of(prepared, part.endpoint)
            work = Work(
                suite=prepared.suite,
                asked=asked,
                names=names_of(prepared, part.endpoint, part.lesson),
                lesson=part.lesson,
                leading=partial(leading, prepared.whole, asked) if prepared.shard else None,
                interrupt=found.asked[label].interrupt if label in found.asked else None,
                journal=part.journal,
                client=await opened.enter_async_context(client),
                progress=part.progress,
                forecast=part.forecast,
                texts=texts,
                before=brief.before,
            )
            if referee:
                work = referee.watched(work, label, stop.is_set)
            pools.append(_guarded(watches.over(part, work), brief, part, lost, referee))
        try:
            async with referee.judging() if referee else nullcontext():
                await asyncio.gather(*pools)
        except StoreError as error:
            lost(str(error))
        try:
            await to_its_end(asyncio.to_thread(watches.conclude, folder.path))
        except StoreError as error:
            lost(str(error))


async def _long_items(found: Ready) -> None:
    """Look for items that are to end the run where only the endpoint could tell how long they are."""
    for tokenizer in found.asked.values():
        with suppress(EndpointRefused, Stopped):  # the pool will meet the same
            await asyncio.to_thread(fail_on_overflow, found.prepared, [tokenizer])


@contextmanager
def _texts(
    folder: RunFolder,
    parts: Sequence[EndpointRun],
    stop: asyncio.Event,
    turn: Callable[[int], int] | None,
) -> Iterator[TextWriter]:
    """The writer of `texts.parquet`; what was planned only in part never replaces a whole one."""
    path = folder.path / "texts.parquet"
    rmtree(folder.path / PARTS, ignore_errors=True)  # a session with workers was killed
    texts = TextWriter(path, turn) if turn else TextWriter(path)
    complete = False
    try:
        yield texts
        complete = not stop.is_set() and not all(part.refused for part in parts)
    finally:
        texts.close(complete=complete)


async def _guarded(pool: Watch, brief: Brief, part: EndpointRun, lost: Lost, referee: Referee | None) -> None:
    """Run a pool: a refusal ends it alone, files that cannot be written end the run."""
    told_begun(part)
    try:
        await pool.run()
        await brief.end()
    except EndpointRefused as error:
        part.refused = str(error)
        part.progress.message = f"stopped: {error}"
        if referee:
            referee.gone(part.endpoint.label)
    except StoreError as error:
        lost(str(error))
    finally:
        await brief.close()
    told_ended(part)
