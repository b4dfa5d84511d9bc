"""What serves one after another in a simulated run: a process, a journal's thread, the keeper of a budget."""

from __future__ import annotations

from math import inf

COMMIT, GROUP = 0.015, 1000
"""Seconds for which a journal gathers what it commits at once, and rows with which it waits for no more."""


class Server:
    """Serves one after another, in the order in which they come.

    Attributes:
        free: when all that has come so far is served.
        worked: seconds.
    """

    def __init__(self) -> None:
        """Idle."""
        self.free = 0.0
        self.worked = 0.0
        self._last = 0.0

    def serve(self, at: float, work: float) -> float:
        """When a job is done that comes at `at` and takes so many seconds.

        Raises:
            ValueError: one that came later was served before.
        """
        if at < self._last:
            raise ValueError(f"a job of {at} comes behind one of {self._last}")
        self._last = at
        self.free = max(self.free, at) + work
        self.worked += work
        return self.free


class Journal(Server):
    """A thread that commits: what comes while a group gathers, or another is written, shares a commit."""

    def __init__(self, commit: float, row: float) -> None:
        """Take the work of a commit and that of a row in it, seconds."""
        super().__init__()
        self._commit, self._row = commit, row
        self._closes = -inf

    def keep(self, at: float, rows: int, groups: int = 1) -> float:
        """When rows that begin to come at `at`, in so many groups, are on disk."""
        work = rows * self._row
        if at >= self._closes:
            late = self.free > at
            commits = max(1, rows // GROUP) if late else groups
            self._closes = max(at + groups * COMMIT, self.free)
            work += commits * self._commit
        return self.serve(at, work) + COMMIT


class Lessor:
    """Keeps an account's budget: what it grants goes one behind the other, at the rate of the allowance.

    Attributes:
        leases: how many there were.
        worked: seconds.
    """

    def __init__(self, server: Server, work: float, allowance: float) -> None:
        """Take who does the work, seconds of it a lease, and requests a second."""
        self._server, self._work, self._allowance = server, work, allowance
        self._due = 0.0
        self.leases = 0
        self.worked = 0.0

    def lease(self, at: float, calls: int, requests: int) -> float:
        """When so many requests, asked for by so many calls, may begin to go."""
        done = self._server.serve(at, calls * self._work)
        self.worked += calls * self._work
        self.leases += calls
        begin = max(self._due, done)
        self._due = begin + requests / self._allowance
        return begin
