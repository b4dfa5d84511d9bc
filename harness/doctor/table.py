"""All probes, in the order in which they are asked."""

from __future__ import annotations

from harness.doctor import load, sound, wire

PROBES = (*sound.PROBES, *wire.PROBES, *load.PROBES)
