"""The chats of a run, checked before any endpoint is contacted: each endpoint's template, tried on each task.

What a template does to a prompt shows only when it is rendered. So the first prompt of every task is. A
template that leaves out the question ends the run before it begins; one that changes it, or has no place for
the description, is said when the run begins and beside the numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.chatting.bounds import DAY
from harness.chatting.chat import Chat, Message, as_sent, messages, rendered
from harness.chatting.templates import ChatTemplate, find_template
from harness.dialects import dialect
from harness.endpoints import Endpoint
from harness.errors import TemplateError, UsageError
from harness.modes import ChatMode
from harness.prompts import Prompt
from harness.suite import PreparedTask, Suite
from harness.tokenizing import ENDPOINT, Tokenizer, tokenizer_file

OTHER = "Zq7?"
"""Stands in the place of a text: where the rendered chat stays as it is, that text is left out of it."""


def chats_of(
    mode: ChatMode,
    endpoints: Sequence[Endpoint],
    sources: Mapping[str, str],
    tokenizers: Mapping[str, Tokenizer],
) -> dict[str, Chat]:
    """How each endpoint is asked, by label; nothing where prompts are plain text.

    Args:
        mode: of the run.
        endpoints: of the run.
        sources: where the tokenizer of each label comes from.
        tokenizers: by label.

    Raises:
        UsageError: an endpoint has no chat template that is known here.
    """
    if mode == "off":
        return {}
    templates: dict[str, ChatTemplate] = {}
    found: dict[str, Chat] = {}
    for endpoint in endpoints:
        label, source = endpoint.label, sources[endpoint.label]
        if source == ENDPOINT:
            raise UsageError(
                f"--chat-template {mode}: {label} tokenizes for itself, and does not tell its chat template;"
                " give a folder or a hub id (--tokenizer)"
            )
        if source not in templates:
            templates[source] = _template(mode, endpoint, source)
        # A server that is sent text puts there what the tokenizer does by itself, whatever --bos says.
        start = tokenizers[label].own_front() if dialect(endpoint.dialect).wants_text else ""
        found[label] = Chat(mode, templates[source], start)
    return found


def chat_identity(chats: Mapping[str, Chat], label: str) -> dict[str, str]:
    """What the suite's identity says of chats; nothing where prompts are plain text.

    Args:
        chats: by label.
        label: the endpoint whose tokenizer is the suite's; empty: each has its own.
    """
    if not chats:
        return {}
    modes = {chat.mode for chat in chats.values()}
    template = chats[label].template.sha256 if label else "one for each endpoint"
    return {"chat_template": " ".join(modes), "template": template}


def tried(suite: Suite, chats: Mapping[str, Chat]) -> list[str]:
    """Render the first prompt of each task with each template; what a reader must know, a sentence each.

    Raises:
        UsageError: a template cannot render it, or leaves out what is asked.
    """
    remarks: list[str] = []
    for template in dict.fromkeys(chat.template for chat in chats.values()):
        labels = [label for label, chat in chats.items() if chat.template is template]
        remarks += _tried(suite, chats[labels[0]], ", ".join(labels))
    return remarks


def _template(mode: ChatMode, endpoint: Endpoint, source: str) -> ChatTemplate:
    found = find_template(tokenizer_file(source))
    if found is None:
        what = "embedded" if endpoint.embedded else f"--tokenizer {source}"
        raise UsageError(
            f"--chat-template {mode}: {what} has no chat template: neither a chat_template.jinja beside its"
            " tokenizer.json nor one in its tokenizer_config.json; leave --chat-template out for a base model"
        )
    return ChatTemplate(*found)


def _tried(suite: Suite, chat: Chat, labels: str) -> Iterator[str]:
    said: dict[str, list[str]] = {}
    for task in suite.tasks:
        prompt = _first_prompt(task)
        if prompt is None:
            continue
        sent, name = as_sent(prompt, chat), task.task.name
        if sent.problem:
            raise UsageError(f"--chat-template {chat.mode}: {labels} cannot be asked {name}: {sent.problem}")
        questions = {pair.context: text for pair, text in zip(prompt.item.pairs, sent.contexts, strict=True)}
        if any(_without_question(prompt, each, chat, text) for each, text in questions.items()):
            raise UsageError(
                f"--chat-template {chat.mode}: {labels} cannot be asked {name}: the chat template leaves out"
                " the question; mend the template, or take another"
            )
        for change in _changes(prompt, chat, sent.contexts):
            said.setdefault(change, []).append(name)
    for change, names in said.items():
        yield f"{labels}: the chat template {change} of {', '.join(names)}"
    if getattr(chat.template, "dated", False):
        yield (
            f"{labels}: the chat template asks for the date, and is told {DAY:%d %b %Y} on every day, so that"
            " prompts stay the same"
        )


def _changes(prompt: Prompt, chat: Chat, contexts: Sequence[str]) -> Iterator[str]:
    """What becomes of the parts of a prompt that is sent with these contexts."""
    if prompt.description.strip() not in contexts[0]:
        asked = messages(prompt, prompt.item.pairs[0].context, chat.mode)
        other: Message = {"role": "system", "content": OTHER}
        gone = _renders_as([other, *asked[1:]], chat, contexts[0])
        yield f"{'leaves out' if gone else 'changes'} the description"
    pairs = zip(prompt.item.pairs, contexts, strict=True)
    if any(pair.context.strip() not in context for pair, context in pairs):
        yield "changes the question"


def _without_question(prompt: Prompt, question: str, chat: Chat, text: str) -> bool:
    """Whether a rendered chat holds nothing of its question, as another question gives the same text."""
    if not question.strip():
        return False
    *before, last = messages(prompt, question, chat.mode)
    content = last["content"].removesuffix(question) + OTHER
    return _renders_as([*before, {"role": "user", "content": content}], chat, text)


def _renders_as(asked: Sequence[Message], chat: Chat, text: str) -> bool:
    """Whether another chat is rendered as this text; no where the template takes only the one."""
    try:
        return rendered(asked, chat.template) == text
    except TemplateError:
        return False


def _first_prompt(task: PreparedTask) -> Prompt | None:
    return next((each for each in task.prompts() if isinstance(each, Prompt)), None)
