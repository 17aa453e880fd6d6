"""How training is set up where nobody says otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar

from agents.errors import ConfigError
from mesh.config import MeshConfig
from mesh.questions import Part, Question
from training.calibrate import of_tasks
from training.jobs import Plan
from training.label import SIZE
from training.nonsense import nonsense
from training.rl import RlRecipe
from training.sft import SftRecipe

OTHERS = 4  # times as many questions of its own as are sampled, of which an agent rehearses those that it can answer
OWN_ROWS: dict[Part, int] = {"train": 12_000, "validation": 2_000}  # where a pool has questions of its own
T = TypeVar("T", SftRecipe, RlRecipe)


def recipes(config: MeshConfig) -> tuple[int, SftRecipe, RlRecipe]:
    """Lessons, and the recipes of both stages, as suit a pool: one whose models come with the package, and which makes
    as many questions as one likes, has all weights of them trained; others get low-rank adapters.
    """
    if config.question_maker is not None:
        return 240_000, SftRecipe(1.0, 5e-4, 64, rehearsal=0.35, width=64), RlRecipe(800, 1e-4, 32, 8, beta=0.03)
    adapters = {"at_once": 8, "rank": 16}
    return SIZE, SftRecipe(3.0, 2e-4, 32, **adapters), RlRecipe(300, 2e-5, 16, 8, **adapters)


def usual(config: MeshConfig, seed: int = 0) -> Plan:
    """How a pool with questions of its own is trained: what `mesh train self-awareness` does without options.

    Raises:
        ConfigError: it has none.
    """
    make = config.question_maker
    if make is None:
        raise ConfigError(f"pool: {config.name!r} has no questions of its own")
    size, sft, rl = recipes(config)
    rows = {part: tuple(make(count, part, seed)) for part, count in OWN_ROWS.items()}
    return Plan(
        rows["train"],
        rows["validation"],
        others=others(config, seed),
        nonsense=noise(config, rows["train"], seed),
        size=size,
        sft=sft,
        rl=rl,
        seed=seed,
    )


def others(config: MeshConfig, seed: int) -> tuple[Question, ...]:
    """More questions of a pool's own train part, as they come, repeats and all; of a pool that makes none, none."""
    make = config.question_maker
    if make is None:
        return ()
    return tuple(q for number in range(OTHERS) for q in make(OWN_ROWS["train"], "train", _other(seed, number)))


def further(rows: Sequence[Question], limit: int | None, count: int) -> tuple[Question, ...]:
    """``count`` more of a task than its first ``limit``. Raises ConfigError where no limit leaves any."""
    if limit is None:
        if count:
            raise ConfigError(f"once: {count} rows beyond --limit, which is not given: every row is sampled already")
        return ()
    first = set(of_tasks(rows, limit=limit))
    return tuple(row for row in of_tasks(rows, limit=limit + count) if row not in first)


def noise(config: MeshConfig, questions: Sequence[Question], seed: int) -> tuple[Question, ...]:
    """What no agent of a pool should answer; of a pool that does not say what it understands, nothing."""
    return nonsense(questions, OWN_ROWS["train"], config.understands.pattern, seed) if config.understands else ()


def _other(seed: int, number: int) -> int:
    """A seed that nobody else uses."""
    return 1_000_000 + seed * OTHERS + number


def changed(recipe: T, **changes: Any) -> T:
    """The recipe with those of the changes that are not None."""
    return replace(recipe, **{name: value for name, value in changes.items() if value is not None})
