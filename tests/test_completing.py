"""Completions on the tiny model: read, kept, forced, drawn, ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.serving.decoding.job import Ending, Job, Piece
from harness.serving.decoding.sampling import Sampling, log_softmax
from harness.serving.models.config import read_config
from harness.serving.models.llama import KeysValues, LlamaModel
from harness.serving.models.seam import Segment, start
from harness.serving.models.weights import Floats, Tensors
from harness.serving.prefixes import PrefixCache
from tests.decoded import Table, letters, run
from tests.tiny_llama import NEWER, random_tensors, write_model

BLOCK = 4
GREEDY = Sampling(temperature=0)


class CountingModel(LlamaModel):
    """The tiny model in blocks of 4 tokens; it notes how many tokens each segment brings."""

    fed: list[int]

    def feed(self, segments: Sequence[Segment[KeysValues]]) -> list[Floats]:
        """Note and read."""
        self.fed += [len(segment.ids) for segment in segments]
        return super().feed(segments)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model's folder."""
    return write_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def loaded(folder: Path) -> CountingModel:
    """The tiny model, loaded once."""
    return CountingModel(read_config(folder), Tensors(folder), block=BLOCK)


@pytest.fixture
def model(loaded: CountingModel) -> CountingModel:
    """The tiny model, its count at zero."""
    loaded.fed = []
    return loaded


jobs = st.builds(
    Job,
    context_ids=st.lists(st.integers(0, 2), min_size=1, max_size=14),
    max_tokens=st.integers(6, 8),
    forced_ids=st.lists(st.integers(0, 2), max_size=6),
    top=st.integers(0, 3),
    sampling=st.sampled_from([GREEDY, Sampling()]),
    seeds=st.lists(st.integers(0, 3), min_size=1, max_size=2),
    echo=st.booleans(),
)


@settings(max_examples=60, deadline=None)
@given(jobs=st.lists(jobs, min_size=1, max_size=6), max_tokens=st.sampled_from([0, 20, 1000]))
def test_what_is_kept_changes_no_bit(loaded: CountingModel, jobs: list[Job], max_tokens: int) -> None:
    """Whatever was completed before, and kept, a job's numbers are those of an empty cache."""
    loaded.fed = []
    cache = PrefixCache[KeysValues](max_tokens=max_tokens)
    for job in jobs:
        alone, beside = run(loaded, job), run(loaded, job, cache)
        assert (alone.outputs, alone.echoed) == (beside.outputs, beside.echoed)
        assert cache.tokens <= max_tokens


def test_choices_of_a_context_share_it(model: CountingModel) -> None:
    """The context is read once; a single forced token after it needs no reading at all."""
    context, cache = list(range(10)), PrefixCache[KeysValues]()
    assert run(model, Job(context_ids=context, max_tokens=1, forced_ids=[5]), cache).cached_tokens == 0
    assert model.fed == [4, 4, 2]
    for forced in ([6], [7]):
        done = run(model, Job(context_ids=context, max_tokens=1, forced_ids=forced), cache)
        assert done.cached_tokens == 10
    assert model.fed == [4, 4, 2]
    run(model, Job(context_ids=context, max_tokens=6, forced_ids=[1, 2, 3, 4, 5, 6]), cache)
    assert model.fed == [4, 4, 2, 4, 1]


@pytest.mark.parametrize(
    ("context", "cached", "read"),
    [
        ([*range(8), 50, 51], 8, 2),
        ([*range(6), 50, 51], 6, 4),
        (list(range(8)), 8, 4),
        (list(range(9)), 9, 1),
        ([50, *range(9)], 0, 10),
        (list(range(12)), 10, 4),
    ],
)
def test_a_shared_start_is_known(model: CountingModel, context: list[int], cached: int, read: int) -> None:
    """The longest common start counts as kept to the token; it is read on from the last whole block of it."""
    cache = PrefixCache[KeysValues]()
    run(model, Job(context_ids=[9, 9, 9], max_tokens=1, forced_ids=[0]), cache)
    run(model, Job(context_ids=list(range(10)), max_tokens=1, forced_ids=[0]), cache)
    model.fed.clear()
    done = run(model, Job(context_ids=context, max_tokens=1, forced_ids=[0]), cache)
    assert done.cached_tokens == cached
    assert sum(model.fed) == read


