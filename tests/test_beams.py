"""Beam search against exhaustive search, and the sample that stochastic beams promise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.serving.decoding.job import Beams, Ending, Job, Output
from harness.serving.decoding.sampling import Sampling
from harness.serving.decoding.steering import Steering
from tests.decoded import Table, run

VOCABULARY, LENGTH, END = 3, 3, 2


def lively(seed: int, *, scale: float = 1.5) -> Table:
    """A model whose distributions differ with everything said before."""

    def logits(ids: Sequence[int]) -> list[float]:
        random = np.random.default_rng([seed, *ids])
        return [float(each) for each in scale * random.standard_normal(VOCABULARY)]

    return Table(logits)


def logprob(model: Table, ids: Sequence[int]) -> float:
    """Log-probability of an output after the context 0, by the chain rule."""
    total = 0.0
    for place, token in enumerate(ids):
        row = np.asarray(model._logits([0, *ids[:place]]), np.float64)
        total += float(row[token] - np.log(np.exp(row).sum()))
    return total


def outputs(ending: int | None = END) -> list[tuple[int, ...]]:
    """Every output there is: up to the ending token, or to the full length."""
    found = set()
    for ids in product(range(VOCABULARY), repeat=LENGTH):
        found.add(ids[: ids.index(ending) + 1] if ending in ids else ids)
    return sorted(found)


def searched(model: Table, *, seed: int = 0, steering: Steering = Steering(), **beams: object) -> Output:
    """The output of a search over all outputs."""
    job = Job(
        context_ids=[0],
        max_tokens=LENGTH,
        seeds=[seed],
        sampling=Sampling(),
        steering=steering,
        ending=Ending(tokens=frozenset({END})),
        beams=Beams(**beams),  # type: ignore[arg-type]
    )
    (output,) = run(model, job).outputs
    return output


def ids_of(output: Output) -> tuple[int, ...]:
    """The tokens of an output."""
    return tuple(each.token for each in output.tokens)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 1.0, 2.0, -1.0]))
def test_beams_wide_enough_find_the_best_output(seed: int, penalty: float) -> None:
    """With a beam for every prefix the search is exhaustive: the best log-probability over length^penalty."""
    model = lively(seed)
    best = max(outputs(), key=lambda ids: logprob(model, ids) / len(ids) ** penalty)
    found = searched(model, width=31, length_penalty=penalty)
    assert ids_of(found) == best
    assert sum(each.logprob for each in found.tokens) == pytest.approx(logprob(model, best), abs=1e-5)
    assert found.finish_reason == ("stop" if best[-1] == END else "length")


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6))
def test_one_beam_is_greedy(seed: int) -> None:
    """A single beam takes the likeliest token each time, but for ends, which it sets aside."""
    model = lively(seed)
    job = Job(context_ids=[0], max_tokens=LENGTH, sampling=Sampling(temperature=0), ending=Ending())
    greedy = tuple(each.token for each in run(model, job).outputs[0].tokens)
    if END not in greedy:
        assert ids_of(searched(model, width=1, early_stopping=True)) == greedy


def test_without_normalisation_the_likeliest_comes_first() -> None:
    """`beam_compat_no_post_normalization` compares whole log-probabilities, so the shorter output wins."""
    model = Table(lambda ids: [0.0, -9.0, 0.1])
    assert ids_of(searched(model, width=4)) == (END,)
    assert ids_of(searched(model, width=4, length_penalty=3.0)) == (0, 0, END)
    assert ids_of(searched(model, width=4, length_penalty=3.0, post_normalization=False)) == (END,)


def test_early_stopping_takes_what_has_ended_first() -> None:
    """As soon as there are as many ended outputs as beams, a better one that is still open is given up."""

    def logits(ids: Sequence[int]) -> list[float]:
        return [0.3, -9.0, 0.0] if len(ids) < LENGTH else [9.0, -9.0, -9.0]

    model = Table(logits)
    assert ids_of(searched(model, width=1, length_penalty=2.0)) == (0, 0, 0)
    assert ids_of(searched(model, width=1, length_penalty=2.0, early_stopping=True)) == (0, 0, 0)
    assert searched(Table(lambda ids: [0.0, -9.0, 0.5]), width=1, early_stopping=True).finish_reason == "stop"


def test_ended_outputs_compete_where_they_are_told_to() -> None:
    """With `pre_normalization` an ended output takes the place of a worse open one: fewer tokens are read."""
    plain, competing = (Table(lambda ids: [0.0, -0.1, 0.5]) for _ in range(2))
    searched(plain, width=2)
    searched(competing, width=2, pre_normalization=True)
    assert competing.read < plain.read


def test_a_stop_token_ends_the_search_once_every_beam_holds_one() -> None:
    """One beam with a stop token goes on with the others; with one in each the search is over."""
    model = Table(lambda ids: [1.0, 0.9, -9.0])

    def stopped(stop: set[int], width: int) -> tuple[int, str]:
        job = Job(
            context_ids=[0],
            max_tokens=LENGTH,
            ending=Ending(stop_tokens=frozenset(stop)),
            beams=Beams(width=width),
        )
        (output,) = run(model, job).outputs
        return len(output.tokens), output.finish_reason

    assert stopped({0, 1}, 2) == (1, "stop")
    assert stopped({0}, 1) == (1, "stop")
    assert stopped({1}, 2)[0] > 1


def test_steering_reaches_the_beams() -> None:
    """What is banned is in no beam; where everything is banned the output is empty."""
    model = lively(3)
    found = searched(model, width=4, steering=Steering(bad=((0,), (1,))))
    assert ids_of(found) == (END,)
    nothing = searched(model, width=4, steering=Steering(bad=((0,), (1,), (2,))))
    assert (nothing.tokens, nothing.finish_reason) == ((), "stop")


# ------------------------------------------------------------------------------------------------ chance


@pytest.mark.parametrize("kind", ["NAIVE_SAMPLING", "STOCHASTIC"])
def test_a_seed_fixes_the_search(kind: str) -> None:
    """The same seed finds the same output; seeds differ from one another."""
    model = lively(5, scale=0.1)
    found = [ids_of(searched(model, seed=seed, width=1, kind=kind, length_penalty=2.0)) for seed in range(12)]
    again = [ids_of(searched(model, seed=seed, width=1, kind=kind, length_penalty=2.0)) for seed in range(12)]
    assert found == again
    assert len(set(found)) > 1


@pytest.mark.parametrize("kind", ["NAIVE_SAMPLING", "STOCHASTIC"])
def test_one_random_beam_draws_from_the_model(kind: str) -> None:
    """A single stochastic beam is an exact sample; a single naive one the likelier of two."""
    model = Table(lambda ids: [0.5, 0.0, -1.0])
    job = [
        Job(context_ids=[0], max_tokens=1, seeds=[seed], beams=Beams(width=1, kind=kind))  # type: ignore[arg-type]
        for seed in range(1500)
    ]
    counts = Counter(run(model, each).outputs[0].tokens[0].token for each in job)
    weights = np.exp([0.5, 0.0, -1.0])
    expected = weights / weights.sum()
    if kind == "NAIVE_SAMPLING":  # the likelier of two that are drawn without replacement
        first, second = expected, [expected / (1 - each) for each in expected]
        pairs = np.asarray([[first[i] * second[i][j] if i != j else 0 for j in range(3)] for i in range(3)])
        expected = np.asarray([pairs[0].sum() + pairs[:, 0].sum(), pairs[1, 2] + pairs[2, 1], 0.0])
    found = np.asarray([counts[token] for token in range(3)]) / len(job)
    assert found == pytest.approx(expected, abs=4 * np.sqrt(0.25 / len(job)))


def test_stochastic_beams_are_a_sample_without_replacement() -> None:
    """Of two outputs sampled the likelier is returned: as often as two draws without replacement have it."""
    model = lively(11, scale=0.7)
    every = outputs()
    chances = np.exp([logprob(model, ids) for ids in every])
    assert chances.sum() == pytest.approx(1)
    expected = np.zeros(len(every))
    for i, j in product(range(len(every)), repeat=2):
        if i != j:
            expected[i if chances[i] > chances[j] else j] += chances[i] * chances[j] / (1 - chances[i])
    draws = 3000
    found = Counter(
        ids_of(searched(model, seed=seed, width=2, kind="STOCHASTIC", post_normalization=False))
        for seed in range(draws)
    )
    deviation = np.sqrt(expected * (1 - expected) / draws)
    observed = np.asarray([found[ids] for ids in every]) / draws
    assert (np.abs(observed - expected) <= 4 * deviation + 1e-9).all()
