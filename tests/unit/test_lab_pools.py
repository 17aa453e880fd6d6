"""The lab pools as settings: what they hold, what they extend, and what they cannot read."""

from __future__ import annotations

from pathlib import Path

import pytest

from agents.errors import ConfigError, NotUnderstood
from mesh import Mesh
from mesh.assemble import agent_specs
from mesh.config import load
from training.lab import RECIPES

LADDER = {"nano": 0.1, "micro": 0.2, "mini": 0.4, "base": 0.7, "large": 0.9}
EIGHT = {**LADDER, "numbers": 0.15, "lists": 0.15, "strings": 0.15}


@pytest.mark.parametrize(
    ("name", "topology", "costs"),
    [
        ("lab", "cascade", LADDER),
        ("lab-mesh", "mesh", EIGHT),
        ("lab-bare", "mesh", EIGHT),
        ("lab-tree", "tree", EIGHT),
        ("lab-cascade8", "cascade", EIGHT),
        ("lab-reservation", "mesh", EIGHT),
    ],
)
def test_lab_pools(name: str, topology: str, costs: dict[str, float]) -> None:
    pool = load(name)
    assert (pool.name, pool.topology.kind, pool.runtime) == (name, topology, "local")
    assert {agent.name: agent.cost for agent in pool.agents} == costs
    trained = set(costs) - {"large"} if name != "lab-bare" else set()
    for agent in pool.agents:
        knows = ("first_token", "level") if agent.name in trained else ("likelihood", "plain")
        policy = "reservation" if name == "lab-reservation" else "reliability"
        assert (agent.policy.kind, agent.assessor.kind, agent.prompt) == (policy, *knows)
        assert (agent.profile is not None) is (name == "lab-reservation")
        assert (agent.adapter is not None) is (agent.name in trained)
    for spec in agent_specs(pool).values():  # calibrated, and with the work that its answers take
        assert spec.assessor[1]["calibration"]["meta"]["mean_work"] == spec.card.mean_work
        assert Path(spec.setup.model, "model.safetensors").is_file()


def test_weights_are_small() -> None:
    bare = Path(load("lab").agents[0].model).parent
    assert {path.name for path in bare.iterdir()} == set(RECIPES)
    assert {path.name for path in (bare.parent / "aware").iterdir()} == set(RECIPES) - {"large"}
    files = [path for folder in (bare, bare.parent / "aware") for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 20e6


@pytest.mark.parametrize(
    "query", ["37+58=", "37 + 58", "SORT 31", "37+\t58=\n", "count 7 in 3774", "reverse mesh =", "5 % 3"]
)
def test_what_the_lab_understands(query: str) -> None:
    load("lab").check_understood(query)


@pytest.mark.parametrize(
    "query", ["What is the capital of France?", "hello", "1+2+3=", "2*x", "sort", "37+58=95", "３7+58="]
)
def test_what_it_does_not(query: str) -> None:
    mesh = Mesh.from_yaml("lab")
    with pytest.raises(NotUnderstood, match=r"the pool 'lab' can read; it understands 37\+58=.*in English: .*small"):
        mesh.ask(query, 0.5)
    assert mesh._background is None  # nothing was started for it


def test_a_pool_may_extend_another(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: scripted\nname: mine\ntopology: mesh\nlimits: {running: 2}\n")
    (tmp_path / "ours.yaml").write_text("extends: mine.yaml\nname: ours\nlimits: {waiting: 3}\n")
    mine, theirs = load(tmp_path / "mine.yaml"), load("scripted")
    assert (mine.name, mine.topology.kind, mine.extends) == ("mine", "mesh", None)
    assert mine.agents == theirs.agents
    ours = load(tmp_path / "ours.yaml")
    assert (ours.topology.kind, ours.limits.running, ours.limits.waiting) == ("mesh", 2, 3)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: w\nextends: scripted\nalpha: 3\n", r"w.yaml:3:8: alpha is 3: should be a number in \[0, 1\]"),
        ("name: w\nextends: nowhere\n", r"w.yaml:2:10: extends is 'nowhere': unknown pool 'nowhere': use one of"),
        ("name: w\nextends: no.yaml\n", r"w.yaml:2:10: extends is 'no.yaml': .*no.yaml: cannot be read"),
        ("name: w\nextends: [lab]\n", r"w.yaml:2:1: extends is \['lab'\]: should be a ready pool's name"),
        ("name: w\nextends: w.yaml\n", r"extends is 'w.yaml': .*it extends itself: .*w.yaml"),
        ("name: w\nextends: lab\ndefaults: {policy: always}\n", r"extends is 'lab': .* give `agents` too"),
        ("name: w\nextend: lab\n", r"did you mean 'extends'\?"),
    ],
)
def test_what_cannot_be_extended(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "w.yaml").write_text(text)
    with pytest.raises(ConfigError, match=told):
        load(tmp_path / "w.yaml")


def test_a_pattern_must_be_one() -> None:
    with pytest.raises(ConfigError, match=r"understands\.pattern.*regular expression"):
        load({"extends": "scripted", "understands": {"pattern": "("}})


def test_a_model_may_be_a_folder(tmp_path: Path) -> None:
    agent = {"name": "a", "cost": 0.5, "engine": "transformers", "num_gpus": 0}
    (tmp_path / "pool.yaml").write_text(
        "name: p\nagents: [{name: a, cost: 0.5, engine: transformers, model: ./here}, "
        "{name: b, cost: 0.6, engine: transformers, model: org/hub-id}]\n"
    )
    first, second = load(tmp_path / "pool.yaml").agents
    assert (first.model, second.model) == (str(tmp_path / "here"), "org/hub-id")
    nothing = Mesh.from_yaml({"name": "p", "runtime": "local", "agents": [{**agent, "model": str(tmp_path / "no")}]})
    with pytest.raises(ConfigError, match="no folder with a config"):
        nothing.start()
