"""`merge`: what the shards of a run have, put together into the run; no request is sent.

It may be given at any time, and again: shards that are still at work, or not there, are told. What the run's
folder holds is never lost, and whoever is killed meanwhile begins anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from secrets import token_hex
from threading import Event
from typing import TYPE_CHECKING

import msgspec

from harness.earlier import journals_in
from harness.errors import StoreError, UsageError
from harness.files import file_errors
from harness.layout import SHORTCUT
from harness.manifest import Exit
from harness.merging.folding import fold
from harness.merging.parts import Parts, parts_in, told_lacking, told_strays, whose_of
from harness.merging.records import Outcome, checks_of, counts_of, first_record, last_record, remarks_of
from harness.merging.said import Document
from harness.merging.texts import join_texts
from harness.places import listing_file, shards_in
from harness.remarks import told_counted, told_greedy, told_read, told_ties, told_tokens
from harness.replies import StoredReplies
from harness.runs import RunFolder, SuiteIdentity, Whose, write_whole
from harness.scoring.scores import NOT_TRIED, ItemScore
from harness.stored import StoredTask
from harness.tables import TaskTable, write_results
from harness.watching.findings import undocumented, write_checks

if TYPE_CHECKING:
    import pandas as pd

_LACKS = (
    "All shards are complete, yet items are lacking: they were asked on other endpoints, or a journal was"
    " changed; give the commands of all shards again, with the same endpoints: nothing is sent twice"
)
"""What is said where nothing else explains it."""
AT_ONCE = 2
"""Endpoints whose journals are folded at the same time."""


@dataclass(frozen=True, slots=True)
class Merge:
    """What came of it."""

    folder: Path
    accuracy: pd.DataFrame
    """The rows of `scores.csv`."""
    exit: Exit
    shards: int
    """That were put together."""
    untried: int
    """Items that were not asked, or not to the end, over all endpoints."""
    told: Sequence[str]
    """Which shards are not there or not complete, one sentence each; then what else must be known."""


def merge(folder: Path) -> Merge:
    """Put together what the shards of a run have.

    Args:
        folder: of the run, in which `shards/` is.

    Raises:
        UsageError: there are no shards, they are of different suites, or somebody works in the folder.
        StoreError: a file cannot be read or written.
    """
    if not shards_in(folder):
        raise UsageError(f"{folder}: no shards are there; run --shard I/N --out {folder} makes them")
    parts = parts_in(folder, time.time())
    identity = SuiteIdentity(parts.last.document["identity"])
    _same_suite(parts, identity)
    endpoints = parts.endpoints()
    listing = listing_file(folder, parts.listed)
    if not listing.exists():
        raise UsageError(
            f"{listing}: is missing; any of the shards writes it anew when its command is given once more"
        )
    with RunFolder(folder, identity, token_hex(4)) as opened:
        first = first_record(parts, endpoints, str(folder))
        opened.write_manifest(first)
        _fold_all(opened, parts, endpoints, listing)
        return _concluded(opened, parts, first)


def _same_suite(parts: Parts, identity: SuiteIdentity) -> None:
    for part in parts.newest_first:
        differs = identity.difference(part.document["identity"])
        if differs:
            raise UsageError(
                f"{part.place.folder}: is of another suite than {parts.last.place.folder}: {differs}; move"
                " away the one that is wrong"
            )


def _fold_all(opened: RunFolder, parts: Parts, endpoints: Sequence[Document], listing: Path) -> None:
    """All journals, each endpoint's into one."""
    files: dict[Whose, list[Path]] = {}
    for part in parts.shards:
        with journals_in(part.place.folder) as found:
            for whose, journal in found.items():
                files.setdefault(whose, []).append(journal.path)
    with journals_in(opened.path) as found:
        there = {whose: journal.path for whose, journal in found.items()}

    stop = Event()

    targets = {whose: there.get(whose) or opened.journal(found[0].stem) for whose, found in files.items()}
    _each_its_own(targets | there, files)

    def fold_one(whose: Whose) -> None:
        if target := targets.get(whose) or there.get(whose):
            meta = {"identity": whose[0], "replicate": whose[1]}
            fold(target, files.get(whose, ()), listing, meta, stop.is_set)

    with ThreadPoolExecutor(AT_ONCE) as pool, _stopping(stop):  # SQLite works without the interpreter lock
        list(pool.map(fold_one, dict.fromkeys((*map(whose_of, endpoints), *files))))


def _each_its_own(targets: Mapping[Whose, Path], files: Mapping[Whose, Sequence[Path]]) -> None:
    """Refuse journals of one name that say they are of different endpoints: their names tell these apart."""
    first: dict[Path, Whose] = {}
    for whose, target in targets.items():
        other = first.setdefault(target, whose)
        if other != whose:
            one, two = (files[each][0] if each in files else target for each in (other, whose))
            raise StoreError(f"{one} and {two} are of different endpoints, by what they say; move away one")


