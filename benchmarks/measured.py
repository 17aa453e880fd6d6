"""From recorded rows to the few figures that ``mesh sim`` draws its agents from: ``mesh/measured/NAME.json``.

By agent and task: the share that is right, and quantiles of the agent's own probability of being right, where it is and
where it is not. Of the pool: how much the agents fail together, and what a look costs beside an answer.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np

from agents.profile import logit, sigmoid
from benchmarks.outcomes import Floats, Outcomes

STEPS = 11  # quantiles: the least, the deciles, the most
FEW = 20  # rows, of which no quantiles are taken: the agent's over all tasks stand for them
ASSUMED_AUROC, ASSUMED_LOOK = 0.85, 0.2  # of agents of which nobody knows how sure they are, and what that costs
ASSUMED = f"assumed: calibrated, AUROC {ASSUMED_AUROC}, a look costs {ASSUMED_LOOK} of an answer"
DIGITS = 3


def figures(outcomes: Outcomes, source: str) -> dict[str, Any]:
    """The document that ``mesh.crowd.Figures`` reads; ``source`` says where the rows are from."""
    tasks = np.array([question.task.removeprefix("lab/") for question in outcomes.questions])
    kinds = sorted(set(tasks.tolist()))
    beliefs = next(iter(outcomes.beliefs.values())) if outcomes.beliefs else np.full_like(outcomes.right, math.nan)
    right = outcomes.right >= 0.5
    looked = outcomes.looks is not None and not np.isnan(outcomes.looks).all()
    look = float(np.nanmean(outcomes.looks / outcomes.work)) if looked else ASSUMED_LOOK  # type: ignore[operator]
    return {
        "source": source,
        "rows": len(outcomes),
        "confidence": "measured" if outcomes.beliefs else ASSUMED,
        "shared": round(shared(right, tasks), 2),
        "look": round(look, DIGITS),
        "agents": {
            name: {
                "cost": round(float(outcomes.costs[at]), DIGITS),
                "kinds": {kind: _kind(right[at], beliefs[at], tasks == kind) for kind in kinds},
            }
            for at, name in enumerate(outcomes.agents)
        },
    }


def write(found: dict[str, Any], path: Path) -> None:
    """The document as a file, an agent's kind a line."""
    text = json.dumps(found, indent=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_on_one_line(text) + "\n", encoding="utf-8")


def shared(right: np.ndarray[Any, np.dtype[np.bool_]], tasks: Any) -> float:
    """How much of what decides whether an answer is right is the question's: the factor of a Gaussian copula under
    which as many questions are answered by both of two agents as were, on average over pairs and tasks.
    """
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    weights = weights / weights.sum()
    grid = np.linspace(0.0, 0.95, 96)
    observed, expected = 0.0, np.zeros(len(grid))
    normal = NormalDist()
    cdf = np.vectorize(normal.cdf)
    for task in sorted(set(tasks.tolist())):
        rows = right[:, tasks == task]
        share = rows.mean(axis=1)
        some = (share > 0.02) & (share < 0.98)
        bars = np.array([normal.inv_cdf(s) for s in share[some]])
        if len(bars) < 2:
            continue
        pairs = ~np.eye(len(bars), dtype=bool)
        joint = (rows[some].astype(float) @ rows[some].T.astype(float)) / rows.shape[1]
        observed += joint[pairs].sum()
        for place, rho in enumerate(grid):
            given = cdf((bars[:, None] - math.sqrt(rho) * nodes) / math.sqrt(1 - rho))
            expected[place] += ((given * weights) @ given.T)[pairs].sum()
    return float(grid[np.abs(expected - observed).argmin()])


def _kind(right: Any, beliefs: Floats, rows: Any) -> dict[str, Any]:
    share = float(right[rows].mean())
    if np.isnan(beliefs).all():
        sure, unsure = _assumed(share, 1.0), _assumed(share, -1.0)
    else:
        sure, unsure = (_quantiles(beliefs, rows, right == answered) for answered in (True, False))
    return {"right": round(share, DIGITS), "sure": sure, "unsure": unsure}


def _quantiles(beliefs: Floats, rows: Any, those: Any) -> list[float]:
    chosen = beliefs[rows & those]
    chosen = chosen if len(chosen) >= FEW else beliefs[those]
    return [round(float(p), DIGITS) for p in np.nanquantile(chosen, np.linspace(0, 1, STEPS))]


def _assumed(share: float, sign: float) -> list[float]:
    """Of somebody calibrated whose signal is normal, of one variance for right and for wrong answers."""
    apart = math.sqrt(2) * NormalDist().inv_cdf(ASSUMED_AUROC)
    base = logit(share)
    places = [NormalDist().inv_cdf(min(max(at, 0.01), 0.99)) for at in np.linspace(0, 1, STEPS)]
    return [round(sigmoid(base + apart * (place + sign * apart / 2)), DIGITS) for place in places]


def _on_one_line(text: str) -> str:
    """JSON with its innermost lists on a line each."""
    return re.sub(r"\[\s+([^\[\]{}]*?)\s+\]", lambda found: "[" + re.sub(r"\s+", " ", found[1]) + "]", text)
