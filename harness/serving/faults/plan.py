"""What is to go wrong: every fault, its value, and how it is written on the command line or in TOML. Pure.

Short forms are separated by commas (`429=0.1,reset=0.02,outage=5@20,seed=7`). In TOML the same names are
keys, and `5@20` is a string. A name alone means a share of 1, or true.

    SHARE           429 429_date 429_bare 500 502 503 504 401 403 leak not_json hang reset reset_midway
                    cut slow ignore_adapter zero flat count positive null nan other_ids
    N               rpm tpm capacity queue shortened top context seed
    SECONDS@START   blackout outage
    D, D@N          order crowded chain; drift
    ID              bos
    true or false   tokenizer no_tokenize no_prompt moved_by_sampling
    SECONDS         retry_after slow_seconds

What each does stands beside its field in `Faults`; `rows` is the table that `harness/serving/README.md` has.
Of the faults that take a whole reply, the one that comes first in `Faults` strikes.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from harness.errors import UsageError, did_you_mean
from harness.failures import one_line
from harness.serving.faults.forms import (
    COUNT,
    DRIFT,
    NATS,
    SECONDS,
    SEED,
    SHARE,
    SPAN,
    SWITCH,
    TOKEN,
    WHOLE_SECONDS,
    Drift,
    Kind,
    Span,
    read,
)

DETAILS = frozenset({"retry_after", "slow_seconds", "seed"})
"""Of other faults; none by themselves."""

_SHOWN = 200
"""Characters of what was written that an error repeats."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Faults:
    """Every fault, with the form of its value and what it does; the defaults are an endpoint without any."""

    blackout: Annotated[
        Span | None, SPAN, "connections are reset for SECONDS, from START seconds after the first request on"
    ] = None
    outage: Annotated[
        Span | None, SPAN, "503 for SECONDS, from START seconds (default 0) after the first request on"
    ] = None
    rpm: Annotated[
        int | None,
        COUNT,
        "at most N requests within any 60 s; beyond, 429 with `Retry-After`. "
        "Every reply says `X-RateLimit-{Limit,Remaining,Reset}-Requests`",
    ] = None
    tpm: Annotated[
        int | None, COUNT, "likewise N tokens of input and output, and `X-RateLimit-{...}-Tokens`"
    ] = None
    capacity: Annotated[
        int | None, COUNT, "429 without `Retry-After` to what comes while N are in flight"
    ] = None
    status_429: Annotated[float, SHARE, "429 with `Retry-After` in seconds"] = 0.0
    status_429_date: Annotated[float, SHARE, "429 with `Retry-After` as a date"] = 0.0
    status_429_bare: Annotated[float, SHARE, "429 without `Retry-After`"] = 0.0
    status_500: Annotated[float, SHARE, "500 with a JSON body"] = 0.0
    status_502: Annotated[float, SHARE, "502 with a gateway's HTML"] = 0.0
    status_503: Annotated[float, SHARE, "503 with a JSON body"] = 0.0
    status_504: Annotated[float, SHARE, "504 with a gateway's HTML"] = 0.0
    status_401: Annotated[float, SHARE, "401, as to a wrong token"] = 0.0
    status_403: Annotated[float, SHARE, "403, as to a wrong team"] = 0.0
    leak: Annotated[float, SHARE, "500 whose body and headers repeat the request's `Authorization`"] = 0.0
    not_json: Annotated[float, SHARE, "200 with an HTML page, or with the first half of the JSON"] = 0.0
    hang: Annotated[float, SHARE, "no answer, until the client leaves or the endpoint stops"] = 0.0
    reset: Annotated[float, SHARE, "the connection is reset before the reply"] = 0.0
    reset_midway: Annotated[float, SHARE, "the connection is reset after headers and half of the body"] = 0.0
    cut: Annotated[float, SHARE, "the connection is closed after half of the promised `Content-Length`"] = 0.0
    slow: Annotated[float, SHARE, "the body dribbles over `slow_seconds`"] = 0.0
    queue: Annotated[int | None, COUNT, "N are answered at a time, the others wait for their turn"] = None
    ignore_adapter: Annotated[float, SHARE, "the adapter is ignored: the base model answers"] = 0.0
    bos: Annotated[int | None, TOKEN, "ID is put in front of `tokens`, and of a `prompt` of ids"] = None
    shortened: Annotated[
        int | None, COUNT, "of `tokens` beyond N only the last N are read, without a word"
    ] = None
    tokenizer: Annotated[
        bool,
        SWITCH,
        "another tokenizer than stated: ids of tokenize, of detokenize and of a `prompt` of text are those "
        "of another vocabulary of the same size",
    ] = False
    no_tokenize: Annotated[bool, SWITCH, "tokenize and detokenize are not there: 404"] = False
    no_prompt: Annotated[bool, SWITCH, "a `prompt` of text is refused: 422"] = False
    top: Annotated[int | None, COUNT, "`logprobs` beyond N is refused: 422"] = None
    context: Annotated[int | None, COUNT, "the model's length is N tokens, whatever is stated"] = None
    moved_by_sampling: Annotated[
        bool, SWITCH, "log-probabilities are those after temperature, top-k, top-p and min-p"
    ] = False
    drift: Annotated[
        Drift | None,
        DRIFT,
        "from the N-th completion (default 1) on, log-probabilities are shifted by D nats a token, "
        "and kept at 0 or below: the served model has changed",
    ] = None
    order: Annotated[
        float | None,
        NATS,
        "log-probabilities are up to D nats a token lower, depending on how many completions came before",
    ] = None
    crowded: Annotated[
        float | None,
        NATS,
        "log-probabilities are D nats lower in a reply that is made while other requests are in flight",
    ] = None
    chain: Annotated[
        float | None,
        NATS,
        "of every output the log-probabilities of all tokens but the first are D nats lower",
    ] = None
    zero: Annotated[float, SHARE, "all log-probabilities are 0"] = 0.0
    flat: Annotated[float, SHARE, "all log-probabilities of an output are that of its first token"] = 0.0
    count: Annotated[float, SHARE, "there is one log-probability less than tokens, or one more"] = 0.0
    positive: Annotated[float, SHARE, "a log-probability is above 0"] = 0.0
    null: Annotated[float, SHARE, "a log-probability is null"] = 0.0
    nan: Annotated[float, SHARE, "log-probabilities are `NaN` from some token on, as Python writes it"] = 0.0
    other_ids: Annotated[float, SHARE, "`choices[].tokens` are others than were forced, values too"] = 0.0
    retry_after: Annotated[int, WHOLE_SECONDS, "what `429` and `429_date` ask for; default 1"] = 1
    slow_seconds: Annotated[float, SECONDS, "how long `slow` takes; default 5"] = 5.0
    seed: Annotated[int, SEED, "another seed strikes other requests; default 0"] = 0

    def value(self, name: str) -> Any:
        """What the fault of this name is set to."""
        return getattr(self, _ROWS[name].attribute)

    def on(self) -> tuple[str, ...]:
        """The names of the faults that can strike, in order."""
        plain = Faults()
        return tuple(name for name in _ROWS if name not in DETAILS and self.value(name) != plain.value(name))


