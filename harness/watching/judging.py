"""What looks at an endpoint say: is its adapter applied, is its model still the same; pure.

Log-probabilities are compared token by token, in nats. How far equal questions may lie apart is the *floor*:
what repeating the endpoint's own items showed (`noise`), else what is taken for granted here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Literal

Looked = Sequence[tuple[float, ...] | None]
"""What came of one look: the token log-probabilities of each request; None where there is no reply."""
Verdict = Literal["fine", "warning", "changed", "refused", "wrong", "not checked"]
"""Refused: nothing was scored after it. Wrong: what was scored is in doubt."""

FIGURES = (
    *("tokens", "mean_difference", "largest_difference", "mean_shift", "floor"),
    *("items", "sum_sd", "largest_sum_difference"),
)
"""What checks measure: log-probabilities of tokens in nats, then sums of choices."""

TAKEN = 0.05
"""Nats a token that repeated questions are taken to lie apart at most, on average, if nobody measured it."""
LEAST = 1e-3
"""Nats a token below which nothing that matters has changed, however still the endpoint was."""
EQUAL = 1e-6
"""Nats by which equal numbers may differ: how they are written."""
ERRORS = 4.0
"""Standard errors that the floor lies above the mean of what was measured: false alarms are rare."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """How far two looks lie apart, nats a token."""

    tokens: int
    """That both have."""
    mean: float
    """Signs dropped."""
    largest: float
    """Likewise."""
    shift: float
    """The mean with signs: other minus one."""
    replies: int = 0
    """Of several tokens, that both have."""
    alike: int = 0
    """Those of them that are equal."""

    def figures(self) -> dict[str, float]:
        """As the table of checks has them."""
        return {
            "tokens": self.tokens,
            "mean_difference": self.mean,
            "largest_difference": self.largest,
            "mean_shift": self.shift,
        }


@dataclass(frozen=True, slots=True)
class Floor:
    """What a mean difference may be without a reason, nats a token."""

    nats: float = TAKEN
    measured: bool = False

    def __str__(self) -> str:
        how = "measured" if self.measured else "taken for granted; --repeat-sample measures it"
        return f"{self.nats:.2g} nats ({how})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check of one endpoint found."""

    check: Literal["adapter", "noise", "drift"]
    when: str
    verdict: Verdict
    says: str
    """One sentence, the endpoint left out."""
    figures: Mapping[str, float] = field(default_factory=dict)
    """By the names of `FIGURES`."""
    flips: Mapping[str, float] = field(default_factory=dict)
    """By metric, the share of predictions that changed."""

    @property
    def telling(self) -> bool:
        """Whether a reader must know it beside the numbers."""
        return self.verdict not in ("fine", "refused") or self.check == "noise"


@dataclass(frozen=True, slots=True)
class Look:
    """One look at an endpoint."""

    when: str
    """For people: moment and time."""
    values: Looked


def difference(one: Looked, other: Looked) -> Difference | None:
    """How far two looks at the same requests lie apart; None where they have no reply in common."""
    both = [
        [*zip(first, second, strict=False)]
        for first, second in zip(one, other, strict=False)
        if first is not None and second is not None
    ]
    pairs = [pair for each in both for pair in each]
    if not pairs:
        return None
    several = [each for each in both if len(each) > 1]
    shifts = [after - before for before, after in pairs]
    sizes = [abs(each) for each in shifts]
    return Difference(
        tokens=len(pairs),
        mean=math.fsum(sizes) / len(sizes),
        largest=max(sizes),
        shift=math.fsum(shifts) / len(shifts),
        replies=len(several),
        alike=sum(all(abs(after - before) <= EQUAL for before, after in each) for each in several),
    )


def floor_of(mean: float, deviation: float, items: int) -> Floor:
    """The floor of looks at so many items.

    Args:
        mean: of the mean differences of repeated items, nats a token.
        deviation: their standard deviation.
        items: that a look is the mean of.
    """
    return Floor(max(LEAST, mean + ERRORS * deviation / math.sqrt(max(1, items))), measured=True)


def applied(found: Difference, when: str, floor: Floor, *, before: bool) -> Finding:
    """Whether an adapter is applied, by how far it lies from its base.

    Args:
        found: how far.
        when: for people.
        floor: what a difference may be without a reason.
        before: nothing is scored yet.
    """
    verdict: Verdict = "fine"
    says = f"the adapter moves log-probabilities by {found.mean:.2g} nats a token on average"
    most = f"{found.largest:.2g} at most"
    if found.largest <= EQUAL:
        verdict = "refused" if before else "wrong"
        says = (
            f"the adapter was not applied ({when}): the log-probabilities of {found.tokens:,} tokens are"
            " those of the base model"
        )
        if not before:
            says += "; nobody knows since when: score it anew, with another --out"
    elif found.mean <= floor.nats:
        verdict = "warning"
        says = (
            f"the adapter hardly shows ({when}): log-probabilities lie {found.mean:.2g} nats a token from the"
            f" base's on average ({most}), and asking the same again may give {floor}"
        )
    elif found.alike:
        verdict = "warning"
        says = (
            f"the adapter is not always applied ({when}): {found.alike} of {found.replies} replies of several"
            " tokens are those of the base model to the last digit; is there a server without it?"
        )
    figures = {**found.figures(), "floor": floor.nats}
    return Finding(check="adapter", when=when, verdict=verdict, says=says, figures=figures)


def unproven(when: str, why: str) -> Finding:
    """An adapter that could not be held against its base."""
    says = f"whether the adapter is applied was not checked ({when}): {why}"
    return Finding(check="adapter", when=when, verdict="not checked", says=says)


def drift(looks: Sequence[Look], floor: Floor) -> list[Finding]:
    """Each look held against the one before, and the last against the first: a slow change adds up."""
    steps = list(pairwise(looks))
    if len(looks) > 2:
        steps.append((looks[0], looks[-1]))
    return [each for one, other in steps if (each := _step(one, other, floor))]


def wrong(findings: Iterable[Finding]) -> bool:
    """Whether numbers that were scored are in doubt by what was found."""
    return any(each.verdict == "wrong" for each in findings)


def _step(one: Look, other: Look, floor: Floor) -> Finding | None:
    found = difference(one.values, other.values)
    if found is None:
        return None
    changed = found.mean > floor.nats
    when = f"{one.when} to {other.when}"
    said = f"{found.mean:.2g} nats a token on average, {found.largest:.2g} at most"
    says = f"log-probabilities of the same items stayed within {said}"
    if changed:
        says = (
            f"the served model changed between {one.when} and {other.when}: log-probabilities of the same"
            f" items moved by {said} ({found.shift:+.2g} with signs), where noise gives {floor}; scores from"
            " before and after are not of one model"
        )
    verdict: Verdict = "changed" if changed else "fine"
    figures = {**found.figures(), "floor": floor.nats}
    return Finding(check="drift", when=when, verdict=verdict, says=says, figures=figures)
