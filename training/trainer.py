"""What both stages of training share: TRL without its chatter, settings, LoRA, and going on at the last checkpoint."""

from __future__ import annotations

import hashlib
import json
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from agents.errors import ConfigError

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
        "save_total_limit": 2,
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


def same_run(path: Path, told: Mapping[str, Any]) -> None:
    """Write down what a run does, where none has begun; what is at ``path`` must be told alike.

    Raises:
        ConfigError: another run has begun there; names what differs.
    """
    told = json.loads(json.dumps(told))
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        return
    begun = json.loads(path.read_text(encoding="utf-8"))
    for name in (*told, *begun):
        if told.get(name) != begun.get(name):
            raise ConfigError(
                f"out: {path.parent} holds a run whose {name} is {begun.get(name)!r}, not {told.get(name)!r}: "
                "choose another folder, or remove that one"
            )


def finish(
    trainer: Any, tokenizer: Any, out: Path, told: Mapping[str, Any], rows: Sequence[Any], progress: Progress | None
) -> Path:
    """Train from the last checkpoint under ``out``, where there is one; the folder that comes back has the result, a
    whole model. ``told`` and ``rows`` tell one run from another.

    Raises:
        ConfigError: ``out`` holds another run.
    """
    from transformers import PrinterCallback, TrainerCallback
    from transformers.trainer_utils import get_last_checkpoint

    class Told(TrainerCallback):
        """Tells of each step."""

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if progress is not None:
                progress(state.global_step, state.max_steps)

    same_run(out / "run.json", {**told, "rows": len(rows), "data": hashlib.sha256(repr(rows).encode()).hexdigest()})
    for checkpoint in out.glob("checkpoint-*"):
        if not (checkpoint / "trainer_state.json").exists():  # it is written last: the worker died before
            shutil.rmtree(checkpoint)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Told())
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(out)))
    done, model = out / "final", trainer.model
    if hasattr(model, "merge_and_unload"):  # PEFT's
        model = model.merge_and_unload()
    model.save_pretrained(done)
    tokenizer.save_pretrained(done)
    return done
