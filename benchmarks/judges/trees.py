"""Boosted trees on what can be counted in a question: its task, length, characters, and where they stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from mesh.questions import Question

COUNTED = "0123456789abcdefghijklmnopqrstuvwxyz+-*%= "
PLACES = 16  # of the first and the last characters, each by its code


class Trees:
    """Gradient boosting, stopped where a tenth of the rows says that more rounds are too many."""

    def fit(self, questions: Sequence[Question], right: Sequence[bool]) -> None:
        """See ``Judge``."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        self._tasks = {task: place for place, task in enumerate(sorted({q.task for q in questions}))}
        self._model = HistGradientBoostingClassifier(
            max_iter=600, learning_rate=0.05, early_stopping=True, random_state=0
        ).fit(self._rows(questions), np.asarray(right))

    def predict(self, questions: Sequence[Question]) -> np.ndarray[Any, Any]:
        """See ``Judge``."""
        found: np.ndarray[Any, Any] = self._model.predict_proba(self._rows(questions))[:, 1]
        return found

    def _rows(self, questions: Sequence[Question]) -> np.ndarray[Any, Any]:
        return np.asarray([self._row(question) for question in questions], dtype=float)

    def _row(self, question: Question) -> list[float]:
        text = question.text.lower()
        codes = [float(ord(character)) for character in text]
        gap = [-1.0] * PLACES
        first, last = (codes + gap)[:PLACES], (gap + codes)[-PLACES:]
        return [
            self._tasks.get(question.task, -1),
            len(text),
            len(set(text)),
            *(text.count(character) for character in COUNTED),
            *first,
            *last,
        ]
