"""What starts workers, wherever they are."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from harness.endpoints import Account
from harness.pacing.budget import AnyBudget
from harness.workers.channel import Channel


class Engine(Protocol):
    """Starts workers; an async context manager, which ends them all when it is left."""

    workers: int
    """How many to keep."""
    here: bool
    """They are on this machine: what listens on loopback can be reached by them."""
    budgets: Mapping[Account, AnyBudget]
    """The accounts whose budgets it keeps itself, as this process sees them; the run keeps all others."""

    async def __aenter__(self) -> Self:
        """Get ready to start workers; raises `UsageError` where there can be none."""

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all that are left."""

    async def start(self, name: str) -> Channel:
        """Start a worker; raises `UsageError` where it cannot be had."""
