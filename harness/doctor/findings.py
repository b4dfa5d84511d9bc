"""What a probe found, in one line; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Verdict = Literal["ok", "note", "warning", "wrong", "not checked"]
"""wrong: scores would be wrong, or there would be none; warning: they may be worse, or cost more; note: worth
knowing; not checked: it could not be asked, which says nothing."""

ESSENTIAL = "log-probabilities"
"""The probe without which nothing is known of an endpoint, however little is wrong with it."""


AMISS: tuple[Verdict, ...] = ("warning", "wrong")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one probe found of one endpoint."""

    name: str
    """Of the probe."""
    verdict: Verdict
    measured: str
    """What was seen, with its unit; of what was not checked, why."""
    consequence: str = ""
    """What that does to scores; empty where it does nothing."""
    advice: str = ""
    """What to do about it; likewise."""
    value: float | None = None
    """The measured number, where it is one."""

    def line(self) -> str:
        """All of it but the verdict."""
        parts = [f"{self.name}: {self.measured}", self.consequence, self.advice]
        said = ". ".join(part.rstrip(".") for part in parts if part)
        return said.replace("?. ", "? ")  # what endpoints and refusals say may end in a question

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "probe": self.name,
            "verdict": self.verdict,
            "measured": self.measured,
            "value": self.value,
            "consequence": self.consequence,
            "advice": self.advice,
        }


def not_checked(name: str, why: str) -> Finding:
    """Nothing is known of this."""
    return Finding(name, "not checked", why)


def amiss(earlier: Iterable[Finding], now: Iterable[Finding]) -> list[Finding]:
    """What was amiss in all sessions: scores of each are in the tables. What is so still is told once."""
    found = {(each.name, each.verdict): each for each in (*earlier, *now)}
    return [each for each in found.values() if each.verdict in AMISS]


def any_wrong(findings: Iterable[Finding]) -> bool:
    """Whether scores of this endpoint would be wrong."""
    return any(each.verdict == "wrong" for each in findings)


def fit(findings: Iterable[Finding]) -> bool:
    """Whether an endpoint can be scored on: nothing is wrong, and log-probabilities were seen at all."""
    found = list(findings)
    seen = any(each.name == ESSENTIAL and each.verdict != "not checked" for each in found)
    return seen and not any_wrong(found)


def told(label: str, findings: Iterable[Finding]) -> list[str]:
    """What people must know of a brief probe: a sentence for each thing amiss, one for what is not known.

    What several were not checked for is said once.
    """
    found = list(findings)
    lines = [f"{label}: probed before the run: {each.line()}" for each in found if each.verdict in AMISS]
    unknown: dict[str, list[str]] = {}
    for each in found:
        if each.verdict == "not checked":
            unknown.setdefault(each.measured.rstrip("."), []).append(each.name)
    said = "; ".join(f"{', '.join(names)} ({why})" for why, names in unknown.items())
    return [*lines, f"{label}: not checked before the run: {said}"] if said else lines


def told_earlier(label: str, earlier: Iterable[Finding], now: Iterable[Finding]) -> list[str]:
    """What was amiss before earlier sessions, and was not found again before this one."""
    found = list(now)
    again = amiss((), found)
    gone = [each for each in amiss(earlier, found) if each not in again]
    return [f"{label}: probed before an earlier session: {each.line()}" for each in gone]
