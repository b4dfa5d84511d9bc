"""What single items ask, and one item whole: prompt, choices, tokens and what every endpoint said of them.

Texts come out of `texts.parquet`, sums out of the item table, tokens out of the journals: of the item that is
opened, and of no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from harness.columnar import journal_of
from harness.comparison.columns import Place
from harness.comparison.ragged import ragged
from harness.inert import inert
from harness.replies import StoredReplies
from harness.reports.documents import Shelf, Spoken, asked, documents, last_paragraph, plain
from harness.reports.wording import Words, wordings
from harness.scoring.scores import ItemRecord
from harness.sources import Sources
from harness.stored import Run, TextKey
from harness.viewing.itemtable import NOT_ASKED, SCORED, ItemTable
from harness.viewing.rows import rows_of

SEARCH_SECONDS = 5.0
"""So long questions are searched for words; what lies behind is not, and that is said."""


@dataclass(frozen=True, slots=True)
class Searched:
    """Which items ask something with the words."""

    found: NDArray[np.bool_]
    """Shape (items,)."""
    whole: bool
    """Whether all questions were looked at."""


@dataclass(slots=True)
class Library:
    """The texts behind a table of items; tokenizers are read once."""

    sources: Sources
    table: ItemTable
    _words: dict[str, Mapping[str, Words]] = field(default_factory=dict)
    """By the folder of a run."""

    def questions(self, positions: Sequence[int]) -> dict[int, str]:
        """What these items ask, each in one short line; those whose texts are not stored are left out."""
        wanted = {_key(self.table.place(at)): at for at in positions}
        found: dict[int, str] = {}
        for run in self.sources.runs:
            if len(found) < len(wanted):
                for key, context, _ in run.texts_of(wanted):
                    found.setdefault(wanted[key], asked(context))
        return found

    def search(self, words: str, clock: Callable[[], float] = time.monotonic) -> Searched:
        """Look for words in what all items ask, as long as there is time."""
        positions = _Positions(self.table)
        found = np.zeros(len(self.table), np.bool_)
        ends = clock() + SEARCH_SECONDS
        low = words.casefold()
        for run in self.sources.runs:
            for tasks, subjects, indices, contexts in _first_contexts(run, words):
                like = [low in last_paragraph(context).casefold() for context in contexts]
                found[positions.of(tasks, subjects, indices, like)] = True
                if clock() > ends:
                    return Searched(found, False)
        return Searched(found, True)

    def item(self, at: int) -> dict[str, Any]:
        """One item as `items.js` draws it.

        Raises:
            StoreError: a table or a journal cannot be read.
        """
        table, place = self.table, self.table.place(at)
        return {
            "task": inert(place.task),
            "subject": inert(place.subject),
            "shots": place.shots,
            "index": place.index,
            "id": _own_id(table, at),
            "gold": table.golds([at])[0],
            "choices": int(table.choices[at]),
            "endpoints": [self._end(number, at) for number in range(len(table.ends))],
            "documents": [plain(each) for each in self._documents(place, at)],
        }

    def _end(self, number: int, at: int) -> dict[str, Any]:
        run, column = self.sources.ends[number].run, self.table.ends[number]
        row = int(column.row[at])
        sums = rows_of(run, [row], ["sums"])[0]["sums"] if run and row >= 0 else None
        return {**cell(self.table, number, at), "label": inert(column.label), "sums": sums or []}

    def _documents(self, place: Place, at: int) -> Iterator[Any]:
        shelves = [Shelf(run, {_key(place): place}, self._words_of(run)) for run in self.sources.runs]
        said = [self._spoken(number, place, at) for number in range(len(self.sources.ends))]
        for _, document in documents(shelves, said, {place}):
            yield document

    def _words_of(self, run: Run) -> Mapping[str, Words]:
        name = str(run.folder)
        if name not in self._words:
            self._words[name] = wordings(run)
        return self._words[name]

    def _spoken(self, number: int, place: Place, at: int) -> Spoken:
        """What one endpoint said of the tokens of one item; nothing where its journal is gone."""
        end, label = self.sources.ends[number], self.sources.labels[number]
        tokenizer = tokenizer_of(end.run, end.label)
        if end.run is not None:
            with journal_of(end.run, end.label) as journal:
                logprobs = _logprobs(journal, place, self._ordinal(number, at)) if journal else []
            if logprobs:
                return Spoken(label, tokenizer, ragged(logprobs, np.float64), {place: (0, len(logprobs))})
        return Spoken(label, tokenizer, None, {})

    def _ordinal(self, number: int, at: int) -> int:
        """Where the item stands among all that the endpoint was asked, most likely."""
        rows = self.table.ends[number].row
        return int(rows[at] - rows[rows >= 0].min(initial=rows[at]))


def cell(table: ItemTable, number: int, at: int) -> dict[str, Any]:
    """What the table of items shows of an item on one endpoint."""
    end = table.ends[number]
    reason = int(end.reason[at])
    flips = table.flips(number, np.array([at])) if number else ()
    flip = next((kind for kind, mask in zip(_FLIPS, flips, strict=False) if mask[0]), "")
    return {
        "value": _number(end.value[at]),
        "prediction": int(end.prediction[at]),
        "margin": _number(end.margin[at]),
        "unscored": None if reason == NOT_ASKED else "" if reason == SCORED else inert(table.reasons[reason]),
        "flip": flip,
    }


_FLIPS = ("wrong to right", "right to wrong", "wrong to other wrong")


def tokenizer_of(run: Run | None, label: str) -> str:
    """The hash of an endpoint's tokenizer; empty where unknown."""
    endpoints = run.manifest.get("endpoints", ()) if run else ()
    return next(
        (str(each.get("tokenizer_sha256") or "") for each in endpoints if each.get("label") == label), ""
    )


