"""What a task's own code makes of a row, and of a subject; pure.

That code may be somebody's own and may do anything: whatever it raises or returns instead of an item is a
`RowError` of its row, and never reaches anybody as it is.
"""

from __future__ import annotations

from contextlib import suppress

from harness.errors import RowError, UsageError, foreign
from harness.items import BadItem, Item, Row
from harness.task import Task


def example_row(task: Task) -> Row:
    """The row that a task brings as an example."""
    subject = task.example.get(task.subject_field) if task.subject_field else None
    return Row(task.example, "example", task.name, subject if isinstance(subject, str) else "")


def description_of(task: Task, subject: str) -> str:
    """The text before the shots; raises `UsageError` where the task's code fails to give it."""
    place = f"--tasks {task.name}: its description" + (f" of the subject {subject!r}" if subject else "")
    try:
        said = task.description(subject)
    except Exception as error:  # code of somebody's own may raise anything
        raise UsageError(f"{place} fails: {foreign(error)}") from error
    if not isinstance(said, str):
        raise UsageError(f"{place} is no text but {type(said).__name__}")
    return said


def item_of(task: Task, row: Row) -> Item:
    """The item of a row.

    Raises:
        RowError: the row cannot be read, a field of it is wrong, or the task's code fails on it; the text of
            the last names the exception.
    """
    if row.broken:
        raise RowError(row.broken)
    try:
        item = task.item(row)
        problem = _no_item(item, row)
    except RowError:
        raise
    except Exception as error:  # code of somebody's own may raise anything
        raise RowError(foreign(error)) from error
    if problem:
        raise RowError(f"the task's item() {problem}")
    return item


def item_or_bad(task: Task, row: Row) -> Item | BadItem:
    """The item of a row, or what is wrong with the row."""
    try:
        return item_of(task, row)
    except RowError as error:
        return bad_item(task, row, error)


def bad_item(task: Task, row: Row, error: RowError) -> BadItem:
    """What stands for a row that is no item."""
    return BadItem(task.name, row.subject, row.index, f"bad row: {row.place}, {error}")


def _no_item(found: object, row: Row) -> str:
    """Why what a task's code returned is not the item of its row; empty where it is."""
    if not isinstance(found, Item):
        return f"returned {type(found).__name__}, which is no Item"
    if (found.task, found.subject, found.index) != (row.task, row.subject, row.index):
        return "returned the Item of another row; make it with row.item()"
    texts = [text for pair in found.pairs for text in (pair.context, pair.continuation, pair.choice)]
    joined: str | None = None
    with suppress(TypeError):
        joined = "".join([*texts, found.id, found.cluster])
    if joined is None or not texts:
        return "returned an Item without choices, or with some that are no texts"
    try:
        if not joined.isascii():  # which is known without a look at the text
            joined.encode()
    except UnicodeEncodeError:
        return "returned an Item that holds half a character (a lone surrogate)"
    if not found.gold or not set(found.gold).issubset(range(len(found.pairs))):
        return f"returned an Item whose right choices are {found.gold!r}, of {len(found.pairs)}"
    return ""
