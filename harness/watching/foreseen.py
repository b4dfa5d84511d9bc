"""What is asked beside a run, counted before anything is: for `plan`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.dialects import dialect
from harness.doctor.brief import PROBED_ITEMS, taken
from harness.doctor.brief import RESERVE as PROBE_RESERVE
from harness.encoding import encode_prompts
from harness.endpoints import Endpoint
from harness.exchange import ScoreRequest
from harness.forecast import Forecast
from harness.plan import KeyMaker
from harness.planning import first_questions, planned
from harness.prepare import Prepared, asked_of
from harness.prices import caps_of
from harness.replies import StoredReplies
from harness.shortcut import is_single, merged
from harness.watching.family import LOOKS_AT_BASE
from harness.watching.kept import requests_of_look
from harness.watching.session import looked_at, moments_of, sample_of, whom
from harness.watching.watch import RESERVE, SAMPLE


def looks(prepared: Prepared) -> Mapping[str, int]:
    """How often items are looked at, by label; at a base that the run does not ask, by that of its first
    adapter."""
    found = {each.label: len(moments_of(prepared, each)) for each in prepared.endpoints}
    bases = {whom(each) for each in prepared.endpoints if not each.adapter}
    for each in prepared.endpoints:
        if found[each.label] and whom(each) not in bases:
            bases.add(whom(each))
            found[each.label] += LOOKS_AT_BASE
    return found


def requests_of_probe(prepared: Prepared, endpoint: Endpoint) -> list[ScoreRequest]:
    """What the brief probe of a session asks; nothing where caps leave too little room for it."""
    asked = asked_of(prepared, endpoint)
    for items in PROBED_ITEMS if prepared.settings.probe else ():
        for question in first_questions(prepared.suite, asked, items):
            if question.context_ids:
                tokenizer = prepared.tokenizers[endpoint.label]
                requests = taken(question, dialect(endpoint.dialect), tokenizer)
                return [] if _too_dear(prepared, endpoint, PROBE_RESERVE * requests) else requests
    return []


def requests_of_looks(prepared: Prepared, endpoint: Endpoint) -> list[ScoreRequest]:
    """What all looks of a session ask; nothing where caps leave too little room for them."""
    times = looks(prepared)[endpoint.label]
    if not times:
        return []
    asked = asked_of(prepared, endpoint)
    encoded = encode_prompts(
        looked_at(prepared), asked.tokenizer, asked.bound, chat=asked.chat, as_text=asked.as_text
    )
    requests = times * requests_of_look(encoded, endpoint.identity, 0)
    return [] if _too_dear(prepared, endpoint, RESERVE * requests) else requests


def requests_of_sample(prepared: Prepared, endpoint: Endpoint, top: int) -> Iterator[list[ScoreRequest]]:
    """What repeating the sample asks, choice by choice, in batches; `top` as of the run itself."""
    sample = sample_of(prepared)
    if sample is not None:
        for batch in planned(
            sample, asked_of(prepared, endpoint), lambda item: top if is_single(item) else 0
        ):
            requests = (request for item in batch.items for request in item.requests)
            yield list({each.key: each for each in requests}.values())


def still_to_repeat(
    requests: Sequence[ScoreRequest], endpoint: Endpoint, journal: StoredReplies | None
) -> list[ScoreRequest]:
    """Those of them that were not repeated yet, as they will be sent."""
    maker = KeyMaker(endpoint.identity, SAMPLE)
    keys = [maker.keys(each.context_ids, [each.forced_ids], top=each.top)[0] for each in requests]
    answered = journal.answered(keys) if journal is not None else set()
    return merged([each for each, key in zip(requests, keys, strict=True) if key not in answered])


def _too_dear(prepared: Prepared, endpoint: Endpoint, reserve: Sequence[ScoreRequest]) -> bool:
    """Whether a run that begins would not be left so much by its caps."""
    forecast = Forecast()
    forecast.add(reserve)
    volume = forecast.volume
    cost = prepared.prices.of(endpoint.label).of(volume)
    return bool(caps_of(prepared.settings).beyond(volume.requests, volume.tokens, cost))
