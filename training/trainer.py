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

from agents.engines.models import load_model
from agents.errors import ConfigError, MeshError

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
        import trl.trainer.utils as utils

        if not torch.cuda.is_available():
            # else every position is scored, whatever is learnt of it: with a vocabulary of 150,000 half of a step
            utils._use_triton = lambda device: True  # there it only says whether to leave out what has no label
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
        "bf16": torch.cuda.is_available() and bfloat16(),
        "gradient_checkpointing": torch.cuda.is_available(),  # memory for time, which small models need not pay
        "seed": seed,
        "data_seed": seed,
    }


def parts(whole: int, at_once: int | None) -> dict[str, int]:
    """How a batch of ``whole`` rows is cut into steps of ``at_once``, whose gradients add up. None: not at all.

    Raises:
        ConfigError: it cannot be cut evenly.
    """
    at_once = min(at_once or whole, whole)
    if whole % at_once:
        raise ConfigError(f"at_once: {at_once} rows do not divide a batch of {whole}")
    return {"per_device_train_batch_size": at_once, "gradient_accumulation_steps": whole // at_once}


def bare(model: Path, rank: int | None, seed: int) -> Any:
    """The model in a folder, as training wants it: all its weights in float32; with adapters of ``rank`` on every
    linear layer, where there is one. A folder with such adapters is trained further.
    """
    begun = adapted(model)
    dtype = torch.bfloat16 if rank is not None and bfloat16() else torch.float32
    weights = load_model(begun or model, dtype)
    if rank is None:
        return weights
    from peft import LoraConfig, PeftModel, get_peft_model

    torch.manual_seed(seed)  # of the adapters' own weights
    if begun is not None:
        return PeftModel.from_pretrained(weights, str(model), is_trainable=True)
    wanted = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(weights, wanted)


def bfloat16() -> bool:
    """Whether this machine calculates in bfloat16 faster than in float32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported())


def adapted(folder: Path) -> Path | None:
    """The folder of the model that the adapters in this one belong to; None where it holds a model of its own."""
    config = folder / "adapter_config.json"
    if not config.exists():
        return None
    return Path(json.loads(config.read_text(encoding="utf-8"))["base_model_name_or_path"])


def as_kept(trained: Path, out: Path, like: Path, name: str) -> None:
    """A copy of trained weights to keep: in the precision in which their bare model ``like`` is kept, and of adapters
    only what belongs to them, with the ``name`` of their model instead of its place here.
    """
    from safetensors.torch import load_file, save_file

    out.mkdir(parents=True)
    lora = adapted(trained) is not None
    for file in trained.iterdir():
        if not lora or file.name.startswith("adapter"):
            shutil.copy(file, out / file.name)
    dtype = next(iter(load_file(next(iter(sorted(like.glob("*.safetensors"))))).values())).dtype
    if lora:
        told = json.loads((out / "adapter_config.json").read_text(encoding="utf-8"))
        told |= {"base_model_name_or_path": name}
        (out / "adapter_config.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    for file in out.glob("*.safetensors"):
        weights = {key: values.to(dtype) for key, values in load_file(file).items()}
        save_file(weights, file, metadata={"format": "pt"})


def digest(folder: Path) -> str:
    """A hash of the weights in a folder."""
    content = hashlib.sha256()
    for file in sorted(folder.glob("*.safetensors")):
        content.update(file.read_bytes())
    return content.hexdigest()


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
    """Train from the last checkpoint under ``out``, where there is one; the folder that comes back has the result: a
    model, or adapters of one. ``told`` and ``rows`` tell one run from another.

    Raises:
        ConfigError: ``out`` holds another run. MeshError: its weights ceased to be numbers.
    """
    from transformers import PrinterCallback, TrainerCallback
    from transformers.trainer_utils import get_last_checkpoint

    class Told(TrainerCallback):
        """Tells of each step; ends a run whose weights are lost, before they are kept."""

        def on_step_end(self, args: Any, state: Any, control: Any, model: Any, **_: Any) -> None:
            if not all(bool(w.isfinite().all()) for w in model.parameters() if w.requires_grad):
                raise MeshError(f"step {state.global_step}: some weights are no numbers any more")
            if progress is not None:
                progress(state.global_step, state.max_steps)

    same_run(out / "run.json", {**told, "rows": len(rows), "data": hashlib.sha256(repr(rows).encode()).hexdigest()})
    for checkpoint in out.glob("checkpoint-*"):
        if not (checkpoint / "trainer_state.json").exists():  # it is written last: the worker died before
            shutil.rmtree(checkpoint)
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(Told())
    trainer.train(resume_from_checkpoint=get_last_checkpoint(str(out)))
    done = out / "final"
    trainer.model.save_pretrained(done)
    tokenizer.save_pretrained(done)
    return done
