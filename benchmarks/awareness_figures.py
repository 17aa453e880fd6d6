"""From what was seen of agents to the figures that are reported, with bootstrap intervals over the questions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.assessment import (
    GAMMA,
    LEAST,
    MOST,
    Bools,
    choices,
    reward_share,
    rewards,
    risk_coverage,
    switch_point,
    verdicts,
)
from benchmarks.judges.base import cell
from benchmarks.self_awareness import ALPHAS, SURE, Seen
from mesh.questions import Question
from training.scores import Places, auroc, interval, resampled

KEYS = ("accuracy", "f1", "auroc", "auroc_cell", "ece", "brier")


def figures(found: Sequence[Seen], asked: Sequence[Question], seed: int = 0) -> dict[str, Any]:
    """All that is reported of ``found``, who were asked ``asked``."""
    cells = np.asarray([cell(question) for question in asked])
    everybody, draws = np.arange(len(asked)), list(resampled(len(asked), seed))
    agents = {seen.agent: {**_verdicts(seen, cells, everybody), **_choices(seen)} for seen in found}
    judges = _judges(found, cells, everybody)
    drawn = [(means([_verdicts(seen, cells, at) for seen in found]), _judges(found, cells, at)) for at in draws]
    return {
        "n": len(asked),
        "agents": agents,
        "mean": means(list(agents.values())),
        "mean_ci": {key: _ci(own[key] for own, _ in drawn) for key in KEYS},
        "judges": judges,
        "above_judges_ci": {
            name: {key: _ci(_minus(own[key], other[name][key]) for own, other in drawn) for key in KEYS[:4]}
            for name in judges
        },
        "rl_above_sft": {f"{alpha:g}": _gain(found, place, draws) for place, alpha in enumerate(ALPHAS)},
        "outside": _outside(found),
    }


def _choices(seen: Seen) -> dict[str, Any]:
    right = seen.right["rl"]
    answers = seen.answers("rl")
    chosen = {f"{alpha:g}": choices(answers[place], right) for place, alpha in enumerate(ALPHAS)}
    stages = [stage for stage in ("sft", "rl") if stage in seen.scores]
    return {
        "answer_rate": {alpha: each["answer_rate"] for alpha, each in chosen.items()},
        "wrong_among_answered": {alpha: each["wrong_among_answered"] for alpha, each in chosen.items()},
        "task_accuracy": float(right.mean()),
        "base_task_accuracy": float(seen.base.mean()),
        "reward_share": {stage: _by_alpha(seen, stage, _share) for stage in stages},
        "reward_share_by_p": _by_alpha(seen, "rl", _share_by_p),
        "switch_point": {stage: _by_alpha(seen, stage, _competence) for stage in stages},
        "switch_point_forced": {stage: _by_alpha(seen, stage, _forced) for stage in stages},
    }


def _by_alpha(seen: Seen, stage: str, figure: Callable[[Seen, str, int], float | None]) -> dict[str, float | None]:
    return {f"{alpha:g}": figure(seen, stage, place) for place, alpha in enumerate(ALPHAS)}


def _share(seen: Seen, stage: str, place: int) -> float | None:
    return reward_share(seen.answers(stage)[place], seen.right[stage], ALPHAS[place])


def _share_by_p(seen: Seen, stage: str, place: int) -> float | None:
    """What it would earn if it answered where its p says that this pays, as the policy `reliability` does."""
    worth = (1 - ALPHAS[place]) ** GAMMA
    return reward_share(seen.p[place] >= worth, seen.right[stage], ALPHAS[place])


def _competence(seen: Seen, stage: str, place: int) -> float:
    return switch_point(seen.scores[stage][place], seen.competence, SURE)


def _forced(seen: Seen, stage: str, place: int) -> float:
    return switch_point(seen.scores[stage][place], seen.right[stage].astype(float), SURE)


def _verdicts(seen: Seen, cells: Any, at: Places) -> dict[str, float | None]:
    """Means over the preferences, of the questions at these places."""
    return means([verdicts(p[at], seen.right["rl"][at], cells[at]) for p in seen.p])


def _judges(found: Sequence[Seen], cells: Any, at: Places) -> dict[str, dict[str, Any]]:
    """Means over the agents, by judge."""
    return {
        name: {
            key: value
            for key, value in means(
                [verdicts(seen.judges[name][0][at], seen.judges[name][1][at], cells[at]) for seen in found]
            ).items()
            if key in KEYS[:4]
        }
        for name in found[0].judges
    }


def _gain(found: Sequence[Seen], place: int, draws: Sequence[Places]) -> dict[str, Any]:
    """What stage two earns above stage one, per question and in the mean of the agents, and its interval."""
    both = [seen for seen in found if "sft" in seen.scores]
    if not both:
        return {"mean": None, "ci": None}
    alpha = ALPHAS[place]

    def earned(seen: Seen, stage: str) -> Any:
        return rewards(seen.answers(stage)[place], seen.right[stage], alpha)

    gained = np.mean([earned(seen, "rl") - earned(seen, "sft") for seen in both], axis=0)
    return {"mean": float(gained.mean()), "ci": interval([float(gained[at].mean()) for at in draws])}


def _outside(found: Sequence[Seen]) -> dict[str, Any]:
    """AUROC on longer questions, in cells that are neither hopeless nor easy, and what it would be for who knew
    beforehand how often an agent is right in each; how often unseen tasks are refused.
    """
    longer = {seen.agent: _longer(seen.outside["longer"]) for seen in found}
    refused = {seen.agent: float(seen.outside["unseen"]["refused"].mean()) for seen in found}
    return {
        "longer_auroc": _with_mean({name: known for name, (known, _) in longer.items()}),
        "longer_auroc_with_hindsight": _with_mean({name: most for name, (_, most) in longer.items()}),
        "unseen_refused_at_0.2": {**refused, "mean": float(np.mean(list(refused.values())))},
        "unseen_accuracy": {seen.agent: float(seen.outside["unseen"]["right"].mean()) for seen in found},
    }


def _with_mean(by_agent: Mapping[str, float | None]) -> dict[str, float | None]:
    told = [value for value in by_agent.values() if value is not None]
    return {**by_agent, "mean": float(np.mean(told)) if told else None}


def _longer(outside: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """AUROC by what an agent says, and by its share of right answers in a question's cell."""
    names = np.asarray([cell(question) for question in outside["questions"]])
    right: Bools = outside["right"]
    shares = np.array([right[names == name].mean() for name in names])
    here = (shares >= LEAST) & (shares <= MOST)
    if not here.any():
        return None, None
    known, most = (auroc(by[here].tolist(), right[here].tolist()) for by in (np.asarray(outside["p"]), shares))
    return known, most


