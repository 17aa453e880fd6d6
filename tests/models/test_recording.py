"""``mesh record`` on a tiny real model: rows as anyone can read them, and what goes wrong is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from agents.calibration import Calibration
from agents.errors import ConfigError
from benchmarks.recording import Recording, app, looks_first
from benchmarks.rows import read
from mesh.config import alone, load
from training.lab_questions import questions

pytestmark = [pytest.mark.models, pytest.mark.filterwarnings("default")]


@pytest.fixture
def nano(tmp_path: Path) -> Path:
    settings = load("lab").named("nano").model_dump(exclude_unset=True, mode="json")
    path = tmp_path / "nano.yaml"
    path.write_text(yaml.safe_dump({"extends": "lab", "name": "one", "agents": [settings]}))
    return path


def test_a_recording_is_rows_and_goes_on_where_it_stopped(nano: Path, tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    told = ["--pool", str(nano), "--out", str(out), "--count", "12", "--alpha", "0.2", "--alpha", "0.8"]
    done = CliRunner().invoke(app, told, catch_exceptions=False)
    assert "12 questions, 1 agents" in done.output
    found = read(out)
    assert [question.text for question in found.questions] == [q.text for q in questions(12, "test", 0)]
    assert found.agents == ("nano",)
    assert sorted(found.beliefs) == [0.2, 0.8]
    assert found.looks is not None
    assert (found.looks < found.work).all()  # a look has no tokens to write
    assert set(found.right.ravel()) == {0.0, 1.0}
    kept = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "rows.jsonl.parts").iterdir()}
    first = out.read_text()
    CliRunner().invoke(app, told, catch_exceptions=False)
    assert kept == {path.name: path.stat().st_mtime_ns for path in (tmp_path / "rows.jsonl.parts").iterdir()}
    assert out.read_text() == first


def test_what_was_not_recorded_is_told(nano: Path, tmp_path: Path) -> None:
    asked = questions(4, "test", 0)
    with pytest.raises(ConfigError, match=r"there is no .*nano.drafts.jsonl; `mesh record` makes it"):
        Recording(load(nano), asked, tmp_path).outcomes()
    Recording(load(nano), asked[:3], tmp_path, (0.2,), p_true=False).record()
    with pytest.raises(ConfigError, match=f"no reply to {asked[3].id!r} at alpha 0.5"):
        Recording(load(nano), asked, tmp_path, (0.2,), p_true=False).outcomes()
    told = Recording(load(nano), asked[:3], tmp_path, (0.2, 0.8), p_true=False).outcomes().beliefs
    assert told[0.2].tolist() == told[0.8].tolist()  # it is asked how sure it is at one preference, for all


def test_an_agent_that_is_told_each_preference_is_asked_at_each(nano: Path, tmp_path: Path) -> None:
    config, asked = load(nano), questions(4, "test", 0)
    (agent,) = config.agents
    document = Calibration.load(agent.assessor.options["calibration"]).to_json()
    assert document.pop("told") in document["alphas"]
    other = tmp_path / "other.json"
    other.write_text(json.dumps(document))
    judging = {"kind": "first_token", "calibration": str(other)}
    config = alone(config, agent, assessor=judging)
    Recording(config, asked, tmp_path / "told", (0.2,), p_true=False).record()
    with pytest.raises(ConfigError, match=r"no reply to .* at alpha 0.8"):
        Recording(config, asked, tmp_path / "told", (0.8,), p_true=False).outcomes()
    config = alone(config, agent, assessor=judging, prompt="plain")  # which tells it none
    Recording(config, asked, tmp_path / "plain", (0.2, 0.8), p_true=False).record()
    looks = (tmp_path / "plain" / f"{agent.name}.looks.jsonl").read_text().splitlines()
    assert [json.loads(line)["alpha"] for line in looks] == [0.5] * 4
    assert sorted(Recording(config, asked, tmp_path / "plain", (0.2, 0.8), p_true=False).outcomes().beliefs) == [
        0.2,
        0.8,
    ]


def test_an_agent_that_judges_otherwise_cannot_be_recorded() -> None:
    assert looks_first(load("lab").named("nano"))
    assert not looks_first(load("lab-bare").named("nano"))
    with pytest.raises(ConfigError, match=r"'smollm2-135m': judges itself by 'refusal' with prompt 'scenario'"):
        looks_first(load("smollm2").named("smollm2-135m"))


def test_an_answer_too_long_to_be_judged_is_no_failure(nano: Path, tmp_path: Path) -> None:
    """It is as if the agent had none of P(true); whatever else fails is told."""
    config, asked = load(nano), questions(4, "test", 0)
    Recording(config, asked, tmp_path, ()).record()
    path = tmp_path / f"{config.agents[0].name}.p_true.jsonl"
    first, *others = path.read_text().splitlines()
    failed = {key: json.loads(first)[key] for key in ("question", "id", "task", "alpha")}
    path.write_text("\n".join([json.dumps({**failed, "error": "QueryTooLong", "why": ""}), *others, ""]))
    told = Recording(config, asked, tmp_path, ()).outcomes().signals["p_true"]
    assert np.isnan(told[0][[question.id for question in asked].index(failed["question"])])
    path.write_text("\n".join([json.dumps({**failed, "error": "DeadlineExceeded", "why": ""}), *others, ""]))
    with pytest.raises(ConfigError, match="no reply to"):
        Recording(config, asked, tmp_path, ()).outcomes()
