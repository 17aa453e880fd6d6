"""Real models: looked for in MESH_MODELS, else in a cache of our own; the smallest one is made where it is missing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agents.errors import ModelNotFound
from training.models import prepare_smollm2

MODELS = Path(os.environ.get("MESH_MODELS") or Path.home() / ".cache" / "mesh-models")


@pytest.fixture(scope="session")
def models_dir() -> Path:
    if not MODELS.is_dir():
        pytest.skip(f"no models folder: neither MESH_MODELS nor {MODELS}")
    return MODELS


@pytest.fixture(scope="session")
def smollm2() -> Path:
    """The folder of SmolLM2-135M-Instruct."""
    try:
        return prepare_smollm2(MODELS / "smollm2-135m")
    except ModelNotFound as error:
        pytest.skip(str(error))
