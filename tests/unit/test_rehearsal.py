"""``mesh learn``: values learnt from recorded rows, and the pool that goes by them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from agents.errors import ConfigError
from agents.policies.cells import restored
from agents.policies.value import Value
from benchmarks.rehearsal import app, learn, rehearsed
from benchmarks.rows import write
from benchmarks.walking import walk
from mesh.assemble import agent_specs
from mesh.config import load
from tests.unit.test_value import PRICES, believing
from topologies import Mesh

ALPHAS = (0.2, 0.5, 0.8)
ROWS = believing(400, 1)


def pool(**policy: Any) -> dict[str, Any]:
    agents = [{"name": name, "cost": cost, "engine": {"kind": "scripted"}} for name, cost in PRICES.items()]
    decides = {"policy": {"kind": "value", **policy}} if policy else {}
    given = {"defaults": {"assessor": "likelihood", **decides}}
    return {"name": "three", "topology": "mesh", "runtime": "local", "agents": agents, **given}


def test_a_pool_that_has_learnt_decides_as_those_who_learnt(tmp_path: Path) -> None:
    """The file's values, read again, send fresh questions the same ways, and better than those who know nothing."""
    write(ROWS, tmp_path / "rows.jsonl")
    (tmp_path / "pool.yaml").write_text(yaml.safe_dump(pool()))
    out = tmp_path / "learnt"
    given = ["--rows", str(tmp_path / "rows.jsonl"), "--pool", str(tmp_path / "pool.yaml"), "--out", str(out)]
    done = CliRunner().invoke(app, given, catch_exceptions=False)
    assert done.exit_code == 0
    config = load(out / "pool.yaml")
    assert config.name == "three-value"
    told = {spec.card.name: spec.policy for spec in agent_specs(config).values()}
    assert all(kind == "value" and isinstance(options["values"], dict) for kind, options in told.values())
    read = {name: Value(**options) for name, (_, options) in told.items()}
    topology, fresh = Mesh(PRICES), believing(300, 2)
    known = rehearsed({name: Value() for name in PRICES}, ROWS, topology, ALPHAS)
    blank = {name: Value() for name in PRICES}
    for alpha in ALPHAS:
        found, ways = walk(fresh, read, topology, alpha)
        assert ways == walk(fresh, known, topology, alpha)[1]
        assert found.utility(alpha).mean() > walk(fresh, blank, topology, alpha)[0].utility(alpha).mean()


def test_options_stay_as_they_were(tmp_path: Path) -> None:
    kept = tmp_path / "kept.json"
    config = load(learn(load(pool(hop=0.05, explore=0.03, keep=str(kept))), ROWS, tmp_path / "learnt"))
    assert not kept.exists()  # that is for what happens
    for agent in config.agents:
        assert agent.policy.options["hop"] == 0.05
        assert agent.policy.options["explore"] == 0.03
        assert restored(agent.policy.options["values"])["values"]


def test_rows_of_other_agents_or_without_confidences_are_refused(tmp_path: Path) -> None:
    other = replace(ROWS, agents=("small", "words", "huge"))
    with pytest.raises(ConfigError, match="rows are of small, words, huge, but the agents of pool 'three' are small"):
        learn(load(pool()), other, tmp_path)
    with pytest.raises(ConfigError, match="no confidences"):
        learn(load(pool()), replace(ROWS, beliefs={}), tmp_path)
