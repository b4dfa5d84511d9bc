"""Prompts out of rows: description, shots, question, and which items are chosen."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from harness import Item, Row, Shots, UsageError
from harness.items import BadItem
from harness.prompts import Prompt, Selection, check_pools, pools_by_subject, prompts, shot_drawer
from harness.task import Task
from tests.making import item_of, make_rows, make_task


def texts(task: Task, rows: list[Row], shots: int, pool: list[Row], chosen: Selection) -> dict[str, str]:
    """The first context of every chosen item, by its question."""
    counts: dict[str, int] = {}
    for row in rows:
        counts[row.subject] = counts.get(row.subject, 0) + 1
    made = prompts(
        task,
        rows,
        shots=shots,
        pools=pools_by_subject(task, pool),
        chosen=chosen.indices(task.name, counts),
    )
    return {p.item.pairs[0].context: p.contexts()[0] for p in made if isinstance(p, Prompt)}


def test_layout_of_a_prompt() -> None:
    """Description, then solved shots each followed by the delimiter, then the question alone."""
    task = make_task(description=lambda subject: f"About {subject}.\n\n")
    pool = make_rows(2, subjects=["b"], name="dev")
    found = texts(task, make_rows(1, subjects=["b"]), 2, pool, Selection())
    assert list(found.values()) == [
        "About b.\n\nQ: dev b 0\nA: yes 0\n\nQ: dev b 1\nA: no 1\n\nQ: test b 0\nA:"
    ]


def test_shots_stay_within_the_subject() -> None:
    """A subject's questions get shots of that subject only."""
    pool = make_rows(3, subjects=["a", "b"], name="dev")
    found = texts(make_task(), make_rows(1, subjects=["a", "b"]), 2, pool, Selection())
    assert "dev b" not in found["Q: test a 0\nA:"]
    assert "dev a" not in found["Q: test b 0\nA:"]


@pytest.mark.parametrize("draw", ["first_n", "random"])
@pytest.mark.parametrize("selection", [Selection(limit=3), Selection(sample=4, seed=7)])
def test_selection_changes_no_prompt(draw: str, selection: Selection) -> None:
    """Limit and sample take prompts away; those that stay are the same, shots included."""
    task = make_task(shots=Shots(split="dev", draw=draw))  # type: ignore[arg-type]
    rows, pool = make_rows(20, subjects=["a", "b"]), make_rows(9, subjects=["a", "b"], name="dev")
    whole = texts(task, rows, 3, pool, Selection())
    part = texts(task, rows, 3, pool, selection)
    assert 0 < len(part) < len(whole)
    assert part.items() <= whole.items()


def test_sample_depends_on_the_seed_alone() -> None:
    """The same seed draws the same items; another seed others; all when more are asked for than exist."""
    counts = {"a": 50}
    first = Selection(sample=5, seed=1).indices("toy", counts)
    assert first == Selection(sample=5, seed=1).indices("toy", counts)
    assert first != Selection(sample=5, seed=2).indices("toy", counts)
    assert len(Selection(sample=99, seed=1).indices("toy", counts)["a"]) == 50


def test_random_shots_are_drawn_as_the_reference_draws_them() -> None:
    """One generator seeded 1234 is consumed item after item; where it says so one more is drawn."""
    task = make_task()
    pool = [task.item(row) for row in make_rows(30, name="train")]
    items = [task.item(row) for row in make_rows(5)]
    for one_more in (False, True):
        draw = shot_drawer(Shots(split="train", draw="random", without_own=one_more), 4, pool)
        generator = Random(1234)
        for item in items:
            assert list(draw(item)) == generator.sample(pool, 4 + one_more)[:4]


def test_an_item_is_no_shot_of_its_own() -> None:
    """Where shots come from the evaluated split, the item itself is dropped, and n are left."""
    task = make_task()
    pool = [task.item(row) for row in make_rows(4)]
    draw = shot_drawer(Shots(split="test", draw="random", without_own=True), 3, pool)
    for item in pool * 5:
        shots = draw(item)
        assert item not in shots
        assert len(shots) == 3
    first = shot_drawer(Shots(split="test", draw="first_n", without_own=True), 2, pool)
    assert first(pool[0]) == pool[1:3]


def test_an_item_that_the_pool_holds_twice_still_gets_its_shots() -> None:
    """Where every draw may be the item itself, shots are drawn anew from what is left without it."""
    task = make_task()
    own, *others = (task.item(row) for row in make_rows(4))
    draw = shot_drawer(Shots(split="test", draw="random", without_own=True), 3, [own, own, own, *others])
    for _ in range(20):
        assert sorted(shot.index for shot in draw(own)) == [1, 2, 3]


LISTED = Shots(split="dev", draw="listed", ids=("dev 4", "dev 0", "dev 2"))


def with_ids(row: Row) -> Item:
    """An item whose id is where its row stands."""
    return replace(item_of(row), id=f"dev {row.index}")


def test_listed_shots_stand_in_the_order_of_their_ids() -> None:
    """Shots that somebody chose are the same for all items: the first n listed, wherever their rows are."""
    task = make_task(item=with_ids, shots=LISTED)
    pool = pools_by_subject(task, reversed(make_rows(6, name="dev")))
    assert sorted(item.id for item in pool[""]) == ["dev 0", "dev 2", "dev 4"]
    check_pools(task, 3, pool, [""])
    for n in (1, 2, 3):
        draw = shot_drawer(LISTED, n, pool[""])
        assert [item.id for item in draw(None)] == list(LISTED.ids[:n])


