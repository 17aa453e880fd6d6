"""FrugalGPT ("FrugalGPT: How to Use Large Language Models While Reducing Cost and Improving Performance", arXiv
2305.05176, 2023).

A cascade: agents draft one after the other, and a learnt scorer, which reads question and draft, says how reliable
the draft is; the first draft that scores above its agent's threshold is the answer. Which agents, in which order,
and the thresholds are those that earn most on validation, for each alpha.

Adapted: the scorer of an agent is gradient boosting on the question's embedding, what the answer looks like, its
likelihood where there is one, and whether it agrees with the draft before; cascades may be longer than three where
that pays. All drafts are paid for, as in the paper, unless it is told that only the answering agent's price counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np

from agents.errors import ConfigError
from benchmarks.baselines.base import Embedding
from benchmarks.baselines.cascade import FIRST, Cascade, run, search, stakes
from benchmarks.outcomes import Asked, Drafts, Floats, Ints, Outcomes
from mesh.questions import Question
from training.grading import extract

DIRECTIONS, ANSWERS = 32, 12  # dimensions of questions and of answers
SHOWN = 40  # of an answer, its last characters: its end is what it comes to
SAMPLE = 10_000  # answers that their n-grams are learnt from
UNKNOWN = -100.0  # below any likelihood, so that trees can tell it apart
LEAVES = (6, 24)  # of a tree; chosen by the squared error on validation

Before: TypeAlias = tuple[int, tuple[str, ...]]
Objects: TypeAlias = np.ndarray[Any, np.dtype[np.object_]]


class FrugalGPT:
    """A scorer for each agent, and the cascade of each alpha."""

    def __init__(self, full: bool = True) -> None:
        self._full = full

    def fit(self, train: Outcomes, validation: Outcomes, seed: int = 0) -> None:
        """See ``Router``. Raises ``ConfigError`` where no drafts are recorded."""
        if not any(text for texts in train.texts for text in texts):
            raise ConfigError("frugalgpt reads drafts, which these outcomes do not have: record them, or leave it out")
        rng = np.random.default_rng(seed)
        self._embedding, self._looks = Embedding(DIRECTIONS, seed), _Looks(train.texts, seed)
        self._accuracy = train.right.mean(axis=1)
        self._embedding.fit(train.questions)
        known, held = self._read(train), self._read(validation)
        agents = range(len(train.agents))
        self._scorers = [
            _scorer(
                self._shown(agent, known, rng),
                train.right,
                self._shown(agent, held, rng),
                validation.right,
                agent,
                seed,
            )
            for agent in agents
        ]
        self._validation, self._cascades = validation, dict[float, Cascade]()
        self._scores = np.array(
            [[self._score(agent, held, before) for agent in agents] for before in [*agents, FIRST]], dtype=np.float32
        )

    def route(self, asked: Asked, alpha: float) -> Ints:
        """See ``Router``."""
        if alpha not in self._cascades:
            self._cascades[alpha] = search(self._scores, *stakes(self._validation, alpha, self._full))
        embedded = self._embedding(asked.questions)

        def score(agent: int, drafts: Drafts, places: Ints, before: Before | None) -> Floats:
            if not len(places):
                return np.empty(0)
            questions = [asked.questions[place] for place in places]
            rows = self._rows(questions, embedded[places], drafts.texts, drafts.signals.get("likelihood"))
            compared = self._compared(len(places))
            if before is not None:
                said = _said(questions, drafts.texts), _said(questions, before[1])
                compared = self._compared(len(places), *said, np.full(len(places), before[0]))
            return self._predicted(agent, rows, compared)

        return run(self._cascades[alpha], asked, score)

    def _read(self, outcomes: Outcomes) -> tuple[list[Floats], Objects]:
        """Of each agent the rows that its scorer gets, and what it says, (A, Q)."""
        embedded, likelihood = self._embedding(outcomes.questions), outcomes.signals.get("likelihood")
        rows = [
            self._rows(outcomes.questions, embedded, texts, None if likelihood is None else likelihood[agent])
            for agent, texts in enumerate(outcomes.texts)
        ]
        return rows, np.array([_said(outcomes.questions, texts) for texts in outcomes.texts], dtype=object)

    def _rows(self, questions: Sequence[Question], embedded: Floats, texts: Sequence[str], likelihood: Any) -> Floats:
        lengths = [(len(question.text), len(text)) for question, text in zip(questions, texts, strict=True)]
        known = np.full(len(texts), np.nan) if likelihood is None else likelihood
        return np.column_stack([embedded, self._looks(texts), np.nan_to_num(known, nan=UNKNOWN), lengths])

    def _compared(self, count: int, said: Any = None, before: Any = None, agent: Any = None) -> Floats:
        """Whether a draft says what the one before does, and how often that agent is right, (n, 2)."""
        if agent is None:
            return np.full((count, 2), UNKNOWN)
        return np.column_stack([said == before, self._accuracy[agent]]).astype(float)

    def _shown(self, agent: int, read: tuple[list[Floats], Objects], rng: np.random.Generator) -> Floats:
        """Rows to learn from: each question once as if this agent drafted first, and once after another one."""
        rows, said = read[0][agent], read[1]
        count = len(rows)
        if len(said) == 1:
            return np.hstack([rows, self._compared(count)])
        other = (agent + rng.integers(1, len(said), count)) % len(said)
        after = self._compared(count, said[agent], said[other, np.arange(count)], other)
        return np.vstack([np.hstack([rows, self._compared(count)]), np.hstack([rows, after])])

    def _score(self, agent: int, read: tuple[list[Floats], Objects], before: int) -> Floats:
        rows, said = read[0][agent], read[1]
        count = len(rows)
        if before == FIRST:
            return self._predicted(agent, rows, self._compared(count))
        return self._predicted(agent, rows, self._compared(count, said[agent], said[before], np.full(count, before)))

    def _predicted(self, agent: int, rows: Floats, compared: Floats) -> Floats:
        found: Floats = self._scorers[agent].predict(np.hstack([rows, compared])).astype(np.float32)
        return found


class _Looks:
    """Answers as vectors: the n-grams of their ends, reduced to their main directions."""

    def __init__(self, texts: Sequence[Sequence[str]], seed: int) -> None:
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer

        ends = [text[-SHOWN:] for row in texts for text in row]
        drawn = np.random.default_rng(seed).permutation(len(ends))[:SAMPLE]
        self._ngrams = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), max_features=5000, sublinear_tf=True)
        rows = self._ngrams.fit_transform([f" {ends[place]} " for place in drawn])
        size = max(1, min(ANSWERS, rows.shape[0] - 1, rows.shape[1] - 1))
        self._main = TruncatedSVD(size, random_state=seed).fit(rows)

    def __call__(self, texts: Sequence[str]) -> Floats:
        """Vectors, (n, D)."""
        ends = [f" {text[-SHOWN:]} " for text in texts]
        different = sorted(set(ends))
        place = {end: at for at, end in enumerate(different)}
        found: Floats = self._main.transform(self._ngrams.transform(different))[[place[end] for end in ends]]
        return found


def _said(questions: Sequence[Question], texts: Sequence[str]) -> Objects:
    """What each answer comes to, as grading reads it."""
    read = [extract(text, question) or text.strip() for question, text in zip(questions, texts, strict=True)]
    return np.array([said.casefold() for said in read], dtype=object)


def _scorer(rows: Floats, right: Floats, held: Floats, held_right: Floats, agent: int, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingRegressor

    wanted, held_wanted = (np.tile(r[agent], len(x) // r.shape[1]) for r, x in ((right, rows), (held_right, held)))
    best, lowest = None, np.inf
    for leaves in LEAVES:
        model = HistGradientBoostingRegressor(
            max_iter=300, max_leaf_nodes=leaves, min_samples_leaf=30, early_stopping=True, random_state=seed
        ).fit(rows, wanted, X_val=held, y_val=held_wanted)
        error = float(np.mean((model.predict(held) - held_wanted) ** 2))
        if error < lowest:
            best, lowest = model, error
    return best
