"""What some flags let people choose between, where more than one part of the program must know it; pure.

It stands apart so that the flags can be listed without the code that they steer.
"""

from __future__ import annotations

from typing import Literal

Bos = Literal["auto", "on", "off"]
"""auto: what the tokenizer itself does; on, off: a beginning-of-sequence token always, or never."""
Overflow = Literal["truncate", "skip", "fail"]
"""What becomes of an item that is longer than the bound: its context loses tokens on the left, it is left
unscored, or it ends the run."""
ChatMode = Literal["off", "message", "turns"]
"""off: plain text. message: shots and question in one user message. turns: a user and an assistant message
a shot."""
