"""How many requests are in flight: a level that replies raise and cut, and the slots that workers take."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.pacing import Capacity, Gate, Level
from harness.pacing.level import FEWEST, PRICE, START
from tests.virtual_time import in_virtual_time

# -------------------------------------------------------------------------------------------------- level


class Watched(Level):
    """A level, and all that it told."""

    def __init__(self, most: int = 256, start: int = START) -> None:
        self.told: list[tuple[int, str]] = []
        super().__init__(most, start=start, on_change=lambda level, reason: self.told.append((level, reason)))

    @property
    def levels(self) -> list[int]:
        return [level for level, _ in self.told]

    def clean(self, times: int = 1, *, seconds: float = 0.2, loaded: bool = True) -> None:
        """So many replies to what is sent now."""
        for _ in range(times):
            self.answered(self.epoch, seconds, loaded=loaded)

    def until_raised(self, *, seconds: float = 0.2) -> int:
        """How many replies it takes until the level rises."""
        before, n = self.number, 0
        while self.number == before:
            self.clean(seconds=seconds)
            n += 1
        assert self.number > before
        return n

    def refuse(self, times: int = 1, *, sent: int | None = None, pause: float = 0.0) -> None:
        """So many of those in flight are refused, one after the other, all sent in the same epoch."""
        sent = self.epoch if sent is None else sent
        flying = self.number
        for n in range(times):
            self.refused(sent, in_flight=flying - n, pause=pause)


def at(level: int, *, refused: int = 1) -> Watched:
    """A level that has once been refused, has held since, and is the last clean one."""
    found = Watched(start=level)
    found.until_raised()
    found.refuse(refused)
    found.clean()
    assert found.number == level
    return found


def test_a_level_doubles_while_all_goes_well() -> None:
    """Each level lasts until the requests of the one before are back, and a round of its own."""
    level = Watched()
    assert level.number == START
    assert [level.until_raised() for _ in range(6)] == [START + FEWEST, 8 + FEWEST, 32, 64, 128, 256]
    assert level.levels == [8, 16, 32, 64, 128, 256]
    level.clean(10_000)
    assert level.number == level.most == 256
    assert level.told[0] == (8, "all went well with 4")


@pytest.mark.parametrize(("most", "levels"), [(1, []), (3, []), (10, [8, 10])])
def test_a_level_stays_below_its_most(most: int, levels: Sequence[int]) -> None:
    """It never goes beyond, also where it would begin there."""
    level = Watched(most)
    assert level.number == min(START, most)
    level.clean(1000)
    assert level.levels == levels


def test_only_a_full_endpoint_raises_it() -> None:
    """Replies while fewer are in flight than may be, or to what an earlier level sent, are no evidence."""
    level = Watched()
    level.clean(1000, loaded=False)
    assert level.number == START
    level.until_raised()
    for _ in range(1000):
        level.answered(level.epoch - 1, 0.2, loaded=True)
    assert level.number == 2 * START


def test_the_first_refusal_goes_back_to_the_last_clean_level() -> None:
    """Twice the level was too much: back to it, in one cut, however many refusals belong to it."""
    level = Watched()
    for _ in range(3):
        level.until_raised()
    assert level.number == 32
    level.refuse(9)
    assert level.number == 16
    level.clean()
    assert level.told[-1] == (16, "9 of 32 were refused with 429")
    assert level.levels == [8, 16, 32, 16]


def test_refusals_of_what_was_sent_before_a_cut_do_not_cut_again() -> None:
    """They are of the same burst, also where replies of the new level have come in between."""
    level = at(40)
    level.until_raised()
    level.refuse(1)
    epoch = level.epoch - 1
    level.clean(3)
    for _ in range(5):
        level.refused(epoch, in_flight=40)
    assert level.number == 40


@pytest.mark.parametrize(("refused", "left"), [(1, 99), (30, 70), (50, 50), (90, 50)])
def test_less_than_was_clean(refused: int, left: int) -> None:
    """Where a clean level is refused, what is still in flight is what is taken; half is left at least."""
    level = at(100)
    level.refuse(refused)
    level.clean()
    assert level.number == left
    assert level.levels[-1] == left
    assert level.told[-1][1] == f"{refused} of 100 were refused with 429"


@pytest.mark.parametrize(("start", "step"), [(5, 1), (40, 2), (200, 10)])
def test_a_step_is_paid_for_before(start: int, step: int) -> None:
    """Later raises are of 5 %, one at least, after a hundred clean replies for every one that they may cost;
    those that fail in a row wait longer, up to four times, and what held has cost nothing."""
    level = at(start)
    waits = []
    for _ in range(5):
        waits.append(level.until_raised())
        assert level.number == start + step
        level.refuse(step)
        level.clean()
        assert level.number == start
    assert [each + 1 for each in waits] == [PRICE * step * times for times in (1, 1, 2, 4, 4)]
    level.until_raised()
    assert level.until_raised() == (start + step) + max(FEWEST, start + step)  # that is paid for already


def test_a_step_that_cost_more_is_paid_for_next_time() -> None:
    """A pause for everybody that a refusal asks for costs what would have been answered in it."""
    level = at(40)
    level.until_raised(seconds=0.2)
    level.refuse(2, pause=3.0)
    level.clean()
    lost = 3.0 * 40 / 0.2
    assert level.until_raised() == round(PRICE * (2 + lost)) - 1


def test_trouble_pauses_growth() -> None:
    """After a fault of the endpoint as many replies as are in flight do not count."""
    level = Watched()
    level.clean(19)
    level.troubled()
    assert level.until_raised() == START + 1


@pytest.mark.parametrize(
    ("capacity", "levels"), [(1, [8, 4]), (10, [8, 16, 32, 16]), (33, [8, 16, 32, 64, 32])]
)
def test_an_endpoint_that_queues(capacity: int, levels: Sequence[int]) -> None:
    """Where twice as many bring hardly more replies a second the lower level is kept, and the next try waits
    until it costs less than 1 %."""
    level = Watched()
    while len(level.told) < len(levels):
        level.clean(seconds=0.2 * max(1, level.number / capacity))
    assert level.levels == levels
    assert level.told[-1][1] == f"{2 * levels[-1]} brought hardly more replies a second: they only queue"
    clean = levels[-1]
    assert level.until_raised(seconds=0.2 * max(1, clean / capacity)) == PRICE * clean
    assert level.number == 2 * clean


def test_the_first_replies_of_a_level_are_of_the_time_before() -> None:
    """They began when fewer were in flight, and so say nothing of how long replies take now."""
    level = Watched()
    level.until_raised()
    level.clean(level.number)
    level.clean(FEWEST, seconds=0.4)
    assert level.levels == [8, 4]


def test_an_endpoint_that_grows_is_found_out() -> None:
    """A level that was kept because more only queued is doubled on once more brings more."""
    level = Watched()
    while len(level.told) < 2:
        level.clean(seconds=0.05 * level.number)
    assert level.number == START
    while level.number < 64:
        level.clean(seconds=0.2)
    assert level.levels == [8, 4, 8, 16, 32, 64]


def test_steps_on_an_endpoint_that_queues_end_too() -> None:
    """After a refusal by chance small steps do not add up to a long queue."""
    level = at(8)
    for _ in range(100_000):
        level.clean(seconds=0.025 * level.number)
    assert max(level.levels) <= 24


happenings = st.lists(
    st.tuples(st.sampled_from("aaaaart"), st.integers(0, 3), st.integers(1, 300), st.booleans()), max_size=80
)


@given(happenings, st.integers(1, 300), st.floats(0, 5))
def test_a_level_stays_in_its_bounds(
    happened: Sequence[tuple[str, int, int, bool]], most: int, seconds: float
) -> None:
    """Whatever comes back, in whatever order, there is a level between one and the most, and it is told."""
    level = Watched(most)
    for what, ago, times, loaded in happened:
        sent = max(1, level.epoch - ago)
        for _ in range(times):
            if what == "a":
                level.answered(sent, seconds, loaded=loaded)
            elif what == "r":
                level.refused(sent, in_flight=times, pause=seconds)
            else:
                level.troubled()
            assert 1 <= level.number <= most
    level.clean()  # ends a burst
    assert (level.levels or [min(START, most)])[-1] == level.number


# --------------------------------------------------------------------------------------------------- gate


async def settle() -> None:
    """Let everybody go on who can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def entering(gate: Gate, into: list[str], name: str, *, again: bool = False) -> None:
    """Enter and stay."""
    await gate.enter(again=again)
    into.append(name)


