"""One worker, as the run sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field

from harness.workers.messages import ToWorker
from harness.workers.tally import Tally


@dataclass(slots=True, eq=False)
class Hand:
    """One worker, as the run sees it."""

    name: str
    tallies: Mapping[str, Tally]
    """What it has counted, by endpoint."""
    outgoing: asyncio.Queue[ToWorker] = field(default_factory=asyncio.Queue)
    ready: bool = False
    """It can be handed pieces."""
    ended: bool = False
    """It has told all."""
