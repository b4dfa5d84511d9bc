"""A budget that is kept elsewhere: what a worker's clients have in the place of `Budget`.

Slots are asked for as requests wait, and a little ahead of them. A slot is used at its moment or shortly
after, never before; what is not used goes back. Without limits nobody is asked: only news is listened for.
"""

from __future__ import annotations

import asyncio

from harness.pacing.headers import Limits
from harness.pacing.holding import Holder, LeasedShare


class LeasedBudget(Holder):
    """What one account allows, as its keeper lends it to this holder."""

    _told: tuple[float | None, float | None] = None, None
    """Allowances that the keeper was told of last."""

    def share(self, label: str = "") -> LeasedShare:
        """A share for one more endpoint; fair shares go by label."""
        share = LeasedShare(self, label)
        self.shares.append(share)
        return share

    def fastest(self, tokens: float) -> float | None:
        """Requests a second of so many tokens that may go out at most, of all holders; None: no limit."""
        return self.here.fastest(tokens)

    def pause(self, until: float) -> bool:
        """Let nothing out before `until`, here or anywhere; whether that is news."""
        news = self.here.pause(until)
        self.hold_back()
        if news:
            self.send(self.lends.pause(max(0.0, until - self.clock())))
        return news

    def follow(self, limits: Limits, now: float) -> bool:
        """Take the endpoint's word, here and with the keeper; whether a pause is news."""
        news = self.here.follow(limits, now)
        if news:
            self.hold_back()
        told = limits.requests.allowed, limits.tokens.allowed
        if news or told != self._told:
            self._told = told
            self.send(self.lends.follow(limits))
        self.open = self.open and self.here.open
        return news

    def alone(self, tokens: int, now: float) -> float:
        """Seconds that a request waits which does not queue."""
        return self.here.alone(tokens, now)

    # --------------------------------------------------------------------------------------- from the keeper

    async def listen(self) -> None:
        """Hear the keeper's news until cancelled: pauses and limits that others were told."""
        seen = -1
        while True:
            terms = await self.lends.news(self.name, seen)
            seen = terms.version
            self.hear(terms)

    async def close(self) -> None:
        """Give back all that is left; nobody waits any more."""
        for share in self.shares:
            share.close()
        if self._sending:
            await asyncio.wait(self._sending)
