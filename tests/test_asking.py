"""The fields of a completion: ranges, exclusions, and that README, struct and the vendor's page agree."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from harness.serving.asking import MAX_CHOICES, MAX_TOP, CompletionRequest, check
from harness.serving.wire import Problems, Refused, parse

README = Path(__file__).parents[1] / "harness/serving/README.md"
FIELDS = set(CompletionRequest.__struct_fields__)
LATER = {"echo", "min_p", "xtc_threshold", "xtc_probability"}
"""Fields that the vendor's page does not have."""


def asked(**fields: Any) -> CompletionRequest:
    """A request, parsed and checked."""
    request = parse(CompletionRequest, json.dumps({"prompt": "a", **fields}).encode())
    check(request)
    return request


def refused(**fields: Any) -> str:
    """The field that a 422 names."""
    with pytest.raises(Refused) as caught:
        asked(**fields)
    assert caught.value.status == 422
    assert isinstance(caught.value.body, Problems)
    (problem,) = caught.value.body.detail
    assert problem.msg
    place, field, *_ = problem.loc
    assert place == "body"
    return str(field)


def table() -> dict[str, str]:
    """The README's table of fields: each field and what it takes."""
    text = README.read_text().split("| field | takes | here |")[1].split("\n\n")[0]
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines()[2:]]
    assert all(len(row) == 3 and all(row) for row in rows)
    return {row[0].strip("` "): row[1] for row in rows}


def test_the_readme_tells_of_every_field() -> None:
    """Each field of the struct has its row, and each row its field."""
    assert set(table()) == FIELDS


def test_every_field_of_the_vendor_s_page_is_known(shared: Path) -> None:
    """The page's body fields and ours are the same, but for those of its later schema and of OpenAI."""
    page = (shared / "docs/completions-api.txt").read_text()
    body = page.split("\nBody\n")[1].split("\nResponse\n")[0]
    names = set(re.findall(r"^([a-z_]+)$(?=\n)", body, re.MULTILINE)) - {"string", "required", "false"}
    # `prompt` stands for "prompt or tokens": the page's second variant of the body is told in its text.
    assert "Either prompt or tokens field is required" in body
    named = names | {"tokens"}
    kinds = {"boolean", "integer", "number", "object"}
    assert named - kinds == FIELDS - LATER


RANGES: dict[str, tuple[list[Any], list[Any]]] = {
    "prompt": (["a", [1, 2], ["a", "b"], [[1], [2, 3]]], [1, [], [[]], [-1], {"a": 1}, 1.5]),
    "tokens": ([[0, 1]], [[], "a", [-1], [0.5], [2**31]]),
    "forced_output_tokens": ([[0, 1]], [[], [-1], [[1]], "a"]),
    "echo": ([True, False], ["true", 1]),
    "max_tokens": ([1, 10**6], [0, -1, 1.5, "1"]),
    "max_total_tokens": ([1], [0, -1]),
    "min_tokens": ([0, 3], [-1]),
    "min_total_tokens": ([0, 3], [-1]),
    "n": ([1, MAX_CHOICES], [0, MAX_CHOICES + 1]),
    "seed": ([0, 2**63 - 1, [7]], [-1, 2**63, [], 1.5, [1, 2]]),
    "logprobs": ([0, MAX_TOP], [-1, MAX_TOP + 1, True, 0.5]),
    "stream": ([True, False], [0, "yes"]),
    "timeout_microseconds": ([1, 10**9], [0, -1]),
    "temperature": ([0, 1, 2.5], [-0.1, "hot"]),
    "top_k": ([0, 40], [-1, 1.5]),
    "top_p": ([0.1, 1.0], [0, 1.1, -1]),
    "min_p": ([0, 1], [-0.1, 1.1]),
    "xtc_threshold": ([0, 1], [-0.1, 1.1]),
    "xtc_probability": ([0, 1], [-0.1, 1.1]),
    "frequency_penalty": ([-2, 2], [-2.1, 2.1]),
    "presence_penalty": ([-2, 2], [-2.1, 2.1]),
    "repetition_penalty": ([1, 1.3], [0.9]),
    "no_repeat_ngram": ([1, 5], [0, -1]),
    "bad_words": ([[], ["a"]], [[""], "a"]),
    "bad_word_tokens": ([[{"tokens": [1]}], [{"tokens": None}]], [[[1]], [{"tokens": [-1]}], [{"ids": [1]}]]),
    "stop": ([[], ["a"]], [[""], "a", [1]]),
    "stop_tokens": ([[{"tokens": [1]}]], [[1], [{"tokens": "a"}]]),
    "eos_token": ([[], [1]], [1, [-1]]),
    "num_beams": ([1, 31], [0, 32]),
    "beam_search_type": (["DETERMINISTIC", "NAIVE_SAMPLING", "STOCHASTIC"], ["GREEDY", 1]),
    "length_penalty": ([-40, 0, 40], [-41, 41, "long"]),
    "early_stopping": ([True, False], [1, "yes"]),
    "beam_compat_pre_normalization": ([True, False], [1]),
    "beam_compat_no_post_normalization": ([True, False], [1]),
    "token_index_to_replace": ([], [[-1], [0.5]]),
    "embedding_to_replace": ([], [["a"], [1e9]]),
}
"""Of each field values that are taken and values that are not, whatever else is asked for."""


