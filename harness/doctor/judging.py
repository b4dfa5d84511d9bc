"""From what an endpoint said to a finding; pure. Values are log-probabilities in nats, one a forced token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from statistics import median

from harness.doctor.findings import Finding, Verdict

Values = Sequence[float]

ROUNDING = 1e-3
"""Nats a token that mean nothing: the last digits of a float32."""
NOISY = 0.1
"""Nats a token by which the same question may be answered otherwise in another batch, in 16 bits."""
BROKEN = 0.5
"""Nats a token that no batch explains, or `SHARE` of the value where that is more."""
SHARE = 0.05
UNLIKE = 1.0
"""Nats a token beyond which answers to the same question are not the same answer."""
NOISE_ADVICE = "Give the endpoint twice to a run, and compare counts its noise"


def apart(one: Values, other: Values) -> float:
    """The largest difference of two answers, nats; infinite where they are of different length."""
    if len(one) != len(other):
        return float("inf")
    return max((abs(a - b) for a, b in zip(one, other, strict=True)), default=0.0)


def nats(value: float) -> str:
    """A difference as people read it."""
    return "0 nats" if value == 0 else f"{value:.2g} nats"


# ------------------------------------------------------------------------------------- can it be believed


def judged_flat(name: str, answers: Sequence[Values]) -> Finding:
    """Whether values differ at all within answers; of those the tokens are different.

    Args:
        name: of the probe.
        answers: to requests that forced several tokens.
    """
    several = [values for values in answers if len(values) > 1]
    if not several:
        return Finding(name, "not checked", "no request forced several tokens")
    flat = [values for values in several if max(values) == min(values)]
    said = f"in {len(flat)} of {len(several)} replies all values are equal"
    if not flat:
        lowest = min(min(values) for values in several)
        highest = max(max(values) for values in several)
        return Finding(name, "ok", f"values from {lowest:.2f} to {highest:.2f} nats", value=0.0)
    verdict: Verdict = "wrong" if len(flat) == len(several) else "warning"
    return Finding(
        name,
        verdict,
        f"{said} ({flat[0][0]:g} nats)",
        "Every choice would score by its length alone",
        "Does this server compute log-probabilities of forced tokens at all",
        len(flat) / len(several),
    )


@dataclass(frozen=True, slots=True)
class Chain:
    """Answers to a question and to its two parts, as they come: some may be spoilt."""

    whole: list[Values] = field(default_factory=list)
    """Of all tokens at once."""
    first: list[Values] = field(default_factory=list)
    """Of the first token alone."""
    rest: list[Values] = field(default_factory=list)
    """Of the others, with the first one put behind the context."""

    def difference(self) -> float:
        """By how much whole and parts differ at most, nats, in the best case; infinite where something was
        never answered."""
        cases = product(self.whole, self.first, self.rest)
        return min((apart(whole, (*one, *rest)) for whole, one, rest in cases), default=float("inf"))


def broken(whole: Values, parts: Values) -> bool:
    """Whether a token's value in the whole is another than in the parts, beyond all noise."""
    if len(whole) != len(parts):
        return True
    return any(abs(a - b) > max(BROKEN, SHARE * abs(b)) for a, b in zip(whole, parts, strict=True))


def chain_holds(chain: Chain) -> bool:
    """Whether some of the answers fit together."""
    return any(
        not broken(whole, (*one, *rest)) for whole, one, rest in product(chain.whole, chain.first, chain.rest)
    )


def judged_chain(name: str, chain: Chain) -> Finding:
    """Whether tokens one after another are worth what they are worth together."""
    largest = chain.difference()
    if not chain_holds(chain):
        return Finding(
            name,
            "wrong",
            f"forced together, tokens differ by {nats(largest)} from one after another",
            "The score of a choice of several tokens would be none",
            "The server does not condition a forced token on those before it; report it to whoever runs it",
            largest,
        )
    verdict: Verdict = "ok" if largest <= NOISY else "note"
    return Finding(
        name,
        verdict,
        f"forced together, tokens differ by {nats(largest)} from one after another",
        "" if verdict == "ok" else "The endpoint is noisy",
        "" if verdict == "ok" else NOISE_ADVICE,
        largest,
    )


# --------------------------------------------------------------------------------------- is it the same again


def judged_same(name: str, how: str, pairs: Sequence[tuple[Values, Values]], unanswered: int) -> Finding:
    """Whether the same questions are answered alike.

    Args:
        name: of the probe.
        how: they were asked the second time.
        pairs: the answers, first and second.
        unanswered: questions that had no second answer.
    """
    if not pairs:
        return Finding(name, "not checked", f"no question was answered twice ({how})")
    largest = max(apart(*each) for each in pairs)
    lost = f"; {unanswered} of {len(pairs) + unanswered} were not answered" if unanswered else ""
    measured = f"{how}, {len(pairs)} questions differ by {nats(largest)} at most{lost}"
    if largest > UNLIKE:
        return Finding(
            name,
            "wrong",
            measured,
            "Scores depend on what else is asked, and when",
            "Is one model served there, and alone; ask whoever runs it",
            largest,
        )
    if largest > NOISY or unanswered:
        consequence = "Close items will change sides from run to run" if largest > NOISY else ""
        return Finding(name, "warning", measured, consequence, NOISE_ADVICE, largest)
    if largest > ROUNDING:
        return Finding(name, "note", measured, "Runs are not repeatable to the digit", NOISE_ADVICE, largest)
    return Finding(name, "ok", measured, value=largest)


# ------------------------------------------------------------------------------------------------------ pace


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast requests were answered, so many at once."""

    at_once: int
    seconds: float
    """For all of them."""
    latencies: Sequence[float]
    """Seconds of each that was answered."""
    again: int = 0
    """Requests that had to be sent again."""
    failed: int = 0

    @property
    def rate(self) -> float:
        """Answered requests a second."""
        return len(self.latencies) / self.seconds if self.seconds > 0 else 0.0


def judged_pace(name: str, paces: Sequence[Pace]) -> Finding:
    """Latency and throughput at a few concurrencies."""
    told = [
        f"{each.at_once} at once: {each.rate:.3g}/s, median {1000 * median(each.latencies):.0f} ms"
        for each in paces
        if each.latencies
    ]
    if not told:
        return Finding(name, "wrong", "no request was answered", "There would be no scores")
    best = max(paces, key=lambda each: each.rate)
    hurt = next((each for each in paces if each.again or each.failed), None)
    measured = "; ".join(told)
    if hurt is not None:
        count = hurt.again + hurt.failed
        return Finding(
            name,
            "warning",
            f"{measured}; of those {hurt.at_once} at once {count} had to be sent again or failed",
            "It takes fewer at once, or is not well",
            "--concurrency auto finds out how many",
            best.rate,
        )
    return Finding(name, "ok", measured, value=best.rate)
