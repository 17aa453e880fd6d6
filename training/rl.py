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
from training.grading import grade
from training.label import Lesson
from training.rewards import Choice, Localized, Reward
from training.sft import asked
from training.trainer import Progress, bare, finish, of_trl, parts, settings


@dataclass(frozen=True, slots=True)
class RlRecipe:
    """How it learns: ``steps`` of ``prompts`` prompts, ``group`` answers to each; ``at_once``, ``rank`` and
    ``rehearsal`` as in ``SftRecipe``.

    ``forced`` is the part of an answer's worth that is that of the answer which it gives when it must. An agent that
    decides before it drafts is asked again without the preference (see ``agents.node``), so that this is what counts
    in the mesh; the rest is the draft's own, without which what it writes would drift.

    ``beta`` weighs how far it may move from where it began (the KL divergence per token). With it the log-odds of an
    answer move by what an answer is worth there above a refusal, divided by beta, so that questions keep their order;
    without it they end as far apart as time allows, whatever it is worth.

    The answers of ``ahead`` steps are written at once, all by the weights of the first of them: on a GPU many take
    hardly longer than few. Later steps weigh an answer by how much likelier it has become (PPO's ratio).

    Where ``max_tokens`` are fewer than its pool lets it write, drafts are cut off and only tell whether it refuses:
    ``forced`` is 1 then.
    """

    steps: int = 800
    learning_rate: float = 1e-4
    prompts: int = 32
    group: int = 8
    max_tokens: int | None = None  # as its pool has it
    at_once: int | None = None
    rank: int | None = None
    rehearsal: float = 0.25
    forced: float = 0.8
    beta: float = 0.05
    ahead: int = 1


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
    """Have the model in ``model`` answer or refuse the questions of ``lessons`` at their preferences, and reward it;
    where a lesson has no preference only a right answer is rewarded, so that it keeps what it can do.

    Of a lesson's target nothing is used. A run that broke off goes on at the last checkpoint under ``out``; the
    folder that comes back holds the new weights.

    Raises:
        ConfigError: there are fewer lessons than a step takes.
    """
    from datasets import Dataset

    reward = reward or Localized()
    GRPOConfig, GRPOTrainer = of_trl("GRPOConfig", "GRPOTrainer")
    torch.set_num_threads(threads)
    tokenizer = load_tokenizer(str(model))
    least = recipe.prompts * recipe.ahead
    if len(lessons) < least:
        raise ConfigError(f"lessons: there are {len(lessons)}, and answers are written to {least} prompts at once")
    rows = [{"prompt": asked(tokenizer, lesson, style), "place": place} for place, lesson in enumerate(lessons)]
    step = parts(recipe.prompts * recipe.group, recipe.at_once)
    trainer = GRPOTrainer(
        bare(model, recipe.rank, seed),
        reward_funcs=graded(lessons, reward, recipe.forced),
        args=GRPOConfig(
            **settings(out, recipe.steps, recipe.learning_rate, seed),
            **step,
            steps_per_generation=step["gradient_accumulation_steps"] * recipe.ahead,
            num_generations=recipe.group,
            max_completion_length=recipe.max_tokens or 256,
            max_steps=recipe.steps,
            temperature=1.0,
            beta=recipe.beta,
            scale_rewards="none",  # by its group's spread: a question on which most agree would count most
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    told = {"model": str(model), "seed": seed, "reward": repr(reward), **asdict(recipe)}
    return finish(trainer, tokenizer, out, told, rows, progress)


def graded(lessons: Sequence[Lesson], reward: Reward, forced: float = 0.0) -> Callable[..., list[float]]:
    """What TRL calls for the rewards of a batch: each completion is graded as the benchmarks grade it; ``forced`` as in
    ``RlRecipe``.
    """

    def earned(text: str, tokens: Sequence[int], lesson: Lesson) -> float:
        right = lesson.question.answer is not None and grade(text, lesson.question)  # nonsense has no answer
        refused = is_refusal(text, True) is True
        if lesson.alpha is None:
            return float(right if forced < 1 else not refused)
        facts = (refused, lesson.alpha, len(tokens), lesson.competence)
        return forced * reward(Choice(lesson.forced, *facts)) + (1 - forced) * reward(Choice(right, *facts))

    def rewards(completions: list[str], completion_ids: list[list[int]], place: list[int], **_: Any) -> list[float]:
        return [
            earned(text, tokens, lessons[number])
            for text, tokens, number in zip(completions, completion_ids, place, strict=True)
        ]

    return rewards
