"""Suite files: a whole `run` in TOML, read strictly, laid beneath the flags, and written from a command line.

Keys are the flags of `run` by their names with `_` for `-`; `tasks` and `endpoints` may be tables too. What a
file says holds until a flag says otherwise. Paths of what is read (rows, tokenizers, own sets) start at the
file's folder; `out` and `log_file` where the program does, as results do that nobody names a folder for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

import msgspec
import tomli_w
from cyclopts import Token

from harness.accounts import allowances
from harness.choosing.owncode import is_code
from harness.choosing.tasklists import named, read_tables
from harness.dialects import dialect
from harness.endpoint_settings import EndpointSettings
from harness.endpoints import parse_endpoints
from harness.errors import UsageError
from harness.secrets import Secret, redact, secrets_of
from harness.settings import RunSettings
from harness.strict import read_toml, strict
from harness.tokenizing import ENDPOINT

if TYPE_CHECKING:
    from cyclopts.argument import ArgumentCollection

HEADER = "# forced-choice run THIS_FILE; relative paths of what is read start at this file's folder.\n"
WRITTEN = ("out", "log_file")
"""Keys of what is written."""
OF_ENDPOINTS = ("rpm", "tpm", "concurrency", "price_in", "price_out", "price_hour")
"""Keys of `[[endpoints]]` tables that are flags too: where such a flag is given it wins over the tables."""
EXCLUSIVE = (
    ("limit", "sample"),
    ("sample", "limit"),
    *(("price_hour", other) for other in ("price_in", "price_out")),
    *((one, "price_hour") for one in ("price_in", "price_out")),
)
"""A flag, and the key that it wins over besides its own."""
NOTHING = (None, ["none"], ["null"])
"""What takes back a number of the file: in a call, and as words after a flag."""
NEEDED = {
    "tasks": 'tasks = ["mmlu", "hellaswag@10"] or [[tasks]] tables, or give --tasks NAME',
    "endpoint": 'endpoints = ["dedicated:ENDPOINT_ID"] or [[endpoints]] tables, or give --endpoint SPEC',
}
"""What a run cannot do without, and how a file or a flag says it."""


# ---------------------------------------------------------------------------------------------- reading


def read_suite(file: Path) -> dict[str, Any]:
    """What a suite file says, by the names of the fields of `RunSettings`; what it leaves out is left out.

    Raises:
        UsageError: it cannot be read, is no TOML, says what no suite says, or contradicts itself; the text
            names file and place.
    """
    place = str(file)
    if not file.exists():
        raise UsageError(f"{place}: no such suite file; benchmarks are named with --tasks")
    try:
        record = strict(read_toml(file, place), _kind(), place)
        said = {
            name: value
            for name, value in msgspec.structs.asdict(record).items()
            if value is not msgspec.UNSET
        }
        said.pop("description", None)
        values = {name: _valued(name, value, file) for name, value in said.items()}
        if "endpoints" in values:
            values["endpoint"] = values.pop("endpoints")
        _check(values)
    except UsageError as error:
        text = str(error)
        raise UsageError(text if text.startswith(place) else f"{place}: {_as_keys(text)}") from error
    return values


@cache
def _kind() -> type[msgspec.Struct]:
    """The record of a suite file, read off the flags: a new flag is a new key."""
    keys: list[tuple[str, Any, Any]] = [("description", str, "")]
    for name, hint in _hints().items():
        kind: Any = hint
        if name == "endpoint":
            name, kind = "endpoints", str | list[str | EndpointSettings]
        elif name == "tasks":
            kind = str | list[Any]
        elif hint == tuple[str, ...]:
            kind = str | list[str]
        elif _is_path(name):
            kind = str
        keys.append((name, kind | msgspec.UnsetType, msgspec.UNSET))
    return msgspec.defstruct("Suite", keys, kw_only=True)


def _valued(name: str, said: Any, file: Path) -> Any:
    """The value of a field: lists as the flag has them, paths from where the file is."""
    folder = file.parent
    if name == "endpoints":
        tables = [said] if isinstance(said, str) else said
        return tuple(_endpoint(each, folder) for each in tables)
    if name == "tasks":
        return _tasks(said, file)
    if name == "tokenizer":
        return tuple(_tokenizer(each, folder) for each in ([said] if isinstance(said, str) else said))
    if _is_path(name):
        path = Path(said).expanduser() if said.startswith("~/") else Path(said)
        return path if name in WRITTEN else folder / path
    return tuple([said] if isinstance(said, str) else said) if _is_repeatable(name) else said


def _is_repeatable(name: str) -> bool:
    return bool(_hints()[name] == tuple[str, ...])


def _is_path(name: str) -> bool:
    return Path in get_args(_hints()[name])


@cache
def _hints() -> Mapping[str, Any]:
    """The types of the settings."""
    return get_type_hints(RunSettings)


def _endpoint(said: str | EndpointSettings, folder: Path) -> str | EndpointSettings:
    if isinstance(said, str):
        return said
    tokenizer = _beside(said.tokenizer, folder, hub=True) if said.tokenizer else ""
    return replace(said, tokenizer=tokenizer, ca_file=_beside(said.ca_file, folder) if said.ca_file else "")


def _tasks(said: str | list[Any], file: Path) -> str:
    """Tasks as `--tasks` takes them: names, `NAME@N` where a table gives shots, commas between."""
    if isinstance(said, str):
        names = said.split(",")
    else:
        if not said:
            raise UsageError(f"{file}: tasks: an empty list; add {NEEDED['tasks']}")
        tables = [{"name": each} if isinstance(each, str) else each for each in said]
        read = read_tables(tables, str(file))
        pairs = zip(said, read, strict=True)
        names = [each if isinstance(each, str) else table.text() for each, table in pairs]
    return ",".join(_own_set(name, file.parent) for name in names)


def _own_set(name: str, folder: Path) -> str:
    """A task's name, its path (`file:PATH`, `PATH.py:TASK`), where it is one, from the file's folder."""
    text = name.strip()
    if text.startswith("file:"):
        return f"file:{_beside(text.removeprefix('file:'), folder)}" if folder.parts else name
    return _beside(text, folder) if folder.parts and is_code(named(text).name) else name


def _tokenizer(said: str, folder: Path) -> str:
    """`[NAME=]PATH_OR_HUB_ID`, the path from the file's folder."""
    label, equals, source = said.partition("=") if "=" in said else ("", "", said)
    return f"{label}{equals}{_beside(source, folder, hub=True)}"


