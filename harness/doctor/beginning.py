"""The brief probes of a run: one an endpoint, made with its pool, and asked when that first wants to send."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import CancelledError
from contextlib import AsyncExitStack, suppress
from typing import TYPE_CHECKING

from harness.clients import BESIDE_S, Clients
from harness.dialects import dialect
from harness.doctor.asking import Asking
from harness.doctor.brief import PROBED_ITEMS, Brief, Wakings
from harness.doctor.examining import asking_of, sayer, wake_first
from harness.doctor.varied import Varied
from harness.doctor.waking import management_url
from harness.endpoints import Endpoint
from harness.errors import EndpointRefused, UsageError
from harness.manifest import EndpointRun
from harness.prepare import Prepared

if TYPE_CHECKING:
    from rich.console import Console


class Briefs:
    """Makes them.

    Attributes:
        wakings: endpoints that are being woken; adapters share their base's.
    """

    def __init__(self, prepared: Prepared, clients: Clients, console: Console) -> None:
        """Take a run that was prepared, its clients, and where it is said what is waited for."""
        self.wakings: Wakings = {}
        self._prepared = prepared
        self._clients = clients
        self._console = console

    async def wake_tokenizers(self) -> None:
        """Wake endpoints that are about to be asked for ids; one that cannot be is found out by asking."""
        patience = self._prepared.settings.patience
        with suppress(EndpointRefused):
            await wake_first(self._prepared, self._clients, self._console, patience)

    def over(
        self, prepared: Prepared, part: EndpointRun, addresses: Mapping[str, str], opened: AsyncExitStack
    ) -> Brief:
        """The brief probe of an endpoint; what it finds goes to `part`.

        Args:
            prepared: the run, its tokenizers all there.
            part: of the endpoint.
            addresses: where embedded endpoints are.
            opened: closes what is opened for it.
        """
        endpoint = part.endpoint

        async def asking() -> Asking | None:
            found = await self._asking(prepared, endpoint, addresses, opened)
            if found is not None:
                found.waking, found.say = prepared.settings.patience, sayer(self._console, endpoint.label)
            return found

        brief = Brief(
            endpoint.label,
            asking,
            part.meter,
            part.forecast,
            self.wakings,
            probing=prepared.settings.probe,
            sits_out=prepared.settings.patience > BESIDE_S,
        )
        opened.push_async_callback(brief.close)
        opened.callback(self._give_up)
        part.probed = brief.findings
        return brief

    def _give_up(self) -> None:
        """Wait no more for who is being woken."""
        for each in self.wakings.values():
            each.cancel()

    async def _asking(
        self,
        prepared: Prepared,
        endpoint: Endpoint,
        addresses: Mapping[str, str],
        opened: AsyncExitStack,
    ) -> Asking | None:
        """How to ask; None where the pool will meet what stands in the way."""
        if not prepared.settings.probe:
            url = management_url(endpoint.base_url, endpoint.model)
            if url is None:
                return None
            client = await opened.enter_async_context(self._clients.beside(endpoint, addresses))
            wire = Varied(dialect(endpoint.dialect))
            return Asking(client=client, varied=wire, questions=(), management=url, sleep=self._clients.sleep)
        for items in PROBED_ITEMS:
            with suppress(UsageError, EndpointRefused, CancelledError):
                return await asking_of(
                    prepared,
                    endpoint,
                    self._clients,
                    addresses,
                    opened,
                    connect=self._clients.beside,
                    items=items,
                )
        return None
