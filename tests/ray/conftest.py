"""A cluster of two nodes on this machine, for all tests of this folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from secrets import token_hex
from typing import Any

import pytest

# Before Ray is imported, which looks at this once. What nodes say is not printed, and they take nobody but
# these tests, by a token that stands in nobody's home folder.
os.environ |= {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "^",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": token_hex(32),
}

pytest.importorskip("ray")

STORE = 80 * 2**20
"""Bytes of shared memory of a node: about the least."""


class Cluster:
    """Nodes with one processor each; the first is the head, on which runs are started."""

    def __init__(self) -> None:
        """Start the head and another node."""
        from ray.cluster_utils import Cluster as Nodes

        self._options = {"num_cpus": 1, "object_store_memory": STORE}
        head = {**self._options, "include_dashboard": False}
        self._nodes: Any = Nodes(initialize_head=True, head_node_args=head)
        self.address: str = self._nodes.address
        self.other: Any = self.add()

    def add(self) -> Any:
        """One more node."""
        self.other = self._nodes.add_node(**self._options)
        return self.other

    @property
    def other_raylet(self) -> int:
        """The process that starts workers on the node that is not the head."""
        return int(self.other.all_processes["raylet"][0].process.pid)

    def kill(self, node: Any) -> None:
        """SIGKILL of all that belongs to a node but its workers, which end because it has."""
        self._nodes.remove_node(node, allow_graceful=False)

    def whole(self) -> None:
        """Have two nodes again."""
        if self.other not in self._nodes.worker_nodes:
            self.add()

    def close(self) -> None:
        """End all nodes."""
        self._nodes.shutdown()


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