async def test_first_come_first_served_but_retries_before() -> None:
    """Slots go to those that wait in order of arrival; who tries again goes before who begins."""
    gate = Capacity(1).gate()
    assert gate.try_enter()
    inside: list[str] = []
    tasks = [
        asyncio.create_task(entering(gate, inside, name, again=again))
        for name, again in (("a", False), ("b", False), ("again", True), ("c", False), ("and again", True))
    ]
    for _ in tasks:
        await settle()
        assert not gate.try_enter()
        gate.leave()
    await asyncio.gather(*tasks)
    assert inside == ["again", "and again", "a", "b", "c"]
    assert (gate.held, gate.waiting) == (1, 0)


@pytest.mark.parametrize("admitted", [False, True])
async def test_who_is_cancelled_at_the_gate_leaves_nothing_behind(admitted: bool) -> None:
    """Cancelled while waiting, or in the very moment of being let in, a worker takes no slot with it."""
    capacity = Capacity(1)
    gate = capacity.gate()
    assert gate.try_enter()
    inside: list[str] = []
    gone, stays = (asyncio.create_task(entering(gate, inside, name)) for name in ("gone", "stays"))
    await settle()
    if admitted:
        gate.leave()
    gone.cancel()
    if not admitted:
        gate.leave()
    await asyncio.wait([gone, stays])
    assert gone.cancelled()
    assert inside == ["stays"]
    assert (capacity.held, capacity.waiting, gate.held) == (1, 0, 1)


