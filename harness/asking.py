"""Who asks the endpoints of a run, and who may stop it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.caps import Spending
from harness.clients import Clients
from harness.doctor.beginning import Briefs
from harness.workers.engine import Engine

if TYPE_CHECKING:
    from rich.console import Console

    from harness.deciding.referee import Referee


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """Who asks, and who may stop it."""

    clients: Clients
    briefs: Briefs
    """Makes the probes."""
    referee: Referee | None
    """Stops endpoints once they are decided on."""
    spending: Spending
    engine: Engine | None
    """Starts workers that ask the items; None: this process does."""
    console: Console
    """Where people are told of them."""
