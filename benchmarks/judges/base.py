"""What a judge is, and the features that several of them share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from mesh.questions import Question

SHORT = 32


class Judge(Protocol):
    """Learns from questions and from whether an agent got them right, and says how likely it is to get others right."""

    def fit(self, questions: Sequence[Question], right: Sequence[bool]) -> None: ...

    def predict(self, questions: Sequence[Question]) -> np.ndarray[Any, Any]:
        """Probabilities, shape (n,)."""
        ...


def cell(question: Question) -> str:
    """Its task and its length: in characters up to 32, from there on by powers of two."""
    length = len(question.text)
    return f"{question.task}:{length if length <= SHORT else 2 ** round(np.log2(length))}"


def texts(questions: Sequence[Question]) -> list[str]:
    """What a text classifier reads; its task is part of it, since whoever asks often knows."""
    return [f"{question.task} {question.text}" for question in questions]


def ngrams() -> Any:
    """Character n-grams of one to four, weighted by how rare they are; shape (n, features), sparse."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(analyzer="char", ngram_range=(1, 4), min_df=2, max_features=50_000, sublinear_tf=True)
