"""Self-assessment: from what an agent's model says, and how surely, to a verdict on its own answer.

An assessor opens one session a draft. A session may ask for scores before any draft (``opening``), is fed the
draft piece by piece, and says ``Wait``, ``Ask`` (score this), ``Confidence`` or ``Refusal``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from agents.calibration import Calibration
from agents.messages import Message, Piece, Query, Scores
from agents.prompts import JUDGEMENTS, REFUSAL, is_refusal, judging


@dataclass(frozen=True, slots=True)
class Wait:
    """Not enough seen yet."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Score these continuations, then ask again."""

    messages: tuple[Message, ...]
    continuations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Confidence:
    """The agent would answer; ``p`` is the calibrated probability of being right, ``score`` the raw measure."""

    p: float | None
    score: float = 0.0


@dataclass(frozen=True, slots=True)
class Refusal:
    """The agent said that it does not know."""


Verdict: TypeAlias = Wait | Ask | Confidence | Refusal
WAIT, REFUSED = Wait(), Refusal()


class Session:
    """One draft's assessment. The text is read here: subclasses measure (``conclude``)."""

    opening: Ask | None = None

    def __init__(self, assessor: Assessor, query: Query, messages: Sequence[Message]) -> None:
        self.assessor, self.query, self.messages = assessor, query, messages
        self.text, self.tokens, self.logprob = "", 0, 0.0
        self._is_answer = False

    def feed(self, piece: Piece) -> Verdict:
        """Take the draft's next piece. A piece with ``finish`` set never gives ``Wait``."""
        self.text += piece.text
        self.tokens += piece.tokens
        self.logprob += piece.logprob or 0.0
        if not self._is_answer:
            refused = is_refusal(self.text, piece.finish is not None)
            if refused:
                return REFUSED
            self._is_answer = refused is False
        if piece.finish is None and (self.assessor.whole_draft or not self._is_answer):
            return WAIT
        return self.conclude()

    def scored(self, scores: Scores) -> Verdict:
        """Take the answer to an ``Ask``."""
        raise NotImplementedError

    def conclude(self) -> Verdict:
        """What follows from the draft as far as it goes."""
        raise NotImplementedError

    def confidence(self, score: float, p: float) -> Confidence:
        """``p`` is what the raw ``score`` says by itself; a calibration knows better."""
        calibration = self.assessor.calibration
        return Confidence(p if calibration is None else calibration(score, self.query.alpha), score)


class Assessor:
    """One way of self-assessment. ``whole_draft`` says that it waits for the draft's end, ``reads_draft`` that it looks
    at a draft at all.

    Args:
        calibration: a ``Calibration``, or its JSON document; None: the raw measure stands for p.
    """

    session: type[Session] = Session
    gives_probability = True
    whole_draft = False
    reads_draft = True
    needs: frozenset[str] = frozenset()  # of the engine: "logprobs", "scores"

    def __init__(self, calibration: Calibration | Mapping[str, Any] | None = None) -> None:
        if isinstance(calibration, Mapping):
            calibration = Calibration.from_json(calibration)
        self.calibration: Calibration | None = calibration

    def told(self, alpha: float) -> float:
        """The preference that an agent is told when it assesses itself at ``alpha``: what it can do does not depend on
        it, and it may know that best at another.
        """
        return alpha if self.calibration is None or self.calibration.told is None else self.calibration.told

    def begin(self, query: Query, messages: Sequence[Message]) -> Session:
        """A session for one draft; ``messages`` are those that the engine gets."""
        return self.session(self, query, messages)


class _ByText(Session):
    def conclude(self) -> Verdict:
        return Confidence(None)


class RefusalAssessor(Assessor):
    """The verdict alone: does the draft open with the refusal sentence?"""

    session = _ByText
    gives_probability = False

    def __init__(self) -> None:
        super().__init__()


class _FirstToken(Session):
    def __init__(self, assessor: Assessor, query: Query, messages: Sequence[Message]) -> None:
        super().__init__(assessor, query, messages)
        self.opening = Ask(tuple(messages), (REFUSAL,))

    def scored(self, scores: Scores) -> Verdict:
        logprob = min(scores.logprobs[0], 0.0)
        return self.confidence(-logprob, -math.expm1(logprob))


class FirstToken(Assessor):
    """1 - P(the whole refusal sentence), known before the first token is drafted, from one pass over the prompt.

    The raw score is the negative log-probability of the sentence.
    """

    session = _FirstToken
    reads_draft = False
    needs = frozenset({"scores"})


class _Likelihood(Session):
    def conclude(self) -> Verdict:
        score = self.logprob / max(self.tokens, 1)
        return self.confidence(score, math.exp(min(score, 0.0)))


class Likelihood(Assessor):
    """Mean log-probability of the draft's tokens; needs the whole draft."""

    session = _Likelihood
    whole_draft = True
    needs = frozenset({"logprobs"})


class _PTrue(Session):
    def conclude(self) -> Verdict:
        return Ask(judging(self.messages, self.text), JUDGEMENTS)

    def scored(self, scores: Scores) -> Verdict:
        yes, no = scores.logprobs
        score = 0.0 if yes == no else max(-700.0, min(700.0, yes - no))  # both may be -inf
        return self.confidence(score, 1 / (1 + math.exp(-score)))


class PTrue(Assessor):
    """The model judges its own draft: P("True") against P("False") (Kadavath et al. 2022, section 3).

    The raw score is the difference of the two log-probabilities.
    """

    session = _PTrue
    whole_draft = True
    needs = frozenset({"scores"})


ASSESSORS: dict[str, type[Assessor]] = {
    "refusal": RefusalAssessor,
    "first_token": FirstToken,
    "likelihood": Likelihood,
    "p_true": PTrue,
}
