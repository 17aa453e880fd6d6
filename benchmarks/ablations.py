"""What each part of the training is for: one agent trained without it, and examined as the whole is.

Variants begin from the same samples, and from the same first stage where they share it, so that they differ in one
thing only.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from agents.calibration import Calibration
from agents.errors import ConfigError
from benchmarks import unseen
from benchmarks.assessment import choices, reward_share, verdicts
from benchmarks.awareness_figures import KEYS, means
from benchmarks.judges.base import cell
from benchmarks.self_awareness import ALPHAS, SURE, columns, examined, examined_at, examined_outside, probabilities
from mesh.askfile import Job as Ask
from mesh.askfile import ask_all
from mesh.client import Mesh
from mesh.config import AgentConfig, MeshConfig, alone, with_overrides
from mesh.questions import Question
from training.calibrate import fitted
from training.examine import agent_limits
from training.jobs import STAGES, Job, Plan, mark
from training.scores import interval, resampled

FIXED = (0.2, 0.5, 0.8)
REFUSED = 300  # questions, of which the refusals are measured
VARIANTS: dict[str, Callable[[Plan], Plan]] = {
    "SFT + RL": lambda plan: plan,
    "SFT only": lambda plan: replace(plan, rl=None),
    "RL only": lambda plan: replace(plan, sft=None),
    "rewards for the draft alone": lambda plan: replace(plan, rl=plan.rl and replace(plan.rl, forced=0.0)),
    "no pull towards stage one": lambda plan: replace(plan, rl=plan.rl and replace(plan.rl, beta=0.0)),
    "no nonsense to refuse": lambda plan: replace(plan, nonsense=()),
    "no scenario in the prompt": lambda plan: replace(plan, style="plain", alphas=(0.5,)),
    "three fixed alphas": lambda plan: replace(plan, alphas=FIXED),
    "reasoned refusals": lambda plan: replace(plan, reasons=True),
}
SHARES_SFT = ("SFT + RL", "SFT only", "rewards for the draft alone", "no pull towards stage one")


def train(config: MeshConfig, name: str, plan: Plan, run: Path, work: Path, done: Callable[[str], None]) -> None:
    """Train all variants of one agent, from the samples of a ``run`` of ``mesh train self-awareness``; in ``work``.

    Raises:
        ConfigError: the run has not sampled the agent, or is not done.
    """
    if not mark(run / name, STAGES[-1]).exists():
        raise ConfigError(f"run: {run} has not trained {name!r}; `mesh train self-awareness --out {run}` does")
    for variant, changed in VARIANTS.items():
        job = Job(config, name, changed(plan), work / variant / name, None)
        _begun(run / name, job.out, "sample", "samples")
        if variant in SHARES_SFT:
            _begun(run / name, job.out, "sft", "sft", "truth")
        if variant == "SFT + RL":
            _begun(run / name, job.out, "rl", "rl")
        for stage in STAGES:
            job.run(stage)
        done(variant)


def _begun(run: Path, out: Path, stage: str, *folders: str) -> None:
    """Take over a stage that is the same."""
    out.mkdir(parents=True, exist_ok=True)
    if not mark(out, stage).exists():
        for folder in folders:
            shutil.copytree(run / folder, out / folder, dirs_exist_ok=True)
        shutil.copy(mark(run, stage), mark(out, stage))


def measure(
    config: MeshConfig, name: str, plan: Plan, asked: Sequence[Question], work: Path, seed: int
) -> list[dict[str, Any]]:
    """A row of figures for each variant, means over five preferences, with bootstrap intervals over the questions."""
    cells = np.asarray([cell(question) for question in asked])
    draws = list(resampled(len(asked), seed))
    rows = [_none(config, name, asked, cells, plan, work)]
    for variant, changed in VARIANTS.items():
        job = Job(config, name, changed(plan), work / variant / name, None)
        (agent,) = job.served(job.version).agents
        calibration = Calibration.load(job.version / "calibration.json")
        alphas = examined_at(calibration) if agent.prompt != "plain" else (config.alpha,)
        exams = examined(config, agent, asked, alphas, work / variant / "exams")
        exams = {alpha: exams[alpha if alpha in exams else config.alpha] for alpha in examined_at(calibration)}
        scores, right = columns({alpha: exams[alpha] for alpha in ALPHAS})
        p = probabilities(calibration, exams)
        found = _figures(p, scores > SURE, right, cells)
        drawn = [means([verdicts(each[at], right[at], cells[at]) for each in p]) for at in draws]
        found["ci"] = {key: interval([row[key] for row in drawn if row[key] is not None]) for key in KEYS}
        found["unseen_refused_at_0.2"] = _unseen_refused(config, agent, work / variant / "unseen", seed)
        found["tokens_of_a_refusal"] = _tokens(config, agent, asked[:REFUSED])
        rows.append({"variant": variant, **found})
    return rows


def _none(
    config: MeshConfig, name: str, asked: Sequence[Question], cells: Any, plan: Plan, work: Path
) -> dict[str, Any]:
    """The bare model, which has never been told that it may refuse: its P(refusal) is noise."""
    settings = {"adapter": None, "assessor": "first_token", "prompt": "level"}
    agent = alone(config, config.named(name), **settings).agents[0]
    curve = fitted(examined(config, agent, plan.validation, (0.5,), work / "none" / "fit")[0.5])
    exams = examined(config, agent, asked, ALPHAS, work / "none" / "exams")
    scores, right = columns(exams)
    p = probabilities(curve, exams)
    missing = dict.fromkeys(("ci", "unseen_refused_at_0.2", "tokens_of_a_refusal"))
    return {"variant": "none", **_figures(p, scores > SURE, right, cells), **missing}


def _figures(p: Any, answers: Any, right: Any, cells: Any) -> dict[str, Any]:
    by_alpha: dict[str, Mapping[str, Any]] = {
        f"{alpha:g}": {**choices(answers[place], right), "reward_share": reward_share(answers[place], right, alpha)}
        for place, alpha in enumerate(ALPHAS)
    }
    return {
        **means([verdicts(each, right, cells) for each in p]),
        "task_accuracy": float(right.mean()),
        "answer_rate": {alpha: row["answer_rate"] for alpha, row in by_alpha.items()},
        "reward_share": {alpha: row["reward_share"] for alpha, row in by_alpha.items()},
    }


def _unseen_refused(config: MeshConfig, agent: AgentConfig, work: Path, seed: int) -> float:
    """The share that it refuses of tasks of which it has seen nothing."""
    asked = unseen.questions(unseen.UNSEEN, REFUSED, seed)
    scores, _ = columns(examined_outside(config, agent, asked, (0.2,), work))
    return float((scores <= SURE).mean())


def _tokens(config: MeshConfig, agent: AgentConfig, asked: Sequence[Question]) -> float | None:
    """How much it writes when it refuses in its own words, on average."""
    spent: list[int] = []

    def record(_: Any, outcome: Any) -> None:
        spent.extend(hop.generated_tokens for hop in getattr(outcome, "path", ()) if outcome.finish == "declined")

    drafting = alone(config, agent, assessor="refusal", policy="refusal")
    with Mesh(with_overrides(drafting, runtime="local")) as mesh:
        jobs = [Ask(question, 0.2) for question in asked]
        ask_all(mesh, jobs, record, agent_limits(config, agent), may_decline=True)
    return float(np.mean(spent)) if spent else None
