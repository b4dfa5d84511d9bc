"""A cluster of two nodes on this machine."""

from __future__ import annotations

import os
from secrets import token_hex
from typing import Any

SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "^", "RAY_AUTH_MODE": "token"}
"""What Ray looks at once, when it is imported: what nodes say is not printed, nobody is told that there are
any, and they take only who has the token."""
STORE = 80 * 2**20
"""Bytes of shared memory of a node: about the least."""


def set_up() -> None:
    """Before Ray is imported: our settings, and a token that stands in nobody's home folder."""
    os.environ |= {**SETTINGS, "RAY_AUTH_TOKEN": token_hex(32)}


class Cluster:
    """Nodes with one processor each; the first is the head, on which runs are started. Of the main thread.

    Attributes:
        address: for `--ray-address`.
        other: the node that was added last.
    """

    def __init__(self) -> None:
        """Start the head and another node."""
        from ray.cluster_utils import Cluster as Nodes

        self._options = {"num_cpus": 1, "object_store_memory": STORE}
        head = {**self._options, "include_dashboard": False}
        self._nodes: Any = Nodes(initialize_head=True, head_node_args=head)
        self.address: str = self._nodes.address
        self.other: Any = self._nodes.add_node(**self._options)

    @property
    def other_raylet(self) -> int:
        """The process that starts workers on the other node."""
        return int(self.other.all_processes["raylet"][0].process.pid)

    def kill(self, node: Any) -> None:
        """SIGKILL of all that belongs to a node but its workers, which end because it has."""
        self._nodes.remove_node(node, allow_graceful=False)

    def whole(self) -> None:
        """Have two nodes again."""
        if self.other not in self._nodes.worker_nodes:
            self.other = self._nodes.add_node(**self._options)

    def close(self) -> None:
        """End all nodes."""
        self._nodes.shutdown()
