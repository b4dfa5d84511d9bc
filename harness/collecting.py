"""When Python looks for objects that only refer to one another: hardly any are left so here."""

from __future__ import annotations

import atexit
import gc

BEGINNING = 200_000
"""So many new objects are no reason to look while all that is imported and read comes in at once: each look
at 50,000 takes 30 ms, of the second or two that a first request waits."""
WORKING = 50_000
"""After so many Python looks from then on; to do so after every 700, as it does by itself, takes a tenth of a
run's processor time."""


def begin() -> None:
    """A command begins: call before most is imported."""
    gc.set_threshold(BEGINNING)
    atexit.register(gc.freeze)  # nobody needs cycles to be found in what is left then


def settle() -> None:
    """All that was needed to begin is there, here or in a worker: it is not looked through again (nor is what
    importing has left over, some thousand objects), and what follows is."""
    gc.freeze()
    gc.set_threshold(WORKING)
