"""Stage one of self-awareness: supervised fine-tuning on an agent's own lessons (DiSRouter, section 3.3), by TRL.

All weights of a small model are trained; of a large one, low-rank adapters (LoRA, by PEFT).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from agents.engines.models import find_model, load_tokenizer, model_folder
from agents.messages import Message
from agents.prompts import Style, prompted
from mesh.assemble import agent_spec
from mesh.config import MeshConfig
from mesh.questions import prompt
from training.label import REHEARSAL, Lesson
from training.trainer import Progress, bare, finish, of_trl, parts, settings


@dataclass(frozen=True, slots=True)
class SftRecipe:
    """How lessons are learnt, ``batch`` in a step of which ``at_once`` are in memory (None: all).

    ``rank`` is that of the adapters, None: all weights are trained. ``rehearsal`` is how many more questions there
    are, as a share of the lessons, that it can answer and is asked without a preference. Where there is a ``width``,
    the rate is for models of this hidden size, and of others goes with its inverse, as suits Adam (Yang et al. 2022,
    arXiv 2203.03466).

    ``target_tokens`` are taught at most of what is to be said: whether to refuse stands at the beginning, and where
    a model keeps what it writes anyway, the rest costs time alone. Stage two then does not ask everything once more.
    """

    epochs: float = 3.0
    learning_rate: float = 1e-3
    batch: int = 64
    at_once: int | None = None
    rank: int | None = None
    rehearsal: float = REHEARSAL
    width: int | None = None
    target_tokens: int | None = None

    def rate(self, width: int) -> float:
        """The learning rate for a model of this hidden size."""
        return self.learning_rate * (self.width / width if self.width else 1)


def sft(
    model: Path,
    lessons: Sequence[Lesson],
    out: Path,
    recipe: SftRecipe,
    style: Style = "scenario",
    seed: int = 0,
    threads: int = 1,
    progress: Progress | None = None,
) -> Path:
    """Teach the model in ``model`` its lessons; the new weights are in the folder that comes back.

    A run that broke off goes on at the last checkpoint under ``out``.
    """
    from datasets import Dataset

    SFTConfig, SFTTrainer = of_trl("SFTConfig", "SFTTrainer")
    torch.set_num_threads(threads)
    tokenizer = load_tokenizer(str(model))
    rows = [taught(tokenizer, lesson, style, recipe.target_tokens) for lesson in lessons]
    steps = round(-(-len(rows) // recipe.batch) * recipe.epochs)
    learner = bare(model, recipe.rank, seed)
    trainer = SFTTrainer(
        learner,
        args=SFTConfig(
            **settings(out, steps, recipe.rate(learner.config.hidden_size), seed),
            **parts(recipe.batch, recipe.at_once),
            num_train_epochs=recipe.epochs,
            completion_only_loss=True,
            max_length=None,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
    )
    return finish(trainer, tokenizer, out, {"model": str(model), "seed": seed, **asdict(recipe)}, rows, progress)


def taught(tokenizer: Any, lesson: Lesson, style: Style, target_tokens: int | None = None) -> dict[str, list[int]]:
    """The tokens of a lesson's prompt and target, which ends where it is not cut, and which are to be learnt."""
    before = tokenizer(asked(tokenizer, lesson, style), add_special_tokens=False)["input_ids"]
    target = tokenizer(lesson.target, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
    target = target[:target_tokens]
    return {"input_ids": before + target, "completion_mask": [0] * len(before) + [1] * len(target)}


def bare_model(config: MeshConfig, agent: str, models_dir: Path | None) -> Path:
    """The folder of the model that an agent's training begins from. Raises ConfigError, ModelNotFound."""
    return model_folder(find_model(agent_spec(config, config.named(agent), models_dir).setup))


def style_of(config: MeshConfig) -> Style:
    """How a pool's agents are told alpha: a pool that reads no English gets a letter."""
    return "level" if config.understands else "scenario"


def asked(tokenizer: Any, lesson: Lesson, style: Style) -> str:
    """The text that an agent's engine would give its model for this lesson's question at its preference."""
    messages: tuple[Message, ...] = (Message("user", prompt(lesson.question)),)
    if lesson.alpha is not None:
        messages = prompted(messages, lesson.alpha, style)
    chat = [{"role": message.role, "content": message.content} for message in messages]
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