@pytest.mark.parametrize("field", RANGES)
def test_ranges(field: str) -> None:
    """Values at the ends of a range are taken, those beyond are refused by the field's name."""
    good, bad = RANGES[field]
    base: dict[str, Any] = {"prompt": None} if field == "tokens" else {}
    if field.startswith(("length_", "early_", "beam_compat_")):
        base = {"num_beams": 2}
    for value in good:
        assert getattr(asked(**{**base, field: value}), field) is not None
    for value in bad:
        assert refused(**{**base, field: value}) == field


def bounds() -> list[tuple[str, float | None, float | None]]:
    """Fields of the README's table that take numbers, with the least and the greatest that it names."""
    number = r"(-?\d+(?:\^\d+)?(?: - 1)?)"
    found: list[tuple[str, float | None, float | None]] = []
    for field, takes in table().items():
        if between := re.match(f"{number} to {number}(?!\\w)", takes):
            found.append((field, spelled(between[1]), spelled(between[2])))
        elif least := re.match(f"{number} or more", takes):
            found.append((field, spelled(least[1]), None))
    return found


def spelled(number: str) -> int:
    """A number as the table writes it: 2^63 - 1."""
    base, _, rest = number.partition("^")
    power, _, _ = rest.partition(" - ")
    return int(int(base) ** int(power or 1)) - number.endswith(" - 1")


@pytest.mark.parametrize(("field", "least", "most"), bounds(), ids=[field for field, *_ in bounds()])
def test_the_readme_s_bounds_are_those_of_the_struct(field: str, least: int, most: int | None) -> None:
    """What the table names as the ends of a range is taken, and what lies beyond is not."""
    base: dict[str, Any] = {"num_beams": 2} if field == "length_penalty" else {}
    for value, beyond in ((least, least - 1), (most, None if most is None else most + 1)):
        if value is not None:
            assert getattr(asked(**{**base, field: value}), field) == value
            assert refused(**{**base, field: beyond}) == field


def test_bounds_are_read_from_the_table() -> None:
    """The reading of the table finds the ranges that it has."""
    assert {"logprobs", "seed", "n", "num_beams", "temperature", "length_penalty"} <= {
        f for f, *_ in bounds()
    }
    assert ("seed", 0, 2**63 - 1) in bounds()


def test_a_null_is_a_field_that_was_not_given() -> None:
    """Every field may be null, and then does nothing."""
    assert asked(**dict.fromkeys(FIELDS - {"prompt"})) == asked()


def test_no_field_is_left_out() -> None:
    """Each field's values are tried here, but for those that have tests of their own."""
    refusals = {"encoder_repetition_penalty", "encoder_no_repeat_ngram", "response_format"}
    assert set(RANGES) | {"model", "stream_options"} | refusals == FIELDS


