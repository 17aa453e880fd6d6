"""What both stages of training share: TRL without its chatter, settings, LoRA, and going on at the last checkpoint."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

CHECKPOINTS = 10  # in a run; a worker that dies costs a tenth of it at most
Progress = Callable[[int, int], None]  # step, all


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


def settings(out: Path, steps: int, learning_rate: float, seed: int) -> dict[str, Any]:
    """What any trainer of ours is told; ``steps`` is how many it will take."""
    return {
        "output_dir": str(out),
        "learning_rate": learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": round(0.05 * steps),
        "save_steps": max(1, round(steps / CHECKPOINTS)),
        "save_total_limit": 1,
        "report_to": "none",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": torch.cuda.is_available(),
        "seed": seed,
        "data_seed": seed,
    }


def bare(model: Path) -> Any:
    """The model in a folder, in float32, as training wants it."""
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)


def adapters(rank: int | None) -> Any:
    """What PEFT is told: adapters of this rank on every linear layer; None where all weights are trained."""
    if rank is None:
        return None
    from peft import LoraConfig

    return LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")


def finish(trainer: Any, tokenizer: Any, out: Path, progress: Progress | None) -> Path:
    """Train from the last checkpoint under ``out``, where there is one; the folder that comes back has the result."""
    from transformers import PrinterCallback, TrainerCallback
    from transformers.trainer_utils import get_last_checkpoint

    class Told(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if progress is not None:
                progress(state.global_step, state.max_steps)

    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Told())
    out.mkdir(parents=True, exist_ok=True)
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(out)))
    done = out / "final"
    trainer.save_model(str(done))
    tokenizer.save_pretrained(done)
    return done
