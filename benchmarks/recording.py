"""``mesh record``: what every agent of a live pool does with every question, as rows that anyone can route on.

Each agent is asked by itself: for its answer when it must give one, with what it took and how likely it found it; for
its confidence at each alpha; and, if wanted, for P(true) of its own answer. Replies are kept as they come, so that a
recording that broke off goes on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console

from agents.calibration import Calibration
from agents.errors import ConfigError, MeshError, QueryError
from agents.messages import Card
from agents.policies import Answer, Decision, Draft, Policy, View
from agents.spec import AgentSpec
from benchmarks.outcomes import TOOK, Outcomes
from mesh.assemble import agent_spec
from mesh.client import Mesh
from mesh.config import AgentConfig, MeshConfig, alone, with_overrides
from mesh.questions import Question, read_questions
from mesh.terminal import progress_by_name
from training.examine import ANY, Answering, Declining, agent_limits, ask, counting, replied, scoring
from training.grading import grade

app = typer.Typer(help="Record what every agent of a pool does with every question.")
ALPHAS = tuple(round(0.1 * step, 1) for step in range(11))
LOOKS, DRAFTS = "first_token", "likelihood"  # how agents may judge themselves: before a draft, or by it
TINY = 1e-300  # as likely as the least likely draft
Told = Callable[[str, int, int], None]  # agent, done, all


@app.callback(invoke_without_command=True)
def main(
    pool: Annotated[str, typer.Option(help="A ready pool's name, or a file.")],
    out: Annotated[Path, typer.Option(help="File for the rows; replies stay in OUT.parts, where it goes on.")],
    questions: Annotated[list[str] | None, typer.Option(help="A file or a name in MESH_DATA; may be repeated.")] = None,
    task: Annotated[list[str] | None, typer.Option(help="Only this task; may be repeated.")] = None,
    limit: Annotated[int | None, typer.Option(help="Of each task at most.", min=1)] = None,
    alpha: Annotated[list[float] | None, typer.Option(help="May be repeated; default: 0, 0.1, ..., 1.")] = None,
    p_true: Annotated[bool, typer.Option(help="Ask agents whether their own answers are true.")] = True,
    texts: Annotated[bool, typer.Option(help="Write questions and answers too, not only ids.")] = True,
    models_dir: Annotated[Path | None, typer.Option(help="Where models are looked for before the hub.")] = None,
    count: Annotated[int, typer.Option(help="Of a pool's own questions, where none are given.", min=1)] = 1000,
    part: Annotated[str, typer.Option(help="Of these: train, validation or test.")] = "test",
    seed: Annotated[int, typer.Option(help="Of these.", min=0)] = 0,
) -> None:
    """Record what every agent of a pool does with every question: answers, tokens, seconds, confidences."""
    from benchmarks.rows import write
    from mesh.config import load
    from training.calibrate import of_tasks

    config, alphas = load(pool), tuple(alpha or ALPHAS)
    asked = of_tasks(_asked(config, questions or (), count, part, seed), task or (), limit)
    recording = Recording(config, asked, out.with_name(out.name + ".parts"), alphas, p_true, models_dir)
    with progress_by_name() as progress:
        recording.record(progress)
    write(recording.outcomes(), out, texts)
    Console().print(f"{len(asked)} questions, {len(config.agents)} agents: {out}")


def _asked(config: MeshConfig, files: Sequence[str], count: int, part: str, seed: int) -> list[Question]:
    if files:
        rows = {row.id: row for name in files for row in read_questions(name)[0] if row.answer is not None}
        if not rows:
            raise QueryError(f"questions: no row of {', '.join(files)} has an answer to be graded by")
        return list(rows.values())
    make = config.question_maker
    if make is None:
        raise QueryError(f"questions: the pool {config.name!r} has none of its own; give files or names in MESH_DATA")
    if part not in ("train", "validation", "test"):
        raise QueryError(f"part is {part!r}; it must be train, validation or test")
    return list(make(count, part, seed))


class Drafting(Policy):
    """Draft the answer, judge it, and give it whatever the verdict."""

    staged = True

    def decide(self, view: View) -> Decision:
        return Draft() if view.draft is None else Answer()


@dataclass(frozen=True, slots=True)
class Recording:
    """What a pool's agents do with ``questions``; replies are kept in ``folder``.

    At ``alphas`` agents are asked how sure they are; with ``p_true`` they also judge the answers that they gave.
    """

    config: MeshConfig
    questions: Sequence[Question]
    folder: Path
    alphas: Sequence[float] = ALPHAS
    p_true: bool = True
    models_dir: Path | None = None

    def record(self, progress: Told | None = None) -> None:
        """Ask what has not been asked yet.

        Raises:
            ConfigError: an agent judges itself in a way that cannot be recorded. MeshError: some questions failed;
                recording again asks these again.
        """
        for agent in self.config.agents:
            looks_first(agent)
        for agent in self.config.agents:
            self.ask(agent, progress)

    def ask(self, agent: AgentConfig, progress: Told | None = None) -> None:
        """Ask one agent what it has not been asked yet; see ``record``."""
        self.folder.mkdir(parents=True, exist_ok=True)
        local = with_overrides(self.config, runtime="local")
        passes = {"drafts": (scoring(local, agent, Drafting), (ANY,))}
        if looks_first(agent) and self.alphas:
            calibration = _calibration(agent_spec(local, agent, self.models_dir))
            passes["looks"] = (scoring(local, agent, Declining), self._looked_at(agent, calibration))
        if self.p_true:
            passes["p_true"] = (_judging_itself(local, agent), (ANY,))
        ids = {question.id for question in self.questions}
        total = len(ids) * sum(len(alphas) for _, alphas in passes.values())
        told = counting(total, progress and (lambda done, total: progress(agent.name, done, total)))
        for name, (one, alphas) in passes.items():
            path = self._replies(agent, name)
            with closing(Mesh(one, self.models_dir)) as mesh:
                ask(mesh, self.questions, path, alphas, agent_limits(local, agent), told, may_decline=True)
            known = {(line["question"], line["alpha"]) for line in replied(path, ids)}
            if name == "p_true":  # of an endless answer that with the question is more than it can read it says nothing
                known |= {(id, ANY) for id in _too_long(path, ids)}
            if missing := sum((id, alpha) not in known for id in ids for alpha in alphas):
                raise MeshError(f"{missing} of {total} replies of {agent.name!r} failed; see {path}")

    def outcomes(self) -> Outcomes:
        """What was recorded. Raises ConfigError where a reply is missing."""
        agents = sorted(self.config.agents, key=lambda agent: (agent.cost, agent.name))
        columns = [self._column(agent) for agent in agents]
        names = ["likelihood", *(["p_true"] if self.p_true else [])]
        return Outcomes(
            tuple(self.questions),
            tuple(agent.name for agent in agents),
            np.array([agent.cost for agent in agents]),
            np.array([column["right"] for column in columns], dtype=float),
            np.array([column["work"] for column in columns]),
            tuple(tuple(column["texts"]) for column in columns),
            {name: np.array([column[name] for column in columns]) for name in names},
            {alpha: np.array([column["beliefs"][alpha] for column in columns]) for alpha in self.alphas},
            np.array([column["looks"] for column in columns]),
            {name: np.array([column[name] for column in columns], dtype=float) for name in TOOK},
        )

    def _column(self, agent: AgentConfig) -> dict[str, Any]:
        spec = agent_spec(self.config, agent, self.models_dir)
        card, calibration = spec.card, _calibration(spec)
        (drafts,) = self._found(agent, "drafts", (ANY,))
        scores = [math.log(max(_score(line), TINY)) for line in drafts]
        column: dict[str, Any] = {
            "right": [grade(line["text"], asked) for line, asked in zip(drafts, self.questions, strict=True)],
            "texts": [line["text"] for line in drafts],
            "work": [_spent(card, line) for line in drafts],
            "likelihood": scores,
            **dict.fromkeys(("looks", "look_seconds", "look_tokens"), [math.nan] * len(drafts)),
            **{key: _of_hops(drafts, key) for key in ("seconds", "prompt_tokens", "generated_tokens")},
        }
        if self.p_true:
            endless = _too_long(self._replies(agent, "p_true"), {question.id for question in self.questions})
            (judged,) = self._found(agent, "p_true", (ANY,), endless)
            column["p_true"] = [math.nan if line is None else 1 / (1 + math.exp(-_score(line))) for line in judged]
        scored = [scores for _ in self.alphas]
        if looks_first(agent) and self.alphas:
            seen = self._found(agent, "looks", self._looked_at(agent, calibration))
            column["looks"] = [_spent(card, line) for line in seen[0]]
            column["look_seconds"] = _of_hops(seen[0], "seconds")
            column["look_tokens"] = _of_hops(seen[0], "prompt_tokens")
            told = [[_score(line) for line in lines] for lines in seen]
            scored = told * (len(self.alphas) // len(told))
        column["beliefs"] = {
            alpha: [_believed(calibration, score, alpha) for score in given]
            for alpha, given in zip(self.alphas, scored, strict=True)
        }
        return column

    def _looked_at(self, agent: AgentConfig, calibration: Calibration) -> tuple[float, ...]:
        """The preferences at which an agent is asked how sure it is: one, where it is told the same at any."""
        if calibration.told is not None:
            return (calibration.told,)
        return (ANY,) if agent.prompt == "plain" else tuple(self.alphas)

    def _replies(self, agent: AgentConfig, name: str) -> Path:
        return self.folder / f"{agent.name}.{name}.jsonl"

    def _found(
        self,
        agent: AgentConfig,
        name: str,
        alphas: Sequence[float],
        absent: Collection[str] = (),
    ) -> list[list[Any]]:
        """Replies at each alpha, in the order of the questions; None for those that are known to be ``absent``."""
        path = self._replies(agent, name)
        if not path.exists():
            raise ConfigError(f"recording: there is no {path}; `mesh record` makes it")
        ids = [question.id for question in self.questions]
        found: dict[tuple[float, str], Any] = dict.fromkeys(product(alphas, absent))
        found |= {(line["alpha"], line["question"]): line for line in replied(path, set(ids))}
        for alpha, id in product(alphas, ids):
            if (alpha, id) not in found:
                raise ConfigError(f"recording: {path} has no reply to {id!r} at alpha {alpha:g}")
        return [[found[alpha, id] for id in ids] for alpha in alphas]


def _judging_itself(config: MeshConfig, agent: AgentConfig) -> MeshConfig:
    """The agent alone, which drafts without a scenario and says whether that is true."""
    return scoring(config, alone(config, agent, assessor="p_true", prompt="plain").agents[0], Answering)


def looks_first(agent: AgentConfig) -> bool:
    """Whether it judges itself before it drafts. Raises ConfigError where it does neither that nor by its draft."""
    if agent.assessor.kind == LOOKS:
        return True
    if agent.assessor.kind == DRAFTS and agent.prompt == "plain":
        return False
    raise ConfigError(
        f"agent {agent.name!r}: judges itself by {agent.assessor.kind!r} with prompt {agent.prompt!r}; what can be "
        f"recorded is {LOOKS!r}, and {DRAFTS!r} with prompt 'plain'"
    )


def _calibration(spec: AgentSpec) -> Calibration:
    return Calibration.from_json(spec.assessor[1]["calibration"])


def _too_long(path: Path, ids: set[str]) -> set[str]:
    """Of these questions those that with the agent's own answer were more than it can read."""
    lines = map(json.loads, path.read_text(encoding="utf-8").splitlines()) if path.exists() else ()
    return {line["question"] for line in lines if line.get("error") == "QueryTooLong" and line["question"] in ids}


def _believed(calibration: Calibration, score: float, alpha: float) -> float:
    return math.nan if math.isnan(score) else calibration(score, alpha)


def _score(line: Mapping[str, Any]) -> float:
    """What the assessor measured; NaN where the agent refused instead."""
    score = line["path"][-1]["confidence"]
    return math.nan if score is None else float(score)


def _of_hops(lines: Sequence[Mapping[str, Any]], key: str) -> list[float]:
    return [line["path"][-1][key] for line in lines]


def _spent(card: Card, line: Mapping[str, Any]) -> float:
    hop = line["path"][-1]
    return card.full_cost(hop["prompt_tokens"], hop["generated_tokens"])
