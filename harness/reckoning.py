"""Requests and tokens turned into time under the budgets, and into money; pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from harness.accounts import Allowance
from harness.caps import HOUR, Price, Volume
from harness.endpoints import Account, Endpoint
from harness.pacing import AIM
from harness.prices import Prices


@dataclass(frozen=True, slots=True, kw_only=True)
class Counted:
    """What one endpoint is to be sent."""

    volume: Volume
    shared: int
    """Of its prompt tokens: those that a server with a prefix cache computes for an earlier request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What is to be sent, to one endpoint or to several, and what that takes."""

    requests: int
    prompt_tokens: int
    forced_tokens: int
    shared_prefix_tokens: int
    seconds: float | None
    """Under the budget of the account, which its endpoints share; None where there is no budget."""
    cost: float | None
    """None where a price is not known, or an hour's price and not how many of them."""

    def rounded(self) -> dict[str, int | float | None]:
        """As JSON has it: seconds to a tenth, money to a millionth."""
        said = asdict(self)
        for name, digits in (("seconds", 1), ("cost", 6)):
            said[name] = None if said[name] is None else round(said[name], digits)
        return said


def figures(
    endpoints: Sequence[Endpoint],
    counted: Mapping[str, Counted],
    allowed: Mapping[Account, Allowance],
    prices: Prices,
) -> dict[str, Figures]:
    """What each endpoint takes, by label; all but the endpoints is by label or account."""
    found = {}
    for each in endpoints:
        own, price = counted[each.label], prices.of(each.label)
        volumes = [counted[other.label].volume for other in endpoints if other.account == each.account]
        of_account = sum(volumes, Volume())
        seconds = seconds_at(of_account, allowed[each.account])
        share = own.volume.tokens / of_account.tokens if of_account.tokens else 0.0
        found[each.label] = Figures(
            requests=own.volume.requests,
            prompt_tokens=own.volume.prompt_tokens,
            forced_tokens=own.volume.forced_tokens,
            shared_prefix_tokens=own.shared,
            seconds=seconds,
            cost=_cost(price, own.volume, seconds, share),
        )
    return found


def in_all(found: Sequence[Figures]) -> Figures:
    """All endpoints together: accounts are asked side by side, so the longest time counts."""
    seconds, costs = [each.seconds for each in found], [each.cost for each in found]
    return Figures(
        requests=sum(each.requests for each in found),
        prompt_tokens=sum(each.prompt_tokens for each in found),
        forced_tokens=sum(each.forced_tokens for each in found),
        shared_prefix_tokens=sum(each.shared_prefix_tokens for each in found),
        seconds=None if None in seconds else max((each for each in seconds if each is not None), default=0.0),
        cost=None if None in costs else sum(each for each in costs if each is not None),
    )


def seconds_at(volume: Volume, allowed: Allowance) -> float | None:
    """How long an account's budget takes to let so much through; None where it has no bounds."""
    bounds = [
        60 * amount / (AIM * a_minute)
        for amount, a_minute in ((volume.requests, allowed.rpm), (volume.tokens, allowed.tpm))
        if a_minute is not None
    ]
    return max(bounds, default=None if volume.requests else 0.0)


def _cost(price: Price, volume: Volume, seconds: float | None, share: float) -> float | None:
    """What an endpoint takes; of its account's hours its share by tokens."""
    if price.hour is None:
        return price.of(volume) if price.known else None
    return None if seconds is None else price.hour * seconds / HOUR * share
