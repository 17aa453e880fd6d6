"""Publishing a trained version of an agent in a mesh at work: nobody's query is lost, and there is a way back."""

from __future__ import annotations

import json
import shutil
import threading
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from agents.errors import AdapterError, ConfigError
from mesh import Mesh, Reply
from mesh.config import load
from training.lab_questions import questions

pytestmark = [pytest.mark.models, pytest.mark.filterwarnings("default")]

NANO = Path(load("lab").agents[0].model)
HALF = {"kind": "platt", "alphas": [0.0], "maps": [{"a": 0.0, "b": 0.0}], "meta": {}}  # p is always .5


def version(folder: Path, scale: float, calibrated: bool = True) -> Path:
    """All weights of nano, some of them changed; and what training puts beside them."""
    shutil.copytree(NANO, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"] * scale
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    if calibrated:
        (folder / "calibration.json").write_text(json.dumps(HALF))
        (folder / "agent.json").write_text(json.dumps({"assessor": "first_token", "prompt": "level"}))
    return folder


def pool(**changes: object) -> Mesh:
    one, other = ({**agent.model_dump(exclude_unset=True), "adapter": None} for agent in load("lab").agents[:2])
    plain = {"policy": "always", "assessor": "refusal", "prompt": "plain"}
    return Mesh.from_yaml(
        {"extends": "lab", "name": "two", "agents": [{**one, **plain}, {**other, **plain}], **changes},
        runtime="local",
    )


def test_weights_and_calibration_change_together_and_back(tmp_path: Path) -> None:
    with pool() as mesh:
        bare = mesh.ask("37+58=", 0.5, entry="nano")
        mesh.update_agent("nano", version(tmp_path / "turned", -1.0))
        assert mesh.status()[0]["adapter"] == str(tmp_path / "turned")
        turned = mesh.ask("37+58=", 0.5, entry="nano")
        assert turned.text != bare.text
        mesh.rollback_agent("nano")
        assert mesh.ask("37+58=", 0.5, entry="nano").text == bare.text
        assert mesh.status()[0]["adapter"] == ""
        with pytest.raises(ConfigError, match="agent 'nano' has no earlier version to go back to"):
            mesh.rollback_agent("nano")


def test_its_calibration_counts_from_then_on(tmp_path: Path) -> None:
    with pool() as mesh:
        nano = load("lab").agents[0].model_dump(exclude_unset=True)
        mesh.remove_agent("nano")
        mesh.add_agent({**nano, "adapter": None, "policy": "reliability", "assessor": "first_token", "prompt": "level"})
        before = mesh.ask("37+58=", 0.5, entry="nano").path[0].confidence
        mesh.update_agent("nano", version(tmp_path / "half", 1.0))
        assert mesh.ask("37+58=", 0.5, entry="nano").path[0].confidence == 0.5 != before


def test_what_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    micro = Path(load("lab").agents[1].model)
    with pool() as mesh:
        bare = mesh.ask("37+58=", 0.5, entry="nano").text
        with pytest.raises(AdapterError, match=r"its weights .* are .*, those of the model .* are"):
            mesh.update_agent("nano", micro)
        broken = version(tmp_path / "broken", 1.0)
        (broken / "agent.json").write_text("[]")
        with pytest.raises(ConfigError, match=r"agent.json: .*must be an object with 'assessor' and 'prompt'"):
            mesh.update_agent("nano", broken)
        assert mesh.ask("37+58=", 0.5, entry="nano").text == bare


def test_no_query_is_lost_while_versions_change(tmp_path: Path) -> None:
    """One thread asks without a pause, another publishes and takes back; each query is answered, by one version or the
    other, and none by a mixture: the answers are those that either version gives.
    """
    asked = [question.text for question in questions(60, "validation", 8)]
    turned = version(tmp_path / "turned", -1.0)
    with pool() as mesh:
        ways = [mesh.ask_many(asked, 0.5, entry="nano")]
        mesh.update_agent("nano", turned)
        ways.append(mesh.ask_many(asked, 0.5, entry="nano"))
        mesh.rollback_agent("nano")
        known = [{way[place].text for way in ways if isinstance(way[place], Reply)} for place in range(60)]
        stop = threading.Event()

        def publish() -> None:
            while not stop.is_set():
                mesh.update_agent("nano", turned)
                mesh.rollback_agent("nano")
                time.sleep(0.001)

        thread = threading.Thread(target=publish)
        thread.start()
        try:
            for _ in range(5):
                replies = mesh.ask_many(asked, 0.5, entry="nano")
                for place, reply in enumerate(replies):
                    assert isinstance(reply, Reply)
                    assert reply.text in known[place]
        finally:
            stop.set()
            thread.join()