def _beside(text: str, folder: Path, *, hub: bool = False) -> str:
    """A path from the file's folder; with `hub` a name on the hub, or the word endpoint, stays as it is."""
    if not folder.parts or text.startswith(("/", "~")):
        return text
    surely = text.startswith(".") or text.endswith(".json") or text.count("/") > 1
    if hub and (text == ENDPOINT or (not surely and not (folder / text).exists())):
        return text
    path = str(folder / text)
    return path if path.startswith(("/", ".")) else f"./{path}"


def _check(values: Mapping[str, Any]) -> None:
    """Refuse what cannot be meant, whatever flags will say."""
    settings = RunSettings(**{"endpoint": ("embedded",), "tasks": "any", **values})
    endpoints = parse_endpoints(settings.endpoint)
    allowances(endpoints, rpm=settings.rpm, tpm=settings.tpm)
    labelled = {each.partition("=")[0] for each in settings.tokenizer if "=" in each}
    for endpoint in endpoints:
        if endpoint.own.tokenizer and endpoint.label in labelled:
            raise endpoint.own.error(
                "tokenizer", f"tokenizer above gives {endpoint.label} one too; choose one"
            )


def _as_keys(text: str) -> str:
    """A message about flags as one about keys: `--data-dir` becomes `data_dir`."""
    keys = re.sub(r"--([a-z]+(?:-[a-z]+)*)", lambda flag: flag[1].replace("-", "_"), text)
    return re.sub(r"^endpoint\b", _as_key("endpoint"), keys)


def _as_key(name: str) -> str:
    """What a suite file calls a field of the settings."""
    return "endpoints" if name == "endpoint" else name


# --------------------------------------------------------------------------------------------- merging


