"""Chat templates, rendered by jinja2 as transformers renders them: a program of its own, within bounds.

A template comes from whoever published the tokenizer, so it is foreign code. It runs in jinja2's sandbox, in
a process that holds no secret, and within bounds of time and memory: what exceeds them ends this process, and
no other. Lines of JSON go in and out: first the template with its special tokens, then chat after chat.

The same chat gives the same text at any time. `strftime_now` tells one fixed day, and what is random in
jinja2 (the filter `random`, the function `lipsum`) is not there.
"""

from __future__ import annotations

import json
import resource
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from harness.chatting.bounds import DAY, LONGEST, MEMORY, SECONDS


class _Generation(Extension):
    """`{% generation %}` marks what an assistant says, for training; what is in it is rendered as it is."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 has it so

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The statements between the marks."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Renderer:
    """One template.

    Attributes:
        dated: whether it has asked for the date.
    """

    def __init__(self, template: str, special: Mapping[str, str]) -> None:
        """Compile it; `special` are the tokenizer's special tokens by name. Raises TemplateError."""
        self.dated = False
        self._special = dict(special)
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        del environment.filters["random"], environment.globals["lipsum"]
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = self._strftime_now
        self._template = environment.from_string(template)

    def render(self, messages: Sequence[Mapping[str, object]]) -> str:
        """The text of a chat with the generation prompt. Raises TemplateError, and what Python raises."""
        return self._template.render(
            messages=messages, tools=None, documents=None, add_generation_prompt=True, **self._special
        )

    def _strftime_now(self, format: str) -> str:
        self.dated = True
        return DAY.strftime(format)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON that escapes no HTML, as jinja2's own filter does."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _answer(renderer: Renderer, messages: Sequence[Mapping[str, object]]) -> dict[str, Any]:
    """The text of a chat, or why there is none."""
    try:
        text = renderer.render(messages)
    except TemplateError as error:
        return {"refused": f"{type(error).__name__}: {error}"}
    except MemoryError:
        return {"failed": f"it takes more than {MEMORY >> 20} MiB"}
    except Exception as error:  # of Python, which a template can raise in many ways
        return {"failed": f"{type(error).__name__}: {error}"}
    if len(text) > LONGEST:
        return {"failed": f"it gives {len(text):,} characters; {LONGEST:,} are the most"}
    return {"text": text, "dated": renderer.dated}


def _bound() -> None:
    """Bound the memory of this process, and let it write no file."""
    for what, limit in ((resource.RLIMIT_AS, MEMORY), (resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)):
        with suppress(ValueError, OSError):  # macOS knows no bound on address space
            resource.setrlimit(what, (limit, limit))


def _clock(seconds: float) -> None:
    """Let the signal of a spent timer end this process, as it does where nobody handles it; 0 stops it."""
    signal.setitimer(signal.ITIMER_PROF, seconds)


def main() -> None:
    """Read a template, then chats, a line of JSON each; write a line of JSON for each."""
    _bound()
    renderer: Renderer | None = None
    seconds = SECONDS
    for line in sys.stdin.buffer:
        given = json.loads(line)
        if renderer is None:
            seconds = given["seconds"]
        _clock(seconds)
        if renderer is not None:
            said = _answer(renderer, given)
        else:
            try:
                renderer, said = Renderer(given["template"], given["special"]), {}
            except TemplateError as error:
                said = {"refused": f"{type(error).__name__}: {error}"}
            except (Exception, MemoryError) as error:  # such as RecursionError: it is nested too deeply
                said = {"failed": f"{type(error).__name__}: {error}"}
        _clock(0)
        sys.stdout.buffer.write(json.dumps(said).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
