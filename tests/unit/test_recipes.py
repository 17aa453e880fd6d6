"""How training is set up where nobody says otherwise."""

from __future__ import annotations

import pytest

from agents.errors import ConfigError
from mesh.config import load
from mesh.questions import Question
from training import recipes
from training.recipes import changed, further, others, usual
from training.sft import SftRecipe


@pytest.fixture(autouse=True)
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recipes, "OWN_ROWS", {"train": 60, "validation": 20})


def test_small_models_are_trained_whole_and_others_by_adapters() -> None:
    plan = usual(load("lab"), seed=3)
    assert (len(plan.questions), len(plan.validation), plan.seed) == (60, 20, 3)
    assert plan.sft is not None
    assert plan.sft.rank is None
    for one in recipes.recipes(load("small"))[1:]:
        assert one.rank is not None  # type: ignore[union-attr]
    with pytest.raises(ConfigError, match="'small' has no questions of its own"):
        usual(load("small"))


def test_others_come_as_questions_do() -> None:
    """Repeats, and those that are sampled, stay in: a pool's short questions are few."""
    lab = load("lab")
    found = others(lab, 0)
    assert len(found) == 60 * recipes.OTHERS
    assert found == others(lab, 0)
    assert {one.id for one in found} != {one.id for one in others(lab, 1)}
    assert others(load("small"), 0) == ()


def test_the_rate_goes_with_the_inverse_of_the_width() -> None:
    assert SftRecipe(learning_rate=1e-3).rate(32) == 1e-3
    told = SftRecipe(learning_rate=1e-3, width=64)
    assert [told.rate(width) for width in (32, 64, 256)] == pytest.approx([2e-3, 1e-3, 2.5e-4])


def test_what_is_not_told_stays() -> None:
    assert changed(SftRecipe(), epochs=None, batch=8) == SftRecipe(batch=8)


def test_of_rows_beyond_the_sampled_ones_as_many_of_each_task() -> None:
    rows = [Question(f"{task}{number}", "?", task) for number in range(5) for task in ("one", "two")]
    assert [row.id for row in further(rows, 2, 2)] == ["one2", "one3", "two2", "two3"]
    assert further(rows, None, 0) == further(rows, 5, 2) == ()
    with pytest.raises(ConfigError, match="once: 2 rows beyond --limit, which is not given"):
        further(rows, None, 2)
