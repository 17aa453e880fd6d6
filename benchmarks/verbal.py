"""Verbalised confidence: the model is asked in words how likely its own draft is to be right (Lin et al., 2022)."""

from __future__ import annotations

import math

from agents.assess import Ask, Assessor, Session, Verdict
from agents.messages import Message, Scores

LEVELS = tuple(f"{percent}%" for percent in range(0, 101, 10))
_ASKED = (
    "Question:\n{question}\n\nProposed answer:\n{answer}\n\n"
    "How likely is it that the proposed answer is right? Reply with a percentage only."
)


class _Verbal(Session):
    def conclude(self) -> Verdict:
        question = next(each.content for each in reversed(self.messages) if each.role == "user")
        return Ask((Message("user", _ASKED.format(question=question, answer=self.text)),), LEVELS)

    def scored(self, scores: Scores) -> Verdict:
        """The mean of what it might say, each level as likely as the model finds it."""
        most = max(scores.logprobs)
        weights = (
            [math.exp(logprob - most) for logprob in scores.logprobs] if math.isfinite(most) else [1.0] * len(LEVELS)
        )
        p = sum(place * weight for place, weight in enumerate(weights)) / sum(weights) / (len(LEVELS) - 1)
        return self.confidence(p, p)


class Verbal(Assessor):
    """The model's own words about its draft, read as the mean over eleven percentages."""

    session = _Verbal
    whole_draft = True
    needs = frozenset({"scores"})
