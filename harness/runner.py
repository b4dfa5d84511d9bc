"""A run from start to tables: open the folder, send, score, write.

What can be wrong before the first request is found earlier, by `prepare`. From then on nothing is lost:
whatever happens to an endpoint, the tables are written from what the journals hold.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from typing import TYPE_CHECKING

from harness.accounts import NONE_ELSEWHERE
from harness.asking import Asking
from harness.background import entered_beside, to_its_end
from harness.caps import told
from harness.clients import Clients
from harness.doctor.beginning import Briefs
from harness.earlier import Earlier
from harness.embedded import served
from harness.events import event
from harness.heartbeat import Signs, logged
from harness.manifest import (
    EndpointRun,
    Exit,
    exit_code,
    manifest,
    untried,
)
from harness.opening import Lost, first_prompts, folder_of, parts_of, spending_of
from harness.pools import send_all
from harness.prepare import Prepared
from harness.probing import ready, told_of
from harness.progress import shown
from harness.remarks import remarks_of, told_greedy, told_ties
from harness.runs import whose
from harness.tables import write_results
from harness.workers.engines import engine_of

if TYPE_CHECKING:
    import pandas as pd
    from rich.console import Console

    from harness.deciding.outcome import Outcome
    from harness.deciding.referee import Referee
    from harness.scoring.scores import ItemScore


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
    stop, session = stop or asyncio.Event(), token_hex(4)
    with logged(prepared, session, console):
        result = await _evaluated(prepared, console, stop, session)
        event("run_ended", exit=int(result.exit), status=result.exit.status, seconds=round(result.seconds, 3))
    return result


async def _evaluated(prepared: Prepared, console: Console, stop: asyncio.Event, session: str) -> RunResult:
    begun, since, place = time.time(), time.monotonic(), prepared.whole_folder
    before, spending = await asyncio.to_thread(spending_of, prepared, stop)
    async with AsyncExitStack() as opened:
        engine = await opened.enter_async_context(engine_of(prepared))
        clients = Clients(prepared, console, stop, spending, engine.budgets if engine else NONE_ELSEWHERE)
        briefs = Briefs(prepared, clients, console)
        await briefs.wake_tokenizers()
        found = await opened.enter_async_context(ready(prepared, clients.tokenizing, stop))
        prepared = found.prepared
        with folder_of(prepared, place, session) as folder, ExitStack() as journals:
            first = manifest(prepared, "running", begun, earlier=before)
            folder.write_manifest(first)
            chat = prepared.chats.get(prepared.endpoints[0].label)
            folder.write_prompts(first_prompts(prepared.suite), chat)
            lost = Lost(stop)
            async with entered_beside(served(prepared.endpoints, lost)) as addresses:
                # In a thread: the server of an embedded endpoint starts in the meantime.
                parts = await to_its_end(asyncio.to_thread(parts_of, prepared, folder, journals))
                for part in parts:
                    part.refused = found.refused.get(part.endpoint.label, "")
                    part.meter = clients.meters[part.endpoint.label]
                    part.probed_earlier = before.probed.get(whose(part.endpoint.identity), ())
                signs = Signs(folder, first, parts, before.probed)
                referee = await _referee(prepared, parts)
                async with shown([part.progress for part in parts], console), signs.given():
                    asking = Asking(
                        clients=clients,
                        briefs=briefs,
                        referee=referee,
                        spending=spending,
                        engine=engine,
                        console=console,
                    )
                    await send_all(found, parts, folder, asking, await addresses, lost)
            ended = _Ended(begun, since, before, lost.why, spending.reason, stop.is_set(), referee)
            remarks = [*remarks_of(prepared, parts, lost.why), *told_of(found.asked)]
            return await _concluded(prepared, signs, remarks, ended)


@dataclass(frozen=True, slots=True)
class _Ended:
    """How the sending ended."""

    begun: float
    """Seconds since the epoch."""
    since: float
    """The same moment, in seconds of a clock that nobody sets."""
    before: Earlier
    broken: str
    """What broke the run, or empty."""
    cap: str
    """The cap that stopped it, or empty."""
    stopped: bool
    referee: Referee | None

    @property
    def interrupted(self) -> bool:
        """Whether somebody asked it to stop."""
        return self.stopped and not self.broken and not self.cap


async def _concluded(prepared: Prepared, signs: Signs, remarks: Sequence[str], ended: _Ended) -> RunResult:
    """Write the tables from the journals, and last of all what became of the run."""
    parts, folder, sending = signs.parts, signs.folder, time.monotonic() - ended.since
    for part in parts:
        part.after, part.ended = part.journal.stats(), True
    async with signs.given():  # of a million items, this takes a while
        accuracy, outcome = await _tabulated(prepared, signs, ended.referee)
    remarks = [*remarks, *told_greedy(accuracy), *told_ties(accuracy)]
    remarks += outcome.remarks() if outcome else ()
    remarks += [told(ended.cap, await asyncio.to_thread(untried, parts))] if ended.cap else []
    unscored = 0 if outcome and outcome.spared else int(accuracy["unscored"].sum())
    code = exit_code(unscored, parts, interrupted=ended.interrupted, capped=bool(ended.cap))
    folder.write_manifest(
        manifest(
            prepared,
            outcome.status(code) if outcome else code.status,
            ended.begun,
            took={"sending_s": sending, "whole_s": time.monotonic() - ended.since},
            parts=parts,
            remarks=remarks,
            earlier=ended.before,
            sequence=outcome.document() if outcome else None,
        )
    )
    whole = time.monotonic() - ended.since
    return RunResult(folder.path, accuracy, parts, code, whole, sending, remarks)


async def _tabulated(
    prepared: Prepared, signs: Signs, referee: Referee | None
) -> tuple[pd.DataFrame, Outcome | None]:
    """Write the tables: the rows of `scores.csv`, and what came of deciding, if anybody was to decide."""
    parts, folder, tables = signs.parts, signs.folder.path, prepared.suite.tables()
    scores: dict[str, Iterable[ItemScore]] = {part.endpoint.label: part.journal.scores() for part in parts}
    if referee is None:
        return await asyncio.to_thread(write_results, folder, scores, tables), None
    from harness.deciding.outcome import counted, outcome_of

    scores = counted(scores, referee)
    accuracy = await asyncio.to_thread(write_results, folder, scores, tables)
    return accuracy, await outcome_of(referee, scores, parts)


async def _referee(prepared: Prepared, parts: Sequence[EndpointRun]) -> Referee | None:
    """Who stops the run once it is decided, if anybody is to: few runs wait for that to be imported."""
    if not prepared.settings.compare_until_decided:
        return None
    from harness.deciding.referee import referee_of

    return await referee_of(prepared, parts)
