"""The benchmarks of self-awareness end to end, on an agent that was trained for seconds: every figure is there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from agents.errors import ConfigError
from benchmarks import ablations, self_awareness
from benchmarks.awareness_figures import figures
from benchmarks.self_awareness import ALPHAS, trained
from mesh.config import load
from training import recipes, scores
from training.jobs import STAGES, Job, Plan
from training.lab_questions import questions
from training.rl import RlRecipe
from training.sft import SftRecipe

pytestmark = [pytest.mark.models, pytest.mark.slow, pytest.mark.filterwarnings("default")]

PLAN = Plan(
    tuple(questions(400, "train", 5)),
    tuple(questions(100, "validation", 5)),
    samples=3,
    size=600,
    sft=SftRecipe(2.0),
    rl=RlRecipe(3),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    job = Job(load("lab-bare"), "nano", PLAN, folder / "nano", None)
    job.out.mkdir()
    for stage in STAGES:
        job.run(stage)
    settings = load("lab-bare").named("nano").model_dump(exclude_unset=True, mode="json") | job.serving(job.version)
    (folder / "pool.yaml").write_text(yaml.safe_dump({"extends": "lab-bare", "name": "one", "agents": [settings]}))
    return folder


def test_an_agent_is_examined(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {"train": 300, "validation": 200}
    for name, value in {"OWN_ROWS": rows, "OUTSIDE": 140, "SAMPLES": 1}.items():
        monkeypatch.setattr(self_awareness, name, value)
    monkeypatch.setattr(recipes, "OWN_ROWS", rows)
    monkeypatch.setattr(scores, "RESAMPLES", 5)
    pool = str(run / "pool.yaml")
    assert trained(load(pool)) == ["nano"]
    with pytest.raises(ConfigError, match="no agent was trained"):
        trained(load("lab-bare"))
    seen = self_awareness._one(pool, "nano", 200, 1, tmp_path)
    assert seen.p.shape == seen.scores["sft"].shape == seen.scores["rl"].shape == (len(ALPHAS), 200)
    assert seen.judges.keys() == {"lookup", "knn", "text", "trees", "likelihood", "p_true", "refusal, untrained"}
    again = self_awareness._one(pool, "nano", 200, 1, tmp_path)  # from what was kept: nothing is asked again
    assert np.array_equal(again.p, seen.p)
    result = figures([seen], questions(200, "test", 1))
    assert set(result["agents"]["nano"]["reward_share"]) == {"sft", "rl"}
    assert result["outside"]["longer_auroc"].keys() == {"nano", "mean"}


def test_variants_are_trained_and_compared(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scores, "RESAMPLES", 5)
    done: list[str] = []
    ablations.train(load("lab-bare"), "nano", PLAN, run, tmp_path, done.append)
    assert done == [*ablations.VARIANTS]
    rows = ablations.measure(load("lab-bare"), "nano", PLAN, questions(200, "test", 1), tmp_path, 1)
    assert [row["variant"] for row in rows] == ["none", *ablations.VARIANTS]
    for row in rows:
        assert 0 <= row["accuracy"] <= 1
        assert row["answer_rate"].keys() == {f"{alpha:g}" for alpha in ALPHAS}
    with pytest.raises(ConfigError, match="has not trained 'micro'"):
        ablations.train(load("lab-bare"), "micro", PLAN, run, tmp_path, done.append)
