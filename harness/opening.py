"""What a run begins with: the count of what may be sent, its journals, its first prompts."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice

from harness.caps import Spending
from harness.earlier import Earlier, earlier
from harness.endpoints import Endpoint
from harness.errors import StoreError, UsageError
from harness.events import event
from harness.journal import Journal
from harness.manifest import EndpointRun
from harness.prepare import Prepared
from harness.prices import caps_of
from harness.progress import Progress
from harness.prompts import Prompt
from harness.runs import PROMPTS_SHOWN, RunFolder
from harness.suite import Suite


class Lost:
    """Told what breaks a run: stops it, and keeps why."""

    def __init__(self, stop: asyncio.Event) -> None:
        self.stop = stop
        self._said: list[str] = []

    def __call__(self, why: str) -> None:
        """Stop the run, for this reason."""
        event("broken", level=logging.ERROR, reason=why)
        self._said.append(why)
        self.stop.set()

    @property
    def why(self) -> str:
        """All of it, once each; empty where nothing broke."""
        return "; ".join(dict.fromkeys(self._said))


def spending_of(prepared: Prepared, stop: asyncio.Event) -> tuple[Earlier, Spending]:
    """What earlier sessions sent, and the count that goes on from there; `stop` is set when a cap is reached.

    Raises:
        UsageError: what earlier sessions left cannot be read.
    """
    try:
        before = earlier(prepared.folder)
    except StoreError as error:
        raise UsageError(f"--out {prepared.folder}: {error}") from error

    def reached() -> None:
        event("cap", level=logging.WARNING, reason=spending.reason)
        stop.set()

    spending = Spending(
        caps_of(prepared.settings),
        hourly=prepared.prices.hourly,
        seconds=before.seconds,
        clock=time.monotonic,
        stop=reached,
    )
    before.count(spending, prepared.prices)
    return before, spending


def parts_of(prepared: Prepared, folder: RunFolder, journals: ExitStack) -> list[EndpointRun]:
    """Each endpoint with its journal, opened and told what this run asks for; `journals` closes them.

    Raises:
        UsageError: a journal cannot be used.
    """
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


def first_prompts(suite: Suite) -> Iterator[Prompt]:
    """The first few prompts of each task."""
    for task in suite.tasks:
        yield from islice((each for each in task.prompts() if isinstance(each, Prompt)), PROMPTS_SHOWN)


def _slug(name: str) -> str:
    """A name fit for a file; the digest beside it tells names apart."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name)[:60].strip("._") or "endpoint"
