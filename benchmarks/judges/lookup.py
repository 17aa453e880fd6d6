"""How often the agent was right in the same cell: the same task at the same length."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.judges.base import cell
from mesh.questions import Question

WEIGHT = 4.0  # rows that the mean over the task, and over all, counts for where a cell has few


class Lookup:
    """Accuracy by cell, drawn towards that of the task where a cell has few rows."""

    def fit(self, questions: Sequence[Question], right: Sequence[bool]) -> None:
        """See ``Judge``."""
        self._all = float(np.mean(right))
        self._tasks = _means([q.task for q in questions], right, lambda _: self._all)
        task_of = {cell(q): q.task for q in questions}
        self._cells = _means([cell(q) for q in questions], right, lambda name: self._tasks[task_of[name]])

    def predict(self, questions: Sequence[Question]) -> np.ndarray[Any, Any]:
        """See ``Judge``."""
        return np.asarray([self._cells.get(cell(q), self._tasks.get(q.task, self._all)) for q in questions])


def _means(names: Sequence[str], right: Sequence[bool], prior: Any) -> dict[str, float]:
    seen, good = Counter(names), Counter(name for name, fine in zip(names, right, strict=True) if fine)
    return {name: (good[name] + WEIGHT * prior(name)) / (count + WEIGHT) for name, count in seen.items()}
