"""A mesh on real Ray: placement, membership, and what a caller can get wrong."""

from __future__ import annotations

import time

import pytest

import mesh
from mesh.assemble import agent_specs
from mesh.config import load
from mesh.runtimes.ray import _wanting
from tests.pools import pool
from tests.ray.conftest import Opener, row, until

pytestmark = pytest.mark.ray


def test_five_agents_on_five_gpus(open_mesh: Opener) -> None:
    pool = open_mesh({name: {} for name in "abcde"}, defaults={"num_gpus": 1})
    rows = pool.status()
    assert sorted(gpu for each in rows for gpu in each["gpus"]) == ["0", "1", "2", "3", "4"]
    assert all(each["device"] == each["gpus"][0] for each in rows)  # what the engine's own process sees
    assert len({each["pid"] for each in rows}) == 5


def test_a_model_split_over_two_gpus_gets_both(open_mesh: Opener) -> None:
    """By one actor, which Ray places on one node with all that it asks for."""
    engine = {"kind": "tests.pools:Split", "tensor_parallel_size": 2}
    rows = open_mesh({"a": engine, "b": engine}).status()
    assert sorted(len(set(each["gpus"])) for each in rows) == [2, 2]
    assert len({gpu for each in rows for gpu in each["gpus"]}) == 4
    assert all(each["device"] == ",".join(each["gpus"]) for each in rows)
    with pytest.raises(mesh.PlacementError, match=r"agent 'c' waits for 2 GPU \(the cluster has 5, 1 of them free"):
        open_mesh({"c": engine}, placement_timeout_s=1.0)


def test_gpus_that_no_node_has_together(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"Alive": True, "Resources": {"GPU": 2.0}}, {"Alive": True, "Resources": {"GPU": 2.0}}]
    nodes.append({"Alive": False, "Resources": {"GPU": 8.0}})
    monkeypatch.setattr("ray.nodes", lambda: nodes)
    for name in ("ray.cluster_resources", "ray.available_resources"):
        monkeypatch.setattr(name, lambda: {"GPU": 4.0})
    spec = agent_specs(load(pool(agents=1)))["a0"]
    told = "waits for 4 GPU (the cluster has 4, 4 of them free; no node has more than 2)"
    assert _wanting(spec, 4.0) == told


@pytest.mark.slow
def test_more_gpus_than_there_are(open_mesh: Opener) -> None:
    began = time.monotonic()
    with pytest.raises(mesh.PlacementError, match=r"agent 'f' waits for 6 GPU \(the cluster has 5.* since 2 s"):
        open_mesh({"f": {}}, defaults={"num_gpus": 6}, placement_timeout_s=2.0)
    assert time.monotonic() - began < 60  # it says so, instead of hanging
    with pytest.raises(mesh.PlacementError, match=r"waits for 1 warp \(the cluster has 0"):
        open_mesh({"f": {}}, defaults={"resources": {"warp": 1}}, placement_timeout_s=2.0)


def test_members_join_and_leave(open_mesh: Opener) -> None:
    pool = open_mesh({"a": {"refuse": 1.0}, "b": {"answer": "from b"}})
    pool.add_agent({"name": "c", "cost": 0.5, "engine": {"kind": "scripted", "answer": "from c"}})
    assert pool.ask("who?").agent == "c"
    pool.remove_agent("c")
    assert pool.ask("who?").agent == "b"
    assert [each["agent"] for each in pool.status()] == ["a", "b"]
    with pytest.raises(mesh.ConfigError, match="unknown agent 'c'"):
        pool.remove_agent("c")
    with pytest.raises(mesh.ConfigError, match="there is an agent 'a' already"):
        pool.add_agent({"name": "a", "cost": 0.5, "engine": "scripted"})


def test_full_queues_are_told(open_mesh: Opener) -> None:
    slow = {"delay_s": 1.0}
    pool = open_mesh({"a": slow, "b": slow}, limits={"running": 1, "waiting": 1})
    replies = [pool.submit(f"question {i}") for i in range(8)]
    outcomes = [future.exception(timeout=30) for future in replies]
    assert sum(outcome is None for outcome in outcomes) >= 4
    busy = [outcome for outcome in outcomes if outcome is not None]
    assert busy
    assert all(isinstance(outcome, mesh.AgentError) and outcome.reason == "busy" for outcome in busy)
    assert until(lambda: row(pool, "a")["in_hand"] == 0)
    assert pool.ask("and now?").agent == "a"


def test_an_engine_that_cannot_start_is_told_and_nothing_stays(open_mesh: Opener) -> None:
    import ray

    agents = [
        {"name": "a", "cost": 0.1, "engine": "scripted"},
        {"name": "b", "cost": 0.2, "engine": "transformers", "local_name": "no-such-model"},
    ]
    pool = mesh.Mesh.from_yaml({"name": "broken", "agents": agents}, models_dir="/nowhere")
    with pytest.raises(mesh.ConfigError, match="no-such-model"):
        pool.start()
    names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
    assert not [name for name in names if name.startswith("broken")]
