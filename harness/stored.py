"""A run on disk, read back: `run.json` and the tables.

`results/README.md` specifies the files. Reading changes nothing. This module does not know how runs are made,
nor what they are compared for.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.errors import StoreError, UsageError, did_you_mean
from harness.files import text_of_cell
from harness.richly import note, notes, panel, table
from harness.tables import SCORE_COLUMNS, SCORE_TEXTS, pivot

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TextKey = tuple[str, str, int]
"""Task, subject and index of an item."""
REPEATED = "repeats/items.parquet"
"""Of the items that `--repeat-sample` had scored a second time."""
WAY_OUT = "give the command that made the run once more: it writes its tables anew, without a request"


class StoredTask(msgspec.Struct, frozen=True):
    """What `run.json` says of a task, as far as it is needed here."""

    metrics: tuple[str, ...] = ()
    """Empty where an earlier version made the run."""
    shots: int = 0
    asides: tuple[str, ...] = ()
    groups: dict[str, tuple[str, ...]] = {}


class StoredEndpoint(msgspec.Struct, frozen=True):
    """What `run.json` says of an endpoint, likewise."""

    label: str
    identity: str
    replicate: int


class StoredIdentity(msgspec.Struct, frozen=True):
    """What `run.json` says of the suite, likewise."""

    tasks: dict[str, str | dict[str, str]]
    """The version of each; of tasks of one's own more, as `catalogue.suite_identity` has it."""
    tokenizer: str | None = None
    bos: str | None = None
    max_length: int | None = None
    chat_template: str = "off"
    template: str | None = None
    """The hash of the chat template; none where prompts were plain text."""


class StoredManifest(msgspec.Struct, frozen=True):
    """The content of `run.json`, likewise."""

    status: str
    remarks: tuple[str, ...]
    tasks: dict[str, StoredTask]
    endpoints: tuple[StoredEndpoint, ...]
    identity: StoredIdentity
    without_shards: Any = None
    """None but from a merge on, until the run is at work itself."""


@dataclass(frozen=True, slots=True)
class StoredText:
    """A row of `texts.parquet`: an item's texts, and what a tokenizer made of its choices."""

    key: TextKey
    contexts: tuple[str, ...]
    """One a choice."""
    choices: tuple[str, ...]
    forced_ids: tuple[tuple[int, ...], ...]
    tokenizer: str
    """Its hash."""


@dataclass(frozen=True, repr=False)
class Run:
    """A run, finished or broken off. Its frames are read when they are first asked for."""

    folder: Path
    manifest: Mapping[str, Any]
    """The content of `run.json`."""
    stored: StoredManifest
    """What of it is read here, checked."""

    def __repr__(self) -> str:
        """Short: a notebook shows it."""
        return f"<Run of {' and '.join(self.labels)}: {self.status}, in {self.folder}>"

    def _repr_html_(self) -> str:
        """What a notebook shows: the accuracy table, and what must be known beside it."""
        title = f"{self.folder.name}: {' and '.join(self.labels)}, {self.status}"
        return panel(
            title, (self._accuracy_html(), notes(self.remarks, most=_REMARKS), note(str(self.folder)))
        )

    def _accuracy_html(self) -> str:
        if not (self.folder / "scores.csv").exists():
            return note("It has no tables yet: the session that writes them has not ended.")
        cells = pivot(self.scores).reset_index("subject", drop=True).reset_index(allow_duplicates=True)
        names = [str(name) for name in cells.columns]
        return table(names, cells.itertuples(index=False), [at not in (0, 2) for at in range(len(names))])

    @property
    def labels(self) -> tuple[str, ...]:
        """The endpoints, in the order of the tables."""
        return tuple(each.label for each in self.stored.endpoints)

    @property
    def status(self) -> str:
        """`complete`, `incomplete` (items are left unscored), `interrupted`, or `running` (or killed)."""
        return self.stored.status

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader must know beside the numbers, one sentence each."""
        return self.stored.remarks

    @cached_property
    def scores(self) -> pd.DataFrame:
        """The accuracy table: the rows of `scores.csv`."""
        import pandas as pd

        with self.reading("scores.csv") as path:
            texts = dict.fromkeys(SCORE_TEXTS, str)
            frame = pd.read_csv(
                path, dtype=texts, keep_default_na=False, na_values=dict.fromkeys(_NUMBERS, "")
            )
            for name in SCORE_TEXTS:
                frame[name] = frame[name].map(text_of_cell)
            return frame[list(SCORE_COLUMNS)]

    @cached_property
    def items(self) -> pd.DataFrame:
        """Every item on every endpoint: the rows of `items.parquet`."""
        frame: pd.DataFrame = self._parquet("items.parquet").to_pandas()
        return frame

    @cached_property
    def texts(self) -> pd.DataFrame:
        """Contexts, choices and token ids: the rows of `texts.parquet`."""
        frame: pd.DataFrame = self._parquet("texts.parquet").to_pandas()
        return frame

    def endpoint(self, label: str) -> StoredEndpoint:
        """What `run.json` says of an endpoint.

        Raises:
            UsageError: the run has no such endpoint.
        """
        for each in self.stored.endpoints:
            if each.label == label:
                return each
        raise UsageError(f"{self.folder}: no endpoint {label!r}. {did_you_mean(label, self.labels)}")

    def item_table(self, label: str, columns: Sequence[str], *, repeated: bool = False) -> pa.Table:
        """Some columns of `items.parquet`, the rows of one endpoint; or of what was repeated of it, in
        `repeats/items.parquet`."""
        name = REPEATED if repeated else "items.parquet"
        return self._parquet(name, columns=list(columns), filters=[("endpoint", "=", label)])

    @cached_property
    def repeated_columns(self) -> frozenset[str]:
        """The columns of `repeats/items.parquet`; none where nothing was repeated."""
        from pyarrow import parquet

        if not (self.folder / REPEATED).exists():
            return frozenset()
        with self.reading(REPEATED) as path:
            return frozenset(parquet.read_schema(path).names)

    def has_repeats(self, label: str) -> bool:
        """Whether items of an endpoint were scored a second time."""
        return bool(self.repeated_columns) and self.item_table(label, ["index"], repeated=True).num_rows > 0

    def texts_of(self, wanted: Container[TextKey]) -> Iterator[tuple[TextKey, str, tuple[str, ...]]]:
        """First context and choices of some items; none where the run did not store texts."""
        for key, (contexts, choices) in self._text_rows(wanted, ("contexts", "choices")):
            yield key, contexts[0].as_py(), tuple(choices.as_py())

    def stored_texts(self, wanted: Container[TextKey]) -> Iterator[StoredText]:
        """All that is stored of the texts of some items, once for each tokenizer, in the file's order."""
        for key, cells in self._text_rows(wanted, ("contexts", "choices", "forced_ids", "tokenizer")):
            contexts, choices, forced_ids, tokenizer = (cell.as_py() for cell in cells)
            yield StoredText(
                key, tuple(contexts), tuple(choices), tuple(tuple(ids) for ids in forced_ids), tokenizer
            )

    def _text_rows(
        self, wanted: Container[TextKey], columns: Sequence[str]
    ) -> Iterator[tuple[TextKey, list[Any]]]:
        """Some columns of `texts.parquet` of some items, as cells that are not yet Python's."""
        from pyarrow import parquet

        if not (self.folder / "texts.parquet").exists():
            return
        named = ("task", "subject", "index")
        with self.reading("texts.parquet") as path, parquet.ParquetFile(path) as file:
            groups = _groups_with(file.metadata, wanted) if isinstance(wanted, Collection) else None
            for batch in file.iter_batches(1024, row_groups=groups, columns=[*named, *columns]):
                keys = list(zip(*(batch[name].to_pylist() for name in named), strict=True))
                for position, key in enumerate(keys):
                    if key in wanted:  # one row at a time: contexts are long, and most are not wanted
                        yield key, [batch[name][position] for name in columns]

    def _parquet(self, name: str, **selection: Any) -> pa.Table:
        from pyarrow import parquet

        with self.reading(name) as path:
            return parquet.read_table(path, **selection)

    @contextmanager
    def reading(self, name: str) -> Iterator[Path]:
        """The path of a file while it is read; what it raises becomes one `StoreError` with the way out."""
        from pyarrow import ArrowException

        path = self.folder / name
        if not path.exists():
            raise StoreError(f"{path}: is missing; {WAY_OUT}")
        try:
            yield path
        except (OSError, ValueError, KeyError, ArrowException) as error:
            said = " ".join(str(error).split())
            raise StoreError(f"{path}: cannot be read ({said[:200]}); {WAY_OUT}") from error


