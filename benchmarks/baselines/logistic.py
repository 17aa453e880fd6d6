"""Logistic regression for each agent, on what stands in a question's text, where, and how often: the part of our own
profiles that is known before anybody looks (``agents/profile.py``), used as a router in one place.

No paper of its own; FORC's rule with a linear model. What our agents gain above it is what they know of themselves.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from benchmarks.baselines.base import Predicting
from benchmarks.outcomes import Floats, Outcomes
from mesh.questions import Question
from training.profiles import Record, learn_prior


class Logistic(Predicting):
    """How strongly it is regularised is chosen by log loss on the validation rows."""

    def fit(self, train: Outcomes, validation: Outcomes, seed: int = 0) -> None:
        """See ``Router``."""
        both = [(tuple(question.text for question in rows.questions), rows.right) for rows in (train, validation)]
        self._priors = [
            learn_prior(*(Record(texts, right[at]) for texts, right in both)) for at in range(len(train.agents))
        ]

    def predict(self, questions: Sequence[Question]) -> Floats:
        """See ``Predicting``."""
        return np.array([[prior.prior(question.text) for question in questions] for prior in self._priors])
