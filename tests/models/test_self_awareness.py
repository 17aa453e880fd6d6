"""The two stages on the smallest lab model: it learns to refuse, keeps what it can do, and goes on after a kill."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import training.rl
from agents.engines.models import check_adapter, load_tokenizer
from agents.errors import ConfigError
from mesh import Mesh, MeshError, Reply
from mesh.config import load, with_overrides
from mesh.questions import Question
from training.examine import agent_limits, by_the_hundred
from training.grading import is_right
from training.lab_questions import questions
from training.label import Lesson, lessons
from training.rewards import Choice, Localized
from training.rl import RlRecipe, rl
from training.sample import sample
from training.sft import SftRecipe, sft
from training.sft import taught as row_of
from training.trainer import as_kept

pytestmark = [pytest.mark.models, pytest.mark.filterwarnings("default")]

NANO = Path(load("lab").agents[0].model)


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> list[Lesson]:
    folder = tmp_path_factory.mktemp("samples")
    return lessons(sample(load("lab"), "nano", questions(1500, "train", 31), folder, samples=4), 4000)


@pytest.fixture(scope="module")
def learnt(taught: list[Lesson], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sft(NANO, taught, tmp_path_factory.mktemp("sft"), SftRecipe(epochs=2.0), "level")


def test_drafts_by_the_hundred_are_the_same(tmp_path: Path) -> None:
    """Whoever is examined or sampled decodes more together than a pool serves; other pools are left as they are."""
    usual, rows = with_overrides(load("lab"), runtime="local"), questions(60, "train", 32)
    hurried = by_the_hundred(usual)
    nano = hurried.named("nano")
    assert nano.engine.options["max_batch"] > 64
    assert agent_limits(hurried, nano) > 64
    each = [sample(config, "nano", rows, tmp_path / str(at), samples=2) for at, config in enumerate((usual, hurried))]
    assert each[0] == each[1]
    assert any(one.answers[0] != one.answers[1] for one in each[0])
    small = load("small")
    assert by_the_hundred(small) == small


def asked(
    model: Path, rows: list[Question], alpha: float, adapter: str | None = None, **options: Any
) -> list[Reply | MeshError]:
    agent = {
        **{"name": "nano", "cost": 0.1, "model": str(model), "num_gpus": 0, "prompt": "level", "adapter": adapter},
        "engine": {"kind": "transformers", "max_batch": 64, "threads": 1, "device": "cpu"},
    }
    pool = {"extends": "lab", "name": "taught", "agents": [agent]}
    with Mesh.from_yaml(pool) as mesh:
        return mesh.ask_many([row.text for row in rows], alpha, **options)


def refused(replies: list[Reply | MeshError]) -> list[bool]:
    return [isinstance(reply, Reply) and reply.finish == "declined" for reply in replies]


def test_it_learns_what_to_refuse_and_keeps_what_it_can_do(learnt: Path) -> None:
    """Of 560 fresh questions. The base never refuses; guessing at the best rate would agree with the truth in .65."""
    rows = questions(560, "validation", 32)
    able = [is_right(reply, row) for reply, row in zip(asked(learnt, rows, 0.5, max_hops=0), rows, strict=True)]
    before = [is_right(reply, row) for reply, row in zip(asked(NANO, rows, 0.5, max_hops=0), rows, strict=True)]
    assert not any(refused(asked(NANO, rows[:100], 0.2, may_decline=True)))
    assert sum(able) > sum(before) - 0.08 * len(rows)  # so few lessons cost 3 to 5 points
    declined = refused(asked(learnt, rows, 0.2, may_decline=True))
    agreed = sum(no is not right for no, right in zip(declined, able, strict=True)) / len(rows)
    assert agreed > 0.74  # .84 on other seeds; four standard errors (.02) above guessing


def test_a_run_that_broke_off_goes_on_and_ends_the_same(taught: list[Lesson], tmp_path: Path) -> None:
    recipe, steps = SftRecipe(epochs=1.0), list[int]()
    whole = sft(NANO, taught[:1000], tmp_path / "whole", recipe, "level")

    def kill(step: int, _: int) -> None:
        if step == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sft(NANO, taught[:1000], tmp_path / "broken", recipe, "level", progress=kill)
    again = sft(NANO, taught[:1000], tmp_path / "broken", recipe, "level", progress=lambda step, _: steps.append(step))
    assert steps[0] == 9  # the last checkpoint was at step 8
    one, other = (load_file(folder / "model.safetensors") for folder in (whole, again))
    assert one.keys() == other.keys()
    assert all(one[name].equal(other[name]) for name in one)
    with pytest.raises(ConfigError, match="holds a run whose seed is 0, not 1: choose another folder"):
        sft(NANO, taught[:1000], tmp_path / "broken", recipe, "level", seed=1)
    shutil.rmtree(tmp_path / "broken")


def test_low_rank_adapters_are_trained_further_by_the_second_stage(taught: list[Lesson], tmp_path: Path) -> None:
    one = sft(NANO, taught[:500], tmp_path / "sft", SftRecipe(epochs=1.0, rank=4), "level")
    two = rl(one, taught, tmp_path / "rl", RlRecipe(steps=2, max_tokens=24, rank=4), "level")
    first, second = (load_file(folder / "adapter_model.safetensors") for folder in (one, two))
    assert first.keys() == second.keys()
    moved = {name: (second[name].float() - first[name].float()).norm() for name in first}
    sizes = {name: first[name].float().norm() for name in first}
    assert all(sizes[name] > 0 for name in first if "lora_B" in name)  # they begin at zero
    assert 0 < sum(moved.values()) < 0.5 * sum(sizes.values())  # two steps more, not begun again
    as_kept(two, tmp_path / "kept", NANO, "lab/nano")
    check_adapter(tmp_path / "kept", str(NANO))
    assert not list((tmp_path / "kept").glob("tokenizer*"))
    before = [reply.text for reply in asked(NANO, questions(40, "validation", 34), 0.2) if isinstance(reply, Reply)]
    after = [
        reply.text
        for reply in asked(NANO, questions(40, "validation", 34), 0.2, adapter=str(tmp_path / "kept"))
        if isinstance(reply, Reply)
    ]
    assert before != after


def test_a_batch_can_be_cut(taught: list[Lesson], tmp_path: Path) -> None:
    """Whether 64 rows are in memory or 16 at a time, they are one step, and one gradient."""
    whole = sft(NANO, taught[:640], tmp_path / "whole", SftRecipe(epochs=1.0), "level")
    cut = sft(NANO, taught[:640], tmp_path / "cut", SftRecipe(epochs=1.0, at_once=16), "level")
    bare, one, other = (load_file(folder / "model.safetensors") for folder in (NANO, whole, cut))
    name = "model.layers.0.mlp.up_proj.weight"
    away = (one[name].float() - bare[name].float()).norm()
    assert (one[name].float() - other[name].float()).norm() < away / 5
    with pytest.raises(ConfigError, match="at_once: 10 rows do not divide a batch of 64"):
        sft(NANO, taught[:640], tmp_path / "odd", SftRecipe(at_once=10), "level")


def test_a_step_needs_its_prompts(taught: list[Lesson], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="lessons: there are 5, and answers are written to 32 prompts at once"):
        rl(NANO, taught[:5], tmp_path, RlRecipe(), "level")


def test_answers_of_several_steps_are_written_at_once(
    taught: list[Lesson], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two steps' worth at a time, and each of the four steps still learns from its own two prompts."""
    written: list[int] = []
    graded = training.rl.graded

    def counting(*given: Any) -> Any:
        rewards = graded(*given)

        def counted(**batch: Any) -> list[float]:
            written.append(len(batch["completions"]))
            return rewards(**batch)

        return counted

    monkeypatch.setattr(training.rl, "graded", counting)
    steps: list[int] = []
    recipe = RlRecipe(steps=4, prompts=2, group=4, max_tokens=8, ahead=2)
    rl(NANO, taught[:8], tmp_path / "ahead", recipe, "level", progress=lambda done, _: steps.append(done))
    assert (written, steps) == ([16, 16], [1, 2, 3, 4])
    with pytest.raises(ConfigError, match="lessons: there are 3, and answers are written to 4 prompts at once"):
        rl(NANO, taught[:3], tmp_path / "few", recipe, "level")


