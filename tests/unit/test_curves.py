"""Utility over alpha, read from what `mesh bench routing` wrote."""

from __future__ import annotations

import json
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import httpx
import pytest

from agents.errors import ConfigError
from benchmarks.results import routing
from mesh.ingress import curves
from mesh.ingress.curves import Curve, read_curves, shipped_curves
from tests.serving import served
from tests.unit.test_http import TWO


def method(utility: float, full: float) -> dict[str, float]:
    return {"utility": utility, "utility_full": full, "accuracy": 0.9}


def result(**changes: Any) -> dict[str, Any]:
    """Two alphas, two of the mesh's ways, the paper's rule and a baseline."""
    alphas = {
        alpha: {
            "oracle": 0.9 - place / 10,
            "ours": {"name": ours, "name_full": "mesh-b"},
            "methods": {
                "mesh-a": method(0.7, 0.1),
                "mesh-b": method(0.6, 0.5 - place / 10),
                "mesh-reliability-0.5": method(0.5, 0.4),
                "knn": method(0.4, 0.3),
            },
        }
        for place, (alpha, ours) in enumerate({"0.5": "mesh-b", "0.2": "mesh-a"}.items())
    }
    return {"bench": "routing", "pool": "lab-mesh", "n": 10, "seed": 1, "alphas": alphas, **changes}


def written(folder: Path, told: dict[str, Any]) -> Path:
    path = folder / "routing.json"
    path.write_text(json.dumps({"date": "2026-01-01", "result": told}))
    return path


def test_of_the_meshs_ways_the_chosen_ones(tmp_path: Path) -> None:
    read = read_curves(written(tmp_path, result()))
    assert (read.pool, read.questions, read.seed, read.date, read.alphas) == (
        "lab-mesh",
        10,
        1,
        "2026-01-01",
        (0.2, 0.5),
    )
    assert read.curves == (
        Curve(name="oracle", kind="oracle", utility=(0.8, 0.9)),
        Curve(name="mesh-a / mesh-b", kind="ours", utility=(0.7, 0.6)),
        Curve(name="mesh-b", kind="ours", utility_full=(0.4, 0.5)),
        Curve(name="mesh-reliability-0.5", kind="paper", utility=(0.5, 0.5), utility_full=(0.4, 0.4)),
        Curve(name="knn", kind="baseline", utility=(0.4, 0.4), utility_full=(0.3, 0.3)),
    )


@pytest.mark.parametrize(
    ("told", "why"),
    [
        (result(bench="hops"), "result.bench: Input should be 'routing'"),
        (result(alphas={"0.2": {**result()["alphas"]["0.2"], "methods": {}}}), "'mesh-a': it is not there"),
        (result(n=None), "result.n: "),
    ],
)
def test_what_is_no_result(tmp_path: Path, told: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigError, match=r"it must be a result of `mesh bench routing`") as caught:
        read_curves(written(tmp_path, told))
    assert why in str(caught.value)
    (tmp_path / "routing.json").write_text("{")
    with pytest.raises(ConfigError, match="routing"):
        read_curves(tmp_path / "routing.json")


def test_installed_results_are_for_the_agents_that_they_were_measured_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    entry = EntryPoint("routing", "benchmarks.results:routing", curves.GROUP)
    monkeypatch.setattr(curves, "entry_points", lambda group: [entry] if group == curves.GROUP else [])
    found = shipped_curves(["nano", "large"])
    assert found == read_curves(routing())
    assert shipped_curves(["nano", "somebody"]) is None
    monkeypatch.setattr("benchmarks.results.HERE", tmp_path)  # a server comes up without them, too
    assert shipped_curves(["nano", "large"]) is None
    assert "results routing are not shown" in caplog.text
    with served(TWO, curves=found) as (url, _):
        assert httpx.get(f"{url}/v1/mesh/curves").json() == found.model_dump(mode="json")  # type: ignore[union-attr]
    with served(TWO) as (url, _):
        assert httpx.get(f"{url}/v1/mesh/curves").json()["curves"] == []
