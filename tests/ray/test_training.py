"""The whole training of an agent as Ray tasks: it comes to know itself, and a worker that is killed costs little."""

from __future__ import annotations

import json
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import mesh
from agents.errors import ConfigError
from mesh.config import load
from training.driver import train
from training.grading import is_right
from training.jobs import STAGES, Plan
from training.lab_questions import questions
from training.rl import RlRecipe
from training.scores import auroc
from training.sft import SftRecipe

pytestmark = [pytest.mark.ray, pytest.mark.models, pytest.mark.filterwarnings("default")]


def plan(rows: int) -> Plan:
    learnt, fitted, others = (
        questions(rows, "train", 5),
        questions(rows // 2, "validation", 5),
        questions(rows, "train", 9),
    )
    recipes = {"sft": SftRecipe(epochs=2.0), "rl": RlRecipe(steps=20)}
    return Plan(tuple(learnt), tuple(fitted), others=tuple(others), samples=4, size=2 * rows, **recipes)


def told(out: Path) -> dict[str, Any]:
    path = out / "nano" / "progress.json"
    return json.loads(path.read_text()) if path.exists() else {"stage": ""}


def test_an_agent_comes_to_know_itself_although_its_worker_is_killed(tmp_path: Path) -> None:
    """AUROC of a p that is known before any token is drafted. The bare model's own chance to say the refusal sentence,
    which it never learnt, is the same for all questions but for noise: about .5, with a standard error of .025.
    """
    seen: set[str] = set()

    def watch(name: str, stage: str, done: int, total: int) -> None:
        seen.add(f"{name} {stage}")

    with ThreadPoolExecutor(1) as threads:
        training = threads.submit(train, load("lab"), ["nano"], plan(1000), tmp_path, None, watch)
        until = time.monotonic() + 240
        while not (told(tmp_path)["stage"] == "sft" and told(tmp_path)["done"] > 20):
            assert time.monotonic() < until
            time.sleep(0.02)
        victim = told(tmp_path)["pid"]
        os.kill(victim, signal.SIGKILL)
        pool = training.result(timeout=240)
    assert {f"nano {stage}" for stage in STAGES} >= seen > {"nano rl"}
    assert told(tmp_path)["pid"] != victim
    rows = questions(560, "validation", 6)
    with mesh.Mesh.from_yaml(str(pool)) as taught:
        asked = taught.ask_many([row.text for row in rows], 0.5, entry="nano")
        forced = taught.ask_many([row.text for row in rows], 0.5, entry="nano", max_hops=0)
    sure = [reply.path[0].confidence for reply in asked if isinstance(reply, mesh.Reply)]
    right = [is_right(reply, row) for reply, row in zip(forced, rows, strict=True)]
    assert auroc([p for p in sure if p is not None], right) > 0.75
    before = (tmp_path / "nano" / "rl" / "final" / "model.safetensors").stat().st_mtime_ns
    assert train(load("lab"), ["nano"], plan(1000), tmp_path) == pool  # all is done: nothing is done again
    assert (tmp_path / "nano" / "rl" / "final" / "model.safetensors").stat().st_mtime_ns == before


def test_an_unknown_agent_is_told_before_anything_is_trained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown agent 'nino'; there are nano, micro"):
        train(load("lab"), ["nino"], plan(20), tmp_path)
    assert not list(tmp_path.iterdir())
