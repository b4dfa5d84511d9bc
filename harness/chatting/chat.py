"""Prompts as chats, for models that were trained on them: messages, put into the tokenizer's own template.

What becomes which message follows lm-evaluation-harness 0.4.13 (`api/task.py` `fewshot_context`,
`api/utils.py` `multiturn_to_singleturn`, `models/huggingface.py` `apply_chat_template`): the description is
the system message; shots and question are one user message (`message`, its `--apply_chat_template`), or each
shot a user and an assistant message (`turns`, its `--fewshot_as_multiturn`); the generation prompt is added,
and the delimiter between question and scored choice falls away. Where a template refuses a chat with a system
message it is asked again without. This module does not know what a template is made of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypedDict

from harness.errors import TemplateError, TemplateRefused
from harness.prompts import Prompt


class Message(TypedDict):
    """One message of a chat, as templates read it."""

    role: Literal["system", "user", "assistant"]
    content: str


class Renders(Protocol):
    """What is needed of a chat template."""

    @property
    def sha256(self) -> str:
        """Two templates of equal hash render alike."""

    def render(self, messages: Sequence[Message]) -> str:
        """The text of a chat, up to where the assistant is to answer.

        Raises:
            TemplateRefused: the template says by itself that it does not take this chat.
            TemplateError: it cannot render it.
        """


@dataclass(frozen=True, slots=True)
class Chat:
    """How the prompts of an endpoint become chats."""

    mode: Literal["message", "turns"]
    template: Renders
    start: str = ""
    """What the tokenizer puts in front of every text, as text: where the server does so, a rendered text that
    begins with it is sent without."""


@dataclass(frozen=True, slots=True)
class Sent:
    """What an item's choices are asked with, as text; or why it cannot be said."""

    contexts: tuple[str, ...]
    """The whole text before each choice; choices that share a context share the string."""
    continuations: tuple[str, ...]
    problem: str = ""


def as_sent(prompt: Prompt, chat: Chat | None) -> Sent:
    """The texts of a prompt as they are put to an endpoint.

    Args:
        prompt: one that is `bare` stays plain text; but after an empty context its choices lose their
            delimiter as all others do, which is how the reference asks for unconditional scores of chats.
        chat: None: plain text.
    """
    continuations = tuple(pair.continuation for pair in prompt.item.pairs)
    if chat is None:
        return Sent(prompt.contexts(), continuations)
    undelimited = tuple(each.removeprefix(prompt.delimiter) for each in continuations)
    if prompt.bare:
        contexts = prompt.contexts()
        return Sent(contexts, continuations if any(contexts) else undelimited)
    own = dict.fromkeys(pair.context for pair in prompt.item.pairs)
    try:
        texts = {each: rendered(messages(prompt, each, chat.mode), chat.template) for each in own}
    except TemplateError as error:
        return Sent(prompt.contexts(), (), f"chat template: {error}")
    return Sent(tuple(texts[pair.context] for pair in prompt.item.pairs), undelimited)


def messages(prompt: Prompt, context: str, mode: Literal["message", "turns"]) -> list[Message]:
    """The chat of a prompt, for choices that stand after `context`.

    Nothing is trimmed: what trims is the template.
    """
    chat: list[Message] = []
    if prompt.description:
        chat.append({"role": "system", "content": prompt.description})
    if mode == "message":
        shots = prompt.prefix.removeprefix(prompt.description)
        return [*chat, {"role": "user", "content": shots + context}]
    for shot in prompt.examples:
        right = shot.pairs[shot.gold[0]]
        chat.append({"role": "user", "content": right.context})
        chat.append({"role": "assistant", "content": right.continuation.removeprefix(prompt.delimiter)})
    return [*chat, {"role": "user", "content": context}]


def rendered(chat: Sequence[Message], template: Renders) -> str:
    """The text of a chat; without its system message where the template refuses the whole.

    Raises:
        TemplateError: it cannot be rendered.
    """
    try:
        return template.render(chat)
    except TemplateRefused:
        without = [message for message in chat if message["role"] != "system"]
        if len(without) == len(chat):
            raise
        return template.render(without)
