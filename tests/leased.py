"""Workers that share a budget by leases, on a clock that costs nothing: the real clients, leased budgets and
lessor; simulated are the endpoint, and the wire between worker and lessor, on which all takes a while."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from harness.exchange import ScoreRequest
from harness.pacing import Ask, Budget, Capacity, Grant, LeasedBudget, Lends, Lessor, Limits, Terms
from harness.pacing.lessor import ASKS
from tests.virtual_time import REQUEST, Simulated, client_of, sends

OFF = 86_400.0
"""Seconds by which the lessor's clock is ahead of the workers'."""


class Wire:
    """What a worker sees of the lessor.

    Attributes:
        calls: how often something was sent, news apart.
    """

    def __init__(self, lessor: Lends, draw: random.Random, most: float = 0.05) -> None:
        """Each message is under way for up to `most` seconds."""
        self.lessor = lessor
        self.most = most
        self.calls = 0
        self._draw = draw

    async def _way(self) -> None:
        await asyncio.sleep(self._draw.uniform(0, self.most))

    async def lease(self, holder: str, share: str, ask: Ask) -> Grant:
        """There and back."""
        self.calls += 1
        await self._way()
        grant = await self.lessor.lease(holder, share, ask)
        await self._way()
        return grant

    async def give_back(self, holder: str, share: str, requests: int, tokens: int) -> None:
        """There."""
        self.calls += 1
        await self._way()
        await self.lessor.give_back(holder, share, requests, tokens)

    async def pause(self, seconds: float) -> None:
        """There."""
        self.calls += 1
        await self._way()
        await self.lessor.pause(seconds)

    async def follow(self, limits: Limits) -> None:
        """There."""
        self.calls += 1
        await self._way()
        await self.lessor.follow(limits)

    async def news(self, holder: str, seen: int) -> Terms:
        """There and back."""
        await self._way()
        terms = await self.lessor.news(holder, seen)
        await self._way()
        return terms


@dataclass(frozen=True, slots=True)
class Stay:
    """When a worker comes and goes, in seconds of the run, and how."""

    begin: float = 0.0
    end: float = 150.0
    dies: bool = False
    """With what it holds, and nobody is told."""
    label: str = ""
    gate: int = 64
    requests: Sequence[ScoreRequest] = field(default_factory=lambda: [REQUEST])


async def work(
    endpoint: Simulated,
    stays: Sequence[Stay],
    *,
    rpm: float | None = None,
    tpm: float | None = None,
    delay: float = 0.05,
    seed: int = 0,
    asks: float = ASKS,
    **changes: Any,
) -> list[Wire]:
    """Let workers ask an endpoint as long as each stays; the wires that they had."""
    loop, draw = asyncio.get_running_loop(), random.Random(seed)
    lessor = Lessor(Budget(rpm, tpm), clock=lambda: loop.time() + OFF, asks=asks)

    async def one(name: str, stay: Stay) -> Wire:
        await asyncio.sleep(stay.begin)
        wire = Wire(lessor, draw, delay)
        budget = LeasedBudget(wire, name, rpm=rpm, tpm=tpm, clock=loop.time)
        listening = loop.create_task(budget.listen())
        client = client_of(endpoint, Capacity(stay.gate).gate(), budget, stay.label, **changes)
        await sends(client, stay.end, stay.requests)
        listening.cancel()
        if not stay.dies:
            await budget.close()
            lessor.gone(name)
        return wire

    return await asyncio.gather(*(one(f"worker {n}", stay) for n, stay in enumerate(stays)))
