"""How training is set up where nobody says otherwise."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, TypeVar

from mesh.config import MeshConfig
from training.label import SIZE
from training.rl import RlRecipe
from training.sft import SftRecipe

T = TypeVar("T", SftRecipe, RlRecipe)


def recipes(config: MeshConfig) -> tuple[int, SftRecipe, RlRecipe]:
    """Lessons, and the recipes of both stages, as suit a pool: one whose models come with the package, and which makes
    as many questions as one likes, has all weights of them trained; others get low-rank adapters.
    """
    if config.question_maker is not None:
        return 60_000, SftRecipe(3.0, 1.5e-3, 64), RlRecipe(800, 1e-4, 32, 8)
    adapters = {"at_once": 8, "rank": 16}
    return SIZE, SftRecipe(3.0, 2e-4, 32, **adapters), RlRecipe(300, 2e-5, 16, 8, **adapters)


def changed(recipe: T, **changes: Any) -> T:
    """The recipe with those of the changes that are not None."""
    return replace(recipe, **{name: value for name, value in changes.items() if value is not None})
