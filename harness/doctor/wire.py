"""Probes: is what is sent read as it is meant, and what of the wire does the endpoint take."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence

from harness.dialects import Dialect
from harness.doctor.asking import Asking, values_of, why_not
from harness.doctor.findings import Finding, not_checked
from harness.doctor.judging import Values
from harness.doctor.judging_wire import (
    Counts,
    Tokenized,
    judged_prompt,
    judged_sampling,
    judged_tokenizer,
    judged_top,
)
from harness.doctor.probes import Probe
from harness.doctor.waking import stated_length
from harness.errors import EndpointRefused
from harness.exchange import Outcome, ScoreRequest
from harness.pairs import Tokenizes, Unencoded

PLAIN = "A plain sentence about rivers, hills and the sea"
"""For `prompt`: no tokenizer splits it in a way that is worth a thought."""
NAMES = "names of special tokens"
TEXTS = (
    ("words", PLAIN),
    ("spaces", " Two  spaces,\ttabs\nand   three lines\n\n of   it"),
    ("digits", "1234567890 3.14159 2,000,000 007"),
    ("accents", "na\u00efve fa\u00e7ade Gr\u00f6\u00dfe \u0141\u00f3d\u017a \u00e9\u00e8"),
    ("emoji", "\U0001f642\U0001f680 \U0001f468\u200d\U0001f469\u200d\U0001f467 \u00bd \u20ac"),
    (NAMES, "a <s> b </s> <|endoftext|> [INST] c"),
)
"""What tokenizers differ in, by what is special about the text."""
NEUTRAL = {"temperature": 1, "top_p": 1}
"""Fields that change nothing, whatever an endpoint does with them."""
NARROW = ({"temperature": 0.3}, {"top_p": 0.3}, {"temperature": 0})
"""Fields that narrow what would be drawn."""

LADDER = (1, 2, 5, 10, 20, 50, 100)
"""`logprobs` that are tried; between the last that is taken and the next the largest is looked for."""

LONGEST = 8192
"""Tokens that are tried where nobody said how many are meant to fit."""
SHORTEST = 256
REFUSED = ("400", "413", "422")
"""Reasons of failure that are a clear no."""
TRIES = 3
"""How often something is asked that is neither answered nor refused."""


async def reads_prompts(name: str, asking: Asking) -> Finding:
    """A text is read as the ids that it is here."""
    if not asking.takes_ids:
        return not_checked(name, "it is sent text anyway")
    if not takes_prompts(asking.varied):
        return not_checked(name, "of a text it echoes, the cut is found by count; ids are sent")
    if asking.tokenizer is None:
        return not_checked(name, "the tokenizer is the endpoint itself")
    ids = await _encoded(asking.tokenizer, PLAIN, whole=True)
    if isinstance(ids, Unencoded):
        return not_checked(name, ids.why)
    question = asking.questions[0]
    as_ids = await asking.score(asking.request(question, context=ids))
    fields = {"tokens": None, "prompt": PLAIN}
    as_text = await asking.score(asking.request(question, context=ids, fields=fields))
    if as_ids.reply is None:
        return not_checked(name, why_not(as_ids))
    why = f"it takes no text ({why_not(as_text)})" if as_text.reply is None else ""
    counts = Counts(len(ids), _counted(as_ids), _counted(as_text))
    return judged_prompt(name, as_ids.reply.token_logprobs, values_of(as_text), counts, why)


def takes_prompts(wire: Dialect) -> bool:
    """Whether a text may stand where ids do, apart from what is forced after it."""
    return wire.name == "friendli"


def _counted(outcome: Outcome) -> int | None:
    """Prompt tokens, as the endpoint counts them; None where it does not say."""
    return outcome.reply.usage.prompt_tokens if outcome.reply is not None else None


async def _encoded(tokenizer: Tokenizes, text: str, *, whole: bool) -> list[int] | Unencoded:
    """The ids of a text here; `whole`: with what is put in front."""
    encode = tokenizer.encode if whole else tokenizer.encode_plain
    return (await asyncio.to_thread(encode, [text]))[0]


async def has_tokenizer(name: str, asking: Asking) -> Finding:
    """The tokenizer given is the endpoint's own."""
    return await compared_tokenizers(name, asking, TEXTS)


