"""What endpoints of one account share: a budget, and what is found out of how much it takes at once."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import pytest

from harness.accounts import EMBEDDED_AT_ONCE, Paces, allowances
from harness.endpoint_settings import Concurrency, EndpointSettings
from harness.endpoints import Endpoint, parse_endpoints
from harness.pacing import MOST, Gate


def paces(
    *given: str | EndpointSettings, concurrency: Concurrency = "auto"
) -> tuple[Paces, Sequence[Endpoint], list[Gate]]:
    """The paces of a run, its endpoints, and their gates."""
    endpoints = parse_endpoints(given)
    made = Paces(allowances(endpoints, rpm=None, tpm=None), concurrency)
    return made, endpoints, [made.gate(each) for each in endpoints]


def shares_slots(one: Gate, other: Gate) -> bool:
    """Whether a slot taken by one is missing at the other."""
    taken = 0
    while one.try_enter():
        taken += 1
    full = not other.try_enter()
    for _ in range(taken):
        one.leave()
    return full


def test_adapters_share_slots_and_budget() -> None:
    """Adapters of a base endpoint find out together what it takes; another account does so alone."""
    made, endpoints, (base, adapter, other) = paces(
        EndpointSettings(spec="http://127.0.0.1/v1#m", adapters=("a",)), "http://127.0.0.1/v1#n"
    )
    assert shares_slots(base, adapter)
    assert not shares_slots(base, other)
    assert base.most == adapter.most == MOST
    budgets = [made.budget(each) for each in endpoints]
    assert budgets[0] is budgets[1]
    assert budgets[0] is not budgets[2]


@pytest.mark.parametrize(
    ("own", "concurrency", "most"), [(None, 8, 8), (3, 8, 3), (3, "auto", 3), ("auto", 8, MOST)]
)
def test_a_number_is_for_each_endpoint(own: Concurrency | None, concurrency: Concurrency, most: int) -> None:
    """What an endpoint's table says goes before the flag; a number is kept, and shared with nobody."""
    table = EndpointSettings(spec="http://127.0.0.1/v1#m", adapters=("a",), concurrency=own)
    _, _, (base, adapter) = paces(table, concurrency=concurrency)
    assert base.most == adapter.most == most
    assert shares_slots(base, adapter) == (most == MOST)


def test_our_own_server_needs_no_finding_out() -> None:
    """An embedded endpoint takes what it gets: the number is fixed, unless another is given."""
    _, _, (embedded,) = paces("embedded")
    assert (embedded.level, embedded.most) == (EMBEDDED_AT_ONCE, EMBEDDED_AT_ONCE)
    assert paces("embedded", concurrency=5)[2][0].level == 5


def test_changes_are_logged_with_their_reason(caplog: pytest.LogCaptureFixture) -> None:
    """Each new level is an event that names the endpoint, for whoever listens."""
    _, _, (gate,) = paces("base=http://127.0.0.1/v1#m")
    while gate.try_enter():
        pass
    with caplog.at_level(logging.INFO, "harness.events"):
        gate.refused(gate.epoch)
        gate.answered(gate.epoch, 0.1)
    (record,) = caplog.records
    told = {"at_once": 3, "reason": "1 of 4 were refused with 429"}
    assert (record.getMessage(), vars(record)["endpoint"], vars(record)["fields"]) == ("pace", "base", told)
