"""Made-up outcomes of a made-up pool, of which it is known what the best router would do."""

from __future__ import annotations

import numpy as np

from benchmarks.outcomes import Asked, Outcomes, routed
from mesh.questions import Question

AGENTS, COSTS = ("small", "words", "large"), np.array([0.1, 0.2, 0.9])
TASKS = {"sums": "add {} and {}", "words": "spell the word {} {}", "riddles": "why would {} become {}?"}
SURE = {"sums": (0.95, 0.1, 0.95), "words": (0.1, 0.95, 0.95), "riddles": (0.05, 0.05, 0.9)}  # of each agent


def outcomes(count: int, seed: int) -> Outcomes:
    """Three tasks, told apart by their words. The likelihood of a draft and P(true) tell whether it is right, but for
    noise; work is the price of the agent.
    """
    rng = np.random.default_rng(seed)
    tasks = rng.choice(list(TASKS), count)
    numbers = rng.integers(100, 999, (count, 2))
    questions = tuple(
        Question(f"{seed}-{n}", TASKS[task].format(*numbers[n]), "any", None, "yes") for n, task in enumerate(tasks)
    )
    p = np.array([SURE[task] for task in tasks]).T
    right = (rng.random(p.shape) < p).astype(float)
    noise = rng.normal(0, 0.2, p.shape)
    texts = tuple(tuple("yes" if good else "no" for good in row) for row in right)
    signals = {"likelihood": -0.2 - (1 - right) * 0.8 + noise, "p_true": np.clip(0.2 + 0.6 * right + noise, 0, 1)}
    work = np.broadcast_to(COSTS[:, None], p.shape).copy()
    return Outcomes(questions, AGENTS, COSTS, right, work, texts, signals)


def utility(router: object, asked: Outcomes, alpha: float, full: bool = False) -> float:
    """What a router gets out of questions."""
    found = Asked(asked)
    return float(routed(asked, router.route(found, alpha), found).utility(alpha, full).mean())  # type: ignore[attr-defined]
