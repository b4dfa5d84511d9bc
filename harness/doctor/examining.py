"""`doctor` from settings to findings: endpoints are prepared as for a run, asked, and nothing is written."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

from harness.caps import Caps, Spending
from harness.client import Client
from harness.clients import Clients
from harness.dialects import Dialect, dialect
from harness.doctor.asking import Asking
from harness.doctor.brief import woken
from harness.doctor.findings import Finding
from harness.doctor.probes import Probe, examined
from harness.doctor.settings import DoctorSettings
from harness.doctor.table import PROBES
from harness.doctor.varied import Varied
from harness.doctor.waking import management_url
from harness.embedded import served
from harness.endpoint_tokenizer import AT_ONCE
from harness.endpoints import Endpoint
from harness.errors import EndpointRefused, UsageError
from harness.pairs import Tokenizes
from harness.planning import first_questions
from harness.prepare import Prepared, asked_of
from harness.probing import ready
from harness.terminal import say

if TYPE_CHECKING:
    from rich.console import Console

ITEMS = 16
"""Of the sample, whose choices are asked."""

Connect = Callable[[Endpoint, Mapping[str, str], Dialect], Client]
"""A client of an endpoint, given where embedded ones are and the wire format."""
Tell = Callable[[str, Finding], object]
"""Told the label of an endpoint and what was found."""


async def examine(
    prepared: Prepared,
    settings: DoctorSettings,
    console: Console,
    tell: Tell,
    probes: Sequence[Probe] = PROBES,
) -> dict[str, list[Finding]]:
    """Examine endpoint after endpoint; all findings, by label.

    Args:
        prepared: of `settings.as_run`.
        settings: of the command.
        console: where it is said what is waited for.
        tell: hears of each finding at once.
        probes: what is looked at.

    Raises:
        UsageError: the server of an embedded endpoint does not start.
        EndpointRefused: the endpoints are to tokenize for themselves, and none does.
    """
    stop = asyncio.Event()
    clients = Clients(prepared, console, stop, Spending(Caps()))
    found: dict[str, list[Finding]] = {}
    async with served(prepared.endpoints, lambda why: stop.set()) as addresses:
        await wake_first(prepared, clients, console, settings.wake)
        async with ready(prepared, clients.tokenizing, stop) as complete:
            for endpoint in prepared.endpoints:
                label = endpoint.label
                if label in complete.refused:
                    raise EndpointRefused(f"{label}: {complete.refused[label]}")
                async with AsyncExitStack() as opened:
                    asking = await asking_of(
                        complete.prepared, endpoint, clients, addresses, opened, connect=clients.scoring
                    )
                    asking.waking, asking.max_length = settings.wake, settings.max_length
                    asking.at_once = settings.concurrency
                    asking.say = sayer(console, label)
                    found[label] = await examined(probes, asking, _teller(tell, label))
    return found


async def asking_of(
    prepared: Prepared,
    endpoint: Endpoint,
    clients: Clients,
    addresses: Mapping[str, str],
    opened: AsyncExitStack,
    *,
    connect: Connect,
    items: int = ITEMS,
) -> Asking:
    """How probes ask an endpoint of a run; what is opened for that is closed with `opened`.

    Args:
        prepared: the run, its tokenizers all there.
        endpoint: one of its endpoints.
        clients: of the run.
        addresses: where embedded endpoints are.
        opened: closes the clients.
        connect: makes the client that scores.
        items: of the run, whose choices are asked.

    Raises:
        UsageError: none of its items can be asked.
        EndpointRefused, CancelledError: as the tokenizer does, where that is the endpoint.
    """
    asked = asked_of(prepared, endpoint)
    found = await asyncio.to_thread(first_questions, prepared.suite, asked, items)
    questions = [each for each in found if each.context_ids]
    if not questions:
        raise UsageError(f"{endpoint.label}: none of the first {items} items can be asked")
    wire = Varied(dialect(endpoint.dialect))
    client = await opened.enter_async_context(connect(endpoint, addresses, wire))
    own: Tokenizes | None = None if endpoint.label in prepared.asked else prepared.tokenizers[endpoint.label]
    route = None
    if own is not None and wire.tokenize_route is not None:
        tokenizing = clients.tokenizing(endpoint, wire.tokenize_route, AT_ONCE, addresses)
        route = await opened.enter_async_context(tokenizing)
    return Asking(
        client=client,
        varied=wire,
        questions=questions,
        tokenizer=own,
        route=route,
        management=management_url(endpoint.base_url, endpoint.model),
        sleep=clients.sleep,
    )


async def wake_first(prepared: Prepared, clients: Clients, console: Console, patience: float) -> None:
    """Wake endpoints that are about to be asked for their tokenizers, before anything else.

    Args:
        prepared: their run.
        clients: of the run.
        console: where it is said what is waited for.
        patience: seconds that it may take.

    Raises:
        EndpointRefused: one will not be awake.
    """
    for endpoint in prepared.endpoints:
        url = management_url(endpoint.base_url, endpoint.model)
        if endpoint.label not in prepared.asked or url is None:
            continue
        async with clients.scoring(endpoint, {}) as client:
            asking = Asking(client=client, varied=Varied(dialect(endpoint.dialect)), questions=())
            asking.management, asking.waking, asking.sleep = url, patience, clients.sleep
            asking.say = sayer(console, endpoint.label)
            await woken(asking)


def sayer(console: Console, label: str) -> Callable[[str], object]:
    """Says lines of one endpoint."""
    return lambda line: say(console, f"{label}: {line}")


def _teller(tell: Tell, label: str) -> Callable[[Finding], object]:
    return lambda finding: tell(label, finding)
