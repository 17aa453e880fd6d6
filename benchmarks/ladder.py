"""What each of the lab's models can do: accuracy by task with intervals, on test questions of a fresh seed.

Of these, short ones ("3+5=") were trained on too; so the accuracy over all the others stands beside it, as ``unseen``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

from agents.errors import MeshError
from agents.messages import Reply
from mesh.askfile import Job, ask_all
from mesh.client import Mesh
from mesh.config import load
from mesh.questions import Question
from training.grading import is_right
from training.lab_questions import FAMILIES, SHORT, TASKS, questions

POOL = "lab-bare"  # all eight, as they were before they learnt to know themselves
Z = 1.959963984540054  # of a 95 % interval
Progress = Callable[[], None]


def measure(count: int = 1400, seed: int = 1, progress: Progress | None = None) -> dict[str, Any]:
    """Ask every agent every question, alone.

    Returns:
        ``agents``: by name its cost, and accuracy with its 95 % interval over all, by task, by family, and over what
        no model was trained on.

    Raises:
        MeshError: an agent failed to answer.
    """
    asked, config = questions(count, "test", seed), load(POOL)
    agents: dict[str, Any] = {}
    with Mesh(config) as mesh:
        for agent in config.agents:
            right: dict[Question, bool] = {}

            def record(job: Job, outcome: Reply | MeshError, right: dict[Question, bool] = right) -> None:
                if isinstance(outcome, MeshError):
                    raise outcome  # a broken agent is no bad one
                right[job.question] = is_right(outcome, job.question)
                if progress is not None:
                    progress()

            ask_all(mesh, (Job(q, 0.5) for q in asked), record, 64, entry=agent.name, max_hops=0)
            agents[agent.name] = {"cost": agent.cost, **_by_group(right)}
    return {"bench": "lab", "questions": len(asked), "seed": seed, "agents": agents}


def _by_group(right: dict[Question, bool]) -> dict[str, Any]:
    def of(tasks: Collection[str]) -> dict[str, Any]:
        return share([good for question, good in right.items() if question.task.removeprefix("lab/") in tasks])

    return {
        "all": of(TASKS),
        "tasks": {task: of((task,)) for task in TASKS},
        "families": {family: of(tasks) for family, tasks in FAMILIES.items()},
        "unseen": share([good for question, good in right.items() if len(question.id) > SHORT]),
    }


def share(results: Sequence[bool]) -> dict[str, Any]:
    """How many are right, with a 95 % interval (Wilson, 1927)."""
    n, good = len(results), sum(results)
    middle, reach = (good + Z * Z / 2) / (n + Z * Z), Z / (n + Z * Z) * math.sqrt(good * (n - good) / n + Z * Z / 4)
    return {"n": n, "accuracy": good / n, "low": max(middle - reach, 0.0), "high": min(middle + reach, 1.0)}


def rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The ladder as a table."""
    table = []
    for name, agent in result["agents"].items():
        overall = agent["all"]
        told = f"{overall['accuracy']:.3f} ({overall['low']:.2f} to {overall['high']:.2f})"
        tasks = {task: f"{figures['accuracy']:.2f}" for task, figures in agent["tasks"].items()}
        unseen = f"{agent['unseen']['accuracy']:.3f}"
        table.append({"agent": name, "cost": agent["cost"], "right (95 %)": told, "unseen": unseen, **tasks})
    return table
