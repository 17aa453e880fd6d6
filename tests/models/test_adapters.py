"""Adapters in a running mesh: one that fits changes the answers, one that does not changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agents.errors import AdapterError
from mesh import Mesh
from tests.tiny import make_adapter, tiny_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "tiny")


def pool(folder: Path, **agent: Any) -> Mesh:
    engine = {"kind": "transformers", "threads": 1, "device": "cpu"}
    only = {"name": "a", "cost": 0.5, "engine": engine, "model": str(folder), "prompt": "plain", **agent}
    return Mesh.from_yaml({"name": "one", "runtime": "local", "max_tokens": 8, "agents": [only]})


def test_an_adapter_that_does_not_fit_is_refused_at_the_start(folder: Path, tmp_path: Path) -> None:
    wrong = make_adapter(tmp_path / "wrong", hidden=64, layers=2)
    with pytest.raises(AdapterError, match=r"64 inputs.* has 32"), pool(folder, adapter=str(wrong)) as mesh:
        mesh.ask("Hi")


def test_one_that_does_not_fit_changes_nothing_later(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("peft", reason="peft is not installed")
    with pool(folder) as mesh:
        bare = mesh.ask("Hi").text
        with pytest.raises(AdapterError, match=r"64 inputs.* has 32"):
            mesh.update_agent("a", make_adapter(tmp_path / "wrong", hidden=64, layers=2))
        assert mesh.ask("Hi").text == bare
        assert mesh.status()[0]["adapter"] == ""
        right = make_adapter(tmp_path / "right", hidden=32, layers=2)
        mesh.update_agent("a", right)
        assert mesh.ask("Hi").text != bare
        assert mesh.status()[0]["adapter"] == str(right)
        mesh.update_agent("a", None)
        assert mesh.ask("Hi").text == bare
