"""What the parts of a run cost."""
from __future__ import annotations
from dataclasses import dataclass
import math
@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    ask: float = 450e-6
    call: float = 150e-6
    row: float = 12e-6
    commit: float = 650e-6
    take: float = 150e-6
    lease: float = 150e-6
    skip: float = 10e-6
    survey: float = 40e-6
    start: float = 2.0
    table: float = 60e-6
    merge: float = 25e-6
    shallow: float = 22e-6
    deep: float = 60e-6
    def stored(self, rows: float) -> float:
        return self.shallow + (self.deep - self.shallow) * min(1.0, rows / 1e6)
