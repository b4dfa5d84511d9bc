"""Signs of life: what a run says while it goes on, in its log file and in `run.json`.

A run that was killed says nothing any more, so whoever watches tells it from a living one by the time of its
last sign.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from harness import __version__
from harness.background import to_its_end
from harness.doctor.findings import Finding as Probed
from harness.errors import HarnessError, StoreError
from harness.events import Field, event
from harness.logfile import logging_to
from harness.manifest import EndpointRun, counts_of, probes_amiss
from harness.prepare import Prepared
from harness.runs import SIGN_SECONDS, RunFolder, Whose
from harness.terminal import say

if TYPE_CHECKING:
    from rich.console import Console

LOG_SECONDS = 60.0
"""Between two heartbeats in the log file."""


@contextmanager
def logged(prepared: Prepared, session: str, console: Console) -> Iterator[None]:
    """Keep the log file, if there is to be one, while a run goes on; it says how that begins and breaks off.

    Raises:
        UsageError: the file cannot be opened.
    """

    def warn(text: str) -> None:
        say(console, text)

    with logging_to(prepared.settings.log_file, session, warn):
        event(
            "run_begun",
            program=f"forced-choice {__version__}",
            folder=str(prepared.folder),
            tasks=list(prepared.settings.task_names),
            endpoints=[each.label for each in prepared.endpoints],
            items=prepared.suite.size,
        )
        try:
            yield
        except HarnessError as error:
            event("broken_off", level=logging.ERROR, reason=str(error))
            raise
        except BaseException as error:
            event("broken_off", level=logging.ERROR, reason=type(error).__name__)
            raise


def told_begun(part: EndpointRun) -> None:
    """Tell the log file that an endpoint is going to be asked."""
    endpoint = part.endpoint
    event(
        "endpoint_begun",
        endpoint=endpoint.label,
        url=endpoint.base_url,
        model=endpoint.wire_model or "",
        items=part.progress.items_total,
        replies_kept=part.before.replies,
    )


def told_ended(part: EndpointRun) -> None:
    """Tell the log file that an endpoint is asked no more, and what came of it."""
    level = logging.ERROR if part.refused else logging.INFO
    event("endpoint_ended", _counts(part), endpoint=part.endpoint.label, level=level, refused=part.refused)


def _counts(part: EndpointRun) -> dict[str, Field]:
    progress = part.progress
    counts = {"retries": dict(sorted(progress.retries.items())), "unscorable": dict(progress.unscorable)}
    return {**progress.so_far(), **counts}


@dataclass(frozen=True, slots=True)
class Signs:
    """What gives the signs of a run's life."""

    folder: RunFolder
    first: Mapping[str, Any]
    """What its `run.json` said when it began."""
    parts: Sequence[EndpointRun]
    """What they tell of."""
    probed: Mapping[Whose, Sequence[Probed]] = field(default_factory=dict)
    """What brief probes of earlier sessions found amiss."""
    begun: float = field(default_factory=time.monotonic)

    @asynccontextmanager
    async def given(self) -> AsyncIterator[None]:
        """Give them while the block goes on; when it is left, none is being written any more."""
        beats = [asyncio.create_task(self._to_log()), asyncio.create_task(self._to_run_json())]
        try:
            yield
        finally:
            for each in beats:
                each.cancel()
            await asyncio.gather(*beats, return_exceptions=True)

    async def _to_log(self) -> None:
        while True:
            await asyncio.sleep(LOG_SECONDS)
            event("process", process_facts())
            for part in self.parts:
                event("heartbeat", _counts(part), endpoint=part.endpoint.label)

    async def _to_run_json(self) -> None:
        while True:
            await asyncio.sleep(SIGN_SECONDS)
            try:
                await to_its_end(asyncio.to_thread(self.folder.write_manifest, self._so_far()))
            except StoreError as error:  # one sign is missing; whether the run can go on the journal will say
                event("run_json_not_written", level=logging.WARNING, reason=str(error))

    def _so_far(self) -> dict[str, Any]:
        seconds = round(time.monotonic() - self.begun, 3)
        return {
            **self.first,
            "counts": {part.endpoint.label: counts_of(part) for part in self.parts},
            "probes_amiss": probes_amiss(self.parts, self.probed),
            "timings": {**self.first["timings"], "sending_s": seconds},
        }


def process_facts() -> dict[str, Field]:
    """What this process holds: tasks of the running loop, threads, open files (sockets too), and private
    memory in megabytes (10^6), the last two where the system tells."""
    facts: dict[str, Field] = {"tasks": len(asyncio.all_tasks()), "threads": threading.active_count()}
    with suppress(OSError):
        facts["files"] = len(os.listdir("/proc/self/fd")) - 1  # without the one it is read by
    with suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        kibibytes = next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
        facts["memory_mb"] = round(kibibytes * 1024 / 1e6, 1)
    return facts