def test_listed_shots_that_are_not_there() -> None:
    """More shots than are listed, or data without one of them, is told before anything is sent."""
    task = make_task(item=with_ids, shots=LISTED)
    pool = pools_by_subject(task, make_rows(3, name="dev"))
    with pytest.raises(UsageError, match="--shots 4: toy has 3 shots, which were chosen by hand"):
        check_pools(task, 4, pool, [""])
    with pytest.raises(UsageError, match=r"--shots 2: .* toy/dev lacks 1 of them, by id: dev 4"):
        check_pools(task, 2, pool, [""])
    with pytest.raises(UsageError, match=r"--shots 1: .* toy/dev lacks 1 of them, by id: dev 4"):
        check_pools(task, 1, {}, [""])


def test_too_few_shots() -> None:
    """A subject without enough items to draw from is named before anything is sent."""
    task = make_task()
    pools: dict[str, list[Item]] = pools_by_subject(task, make_rows(2, subjects=["a"], name="dev"))
    check_pools(task, 2, pools, ["a"])
    said = r"--tasks toy: with 3 shots it needs 3 items of toy/dev, subject a, which has 2"
    with pytest.raises(UsageError, match=said):
        check_pools(task, 3, pools, ["a"])


def test_a_bad_row_keeps_its_place() -> None:
    """A row that is no item becomes a bad item with its index; the others are untouched."""
    rows = make_rows(3)
    rows[1] = Row({**rows[1].values, "answer": 9}, "test row 1", task="toy", index=1)
    found = list(prompts(make_task(), rows, shots=0, pools={}, chosen={"": range(3)}))
    assert isinstance(found[1], BadItem)
    assert found[1].index == 1
    assert "test row 1, field 'answer': gold 9 is out of range for 2 choices" in found[1].problem
    assert [isinstance(each, Prompt) for each in found] == [True, False, True]


@pytest.mark.parametrize(
    ("draw", "shots", "looked_at"), [("first_n", 2, 2), ("random", 2, 7), ("random", 0, 2)]
)
def test_rows_that_are_not_asked_are_looked_at_only_where_all_draw_shots(
    draw: str, shots: int, looked_at: int
) -> None:
    """A row becomes an item where it is asked, or where one generator is consumed row after row."""
    seen: list[int] = []

    def item(row: Row) -> Item:
        seen.append(row.index)
        return item_of(row)

    task = make_task(item=item, shots=Shots(split="dev", draw=draw))  # type: ignore[arg-type]
    pools = {"": [item_of(row) for row in make_rows(3, name="dev")]}
    found = list(prompts(task, make_rows(9), shots=shots, pools=pools, chosen={"": frozenset({3, 6})}))
    assert [each.item.index for each in found if isinstance(each, Prompt)] == [3, 6]
    assert len(seen) == looked_at


@pytest.mark.parametrize("draw", ["first_n", "random"])
def test_no_row_is_read_beyond_the_last_chosen_one(draw: str) -> None:
    """Of a long file only what is needed is read: all up to the last chosen row of any subject."""
    task = make_task(shots=Shots(split="dev", draw=draw))  # type: ignore[arg-type]
    rows = make_rows(9, subjects=["a", "b"])
    pools = pools_by_subject(task, make_rows(5, subjects=["a", "b"], name="dev"))
    chosen = {"a": range(3), "b": frozenset({1, 4})}
    reading = iter(rows)
    found = list(prompts(task, reading, shots=2, pools=pools, chosen=chosen))
    assert found == list(
        prompts(task, [*rows, *make_rows(1, subjects=["c"])], shots=2, pools=pools, chosen=chosen)
    )
    assert len(found) == 5
    assert next(reading) is rows[9 + 5]
    assert list(prompts(task, reading, shots=0, pools={}, chosen={"a": range(0)})) == []
    assert next(reading) is rows[9 + 6]


@pytest.mark.parametrize("draw", ["first_n", "random"])
def test_never_its_own_shot(draw: str) -> None:
    """Where the rows of shots may hold the question, others take its place, and no more are drawn for it."""
    task = make_task()
    rule = Shots(split="dev", draw=draw, never_own=True)  # type: ignore[arg-type]
    pool = [task.item(row) for row in make_rows(4)]
    draw_of = shot_drawer(rule, 3, [*pool, pool[0]])
    for item in pool * 5:
        shots = draw_of(item)
        assert len(shots) == 3
        assert all(shot.pairs != item.pairs for shot in shots)
    apart = [task.item(row) for row in make_rows(3, name="dev")]
    usual = shot_drawer(Shots(split="dev", draw=draw), 3, apart)  # type: ignore[arg-type]
    drawn = shot_drawer(rule, 3, apart)
    assert [list(drawn(item)) for item in pool] == [list(usual(item)) for item in pool]


def test_shots_with_subjects_for_questions_without() -> None:
    """Shots of subjects that no question has are told as that, not as too few."""
    pools = pools_by_subject(make_task(), make_rows(5, subjects=["a"], name="dev"))
    with pytest.raises(UsageError, match="the shots of toy/dev have subjects and the questions have none"):
        check_pools(make_task(), 2, pools, [""])
    check_pools(make_task(), 0, pools, [""])


def test_a_bad_row_without_subject_draws_no_shots() -> None:
    """A row that is no item may have a subject that nothing can be drawn for."""
    task = make_task(shots=Shots(split="dev", draw="random"))
    bad = Row({}, "test line 1", task="toy", broken="not JSON")
    (found,) = prompts(task, [bad], shots=2, pools={"a": []}, chosen={"": range(1)})
    assert isinstance(found, BadItem)
    assert found.problem == "bad row: test line 1, not JSON"
