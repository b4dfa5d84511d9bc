"""Foreign text made harmless where it is shown: data sets, endpoints and names may hold anything.

A terminal obeys control characters (colours, titles, links, the clipboard), and a change of direction lets
text read otherwise than it is. Files that programs read keep texts as they are; what people look at is inert.
"""

from __future__ import annotations

import re

_ACTIVE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # controls of both sets, but for tab and line break
    "\u202a-\u202e\u2066-\u2069"  # changes of direction
    "\u2028\u2029\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"  # other breaks, tags, half characters
)
"""What is no sign and does something. Joiners and marks (U+200C to U+200F) are part of many scripts."""


def inert(text: str) -> str:
    """The text with a sign in place of each character that a terminal would obey; lines and tabs stay.

    ESC is shown as "␛", and so on; what has no such sign as U+FFFD.
    """
    return _ACTIVE.sub(_sign, text) if not text.isprintable() else text


def inert_json(text: str) -> str:
    """JSON of the same meaning, with such characters escaped."""
    return _ACTIVE.sub(_escaped, text) if not text.isprintable() else text


def _sign(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else "\ufffd"


def _escaped(found: re.Match[str]) -> str:
    code = ord(found[0])
    if code > 0xFFFF:
        high, low = divmod(code - 0x10000, 0x400)
        return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
    return f"\\u{code:04x}"
