"""Probes: are answers the same again, in another order and in company, and how fast do they come."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from harness.doctor.asking import Asking, values_of
from harness.doctor.findings import Finding
from harness.doctor.judging import Pace, Values, judged_pace, judged_same
from harness.doctor.probes import Probe
from harness.exchange import Outcome, ScoreRequest

STEPS = (1, 4)
"""Requests at once that are timed, beside as many as a run would have."""
TIMED = 8
"""Requests that are timed at each step, at least."""


async def answers_again(name: str, asking: Asking) -> Finding:
    """The same questions, asked once more one by one."""
    return await _again(name, asking, "asked once more", [each.request for each in await asking.alone()], 1)


async def answers_shuffled(name: str, asking: Asking) -> Finding:
    """The same questions in another order."""
    requests = [each.request for each in await asking.alone()]
    order = Random(len(requests)).sample(requests, len(requests))
    return await _again(name, asking, "asked in another order", order[::-1], 1)


async def answers_in_company(name: str, asking: Asking) -> Finding:
    """The same questions among as many others as a run would have in flight."""
    requests = [each.request for each in await asking.alone()]
    others = [asking.request(each) for each in asking.questions[len(requests) :]][: asking.at_once]
    how = f"asked {min(asking.at_once, len(requests) + len(others))} at once"
    return await _again(name, asking, how, requests, asking.at_once, others)


async def _again(
    name: str,
    asking: Asking,
    how: str,
    asked: Sequence[ScoreRequest],
    at_once: int,
    others: Sequence[ScoreRequest] = (),
) -> Finding:
    """Ask questions a second time and hold the answers against the first ones."""
    before = {each.request.key: values_of(each) for each in await asking.alone()}
    fresh = [asking.request(each) for each in asked]  # with the continuations as they were asked before
    outcomes = (await asking.together([*fresh, *others], at_once))[: len(fresh)]
    pairs: list[tuple[Values, Values]] = []
    unanswered = 0
    for old, outcome in zip(asked, outcomes, strict=True):
        first, second = before[old.key], values_of(outcome)
        if first is not None and second is not None:
            pairs.append((first, second))
        unanswered += first is not None and second is None
    return judged_same(name, how, pairs, unanswered)


async def answers_fast(name: str, asking: Asking) -> Finding:
    """Latency and throughput, one at once and several."""
    steps = sorted({*(each for each in STEPS if each < asking.at_once), asking.at_once})
    return judged_pace(name, [await _paced(asking, step) for step in steps])


async def _paced(asking: Asking, at_once: int) -> Pace:
    wanted = max(TIMED, 2 * at_once)
    questions = [asking.questions[at % len(asking.questions)] for at in range(wanted)]
    begun = asking.clock()
    outcomes: list[Outcome] = await asking.together([asking.request(each) for each in questions], at_once)
    return Pace(
        at_once,
        asking.clock() - begun,
        [each.latency for each in outcomes if each.reply is not None],
        sum(each.attempts - 1 for each in outcomes),
        sum(each.reply is None for each in outcomes),
    )


PROBES = (
    Probe("same again", answers_again),
    Probe("shuffled", answers_shuffled),
    Probe("in company", answers_in_company),
    Probe("pace", answers_fast),
)
