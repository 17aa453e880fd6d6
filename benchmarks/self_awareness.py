"""Do agents know themselves? Each trained agent against its bare model, its first stage, and judges from outside.

Truth is whether the answer is right that an agent gives when it must answer; its verdict is p >= .5, its choice what
its own refusal says (P(refusal) >= .5).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agents.calibration import Calibration
from agents.errors import ConfigError
from benchmarks import unseen
from benchmarks.assessment import Bools, Floats
from benchmarks.judges import JUDGES
from benchmarks.parallel import workers
from mesh.config import AgentConfig, MeshConfig, alone, load, with_overrides
from mesh.questions import Question
from training.calibrate import fitted
from training.examine import Exam, by_the_hundred, examine, forced
from training.recipes import OWN_ROWS, others
from training.sample import sample

ALPHAS = (0.1, 0.2, 0.5, 0.8, 0.9)
SAMPLES = 2  # of each question, for the competence at which an agent switches
OUTSIDE = 1_400  # longer questions; half as many of tasks that nobody has seen
SURE = math.log(2)  # the score, -log P(refusal), from which on it would sooner answer
UNTRAINED = ("likelihood", "p_true")  # assessors of the bare model


@dataclass(slots=True)
class Seen:
    """One agent on Q questions: the bare model's answers and samples, and what it says of itself after each stage."""

    agent: str
    base: Bools
    competence: Floats
    scores: dict[str, Floats] = field(default_factory=dict)  # stage -> (A, Q): -log P(refusal)
    right: dict[str, Bools] = field(default_factory=dict)  # stage -> (Q,)
    p: Floats = field(default_factory=lambda: np.zeros((0, 0)))  # (A, Q), of the last stage
    judges: dict[str, tuple[Floats, Bools]] = field(default_factory=dict)  # name -> p, and the truth it is held to
    outside: dict[str, dict[str, Any]] = field(default_factory=dict)

    def answers(self, stage: str) -> Bools:
        """Its choices, (A, Q)."""
        chosen: Bools = self.scores[stage] > SURE
        return chosen


def trained(config: MeshConfig, names: Sequence[str] = ()) -> list[str]:
    """Agents of a pool that were trained to know themselves, or those named.

    Raises:
        ConfigError: one of them was not.
    """
    able = [agent.name for agent in config.agents if agent.adapter and agent.assessor.kind == "first_token"]
    for name in names:
        if config.named(name).name not in able:
            raise ConfigError(f"agent {name!r} was not trained to know itself; in this pool were: {', '.join(able)}")
    if not able:
        raise ConfigError(f"pool {config.name!r}: no agent was trained; `mesh train self-awareness` trains them")
    return list(names) or able


def measure(
    pool: str,
    agents: Sequence[str],
    count: int,
    seed: int,
    work: Path,
    done: Callable[[str], None],
    processes: int = 2,
) -> list[Seen]:
    """Examine agents side by side, each in a process of its own; replies go into ``work``."""
    found: dict[str, Seen] = {}
    jobs = [(pool, name, count, seed, work / name) for name in agents]
    with workers(processes, fresh=True) as examiners:
        for future in as_completed([examiners.submit(_one, *job) for job in jobs]):
            seen = future.result()
            found[seen.agent] = seen
            done(seen.agent)
    return [found[name] for name in agents]


def _one(pool: str, name: str, count: int, seed: int, work: Path) -> Seen:
    config = by_the_hundred(with_overrides(load(pool), runtime="local"))
    make = config.question_maker
    assert make is not None
    asked = make(count, "test", seed)
    agent = config.named(name)
    bare = {"adapter": None, "prompt": "plain", "assessor": "refusal"}
    known = sample(alone(config, agent, **bare), name, asked, work / "samples", samples=SAMPLES, seed=seed)
    assert len(known) == len(asked)
    seen = Seen(name, np.array([one.forced for one in known]), np.array([one.competence for one in known]))
    assert agent.adapter is not None
    calibration = Calibration.load(agent.assessor.options["calibration"])
    stages = {"sft": (agent.adapter / "sft", ALPHAS), "rl": (agent.adapter, examined_at(calibration))}
    for stage, (adapter, alphas) in stages.items():
        if adapter.exists():
            exams = examined(config, agent, asked, alphas, work / stage, adapter=str(adapter))
            seen.scores[stage], seen.right[stage] = columns({alpha: exams[alpha] for alpha in ALPHAS})
    seen.p = probabilities(calibration, exams)
    learnt, checked = (make(count, part, 0) for part, count in OWN_ROWS.items())  # what an agent is trained on
    _outsiders(config, agent, seen, asked, (*learnt, *checked, *others(config, 0)), work)
    _insiders(config, agent, seen, asked, checked, work)
    _outside(config, agent, seen, seed, calibration, work)
    return seen