@dataclass(frozen=True, slots=True)
class _Row:
    """What the field of a fault says of it."""

    attribute: str
    kind: Kind
    what: str


_ROWS = {
    attribute.removeprefix("status_"): _Row(attribute, *hint.__metadata__)
    for attribute, hint in get_type_hints(Faults, include_extras=True).items()
}
"""By name."""


def rows() -> list[tuple[str, str, str]]:
    """Of every fault its name, its short form, and what happens; in the order of precedence."""
    return [
        (name, f"{name}={row.kind.form}" if row.kind.form else name, row.what) for name, row in _ROWS.items()
    ]


def table() -> str:
    """The rows in Markdown."""
    head = "| fault | short form | what happens |\n| --- | --- | --- |\n"
    return head + "".join(f"| `{name}` | `{form}` | {what} |\n" for name, form, what in rows())


# ---------------------------------------------------------------------------------------------- reading


def read_faults(texts: Sequence[str]) -> Faults:
    """The faults that `--faults` asks for; of one that is given twice the later text counts.

    Args:
        texts: each the path of a TOML file (it ends in `.toml` or has a slash), or short forms.

    Raises:
        UsageError: a file cannot be read, a name is unknown, a value is none or out of range.
    """
    found: dict[str, object] = {}
    for text in texts:
        entries = _in_file(text) if _is_path(text) else _in_text(text)
        of_text: dict[str, object] = {}
        for place, name, value in entries:
            if name in of_text:
                raise UsageError(f"{place}: {name} is given twice")
            of_text[name] = _value(place, name, value)
        found |= of_text
    return Faults(**{_ROWS[name].attribute: value for name, value in found.items()})  # type: ignore[arg-type]


_Entry = tuple[str, str, str | None]
"""Where it stands, its name, and its value as text; None where the name stands alone."""


def _is_path(text: str) -> bool:
    return text.endswith(".toml") or "/" in text


def _in_text(text: str) -> Iterator[_Entry]:
    for part in text.split(","):
        if part.strip():
            name, equals, value = part.partition("=")
            yield f"--faults {_shown(part)}", name.strip(), value if equals else None


def _in_file(path: str) -> Iterator[_Entry]:
    place = f"--faults {_shown(path)}"
    try:
        found = tomllib.loads(Path(path).read_bytes().decode())
    except OSError as error:
        raise UsageError(f"{place}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{place}: not a TOML file ({_shown(str(error))})") from error
    for name, value in found.items():
        yield f"{place}: {_shown(name)}", name, _written(value)


def _written(value: object) -> str:
    """A value of TOML as the short form writes it; what no fault has becomes what no fault takes."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        try:
            return repr(value)
        except ValueError:  # more digits than Python writes
            return ""
    return value if isinstance(value, str) else ""


def _value(place: str, name: str, text: str | None) -> object:
    row = _ROWS.get(name)
    if row is None:
        raise UsageError(f"{place}: no such fault. {did_you_mean(name, list(_ROWS))}")
    if text is None:
        text = row.kind.bare
    if text is None:
        raise UsageError(f"{place}: needs a value: {name}={row.kind.form}")
    try:
        return read(row.kind, text)
    except ValueError as error:
        raise UsageError(f"{place}: {error}") from None


def _shown(text: str) -> str:
    return one_line(text, _SHOWN)
