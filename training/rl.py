"""Stage two of self-awareness: reinforcement learning on local rewards (DiSRouter, section 3.4), by TRL's GRPO."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from agents.engines.models import load_tokenizer
from agents.errors import ConfigError
from agents.prompts import Style, is_refusal
from mesh.questions import Question
from training.grading import grade
from training.label import Lesson
from training.rewards import Localized, Reward
from training.sft import asked
from training.trainer import Progress, adapters, bare, finish, of_trl, settings


@dataclass(frozen=True, slots=True)
class RlRecipe:
    """How it learns: ``steps`` of ``prompts`` prompts, ``group`` answers to each; ``rank`` as in ``SftRecipe``."""

    steps: int = 300
    learning_rate: float = 1e-4
    prompts: int = 32
    group: int = 8
    max_tokens: int = 256
    rank: int | None = None


def rl(
    model: Path,
    lessons: Sequence[Lesson],
    out: Path,
    recipe: RlRecipe,
    style: Style = "scenario",
    reward: Reward | None = None,
    seed: int = 0,
    threads: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Have the model in ``model`` answer or refuse the questions of ``lessons`` at their preferences, and reward it.

    Of a lesson only question and preference count, not its target. A run that broke off goes on at the last
    checkpoint under ``out``; the folder that comes back holds the new weights.

    Raises:
        ConfigError: there are fewer lessons than a step takes.
    """
    from datasets import Dataset

    reward = reward or Localized()
    GRPOConfig, GRPOTrainer = of_trl("GRPOConfig", "GRPOTrainer")
    torch.set_num_threads(threads)
    tokenizer = load_tokenizer(str(model))
    chosen = [lesson for lesson in lessons if lesson.alpha is not None]
    if len(chosen) < recipe.prompts:
        raise ConfigError(f"lessons: there are {len(chosen)}, and a step takes {recipe.prompts} prompts")
    rows = [
        {"prompt": asked(tokenizer, lesson, style), "place": place, "alpha": lesson.alpha}
        for place, lesson in enumerate(chosen)
    ]
    trainer = GRPOTrainer(
        bare(model),
        reward_funcs=graded([lesson.question for lesson in chosen], reward),
        args=GRPOConfig(
            **settings(out, recipe.steps, recipe.learning_rate, seed),
            per_device_train_batch_size=recipe.prompts * recipe.group,
            num_generations=recipe.group,
            max_completion_length=recipe.max_tokens,
            max_steps=recipe.steps,
            temperature=1.0,
            beta=0.0,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=adapters(recipe.rank),
    )
    told = {"model": str(model), "seed": seed, "reward": repr(reward), **asdict(recipe)}
    return finish(trainer, tokenizer, out, told, rows, progress)


def graded(questions: Sequence[Question], reward: Reward) -> Callable[..., list[float]]:
    """What TRL calls for the rewards of a batch: each completion is graded as the benchmarks grade it."""

    def rewards(completions: list[str], place: list[int], alpha: list[float], **_: Any) -> list[float]:
        return [
            reward(grade(text, questions[number]), is_refusal(text, True) is True, preference)
            for text, number, preference in zip(completions, place, alpha, strict=True)
        ]

    return rewards
