"""What a run lends its workers: the budgets of accounts that it keeps itself, and what its caps leave."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import msgspec

from harness.allotments import Allotter
from harness.caps import Spending
from harness.pacing import Budget, Lessor
from harness.workers.messages import Allot, Follow, GiveBack, Lend, News, Pause, Settle


class Lenders:
    """Answers workers in the name of each account.

    Attributes:
        capped: whether the run has caps.
    """

    def __init__(self, budgets: Iterable[Budget | None], spending: Spending) -> None:
        """Take what the run itself goes on asking too.

        Args:
            budgets: in the order of the run's accounts; None: it is kept elsewhere, where workers ask for it.
            spending: of the run.
        """
        self.capped = spending.capped
        self._allotter = Allotter(spending)
        self._lessors = [Lessor(each if each is not None else Budget()) for each in budgets]
        self._taking: set[asyncio.Task[None]] = set()

    async def answer(self, worker: str, what: object) -> object:
        """The answer to a call of a worker."""
        match what:
            case Lend():
                return msgspec.to_builtins(
                    await self._lessors[what.account].lease(worker, what.share, what.ask)
                )
            case Allot():
                return msgspec.to_builtins(await self._allotter.allot(worker, what.need))
            case News():
                return msgspec.to_builtins(await self._lessors[what.account].news(worker, what.seen))
        raise TypeError(f"{type(what).__name__} is no question to a lender")

    def told(self, worker: str, message: object) -> None:
        """Take what a worker tells."""
        taking = asyncio.get_running_loop().create_task(self._take(worker, message))
        self._taking.add(taking)
        taking.add_done_callback(self._taking.discard)

    async def _take(self, worker: str, message: object) -> None:
        match message:
            case GiveBack():
                lessor = self._lessors[message.account]
                await lessor.give_back(worker, message.share, message.requests, message.tokens)
            case Settle():
                await self._allotter.settle(worker, message.number, message.unused)
            case Pause():
                await self._lessors[message.account].pause(message.seconds)
            case Follow():
                await self._lessors[message.account].follow(message.limits)

    def gone(self, worker: str) -> None:
        """A worker has ended, or is lost."""
        for each in self._lessors:
            each.gone(worker)
        self._allotter.gone(worker)
