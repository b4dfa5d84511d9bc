"""The chat template of a tokenizer: found beside its `tokenizer.json`, and rendered in a process of its own.

`chat_template.jinja` counts before the `chat_template` of `tokenizer_config.json`, as in transformers; of
several named ones "default" is taken. What a template can do is bounded in `rendering`; here its process is
begun when it is first needed, begun anew after a chat that it did not survive, and ended with the template.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from signal import SIGPROF
from typing import Any

import harness
from harness.chatting.bounds import DAY, SECONDS
from harness.chatting.chat import Message
from harness.errors import TemplateError, TemplateRefused, UsageError
from harness.tokenizing import special_names

TEMPLATE = "chat_template.jinja"
CONFIG = "tokenizer_config.json"
_HOME = str(Path(harness.__path__[0]).parent)
# -P: the folder that the run was started in may hold anything, a package called harness too.
_COMMAND = (sys.executable, "-P", "-m", "harness.chatting.rendering")
_LINKER = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
"""Variables that some interpreters do not start without."""
_GRACE = 5.0
"""Seconds that the process gets to end once its input has ended."""


class ChatTemplate:
    """A template and the special tokens that it may name. Methods may be called from any thread.

    Attributes:
        sha256: of the template and the special tokens.
        dated: whether it has asked for the date, and was told a fixed one.
    """

    def __init__(self, template: str, special: Mapping[str, str], *, seconds: float = SECONDS) -> None:
        """Nothing is begun before the first chat.

        Args:
            template: its text.
            special: the tokenizer's special tokens by name ("bos_token").
            seconds: processor time that a chat may take.
        """
        self.dated = False
        self._seconds = seconds
        given = {"template": template, "special": dict(special)}
        self.sha256 = hashlib.sha256(f"{json.dumps(given, sort_keys=True)} {DAY}".encode()).hexdigest()
        self._first = json.dumps({**given, "seconds": seconds})
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[..., Any] | None = None

    def render(self, messages: Sequence[Message]) -> str:
        """The text of a chat, up to where the assistant is to answer.

        Raises:
            TemplateRefused: jinja2 or the template itself does not take this chat.
            TemplateError: it cannot be rendered, or not within the bounds of time and memory.
        """
        with self._lock:
            if self._process is None:
                self._process = self._begun()
            said = self._asked(self._process, json.dumps(list(messages)))
        self.dated |= said["dated"]
        text: str = said["text"]
        return text

    def close(self) -> None:
        """End the process, if there is one."""
        if self._end is not None:
            self._end()
        self._process, self._end = None, None

    def _begun(self) -> subprocess.Popen[bytes]:
        """A process that has read the template; of the environment it gets nothing that may be secret."""
        environ = {name: os.environ[name] for name in _LINKER if name in os.environ}
        environ["PYTHONPATH"] = os.pathsep.join([_HOME, *filter(None, sys.path)])
        environ["PYTHONHASHSEED"] = "0"  # sets have one order then
        try:
            process = subprocess.Popen(
                _COMMAND,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C stops the run, which still has prompts to render
                env=environ,
            )
        except OSError as error:
            raise TemplateError(f"no process can be started to render it ({error.strerror})") from error
        self._end = weakref.finalize(self, _ended, process)
        try:
            self._asked(process, self._first)
        except TemplateError:
            self.close()
            raise
        return process

    def _asked(self, process: subprocess.Popen[bytes], line: str) -> dict[str, Any]:
        """What the process says to a line; one that says nothing more is ended."""
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(line.encode() + b"\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except OSError:
            answer = b""
        if not answer.endswith(b"\n"):
            self.close()
            if process.returncode == -SIGPROF:
                raise TemplateError(f"it takes more than {self._seconds:g} s")
            raise TemplateError("it broke the process that renders it")
        said: dict[str, Any] = json.loads(answer)
        if "refused" in said:
            raise TemplateRefused(_line(said["refused"]))
        if "failed" in said:
            raise TemplateError(_line(said["failed"]))
        return said


def find_template(file: Path) -> tuple[str, dict[str, str]] | None:
    """The template that belongs to a `tokenizer.json`, and its special tokens; None where there is none.

    Raises:
        UsageError: what is there cannot be read, or has no template that is meant for chats.
    """
    config = _config(file.parent / CONFIG)
    template = _text(file.parent / TEMPLATE)
    if template is None:
        template = _default(config.get("chat_template"), file.parent / CONFIG)
    return None if template is None else (template, special_names(config))


def _default(found: object, file: Path) -> str | None:
    """One template out of what a config says: a text, or a list of named ones."""
    if found is None or isinstance(found, str):
        return found
    place = f"--chat-template: {file}, chat_template"
    if not isinstance(found, list):
        raise UsageError(f"{place}: expected a text or a list of named templates; it is {_kind(found)}")
    if not found:
        raise UsageError(f"{place}: the list of templates is empty; without the key there is none")
    named: dict[str, str] = {}
    for at, each in enumerate(found, 1):
        name, template = (each.get("name"), each.get("template")) if isinstance(each, dict) else (None, None)
        if not isinstance(name, str) or not isinstance(template, str):
            raise UsageError(f"{place} {at}: expected an object with name and template, both of them texts")
        named[name] = template
    if "default" not in named:
        raise UsageError(f'{place}: no template is called "default"; there are {_line(", ".join(named))}')
    return named["default"]


def _kind(found: object) -> str:
    """What a value of a config is, in the words of JSON."""
    if isinstance(found, dict):
        return "an object"
    return "true or false" if isinstance(found, bool) else "a number"


def _config(file: Path) -> dict[str, Any]:
    text = _text(file)
    try:
        config = json.loads(text or "{}")
    except (ValueError, RecursionError) as error:
        raise UsageError(f"--chat-template: {file} is not JSON: {error}") from error
    if not isinstance(config, dict):
        raise UsageError(f"--chat-template: {file} holds no JSON object")
    return config


def _text(file: Path) -> str | None:
    """The text of a file; None where there is none."""
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--chat-template: {file} cannot be read ({error})") from error


def _ended(process: subprocess.Popen[bytes]) -> None:
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):  # it is gone already
                pipe.close()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _line(text: str) -> str:
    return text.strip().split("\n", 1)[0][:200]