async def compared_tokenizers(name: str, asking: Asking, texts: Sequence[tuple[str, str]]) -> Finding:
    """Whether some texts have the same ids here and there; `texts`: with what is special about each."""
    if asking.tokenizer is None:
        return not_checked(name, "the tokenizer is the endpoint itself")
    if asking.route is None:
        return not_checked(name, f"{asking.varied.name} endpoints have no tokenize route that is known here")
    found = []
    for what, text in texts:
        try:
            ours, theirs = await _encoded(asking.tokenizer, text, whole=False), await asking.ids_of(text)
        except EndpointRefused as error:  # the route is not there; that says nothing about scoring
            return not_checked(name, f"its tokenize route refuses ({error})")
        if isinstance(ours, Unencoded) or theirs.reply is None:
            why = ours.why if isinstance(ours, Unencoded) else why_not(theirs)
            return not_checked(name, f"its tokenize route does not answer ({why})")
        found.append(Tokenized(what, ours, theirs.reply.token_ids, what != NAMES))
    return judged_tokenizer(name, found, asking.tokenizer.leading)


async def ignores_sampling(name: str, asking: Asking) -> Finding:
    """Sampling fields do not move log-probabilities."""
    question = asking.questions[0]
    plain = values_of(await asking.score(asking.request(question)))
    if plain is None:
        return not_checked(name, "the question itself was not answered")
    neutral = values_of(await asking.score(asking.request(question, fields=NEUTRAL)))
    again = values_of(await asking.score(asking.request(question)))
    moved: dict[str, Values] = {}
    for fields in NARROW:
        values = values_of(await asking.score(asking.request(question, fields=fields)))
        if values is not None:
            moved[", ".join(f"{field} {value}" for field, value in fields.items())] = values
    return judged_sampling(name, (plain, again or plain), neutral, moved)


async def names_alternatives(name: str, asking: Asking) -> Finding:
    """The largest `logprobs` that is taken, and how many alternatives then come."""
    taken, refused, named, said = 0, 0, 0, ""
    for top in LADDER:
        outcome = await _with_top(asking, top)
        if outcome.reply is None and not _refused(outcome):
            return not_checked(name, f"logprobs {top} is neither taken nor refused ({why_not(outcome)})")
        if outcome.reply is None:
            refused, said = top, why_not(outcome)
            break
        taken, named = top, _named(outcome)
    while refused and refused - taken > 1:
        middle = (taken + refused) // 2
        outcome = await _with_top(asking, middle)
        if outcome.reply is None:
            refused, said = middle, why_not(outcome)
        else:
            taken, named = middle, _named(outcome)
    return judged_top(name, taken, named, f"{refused}: {said}" if refused else "")


async def _with_top(asking: Asking, top: int) -> Outcome:
    return await _answered(asking, lambda: asking.request(asking.questions[0], top=top))


async def _answered(asking: Asking, make: Callable[[], ScoreRequest]) -> Outcome:
    """A reply or a clear no; what fails otherwise is asked again, as it may be chance."""
    for _ in range(TRIES):
        outcome = await asking.score(make())
        if outcome.reply is not None or _refused(outcome):
            break
    return outcome


def _refused(outcome: Outcome) -> bool:
    return outcome.failure is not None and outcome.failure.reason in REFUSED


def _named(outcome: Outcome) -> int:
    top = outcome.reply.top_logprobs if outcome.reply is not None else None
    return min(map(len, top), default=0) if top else 0


# ------------------------------------------------------------------------------------------ the context limit


