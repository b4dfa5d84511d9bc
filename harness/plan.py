"""Encoded items to requests with stable keys; pure.

A key means one thing: this question, put to this endpoint, in this way. What it covers stands in
`KeyMaker`; whoever changes that changes `KEY_VERSION`, and older replies are then asked for anew.
"""

from __future__ import annotations

import json
import sys
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import Any

from harness.encoding import EncodedItem
from harness.exchange import ScoreRequest
from harness.items import BadItem, Item
from harness.prompts import Prompt
from harness.scoring.scores import AsideRecord, ItemRecord

KEY_VERSION = 1
FORCED, SINGLE = "forced", "single"
"""How the choices of an item are asked: all of a choice's tokens forced, in a request of its own; or, where
every choice is a single token of one context, with alternatives, which tell of the choices not forced."""

NO_ASIDES: Mapping[str, EncodedItem] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointIdentity:
    """What makes two endpoints the same: replies of one may answer for the other.

    Two endpoints of equal identity in a run are told apart by their replicate number.
    """

    dialect: str
    base_url: str
    model: str
    adapter: str
    replicate: int = 0

    def text(self) -> str:
        """One line of JSON, stable across runs and versions."""
        return json.dumps([self.dialect, self.base_url, self.model, self.adapter])

    def digest(self) -> str:
        """Eight hexadecimal digits for names of files."""
        return blake2b(self.text().encode(), digest_size=4).hexdigest()


@dataclass(frozen=True, slots=True)
class PlannedItem:
    """An item's record for the journal, and the requests it takes: one a choice, then those of its asides."""

    encoded: EncodedItem
    record: ItemRecord
    requests: tuple[ScoreRequest, ...]


class KeyMaker:
    """Keys of one endpoint: BLAKE2b of version, mode, endpoint, replicate, `top`, context, forced ids."""

    def __init__(self, identity: EndpointIdentity, again: str = "") -> None:
        """Fix what all keys of this endpoint share.

        Args:
            identity: of the endpoint.
            again: names what is asked beside the run and answers none of it: "sample 1", the first time that
                items are repeated; "seen 3", the third time that the model is looked at.
        """
        beside = [again] if again else []
        shared = {
            mode: json.dumps([KEY_VERSION, mode, identity.text(), identity.replicate, *beside])
            for mode in (FORCED, SINGLE)
        }
        self._shared = {mode: blake2b(text.encode(), digest_size=16) for mode, text in shared.items()}

    def keys(
        self, context_ids: Sequence[int], forced: Sequence[Sequence[int]], *, top: int = 0
    ) -> list[bytes]:
        """One key of 16 bytes for each continuation of one context; the context is hashed once.

        Args:
            context_ids: the context.
            forced: the continuations.
            top: alternatives asked for, so that single tokens can be read off them; 0: none are.
        """
        start = self._shared[SINGLE if top else FORCED].copy()
        start.update(_packed([top, len(context_ids)]))
        start.update(_packed(context_ids))
        keys = []
        for ids in forced:
            one = start.copy()
            one.update(_packed(ids))
            keys.append(one.digest())
        return keys


def plan_item(
    encoded: EncodedItem,
    ordinal: int,
    maker: KeyMaker,
    asides: Mapping[str, EncodedItem] = NO_ASIDES,
    top_of: Callable[[EncodedItem], int] = lambda encoded: 0,
) -> PlannedItem:
    """The requests of an item, and the record that scores will be computed from.

    Args:
        encoded: the item with its own prompt.
        ordinal: its position in the run.
        maker: of the endpoint that is asked.
        asides: what is asked beside, by name.
        top_of: how many alternatives to ask for; 0: each choice is forced in a request of its own.
    """
    if encoded.problem:
        problem = _record(encoded.prompt, ordinal, problem=encoded.problem, **_hashes(encoded))
        return PlannedItem(encoded, problem, ())
    top = top_of(encoded)
    requests = _requests(encoded, maker, top)
    beside = {name: _requests(each, maker, top_of(each)) for name, each in asides.items()}
    record = _record(
        encoded.prompt,
        ordinal,
        keys=tuple([request.key for request in requests]),
        n_tokens=tuple([len(request.forced_ids) for request in requests]),
        mode=SINGLE if top else FORCED,
        asides=tuple(
            AsideRecord(name, tuple([request.key for request in each]), asides[name].problem)
            for name, each in beside.items()
        ),
        **_hashes(encoded),
    )
    every = (*requests, *(request for each in beside.values() for request in each))
    return PlannedItem(encoded, record, every)


def listed(prompt: Prompt | BadItem, ordinal: int, shots: int = 0) -> ItemRecord:
    """The record of an item that a run asks for but has not planned yet (or never can: a bad row)."""
    if isinstance(prompt, BadItem):
        return ItemRecord(
            ordinal=ordinal,
            task=prompt.task,
            subject=prompt.subject,
            shots=shots,
            index=prompt.index,
            id="",
            gold=(),
            cluster="",
            n_chars=(),
            n_bytes=(),
            problem=prompt.problem,
        )
    return _record(prompt, ordinal)


def _record(prompt: Prompt, ordinal: int, **planned: Any) -> ItemRecord:
    """What is known of an item by itself, and what planning adds."""
    item = prompt.item
    measured = _measured(item)
    return ItemRecord(
        ordinal=ordinal,
        task=item.task,
        subject=item.subject,
        shots=prompt.shots,
        index=item.index,
        id=item.id,
        gold=item.gold,
        cluster=item.cluster,
        n_chars=tuple(map(len, measured)),
        n_bytes=tuple([len(text) if text.isascii() else len(text.encode()) for text in measured]),
        n_words=tuple([len(text.split()) or 1 for text in measured]),
        **planned,
    )


def _hashes(encoded: EncodedItem) -> dict[str, Any]:
    """Hexadecimal SHA-256 of the contexts, each hashed once."""
    first = encoded.prompt.first_context
    found = {each: sha256(each.encode()).hexdigest() for each in dict.fromkeys((first, *encoded.contexts))}
    return {"prompt_hash": found[first], "context_sha256": tuple([found[each] for each in encoded.contexts])}


def _measured(item: Item) -> list[str]:
    """The texts whose lengths normalise scores: the choices, or where these stand in the contexts (as in
    winogrande), what is forced after them."""
    if len({pair.context for pair in item.pairs}) > 1:
        return [pair.continuation.strip() for pair in item.pairs]
    return [pair.choice for pair in item.pairs]


def _requests(encoded: EncodedItem, maker: KeyMaker, top: int) -> list[ScoreRequest]:
    """One request a choice; runs of choices with the same context ids are hashed together."""
    requests: list[ScoreRequest] = []
    pairs = encoded.pairs
    start = 0
    while start < len(pairs):
        context = pairs[start].context_ids
        stop = start
        while stop < len(pairs) and (
            pairs[stop].context_ids is context or pairs[stop].context_ids == context
        ):
            stop += 1
        forced = [pair.forced_ids for pair in pairs[start:stop]]
        keys = maker.keys(context, forced, top=top)
        requests += [
            ScoreRequest(key, context, pair.forced_ids, top, pair.text)
            for key, pair in zip(keys, pairs[start:stop], strict=True)
        ]
        start = stop
    return requests


def _packed(ids: Sequence[int]) -> bytes:
    packed = array("I", ids)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()