def beneath(said: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What a suite file adds to what is given already; what is given wins, also over the file's tables.

    Args:
        said: by the file, as `read_suite` has it.
        given: by flags or by a call, by the names of the fields of `RunSettings`.
    """
    left = {name: value for name, value in said.items() if name not in given}
    for one, other in EXCLUSIVE:
        if given.get(one) not in NOTHING:
            left.pop(other, None)
    if "shots" in given and "tasks" in left:
        left["tasks"] = ",".join(named(name.strip()).name for name in left["tasks"].split(","))
    if "endpoint" in left:
        left["endpoint"] = tuple(_without(each, given) for each in left["endpoint"])
    return left


def _without(table: str | EndpointSettings, given: Mapping[str, Any]) -> str | EndpointSettings:
    """An endpoint's table without what flags say of all endpoints."""
    if isinstance(table, str):
        return table
    tokenizers = given.get("tokenizer", ())
    sources = [str(each) for each in ([tokenizers] if isinstance(tokenizers, str | Path) else tokenizers)]
    taken = {other for one, other in EXCLUSIVE if given.get(one) not in NOTHING}
    changes: dict[str, Any] = {key: None for key in OF_ENDPOINTS if key in given or key in taken}
    if any("=" not in each for each in sources):
        changes["tokenizer"] = ""
    if "ca_file" in given:
        changes["ca_file"] = ""
    return replace(table, **changes)


def lay_beneath(arguments: ArgumentCollection) -> None:
    """Give the flags of `run` that were not typed the values of the suite file that was, if one was.

    Raises:
        UsageError: as `read_suite` does.
    """
    typed = {argument.field_info.name: argument for argument in arguments if argument.tokens}
    if "suite" not in typed:
        return
    file = typed["suite"].tokens[0].value
    given = {name: [token.value for token in argument.tokens] for name, argument in typed.items()}
    values = beneath(read_suite(Path(file)), given)
    for name, way_out in NEEDED.items():
        if name not in given and name not in values:
            raise UsageError(f"{file}: no {_as_key(name)}: add {way_out}")
    for argument in arguments:
        name = argument.field_info.name
        if argument.keys and name in values:
            argument.append(Token(keyword=name, source=file, implicit_value=values[name]))


# --------------------------------------------------------------------------------------------- writing


def dump_suite(settings: RunSettings, environ: Mapping[str, str] = os.environ) -> str:
    """The settings as a suite file, to be kept in the folder that paths start at; defaults are left out.

    Raises:
        UsageError: an endpoint's SPEC is malformed, or a secret would be written.
    """
    endpoints = parse_endpoints(settings.endpoint)
    said = {each.name: getattr(settings, each.name) for each in fields(settings)}
    defaults = {each.name: each.default for each in fields(settings) if each.default is not MISSING}
    changed = {name: value for name, value in said.items() if name not in defaults or value != defaults[name]}
    tables = [each if isinstance(each, str) else _table(each) for each in changed.pop("endpoint")]
    names = changed["tasks"].split(",")
    if all(name and name == name.strip() for name in names):
        changed["tasks"] = names
    document = {name: _written(value) for name, value in changed.items()} | {"endpoints": tables}
    text = HEADER + tomli_w.dumps(document)
    variables = {
        each.own.token_env or dialect(each.dialect).variables[0] for each in endpoints if not each.embedded
    }
    _refuse_secrets(text, secrets_of(environ, variables))
    return text


def _table(endpoint: EndpointSettings) -> dict[str, Any]:
    """An `[[endpoints]]` table."""
    said = asdict(endpoint)
    plain = asdict(EndpointSettings(spec=""))
    return {name: _written(value) for name, value in said.items() if name == "spec" or value != plain[name]}


def _written(value: Any) -> Any:
    """A value as TOML has it."""
    if isinstance(value, Path):
        return f"./{value}" if str(value).startswith("~") else str(value)
    return list(value) if isinstance(value, tuple) else value


def _refuse_secrets(text: str, secrets: Sequence[Secret]) -> None:
    """Nobody types a secret into a command line; were it so, it would not go on into a file."""
    if redact(text, secrets) != text:
        raise UsageError(
            "--dump-suite: something on the command line looks like a token; leave it to the environment"
        )
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError("--dump-suite: a path or name that is no UTF-8 cannot be written as TOML") from error
