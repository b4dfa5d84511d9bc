"""What the accounts behind the endpoints of a run allow: a budget is the account's, not the endpoint's.

So is what is found out of how many requests it takes at once: the adapters of a base endpoint are computed by
the same machines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.endpoint_settings import Concurrency
from harness.endpoints import Account, Endpoint
from harness.errors import UsageError
from harness.events import event
from harness.pacing import AnyBudget, Budget, Capacity, Gate, Level

EMBEDDED_AT_ONCE = 32
"""Requests in flight on each embedded endpoint: our own server takes all, and batches as many as come."""


NONE_ELSEWHERE: Mapping[Account, AnyBudget] = {}


@dataclass(frozen=True, slots=True)
class Allowance:
    """What one account allows a minute; None: no limit."""

    rpm: float | None
    """Requests."""
    tpm: float | None
    """Tokens, prompt and forced."""


def allowances(
    endpoints: Sequence[Endpoint], *, rpm: float | None, tpm: float | None, shards: int = 1
) -> dict[Account, Allowance]:
    """What each account allows: what a table says of one of its endpoints, else what is said of all; of
    several shards each gets its part, so that all at once keep within it.

    Args:
        endpoints: of the run.
        rpm: requests a minute of every account that no table speaks of.
        tpm: tokens a minute, likewise.
        shards: how many share it.

    Raises:
        UsageError: two tables say two things of one account.
    """
    found = {}
    for account in dict.fromkeys(endpoint.account for endpoint in endpoints):
        members = [endpoint for endpoint in endpoints if endpoint.account == account]
        found[account] = Allowance(
            rpm=_part(_agreed("rpm", ((each.label, each.own.rpm) for each in members), rpm), shards),
            tpm=_part(_agreed("tpm", ((each.label, each.own.tpm) for each in members), tpm), shards),
        )
    return found


def _part(amount: float | None, shards: int) -> float | None:
    return None if amount is None else amount / shards


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


class Paces:
    """The budgets and gates of a run, made as its endpoints ask for them: one budget an account, one gate an
    endpoint, and one level an account where it is to be found out.

    Attributes:
        own: the budgets that are kept here, by account.
    """

    def __init__(
        self,
        allowances: Mapping[Account, Allowance],
        concurrency: Concurrency,
        budgets: Mapping[Account, AnyBudget] = NONE_ELSEWHERE,
    ) -> None:
        """Take what `allowances` gave, and the concurrency of endpoints that have none of their own.

        `budgets`: of accounts whose budget is kept elsewhere.
        """
        self.own = {
            account: Budget(each.rpm, each.tpm)
            for account, each in allowances.items()
            if account not in budgets
        }
        self._budgets: Mapping[Account, AnyBudget] = {**self.own, **budgets}
        self._concurrency = concurrency
        self._capacities: dict[Account, Capacity] = {}

    def budget(self, endpoint: Endpoint) -> AnyBudget:
        """The budget of an endpoint's account."""
        return self._budgets[endpoint.account]

    def gate(self, endpoint: Endpoint) -> Gate:
        """A gate for an endpoint: as wide as was said, or the account's common one, which adapts."""
        at_once = endpoint.own.concurrency or self._concurrency
        if at_once == "auto" and endpoint.embedded:
            at_once = EMBEDDED_AT_ONCE
        if at_once != "auto":
            return Capacity(at_once).gate()
        if endpoint.account not in self._capacities:
            self._capacities[endpoint.account] = Capacity(Level(on_change=_told(endpoint.label)))
        return self._capacities[endpoint.account].gate()


def _told(label: str) -> Callable[[int, str], None]:
    def changed(level: int, reason: str) -> None:
        event("pace", endpoint=label, at_once=level, reason=reason)

    return changed
