"""The budgets of accounts in Ray actors, so that what workers lease does not pass through the run.

Each account of which a limit was stated has one; it stands on the node of the run, and ends with it. The
budgets of all others are the run's own: nobody need ask for anything there, unless an endpoint tells a limit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from harness.accounts import Allowance
from harness.endpoints import Account
from harness.errors import StoreError
from harness.pacing import Ask, Budget, Grant, LeasedBudget, Lessor, Limits, Terms
from harness.pacing.allowance import MINUTE
from harness.workers.cluster import imported, ray_errors, result, why_lost

RUN = "the run"
"""Under which name the run itself leases: for looks and probes."""
ASKS = 400.0
"""A second, of all holders: a call of an actor takes longer than a message does (`pacing.lessor.ASKS`)."""
AT_ONCE = 10_000
"""Calls that may wait in a keeper: each holder has one for news, and one for each of its endpoints."""


class BudgetActor:
    """The keeper of an account's budget, in an actor: `Lessor`, whose methods these are."""

    def __init__(self, rpm: float | None, tpm: float | None, *, again: bool | None = None) -> None:
        """Keep what the account allows a minute.

        Args:
            rpm: requests.
            tpm: tokens.
            again: in the place of one that was lost: nobody knows what has gone out in the last minute, so
                it waits for the end of that; None: as Ray says.
        """
        budget = Budget(rpm, tpm)
        if _again() if again is None else again:
            budget.pause(time.monotonic() + MINUTE)
        self._lessor = Lessor(budget, asks=ASKS)

    async def lease(self, holder: str, share: str, ask: Ask) -> Grant:
        """As `Lends.lease`."""
        return await self._lessor.lease(holder, share, ask)

    async def give_back(self, holder: str, share: str, requests: int, tokens: int) -> None:
        """As `Lends.give_back`."""
        await self._lessor.give_back(holder, share, requests, tokens)

    async def pause(self, seconds: float) -> None:
        """As `Lends.pause`."""
        await self._lessor.pause(seconds)

    async def follow(self, limits: Limits) -> None:
        """As `Lends.follow`."""
        await self._lessor.follow(limits)

    async def news(self, holder: str, seen: int) -> Terms:
        """As `Lends.news`."""
        return await self._lessor.news(holder, seen)

    async def gone(self, holder: str) -> None:
        """As `Lessor.gone`."""
        self._lessor.gone(holder)


def _again() -> bool:
    return bool(imported().get_runtime_context().was_current_actor_reconstructed)


class LentByActor:
    """An account's budget, where an actor keeps it: `Lends` over its calls. All raise `StoreError` once the
    actor cannot be had again."""

    def __init__(self, actor: Any) -> None:
        """Take the actor's handle."""
        self._actor = actor

    async def lease(self, holder: str, share: str, ask: Ask) -> Grant:
        """As `Lends.lease`."""
        grant: Grant = await _asked(self._actor.lease.remote(holder, share, ask))
        return grant

    async def give_back(self, holder: str, share: str, requests: int, tokens: int) -> None:
        """As `Lends.give_back`."""
        await _asked(self._actor.give_back.remote(holder, share, requests, tokens))

    async def pause(self, seconds: float) -> None:
        """As `Lends.pause`."""
        await _asked(self._actor.pause.remote(seconds))

    async def follow(self, limits: Limits) -> None:
        """As `Lends.follow`."""
        await _asked(self._actor.follow.remote(limits))

    async def news(self, holder: str, seen: int) -> Terms:
        """As `Lends.news`."""
        terms: Terms = await _asked(self._actor.news.remote(holder, seen))
        return terms


async def _asked(reference: Any) -> Any:
    try:
        return await result(reference)
    except ray_errors() as error:
        raise StoreError(f"the keeper of an account's budget is lost ({why_lost(error)})") from error


class ActorBudgets:
    """The keepers of a run, as the run sees them.

    Attributes:
        actors: their handles, by the position of their account in the run.
        budgets: what the run's own clients ask.
    """

    def __init__(self) -> None:
        """There is none."""
        self.actors: dict[int, Any] = {}
        self.budgets: dict[Account, LeasedBudget] = {}
        self._listening: list[asyncio.Task[None]] = []

    def place(self, allowances: Mapping[Account, Allowance]) -> None:
        """Start a keeper for each account that has a limit; where Ray is connected, in any thread."""
        ray = imported()
        here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
            ray.get_runtime_context().get_node_id(), soft=False
        )
        # Who was lost stands up again, and all who wait are asked again in their name.
        options = {"max_restarts": -1, "max_task_retries": -1, "max_concurrency": AT_ONCE, "num_cpus": 0}
        for number, allowed in enumerate(allowances.values()):
            if allowed.rpm is not None or allowed.tpm is not None:
                placed = ray.remote(BudgetActor).options(scheduling_strategy=here, **options)
                self.actors[number] = placed.remote(allowed.rpm, allowed.tpm)

    def listen(self, allowances: Mapping[Account, Allowance]) -> None:
        """Let the run's clients lease from them, and hear their news."""
        for number, (account, allowed) in enumerate(allowances.items()):
            if (actor := self.actors.get(number)) is not None:
                lent = LeasedBudget(LentByActor(actor), RUN, rpm=allowed.rpm, tpm=allowed.tpm)
                self.budgets[account] = lent
                self._listening.append(asyncio.create_task(lent.listen()))

    def gone(self, holder: str) -> None:
        """A worker has ended, or is lost."""
        for actor in self.actors.values():
            actor.gone.remote(holder)

    async def close(self) -> None:
        """Hear and ask no more; the actors end with the connection."""
        for each in self._listening:
            each.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)
        for lent in self.budgets.values():
            await lent.close()
