"""What a training run writes down without training anything: marks, the plan, the pool file, and how it is ended."""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import replace
from pathlib import Path

import pytest

from agents.errors import ConfigError
from mesh.config import load
from training.driver import CANCEL, DRIVER, _pool, cancel, status, train
from training.jobs import STAGES, Job, Plan
from training.lab_questions import questions
from training.rl import RlRecipe


def job(out: Path, agent: str = "nano", seed: int = 0) -> Job:
    plan = Plan(tuple(questions(20, "train", seed)), tuple(questions(10, "validation", seed)), seed=seed)
    return Job(load("lab"), agent, plan, out / agent, None)


def marked(one: Job) -> Job:
    one.out.mkdir(parents=True)
    for stage in STAGES:
        (one.out / f"{stage}.done").touch()
    return one


def published(one: Job) -> Path:
    """A version such as the last stage leaves it, but without weights."""
    version = one.out / "versions" / "0123456789ab"
    version.mkdir(parents=True)
    (one.out / "current").write_text("0123456789ab\n")
    document = json.loads(Path(load("lab").agents[1].assessor.options["calibration"]).read_text())
    (version / "calibration.json").write_text(json.dumps(document))
    (version / "report.json").write_text(json.dumps({"calibration": document["meta"]}))
    return version


def test_a_stage_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    one = marked(job(tmp_path))
    assert one.done
    for stage in STAGES:
        one.run(stage)
    assert sorted(path.name for path in one.out.iterdir()) == sorted([*(f"{s}.done" for s in STAGES), "plan.json"])


def test_a_folder_holds_one_run(tmp_path: Path) -> None:
    marked(job(tmp_path)).run("sample")
    with pytest.raises(ConfigError, match=r"holds a run whose data_sha256 is .*choose another folder"):
        job(tmp_path, seed=1).run("sample")


@pytest.mark.parametrize(("given", "taken", "forced"), [(None, 24, 0.8), (24, 24, 0.8), (8, 8, 1.0)])
def test_the_report_has_the_recipe_that_was_taken(tmp_path: Path, given: int | None, taken: int, forced: float) -> None:
    """The lab writes 24 tokens; of 8 nobody can tell whether the answer would be right."""
    one = job(tmp_path)
    one = replace(one, plan=replace(one.plan, rl=RlRecipe(max_tokens=given)))
    facts = one.facts()["rl"]
    assert (facts["max_tokens"], facts["forced"]) == (taken, forced)
    assert replace(one, plan=replace(one.plan, rl=None)).facts()["rl"] is None


def test_the_pool_file_has_the_trained_agents_in_their_places(tmp_path: Path) -> None:
    one = job(tmp_path, "micro")
    version = published(one)
    pool = load(str(_pool(load("lab"), {"micro": one}, tmp_path)))
    assert [agent.name for agent in pool.agents] == ["nano", "micro", "mini", "base", "large"]
    micro = pool.named("micro")
    assert (micro.adapter, micro.prompt, micro.assessor.kind) == (version, "level", "first_token")
    assert micro.model == load("lab").named("micro").model
    assert micro.assessor.options["calibration"] == version / "calibration.json"
    assert (pool.name, pool.understands) == ("lab-trained", load("lab").understands)


def test_status_tells_how_far_each_agent_is(tmp_path: Path) -> None:
    marked(job(tmp_path)).run("sample")
    published(job(tmp_path))
    begun = job(tmp_path, "micro")
    begun.out.mkdir()
    (begun.out / "plan.json").write_text("{}")
    (begun.out / "progress.json").write_text(json.dumps({"stage": "sft", "done": 3, "all": 9, "pid": 7}))
    (tmp_path / DRIVER).touch()
    micro, nano = status(tmp_path)
    assert (micro["agent"], micro["state"], micro["stage"], micro["done"], micro["of"]) == (
        "micro",
        "running",
        "sft",
        3,
        9,
    )
    assert (nano["agent"], nano["state"], nano["version"]) == ("nano", "done", "0123456789ab")
    os.utime(tmp_path / DRIVER, (time.time() - 100, time.time() - 100))  # a driver that has said nothing for long
    assert status(tmp_path)[0]["state"] == "stopped"
    with pytest.raises(ConfigError, match="holds no run"):
        status(tmp_path / "nano")


def test_only_what_runs_can_be_cancelled(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nothing runs in"):
        cancel(tmp_path)
    (tmp_path / DRIVER).touch()
    cancel(tmp_path)
    assert (tmp_path / CANCEL).exists()


def test_a_version_is_published_once_wherever_it_broke_off(tmp_path: Path) -> None:
    one = job(tmp_path)
    one.candidate.mkdir(parents=True)
    (one.candidate / "model.safetensors").write_bytes(b"weights")
    one._publish(lambda *_: None)  # type: ignore[arg-type]
    assert [path.name for path in one.version.iterdir()] == ["model.safetensors"]
    assert one.version.name == hashlib.sha256(b"weights").hexdigest()[:12]
    before = one.version
    one._publish(lambda *_: None)  # type: ignore[arg-type]  # the mark was not written
    assert one.version == before
    assert not one.candidate.exists()


def test_two_commands_do_not_train_in_one_folder(tmp_path: Path) -> None:
    (tmp_path / DRIVER).touch()
    with pytest.raises(ConfigError, match="another command trains in"):
        train(load("lab"), ["nano"], job(tmp_path).plan, tmp_path)
