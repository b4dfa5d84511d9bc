"""An output's text as it grows, token by token. Pure.

A token may hold a fragment of a character only; its text is settled once the rest of the character is there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Spell = Callable[[Sequence[int]], str]
"""The text that some ids add to an output."""

_BROKEN = "\ufffd"
_MOST_FRAGMENTS = 8
"""Ids that may wait for the rest of a character; UTF-8 needs four bytes at most."""


class Growth:
    """The text of a growing output.

    Attributes:
        text: what is settled.
        starts, ends: of each token, the characters in front of it and up to its end; the fragments of one
            character all start where it starts, and the last of them holds it. Ends are there once settled.
    """

    def __init__(self, spell: Spell, *, opening: Spell | None = None) -> None:
        """Take what spells ids; `opening` spells all of them as long as they have no text yet.

        For a text that begins with them: tokenizers drop a space in front of its first word.
        """
        self._spell = spell
        self._opening = opening
        self._open: list[int] = []
        self._silent: list[int] = []
        self.text = ""
        self.starts: list[int] = []
        self.ends: list[int] = []

    def add(self, token: int) -> None:
        """One more token."""
        self.starts.append(len(self.text))
        self._open.append(token)
        added = self._added()
        if not added.endswith(_BROKEN) or len(self._open) == _MOST_FRAGMENTS:
            self._settle(added)

    def close(self) -> None:
        """No more tokens: what is broken stays so."""
        if self._open:
            self._settle(self._added())

    def _added(self) -> str:
        """What the ids that are not settled add to the text."""
        if self._opening is None or self.text:
            return self._spell(self._open)
        return self._opening([*self._silent, *self._open])

    def _settle(self, added: str) -> None:
        self.ends += [len(self.text)] * (len(self._open) - 1)
        self.text += added
        self._silent += self._open if not self.text else []
        self.ends.append(len(self.text))
        self._open = []


class Phrases:
    """Looks for the first stop phrase in a text as it grows."""

    def __init__(self, phrases: Sequence[str]) -> None:
        self._phrases = phrases
        self._searched = 0

    def find(self, text: str, *, least: int = 0) -> int | None:
        """Where a phrase begins that is new in the text, not within its first `least` characters."""
        found = [at for phrase in self._phrases if (at := self._new(text, phrase, least)) >= 0]
        self._searched = len(text)
        return min(found, default=None)

    def held(self, text: str) -> int:
        """Characters at the end of the text that may be the beginning of a phrase."""
        longest = max((len(phrase) for phrase in self._phrases), default=0)
        return next(
            (
                length
                for length in range(min(longest - 1, len(text)), 0, -1)
                if any(phrase.startswith(text[-length:]) for phrase in self._phrases)
            ),
            0,
        )

    def _new(self, text: str, phrase: str, least: int) -> int:
        """Where the phrase begins for the first time, among those that end in the new part of the text."""
        return text.find(phrase, max(least, self._searched - len(phrase) + 1))
