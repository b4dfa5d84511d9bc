"""forced-choice: how good is an endpoint, or an adapter, at multiple choice?

This is the public face. Task files need nothing but what is named here.
"""

from __future__ import annotations

from harness.errors import FieldError, HarnessError, UsageError
from harness.items import Item, Pair, Row
from harness.task import Dataset, Shots, Split, Task

__all__ = [
    "Dataset",
    "FieldError",
    "HarnessError",
    "Item",
    "Pair",
    "Row",
    "Shots",
    "Split",
    "Task",
    "UsageError",
]

__version__ = "0.1.0"
