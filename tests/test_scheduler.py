"""Many completions at once: batched, each prefix read once, and no completion the worse for another."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.serving.decoding.job import Beams, Completion, Job
from harness.serving.models.llama import KeysValues, LlamaModel, load_llama
from harness.serving.models.seam import Segment
from harness.serving.models.weights import Floats
from harness.serving.prefixes import PrefixCache
from harness.serving.scheduler import MAX_RUNNING, Cancelled, Scheduler, Task
from tests.decoded import Said, Table, letters, run
from tests.tiny_llama import write_model


def flat(ids: Sequence[int]) -> list[float]:
    """Logits that do not matter."""
    return [0.0] * 26


def scheduled(
    jobs: Sequence[Job], model: Table | None = None, *, cache: PrefixCache[Said] | None = None
) -> tuple[Scheduler[Said], list[Task[Said]]]:
    """Jobs that came at once, run to their ends; the tasks in the order of the jobs."""
    scheduler = Scheduler({"": model or Table(flat)}, letters, cache)
    tasks: list[Task[Said]] = [Task("", job) for job in jobs]
    for task in tasks:
        scheduler.add(task)
    while not scheduler.idle:
        scheduler.step()
    return scheduler, tasks


def forced(context: str, choice: str) -> Job:
    """A choice after a context, both as letters."""
    ids = [[ord(each) - ord("a") for each in text] for text in (context, choice)]
    return Job(context_ids=ids[0], max_tokens=len(choice), forced_ids=ids[1])


TREE = [
    "shotsone" + "questiona",
    "shotsone" + "questionb",
    "shotsone" + "other",
    "shotsone" + "questiona",
    "shotstwo",
    "shots",
    "else",
]
"""A prefix tree by hand: shots 5, one 3, question 8, a 1, b 1, other 5, two 3, else 4."""
DISTINCT = 5 + 3 + 8 + 1 + 1 + 5 + 3 + 4


@pytest.mark.parametrize("order", [TREE, TREE[::-1], TREE[3:] + TREE[:3]])
def test_every_token_of_a_prefix_tree_is_computed_once(order: list[str]) -> None:
    """However the requests come, and though all come at once, distinct positions are computed once."""
    scheduler, tasks = scheduled(
        [forced(context, choice) for context in order for choice in "xyz"], cache=PrefixCache()
    )
    whole = sum(len(task.ids) for task in tasks)
    assert scheduler.counts.prompt_computed == DISTINCT
    assert scheduler.counts.prompt_cached == whole - DISTINCT
    assert scheduler.counts.completions == len(tasks)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text("ab", min_size=1, max_size=12), min_size=1, max_size=30))
def test_computed_positions_are_the_nodes_of_the_tree(contexts: list[str]) -> None:
    """For any contexts: the positions computed are the distinct prefixes among them."""
    scheduler, _ = scheduled([forced(context, "x") for context in contexts], cache=PrefixCache())
    nodes = {context[:end] for context in contexts for end in range(1, len(context) + 1)}
    assert scheduler.counts.prompt_computed == len(nodes)


def test_without_a_cache_everything_is_read() -> None:
    """Switched off, each context is computed for itself, and none waits for another."""
    scheduler, _ = scheduled([forced("context", "x") for _ in range(5)])
    assert (scheduler.counts.prompt_computed, scheduler.counts.prompt_cached) == (35, 0)
    assert scheduler.counts.steps == 2


def test_what_comes_together_is_read_together() -> None:
    """Contexts that share nothing make one batch a block; of one context the first comes alone."""
    model = Table(flat)
    scheduled([forced(letter * 8, "xyz") for letter in "abcdefgh"], model, cache=PrefixCache())
    assert model.batches == [8, 8, 8]
    model = Table(flat)
    scheduled([forced("aaaa", f"{letter}yz") for letter in "abcdefgh"], model, cache=PrefixCache())
    assert model.batches == [1, 8]


def test_a_burst_is_worked_off_in_its_order() -> None:
    """No more than the most run at once, and who came first is done first."""
    jobs = [forced(chr(ord("a") + place % 26) * (1 + place // 26), "x") for place in range(150)]
    scheduler = Scheduler({"": Table(flat)}, letters, None)
    tasks: list[Task[Said]] = [Task("", job) for job in jobs]
    for task in tasks:
        scheduler.add(task)
    done: list[Task[Said]] = []
    while not scheduler.idle:
        ended = scheduler.step()
        assert len(ended) <= MAX_RUNNING
        done += ended
    assert done == tasks


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> LlamaModel:
    """The tiny model."""
    return load_llama(write_model(tmp_path_factory.mktemp("model")))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(
        st.tuples(st.text("abc", min_size=1, max_size=90), st.text("abc", max_size=9), st.integers(0, 3)),
        min_size=2,
        max_size=12,
    )
)
def test_company_changes_no_bit(llama: LlamaModel, asked: list[tuple[str, str, int]]) -> None:
    """Whatever shares a batch with it, a completion is the same as alone."""
    jobs = [
        Job(
            context_ids=[ord(each) for each in context],
            max_tokens=max(len(choice), 3),
            forced_ids=[ord(each) for each in choice],
            top=top,
        )
        for context, choice, top in asked
    ]
    scheduler = Scheduler({"": llama}, letters, PrefixCache())
    tasks: list[Task[KeysValues]] = [Task("", job) for job in jobs]
    for task in tasks:
        scheduler.add(task)
    while not scheduler.idle:
        scheduler.step()
    for task in tasks:
        assert isinstance(task.result, Completion)
        assert task.result.outputs == run(llama, task.job).outputs


def test_who_gives_up_stops_at_the_next_step_and_frees_who_waited() -> None:
    """A cancelled task reads nothing more; one that waited for its context reads it itself."""
    scheduler = Scheduler({"": Table(flat)}, letters, PrefixCache())
    leader: Task[Said] = Task("", forced("abcdefghijkl", "x"))
    follower: Task[Said] = Task("", forced("abcdefghijkl", "y"))
    scheduler.add(leader)
    scheduler.add(follower)
    assert scheduler.step() == []
    leader.cancelled = True
    assert scheduler.step() == [leader]
    assert isinstance(leader.result, Cancelled)
    while not scheduler.idle:
        scheduler.step()
    assert isinstance(follower.result, Completion)
    assert scheduler.counts.prompt_computed == 4 + 12, "what the one who left had read counts too"


def test_outputs_have_places_not_requests() -> None:
    """Many outputs of one request, or beams, take the places of many requests; more than all run alone."""
    several = [Job(context_ids=[place], max_tokens=3, seeds=range(30)) for place in range(3)]
    model = Table(flat)
    scheduled(several, model)
    assert max(model.batches) == 60
    model = Table(flat)
    wide = Job(context_ids=[9], max_tokens=3, seeds=range(100))
    scheduled([wide, *(forced(letter, "xyz") for letter in "abc")], model)
    assert model.batches == [1, 100, 100, 3, 3]
    model = Table(flat)
    scheduled([Job(context_ids=[place], max_tokens=3, beams=Beams(width=20)) for place in range(4)], model)
    assert max(model.batches) == 60


def test_who_needs_much_room_is_not_overtaken_for_ever() -> None:
    """However many small ones keep coming, a request of many outputs gets its turn."""
    scheduler = Scheduler({"": Table(flat)}, letters, None)
    wide: Task[Said] = Task("", Job(context_ids=[9], max_tokens=2, seeds=range(128)))
    for turn in range(30):
        scheduler.add(Task("", Job(context_ids=[turn], max_tokens=5, seeds=[0])))
        if turn == 5:
            scheduler.add(wide)
        scheduler.step()
    assert isinstance(wide.result, Completion)


def test_nobody_waits_for_what_cannot_be_kept() -> None:
    """With a cache smaller than the contexts they are read at once, as there is nothing to wait for."""
    model = Table(flat)
    scheduled(
        [forced("aaaaaaaa" + letter, "x") for letter in "abcdefgh"], model, cache=PrefixCache(max_tokens=4)
    )
    assert model.batches == [8, 8, 8]


class Broken(Table):
    """A model whose logits are no numbers where the last id is 25, and that runs out of memory at 24."""

    def _one(self, segment: Segment[Said]) -> Floats:
        rows = super()._one(segment)
        if 24 in segment.ids:
            raise MemoryError
        return np.full_like(rows, np.nan) if segment.ids[-1] == 25 else rows


def test_one_bad_completion_ends_alone() -> None:
    """Logits that are no numbers end their own completion with the error; company goes on."""
    _, tasks = scheduled([forced("abc", "x"), forced("abz", "x"), forced("b", "x")], Broken(flat))
    assert [type(task.result) for task in tasks] == [Completion, FloatingPointError, Completion]


def test_a_model_that_fails_ends_its_batch_and_goes_on() -> None:
    """An error inside the model is that of all who took part; who comes later is served."""
    scheduler = Scheduler({"": Broken(flat)}, letters, PrefixCache())
    first: list[Task[Said]] = [Task("", forced(context, "x")) for context in ("ay", "b")]
    for task in first:
        scheduler.add(task)
    while not scheduler.idle:
        scheduler.step()
    assert [type(task.result) for task in first] == [MemoryError, MemoryError]
    later: Task[Said] = Task("", forced("b", "x"))
    scheduler.add(later)
    while not scheduler.idle:
        scheduler.step()
    assert isinstance(later.result, Completion)
