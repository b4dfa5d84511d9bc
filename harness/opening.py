"""What a run begins with: the count of what may be sent, its journals, its first prompts."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import astuple
from functools import partial
from itertools import islice
from math import ceil
from pathlib import Path

from harness.caps import Spending, Volume
from harness.earlier import Earlier
from harness.endpoints import Endpoint
from harness.errors import StoreError, UsageError
from harness.events import event
from harness.journal import Journal
from harness.layout import SHARD
from harness.manifest import EndpointRun, manifest
from harness.mending import mend
from harness.merging.spent import refuse_unmerged, sent_before, sent_outside
from harness.places import listing_digest, listing_file, shard_folder, shards_in, whole_of
from harness.prepare import Prepared
from harness.prices import caps_of
from harness.progress import Progress
from harness.prompts import Prompt
from harness.replies import StoredReplies
from harness.runs import PROMPTS_SHOWN, RunFolder, earlier_manifest, sends_now, whose
from harness.segments import Segment, beneath, keep_listing
from harness.sharding import Shard
from harness.suite import Suite


class Lost:
    """Told what breaks a run: stops it, and keeps why."""

    def __init__(self, stop: asyncio.Event) -> None:
        self.stop = stop
        self._said: list[str] = []

    def __call__(self, why: str) -> None:
        """Stop the run, for this reason."""
        event("broken", level=logging.ERROR, reason=why)
        self._said.append(why)
        self.stop.set()

    @property
    def why(self) -> str:
        """All of it, once each; empty where nothing broke."""
        return "; ".join(dict.fromkeys(self._said))


def spending_of(prepared: Prepared, stop: asyncio.Event) -> tuple[Earlier, Spending]:
    """What earlier sessions sent, and the count that goes on from there; `stop` is set when a cap is reached.

    Raises:
        UsageError: what earlier sessions left cannot be read.
    """
    names = {whose(each.identity): each.label for each in prepared.endpoints}
    try:
        before = sent_before(prepared.folder, names)
    except StoreError as error:
        raise UsageError(f"--out {prepared.folder}: {error}") from error

    def reached() -> None:
        event("cap", level=logging.WARNING, reason=spending.reason)
        stop.set()

    spending = Spending(
        caps_of(prepared.settings),
        hourly=prepared.prices.hourly,
        seconds=before.seconds,
        clock=time.monotonic,
        stop=reached,
    )
    before.count(spending, prepared.prices)
    if prepared.shard is not None:
        for label, volume in sent_outside(prepared.whole_folder, prepared.shard, names).items():
            spending.earlier(_part(volume, prepared.shard), prepared.prices.of(label))
    return before, spending


def _part(volume: Volume, shard: Shard) -> Volume:
    """What a shard counts of what was sent elsewhere: its part, and no less."""
    return Volume(*(ceil(each / shard.of) for each in astuple(volume)))


def folder_of(prepared: Prepared, place: Path, session: str) -> RunFolder:
    """The folder that this run writes, created or opened again; beside shards stands what all of them share.

    Args:
        prepared: the run, its tokenizers complete.
        place: of the whole run; named before endpoints said what their tokenizers are.
        session: tells who writes.

    Raises:
        UsageError: it cannot be used; or it is a shard's, and the run or another shard is of another suite;
            or it is a whole run's, and its shards have replies that are not merged.
    """
    shards, own = shards_in(place), place
    if prepared.shard is not None:
        for each in (place, *shards.values()):
            earlier_manifest(each, prepared.identity)
        own = shard_folder(place, prepared.shard)
    opened = RunFolder(own, prepared.identity, session, sends=True)
    try:
        _share(prepared, place, shards)
    except BaseException:
        opened.close()
        raise
    return opened


def _share(prepared: Prepared, place: Path, shards: Mapping[Shard, Path]) -> None:
    """See that the run and its shards send nothing twice, and have one list of items.

    Whoever comes has locked its own folder before: a shard sees that the run is at work.
    """
    if prepared.shard is None:
        refuse_unmerged(place)
    elif sends_now(place):
        raise UsageError(
            f"--out {place}: a run without --shard is working there; wait for it to end, so that nothing is"
            " asked twice"
        )
    if prepared.shard is not None or shards:
        try:
            keep_listing(prepared.whole.listing, listing_file(place, _listed(prepared)))
        except StoreError as error:
            raise UsageError(f"--out {place}: {error}") from error


def _listed(prepared: Prepared) -> str:
    """The digest of the list of all items."""
    said = manifest(prepared, "", 0.0)
    return listing_digest(prepared.identity.fields, said["settings"], said["tasks"])


def parts_of(prepared: Prepared, folder: RunFolder, journals: ExitStack) -> list[EndpointRun]:
    """Each endpoint with its journal, opened and told what this run asks for; `journals` closes them.

    Raises:
        UsageError: a journal cannot be used.
    """
    place = whole_of(folder.path)
    beneath = _beneath(prepared, place, prepared.shard) if place and prepared.shard else None
    return [_opened(prepared, endpoint, folder, journals, beneath) for endpoint in prepared.endpoints]


def _opened(
    prepared: Prepared, endpoint: Endpoint, folder: RunFolder, journals: ExitStack, beneath: Beneath | None
) -> EndpointRun:
    """Open an endpoint's journal and list in it what this run asks for."""
    identity = endpoint.identity
    name = f"{_slug(endpoint.wire_model or 'endpoint')}-{identity.digest()}"
    if identity.replicate:
        name += f"-r{identity.replicate}"
    meta = {"identity": identity.text(), "replicate": str(identity.replicate)}
    path, fsync = folder.journal(name), prepared.settings.fsync
    try:
        if beneath is None:
            journal = Journal(path, meta=meta, fsync=fsync)
        else:
            named = {**meta, SHARD: str(prepared.shard)}
            journal = Segment(path, meta=named, beneath=beneath(meta), fsync=fsync)
    except StoreError as error:
        raise UsageError(f"--out {folder.path}: {error}") from error
    journals.callback(journal.close)
    try:
        damaged = mend(path)
    except StoreError as error:
        raise UsageError(f"--out {folder.path}: {error}") from error
    if damaged:
        event("damaged", endpoint=endpoint.label, level=logging.WARNING, replies=damaged)
    asked = journal.begin(prepared.suite.listing)
    progress = Progress(endpoint.label, asked)
    return EndpointRun(endpoint, journal, progress, before=journal.stats(), damaged=damaged)


Beneath = Callable[[Mapping[str, str]], Sequence[StoredReplies]]
"""The journals of the run that may answer for an endpoint, by what they say of it."""


def _beneath(prepared: Prepared, place: Path, shard: Shard) -> Beneath:
    """Those in which replies to items of this shard may be."""
    listed, ordinals = _listed(prepared), prepared.suite.listing.ordinals()
    return partial(beneath, place, shard, listed, ordinals, now=time.time())


def first_prompts(suite: Suite) -> Iterator[Prompt]:
    """The first few prompts of each task."""
    for task in suite.tasks:
        yield from islice((each for each in task.prompts() if isinstance(each, Prompt)), PROMPTS_SHOWN)


def _slug(name: str) -> str:
    """A name fit for a file; the digest beside it tells names apart."""
    return re.sub(r"[^A-Za-z0-9.-]+", "_", name)[:60].strip("._") or "endpoint"
