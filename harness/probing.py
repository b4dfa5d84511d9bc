"""The begin of a run with `--tokenizer endpoint`: the endpoints' tokenize routes are probed, and then ready.

`prepare` contacts nobody, so what only the endpoints know joins the prepared run here. An endpoint that
refuses is left out, as one that refuses its first request would be, and the others go on without it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

from harness.client import Client
from harness.dialects import Dialect, dialect
from harness.endpoint_tokenizer import AT_ONCE, Ask, EndpointTokenizer, TokenizeRoute
from harness.endpoints import Endpoint
from harness.errors import EndpointRefused, Stopped, StoreError
from harness.exchange import Outcome, ScoreRequest
from harness.prepare import Address, Prepared, with_tokenizers
from harness.tokencache import TokenCache

Connect = Callable[[Endpoint, Dialect, int], Client]
"""A client of an endpoint for a wire format, with so many requests at once."""


@dataclass(frozen=True, slots=True)
class Ready:
    """A prepared run whose tokenizers are all there, but for those of endpoints that refused."""

    prepared: Prepared
    asked: Mapping[str, EndpointTokenizer] = field(default_factory=dict)
    """The tokenizers that are endpoints, by label."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Why an endpoint is left out, by label."""


@asynccontextmanager
async def ready(prepared: Prepared, connect: Connect, stop: asyncio.Event) -> AsyncIterator[Ready]:
    """Probe the endpoints that tokenize for themselves; they can be asked while the block runs.

    Raises:
        UsageError: an endpoint does not show what `--bos` asks for.
        EndpointRefused: no endpoint is left.
        StoreError: a cap of the run allows no request.
        CancelledError: the run was stopped while nothing had been asked yet.
    """
    if not prepared.asked:
        yield Ready(prepared)
        return
    async with AsyncExitStack() as opened:
        cache = TokenCache(prepared.token_cache)
        opened.callback(cache.close)
        routes: dict[Address, TokenizeRoute] = {}
        for endpoint in prepared.endpoints:
            address = prepared.asked.get(endpoint.label)
            if address is not None and address not in routes:
                client = await opened.enter_async_context(_client(endpoint, connect))
                routes[address] = TokenizeRoute(address, _unless_stopped(client, stop), cache)
        refusals = await _probe_all(routes)
        refused = {label: why for label, at in prepared.asked.items() if (why := refusals.get(at))}
        if len(refused) == len(prepared.endpoints):
            raise EndpointRefused("; ".join(f"{label}: {why}" for label, why in refused.items()))
        asked = {
            label: EndpointTokenizer(routes[at], prepared.settings.bos)
            for label, at in prepared.asked.items()
            if label not in refused
        }
        yield Ready(with_tokenizers(prepared, asked), asked, refused)


def told_of(asked: Mapping[str, EndpointTokenizer]) -> list[str]:
    """What was tokenized where, and what a reader must know of the cache."""
    told = [
        f"{label}: {each.asked:,} texts were tokenized by the endpoint, {each.known:,} were known already"
        for label, each in asked.items()
    ]
    return told + list(dict.fromkeys(remark for each in asked.values() for remark in each.remarks))


def _client(endpoint: Endpoint, connect: Connect) -> Client:
    route = dialect(endpoint.dialect).tokenize_route
    assert route is not None  # `prepare` has seen to it
    return connect(endpoint, route, AT_ONCE)


def _unless_stopped(client: Client, stop: asyncio.Event) -> Ask:
    async def ask(request: ScoreRequest) -> Outcome:
        if stop.is_set():
            raise Stopped
        async with client.gate:
            return await client.score(request)

    return ask


async def _probe_all(routes: Mapping[Address, TokenizeRoute]) -> dict[Address, str]:
    """Probe side by side; why a route cannot be used, where it cannot."""
    ended = await asyncio.gather(*(route.probe() for route in routes.values()), return_exceptions=True)
    refusals: dict[Address, str] = {}
    for address, error in zip(routes, ended, strict=True):
        if isinstance(error, EndpointRefused):
            refusals[address] = str(error)
        elif isinstance(error, Stopped):
            if error.args:
                raise StoreError(f"stopped at {error}: the tokenizer cannot be asked; raise it") from None
            raise asyncio.CancelledError
        elif error is not None:
            raise error
    return refusals
