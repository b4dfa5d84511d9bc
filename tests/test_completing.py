from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Event

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.serving.cache import Prefix, PrefixCache
from harness.serving.completing import Cancelled, Completion, Job, complete
from harness.serving.config import read_config
from harness.serving.llama import KeysValues, LlamaModel
from harness.serving.model import Ids
from harness.serving.sampling import draw, log_softmax, score
from harness.serving.weights import Floats, Tensors
from tests.tiny_llama import write_model

BLOCK = 4


class CountingModel(LlamaModel):
    """The tiny model in blocks of 4 tokens; it notes how many tokens each `feed` brings."""

    fed: list[int]

    def feed(self, past: KeysValues, ids: Sequence[int] | Ids, *, last_only: bool) -> Floats:
        """Note and read."""
        self.fed.append(len(ids))
        return super().feed(past, ids, last_only=last_only)


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


def run(model: LlamaModel, job: Job, cache: PrefixCache[KeysValues] | None = None) -> Completion:
    """The job's completion, by default with nothing cached."""
    return complete(model, PrefixCache() if cache is None else cache, job, Event())


def prefix(ids: Sequence[int]) -> Prefix[KeysValues]:
    """A prefix of 128 bytes of keys and values and 8 of log-probabilities, beside 4 an id."""
    empty = np.zeros((1, 1, 4, 4), np.float32)
    return Prefix(np.asarray(ids, np.int32), KeysValues(empty, empty, 4), np.zeros(2, np.float32))


contexts = st.lists(st.integers(0, 2), min_size=1, max_size=14)
jobs = st.builds(
    Job,
    context_ids=contexts,
    max_tokens=st.integers(6, 8),
    forced_ids=st.lists(st.integers(0, 2), max_size=6),
    top=st.integers(0, 3),
    temperature=st.sampled_from([0.0, 1.0]),
    seed=st.integers(0, 3),
)


@settings(max_examples=60, deadline=None)
@given(jobs=st.lists(jobs, min_size=1, max_size=6), max_tokens=st.sampled_from([0, 20, 1000]))
def test_the_cache_changes_no_bit(loaded: CountingModel, jobs: list[Job], max_tokens: int) -> None:
    """Whatever was completed before, with whatever cache, a job's numbers are those of an empty cache."""
    loaded.fed = []
    cache = PrefixCache[KeysValues](max_tokens=max_tokens)
    for job in jobs:
        assert run(loaded, job).output == run(loaded, job, cache).output
        assert cache.tokens <= max_tokens


def test_choices_of_a_context_share_it(model: CountingModel) -> None:
    """The context is read once; a single forced token after it needs no reading at all."""
    context, cache = list(range(10)), PrefixCache[KeysValues]()
    assert run(model, Job(context, 1, forced_ids=[5]), cache).cached_tokens == 0
    assert model.fed == [4, 4, 2]
    for forced in ([6], [7]):
        assert run(model, Job(context, 1, forced_ids=forced), cache).cached_tokens == 10
    assert model.fed == [4, 4, 2]
    run(model, Job(context, 6, forced_ids=[1, 2, 3, 4, 5, 6]), cache)
    assert model.fed == [4, 4, 2, 4, 1]


@pytest.mark.parametrize(
    ("context", "cached"),
    [
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9], 10),
        ([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10], 8),
        ([0, 1, 2, 3, 4, 5, 6, 7, 8], 8),
        ([0, 1, 2, 3, 4, 5, 6, 7], 4),
        ([0, 1, 2, 3, 4, 5, 9, 9, 9, 9], 4),
        ([0, 1, 2, 9, 9, 9, 9, 9], 0),
        ([9], 0),
    ],
)
def test_a_shared_start_is_read_once(model: CountingModel, context: list[int], cached: int) -> None:
    """Whole blocks of the longest common start are taken from the cache; the last token never is."""
    cache = PrefixCache[KeysValues]()
    run(model, Job([9, 9, 9], 1, forced_ids=[0]), cache)
    run(model, Job(list(range(10)), 1, forced_ids=[0]), cache)
    model.fed.clear()
    assert run(model, Job(context, 1, forced_ids=[0]), cache).cached_tokens == cached
    assert sum(model.fed) == len(context) - cached


def test_forced_scores_are_those_of_one_pass(model: CountingModel) -> None:
    """Scores of forced tokens over a kept context equal the log-softmax of the whole sequence."""
    context, forced = [0, 30, 31, 32, 33], [40, 41, 42, 43, 44, 45, 46]
    rows = log_softmax(model.feed(model.start(0), context + forced, last_only=False))[4:-1]
    done = run(model, Job(context, len(forced), forced_ids=forced, top=1))
    assert done.finish_reason == "length"
    assert [each.token for each in done.output] == forced
    assert [each.logprob for each in done.output] == pytest.approx(rows[range(7), forced], abs=1e-4)
    assert [each.top[0][0] for each in done.output] == rows.argmax(axis=1).tolist()


def test_greedy_generation_takes_the_likeliest(model: CountingModel) -> None:
    """At temperature 0 every token is the likeliest, and forcing the same text gives the same numbers."""
    job = Job([0, 30, 31], 12, temperature=0.0, top=1)
    output = run(model, job).output
    assert [each.token for each in output] == [each.top[0][0] for each in output]
    forced = run(model, Job([0, 30, 31], 12, forced_ids=[each.token for each in output])).output
    assert [each.logprob for each in output] == pytest.approx([each.logprob for each in forced], abs=1e-4)