async def test_a_gate_widens_and_narrows_with_the_level() -> None:
    """More are let in as soon as the level rises; after a cut nobody is until enough have left."""
    level = Level(start=2)
    gate = Capacity(level).gate()
    inside: list[str] = []
    tasks = [asyncio.create_task(entering(gate, inside, str(n))) for n in range(10)]
    await settle()
    assert len(inside) == gate.level == 2
    for _ in range(2 + FEWEST):
        gate.answered(gate.epoch, 0.1)
    await settle()
    assert len(inside) == gate.level == 4
    gate.refused(gate.epoch)
    assert gate.level == 2
    for _ in range(2):
        assert not gate.stays()
        gate.leave()
    await settle()
    assert len(inside) == 4
    assert gate.stays()
    gate.leave()
    await settle()
    assert len(inside) == 5
    for each in tasks:
        each.cancel()


async def test_replies_count_only_where_the_gate_holds_workers_back() -> None:
    """With nobody waiting at the gate, or the budget holding requests back, a level does not grow."""
    gate = Capacity(Level()).gate()
    for _ in range(100):
        gate.answered(gate.epoch, 0.1)
    assert gate.level == START
    while gate.try_enter():
        pass
    waiting = asyncio.create_task(gate.enter())
    await settle()
    for _ in range(100):
        gate.answered(gate.epoch, 0.1, limited=True)
    assert gate.level == START
    for _ in range(100):
        gate.answered(gate.epoch, 0.1)
    assert gate.level > START
    await waiting


async def test_a_fixed_gate_never_changes() -> None:
    """A number that was said is kept, whatever comes back."""
    gate = Capacity(3).gate()
    waiting = [asyncio.create_task(gate.enter()) for _ in range(9)]
    await settle()
    for _ in range(1000):
        gate.answered(gate.epoch, 0.1)
        gate.refused(gate.epoch, 5.0)
        gate.troubled()
    assert (gate.level, gate.most, gate.held) == (3, 3, 3)
    for each in waiting:
        each.cancel()


