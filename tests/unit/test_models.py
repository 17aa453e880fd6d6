"""Where models are looked for, and which adapters fit."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from agents.engines import base, models
from agents.engines.base import Setup
from agents.engines.models import check_adapter, find_model
from agents.engines.vllm import VllmEngine
from agents.errors import AdapterError, ConfigError, ModelNotFound

LAYER = "model.layers.0.self_attn.q_proj"


@pytest.fixture(autouse=True)
def nothing_around(monkeypatch: pytest.MonkeyPatch) -> None:
    """No models folder, and a hub that knows no model."""
    monkeypatch.delenv("MESH_MODELS", raising=False)
    monkeypatch.setattr(models, "_config_on_hub", unreachable)


def unreachable(model: str) -> None:
    raise OSError(f"no way to {model}\nand more")


def folder(root: Path, name: str = "small") -> Path:
    (root / name).mkdir(parents=True)
    (root / name / "config.json").write_text("{}")
    return root / name


def save(path: Path, **shapes: tuple[int, ...]) -> None:
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, path)


def model(root: Path, prefix: str = "") -> Path:
    """A model whose query projection takes 12 numbers and gives 16; its weights are in two files."""
    root.mkdir()
    save(root / "model-00001-of-00002.safetensors", **{f"{prefix}{LAYER}.weight": (16, 12)})
    save(root / "model-00002-of-00002.safetensors", **{f"{prefix}model.norm.weight": (12,)})
    return root


def adapter(root: Path, a: tuple[int, int] = (4, 12), b: tuple[int, int] = (16, 4), layer: str = LAYER) -> Path:
    root.mkdir()
    name = f"base_model.model.{layer}"
    save(root / "adapter_model.safetensors", **{f"{name}.lora_A.weight": a, f"{name}.lora_B.weight": b})
    (root / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    return root


def test_the_models_folder_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given, environment = folder(tmp_path / "given"), folder(tmp_path / "environment")
    monkeypatch.setenv("MESH_MODELS", str(environment.parent))
    assert find_model(Setup("a", "org/small", "small", models_dir=given.parent)) == str(given)
    assert find_model(Setup("a", "org/small", "small")) == str(environment)
    assert find_model(Setup("a", "small", models_dir=given.parent)) == str(given)


def test_then_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(models, "_config_on_hub", asked.append)
    assert find_model(Setup("a", "org/small", "small", models_dir=tmp_path)) == "org/small"
    assert asked == ["org/small"]


def test_a_missing_model_names_both_places(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound) as caught:
        find_model(Setup("a", "org/small", "small", models_dir=tmp_path))
    for word in ("agent 'a'", str(tmp_path / "small"), "'org/small'", "no way", "--models-dir", "MESH_MODELS"):
        assert word in str(caught.value)
    assert "and more" not in str(caught.value)
    with pytest.raises(ModelNotFound, match="none was given"):
        find_model(Setup("a", "org/small", "small"))


def test_offline_the_hub_is_not_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelNotFound, match="org/small"):
        find_model(Setup("a", "org/small", "small", models_dir=tmp_path))


@pytest.mark.parametrize("name", ["", "no such name!"])
def test_what_is_no_hub_id_is_a_missing_model(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.delenv("MESH_MODELS", raising=False)
    with pytest.raises(ModelNotFound):
        find_model(Setup("a", name, "small"))


def test_without_vllm_its_engine_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"disrouter\[vllm\].*make setup"):
        asyncio.run(VllmEngine(Setup("a", "org/small")).start())


@pytest.mark.parametrize("prefix", ["", "language_"])
def test_an_adapter_that_fits(tmp_path: Path, prefix: str) -> None:
    check_adapter(adapter(tmp_path / "adapter"), str(model(tmp_path / "model", prefix)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": (4, 24)}, r"lora_A.weight has 24 inputs, the model .* has 12"),
        ({"b": (8, 4)}, r"lora_B.weight has 8 outputs, the model .* has 16"),
        ({"layer": "model.layers.7.self_attn.q_proj"}, r"has no layers.7.self_attn.q_proj"),
    ],
)
def test_an_adapter_for_another_model(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(AdapterError, match=message):
        check_adapter(adapter(tmp_path / "adapter", **change), str(model(tmp_path / "model")))  # type: ignore[arg-type]


@pytest.mark.parametrize("missing", ["adapter_config.json", "adapter_model.safetensors"])
def test_an_adapter_without_a_file(tmp_path: Path, missing: str) -> None:
    path = adapter(tmp_path / "adapter")
    (path / missing).unlink()
    with pytest.raises(AdapterError, match=missing):
        check_adapter(path, str(model(tmp_path / "model")))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("adapter_config.json", b"{", "broken"),
        ("adapter_config.json", b'{"peft_type": "IA3"}', "'IA3'"),
        ("adapter_model.safetensors", b"1234", "broken"),
        ("adapter_model.safetensors", b"\x02" + bytes(7) + b"{}", "no LoRA matrices"),
    ],
)
def test_a_broken_adapter(tmp_path: Path, file: str, content: bytes, message: str) -> None:
    path = adapter(tmp_path / "adapter")
    (path / file).write_bytes(content)
    with pytest.raises(AdapterError, match=message):
        check_adapter(path, str(model(tmp_path / "model")))


def test_what_ships_with_us_is_found_where_the_receiver_has_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = Path(base.__file__).parents[2] / "mesh" / "pools"
    setup = Setup("nano", str(here / "lab/nano"), adapter=here / "aware/nano", models_dir=tmp_path, seed=3, mesh="lab")
    sent = pickle.dumps(setup)
    assert pickle.loads(sent) == setup
    monkeypatch.setattr(base, "_INSTALLED", tmp_path / "site-packages")  # another machine has it elsewhere
    there = tmp_path / "site-packages" / "mesh" / "pools"
    arrived = pickle.loads(sent)
    assert (arrived.model, arrived.adapter) == (str(there / "lab/nano"), there / "aware/nano")
    assert (arrived.agent, arrived.models_dir, arrived.seed, arrived.mesh) == ("nano", tmp_path, 3, "lab")
    assert pickle.loads(pickle.dumps(Setup("a", "org/model", "name"))) == Setup("a", "org/model", "name")
