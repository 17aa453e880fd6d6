"""How well an agent knows itself, in figures: verdicts, ranking, calibration, and what its choices earn.

Shapes: Q questions, one agent. ``p`` is the probability it gives of being right, ``right`` whether the answer is right
that it gives when it must answer, ``answers`` whether it chose to answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from training.scores import auroc, brier, ece

Floats = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]

LEAST, MOST = 0.1, 0.9  # accuracy of the cells within which the length alone does not tell
FEWEST = 10  # questions in such a cell
GAMMA = 0.5


def f1(verdict: Bools, right: Bools) -> float:
    """Harmonic mean of precision and recall of "I will be right"; 0 where it never says so rightly."""
    hits, said = int((verdict & right).sum()), int(verdict.sum()) + int(right.sum())
    return 2 * hits / said if said else 0.0


def auroc_in_cells(p: Floats, right: Bools, cells: Sequence[str]) -> float | None:
    """AUROC among questions of one cell, for cells of middling accuracy, weighted by their pairs of right and wrong:
    what is left to tell once task and length are known. None where there is no such cell.
    """
    total, pairs = 0.0, 0
    names = np.asarray(cells)
    for name in np.unique(names):
        here = names == name
        good = int(right[here].sum())
        if here.sum() >= FEWEST and LEAST <= good / here.sum() <= MOST:
            weight = good * int(here.sum() - good)
            area = auroc(p[here].tolist(), right[here].tolist())
            assert area is not None  # there are right and wrong ones
            total, pairs = total + weight * area, pairs + weight
    return total / pairs if pairs else None


def verdicts(p: Floats, right: Bools, cells: Sequence[str]) -> dict[str, float | None]:
    """Accuracy and F1 of "p >= .5", AUROC, AUROC within cells, expected calibration error, Brier score."""
    said = p >= 0.5
    values, truth = p.tolist(), right.tolist()
    return {
        "accuracy": float((said == right).mean()),
        "f1": f1(said, right),
        "auroc": auroc(values, truth),
        "auroc_cell": auroc_in_cells(p, right, cells),
        "ece": ece(values, truth),
        "brier": brier(values, truth),
    }


def choices(answers: Bools, right: Bools) -> dict[str, float | None]:
    """How much it answers, and how much of that is wrong."""
    return {
        "answer_rate": float(answers.mean()),
        "wrong_among_answered": float((~right[answers]).mean()) if answers.any() else None,
    }


def rewards(answers: Bools, right: Bools, alpha: float, gamma: float = GAMMA) -> Floats:
    """What each choice earns: 1 or 0 for an answer, (1 - alpha) ** gamma for a refusal; shape (Q,)."""
    return np.where(answers, right.astype(float), (1 - alpha) ** gamma)


def reward_share(answers: Bools, right: Bools, alpha: float, gamma: float = GAMMA) -> float | None:
    """(R - R_const) / (R_perfect - R_const): what the choices earn between the better of always answering and always
    refusing (0) and clairvoyance (1). None where clairvoyance earns no more.
    """
    refusing = (1 - alpha) ** gamma
    constant = max(float(right.mean()), refusing)
    perfect = float(rewards(right, right, alpha, gamma).mean())
    if perfect - constant < 1e-12:
        return None
    return (float(rewards(answers, right, alpha, gamma).mean()) - constant) / (perfect - constant)


def switch_point(scores: Floats, competence: Floats, threshold: float, width: int = 200) -> float:
    """The competence at which the choice turns from refusing to answering: its mean over the ``width`` questions whose
    score is next to the threshold, half of them on either side where there are as many.

    Args:
        scores: the higher, the sooner it answers; it does above the threshold.
        competence: share of right answers to each question, or 0 and 1 for one.
    """
    order = np.argsort(scores, kind="stable")
    place = int(np.searchsorted(scores[order], threshold))
    near = order[max(0, place - width // 2) : place + width // 2]
    return float(competence[near].mean())


def risk_coverage(p: Floats, right: Bools) -> Floats:
    """Share of wrong answers among the k surest, for k = 1 ... Q."""
    order = np.argsort(-p, kind="stable")
    return np.cumsum(~right[order]) / np.arange(1, len(right) + 1)
