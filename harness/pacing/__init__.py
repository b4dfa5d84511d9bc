"""How fast an account may be asked, how much at once, and what happens while an endpoint is down.

`Budget` spreads requests and tokens over the minute; `Level` finds out how many requests an endpoint takes at
once, and `Gate` lets so many in; `Outage` holds all workers back while one of them probes; `headers` reads
what a reply says of limits. None knows what a request looks like on the wire. Time is an argument or an
injected clock.
"""

from __future__ import annotations

from harness.pacing.budget import AIM, BURST, Budget, Share
from harness.pacing.gate import Capacity, Gate
from harness.pacing.headers import Limit, Limits, limits_of
from harness.pacing.level import MOST, Level
from harness.pacing.outage import BUSY, IN_A_ROW, Outage

__all__ = [
    "AIM",
    "BURST",
    "BUSY",
    "IN_A_ROW",
    "MOST",
    "Budget",
    "Capacity",
    "Gate",
    "Level",
    "Limit",
    "Limits",
    "Outage",
    "Share",
    "limits_of",
]
