"""What a journal knows of looks at its endpoint: when they were, what came of them, what else was found.

One row of the table `meta` says it, as JSON; the replies themselves stand in `replies`, under keys of their
own.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import msgspec

from harness.encoding import EncodedItem
from harness.exchange import ScoreRequest
from harness.journal import Journal
from harness.layout import SHARD, WATCHED
from harness.plan import EndpointIdentity, KeyMaker, plan_item
from harness.replies import StoredReplies
from harness.watching.chosen import START
from harness.watching.judging import Difference, Finding, Floor, Look, applied, drift, unproven
from harness.watching.noise import Noise

NUMBERS = 1_000_000
"""Looks of a whole run, and of each shard, that have numbers of their own."""


class Seen(msgspec.Struct, frozen=True):
    """A look that was begun; its number is in the keys of its requests."""

    number: int
    moment: str
    at: int
    """Seconds since the epoch."""
    of_base: bool = False
    """At the base model, on behalf of the adapter that the journal is of."""


class Proof(msgspec.Struct, frozen=True):
    """An adapter held against its base."""

    moment: str
    at: int
    found: Difference | None = None
    why: str = ""
    """Why it could not be, or empty."""


class Kept(msgspec.Struct, frozen=True):
    """All that is kept."""

    seen: tuple[Seen, ...] = ()
    proofs: tuple[Proof, ...] = ()
    noise: Noise | None = None

    def floor(self, items: int) -> Floor:
        """What a look at so many items may differ by without a reason."""
        return self.noise.floor(items) if self.noise else Floor()


def first_number(journal: StoredReplies) -> int:
    """One less than the first number of a look that the journal itself is of: shards have numbers of their
    own, so that no two looks of a run ever have the same."""
    shard = journal.meta.get(SHARD)
    if shard is None:
        return 0
    number, _, of = shard.partition("/")
    return (int(of) * (int(of) - 1) // 2 + int(number)) * NUMBERS


def kept(journal: StoredReplies) -> Kept:
    """What a journal has; nothing where an earlier version of this wrote it otherwise."""
    try:
        return msgspec.json.decode(journal.meta.get(WATCHED, "{}"), type=Kept)
    except msgspec.MsgspecError:
        return Kept()


def joined(every: Iterable[Kept]) -> Kept:
    """What several journals of one endpoint have, as one, whatever their order."""
    found = list(every)
    seen = {each for one in found for each in one.seen}
    proofs = {msgspec.json.encode(each): each for one in found for each in one.proofs}
    noises = [one.noise for one in found if one.noise]
    return Kept(
        seen=tuple(sorted(seen, key=lambda each: (each.at, each.number, each.moment))),
        proofs=tuple(sorted(proofs.values(), key=lambda each: (each.at, msgspec.json.encode(each)))),
        noise=max(noises, key=lambda each: (each.items, msgspec.json.encode(each)), default=None),
    )


def begin_look(journal: Journal, moment: str, at: float, *, of_base: bool = False) -> int:
    """Note a look before anything is asked, so that its number is never used again; the number."""
    known = kept(journal)
    first = first_number(journal)
    numbers = (each.number for each in known.seen if first <= each.number < first + NUMBERS)
    number = 1 + max(numbers, default=first)
    _keep(journal, msgspec.structs.replace(known, seen=(*known.seen, Seen(number, moment, int(at), of_base))))
    return number


def keep_proof(journal: Journal, proof: Proof) -> None:
    """Keep how an adapter was held against its base."""
    known = kept(journal)
    _keep(journal, msgspec.structs.replace(known, proofs=(*known.proofs, proof)))


def keep_noise(journal: Journal, noise: Noise) -> None:
    """Keep what repeating items showed, in place of what was kept before."""
    _keep(journal, msgspec.structs.replace(kept(journal), noise=noise))


def requests_of_look(
    encoded: Sequence[EncodedItem], identity: EndpointIdentity, number: int
) -> list[ScoreRequest]:
    """What is asked in a look: every choice of every item, forced."""
    maker = KeyMaker(identity, f"seen {number}")
    return [request for each in encoded for request in plan_item(each, 0, maker).requests]


def findings(
    journal: StoredReplies, identity: EndpointIdentity, encoded: Sequence[EncodedItem]
) -> list[Finding]:
    """What all looks so far say, those of earlier sessions too."""
    known = kept(journal)
    floor = known.floor(len(encoded))
    found = [_judged(each, floor) for each in known.proofs]
    if known.noise:
        found.append(known.noise.finding())
    looks = []
    for seen in known.seen:
        if not seen.of_base:
            requests = requests_of_look(encoded, identity, seen.number)
            stored = journal.logprobs([each.key for each in requests])
            looks.append(Look(_when(seen), [stored.get(each.key) for each in requests]))
    answered = [each for each in looks if any(values is not None for values in each.values)]
    return [*found, *drift(answered, floor)]


def _judged(proof: Proof, floor: Floor) -> Finding:
    when = _when(proof)
    if proof.found is None:
        return unproven(when, proof.why)
    return applied(proof.found, when, floor, before=proof.moment == START)


def _when(each: Seen | Proof) -> str:
    return f"{each.moment} of {time.strftime('%Y-%m-%d %H:%M:%SZ', time.gmtime(each.at))}"


def _keep(journal: Journal, known: Kept) -> None:
    journal.note_watched(msgspec.json.encode(known).decode())
