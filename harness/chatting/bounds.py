"""What chat templates are told and allowed, known on both sides of the process that renders them.

It stands apart from `rendering`, which imports jinja2: a run without chats need not wait for that.
"""

from __future__ import annotations

from datetime import datetime

DAY = datetime(2024, 7, 26)
"""What every template is told is today: the day that Llama 3's own template falls back to."""
SECONDS = 5.0
"""Processor time that compiling, or one chat, may take; real templates need milliseconds."""
MEMORY = 512 * 2**20
"""Bytes of address space that the process may have; without a template it has about a tenth."""
LONGEST = 2**22
"""Characters that a rendered chat may have."""
