"""Numbers as people say them: times, tokens, money; pure."""

from __future__ import annotations


def duration(seconds: float) -> str:
    """Seconds as people say them: "45 s", "12 min", "3 h 05 min"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def tokens(count: int) -> str:
    """A number of tokens as people say it: "9.86 M"."""
    return f"{count:,}" if count < 1_000_000 else f"{count / 1_000_000:,.2f} M"


def money(amount: float) -> str:
    """An amount of any currency: cents where it is large, three digits where it is small."""
    return f"{amount:,.2f}" if amount >= 10 or amount == 0 else f"{amount:.3g}"