def means(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Key by key, also of what stands in mappings; None where nobody has a value."""
    found: dict[str, Any] = {}
    for key, first in rows[0].items():
        if isinstance(first, Mapping):
            found[key] = means([row[key] for row in rows])
        else:
            values = [row[key] for row in rows if row[key] is not None]
            found[key] = float(np.mean(values)) if values else None
    return found


def _ci(values: Any) -> tuple[float, float] | None:
    told = [value for value in values if value is not None]
    return interval(told) if told else None


def _minus(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one - other


def tables(result: Mapping[str, Any]) -> list[list[dict[str, Any]]]:
    """For people: how well agents, and who judges them from outside, know what is right; and what agents choose."""
    agents = {**result["agents"], "mean": result["mean"]}
    told = " ".join(f"{alpha:g}" for alpha in ALPHAS)
    known = [
        {"": name, **{key.replace("_", " "): digits(row[key]) for key in KEYS if key in row}}
        for name, row in {**agents, **{f"({name})": row for name, row in result["judges"].items()}}.items()
    ]
    chosen = [
        {
            "": name,
            "can do": digits(row["task_accuracy"]),
            "bare": digits(row["base_task_accuracy"]),
            f"answers at {told}": " ".join(digits(rate, 2) for rate in row["answer_rate"].values()),
            "share of the reward": " ".join(digits(share, 2) for share in row["reward_share"]["rl"].values()),
            "by p": " ".join(digits(share, 2) for share in row["reward_share_by_p"].values()),
        }
        for name, row in agents.items()
    ]
    return [[{**dict.fromkeys(known[0], ""), **row} for row in known], chosen]


def digits(value: float | None, places: int = 3) -> str:
    """A figure as tables show it."""
    return "-" if value is None else f"{value:.{places}f}"


def draw(found: Sequence[Seen], path: Path) -> None:
    """Risk over coverage of every agent at alpha .5, as a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    middle = ALPHAS.index(0.5)
    for seen in found:
        risk = risk_coverage(seen.p[middle], seen.right["rl"])
        axes.plot(np.arange(1, len(risk) + 1) / len(risk), risk, label=seen.agent)
    axes.set(xlabel="share answered, the surest first", ylabel="wrong among them", xlim=(0, 1), ylim=(0, 1))
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def keep(found: Sequence[Seen], path: Path) -> None:
    """What was seen, question by question, so that anybody can compute other figures: arrays by agent and stage."""
    arrays: dict[str, Any] = {}
    for seen in found:
        arrays[f"{seen.agent}/base/right"], arrays[f"{seen.agent}/base/competence"] = seen.base, seen.competence
        arrays[f"{seen.agent}/rl/p"] = seen.p.astype(np.float16)
        for stage, scores in seen.scores.items():
            arrays[f"{seen.agent}/{stage}/score"] = scores.astype(np.float16)
            arrays[f"{seen.agent}/{stage}/right"] = seen.right[stage]
    np.savez_compressed(path, **arrays)
