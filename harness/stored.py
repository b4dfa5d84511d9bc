"""A run on disk, read back: `run.json` and the tables.

`results/README.md` specifies the files. Reading changes nothing. This module does not know how runs are made,
nor what they are compared for.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from harness.errors import StoreError, UsageError, did_you_mean
from harness.tables import SCORE_COLUMNS, SCORE_TEXTS

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

TextKey = tuple[str, str, int]
"""Task, subject and index of an item."""
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

        with self._reading("scores.csv") as path:
            texts = dict.fromkeys(SCORE_TEXTS, str)
            frame = pd.read_csv(
                path, dtype=texts, keep_default_na=False, na_values=dict.fromkeys(_NUMBERS, "")
            )
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

    def item_table(self, label: str, columns: Sequence[str]) -> pa.Table:
        """Some columns of `items.parquet`, the rows of one endpoint."""
        return self._parquet("items.parquet", columns=list(columns), filters=[("endpoint", "=", label)])

    def texts_of(self, wanted: Container[TextKey]) -> Iterator[tuple[TextKey, str, tuple[str, ...]]]:
        """First context and choices of some items; none where the run did not store texts."""
        from pyarrow import parquet

        if not (self.folder / "texts.parquet").exists():
            return
        named = ("task", "subject", "index")
        with self._reading("texts.parquet") as path, parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(1024, columns=[*named, "contexts", "choices"]):
                keys = list(zip(*(batch[name].to_pylist() for name in named), strict=True))
                for position, key in enumerate(keys):
                    if key in wanted:  # one row at a time: contexts are long, and most are not wanted
                        contexts, choices = batch["contexts"][position], batch["choices"][position]
                        yield key, contexts[0].as_py(), tuple(choices.as_py())

    def _parquet(self, name: str, **selection: Any) -> pa.Table:
        from pyarrow import parquet

        with self._reading(name) as path:
            return parquet.read_table(path, **selection)

    @contextmanager
    def _reading(self, name: str) -> Iterator[Path]:
        """Turn what a file that cannot be read raises into one error with the way out."""
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


def load_run(folder: str | Path) -> Run:
    """Read a run back.

    Args:
        folder: the run's, as `run` named it at its end.

    Raises:
        UsageError: there is no run, or its `run.json` cannot be read.
    """
    path = Path(folder)
    file = path / "run.json"
    if not file.is_file():
        raise UsageError(f"{path}: no run is there (it has no run.json){_nearby(path)}")
    try:
        content = file.read_bytes()
        run = Run(path, msgspec.json.decode(content), msgspec.json.decode(content, type=StoredManifest))
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(f"{file}: cannot be read ({error}); {WAY_OUT}") from error
    if not run.labels:
        raise UsageError(f"{file}: names no endpoint; {WAY_OUT}")
    return run


def _nearby(path: Path) -> str:
    """Runs that may be meant, as the end of a sentence."""
    for parent in (path, path.parent, Path("results")):
        runs = sorted(str(file.parent) for file in parent.glob("*/run.json")) if parent.is_dir() else []
        if runs:
            return f". {did_you_mean(str(path), runs[:8])}"
    return ""
