"""What the endpoints of a run take: tables of a suite file before the flags, in numbers of any currency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.caps import FREE, HOUR, Caps, Price
from harness.endpoints import OPENAI, Account, Endpoint
from harness.errors import UsageError
from harness.runs import Whose, whose
from harness.settings import RunSettings
from harness.sharding import Shard, parse_shard

WAY_OUT = "give --price-in and --price-out (per million tokens), or --price-hour"


def caps_of(settings: RunSettings) -> Caps:
    """What the run may send and spend at most; a shard its part of that.

    Raises:
        UsageError: there is too little for so many shards.
    """
    caps = Caps(requests=settings.max_requests, tokens=settings.max_tokens, cost=settings.max_cost)
    return caps if settings.shard is None else _part(caps, parse_shard(settings.shard))


def _part(caps: Caps, shard: Shard) -> Caps:
    """The parts of all shards add up to the whole."""
    for flag, cap in (("--max-requests", caps.requests), ("--max-tokens", caps.tokens)):
        if cap is not None and cap < shard.of:
            raise UsageError(
                f"{flag} {cap}: is less than one for each of {shard.of:,} shards; raise it, or cut into fewer"
            )
    return Caps(
        requests=None if caps.requests is None else shard.part(caps.requests),
        tokens=None if caps.tokens is None else shard.part(caps.tokens),
        cost=None if caps.cost is None else caps.cost / shard.of,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """What everything takes that a run has to do with."""

    usual: Price
    """As flags say, of endpoints that this session does not ask."""
    labels: Mapping[str, Price]
    journals: Mapping[Whose, Price]
    """The same endpoints, by what their journals state."""
    hourly: float
    """Of all endpoints together; adapters share that of their base."""

    def of(self, label: str) -> Price:
        """What an endpoint takes."""
        return self.labels.get(label, self.usual)

    def of_journal(self, whose: Whose) -> Price:
        """What the endpoint of a journal takes."""
        return self.journals.get(whose, self.usual)

    def hours(self, seconds: float) -> float:
        """What so much time of the run costs."""
        return self.hourly * seconds / HOUR


def prices_of(endpoints: Sequence[Endpoint], settings: RunSettings) -> Prices:
    """What each endpoint takes; what this program serves itself is free.

    Raises:
        UsageError: half of a price is given, two tables of one account disagree about its hour, or there is a
            cap on money, and what an endpoint takes is not known.
    """
    labels = {each.label: FREE if each.embedded else _price(each, settings) for each in endpoints}
    hours: dict[Account, tuple[str, float]] = {}
    for each in endpoints:
        price = labels[each.label]
        if settings.max_cost is not None and not price.known:
            raise UsageError(f"--max-cost: what {each.label} takes is not known; {WAY_OUT}")
        if price.hour is not None:
            label, hour = hours.setdefault(each.account, (each.label, price.hour))
            if hour != price.hour:
                raise UsageError(
                    f"[[endpoints]] {each.label}, price_hour: {price.hour:g} here, but {hour:g} at {label}:"
                    " both are one endpoint, which has one price"
                )
    return Prices(
        usual=_made(settings.price_in, settings.price_out, settings.price_hour),
        labels=labels,
        journals={whose(each.identity): labels[each.label] for each in endpoints},
        hourly=sum(hour for _, hour in hours.values()),
    )


def _price(endpoint: Endpoint, settings: RunSettings) -> Price:
    own = endpoint.own
    of_tokens = own.price_in is not None or own.price_out is not None
    prompt = settings.price_in if own.price_in is None else own.price_in
    forced = settings.price_out if own.price_out is None else own.price_out
    hour = settings.price_hour if own.price_hour is None and not of_tokens else own.price_hour
    if hour is not None:
        prompt = forced = None
    if (prompt is None) != (forced is None):
        there, lacks = ("--price-in", "--price-out") if forced is None else ("--price-out", "--price-in")
        raise UsageError(f"{there} without {lacks}, for {endpoint.label}: give both; 0 is a price too")
    return _made(prompt, forced, hour, echoed=endpoint.dialect in OPENAI)


def _made(prompt: float | None, forced: float | None, hour: float | None, *, echoed: bool = False) -> Price:
    """The price; where the continuation is sent with the prompt, and echoed, it is a part of the prompt, and
    what is put out is one token that nobody asked for."""
    if not echoed or forced is None:
        return Price(prompt=prompt, forced=forced, hour=hour)
    return Price(prompt=prompt, forced=prompt, generated=forced, hour=hour)
