"""Stage one of self-awareness: supervised fine-tuning on an agent's own lessons (DiSRouter, section 3.3), by TRL.

All weights of a small model are trained; of a large one, low-rank adapters (LoRA, by PEFT).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from agents.engines.models import load_tokenizer
from agents.messages import Message
from agents.prompts import Style, prompted
from mesh.questions import prompt
from training.label import Lesson

CHECKPOINTS = 10  # in a run; a worker that dies costs a tenth of it at most
Progress = Callable[[int, int], None]  # step, all


@dataclass(frozen=True, slots=True)
class SftRecipe:
    """How lessons are learnt; ``rank`` is that of the adapters, None: all weights are trained."""

    epochs: float = 3.0
    learning_rate: float = 1e-3
    batch: int = 64
    rank: int | None = None


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
    """Teach the model in ``model`` its lessons; the new weights, or their adapter, are in the folder that comes back.

    A run that broke off goes on at the last checkpoint under ``out``.
    """
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, PrinterCallback
    from transformers.trainer_utils import get_last_checkpoint

    SFTConfig, SFTTrainer = of_trl("SFTConfig", "SFTTrainer")
    torch.set_num_threads(threads)
    tokenizer = load_tokenizer(str(model))
    rows = [{"prompt": asked(tokenizer, lesson, style), "completion": lesson.target} for lesson in lessons]
    steps = -(-len(rows) // recipe.batch) * recipe.epochs
    settings = SFTConfig(
        output_dir=str(out),
        per_device_train_batch_size=recipe.batch,
        num_train_epochs=recipe.epochs,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=round(0.05 * steps),
        completion_only_loss=True,
        save_steps=max(1, round(steps / CHECKPOINTS)),
        save_total_limit=1,
        report_to="none",
        logging_strategy="no",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        bf16=torch.cuda.is_available(),
        seed=seed,
        data_seed=seed,
    )
    trainer = SFTTrainer(
        AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        args=settings,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=adapters(recipe.rank),
        callbacks=[told(progress)] if progress else None,
    )
    trainer.remove_callback(PrinterCallback)
    out.mkdir(parents=True, exist_ok=True)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(out)))
    done = out / "final"
    trainer.save_model(str(done))
    tokenizer.save_pretrained(done)
    return done


def of_trl(*names: str) -> list[Any]:
    """Classes of TRL, and of all that it stands on no bars and no chatter: we show progress ourselves."""
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of a newer vLLM than it knows, which it does not use here
        import trl

        return [getattr(trl, name) for name in names]


def asked(tokenizer: Any, lesson: Lesson, style: Style) -> str:
    """The text that an agent's engine would give its model for this lesson's question at its preference."""
    messages: tuple[Message, ...] = (Message("user", prompt(lesson.question)),)
    if lesson.alpha is not None:
        messages = prompted(messages, lesson.alpha, style)
    chat = [{"role": message.role, "content": message.content} for message in messages]
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))


def adapters(rank: int | None) -> Any:
    """What PEFT is told: adapters of this rank on every linear layer; None where all weights are trained."""
    if rank is None:
        return None
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")


def told(progress: Progress) -> Any:
    """A trainer's callback that tells of each step."""
    from transformers import TrainerCallback

    class Told(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            progress(state.global_step, state.max_steps)

    return Told()
