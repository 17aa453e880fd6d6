"""Our ways on recorded models that say nothing of themselves. An estimate stands in for the confidence that an agent of
ours has: how likely it is right, learnt from its own record on training rows and calibrated on validation rows. It
reads what learnt baselines read. It is no self-knowledge, so whatever goes by it has ``-estimated`` in its name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agents.policies import Reliability, Reservation
from agents.profile import Profile, mixed
from benchmarks.baselines.base import Embedding
from benchmarks.ours import learnt, profiles, tried
from benchmarks.outcomes import Floats, Method, Outcomes
from benchmarks.walking import Way
from mesh.questions import Question
from topologies import Cascade, Mesh, Topology
from training.profiles import Record, learn_values
from training.threshold import GAMMAS

LABEL = "estimated"
DIRECTIONS = 32  # of texts
WEIGHT = 4.0  # rows that an agent's mean over all tasks counts for in its mean of one
LEAVES, LEAST, ROUNDS = 8, 30, 150  # of its trees, rows of a leaf, and trees


class OwnScore:
    """How likely each agent is right, each by its own record: half by its accuracy in the question's task, half by
    boosted trees on the text's main directions, its length, and that accuracy.
    """

    def fit(self, train: Outcomes, validation: Outcomes, seed: int = 0) -> None:
        """Learn from training rows; how many trees is chosen by the squared error on validation rows."""
        from sklearn.ensemble import HistGradientBoostingRegressor

        self._embedding = Embedding(DIRECTIONS, seed)
        rows = self._embedding.fit(train.questions)
        self._mean = train.right.mean(axis=1)
        tasks = np.array([question.task for question in train.questions])
        self._tasks = {str(task): self._drawn(train.right[:, tasks == task]) for task in sorted(set(tasks.tolist()))}
        known, held = self._seen(train.questions, rows), self._seen(validation.questions)
        self._trees = [
            HistGradientBoostingRegressor(
                max_iter=ROUNDS,
                learning_rate=0.05,
                max_leaf_nodes=LEAVES,
                min_samples_leaf=LEAST,
                early_stopping=True,
                random_state=seed,
            ).fit(known[at], train.right[at], X_val=held[at], y_val=validation.right[at])
            for at in range(len(train.agents))
        ]

    def __call__(self, questions: Sequence[Question]) -> Floats:
        """Estimates, (A, Q)."""
        by_text = [trees.predict(seen) for trees, seen in zip(self._trees, self._seen(questions), strict=True)]
        found: Floats = np.clip((self._by_task(questions) + np.array(by_text)) / 2, 0, 1)
        return found

    def _drawn(self, right: Floats) -> Floats:
        found: Floats = (right.sum(axis=1) + WEIGHT * self._mean) / (right.shape[1] + WEIGHT)
        return found

    def _by_task(self, questions: Sequence[Question]) -> Floats:
        return np.array([self._tasks.get(question.task, self._mean) for question in questions]).T

    def _seen(self, questions: Sequence[Question], rows: Floats | None = None) -> list[Floats]:
        """What each agent's trees see of questions, (Q, features); ``rows`` are their vectors, where known."""
        rows = self._embedding(questions) if rows is None else rows
        lengths = [len(question.text) for question in questions]
        return [np.column_stack([by_task, lengths, rows]) for by_task in self._by_task(questions)]


def estimated(
    train: Outcomes,
    validation: Outcomes,
    test: Outcomes,
    begun: Mapping[str, Profile],
    alphas: Sequence[float],
    seed: int,
) -> tuple[Outcomes, Outcomes]:
    """Validation and test rows with estimates for confidences, the same at all ``alphas``, which cost nothing to have.

    Args:
        begun: each agent's profile, as far as training rows tell; the estimate is mixed with its prior.
    """
    own = OwnScore()
    own.fit(train, validation, seed)
    raw = {part: own(rows.questions) for part, rows in (("validation", validation), ("test", test))}
    found = {part: np.empty_like(values) for part, values in raw.items()}
    for at, name in enumerate(train.agents):
        texts = tuple(question.text for question in validation.questions)
        record = Record(texts, validation.right[at], looked=raw["validation"][at], work=validation.work[at])
        weights = learn_values(begun[name], record, float(validation.costs[at]), (0.5,), False).looked
        for part, rows in (("validation", validation), ("test", test)):
            given = zip(rows.questions, raw[part][at].tolist(), strict=True)
            found[part][at] = [mixed(weights, begun[name].prior(question.text), p) for question, p in given]
    return _believing(validation, found["validation"], alphas), _believing(test, found["test"], alphas)


def _believing(outcomes: Outcomes, p: Floats, alphas: Sequence[float]) -> Outcomes:
    return replace(outcomes, beliefs=dict.fromkeys(alphas, p), looks=np.zeros_like(p))


@dataclass(frozen=True, slots=True)
class Ours:
    """Our ways, and the topology that each goes through."""

    ways: Mapping[str, Way]
    topologies: Mapping[str, Topology]

    def tried(self, outcomes: Outcomes, alphas: Sequence[float]) -> list[Method]:
        """What becomes of questions on each way."""
        return [
            method
            for name, way in self.ways.items()
            for method in tried({name: way}, outcomes, self.topologies[name], alphas)
        ]


def ours(begun: Mapping[str, Profile], validation: Outcomes, alphas: Sequence[float]) -> Ours:
    """Our ways on estimates: the paper's rule and learnt bars on a cascade by price, and profiles, where everybody
    knows everybody. Those go by the text alone (``text``), or by the estimate (``looks``), and by drafts only where
    their likelihood was recorded. ``-full`` ones are learnt for the price of all work.
    """
    prices = dict(zip(validation.agents, validation.costs.tolist(), strict=True))
    line, everybody = Cascade(prices), Mesh(prices)
    on_line = {f"mesh-reliability-{gamma:g}": Way(dict.fromkeys(prices, Reliability(gamma))) for gamma in GAMMAS}
    on_all = {}
    has_drafts = not np.isnan(validation.signals["likelihood"]).all()
    kinds = (
        {"looks": "looks", "drafts": "drafts", "both": "both"} if has_drafts else {"text": "drafts", "looks": "looks"}
    )
    for full, end in ((False, ""), (True, "-full")):
        on_line[f"mesh-bar{end}"] = Way(learnt(validation, line, alphas, full))
        for name, kind in kinds.items():
            told = profiles(begun, validation, alphas, full, kind)
            on_all[f"mesh-reservation-{name}{end}"] = Way(dict.fromkeys(prices, Reservation()), told)
    named = {f"{name}-{LABEL}": way for name, way in (on_line | on_all).items()}
    return Ours(named, {f"{name}-{LABEL}": line if name in on_line else everybody for name in on_line | on_all})