def lines(table: ItemTable, positions: Sequence[int], questions: Mapping[int, str]) -> list[dict[str, Any]]:
    """Lines of the table of items; what they ask by position, as far as it is known."""
    return [
        {
            "at": at,
            "task": inert((place := table.place(at)).task),
            "subject": inert(place.subject),
            "index": place.index,
            "id": _own_id(table, at),
            "gold": gold,
            "question": inert(questions.get(at, "")),
            "endpoints": [cell(table, number, at) for number in range(len(table.ends))],
        }
        for at, gold in zip(positions, table.golds(positions), strict=True)
    ]


class _Positions:
    """Where items stand in a table, by task, subject and index."""

    def __init__(self, table: ItemTable) -> None:
        self._tasks = {name: number for number, name in enumerate(table.tasks)}
        self._subjects = {name: number for number, name in enumerate(table.subjects)}
        self._keys = self._packed(table.task, table.subject, table.index)
        self._order = np.argsort(self._keys, kind="stable")
        self._sorted = self._keys[self._order]

    def of(
        self, tasks: Sequence[str], subjects: Sequence[str], indices: Sequence[int], like: Sequence[bool]
    ) -> NDArray[np.int64]:
        """Of those that are to be found; an item asked with several numbers of shots stands in several."""
        named = [
            (self._tasks[task], self._subjects[subject], index)
            for task, subject, index, one in zip(tasks, subjects, indices, like, strict=True)
            if one and task in self._tasks and subject in self._subjects
        ]
        if not named:
            return np.zeros(0, np.int64)
        keys = self._packed(*np.array(named, np.int64).T)
        first, last = (np.searchsorted(self._sorted, keys, side=side) for side in ("left", "right"))
        return np.concatenate([self._order[a:b] for a, b in zip(first, last, strict=True)])

    @staticmethod
    def _packed(task: NDArray[Any], subject: NDArray[Any], index: NDArray[Any]) -> NDArray[np.int64]:
        return (task.astype(np.int64) << 52) ^ (subject.astype(np.int64) << 36) ^ index.astype(np.int64)


def _first_contexts(run: Run, words: str) -> Iterator[tuple[list[str], list[str], list[int], list[str]]]:
    """Task, subject, index and first context of the items whose first context has some words; in pieces."""
    from pyarrow import compute, parquet

    if not (run.folder / "texts.parquet").exists():
        return
    columns = ["task", "subject", "index", "contexts"]
    with run.reading("texts.parquet") as path, parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(1024, columns=columns):
            first = compute.list_element(batch["contexts"], 0)
            like = compute.match_substring(first, words, ignore_case=True)
            kept = [batch["task"], batch["subject"], batch["index"], first]
            tasks, subjects, indices, contexts = (each.filter(like).to_pylist() for each in kept)
            yield tasks, subjects, indices, contexts


def _logprobs(journal: StoredReplies, place: Place, ordinal: int) -> list[tuple[float, ...]]:
    """Token log-probabilities of each choice of an item; nothing unless all are there."""
    record = _record(journal, place, ordinal)
    if record is None:
        return []
    found = journal.logprobs(record.keys)
    told = [found[key] for key in record.keys if key in found]
    return told if len(told) == len(record.keys) else []


def _record(journal: StoredReplies, place: Place, ordinal: int) -> ItemRecord | None:
    """What was asked for an item: where it most likely stands, else wherever it does."""
    for each in journal.records_of([ordinal]):
        if (each.task, each.subject, each.index) == _key(place):
            return each
    return journal.records_at({_key(place)}).get(_key(place))


def _key(place: Place) -> TextKey:
    return place.task, place.subject, place.index


def _own_id(table: ItemTable, at: int) -> str:
    """An item's own id, unless it says no more than its index."""
    name = str(table.ids[at].as_py() or "")
    return "" if name == str(table.index[at]) else inert(name)


def _number(value: Any) -> float | None:
    """JSON has no NaN."""
    return None if value != value else round(float(value), 4)
