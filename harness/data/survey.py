"""The checking pass: every row of a split is made an item before the first request; pure.

It counts, lists what is wrong, and recognises whether the text is that of the published split. It does
not know where rows come from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from json.encoder import encode_basestring as _quoted  # a text as JSON, without escapes but JSON's own
from typing import Any

from harness.converting import bad_item, description_of, item_of
from harness.errors import BadRows, RowError
from harness.failures import one_line
from harness.items import BadItem, Item, Row, list_from_text
from harness.task import Task

BAD_ROWS_KEPT = 20
"""Bad rows that are named; all are counted."""
SKIP = "Mend them, or pass --skip-bad-rows to count them as unscored."
MEND = "Mend them or take them out: a bad shot cannot be skipped, only --shots 0 asks without any."
"""The ways out of bad rows, of questions and of shots."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that is no item, and why."""

    place: str
    problem: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """What the rows of a split turned out to be."""

    rows: int
    counts: Mapping[str, int]
    """Rows of each subject, bad ones too, in the order in which subjects first appear."""
    n_bad: int
    bad: tuple[BadRow, ...]
    """The first `BAD_ROWS_KEPT` of the bad rows."""
    content_sha256: str
    """As `ContentHash` makes it."""
    most_choices: int = 0
    """Of any item."""


class ContentHash:
    """SHA-256 of what items are made of, the same for Parquet, JSON Lines and CSV copies of the same text.

    A row is one line of JSON: an object of the given columns, keys sorted, characters as they are (no
    escapes beyond JSON's own), numbers as text, lists that are written as text (a CSV cell) as lists. The
    lines of each subject are hashed in file order; the content hash is that of the lines
    "<subject> TAB <its hash>", sorted. So the order of rows within a subject counts, that of subjects not.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        """Start with no rows."""
        self._columns = [(column, _quoted(column)) for column in sorted(set(columns))]
        self._subjects: dict[str, Any] = {}

    def add(self, row: Row) -> None:
        """Take in the next row; a missing column counts as null."""
        values = [f"{quoted}: {_hashed(row.values.get(column))}" for column, quoted in self._columns]
        subject = self._subjects.get(row.subject) or self._subjects.setdefault(row.subject, sha256())
        subject.update(f"{{{', '.join(values)}}}\n".encode(errors="surrogatepass"))

    def hexdigest(self) -> str:
        """The hash of all rows so far, 64 hexadecimal digits."""
        lines = sorted(f"{subject}\t{each.hexdigest()}\n" for subject, each in self._subjects.items())
        return sha256("".join(lines).encode(errors="surrogatepass")).hexdigest()


def survey(task: Task, rows: Iterable[Row], take: Callable[[Item | BadItem], None] | None = None) -> Survey:
    """Make an item of every row, and tell what was found; nothing is kept but counts and problems.

    Args:
        task: the benchmark.
        rows: of one split, in file order.
        take: is given each item, or what stands for a bad row.

    Raises:
        UsageError: the task has no description of a subject.
    """
    counts: Counter[str] = Counter()
    content = ContentHash(task.dataset.columns)
    bad: list[BadRow] = []
    described: set[str] = set()
    n_bad = most_choices = 0
    for row in rows:
        counts[row.subject] += 1
        try:
            _add(content, row)
            item: Item | BadItem = (made := item_of(task, row))
            most_choices = max(most_choices, len(made.pairs))
            if row.subject not in described:
                described.add(row.subject)
                description_of(task, row.subject)
        except RowError as error:
            item = bad_item(task, row, error)
            n_bad += 1
            if len(bad) < BAD_ROWS_KEPT:
                bad.append(BadRow(row.place, one_line(str(error))))
        if take is not None:
            take(item)
    return Survey(
        rows=counts.total(),
        counts=dict(counts),
        n_bad=n_bad,
        bad=tuple(bad),
        content_sha256=content.hexdigest(),
        most_choices=most_choices,
    )


def _add(content: ContentHash, row: Row) -> None:
    """Take in a row; raises `RowError` where its lists in lists have no end that anybody could want."""
    try:
        content.add(row)
    except RecursionError:
        raise RowError("is nested too deeply") from None


def bad_rows_error(found: Survey, way_out: str = SKIP) -> BadRows:
    """The error that lists the bad rows of a survey, one a line, and the way out.

    Where every row has the same problem it is told once, with the first place.
    """
    of = f"{found.n_bad:,} of {found.rows:,} rows"
    if found.n_bad == found.rows > 1 and len({each.problem for each in found.bad}) == 1:
        return BadRows(f"all {found.rows:,} rows are bad as the first is: {_told(found.bad[0])}. {way_out}")
    lines = [f"  {_told(each)}" for each in found.bad]
    if found.n_bad > len(found.bad):
        lines.append(f"  and {found.n_bad - len(found.bad):,} more")
    return BadRows("\n".join([f"{of} are no items:", *lines, way_out]))


def differences(task: Task, split: str, found: Survey) -> list[str]:
    """Sentences on how a surveyed split differs from the published one; none where it does not.

    None as well where nothing is known of the published split; its text is compared only where its rows
    are as many, and its hash is known.
    """
    published = task.dataset.splits.get(split)
    if published is None:
        return []
    where = f"{task.dataset.folder}/{split}"
    if found.rows != published.rows:
        return [f"{where}: {found.rows:,} rows where the published split has {published.rows:,}"]
    if published.sha256 not in (None, found.content_sha256):
        return [f"{where}: text or order of the rows differs from the published split's"]
    return []


def _told(bad: BadRow) -> str:
    return f"{bad.place}: {bad.problem}"


def _hashed(value: object) -> str:
    """A column's value in the form that is hashed: JSON, put together from its texts, each written by `json`.

    That takes half the time of copying the row first, and having all of it written.
    """
    if isinstance(value, str):
        listed = list_from_text(value)
        return _quoted(value) if listed is None else _hashed(listed)
    if isinstance(value, list | tuple):
        return f"[{', '.join([_quoted(each) if isinstance(each, str) else _hashed(each) for each in value])}]"
    if isinstance(value, Mapping):
        values = {str(key): each for key, each in value.items()}
        return f"{{{', '.join([f'{_quoted(key)}: {_hashed(values[key])}' for key in sorted(values)])}}}"
    return "null" if value is None else _quoted(str(value))
