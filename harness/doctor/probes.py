"""What a probe is: a function that asks and judges, and its row in the table of its module.

Whoever adds a probe writes one function and one row; `harness.doctor.table` has the modules.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from harness.doctor.asking import Asking
from harness.doctor.findings import Finding, not_checked
from harness.errors import EndpointRefused


@dataclass(frozen=True, slots=True)
class Probe:
    """One probe."""

    name: str
    run: Callable[[str, Asking], Awaitable[Finding]]
    """Takes the name to call the finding by; raises `EndpointRefused` as the client does."""
    always: bool = False
    """It is asked also of an endpoint that has refused."""
    final: bool = False
    """Where it finds something wrong no other is asked: what they came to would be chance."""


async def examined(
    probes: Sequence[Probe], asking: Asking, tell: Callable[[Finding], object]
) -> list[Finding]:
    """What all probes find, one after another; `tell` hears of each at once.

    An endpoint that refuses, or stays down, is asked no more: those probes that are not always asked are then
    not checked. That it does is wrong in itself, unless an earlier finding says so already.
    """
    findings: list[Finding] = []
    why, over = "", False
    for probe in probes:
        if over or (why and not probe.always):
            finding = not_checked(probe.name, why)
        else:
            try:
                finding = await probe.run(probe.name, asking)
            except EndpointRefused as error:
                finding = not_checked(probe.name, str(error))
                if not why:
                    finding = Finding(probe.name, "wrong", str(error), "A run would give the endpoint up")
                    why = f"see {probe.name}"
        findings.append(finding)
        tell(finding)
        if finding.verdict == "wrong" and probe.always:
            why, over = why or f"see {probe.name}", probe.final
    return findings