def test_forced_scores_are_those_of_one_pass(model: CountingModel) -> None:
    """Scores of forced tokens over a kept context equal the log-softmax of the whole sequence."""
    context, forced = [0, 30, 31, 32, 33], [40, 41, 42, 43, 44, 45, 46]
    whole = np.asarray(context + forced, np.int32)
    rows = log_softmax(model.feed([Segment(start(model), whole, len(whole))])[0])[4:-1]
    (output,) = run(model, Job(context_ids=context, max_tokens=7, forced_ids=forced, top=1)).outputs
    assert output.finish_reason == "length"
    assert [each.token for each in output.tokens] == forced
    assert [each.logprob for each in output.tokens] == pytest.approx(rows[range(7), forced], abs=1e-4)
    assert [each.likeliest[0] for each in output.tokens] == rows.argmax(axis=1).tolist()


def test_an_echo_scores_the_context(model: CountingModel) -> None:
    """Every token behind the first is scored by those before it, also where all of it was kept."""
    context, cache = [0, 30, 31, 32, 33, 34], PrefixCache[KeysValues]()
    echo = Job(context_ids=context, max_tokens=0, echo=True)
    first, second = run(model, echo, cache), run(model, echo, cache)
    scored = run(model, Job(context_ids=context[:1], max_tokens=5, forced_ids=context[1:])).outputs[0].tokens
    assert [each.token for each in first.echoed] == context[1:]
    assert [each.logprob for each in first.echoed] == pytest.approx(
        [each.logprob for each in scored], abs=1e-4
    )
    assert (first.echoed, first.cached_tokens, second.cached_tokens) == (second.echoed, 0, 6)
    assert first.outputs[0].tokens == ()


def test_greedy_generation_takes_the_likeliest(model: CountingModel) -> None:
    """At temperature 0 every token is the likeliest, and forcing the same text gives the same numbers."""
    job = Job(context_ids=[0, 30, 31], max_tokens=12, sampling=GREEDY, top=1)
    output = run(model, job).outputs[0].tokens
    assert [each.token for each in output] == [each.likeliest[0] for each in output]
    ids = [each.token for each in output]
    forced = run(model, Job(context_ids=[0, 30, 31], max_tokens=12, forced_ids=ids)).outputs[0].tokens
    assert [each.logprob for each in output] == pytest.approx([each.logprob for each in forced], abs=1e-4)


def test_each_output_has_a_seed_of_its_own(model: CountingModel) -> None:
    """Outputs of one job are those of jobs with one seed each; equal seeds draw alike, others differ."""
    several = run(model, Job(context_ids=[0, 30], max_tokens=20, seeds=[1, 2, 1])).outputs
    alone = [run(model, Job(context_ids=[0, 30], max_tokens=20, seeds=[s])).outputs[0] for s in (1, 2, 1)]
    assert list(several) == alone
    assert several[0] == several[2]
    assert several[0].tokens != several[1].tokens


def test_generation_ends_at_the_end_of_text(model: CountingModel) -> None:
    """An ending id ends the output with "stop" and is its last token; where none comes the length ends it."""
    job = Job(context_ids=[0, 30, 31], max_tokens=5, sampling=GREEDY)
    whole = [each.token for each in run(model, job).outputs[0].tokens]
    assert run(model, job).outputs[0].finish_reason == "length"
    for ending in (Ending(tokens=frozenset({whole[2]})), Ending(stop_tokens=frozenset({whole[2], 99}))):
        (output,) = run(
            model, Job(context_ids=[0, 30, 31], max_tokens=5, sampling=GREEDY, ending=ending)
        ).outputs
        assert [each.token for each in output.tokens] == whole[: whole.index(whole[2]) + 1]
        assert output.finish_reason == "stop"


