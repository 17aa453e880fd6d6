"""Training agents to know themselves, end to end: every stage of every agent is a Ray task, and since rewards are
local, agents train side by side.

``OUT/AGENT/`` is where an agent's samples, weights and calibration go; it must be a path that all nodes see.
"""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import ray

from agents.errors import ConfigError, MeshError, PlacementError
from mesh.assemble import agent_specs, models_folder
from mesh.config import MeshConfig
from mesh.poolfile import write_pool
from mesh.runtimes.ray import ensure_cluster, gpus_for
from training.jobs import POLL_S, STAGES, Job, Plan, current, mark

CANCEL = "cancel"  # a file of this name in a run's folder ends the run
DRIVER = "driver.json"
SILENT_S = 30.0  # a driver that has not touched its file for so long is gone
RETRIES = 3  # of a task whose worker died
Progress = Callable[[str, str, int, int], None]  # agent, stage, done, all


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

    for agent in sorted(chosen, key=lambda agent: -agent.cost):  # the dearest take longest
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
    trained = {name: job.serving(job.version) for name, job in jobs.items()}
    return write_pool(config, f"{config.name}-trained", trained, out / "pool.yaml")
