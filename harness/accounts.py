"""What the accounts behind the endpoints of a run allow: a budget is the account's, not the endpoint's."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from harness.endpoints import Account, Endpoint
from harness.errors import UsageError


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one account allows a minute; None: no limit."""

    rpm: float | None
    """Requests."""
    tpm: float | None
    """Tokens, prompt and forced."""


def allowances(
    endpoints: Sequence[Endpoint], *, rpm: float | None, tpm: float | None
) -> dict[Account, Allowance]:
    """What each account allows: what a table says of one of its endpoints, else what is said of all.

    Args:
        endpoints: of the run.
        rpm: requests a minute of every account that no table speaks of.
        tpm: tokens a minute, likewise.

    Raises:
        UsageError: two tables say two things of one account.
    """
    found = {}
    for account in dict.fromkeys(endpoint.account for endpoint in endpoints):
        members = [endpoint for endpoint in endpoints if endpoint.account == account]
        found[account] = Allowance(
            rpm=_agreed("rpm", ((each.label, each.own.rpm) for each in members), rpm),
            tpm=_agreed("tpm", ((each.label, each.own.tpm) for each in members), tpm),
        )
    return found


def _agreed(key: str, said: Iterable[tuple[str, float | None]], otherwise: float | None) -> float | None:
    """The one amount that tables give for an account."""
    by_amount: dict[float, str] = {}
    for label, amount in said:
        if amount is not None:
            by_amount.setdefault(amount, label)
    if len(by_amount) > 1:
        (amount, label), (other, contradicts) = list(by_amount.items())[:2]
        raise UsageError(
            f"[[endpoints]] {contradicts}, {key}: {other:g} here, but {amount:g} at {label}: both are of one"
            " account, which has one allowance"
        )
    return next(iter(by_amount), otherwise)
