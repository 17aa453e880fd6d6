"""Training agents to know themselves, end to end: every stage of every agent is a Ray task, and since rewards are
local, agents train side by side.

``OUT/AGENT/`` is where an agent's samples, weights and calibration go; it must be a path that all nodes see. A stage
whose task has ended left a mark there and is not run again; one that broke off goes on at its last checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
import yaml

from agents.errors import ConfigError, MeshError, PlacementError
from agents.plugins import build
from agents.prompts import Style
from mesh.assemble import agent_specs, models_folder
from mesh.config import MeshConfig, alone, with_overrides
from mesh.questions import Question
from mesh.runtimes.ray import ensure_cluster, gpus_for
from training.calibrate import calibrate
from training.examine import forced
from training.label import SIZE, choices, lessons
from training.rewards import REWARDS
from training.rl import RlRecipe, rl
from training.sample import SAMPLES, Experience, experience, once, sample
from training.sft import SftRecipe, bare_model, sft, style_of
from training.trainer import as_kept, digest, same_run

STAGES = ("sample", "sft", "rl", "calibrate", "publish")
CANCEL = "cancel"  # a file of this name in a run's folder ends the run
DRIVER = "driver.json"
SILENT_S = 30.0  # a driver that has not touched its file for so long is gone
RETRIES = 3  # of a task whose worker died
POLL_S = 0.5
Progress = Callable[[str, str, int, int], None]  # agent, stage, done, all


@dataclass(frozen=True, slots=True)
class Plan:
    """How agents are trained: ``questions`` to sample, ``validation`` for their calibration. ``others`` they are asked
    once: they rehearse what they can answer of them, and are rewarded on them too.

    A recipe that is None leaves its stage out. ``alphas`` are the preferences in lessons (None: any), ``style`` is how
    they are told (None: as the pool's models can read it), ``reasons`` makes refusals say what is hard.
    """

    questions: tuple[Question, ...]
    validation: tuple[Question, ...]
    _: KW_ONLY
    others: tuple[Question, ...] = ()
    samples: int = SAMPLES
    size: int = SIZE
    sft: SftRecipe | None = field(default_factory=SftRecipe)
    rl: RlRecipe | None = field(default_factory=RlRecipe)
    reward: str = "localized"
    alphas: tuple[float, ...] | None = None
    style: Style | None = None
    reasons: bool = False
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
        return mark(self.out, STAGES[-1]).exists()

    def run(self, stage: str) -> None:
        """Do one stage, unless it is done."""
        same_run(self.out / "plan.json", self.facts())
        done = mark(self.out, stage)
        if not done.exists():
            began = time.monotonic()
            getattr(self, f"_{stage}")(_Told(self.out / "progress.json", stage))
            done.write_text(f"{time.monotonic() - began:.0f}\n", encoding="utf-8")

    def _sample(self, told: _Told) -> None:
        plan = self.plan
        config = with_overrides(self.config, runtime="local")
        sample(
            config, self.agent, plan.questions, self.out / "samples", self.models_dir, plan.samples, seed=plan.seed,
            progress=told, others=plan.others,
        )  # fmt: skip

    def _sft(self, told: _Told) -> None:
        plan = self.plan
        if plan.sft is None:
            return
        taught = lessons(
            self._experience(), plan.size, plan.alphas, plan.sft.rehearsal, plan.seed,
            self.style if plan.reasons else None, once(self.out / "samples", plan.others),
        )  # fmt: skip
        sft(self._bare(), taught, self.out / "sft", plan.sft, progress=told, **self._how())

    def _rl(self, told: _Told) -> None:
        plan = self.plan
        if plan.rl is None:
            return
        recipe = replace(plan.rl, max_tokens=plan.rl.max_tokens or self.config.max_tokens)
        begun = self._bare() if plan.sft is None else self.out / "sft" / "final"
        met = choices(self._met(told), recipe.steps * recipe.prompts, plan.alphas, recipe.rehearsal, plan.seed)
        reward = build(REWARDS, plan.reward, "reward")
        rl(begun, met, self.out / "rl", recipe, reward=reward, progress=told, **self._how())

    def _met(self, told: _Told) -> list[Experience]:
        """Its questions, and whether it is right now where it must answer: before stage one that was not quite so."""
        plan, local = self.plan, with_overrides(self.config, runtime="local")
        asked = [*self._experience(), *once(self.out / "samples", plan.others)]
        if plan.sft is None:
            return asked
        kept = self.out / "begun"
        shutil.rmtree(kept, ignore_errors=True)
        as_kept(self.out / "sft" / "final", kept, self._bare(), self.model_name)
        agent = alone(local, local.named(self.agent), **self.serving(kept)).agents[0]
        replies = self.out / "truth" / digest(kept)[:12]
        right = forced(local, agent, [one.question for one in asked], replies, self.models_dir, told)
        return [replace(one, forced=right[one.question.id]) for one in asked if one.question.id in right]

    def _experience(self) -> list[Experience]:
        return experience(self.out / "samples", self.plan.questions)

    def _how(self) -> dict[str, Any]:
        return {"style": self.style, "seed": self.plan.seed, "threads": self.plan.threads}

    def _bare(self) -> Path:
        return bare_model(self.config, self.agent, self.models_dir)

    def _calibrate(self, told: _Told) -> None:
        """Examine what is about to be published."""
        stages = [name for name in ("sft", "rl") if getattr(self.plan, name) is not None]
        shutil.rmtree(self.candidate, ignore_errors=True)
        for stage, place in zip(reversed(stages), (self.candidate, self.candidate / "sft"), strict=False):
            as_kept(self.out / stage / "final", place, self._bare(), self.model_name)
        local = with_overrides(self.config, runtime="local")
        config = alone(local, local.named(self.agent), **self.serving(self.candidate))
        replies = self.out / "calibration" / digest(self.candidate)[:12]  # those of other weights are none of these
        (result,) = calibrate(
            config, self.plan.validation, replies, self.models_dir,
            progress=lambda _, done, total: told(done, total),
        )  # fmt: skip
        shutil.copy(result.path, self.candidate / "calibration.json")
        packages = {name: version(name) for name in ("torch", "transformers", "trl", "peft")}
        serving = {"assessor": "first_token", "prompt": self.style}
        model = {"model": self.model_name, "weights_sha256": digest(self.candidate)}
        seconds = {stage: int(mark(self.out, stage).read_text(encoding="utf-8")) for stage in ("sample", *stages)}
        facts = {**self.facts(), "seconds": seconds, "packages": packages}
        report = {"agent": self.agent, **model, **facts, "calibration": result.meta}
        for name, content in {"agent": serving, "report": report}.items():
            (self.candidate / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def _publish(self, told: _Told) -> None:
        """Give it a place of its own that never changes: a version is named by its weights."""
        if self.candidate.exists():  # else it broke off after the move
            (self.out / "current").write_text(digest(self.candidate)[:12] + "\n", encoding="utf-8")
            self.version.parent.mkdir(exist_ok=True)
            if not self.version.exists():
                self.candidate.rename(self.version)
        told(1, 1)

    @property
    def style(self) -> Style:
        """How it is told alpha."""
        return self.plan.style or style_of(self.config)

    @property
    def model_name(self) -> str:
        """Its bare model's name on the hub, or the last folders of its place here."""
        model = self.config.named(self.agent).model
        return "/".join(Path(model).parts[-2:]) if Path(model).is_absolute() else model

    @property
    def candidate(self) -> Path:
        """What is examined, and then published; ``sft`` in it is what stage one alone had taught."""
        return self.out / "candidate"

    @property
    def version(self) -> Path:
        """The folder of what was published last: its weights, ``calibration.json``, ``report.json``."""
        return current(self.out)

    def serving(self, version: Path) -> dict[str, Any]:
        """The settings with which its agent serves a version."""
        calibration = version / "calibration.json"
        told = {"calibration": str(calibration.resolve())} if calibration.exists() else {}
        return {
            "adapter": str(version.resolve()),
            "prompt": self.style,
            "policy": "reliability",
            "assessor": {"kind": "first_token", **told},
        }

    def facts(self) -> dict[str, Any]:
        """What tells this run from another."""
        ids = "\n".join(f"{question.id} {question.answer}" for question in self.plan.questions)
        plan = self.plan
        return {
            "questions": len(plan.questions),
            "others": len(plan.others),
            "data_sha256": hashlib.sha256(ids.encode()).hexdigest(),
            "samples": plan.samples,
            "size": plan.size,
            "sft": plan.sft and asdict(plan.sft),
            "rl": plan.rl and asdict(plan.rl),
            "reward": plan.reward,
            "alphas": plan.alphas or "any",
            "style": self.style,
            "reasons": plan.reasons,
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
        ConfigError: an unknown agent, one whose samples leave nothing to learn, a folder with another run, or one in
            which somebody trains just now.
        PlacementError: the cluster is too small. MeshError: a stage failed for good, or the run was cancelled.
    """
    dearest = max(config.agents, key=lambda agent: agent.cost)
    chosen = [config.named(name) for name in agents] or [agent for agent in config.agents if agent is not dearest]
    out, models_dir = out.resolve(), models_folder(models_dir)
    if runs(out):
        raise ConfigError(
            f"out: another command trains in {out} (or did, until less than {SILENT_S:g} s ago): "
            f"`mesh train cancel --out {out}` ends it"
        )
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
            _heard(out)
    finally:
        for ref in waiting:
            ray.cancel(ref, force=True)
        (out / DRIVER).unlink(missing_ok=True)
    return _pool(config, {name: job for name, job in jobs.items() if job.done}, out)


def _heard(out: Path) -> None:
    """Show that the driver lives, and end the run where that is asked for."""
    if (out / CANCEL).exists():
        (out / CANCEL).unlink()
        raise MeshError(f"{out}: cancelled; the same command goes on where it stopped")
    (out / DRIVER).write_text(json.dumps({"pid": os.getpid(), "host": platform.node()}) + "\n", encoding="utf-8")


def cancel(out: Path) -> None:
    """Have a run end, wherever its driver is; its tasks are ended with it.

    Raises:
        ConfigError: nothing runs there.
    """
    if not runs(out):
        raise ConfigError(f"out: nothing runs in {out}")
    (out / CANCEL).touch()


def runs(out: Path) -> bool:
    """Whether a driver is at work there."""
    driver = out / DRIVER
    return driver.exists() and time.time() - driver.stat().st_mtime < SILENT_S


def status(out: Path) -> list[dict[str, Any]]:
    """One row an agent that a run has begun to train: the stage it is in, steps done of all, and its figures.

    Raises:
        ConfigError: no run has begun there.
    """
    begun = sorted(path.parent for path in out.glob("*/plan.json"))
    if not begun:
        raise ConfigError(f"out: {out} holds no run; `mesh train self-awareness --out {out}` begins one")
    return [_row(folder, runs(out)) for folder in begun]


def published(out: Path) -> list[dict[str, Any]]:
    """The reports of what a run has published, by agent."""
    return [_report(folder) for folder in sorted(out.iterdir()) if mark(folder, STAGES[-1]).exists()]


def mark(folder: Path, stage: str) -> Path:
    """The file that says that a stage of an agent's training is done, and how many seconds it took (since it was last
    begun).
    """
    return folder / f"{stage}.done"


def current(folder: Path) -> Path:
    """The version that an agent's training has published last."""
    return folder / "versions" / (folder / "current").read_text(encoding="utf-8").strip()


def _report(folder: Path) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((current(folder) / "report.json").read_text(encoding="utf-8"))
    return report


def _row(folder: Path, running: bool) -> dict[str, Any]:
    told = folder / "progress.json"
    seen = json.loads(told.read_text(encoding="utf-8")) if told.exists() else {"stage": "", "done": 0, "all": 0}
    row = {"agent": folder.name, "state": "running" if running else "stopped"}
    row |= {
        "stage": seen["stage"],
        "done": seen["done"],
        "of": seen["all"],
        "pid": seen.get("pid") if running else None,
    }
    if mark(folder, STAGES[-1]).exists():
        meta = _report(folder)["calibration"]
        row |= {"state": "done", "pid": None, "version": current(folder).name}
        row |= {"AUROC": meta["auroc"], "ECE": meta["ece"]}
    return row


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
        agent.model_dump(exclude_unset=True, mode="json")
        | (jobs[agent.name].serving(jobs[agent.name].version) if agent.name in jobs else {})
        for agent in config.agents
    ]
    trained = {**config.model_dump(exclude_unset=True, mode="json"), "name": f"{config.name}-trained"}
    path = out / "pool.yaml"
    path.write_text(yaml.safe_dump({**trained, "agents": agents}, sort_keys=False), encoding="utf-8")
    return path
