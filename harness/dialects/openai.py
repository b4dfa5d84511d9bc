"""OpenAI-style completions (vLLM and kin): the prompt is echoed with its log-probabilities.

Context and continuation go together as the ids of one prompt, one more token is generated because servers
want one, and the continuation's log-probabilities are cut out of the echo. Replies name no ids, so the cut
is by count: every position has to be there, and nothing but the first may be without a value. A server that
does not do this is found out here; it never scores.
"""

from __future__ import annotations

import msgspec

from harness.dialects import Dialect
from harness.dialects._common import decode, error_message, usage_of
from harness.dialects._echo import GENERATED, IGNORED, Completion, Logprobs, build, cut, only_logprobs
from harness.errors import ReplyError
from harness.exchange import Reply, ScoreRequest

_DECODER = msgspec.json.Decoder(Completion[Logprobs])


class OpenAi:
    """The dialect; it has no state."""

    name: str = "openai"
    variables: tuple[str, ...] = ("OPENAI_API_KEY",)
    path: str = "completions"
    wants_text: bool = False
    names_tokens: bool = False  # alternatives would come with every token of the echoed prompt
    tokenize_route: Dialect | None = None

    def build(self, request: ScoreRequest, model: str | None) -> bytes:
        """The body that asks for a score."""
        return build([*request.context_ids, *request.forced_ids], request.top, model)

    def parse(self, body: bytes, request: ScoreRequest) -> Reply:
        """The checked reply: the values of the forced positions, and of no others."""
        completion = decode(_DECODER, body)
        logprobs = only_logprobs(completion)
        usage = usage_of(completion.usage)
        first, end = len(request.context_ids), len(request.context_ids) + len(request.forced_ids)
        _check_count(len(logprobs.token_logprobs), end, usage.prompt_tokens)
        return cut(request, logprobs, first, end, usage)

    def error_message(self, body: bytes) -> str:
        """What an error body says."""
        return error_message(body)


DIALECT: Dialect = OpenAi()


def _check_count(found: int, prompt: int, counted: int | None) -> None:
    """Raise `ReplyError` unless there is a value for each token of the prompt and the generated one.

    Args:
        found: positions in the reply.
        prompt: tokens that were sent.
        counted: what the server counted, where it says.
    """
    if found == prompt + GENERATED and counted in (None, prompt):
        return
    if found <= GENERATED < prompt:
        raise ReplyError(IGNORED)
    if found == prompt:
        raise ReplyError(
            f"{found} log-probabilities for {prompt} prompt tokens and the generated one: which of them is"
            " missing cannot be told"
        )
    said = f", and counted {counted} of them" if counted not in (None, prompt) else ""
    raise ReplyError(
        f"{found} log-probabilities for {prompt} prompt tokens and the generated one{said};"
        " does the server add a token of its own?"
    )
