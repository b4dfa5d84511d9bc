"""Is what is sent read as it is meant, and what is taken: from what it said to findings. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from harness.doctor.findings import Finding, not_checked
from harness.doctor.judging import NOISY, Values, apart, nats

TOP_WANTED, TOP_NEEDED = 20, 5
"""Alternatives that reading letters off them asks for, and the fewest of use."""


@dataclass(frozen=True, slots=True)
class Counts:
    """Tokens of one context."""

    sent: int
    """Ids that were sent."""
    of_ids: int | None
    """Prompt tokens that the endpoint counted then; None: it did not say."""
    of_text: int | None
    """And for the same as text."""


def judged_prompt(name: str, tokens: Values, prompt: Values | None, counts: Counts, why: str) -> Finding:
    """Whether a text is read as the ids that it is here, and ids as they are.

    Args:
        name: of the probe.
        tokens: values after the ids.
        prompt: values after the text; None: there are none.
        counts: of the tokens of both.
        why: there are no values after the text, or empty.
    """
    largest = apart(tokens, prompt) if prompt is not None else None
    unlike = largest is not None and largest > NOISY
    if counts.of_ids not in (None, counts.sent):
        beside = why if largest is None else f"a text and its ids differ by {nats(largest)}"
        return Finding(
            name,
            "wrong" if unlike else "warning",
            f"it counted {counts.of_ids} tokens where {counts.sent} ids were sent; {beside}",
            "It adds tokens to what is sent or drops some: other questions are scored than asked",
            "Have whoever runs it put nothing in front of ids; --bos says what is sent there",
            largest,
        )
    if largest is None:
        return not_checked(name, why)
    measured = f"a text and its ids differ by {nats(largest)}"
    if counts.of_text not in (None, counts.sent):
        measured += f"; of the text it counted {counts.of_text} tokens, not {counts.sent}"
    if not unlike:
        return Finding(name, "ok", measured, value=largest)
    return Finding(
        name,
        "warning",
        measured,
        "Contexts go as ids: these may begin otherwise than its own would, or be another model's",
        "Is --tokenizer its own, and --bos as it is set there",
        largest,
    )


@dataclass(frozen=True, slots=True)
class Tokenized:
    """A text's ids here and there."""

    what: str
    """What is special about the text."""
    ours: Sequence[int]
    """Without special tokens."""
    theirs: Sequence[int]
    """With those that the endpoint adds."""
    telling: bool = True
    """Whether a difference changes scores: not where only names of special tokens are read otherwise."""


def judged_tokenizer(name: str, texts: Sequence[Tokenized], leading: Sequence[int]) -> Finding:
    """Whether the tokenizer given is the endpoint's own.

    Args:
        name: of the probe.
        texts: both sides' ids.
        leading: ids that are put in front here.
    """
    fronts = [_front(each) for each in texts if each.telling]
    front = next((each for each in fronts if each is not None), None)
    other = [each.what for each in texts if not _fits(each, front)]
    telling = [each.what for each in texts if each.telling and not _fits(each, front)]
    measured = f"{len(texts) - len(other)} of {len(texts)} texts have the same ids here and there"
    value = len(other) / len(texts)
    if telling:
        return Finding(
            name,
            "wrong",
            f"{measured}; not those with {', '.join(telling)}",
            "The endpoint would be sent other text than is meant",
            "Give its own tokenizer: --tokenizer MODEL_HUB_ID, or --tokenizer endpoint",
            value,
        )
    if list(front or ()) != list(leading):
        return Finding(
            name,
            "warning",
            f"the same ids; in front of a text it puts {list(front or ())}, here that is {list(leading)}",
            "Contexts begin otherwise than the endpoint itself would begin them",
            "--bos says what is put in front",
            value,
        )
    if other:
        return Finding(
            name,
            "note",
            f"{measured}; not those with {', '.join(other)}",
            "Only texts that hold such names are read otherwise",
            value=value,
        )
    return Finding(name, "ok", measured, value=value)


_MOST_AROUND = 3
"""Special tokens on either side of a text, at most."""


def _front(each: Tokenized) -> tuple[int, ...] | None:
    """What stands there before the ids; None where these are not in it."""
    ours, theirs = list(each.ours), list(each.theirs)
    for n in range(min(_MOST_AROUND, len(theirs)) + 1):
        left = len(theirs) - n - len(ours)
        if 0 <= left <= _MOST_AROUND and theirs[n : n + len(ours)] == ours:
            return tuple(theirs[:n])
    return None


def _fits(each: Tokenized, front: tuple[int, ...] | None) -> bool:
    ours, found = list(each.ours), list(front or ())
    theirs = list(each.theirs)
    return front is not None and theirs[: len(found) + len(ours)] == [*found, *ours]


def judged_sampling(
    name: str, plainly: tuple[Values, Values], neutral: Values | None, moved: Mapping[str, Values]
) -> Finding:
    """Whether sampling fields move log-probabilities.

    Args:
        name: of the probe.
        plainly: values without any such field, as they are asked here; twice, first and last.
        neutral: values with fields that change nothing; None where they are refused.
        moved: values with fields that narrow what is drawn, by field.
    """
    plain, noise = plainly[0], apart(*plainly)
    if noise > NOISY:
        return not_checked(name, f"without any such field values differ by {nats(noise)} from time to time")
    own = 0.0 if neutral is None else apart(plain, neutral)
    if own > NOISY:
        return Finding(
            name,
            "wrong",
            f"with temperature 1 and top_p 1 values differ by {nats(own)} from those without",
            "The endpoint has sampling settings of its own, and its log-probabilities are those after them",
            "Have its defaults set to temperature 1 and top_p 1",
            own,
        )
    by_field = {field: apart(plain, values) for field, values in moved.items()}
    movers = {field: value for field, value in by_field.items() if value > NOISY}
    if not by_field:
        return Finding(name, "not checked", "it takes none of them")
    largest = max(by_field.values())
    if movers:
        told = ", ".join(f"{field} by {nats(value)}" for field, value in movers.items())
        return Finding(
            name,
            "note",
            f"they move log-probabilities: {told}",
            "None here, as no such field is sent; numbers got with one cannot be compared",
            value=largest,
        )
    return Finding(name, "ok", f"none of {', '.join(by_field)} moves log-probabilities", value=largest)


def judged_top(name: str, accepted: int, named: int, beyond: str) -> Finding:
    """How many alternatives an endpoint names.

    Args:
        name: of the probe.
        accepted: the largest `logprobs` that it took; 0: none.
        named: alternatives in the reply to that.
        beyond: what it said to more; empty where nothing larger was tried.
    """
    most = min(accepted, named) if accepted else 0
    limit = f"logprobs {accepted} is the largest it takes" if beyond else f"it takes logprobs {accepted}"
    measured = f"{limit} ({beyond})" if beyond else limit
    if named < accepted:
        measured += f", and names {named}"
    if most >= TOP_WANTED:
        return Finding(name, "ok", measured, value=most)
    if most >= TOP_NEEDED:
        said = "Letters are read off fewer alternatives, and more of them are forced on their own"
        return Finding(name, "note", measured, said, value=most)
    said = "Lettered items take a request a choice instead of one"
    return Finding(name, "warning", measured, said, "plan --no-shortcut says what that costs", most)