def examined(
    config: MeshConfig,
    agent: AgentConfig,
    asked: Sequence[Question],
    alphas: Sequence[float],
    work: Path,
    **changes: Any,
) -> dict[float, list[Exam]]:
    """Exams by alpha, in the order of the questions."""
    one = alone(config, agent, **changes)
    exams = examine(one, one.agents[0], asked, alphas, work)
    place = {question.id: number for number, question in enumerate(asked)}
    by_alpha: dict[float, list[Exam]] = {alpha: [] for alpha in alphas}
    for exam in sorted(exams, key=lambda exam: place[exam.question.id]):
        by_alpha[exam.alpha].append(exam)
    assert all(len(each) == len(asked) for each in by_alpha.values())
    return by_alpha


def examined_outside(
    config: MeshConfig, agent: AgentConfig, asked: Sequence[Question], alphas: Sequence[float], work: Path
) -> dict[float, list[Exam]]:
    """The same with questions that the pool says it cannot read."""
    return examined(with_overrides(config, understands=None), agent, asked, alphas, work)


def columns(exams: Mapping[float, Sequence[Exam]]) -> tuple[Floats, Bools]:
    """Scores, (A, Q), and whether the forced answer is right, (Q,), which is the same at every preference."""
    scores = np.array([[exam.score for exam in at] for at in exams.values()])
    return scores, np.array([exam.right for exam in next(iter(exams.values()))])


def examined_at(calibration: Calibration, alphas: Sequence[float] = ALPHAS) -> tuple[float, ...]:
    """These preferences, and that which an agent is told when it judges itself, if it is always the same."""
    return tuple(dict.fromkeys([*alphas, *([] if calibration.told is None else [calibration.told])]))


def probabilities(
    calibration: Calibration, exams: Mapping[float, Sequence[Exam]], alphas: Sequence[float] = ALPHAS
) -> Floats:
    """How sure an agent is at these preferences, (A, Q)."""
    at = {alpha: exams[alpha if calibration.told is None else calibration.told] for alpha in alphas}
    return np.array([[calibration(exam.score, alpha) for exam in each] for alpha, each in at.items()])


def _outsiders(
    config: MeshConfig,
    agent: AgentConfig,
    seen: Seen,
    asked: Sequence[Question],
    shared: Sequence[Question],
    work: Path,
) -> None:
    """Judges learn from all questions that the agent met in training, those its calibration was fitted on among them;
    they say of the trained agent whether it will be right.
    """
    rows = {question.id: question for question in shared}
    right = forced(config, agent, list(rows.values()), work / "judged")
    for name, kind in JUDGES.items():
        judge = kind()
        judge.fit([rows[id] for id in right], list(right.values()))
        seen.judges[name] = (np.asarray(judge.predict(asked)), seen.right["rl"])


def _insiders(
    config: MeshConfig,
    agent: AgentConfig,
    seen: Seen,
    asked: Sequence[Question],
    checked: Sequence[Question],
    work: Path,
) -> None:
    """What the bare model can tell of its own answers without training, calibrated on the same validation rows."""
    ways: dict[str, dict[str, Any]] = {name: {"assessor": name, "prompt": "plain"} for name in UNTRAINED}
    ways["refusal, untrained"] = {"assessor": "first_token"}
    for name, settings in ways.items():
        place = work / name.partition(",")[0]
        known = examined(config, agent, checked, (0.5,), place / "fit", adapter=None, **settings)[0.5]
        exams = examined(config, agent, asked, (0.5,), place, adapter=None, **settings)[0.5]
        curve = fitted(known)
        p = [0.0 if exam.score is None else curve(exam.score, 0.5) for exam in exams]
        seen.judges[name] = (np.array(p), np.array([exam.right for exam in exams]))


def _outside(
    config: MeshConfig, agent: AgentConfig, seen: Seen, seed: int, calibration: Calibration, work: Path
) -> None:
    """Longer questions, and tasks that no agent has seen."""
    for name, tasks, count in (("longer", unseen.LONGER, OUTSIDE), ("unseen", unseen.UNSEEN, OUTSIDE // 2)):
        asked = unseen.questions(tasks, count, seed)
        exams = examined_outside(config, agent, asked, examined_at(calibration, (0.2, 0.5)), work / name)
        (low, *_), right = columns(exams)
        seen.outside[name] = {
            "questions": asked,
            "right": right,
            "refused": low <= SURE,
            "p": probabilities(calibration, exams, (0.5,))[0],
        }
