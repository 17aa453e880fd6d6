"""What a query costs, measured in small: the figures hang together, and what is there is not measured again."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import scale


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"SIZES": (5, 50), "TIMED": 300, "WEIGHED": 50, "TURNS": 2}.items():
        monkeypatch.setattr(scale, name, value)


def test_cost_by_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = scale.measure(1_000, 1, tmp_path)
    assert [*result["agents"]] == [*result["others"]["small_world"]] == ["5", "50"]
    assert result["agents"]["50"]["queries"] == result["largest"]["queries"] == 1_000
    for found in result["agents"].values():
        assert found["lost"] == 0
        assert found["bytes_per_query"] > 100 * found["messages_per_query"]
        assert found["events_per_query"] > found["messages_per_query"] > found["hops"]
    monkeypatch.setattr(scale, "simulate", None)
    assert scale.measure(1_000, 1, tmp_path) == result
    scale.draw(result, tmp_path / "scale.png")
    assert (tmp_path / "scale.png").stat().st_size > 10_000
    assert {row["topology"] for row in scale.rows(result)} == {"tree", "small_world"}


def test_two_results_of_one_seed_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scale.measure(1_000, 1, tmp_path)
    (piece,) = tmp_path.glob("tree_50-agents_300-queries*turn-1.json")
    piece.write_text(piece.read_text().replace('"digest": "', '"digest": "another '))
    with pytest.raises(RuntimeError, match=r"tree, 50 agents: one seed gave .*another"):
        scale.measure(1_000, 1, tmp_path)
