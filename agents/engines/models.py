"""Where a model lives, how it and its tokenizer load, and whether an adapter fits it."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from agents.engines.base import Setup
from agents.errors import AdapterError, ModelNotFound

HUB_TIMEOUT_S = 10.0


def find_model(setup: Setup) -> str:
    """The folder ``local_name`` in the models folder, else the hub id ``model``, if cached or on a reachable hub;
    where ``model`` is an absolute path, that folder and no other.

    The models folder is ``setup.models_dir``, else ``MESH_MODELS``. ``HF_HUB_OFFLINE`` is respected.

    Raises:
        ModelNotFound: neither is there; names both places and the options to set.
    """
    if os.path.isabs(setup.model):
        if Path(setup.model, "config.json").is_file():
            return setup.model
        raise ModelNotFound(f"agent {setup.agent!r}: model {setup.model!r} is no folder with a config.json in it")
    root = setup.models_dir or (Path(value) if (value := os.environ.get("MESH_MODELS")) else None)
    name = setup.local_name or setup.model
    folder = root / name if root and name else None
    if folder and (folder / "config.json").is_file():
        return str(folder)
    try:
        _config_on_hub(setup.model)
    except (OSError, ValueError) as error:
        looked = f"not in {folder}" if folder else "not in a models folder (none was given)"
        why = str(error).partition("\n")[0]
        raise ModelNotFound(
            f"agent {setup.agent!r}: model {name!r} is {looked} and hub id {setup.model!r} cannot be had ({why}); "
            f"give the folder that holds it with --models-dir or MESH_MODELS"
        ) from error
    return setup.model


def model_folder(model: str) -> Path:
    """The folder of a path or hub id as ``find_model`` gave it; a hub id is downloaded if it is not cached."""
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(model, etag_timeout=HUB_TIMEOUT_S, ignore_patterns=["*.bin", "*.pth", "*.gguf"]))


def load_tokenizer(model: str) -> Any:
    """The tokenizer of a path or hub id.

    AutoTokenizer goes by the model's type and would give a custom tokenizer beside a Qwen2 model the
    pre-tokenizer of Qwen2, silently; one that says it is generic is therefore loaded as such.
    """
    from transformers import AutoTokenizer, PreTrainedTokenizerFast
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    generic = get_tokenizer_config(model).get("tokenizer_class") in ("TokenizersBackend", "PreTrainedTokenizerFast")
    return (PreTrainedTokenizerFast if generic else AutoTokenizer).from_pretrained(model)


def load_model(model: str | Path, dtype: Any) -> Any:
    """A model's weights, with transformers.

    What goes into its output matrix are the last states of several rows, cut out of all. As they lie torch copies that
    matrix for each row: of a vocabulary of 150,000 and 32 rows 9 GB, which took half of a step.
    """
    from transformers import AutoModelForCausalLM

    weights = AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
    weights.get_output_embeddings().register_forward_pre_hook(_together)
    return weights


def _together(_: Any, given: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(states.contiguous() for states in given)


def model_context(model: str) -> int:
    """How many tokens a model was made for."""
    from transformers import AutoConfig

    return int(AutoConfig.from_pretrained(model).get_text_config().max_position_embeddings)


def is_whole(adapter: Path) -> bool:
    """Whether the folder holds all weights of a model, trained further, instead of a LoRA's."""
    return (adapter / "config.json").is_file() and not (adapter / "adapter_config.json").exists()


def check_adapter(path: Path, model: str) -> None:
    """Compare the shapes of the LoRA, or the whole weights, in ``path`` with the weights of ``model`` (path or hub id),
    by their headers.

    Raises:
        AdapterError: a file is missing or broken, or a matrix does not fit; names it and both sizes.
    """
    if is_whole(path):
        return _check_whole(path, model)
    config, weights = path / "adapter_config.json", path / "adapter_model.safetensors"
    for file in (config, weights):
        if not file.is_file():
            raise AdapterError(f"adapter {path}: {file.name} is missing; a PEFT LoRA folder has it")
    try:
        kind, adapter = json.loads(config.read_bytes()).get("peft_type"), dict(_shapes(weights))
    except (ValueError, AttributeError) as error:
        raise AdapterError(f"adapter {path}: broken file: {error}") from error
    if kind != "LORA":
        raise AdapterError(f"adapter {path}: peft_type is {kind!r}, it must be 'LORA'")
    base = {_module(name): shape for name, shape in _all_shapes(model_folder(model)).items()}
    pairs = [(name, side, shape) for name, shape in adapter.items() for side in "AB" if f".lora_{side}." in name]
    if not pairs:
        raise AdapterError(f"adapter {path}: {weights.name} holds no LoRA matrices")
    for name, side, shape in pairs if base else ():
        wanted = base.get(_module(name))
        if wanted is None:
            raise AdapterError(f"adapter {path}: the model {model} has no {_module(name)}, which the adapter changes")
        # A is rank x inputs, B is outputs x rank; the weight that they change is outputs x inputs
        have, want = (shape[1], wanted[1]) if side == "A" else (shape[0], wanted[0])
        if have != want:
            what = "inputs" if side == "A" else "outputs"
            raise AdapterError(f"adapter {path}: {name} has {have} {what}, the model {model} has {want} there")


def _check_whole(path: Path, model: str) -> None:
    try:
        own = _all_shapes(path)
    except ValueError as error:
        raise AdapterError(f"adapter {path}: broken file: {error}") from error
    base = _all_shapes(model_folder(model))
    for name in sorted(base.keys() | own.keys()):
        if own.get(name) != base.get(name):
            raise AdapterError(
                f"adapter {path}: its weights {name} are {own.get(name, 'missing')}, those of the model {model} are "
                f"{base.get(name, 'missing')}"
            )


def _config_on_hub(model: str) -> None:
    """Raises OSError or ValueError unless ``model`` is in the hub's cache or on a reachable hub."""
    from huggingface_hub import hf_hub_download

    if not model:
        raise ValueError("it is empty")
    hf_hub_download(model, "config.json", etag_timeout=HUB_TIMEOUT_S)


def _all_shapes(folder: Path) -> dict[str, list[int]]:
    """Name and shape of every matrix in a model's folder."""
    return {name: shape for file in folder.glob("*.safetensors") for name, shape in _shapes(file)}


def _shapes(file: Path) -> Iterator[tuple[str, list[int]]]:
    """Name and shape of every matrix in a safetensors file: 8 bytes of length, then JSON."""
    with file.open("rb") as stream:
        header = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    return ((name, info["shape"]) for name, info in header.items() if len(info.get("shape", ())) == 2)


def _module(name: str) -> str:
    """The module that a weight belongs to, without the prefixes that PEFT and multimodal wrappers add."""
    name = re.sub(r"^(base_model\.model\.)?((language_)?model\.)*", "", name)
    return re.sub(r"(\.lora_[AB](\.\w+)?|\.base_layer)?\.weight$", "", name)