EXCLUSIONS: list[tuple[str, dict[str, Any]]] = [
    ("prompt", {"tokens": [1]}),
    ("prompt", {"prompt": None}),
    ("max_total_tokens", {"max_tokens": 1, "max_total_tokens": 9}),
    ("min_total_tokens", {"min_tokens": 1, "min_total_tokens": 9}),
    ("n", {"n": 2, "num_beams": 2}),
    ("stream", {"stream": True, "num_beams": 2}),
    ("stop", {"stop": ["a"], "num_beams": 2}),
    ("top_k", {"top_k": 5, "num_beams": 2}),
    ("top_p", {"top_p": 0.5, "num_beams": 2, "beam_search_type": "DETERMINISTIC"}),
    ("min_p", {"min_p": 0.5, "num_beams": 2}),
    ("xtc_probability", {"xtc_probability": 0.5, "num_beams": 2}),
    ("temperature", {"temperature": 0.5, "num_beams": 2}),
    ("temperature", {"temperature": 0, "num_beams": 2, "beam_search_type": "STOCHASTIC"}),
    ("length_penalty", {"length_penalty": 1.0}),
    ("early_stopping", {"early_stopping": True}),
    ("beam_compat_pre_normalization", {"beam_compat_pre_normalization": True}),
    ("beam_compat_no_post_normalization", {"beam_compat_no_post_normalization": False}),
    ("stream_options", {"stream_options": {"include_usage": True}}),
    ("stream_options", {"stream_options": {"include_usage": True}, "stream": False}),
    ("seed", {"seed": [1, 2], "n": 3}),
    ("echo", {"echo": True, "forced_output_tokens": [1]}),
    ("echo", {"echo": True, "prompt": None, "tokens": [1]}),
    ("echo", {"echo": True, "stream": True}),
    ("num_beams", {"num_beams": 2, "forced_output_tokens": [1]}),
    ("embedding_to_replace", {"token_index_to_replace": [0]}),
    ("embedding_to_replace", {"embedding_to_replace": [0.5]}),
    ("token_index_to_replace", {"token_index_to_replace": [0, 0], "embedding_to_replace": [0.5]}),
    ("encoder_repetition_penalty", {"encoder_repetition_penalty": 1.0}),
    ("encoder_no_repeat_ngram", {"encoder_no_repeat_ngram": 1}),
    ("response_format", {"response_format": {"type": "json_object"}, "min_tokens": 1}),
    ("best_of", {"best_of": 2}),
    ("logit_bias", {"logit_bias": {"1": 2}}),
]
"""The field that is named, and what is asked for."""


@pytest.mark.parametrize(("field", "fields"), EXCLUSIONS, ids=lambda each: json.dumps(each))
def test_what_excludes_one_another_is_refused(field: str, fields: dict[str, Any]) -> None:
    """Fields that exclude one another, are not served here, or do not exist: 422 by name."""
    assert refused(**fields) == field


@pytest.mark.parametrize(
    "fields",
    [
        {"top_k": 5, "top_p": 0.5, "temperature": 0.7, "num_beams": 2, "beam_search_type": "NAIVE_SAMPLING"},
        {"top_k": 0, "top_p": 1.0, "temperature": 1.0, "num_beams": 2},
        {"stop_tokens": [{"tokens": [1]}], "num_beams": 2, "early_stopping": True, "length_penalty": 0.5},
        {"beam_search_type": "STOCHASTIC"},
        {"seed": [1, 2, 3], "n": 3, "stream": True, "stream_options": {"include_usage": True}},
        {"echo": True, "max_tokens": 0, "logprobs": 1},
        {"forced_output_tokens": [1], "temperature": 0, "top_k": 3, "n": 2},
    ],
    ids=json.dumps,
)
def test_what_goes_together_is_taken(fields: dict[str, Any]) -> None:
    """What no rule forbids is no mistake: idle values beside beams, sampling fields beside forced ids."""
    asked(**fields)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b'{"prompt": NaN}'])
def test_no_json_is_400(body: bytes) -> None:
    """What is no JSON is 400; a JSON value that is no object is 422."""
    with pytest.raises(Refused) as caught:
        parse(CompletionRequest, body)
    assert caught.value.status == 400
    for value in (b"1", b"[]", b'"a"', b"null"):
        with pytest.raises(Refused) as caught:
            parse(CompletionRequest, value)
        assert caught.value.status == 422
