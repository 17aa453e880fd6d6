"""Training agents to know themselves, end to end: every stage of every agent is a Ray task, and since rewards are
local, agents train side by side.

``OUT/AGENT/`` is where an agent's samples, weights and calibration go; it must be a path that all nodes see. A stage
whose task has ended left a mark there and is not run again; one that broke off goes on at its last checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
import yaml

from agents.errors import ConfigError, MeshError, PlacementError
from mesh.assemble import agent_specs, models_folder
from mesh.config import MeshConfig, with_overrides
from mesh.questions import Question
from mesh.runtimes.ray import ensure_cluster, gpus_for
from training.calibrate import calibrate
from training.label import SIZE, lessons
from training.rl import RlRecipe, rl
from training.sample import SAMPLES, experience, sample
from training.sft import SftRecipe, bare_model, sft, style_of
from training.trainer import same_run

STAGES = ("sample", "sft", "rl", "calibrate")
RETRIES = 3  # of a task whose worker died
POLL_S = 0.5
Progress = Callable[[str, str, int, int], None]  # agent, stage, done, all


@dataclass(frozen=True, slots=True)
class Plan:
    """How agents are trained: ``questions`` to learn from, and others that their calibration is fitted on."""

    questions: tuple[Question, ...]
    validation: tuple[Question, ...]
    samples: int = SAMPLES
    size: int = SIZE
    sft: SftRecipe = field(default_factory=SftRecipe)
    rl: RlRecipe = field(default_factory=RlRecipe)
    seed: int = 0
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Job:
    """One agent's training."""

    config: MeshConfig
    agent: str
    plan: Plan
    out: Path
    models_dir: Path | None

    @property
    def done(self) -> bool:
        """Whether its last stage is."""
        return (self.out / f"{STAGES[-1]}.done").exists()

    def run(self, stage: str) -> None:
        """Do one stage, unless it is done."""
        same_run(self.out / "plan.json", self.facts())
        mark = self.out / f"{stage}.done"
        if not mark.exists():
            getattr(self, f"_{stage}")(_Told(self.out / "progress.json", stage))
            mark.touch()

    def _sample(self, told: _Told) -> None:
        plan = self.plan
        config = with_overrides(self.config, runtime="local")
        sample(
            config, self.agent, plan.questions, self.out / "samples", self.models_dir, plan.samples, seed=plan.seed,
            progress=told,
        )  # fmt: skip

    def _sft(self, told: _Told) -> None:
        self._learn(sft, bare_model(self.config, self.agent, self.models_dir), "sft", told)

    def _rl(self, told: _Told) -> None:
        self._learn(rl, self.out / "sft" / "final", "rl", told)

    def _learn(self, stage: Callable[..., Path], model: Path, name: str, told: _Told) -> None:
        files = [self.out / "samples" / f"{number}.jsonl" for number in range(self.plan.samples)]
        taught = lessons(experience(files, self.plan.questions), self.plan.size, seed=self.plan.seed)
        recipe = self.plan.sft if name == "sft" else replace(self.plan.rl, max_tokens=self.config.max_tokens)
        stage(
            model, taught, self.out / name, recipe, style_of(self.config),
            seed=self.plan.seed, threads=self.plan.threads, progress=told,
        )  # fmt: skip

    def _calibrate(self, told: _Told) -> None:
        config = with_overrides(self.config, runtime="local", agents=[self.settings()], entry=None, topology="cascade")
        rows = self.plan.validation
        shutil.rmtree(self.out / "calibration", ignore_errors=True)  # replies of other weights are none of these
        (result,) = calibrate(
            config, rows, self.out / "calibration", self.models_dir, progress=lambda _, done, total: told(done, total)
        )
        packages = {name: version(name) for name in ("torch", "transformers", "trl", "peft")}
        report = {"agent": self.agent, **self.facts(), "packages": packages, "calibration": result.meta}
        (self.out / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")

    def settings(self, calibration: Path | None = None) -> dict[str, Any]:
        """The trained agent's settings for a pool file."""
        trained = {
            "model": str((self.out / "rl" / "final").resolve()),
            "prompt": style_of(self.config),
            "policy": "reliability",
            "assessor": {"kind": "first_token", **({"calibration": str(calibration.resolve())} if calibration else {})},
        }
        return {**self.config.named(self.agent).model_dump(exclude_unset=True, mode="json"), **trained}

    def facts(self) -> dict[str, Any]:
        """What tells this run from another."""
        ids = "\n".join(f"{question.id} {question.answer}" for question in self.plan.questions)
        plan = self.plan
        return {
            "questions": len(plan.questions),
            "data_sha256": hashlib.sha256(ids.encode()).hexdigest(),
            "samples": plan.samples,
            "size": plan.size,
            "sft": asdict(plan.sft),
            "rl": asdict(plan.rl),
            "seed": plan.seed,
        }


class _Told:
    """Writes progress where the driver reads it, now and then."""

    def __init__(self, path: Path, stage: str) -> None:
        self.path, self.stage, self._last = path, stage, 0.0

    def __call__(self, done: int, total: int) -> None:
        if done == total or time.monotonic() - self._last > POLL_S:
            self._last = time.monotonic()
            new = self.path.with_suffix(".tmp")
            told = {"stage": self.stage, "done": done, "all": total, "pid": os.getpid()}
            new.write_text(json.dumps(told), encoding="utf-8")
            new.replace(self.path)


def train(
    config: MeshConfig,
    agents: Sequence[str],
    plan: Plan,
    out: Path,
    models_dir: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Train these agents of a pool (none: all but the dearest, who has nobody to leave a question to).

    Returns:
        A pool file with all agents that have been trained in ``out``, now or before, in their places.

    Raises:
        ConfigError: an unknown agent, one whose samples leave nothing to learn, or a folder with another run.
        PlacementError: the cluster is too small. MeshError: a stage failed for good.
    """
    dearest = max(config.agents, key=lambda agent: agent.cost)
    chosen = [config.named(name) for name in agents] or [agent for agent in config.agents if agent is not dearest]
    for agent in chosen:
        if agent.adapter is not None:
            raise ConfigError(f"agent {agent.name!r}: adapter {agent.adapter}: training begins from the bare model")
    out, models_dir = out.resolve(), models_folder(models_dir)
    specs = agent_specs(config, models_dir)
    jobs = {name: Job(config, name, plan, out / name, models_dir) for name in specs}
    ensure_cluster()
    waiting: dict[Any, tuple[str, int]] = {}

    def submit(name: str, number: int) -> None:
        jobs[name].out.mkdir(parents=True, exist_ok=True)
        gpus, has = gpus_for(specs[name]), ray.cluster_resources()
        for what, wanted in {"CPU": plan.threads, "GPU": gpus}.items():
            if wanted > has.get(what, 0):
                raise PlacementError(
                    f"training of {name!r} wants {wanted:g} {what}; the cluster has {has.get(what, 0):g}"
                )
        task = ray.remote(max_calls=1)(_stage).options(num_cpus=plan.threads, num_gpus=gpus, max_retries=RETRIES)
        waiting[task.remote(jobs[name], STAGES[number], gpus > 0)] = (name, number)

    for agent in chosen:
        submit(agent.name, 0)
    try:
        while waiting:
            done, _ = ray.wait(list(waiting), timeout=POLL_S)
            for ref in done:
                name, number = waiting.pop(ref)
                _result(ref, name, STAGES[number])
                if number + 1 < len(STAGES):
                    submit(name, number + 1)
            for agent in chosen:
                _tell(jobs[agent.name], progress)
    finally:
        for ref in waiting:
            ray.cancel(ref)
    return _pool(config, {name: job for name, job in jobs.items() if job.done}, out)


def _stage(job: Job, stage: str, on_gpu: bool) -> None:
    if not on_gpu:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Ray leaves them visible to whoever asked for none
    job.run(stage)


def _result(ref: Any, name: str, stage: str) -> None:
    try:
        ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, MeshError):
            raise error.cause from None
        raise MeshError(f"training of {name!r}: stage {stage} failed: {error.cause!r}") from error
    except ray.exceptions.RayError as error:
        raise MeshError(f"training of {name!r}: stage {stage} lost its worker {RETRIES + 1} times: {error}") from None


def _tell(job: Job, progress: Progress | None) -> None:
    path = job.out / "progress.json"
    if progress is not None and path.exists():
        told = json.loads(path.read_text(encoding="utf-8"))
        progress(job.agent, told["stage"], told["done"], told["all"])


def _pool(config: MeshConfig, jobs: dict[str, Job], out: Path) -> Path:
    """Write the pool file of the trained agents."""
    agents = [
        jobs[agent.name].settings(jobs[agent.name].out / "calibration" / f"{agent.name}.json")
        if agent.name in jobs
        else agent.model_dump(exclude_unset=True, mode="json")
        for agent in config.agents
    ]
    trained = {**config.model_dump(exclude_unset=True, mode="json"), "name": f"{config.name}-trained"}
    path = out / "pool.yaml"
    path.write_text(yaml.safe_dump({**trained, "agents": agents}, sort_keys=False), encoding="utf-8")
    return path