async def keeps_whole(name: str, asking: Asking) -> Finding:
    """What fits is read whole, and what does not is refused clearly."""
    if not asking.takes_ids:
        return not_checked(name, "texts have no known number of tokens there")
    stated, beyond_it = asking.max_length, []
    if stated is None and asking.management is not None:
        stated = await stated_length(asking.management, asking.client.call)
        beyond_it = [stated + 1] if stated is not None and stated < LONGEST else []
    most = min(stated or LONGEST, LONGEST)
    sizes = [*(size for size in _doubled(most) if size < most), most, *beyond_it]
    fits, outcome = 0, None
    for size in sizes:
        outcome = await _of_size(asking, size)
        if outcome.reply is None:
            break
        if (cut := _cut(name, outcome)) is not None:
            return cut
        fits = size
    assert outcome is not None
    if outcome.reply is not None:
        return Finding(name, "ok", f"{fits:,} tokens are read whole; more was not tried", value=fits)
    failure, beyond = why_not(outcome), size
    if not _refused(outcome) and (not fits or (outcome.failure and outcome.failure.reason == "protocol")):
        return not_checked(name, f"{beyond:,} tokens are neither taken nor refused ({failure})")
    if not _refused(outcome):
        return Finding(
            name,
            "warning",
            f"{fits:,} tokens are read, {beyond:,} are not refused but fail: {failure}",
            "Items that are too long would be tried again and again",
            f"--max-length {fits}",
            fits,
        )
    fits = await _exactly(asking, fits, beyond, failure)
    measured = f"{fits:,} tokens fit; more is refused ({failure})"
    if stated is not None and fits < stated:
        said = f"fewer than the {stated:,} that are stated; longer items would stay unscored"
        return Finding(name, "warning", measured, said, f"--max-length {fits}", fits)
    return Finding(name, "ok", measured, "Longer items stay unscored", f"--max-length {fits}", fits)


def _doubled(most: int) -> list[int]:
    sizes = [SHORTEST]
    while sizes[-1] < most:
        sizes.append(2 * sizes[-1])
    return sizes


async def _of_size(asking: Asking, size: int) -> Outcome:
    """What comes of a question of so many tokens, of which one is forced."""
    question = asking.questions[0]
    context = list(question.context_ids) or list(question.forced_ids)
    longer = (context * (size // len(context) + 1))[: size - 1]
    return await _answered(asking, lambda: asking.request(question, question.forced_ids[:1], context=longer))


def _cut(name: str, outcome: Outcome) -> Finding | None:
    """What is to be said of a reply to another context than was sent; None where it is the same."""
    said = _counted(outcome)
    sent = len(outcome.request.context_ids)
    if said is None or said >= sent:  # of OpenAI-style endpoints the forced token is one of the prompt
        return None
    return Finding(
        name,
        "wrong",
        f"of {sent:,} tokens of context it counted {said:,}",
        "It leaves out the beginning of long contexts without a word: other questions are scored than asked",
        f"--max-length {said}, or ask whoever runs it",
        said,
    )


async def _exactly(asking: Asking, fits: int, beyond: int, said: str) -> int:
    """The longest that fits, in a few requests: numbers in what the endpoint says are tried first."""
    for number in sorted({int(each) for each in re.findall(r"\d+", said.replace(",", ""))}):
        if fits < number < beyond and (await _of_size(asking, number)).reply is not None:
            fits = number
            break
    if fits + 1 < beyond and (await _of_size(asking, fits + 1)).reply is None:
        return fits
    while beyond - fits > 1:
        middle = (fits + beyond) // 2
        if (await _of_size(asking, middle)).reply is None:
            beyond = middle
        else:
            fits = middle
    return fits


PROBES = (
    Probe("prompt and tokens", reads_prompts),
    Probe("tokenizer", has_tokenizer),
    Probe("sampling fields", ignores_sampling),
    Probe("logprobs", names_alternatives),
    Probe("context limit", keeps_whole),
)
