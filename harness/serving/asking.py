"""The fields of a completion: types, ranges, and which exclude one another. Pure; it knows no model.

Fields and rules are those of the vendor's page for `POST /dedicated/v1/completions`, with `min_p` and `xtc_*`
of its later schema, and `echo` of OpenAI-style clients. A null is a field that was not given.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import msgspec

from harness.serving.decoding.job import BeamSearchType
from harness.serving.wire import TokenId, invalid

MAX_TOP = 100
"""The most alternatives a position: a reply grows with them."""
MAX_CHOICES = 128
"""The most outputs of a request: of all its prompts together."""

SomeIds = Annotated[list[TokenId], msgspec.Meta(min_length=1)]
Seed = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Penalty = Annotated[float, msgspec.Meta(ge=-2, le=2)]
_Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
_Number = Annotated[float, msgspec.Meta(ge=-1e6, le=1e6)]
_Exponent = Annotated[float, msgspec.Meta(ge=-40, le=40)]
"""Within these no length of an output overflows."""
_Text = Annotated[str, msgspec.Meta(min_length=1, max_length=1_000)]
_Phrases = Annotated[list[_Text], msgspec.Meta(max_length=128)]
"""Each is looked for with every token."""
_FewIds = Annotated[list[TokenId], msgspec.Meta(max_length=1_024)]


class TokenSequence(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Ids, as the contract wraps them where it wants several sequences."""

    tokens: _FewIds | None = None


_Sequences = Annotated[list[TokenSequence], msgspec.Meta(max_length=1_024)]


class StreamOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a stream tells beside its tokens."""

    include_usage: bool | None = None


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every field there is; what each does here stands in `harness/serving/README.md`."""

    model: str | None = None
    prompt: str | Annotated[list[TokenId | str | SomeIds], msgspec.Meta(min_length=1)] | None = None
    tokens: SomeIds | None = None
    forced_output_tokens: SomeIds | None = None
    echo: bool | None = None

    max_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    max_total_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    min_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    min_total_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=MAX_CHOICES)] | None = None
    seed: Seed | Annotated[list[Seed], msgspec.Meta(min_length=1)] | None = None
    logprobs: Annotated[int, msgspec.Meta(ge=0, le=MAX_TOP)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    timeout_microseconds: Annotated[int, msgspec.Meta(ge=1, le=2**63 - 1)] | None = None

    temperature: Annotated[float, msgspec.Meta(ge=0)] | None = None
    top_k: Annotated[int, msgspec.Meta(ge=0)] | None = None
    top_p: Annotated[float, msgspec.Meta(gt=0, le=1)] | None = None
    min_p: _Share | None = None
    xtc_threshold: _Share | None = None
    xtc_probability: _Share | None = None
    frequency_penalty: _Penalty | None = None
    presence_penalty: _Penalty | None = None
    repetition_penalty: Annotated[float, msgspec.Meta(ge=1)] | None = None
    no_repeat_ngram: Annotated[int, msgspec.Meta(ge=1)] | None = None
    bad_words: _Phrases | None = None
    bad_word_tokens: _Sequences | None = None

    stop: _Phrases | None = None
    stop_tokens: _Sequences | None = None
    eos_token: _FewIds | None = None

    num_beams: Annotated[int, msgspec.Meta(ge=1, le=31)] | None = None
    beam_search_type: BeamSearchType | None = None
    length_penalty: _Exponent | None = None
    early_stopping: bool | None = None
    beam_compat_pre_normalization: bool | None = None
    beam_compat_no_post_normalization: bool | None = None

    token_index_to_replace: list[Annotated[int, msgspec.Meta(ge=0)]] | None = None
    embedding_to_replace: list[_Number] | None = None

    encoder_repetition_penalty: Any = None
    encoder_no_repeat_ngram: Any = None
    response_format: Any = None

    @property
    def top(self) -> int:
        """Alternatives to report a position."""
        return self.logprobs or 0

    @property
    def outputs(self) -> int:
        """Outputs of each prompt."""
        return self.n or 1


_Rule = tuple[str, Callable[[CompletionRequest], object], str]


def _both(first: str, second: str) -> Callable[[CompletionRequest], bool]:
    return lambda asked: getattr(asked, first) is not None and getattr(asked, second) is not None


def _searching(field: str) -> Callable[[CompletionRequest], bool]:
    return lambda asked: bool(getattr(asked, field)) and asked.num_beams is not None


def _only_searching(field: str) -> Callable[[CompletionRequest], bool]:
    return lambda asked: getattr(asked, field) is not None and asked.num_beams is None


def _random(field: str, idle: float) -> Callable[[CompletionRequest], bool]:
    """A field of random sampling that does something, with a search that does not sample."""
    return lambda asked: (
        asked.num_beams is not None
        and asked.beam_search_type in (None, "DETERMINISTIC")
        and getattr(asked, field) not in (None, idle)
    )


_DETERMINISTIC = "steers random sampling, which deterministic beam search does not do"
_BEAMS_ONLY = "is for beam search; give num_beams too"

_NO_ENCODER = "is for encoder-decoder models; this one has no encoder"
_UNSERVED = {
    "encoder_repetition_penalty": _NO_ENCODER,
    "encoder_no_repeat_ngram": _NO_ENCODER,
    "response_format": "is not served here: no output is held to a grammar",
}
"""Fields that are known, and refused: what this endpoint cannot do."""

_RULES: tuple[_Rule, ...] = (
    (
        "prompt",
        lambda asked: (asked.prompt is None) == (asked.tokens is None),
        "or tokens is required, and not both",
    ),
    ("max_total_tokens", _both("max_tokens", "max_total_tokens"), "excludes max_tokens; give one of them"),
    ("min_total_tokens", _both("min_tokens", "min_total_tokens"), "excludes min_tokens; give one of them"),
    ("n", lambda asked: asked.num_beams is not None and asked.outputs > 1, "excludes beam search"),
    ("stream", _searching("stream"), "excludes beam search"),
    ("stop", _searching("stop"), "excludes beam search; use stop_tokens"),
    ("temperature", _random("temperature", 1), _DETERMINISTIC),
    ("top_k", _random("top_k", 0), _DETERMINISTIC),
    ("top_p", _random("top_p", 1), _DETERMINISTIC),
    ("min_p", _random("min_p", 0), _DETERMINISTIC),
    ("xtc_probability", _random("xtc_probability", 0), _DETERMINISTIC),
    (
        "temperature",
        lambda asked: asked.num_beams is not None and asked.temperature == 0,
        "of 0 leaves beams nothing to choose from",
    ),
    *(
        (field, _only_searching(field), _BEAMS_ONLY)
        for field in (
            "length_penalty",
            "early_stopping",
            "beam_compat_pre_normalization",
            "beam_compat_no_post_normalization",
        )
    ),
    (
        "stream_options",
        lambda asked: asked.stream_options is not None and not asked.stream,
        "is for streams; give stream: true too",
    ),
    (
        "seed",
        lambda asked: isinstance(asked.seed, list) and len(asked.seed) != asked.outputs,
        "as a list has one for each of the n outputs",
    ),
    (
        "echo",
        lambda asked: asked.echo and (asked.forced_output_tokens or asked.tokens or asked.stream),
        "goes with 'prompt', without forced_output_tokens and without stream",
    ),
    (
        "max_tokens",
        lambda asked: asked.max_tokens == 0 and not asked.echo,
        "must be at least 1, unless the prompt is echoed",
    ),
    (
        "num_beams",
        lambda asked: asked.num_beams is not None and (asked.forced_output_tokens or asked.max_tokens == 0),
        "searches for an output, which forced_output_tokens or max_tokens leave no room for",
    ),
    (
        "embedding_to_replace",
        lambda asked: (asked.token_index_to_replace is None) != (asked.embedding_to_replace is None),
        "and token_index_to_replace go together",
    ),
    (
        "token_index_to_replace",
        lambda asked: len(set(asked.token_index_to_replace or ())) < len(asked.token_index_to_replace or ()),
        "names an index twice",
    ),
)
"""The field, whether the rule is broken, and what is wrong with the field; the first broken one counts."""


def check(asked: CompletionRequest) -> None:
    """Raise `wire.Refused` where a field asks for what is not served, or excludes another."""
    for field, said in _UNSERVED.items():
        if getattr(asked, field) is not None:
            raise invalid(field, f"{field} {said}; leave it out", kind="unsupported")
    for field, broken, said in _RULES:
        if broken(asked):
            raise invalid(field, f"{field} {said}")
