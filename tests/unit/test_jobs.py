"""What a training run writes down without training anything: marks, the plan, and the pool file."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.errors import ConfigError
from mesh.config import load
from training.jobs import STAGES, Job, Plan, _pool
from training.lab_questions import questions


def job(out: Path, agent: str = "nano", seed: int = 0) -> Job:
    plan = Plan(tuple(questions(20, "train", seed)), tuple(questions(10, "validation", seed)), seed=seed)
    return Job(load("lab"), agent, plan, out / agent, None)


def marked(one: Job) -> Job:
    one.out.mkdir(parents=True)
    for stage in STAGES:
        (one.out / f"{stage}.done").touch()
    return one


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


def test_the_pool_file_has_the_trained_agents_in_their_places(tmp_path: Path) -> None:
    path = _pool(load("lab"), {"micro": job(tmp_path, "micro")}, tmp_path)
    (tmp_path / "micro" / "calibration").mkdir(parents=True)
    calibration = (load("lab").agents[1].assessor.options["calibration"]).read_text()
    (tmp_path / "micro" / "calibration" / "micro.json").write_text(calibration)
    (tmp_path / "micro" / "rl" / "final").mkdir(parents=True)
    pool = load(str(path))
    assert [agent.name for agent in pool.agents] == ["nano", "micro", "mini", "base", "large"]
    assert [agent.prompt for agent in pool.agents] == ["plain", "level", "plain", "plain", "plain"]
    assert pool.agents[1].model == str(tmp_path / "micro" / "rl" / "final")
    assert pool.agents[1].assessor.kind == "first_token"
    assert (pool.name, pool.understands) == ("lab-trained", load("lab").understands)