def test_a_seed_fixes_the_text(model: CountingModel) -> None:
    """The same seed draws the same tokens, another seed others."""
    drawn = [run(model, Job([0, 30], 20, seed=seed)).output for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2]


def test_generation_ends_at_the_end_of_text(folder: Path) -> None:
    """An end-of-text id ends the output with "stop"; where none comes the limit does, with "length"."""
    model = LlamaModel(read_config(folder), Tensors(folder))
    job = Job([0, 30, 31], 5, temperature=0.0)
    whole = [each.token for each in run(model, job).output]
    assert run(model, job).finish_reason == "length"
    ending = write_model(folder.parent / "ending", eos_token_id=[whole[2]])
    done = run(LlamaModel(read_config(ending), Tensors(ending)), job)
    assert [each.token for each in done.output] == whole[: whole.index(whole[2]) + 1]
    assert done.finish_reason == "stop"


def test_a_given_up_completion_reads_no_further(model: CountingModel) -> None:
    """Once `cancelled` is set, no block is read any more, and nothing is cached."""
    cancelled, cache = Event(), PrefixCache[KeysValues]()
    cancelled.set()
    with pytest.raises(Cancelled):
        complete(model, cache, Job(list(range(10)), 3), cancelled)
    assert (model.fed, len(cache)) == ([], 0)


@given(
    st.lists(contexts, max_size=20),
    st.sampled_from([0, 10, 40, 10**6]),
    st.sampled_from([0, 400, 10**6]),
)
def test_cache_stays_in_its_bounds(added: list[list[int]], max_tokens: int, max_bytes: int) -> None:
    """Tokens and bytes never exceed their bounds, are counted right, and the last that fits is there."""
    cache = PrefixCache[KeysValues](max_tokens=max_tokens, max_bytes=max_bytes)
    for ids in added:
        new = prefix(ids)
        cache.add(new)
        kept = [each for each in map(prefix, added) if cache.get(each.ids)]
        unique = {each.ids.tobytes(): each for each in kept}.values()
        assert cache.tokens == sum(len(each.ids) for each in unique) <= max_tokens
        assert cache.nbytes == sum(each.nbytes for each in unique) <= max_bytes
        fits = len(ids) <= max_tokens and new.nbytes <= max_bytes
        assert (cache.get(new.ids) is not None) == fits


def test_the_least_recently_used_goes_first() -> None:
    """Being asked for, or being the nearest, keeps a prefix; the one longest unused makes room."""
    cache = PrefixCache[KeysValues](max_tokens=9)
    first, second, third = prefix([1, 1, 1]), prefix([2, 2, 2]), prefix([3, 3, 3])
    for each in (first, second, third):
        cache.add(each)
    assert cache.get(first.ids) is first
    assert cache.nearest(np.asarray([2, 2, 9], np.int32)) == (second, 2)
    cache.add(prefix([4]))
    assert cache.get(third.ids) is None
    assert cache.get(first.ids) is first
    assert cache.get(second.ids) is second


def test_log_softmax_is_a_distribution() -> None:
    """Rows sum to one, however large the logits; what is no number is an error, never a score."""
    rows = log_softmax(np.asarray([[1e4, 1e4 - 1, -1e4], [0, 0, 0]], np.float32))
    assert np.exp(rows).sum(axis=1) == pytest.approx(1)
    for broken in (np.nan, np.inf):
        with pytest.raises(FloatingPointError), np.errstate(invalid="ignore"):
            log_softmax(np.asarray([[0, broken]], np.float32))


@given(st.lists(st.floats(-20, 0, width=32), min_size=3, max_size=3), st.integers(0, 5))
def test_alternatives_are_the_likeliest(values: list[float], top: int) -> None:
    """As many as asked for, or as there are, greatest first; the chosen value stands beside them."""
    found = score(np.asarray([values], np.float32), np.asarray([1], np.int32), top)[0]
    assert found.logprob == values[1]
    assert [value for _, value in found.top] == sorted(values, reverse=True)[:top]
    assert all(values[token] == value for token, value in found.top)


@given(st.lists(st.floats(-20, 0, width=32), min_size=1, max_size=5), st.integers(0, 2**32))
def test_a_temperature_near_zero_draws_the_likeliest(values: list[float], seed: int) -> None:
    """Any temperature draws an id of the row, one near 0 only the likeliest."""
    row = np.asarray(values, np.float32)
    assert 0 <= draw(row, 100.0, np.random.default_rng(seed)) < len(row)
    assert row[draw(row, 1e-300, np.random.default_rng(seed))] == row.max()


def test_draws_follow_the_distribution() -> None:
    """At temperature 1 an id of probability one half is drawn about every second time."""
    random = np.random.default_rng(0)
    row = np.log(np.asarray([0.5, 0.25, 0.25], np.float32))
    counts = np.bincount([draw(row, 1.0, random) for _ in range(2000)], minlength=3)
    assert counts / 2000 == pytest.approx([0.5, 0.25, 0.25], abs=0.05)
