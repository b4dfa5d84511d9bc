"""How much of what an endpoint allows is used: a budget of requests a minute, a capacity that is hidden."""

from __future__ import annotations

from typing import Any

from tests.bench.measuring import Bench, Figure, Instant, watched

RPM = 1200
ACHIEVED = 0.97
"""Of the allowance, over a minute."""
MINUTE = 60.0

CAPACITIES = {5: 0.4, 50: 0.4, 200: 0.8}
"""Requests at once, and seconds that each takes: 250 a second at most, so that client and endpoint idle."""
FIXED_SECONDS, FIXED_FROM = 20.0, 5
ADAPTIVE_SECONDS, ADAPTIVE_FROM = 62.0, 30
"""How long is watched, and from which second on counts."""
THROUGHPUT, REFUSED = 0.90, 0.02
"""Over the best fixed concurrency, which is the capacity; share of 429s, of all that was sent."""


def rpm_section(bench: Bench) -> list[Figure]:
    """`--rpm` over a minute, at an endpoint that refuses what a sliding window does not allow."""
    with Instant(bench.tokenizer, "--rpm", str(RPM)) as endpoint:
        command = bench.run(endpoint.url, "hellaswag", "--rpm", str(RPM))
        _, counts = watched(command, endpoint, MINUTE + 2)
    share = sum(counts["seconds"][: int(MINUTE)]) / RPM
    refused = counts["refused"]
    return [
        Figure(
            f"`--rpm {RPM}` over a minute: achieved over allowed rate",
            f"{share:.3f}",
            f"at least {ACHIEVED}",
            share >= ACHIEVED,
        ),
        Figure("429s of the same, from a sliding window of a minute", str(refused), "none", not refused),
    ]


def capacity_section(bench: Bench) -> list[Figure]:
    """Adaptive concurrency against an endpoint that refuses more at once than it does not tell."""
    return [each for pair in CAPACITIES.items() for each in _capacity(bench, *pair)]


def _capacity(bench: Bench, capacity: int, latency: float) -> list[Figure]:
    with Instant(bench.tokenizer, "--capacity", str(capacity), "--latency", str(latency)) as endpoint:
        fixed = bench.run(endpoint.url, "hellaswag", "--concurrency", str(capacity))
        # Requests of one length come back in waves, of which the seconds counted may hold one too many.
        counted = _rate(watched(fixed, endpoint, FIXED_SECONDS)[1], FIXED_FROM, FIXED_SECONDS)
        best = min(counted, capacity / latency)
        auto = bench.run(endpoint.url, "hellaswag", "--concurrency", "auto")
        counts = watched(auto, endpoint, ADAPTIVE_SECONDS)[1]
    share = _rate(counts, ADAPTIVE_FROM, ADAPTIVE_SECONDS) / best
    refused = counts["refused"] / (counts["requests"] + counts["refused"])
    name = f"hidden capacity {capacity}"
    return [
        Figure(
            f"{name}: throughput over that of `--concurrency {capacity}` ({best:.0f} a second)",
            f"{share:.2f}",
            f"at least {THROUGHPUT}",
            share >= THROUGHPUT,
        ),
        Figure(f"{name}: share of 429s", f"{refused:.1%}", f"at most {REFUSED:.0%}", refused <= REFUSED),
    ]


def _rate(counts: dict[str, Any], first: int, seconds: float) -> float:
    """Answered requests a second from one second on; the last two may be cut short."""
    end = int(seconds) - 2
    return float(sum(counts["seconds"][first:end])) / (end - first)
