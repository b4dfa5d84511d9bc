"""The clients of a run: whom they ask, at what pace, and who hears what happens."""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness.accounts import NONE_ELSEWHERE, Paces
from harness.caps import AnySpending, Meter
from harness.client import Client, Event
from harness.dialects import Dialect, dialect
from harness.endpoints import Account, Endpoint
from harness.errors import Stopped
from harness.events import event as happened
from harness.pacing import AnyBudget, Capacity, Gate
from harness.patience import ClientSettings
from harness.prepare import Prepared
from harness.progress import Progress
from harness.terminal import say

if TYPE_CHECKING:
    from rich.console import Console


GRAVE = ("failed", "outage_begun", "outage_probe")
"""Events by which numbers may suffer, of those that a client tells."""


NOWHERE_ELSE: Mapping[str, str] = {}
"""Addresses of embedded endpoints, where there are none."""
BESIDE_S = 60.0
"""Seconds of patience with what is only asked beside the run."""


class Clients:
    """Makes the clients of a run: one pace an account, one meter and one listener an endpoint.

    Attributes:
        meters: what each endpoint asks before it is sent anything, by label.
        budgets: those that are kept here, by account.
    """

    def __init__(
        self,
        prepared: Prepared,
        console: Console,
        stop: asyncio.Event,
        spending: AnySpending,
        budgets: Mapping[Account, AnyBudget] = NONE_ELSEWHERE,
    ) -> None:
        """`budgets`: of accounts whose budget is kept elsewhere."""
        self._prepared = prepared
        self._stop = stop
        self._paces = Paces(prepared.allowances, prepared.settings.concurrency, budgets)
        self.budgets = self._paces.own
        self.meters: Mapping[str, Meter] = {
            each.label: spending.meter(prepared.prices.of(each.label)) for each in prepared.endpoints
        }
        self._heard = {each.label: _Listener(each.label, console) for each in prepared.endpoints}
        self._sharers: dict[Account, list[Progress]] = {}

    def tell(self, endpoint: Endpoint, progress: Progress) -> None:
        """What happens on an endpoint goes to these counters from now on."""
        self._heard[endpoint.label].progress = progress
        progress.sharers = self._sharers.setdefault(endpoint.account, [])
        self._sharers[endpoint.account].append(progress)
        budget, meter = self._paces.budget(endpoint), self.meters[endpoint.label]
        progress.fastest = lambda: budget.fastest(meter.sent.tokens / max(1, meter.sent.requests))

    def scoring(
        self, endpoint: Endpoint, addresses: Mapping[str, str], wire: Dialect | None = None
    ) -> Client:
        """A client that scores; `addresses` tell where embedded endpoints are in this run, `wire` its format
        where it is not simply the endpoint's own."""
        address = addresses.get(endpoint.base_url, endpoint.base_url)
        wire, gate = wire or dialect(endpoint.dialect), self._paces.gate(endpoint)
        client = self._made(endpoint, wire, address, endpoint.wire_model, gate)
        if (progress := self._heard[endpoint.label].progress) is not None:
            progress.waits = lambda: client.waiting
        return client

    def beside(self, endpoint: Endpoint, addresses: Mapping[str, str], wire: Dialect | None = None) -> Client:
        """A client that scores what is only to be compared with: it is given up after a minute."""
        address = addresses.get(endpoint.base_url, endpoint.base_url)
        wire, gate = wire or dialect(endpoint.dialect), self._paces.gate(endpoint)
        return self._made(endpoint, wire, address, endpoint.wire_model, gate, BESIDE_S)

    def tokenizing(
        self, endpoint: Endpoint, route: Dialect, at_once: int, addresses: Mapping[str, str] = NOWHERE_ELSE
    ) -> Client:
        """A client that tokenizes: as the base model does, whose tokenizer adapters have."""
        address = addresses.get(endpoint.base_url, endpoint.base_url)
        return self._made(endpoint, route, address, endpoint.model, Capacity(at_once).gate())

    def _made(
        self,
        endpoint: Endpoint,
        wire: Dialect,
        address: str,
        model: str | None,
        gate: Gate,
        patience: float = math.inf,
    ) -> Client:
        settings = self._prepared.settings
        found = self._prepared.secrets[endpoint.label]
        return Client(
            base_url=address,
            dialect=wire,
            model=model,
            headers=found.headers(),
            secrets=found.secrets,
            variables=found.variables,
            tls=self._prepared.trusted.get(endpoint.label),
            settings=ClientSettings(
                timeout=settings.timeout,
                attempts=settings.attempts,
                patience=min(settings.patience, patience),
            ),
            budget=self._paces.budget(endpoint),
            share=endpoint.label,
            gate=gate,
            meter=self.meters[endpoint.label],
            sleep=self.sleep,
            on_event=self._heard[endpoint.label],
        )

    async def sleep(self, seconds: float) -> None:
        """Wait, but not beyond the stop of the run."""
        if await _set_within(self._stop, seconds):
            raise Stopped


class _Listener:
    """Folds what happens to requests into the counters people see; says it where there are none yet. The log
    file hears all of it."""

    def __init__(self, label: str, console: Console) -> None:
        self.progress: Progress | None = None
        self._label = label
        self._console = console

    def __call__(self, event: Event) -> None:
        level = logging.WARNING if event.name in GRAVE else logging.INFO
        happened(event.name, event.fields, endpoint=self._label, level=level)
        if self.progress is None:
            if event.message and event.name.startswith("outage"):
                say(self._console, f"{self._label}: {event.message}")
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
