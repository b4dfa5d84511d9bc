"""One cluster of two nodes for all tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ray.nodes import Cluster, set_up

set_up()

pytest.importorskip("ray")


@pytest.fixture(scope="session")
def nodes() -> Iterator[Cluster]:
    """The cluster, as whatever test came before has left it."""
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.fixture
def cluster(nodes: Cluster) -> Cluster:
    """The cluster with two nodes."""
    nodes.whole()
    return nodes