_NUMBERS = [name for name in SCORE_COLUMNS if name not in SCORE_TEXTS]
_REMARKS = 6
"""Of a run's remarks, those that a notebook shows."""
_FEW = 1000
"""Items for which row groups are looked at before they are read."""


def _groups_with(metadata: Any, wanted: Collection[TextKey]) -> list[int] | None:
    """The row groups of `texts.parquet` that may hold some items, by their own statistics; None: any."""
    if len(wanted) > _FEW:
        return None
    names = [metadata.schema.column(at).path for at in range(metadata.num_columns)]
    columns = [names.index(name) for name in ("index", "task", "subject")]
    found = []
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        told = [group.column(at).statistics for at in columns]
        if not all(each is not None and each.has_min_max for each in told):
            return None
        (low, high), *bounds = ((each.min, each.max) for each in told)  # each look at one is slow
        near = [key for key in wanted if low <= key[2] <= high]
        if any(_within(bounds, key) for key in near):
            found.append(number)
    return found


def _within(bounds: Sequence[tuple[str, str]], key: TextKey) -> bool:
    """Whether task and subject of an item are between the lowest and the highest of a row group."""
    return all(low <= cell <= high for (low, high), cell in zip(bounds, key[:2], strict=True))


def load_run(folder: str | Path) -> Run:
    """Read a run back.

    Args:
        folder: the run's, as `run` named it at its end.

    Raises:
        UsageError: there is no run, its `run.json` cannot be read, or a merge of its shards has not ended.
    """
    path = Path(folder)
    file = path / "run.json"
    if not file.is_file():
        raise UsageError(f"{path}: no run is there (it has no run.json){_nearby(path)}")
    try:
        content = file.read_bytes()
        run = Run(path, msgspec.json.decode(content), msgspec.json.decode(content, type=StoredManifest))
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UsageError(f"{file}: cannot be read ({error}); {WAY_OUT}") from error
    if not run.labels:
        raise UsageError(f"{file}: names no endpoint; {WAY_OUT}")
    if run.status == "running" and run.stored.without_shards is not None:
        raise UsageError(f"{path}: a merge of its shards is at work, or broken off; `merge {path}` ends it")
    return run


def _nearby(path: Path) -> str:
    """Runs that may be meant, as the end of a sentence."""
    for parent in (path, path.parent, Path("results")):
        runs = sorted(str(file.parent) for file in parent.glob("*/run.json")) if parent.is_dir() else []
        if runs:
            return f". {did_you_mean(str(path), runs[:8])}"
    return ""
