"""The ready pools: each loads, names what it promises, and stands with scripted engines in place of its own."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

import pytest

from agents.calibration import Calibration
from agents.errors import ConfigError
from agents.spec import AgentSpec
from mesh.assemble import agent_specs
from mesh.config import load, pools

MODELS = {
    "small": {
        "HuggingFaceTB/SmolLM2-135M-Instruct": 0.1,
        "Qwen/Qwen2.5-Coder-0.5B-Instruct": 0.35,
        "Qwen/Qwen2.5-Coder-1.5B-Instruct": 0.9,
    },
    "small-aware": {
        "HuggingFaceTB/SmolLM2-135M-Instruct": 0.1,
        "Qwen/Qwen2.5-Coder-0.5B-Instruct": 0.35,
        "Qwen/Qwen2.5-Coder-1.5B-Instruct": 0.9,
    },
    "smollm2": {
        "HuggingFaceTB/SmolLM2-135M-Instruct": 0.1,
        "HuggingFaceTB/SmolLM2-360M-Instruct": 0.25,
        "HuggingFaceTB/SmolLM2-1.7B-Instruct": 0.9,
    },
    "qwen2.5": {
        "Qwen/Qwen2.5-0.5B-Instruct": 0.1,
        "Qwen/Qwen2.5-1.5B-Instruct": 0.3,
        "Qwen/Qwen2.5-3B-Instruct": 0.5,
        "Qwen/Qwen2.5-7B-Instruct": 0.7,
        "Qwen/Qwen2.5-14B-Instruct": 0.9,
    },
    "families": {
        "HuggingFaceTB/SmolLM2-135M-Instruct": 0.1,
        "Qwen/Qwen2.5-0.5B-Instruct": 0.35,
        "google/gemma-3-1b-it": 0.9,
    },
}
LABS = ["lab", "lab-bare", "lab-cascade8", "lab-mesh", "lab-reservation", "lab-tree"]  # see test_lab_pools.py
ALL = sorted([*MODELS, *LABS, "scripted"])


def test_pools_are_listed_with_what_they_are() -> None:
    assert (
        sorted(pools())
        == ALL
        == sorted(path.name[:-5] for path in (files("mesh") / "pools").iterdir() if path.name.endswith(".yaml"))
    )
    assert all(len(description) > 20 for description in pools().values())


@pytest.mark.parametrize("name", ALL)
def test_a_pool_stands_with_scripted_engines(name: str) -> None:
    pool = load(name)
    assert (pool.name, pool.description) == (name, pools()[name])
    fake = pool.with_engine("scripted", refuse=0.5)
    assert {agent.engine.kind for agent in fake.agents} == {"scripted"}
    assert {(agent.policy.kind, agent.assessor.kind) for agent in fake.agents} == {("refusal", "refusal")}
    graph = fake.build_topology()
    names = [agent.name for agent in sorted(pool.agents, key=lambda agent: (agent.cost, agent.name))]
    assert (graph.entry, list(graph.names)) == (names[0], names)  # the cheapest comes first
    assert graph.exits()[-1] == names[-1]


@pytest.mark.parametrize("name", sorted(MODELS))
def test_a_pool_names_its_models_and_their_prices(name: str) -> None:
    pool = load(name)
    assert {agent.model: agent.cost for agent in pool.agents} == MODELS[name]
    assert {agent.engine.kind for agent in pool.agents} == {"vllm"}
    assert all(agent.local_name for agent in pool.agents)


def test_small_is_calibrated() -> None:
    pool = load("small")
    assert [agent.local_name for agent in pool.agents] == ["smollm2-135m", "qwen2.5-coder-0.5b", "qwen2.5-coder-1.5b"]
    assert [agent.assessor.kind for agent in pool.agents] == ["first_token", "likelihood", "likelihood"]
    assert {(a.policy.kind, a.prompt, a.engine.options["max_model_len"]) for a in pool.agents} == {
        ("reliability", "plain", 2048)
    }
    for name, spec in agent_specs(pool).items():
        calibration = Calibration.from_json(spec.assessor[1]["calibration"])
        meta = json.loads(calibration.meta)
        assert meta["n"] >= 280, name
        assert spec.card.mean_work == meta["mean_work"]
        assert 0 < calibration(-0.5, 0.5) < 1


def test_the_papers_pool_takes_a_gpu_each() -> None:
    assert [agent.num_gpus for agent in load("qwen2.5").agents] == [1] * 5


def test_families_are_everybodys_neighbours() -> None:
    graph = load("families").build_topology()
    assert graph.neighbours("qwen2.5-0.5b") == ("gemma-3-1b", "smollm2-135m")


def test_scripted_needs_no_cluster_and_no_gpu() -> None:
    pool = load("scripted")
    assert (pool.runtime, len(pool.agents)) == ("local", 5)
    assert [agent.engine.options.get("refuse", 0) for agent in pool.agents] == [0.8, 0.6, 0.4, 0.2, 0]
    assert {agent.engine.options["answer"] for agent in pool.agents} == {"{agent}: {query}"}


def split(size: Any, num_gpus: Any) -> AgentSpec:
    engine = {"kind": "tests.pools:Split", "tensor_parallel_size": size}
    agent = {"name": "a", "cost": 0.5, "engine": engine, "num_gpus": num_gpus}
    return agent_specs(load({"name": "p", "agents": [agent]}))["a"]


def test_an_engine_that_splits_its_model_gets_as_many_gpus() -> None:
    assert [split(2, gpus).num_gpus for gpus in ("auto", 2, 0)] == [2.0, 2.0, 0.0]
    assert [split(1, gpus).num_gpus for gpus in ("auto", 2)] == [None, 2.0]


@pytest.mark.parametrize(
    ("size", "num_gpus", "told"),
    [
        (2, 1, "agent 'a': num_gpus: 1; it must be 2, the tensor_parallel_size of its engine, or auto, or on CPUs 0"),
        (0, "auto", "agent 'a': tensor_parallel_size: 0; it must be a whole number >= 1"),
    ],
)
def test_gpus_that_do_not_fit_the_split_are_refused(size: int, num_gpus: Any, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        split(size, num_gpus)
    assert str(caught.value) == told
