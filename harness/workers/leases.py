"""What a worker may send, as its run or somebody else lends it: the budgets of accounts, and what the caps
leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

from harness.allotments import Allotment, LeasedSpending, Need
from harness.caps import Amount
from harness.endpoints import Account
from harness.pacing import AnyBudget, Ask, Grant, LeasedBudget, Lends, Limits, Terms
from harness.prepare import Prepared
from harness.workers.line import Line
from harness.workers.messages import Allot, Begin, Follow, GiveBack, Lend, News, Pause, Settle


class Leases:
    """The budgets of a worker's clients.

    Attributes:
        budgets: by account.
    """

    def __init__(
        self, line: Line, prepared: Prepared, begin: Begin, lenders: Mapping[int, Lends] | None
    ) -> None:
        """Ask nobody yet; `lenders` by the position of their account in the run, where it is not the run."""
        self._line = line
        self._name = begin.name
        lent = {
            account: (lenders or {}).get(number) or LentByRun(line, number)
            for number, account in enumerate(prepared.allowances)
        }
        self._leased = {
            account: LeasedBudget(lends, begin.name, rpm=allowed.rpm, tpm=allowed.tpm)
            for (account, allowed), lends in zip(prepared.allowances.items(), lent.values(), strict=True)
        }
        self.budgets: Mapping[Account, AnyBudget] = self._leased

    @asynccontextmanager
    async def spending(self) -> AsyncIterator[LeasedSpending]:
        """What the caps of the run leave, while the block goes on."""
        spending = LeasedSpending(AllottedByRun(self._line), self._name)
        try:
            yield spending
        finally:
            await spending.close()

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Hear what lenders say while the block goes on, then give back what is left."""
        listening = [asyncio.create_task(each.listen()) for each in self._leased.values()]
        try:
            yield
        finally:
            for each in listening:
                each.cancel()
            await asyncio.gather(*listening, return_exceptions=True)
            for each_budget in self._leased.values():
                await each_budget.close()


class AllottedByRun:
    """What the caps of the run leave."""

    def __init__(self, line: Line) -> None:
        """Take the way to the run."""
        self._line = line

    async def allot(self, holder: str, need: Need) -> Allotment:
        """As `Allots.allot`; the run knows who asks."""
        allotment: Allotment = await self._line.call(Allot(need), Allotment)
        return allotment

    async def settle(self, holder: str, number: int, unused: Amount) -> None:
        """As `Allots.settle`."""
        self._line.tell(Settle(number, unused))


class LentByRun:
    """An account's budget, where the run keeps it."""

    def __init__(self, line: Line, account: int) -> None:
        """Take the way to the run, and which of its accounts it is."""
        self._line = line
        self._account = account

    async def lease(self, holder: str, share: str, ask: Ask) -> Grant:
        """As `Lends.lease`; the run knows who asks."""
        grant: Grant = await self._line.call(Lend(self._account, share, ask), Grant)
        return grant

    async def give_back(self, holder: str, share: str, requests: int, tokens: int) -> None:
        """As `Lends.give_back`."""
        self._line.tell(GiveBack(self._account, share, requests, tokens))

    async def pause(self, seconds: float) -> None:
        """As `Lends.pause`."""
        self._line.tell(Pause(self._account, seconds))

    async def follow(self, limits: Limits) -> None:
        """As `Lends.follow`."""
        self._line.tell(Follow(self._account, limits))

    async def news(self, holder: str, seen: int) -> Terms:
        """As `Lends.news`."""
        terms: Terms = await self._line.call(News(self._account, seen), Terms)
        return terms
