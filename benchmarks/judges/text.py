"""A text classifier: logistic regression on character n-grams and the length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.judges.base import cell, ngrams, texts
from mesh.questions import Question

STRENGTHS = (0.1, 1.0, 10.0, 100.0)  # of the regularisation, inverse; chosen by log loss on a fifth of the rows


class NGrams:
    """Knows which n-grams stand in it, and its cell."""

    def fit(self, questions: Sequence[Question], right: Sequence[bool]) -> None:
        """See ``Judge``."""
        from sklearn.feature_extraction import DictVectorizer

        self._features, self._cells, good = ngrams(), DictVectorizer(), np.asarray(right)
        self._features.fit(texts(questions))
        self._cells.fit([{cell(q): 1.0} for q in questions])
        rows, last = self._rows(questions), np.arange(len(good)) % 5 == 0
        tried = {c: self._loss(_model(c, rows[~last], good[~last]), rows[last], good[last]) for c in STRENGTHS}
        self._model = _model(min(tried, key=lambda c: tried[c]), rows, good)

    def predict(self, questions: Sequence[Question]) -> np.ndarray[Any, Any]:
        """See ``Judge``."""
        found: np.ndarray[Any, Any] = self._model.predict_proba(self._rows(questions))[:, 1]
        return found

    def _rows(self, questions: Sequence[Question]) -> Any:
        from scipy.sparse import csr_matrix, hstack

        cells = self._cells.transform([{cell(q): 1.0} for q in questions])
        return csr_matrix(hstack([self._features.transform(texts(questions)), cells]))

    @staticmethod
    def _loss(model: Any, rows: Any, right: np.ndarray[Any, Any]) -> float:
        from sklearn.metrics import log_loss

        return float(log_loss(right, model.predict_proba(rows)[:, 1], labels=[False, True]))


def _model(strength: float, rows: Any, right: np.ndarray[Any, Any]) -> Any:
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(C=strength, max_iter=2000).fit(rows, right)