def test_replaced_embeddings_are_read_and_never_kept(model: CountingModel) -> None:
    """A vector in place of a token's embedding moves the scores; the token's own vector does not."""
    context, cache = [0, 30, 31, 32, 33, 34], PrefixCache[KeysValues]()
    plain = run(model, Job(context_ids=context, max_tokens=1, forced_ids=[5]), cache).outputs
    own = random_tensors(NEWER)["model.embed_tokens.weight"][33]  # what the token is read as anyway
    same = Job(context_ids=context, max_tokens=1, forced_ids=[5], vectors={4: own})
    other = Job(context_ids=context, max_tokens=1, forced_ids=[5], vectors={4: own + 1})
    assert run(model, same, cache).outputs == plain
    assert run(model, same, cache).cached_tokens == 0
    assert run(model, other, cache).outputs != plain
    assert run(model, Job(context_ids=context, max_tokens=1, forced_ids=[5]), cache).outputs == plain


# ------------------------------------------------------------------------------------------------ stopping


def spoken(text: str, *, eos: str = "") -> Table:
    """A model that says a text, letter by letter, after the context "a"."""

    def logits(ids: Sequence[int]) -> list[float]:
        at = len(ids) - 1
        following = text[at] if at < len(text) else "z"
        return [9.0 if chr(ord("a") + each) == following else 0.0 for each in range(26)]

    return Table(logits, eos=[ord(each) - ord("a") for each in eos])


def ids_of(text: str) -> list[int]:
    """The ids of letters."""
    return [ord(each) - ord("a") for each in text]


def said(text: str, *, max_tokens: int = 20, **ending: object) -> tuple[str, str, str]:
    """Tokens, text and reason of an output that would say a text; what was told as it grew is the same."""
    pieces: list[Piece] = []
    job = Job(
        context_ids=[0],
        max_tokens=max_tokens,
        sampling=GREEDY,
        ending=Ending(**ending),  # type: ignore[arg-type]
        emit=pieces.append,
    )
    (output,) = run(spoken(text), job).outputs
    tokens = letters([each.token for each in output.tokens])
    whole = tokens if output.text is None else output.text
    assert "".join(piece.text for piece in pieces) == whole
    assert [piece.scored for piece in pieces] == list(output.tokens)
    assert [piece.offset for piece in pieces] == list(range(len(output.tokens)))
    return tokens, whole, output.finish_reason


def test_a_phrase_ends_the_output_in_front_of_it() -> None:
    """The first stop phrase ends the output and is no part of it, in text and tokens alike."""
    assert said("hellothere", phrases=("lot", "ther")) == ("hel", "hel", "stop")
    assert said("hellothere", phrases=("xyz",), max_tokens=10) == ("hellothere", "hellothere", "length")
    assert said("hello", phrases=("hel",)) == ("", "", "stop")


def test_nothing_ends_the_output_before_its_least_length() -> None:
    """Before `min_tokens` neither ids nor phrases end it; a phrase that came then does not end it later."""
    assert said("abcabcd", phrases=("bc",), min_tokens=4) == ("abca", "abca", "stop")
    assert said("abcde", phrases=("bc",), min_tokens=4, max_tokens=5) == ("abcde", "abcde", "length")


@settings(max_examples=200, deadline=None)
@given(
    st.text("ab", min_size=1, max_size=12),
    st.lists(st.text("ab", min_size=1, max_size=4), max_size=3),
)
def test_stop_phrases_are_found_where_they_are(text: str, phrases: list[str]) -> None:
    """The output ends in front of the phrase that is complete first, of two the one that begins first."""
    ends = [(text.find(phrase) + len(phrase), text.find(phrase)) for phrase in phrases if phrase in text]
    first = min((end for end, _ in ends), default=None)
    cut = min((start for end, start in ends if end == first), default=len(text))
    assert said(text, phrases=tuple(phrases), max_tokens=len(text))[1] == text[:cut]
