"""The clients of a run: whom they ask, at what pace, and who hears what happens."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from harness.accounts import Paces
from harness.caps import Meter, Spending
from harness.client import Client, ClientSettings, Event
from harness.dialects import Dialect, dialect
from harness.endpoints import Endpoint
from harness.errors import Stopped
from harness.manifest import EndpointRun
from harness.pacing import Capacity, Gate
from harness.prepare import Prepared
from harness.progress import Progress

if TYPE_CHECKING:
    from rich.console import Console


class Clients:
    """Makes the clients of a run: one pace an account, one meter and one listener an endpoint."""

    def __init__(self, prepared: Prepared, console: Console, stop: asyncio.Event, spending: Spending) -> None:
        self._prepared = prepared
        self._stop = stop
        self._paces = Paces(prepared.allowances, prepared.settings.concurrency)
        self.meters: Mapping[str, Meter] = {
            each.label: spending.meter(prepared.prices.of(each.label)) for each in prepared.endpoints
        }
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

    def _made(self, endpoint: Endpoint, wire: Dialect, address: str, model: str | None, gate: Gate) -> Client:
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
            meter=self.meters[endpoint.label],
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
