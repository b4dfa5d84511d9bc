"""How fast an account may be asked, how much at once, and what happens while an endpoint is down.

`Budget` spreads requests and tokens over the minute; `Level` finds out how many requests an endpoint takes at
once, and `Gate` lets so many in; a `Lessor` lends a budget to other processes, where a `LeasedBudget` stands
in its place (`lending` has what they say to one another); `Outage` holds all workers back while one of them
probes; `headers` reads what a reply says of limits. None knows what a request looks like on the wire. Time is
an argument or an injected clock.
"""

from __future__ import annotations

from harness.pacing.allowance import AIM, BURST
from harness.pacing.budget import AnyBudget, AnyShare, Budget, Share
from harness.pacing.gate import Capacity, Gate
from harness.pacing.headers import Limit, Limits, limits_of
from harness.pacing.holding import LeasedShare
from harness.pacing.leasing import LeasedBudget
from harness.pacing.lending import Ask, Grant, Lends, Slot, Terms
from harness.pacing.lessor import Lessor
from harness.pacing.level import MOST, Level
from harness.pacing.outage import AWAY, BUSY, IN_A_ROW, Outage

__all__ = [
    "AIM",
    "AWAY",
    "BURST",
    "BUSY",
    "IN_A_ROW",
    "MOST",
    "AnyBudget",
    "AnyShare",
    "Ask",
    "Budget",
    "Capacity",
    "Gate",
    "Grant",
    "LeasedBudget",
    "LeasedShare",
    "Lends",
    "Lessor",
    "Level",
    "Limit",
    "Limits",
    "Outage",
    "Share",
    "Slot",
    "Terms",
    "limits_of",
]
