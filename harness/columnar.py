"""Stored runs to columns for comparison: sums from the item table, tokens from the journal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from harness.comparison.columns import Columns, Place, Stop, TaskFacts, Tokens, compared_metrics
from harness.comparison.ragged import Ragged
from harness.errors import StoreError
from harness.journalfile import begun
from harness.layout import KEY_BYTES, SHORTCUT
from harness.replies import StoredReplies
from harness.scoring.metrics import METRICS
from harness.scoring.scores import NOT_ASKED, NOT_TRIED, ItemRecord
from harness.shortcut import SAME
from harness.stored import WAY_OUT, Run

if TYPE_CHECKING:
    import pyarrow as pa

_Number = TypeVar("_Number", bound=np.generic)

_COLUMNS = (
    *("task", "shots", "subject", "index", "id", "gold", "cluster"),
    *("prompt_hash", "sums", "n_chars", "n_bytes", "n_tokens", "mode", "unscored"),
)
"""Columns of the item table that a comparison needs, beside those of metrics."""
_DIVISORS = {"acc_norm": "n_chars", "acc_bytes": "n_bytes", "acc_token": "n_tokens"}
"""What metrics divide a sum by."""
_RECORD = (
    *("task", "subject", "shots", "index", "id", "gold", "cluster"),
    *("prompt_hash", "context_sha256", "n_tokens", "n_chars", "n_bytes", "n_words"),
)
"""Columns of the item table that are fields of `ItemRecord`."""


def task_facts(run: Run) -> tuple[TaskFacts, ...]:
    """The run's tasks, in the order of its tables.

    Raises:
        StoreError: an earlier version made the run, and did not write down what a comparison needs.
    """
    for name, task in run.stored.tasks.items():
        if not task.metrics:
            raise StoreError(f"{run.folder}: an earlier version made this run of {name}; {WAY_OUT}")
    return tuple(TaskFacts(name, task.metrics, task.groups) for name, task in run.stored.tasks.items())


def columns_of(run: Run, label: str, *, called: str = "", repeated: bool = False) -> Columns:
    """One endpoint's scores, with token log-probabilities where the journal has them.

    Args:
        run: the run.
        label: the endpoint's, in the run.
        called: what it is called in the comparison; by default its label.
        repeated: of the items that were scored a second time, what came then; without tokens, and without
            metrics that the run has since then only.

    Raises:
        UsageError: the run has no such endpoint.
        StoreError: its tables or its journal cannot be read.
    """
    endpoint = run.endpoint(label)
    metrics = compared_metrics({name for task in task_facts(run) for name in task.metrics})
    if repeated:
        there = run.repeated_columns
        metrics = [name for name in metrics if there & {f"correct_{name}", f"value_{name}"}]
    predicting = [name for name in metrics if METRICS[name].predicts]
    values = {name: f"{'correct' if METRICS[name].predicts else 'value'}_{name}" for name in metrics}
    predictions = {name: f"prediction_{name}" for name in predicting}
    wanted = (*_COLUMNS, *values.values(), *predictions.values())
    table = run.item_table(label, wanted, repeated=repeated)
    named = (table[name].to_pylist() for name in ("task", "shots", "subject", "index"))
    places = [Place(*each) for each in zip(*named, strict=True)]
    sums = _lists(table["sums"], np.float64)
    return Columns(
        label=called or label,
        identity=f"{endpoint.identity} {run.folder.resolve()}",
        replicate=endpoint.replicate,
        places=places,
        ids=table["id"].to_pylist(),
        prompt_hash=table["prompt_hash"].to_pylist(),
        cluster=table["cluster"].to_pylist(),
        gold=_lists(table["gold"], np.int64),
        choice_bytes=_lists(table["n_bytes"], np.int64),
        scored=sums.lengths > 0,
        sums=sums,
        predictions={name: _numbers(table[each], -1).astype(np.int64) for name, each in predictions.items()},
        values={name: _numbers(table[each], np.nan) for name, each in values.items()},
        divisors={name: _lists(table[column], np.int64) for name, column in _DIVISORS.items()},
        tokens=None if repeated else _tokens(run, label, places, sums),
        stopped=_stopped(run, table),
        modes=None if _shown_equal(run, label) else [each or "" for each in table["mode"].to_pylist()],
    )


def _stopped(run: Run, table: pa.Table) -> Stop | None:
    """Which items were asked, where a run that was to stop once decided left out some: also where a later
    session without that flag was cut off, since what was asked before it rests on what came."""
    order = run.manifest.get("random_order")
    asked = np.array([each not in (NOT_ASKED, NOT_TRIED) for each in table["unscored"].to_pylist()], np.bool_)
    return None if asked.all() or not order else Stop(order["seed"], asked, order["margin"])


def records_of(run: Run, label: str) -> Iterator[ItemRecord]:
    """What was asked of one endpoint, item by item."""
    table = run.item_table(label, _RECORD)
    columns = [table[name].to_pylist() for name in _RECORD]
    for ordinal, values in enumerate(zip(*columns, strict=True)):
        held = (tuple(value) if isinstance(value, list) else value for value in values)
        fields: dict[str, Any] = dict(zip(_RECORD, held, strict=True))
        yield ItemRecord(ordinal=ordinal, **fields)


def _shown_equal(run: Run, label: str) -> bool:
    """Whether nothing was read off alternatives, or they were shown to be what forcing gives."""
    with journal_of(run, label) as journal:
        if journal is None:
            return False
        noted = journal.meta.get(SHORTCUT)
        return not journal.stats().read or bool(noted and json.loads(noted)["largest_difference"] <= SAME)


def _tokens(run: Run, label: str, places: Sequence[Place], sums: Ragged[np.float64]) -> Tokens | None:
    """What the journal has of each forced token; None where it is gone, or lacks what the table has."""
    with journal_of(run, label) as journal:
        if journal is None:
            return None
        planned = {
            (task, shots, subject, index): keys
            for task, shots, subject, index, keys in journal.planned_keys()
        }
        found = [
            planned.get((place.task, place.shots, place.subject, place.index), b"") if choices else b""
            for place, choices in zip(places, sums.lengths.tolist(), strict=True)
        ]
        if [len(each) for each in found] != (sums.lengths * KEY_BYTES).tolist():
            return None
        return _tokens_of(b"".join(found), journal)


def _tokens_of(keys: bytes, journal: StoredReplies) -> Tokens | None:
    """The tokens of these requests, in their order; None where one has no reply."""
    at: dict[bytes, int] = {}
    ids: list[int] = []
    lengths: list[int] = []
    packed = bytearray()
    for key, forced_ids, logprobs in journal.tokens():
        at[key] = len(ids)
        ids.append(hash(forced_ids))
        lengths.append(len(logprobs) // 8)
        packed += logprobs
    named = (keys[start : start + KEY_BYTES] for start in range(0, len(keys), KEY_BYTES))
    order = np.fromiter((at.get(key, -1) for key in named), np.int64, len(keys) // KEY_BYTES)
    if not len(order) or (order < 0).any():
        return None
    stored = Ragged(np.frombuffer(packed, "<f8"), np.array(lengths, np.int64))
    return Tokens(stored.take(order), np.array(ids, np.int64)[order])


@contextmanager
def journal_of(run: Run, label: str) -> Iterator[StoredReplies | None]:
    """The endpoint's journal, or None where the run's folder has none of it any more."""
    endpoint = run.endpoint(label)
    wanted = {"identity": endpoint.identity, "replicate": str(endpoint.replicate)}
    for file in filter(begun, sorted((run.folder / "journal").glob("*.sqlite"))):
        with closing(StoredReplies(file)) as journal:
            if wanted.items() <= journal.meta.items():
                yield journal
                return
    yield None


def _lists(column: pa.ChunkedArray, kind: type[_Number]) -> Ragged[_Number]:
    """A column of lists; null is an empty one."""
    array = column.combine_chunks()
    lengths = array.value_lengths().fill_null(0).to_numpy(zero_copy_only=False)
    return Ragged(array.flatten().to_numpy(zero_copy_only=False).astype(kind), lengths.astype(np.int64))


def _numbers(column: pa.ChunkedArray, none: float) -> NDArray[np.float64]:
    """A column of numbers; null becomes `none`."""
    return np.asarray(column.cast("float64").fill_null(none).to_numpy(), np.float64)
