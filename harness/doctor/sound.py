"""Probes: does it answer, and can what it answers be a score at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from harness.doctor.asking import MOST_FORCED, Asking, values_of, why_not
from harness.doctor.findings import ESSENTIAL, Finding, not_checked
from harness.doctor.judging import Chain, chain_holds, judged_chain, judged_flat
from harness.doctor.probes import Probe
from harness.errors import EndpointRefused
from harness.exchange import ScoreRequest
from harness.saying import duration

CREDENTIALS = {
    "401": "Set the token: it is missing, wrong or expired",
    "403": "Set the team, or ask for access",
    "404": "Is the endpoint id, the model, the adapter right, and the path before /v1",
}
"""What refusals are about, by status, and what to do."""
TRIES = 6
"""How often a chain is asked for: one that never holds is broken; what failed once may have been spoilt."""
SILENT = ("connection", "timeout", "bad certificate")
"""Reasons of failure by which nobody answered."""


async def is_awake(name: str, asking: Asking) -> Finding:
    """A dedicated endpoint that sleeps is woken and waited for."""
    if asking.management is None:
        return not_checked(name, "only dedicated endpoints sleep, and have a route that says so")
    found = await asking.wake()
    match found.state:
        case "unknown":
            return not_checked(name, found.told)
        case "down":
            advice = "Start it, or wait longer with --wake"
            return Finding(name, "wrong", found.told, "No request would be answered", advice, found.seconds)
        case "woken":
            measured = f"it slept or was starting, and is {found.told} after {duration(found.seconds)}"
            return Finding(name, "ok", measured, value=found.seconds)
    return Finding(name, "ok", found.told, value=0.0)


async def is_reachable(name: str, asking: Asking) -> Finding:
    """Something answers at the address."""
    try:
        outcome = await asking.first()
    except EndpointRefused as error:
        if error.reason in CREDENTIALS:
            return Finding(name, "ok", f"it answers (with {error.reason})")
        return _unreachable(name, str(error))
    if outcome.failure is not None and outcome.failure.reason in SILENT:
        return _unreachable(name, why_not(outcome))
    if outcome.failure is not None and (outcome.failure.status or 0) >= 500:
        return _unreachable(name, why_not(outcome))
    more = f", at attempt {outcome.attempts}" if outcome.attempts > 1 else ""
    return Finding(
        name, "ok", f"it answered after {1000 * outcome.latency:.0f} ms{more}", value=outcome.latency
    )


def _unreachable(name: str, said: str) -> Finding:
    return Finding(name, "wrong", said, "Nothing can be scored", "Is the address right, and the server up")


async def has_access(name: str, asking: Asking) -> Finding:
    """Token, team, endpoint and adapter are accepted."""
    try:
        await asking.first()
    except EndpointRefused as error:
        if error.reason in CREDENTIALS:
            advice = CREDENTIALS[error.reason]
            return Finding(name, "wrong", str(error), "Nothing can be scored", advice, int(error.reason))
        raise
    return Finding(name, "ok", "token, team and model are accepted")


async def keeps_ids(name: str, asking: Asking) -> Finding:
    """The forced ids come back."""
    return await _believed(
        name,
        asking,
        "ids",
        "replies name the ids that were forced",
        "It puts out other tokens than are forced",
    )


async def keeps_count(name: str, asking: Asking) -> Finding:
    """There are as many values as forced ids."""
    return await _believed(
        name,
        asking,
        "count",
        "replies have a value for each forced token",
        "Which value belongs to which token is not known",
    )


async def gives_values(name: str, asking: Asking) -> Finding:
    """The values are finite and not above 0."""
    return await _believed(
        name, asking, "", "replies have finite values, none above 0", "These are no log-probabilities"
    )


async def _believed(name: str, asking: Asking, about: str, right: str, wrong: str) -> Finding:
    """How many replies to a few questions fail a check; `about` is empty for those of no other probe."""
    requests, outcomes = await _asked(asking)
    if not any(outcomes_known(outcomes)):
        return not_checked(name, f"no question was answered ({outcomes[0]})")
    bad = [
        str(error)
        for each, said in zip(requests, outcomes, strict=True)
        if said == "protocol" and (error := asking.varied.problems.get(each.key)) is not None
        if error.about == about or (not about and error.about not in ("ids", "count"))
    ]
    total = sum(outcomes_known(outcomes))
    if not bad:
        return Finding(name, "ok", f"{total} {right}", value=0.0)
    return Finding(
        name,
        "wrong" if 2 * len(bad) > total else "warning",
        f"{len(bad)} of {total} replies do not: {Counter(bad).most_common(1)[0][0]}",
        f"{wrong}; such items stay unscored",
        "Report it to whoever runs the server",
        len(bad) / total,
    )


def outcomes_known(reasons: Sequence[str]) -> list[bool]:
    """Which requests had a reply, be it believed or not."""
    return [each in ("", "protocol") for each in reasons]


async def _asked(asking: Asking) -> tuple[list[ScoreRequest], list[str]]:
    """A few questions, asked once for all probes, and why each has no reply (empty: it has)."""
    outcomes = await asking.alone()
    return [each.request for each in outcomes], [
        each.failure.reason if each.failure is not None else "" for each in outcomes
    ]


async def differs(name: str, asking: Asking) -> Finding:
    """Different tokens have different values."""
    outcomes = await asking.alone()
    several = [
        values
        for each in outcomes
        if (values := values_of(each)) is not None and len(set(each.request.forced_ids)) > 1
    ]
    return judged_flat(name, several)


async def chains(name: str, asking: Asking) -> Finding:
    """Two tokens are worth as much as one, and the next after it."""
    if not asking.takes_ids:
        return not_checked(name, "texts cannot be split between any two tokens")
    chain = Chain()
    lacking = ""
    for _ in range(TRIES):
        lacking = await link(asking, chain, 1)  # what company does has a probe of its own
        if chain_holds(chain):
            break
    if not (chain.whole and chain.first and chain.rest):
        return not_checked(name, f"not all of it was answered ({lacking})")
    return judged_chain(name, chain)


async def link(asking: Asking, chain: Chain, at_once: int) -> str:
    """Ask for a chain once more; why a part was not answered, if one was not."""
    parts = [
        asking.request(asking.questions[0], forced, context=context)
        for context, forced in chain_of(asking.questions[0])
    ]
    outcomes = await asking.together(parts, at_once)
    for outcome, answers in zip(outcomes, (chain.whole, chain.first, chain.rest), strict=True):
        if (values := values_of(outcome)) is not None:
            answers.append(values)
    return next((why_not(each) for each in outcomes if each.reply is None), "")


def chain_of(question: ScoreRequest) -> list[tuple[list[int], list[int]]]:
    """A question of several tokens, its first token alone, and the others with that one before them: the
    contexts, and what is forced.

    Some tokens of the context are forced too: they are unlikely there, so their values are not all near 0.
    """
    context = list(question.context_ids)
    spread = [context[len(context) * at // 4] for at in (1, 2, 3)] if context else []
    own = list(question.forced_ids[: max(1, MOST_FORCED - len(spread))])
    forced = [*own, *spread] if len(own) + len(spread) > 1 else [*own, *own]
    return [(context, forced), (context, forced[:1]), ([*context, forced[0]], forced[1:])]


PROBES = (
    Probe("awake", is_awake, always=True, final=True),
    Probe("reachable", is_reachable, always=True),
    Probe("credentials", has_access, always=True),
    Probe("forced ids", keeps_ids),
    Probe("count", keeps_count),
    Probe(ESSENTIAL, gives_values),
    Probe("not all equal", differs),
    Probe("chain rule", chains),
)
