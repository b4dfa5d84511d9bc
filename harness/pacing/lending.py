"""What workers in several processes and the keeper of an account's budget say to one another.

A holder (one worker) asks for the first of its requests that wait, and is granted slots: moments, each with
requests and tokens. Moments are told on the keeper's clock; how far that is off its own a holder learns from
the answers (`slots`). The records can be pickled and written as JSON, so that any wire will do. `lessor`
grants, `leasing` uses.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from harness.pacing.headers import Limits

ROUND = 0.5
"""Seconds for which slots are planned at a time, at least: so often a holder that always has requests waiting
asks."""

LEAD = 0.1
"""Seconds before the end of a round at which the next one is planned: grants are under way for a while."""

LATE = 0.25
"""Seconds after its moment for which a slot may still be used. With what a request is under way beyond that,
`MINUTE` must still hold: 0.25 + 0.1 < 0.4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a holder wants for one endpoint."""

    costs: tuple[int, ...] = ()
    """Tokens of the requests that wait and have no slot, in their order."""
    more: int = 0
    """Requests that are likely to come within a round after `after`."""
    typical: int = 0
    """Tokens of each of them."""
    after: float = 0.0
    """Seconds from now until which there is a slot for whatever is likely to come."""
    travel: float = 0.0
    """Seconds that a grant is under way to this holder: no slot before is of use."""
    requests: int = 0
    """Of earlier grants, given back unused."""
    tokens: int = 0
    """Likewise."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """Some requests that may go."""

    moment: float
    """On the keeper's clock, not before which they go."""
    requests: int
    tokens: int
    """Of all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What an account allows by now."""

    version: int = 0
    """Higher with every change."""
    rpm: float | None = None
    """Requests a minute; None: no limit."""
    tpm: float | None = None
    """Tokens a minute."""
    pause: float = 0.0
    """Seconds for which nothing is sent from now on."""
    holders: int = 1
    """Who have asked, and are not gone."""
    round: float = ROUND
    """Seconds for which slots are planned at a time by now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """The answer to an ask."""

    slots: tuple[Slot, ...]
    """In order of moments; none where there are no limits: then nobody need ask."""
    came: float
    """When the ask came, on the keeper's clock."""
    made: float
    """When the grant was made."""
    until: float
    """Up to which moment slots have been planned; for what comes then another ask will do."""
    terms: Terms


class Lends(Protocol):
    """The keeper of one account's budget, as holders see it, over whatever wire."""

    async def lease(self, holder: str, share: str, ask: Ask) -> Grant:
        """Slots for an endpoint's requests; waits until there is one at least, or there are no limits."""

    async def give_back(self, holder: str, share: str, requests: int, tokens: int) -> None:
        """Of earlier grants this much was not used, and will not be."""

    async def pause(self, seconds: float) -> None:
        """The endpoint asks everybody to send nothing for so long from now."""

    async def follow(self, limits: Limits) -> None:
        """The endpoint has told what it allows."""

    async def news(self, holder: str, seen: int) -> Terms:
        """Wait until the terms are others than those of version `seen`, and tell them."""