async def test_outside_the_gate_no_slot_is_held() -> None:
    """Who waits for something else gives the slot away, and has one again when it goes on."""
    gate = Capacity(1).gate()
    seen: list[int] = []

    async def something() -> None:
        seen.append(gate.held)
        async with gate:
            seen.append(gate.held)

    async with gate:
        await gate.outside(something)
        seen.append(gate.held)
    assert (seen, gate.held) == ([0, 1, 1], 0)


@pytest.mark.parametrize("while_entering", [False, True])
async def test_what_ends_a_wait_outside_leaves_the_count_right(while_entering: bool) -> None:
    """Who is thrown out of a wait is still counted in, so that leaving is right; nobody else is kept out."""
    gate = Capacity(1).gate()
    sitting_there, over = asyncio.Event(), asyncio.Event()

    async def something() -> None:
        await (sitting_there if while_entering else over).wait()

    async def work() -> None:
        async with gate:
            await gate.outside(something)

    async def other() -> None:
        async with gate:
            sitting_there.set()
            await over.wait()

    working = asyncio.create_task(work())
    sitting = asyncio.create_task(other())
    await settle()
    assert (gate.held, gate.waiting) == (1, int(while_entering))
    working.cancel()
    await settle()
    assert working.cancelled()
    assert (gate.held, gate.waiting) == (1, 0)
    over.set()
    await sitting
    assert (gate.held, gate.waiting) == (0, 0)


@pytest.mark.parametrize(
    ("slots", "workers"), [(12, (2, 8, 64)), (7, (8, 8)), (3, (8, 8, 8, 8)), (1, (4, 4, 4))]
)
def test_gates_to_one_capacity_share_it_fairly(slots: int, workers: Sequence[int]) -> None:
    """The endpoints of an account get as many slots, or turns, each; what one cannot use others do."""
    capacity = Capacity(slots)
    done = [0] * len(workers)

    async def work(gate: Gate, which: int) -> None:
        while True:
            async with gate:
                while True:
                    await asyncio.sleep(0.1)
                    done[which] += 1
                    if not gate.stays():
                        break

    async def all_of_them() -> None:
        tasks = []
        for which, n in enumerate(workers):
            gate = capacity.gate()
            tasks += [asyncio.create_task(work(gate, which)) for _ in range(n)]
        await asyncio.sleep(100)
        for each in tasks:
            each.cancel()

    in_virtual_time(all_of_them())
    assert sum(done) == pytest.approx(1000 * slots, rel=0.01)
    fair, left = [0.0] * len(workers), [*range(len(workers))]
    few = [which for which, n in enumerate(workers) if n < slots / len(workers)]
    for which in few:
        fair[which] = 1000.0 * workers[which]
        left.remove(which)
    for which in left:
        fair[which] = (1000.0 * slots - sum(fair[each] for each in few)) / len(left)
    assert done == pytest.approx(fair, rel=0.02)


def test_a_gate_that_was_idle_has_saved_up_no_turns() -> None:
    """Who comes late gets its part from then on, and not what it did not want before."""
    capacity = Capacity(1)
    done = [0, 0]

    async def work(gate: Gate, which: int) -> None:
        while True:
            async with gate:
                await asyncio.sleep(0.1)
                done[which] += 1

    async def both() -> None:
        early, late = capacity.gate(), capacity.gate()
        tasks = [asyncio.create_task(work(early, 0)) for _ in range(2)]
        await asyncio.sleep(50)
        done[:] = [0, 0]
        tasks += [asyncio.create_task(work(late, 1)) for _ in range(2)]
        await asyncio.sleep(20)
        for each in tasks:
            each.cancel()

    in_virtual_time(both())
    assert done == pytest.approx([100, 100], abs=2)