@pytest.mark.slow
def test_rewards_make_it_better_still(learnt: Path, taught: list[Lesson], tmp_path: Path) -> None:
    """The mean reward over five preferences on 560 fresh questions; the same questions before and after."""
    rows, reward = questions(560, "validation", 33), Localized()

    def mean(model: Path) -> float:
        earned = 0.0
        for alpha in (0.1, 0.3, 0.5, 0.7, 0.9):
            replies = asked(model, rows, alpha, may_decline=True)
            for reply, row, no in zip(replies, rows, refused(replies), strict=True):
                earned += reward(Choice(is_right(reply, row), no, alpha)) / (5 * len(rows))
        return earned

    steps: list[int] = []
    recipe = RlRecipe(steps=60, learning_rate=3e-4, max_tokens=24, forced=0.0)  # the draft is the answer here
    told = [lesson for lesson in taught if lesson.alpha is not None]
    better = rl(learnt, told, tmp_path, recipe, "level", progress=lambda step, _: steps.append(step))
    assert steps == list(range(1, 61))
    assert mean(better) > mean(learnt) + 0.015  # .03 to .05 on other seeds, of which the standard error is .01


def test_a_run_whose_weights_are_lost_ends_at_once(taught: list[Lesson], tmp_path: Path) -> None:
    with pytest.raises(MeshError, match=r"step \d: some weights are no numbers any more"):
        sft(NANO, taught[:640], tmp_path, SftRecipe(epochs=1.0, learning_rate=1e38), "level")
    assert not list(tmp_path.glob("*/*.safetensors"))


def test_of_long_answers_the_beginning_is_taught() -> None:
    lesson = Lesson(questions(1, "train", 0)[0], 0.5, "1234567")
    tokenizer = load_tokenizer(str(NANO))
    whole, cut = row_of(tokenizer, lesson, "level"), row_of(tokenizer, lesson, "level", 3)
    before = whole["completion_mask"].count(0)
    assert tokenizer.decode(whole["input_ids"][before:]) == "1234567" + tokenizer.eos_token
    assert cut == {"input_ids": whole["input_ids"][: before + 3], "completion_mask": [0] * before + [1] * 3}
