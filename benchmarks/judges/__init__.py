"""External judges: who tells from a question alone whether an agent will be right, having seen others of its answers.

All learn from the same rows as the agents themselves; a new one is a class in a file of its own, and a line here.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks.judges.base import Judge
from benchmarks.judges.knn import Knn
from benchmarks.judges.lookup import Lookup
from benchmarks.judges.text import NGrams
from benchmarks.judges.trees import Trees

__all__ = ["JUDGES", "Judge"]

JUDGES: dict[str, Callable[[], Judge]] = {"lookup": Lookup, "knn": Knn, "text": NGrams, "trees": Trees}