@contextmanager
def _stopping(stop: Event) -> Iterator[None]:
    """Break off what threads do as soon as something is raised here: Ctrl-C waits for no end of theirs."""
    try:
        yield
    except BaseException:
        stop.set()
        raise


def _concluded(opened: RunFolder, parts: Parts, first: Document) -> Merge:
    """The tables, and last of all what the run now is."""
    folder, said = opened.path, parts.last.document
    tasks = _tables(said["tasks"])
    with ExitStack() as files:
        journals = files.enter_context(journals_in(folder))
        asked = {each["label"]: each for each in first["endpoints"] if whose_of(each) in journals}
        counting = {label: _Counting(journals[whose_of(each)]) for label, each in asked.items()}
        if not counting:
            raise UsageError(f"{folder}: none of its shards has a journal yet; give the command again later")
        shards = sorted(parts.shards, key=lambda each: each.begun, reverse=True)
        texts = [each.place.folder / "texts.parquet" for each in shards]
        target, journal = folder / "texts.parquet", next(iter(counting.values())).journal.path
        with ThreadPoolExecutor(1) as beside, _stopping(stop := Event()):
            joining = beside.submit(join_texts, target, [*texts, target], journal, stop.is_set)
            scores = {label: each.scores() for label, each in counting.items()}
            accuracy = write_results(folder, scores, tasks)
            joining.result()
        outcomes = {label: each.outcome() for label, each in counting.items()}
        remarks = [*remarks_of(parts), *_numbered(asked, counting, outcomes, parts)]
    checks = {label: checks_of(parts, label) for label in asked}
    write_checks(folder, {label: undocumented(each) for label, each in checks.items()})
    remarks += [*told_greedy(accuracy), *told_ties(accuracy)]
    _prompts(folder, parts)
    unscored = int(accuracy["unscored"].sum())
    code = Exit.UNSCORED if unscored else Exit.DONE
    first = {**first, "endpoints": list(asked.values())}
    record = last_record(first, parts, outcomes, status=code.status, checks=checks, remarks=remarks)
    opened.write_manifest(record)
    untried = sum(each.untried for each in counting.values())
    told = [f"Shard {each.shard}: at work on {each.stated.heartbeat.host}" for each in parts.elsewhere]
    told += [f"Shard {each.shard} is left out. {each}" for each in parts.unread]
    told += [*told_lacking(parts.lacking())] if unscored else []
    told += [*told_strays(parts)] if untried else []
    told += [_LACKS] if untried and not told else []
    return Merge(folder, accuracy, code, len(parts.shards), untried, [*told, *remarks])


@dataclass(slots=True)
class _Counting:
    """Counts the scores of one endpoint as they are read."""

    journal: StoredReplies
    items: int = 0
    unscored: int = 0
    untried: int = 0

    def scores(self) -> Iterator[ItemScore]:
        """All of them, in order."""
        for score in self.journal.scores():
            self.items += 1
            self.unscored += bool(score.unscored)
            self.untried += score.unscored == NOT_TRIED
            yield score

    def outcome(self) -> Outcome:
        """What came of it, once all are read."""
        noted = self.journal.meta.get(SHORTCUT)
        said = json.loads(noted) if noted else None
        return Outcome(
            items=self.items,
            done=self.items - self.untried,
            unscored=self.unscored - self.untried,
            stats=self.journal.stats(),
            shortcut={"used": "why" not in said, **said} if said else None,
        )


def _tables(said: Mapping[str, Document]) -> list[TaskTable]:
    """What the tables need to know of the tasks, as the last session had them."""
    tasks = {name: msgspec.convert(each, StoredTask) for name, each in said.items()}
    return [
        TaskTable(name=name, shots=each.shots, metrics=each.metrics, groups=each.groups, asides=each.asides)
        for name, each in tasks.items()
    ]


def _numbered(
    asked: Mapping[str, Document],
    counting: Mapping[str, _Counting],
    outcomes: Mapping[str, Outcome],
    parts: Parts,
) -> Iterable[str]:
    """The remarks that count something, counted over all shards; and what was found beside the items."""
    settings = parts.last.document["settings"]
    for label, endpoint in asked.items():
        journal, outcome = counting[label].journal, outcomes[label]
        counts = counts_of(parts, label, outcome)
        shifted, truncated = counts["boundary_shifted_items"], counts["truncated_items"]
        yield from told_tokens(label, shifted, truncated, settings["max_length"])
        if outcome.stats.read and outcome.shortcut and outcome.shortcut["used"]:
            yield from told_read(label, outcome.shortcut, outcome.stats.read)
        yield from told_counted(label, endpoint["dialect"], journal)


def _prompts(folder: Path, parts: Parts) -> None:
    """The first prompts, which are the same in all shards."""
    for part in parts.newest_first:
        source = part.place.folder / "prompts.txt"
        if source.exists():
            if part.place.shard:
                with file_errors(source):
                    text = source.read_text(encoding="utf-8", errors="replace")
                write_whole(folder / "prompts.txt", text)
            return
