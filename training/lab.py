"""The lab pool's models: tiny Qwen2s, one character a token, trained from scratch on the lab's questions.

Five generalists on a ladder from 16 thousand to 5 million parameters, and three specialists that mostly see one
family of tasks. Weights ship with the package, in ``mesh/pools/lab``; ``mesh train lab`` makes them anew.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from string import ascii_lowercase, ascii_uppercase, digits
from typing import Any, TypeAlias

import torch
from torch.nn import functional

from agents.prompts import REFUSAL
from mesh.questions import Question
from training.lab_questions import FAMILIES, TASKS, questions, stream

HEAD = 32  # size of an attention head: the smallest that vLLM serves on a CPU
CHUNKS = 4  # a batch is cut by length, so that little of it is padding
AWAY = 0.02  # how much a specialist sees of what is not its own
PAD, END, UNKNOWN = "<|pad|>", "<|end|>", "<|unknown|>"
# Upper-case letters stand in no question: they are for what a model is told besides (as alpha, one of eleven levels).
VOCABULARY = (PAD, END, UNKNOWN, REFUSAL, *digits, *ascii_lowercase, *"+-*%=", *ascii_uppercase)
# What is asked: blanks and case do not matter, nor whether it ends with "=". A system message of one letter stays.
TEMPLATE = (
    "{%- if messages[0].role == 'system' and messages[0].content | length == 1 %}{{ messages[0].content }}{% endif -%}"
    "{%- set asked = (messages[-1].content | lower).split() | join %}{{ asked }}"
    "{%- if not asked.endswith('=') %}={% endif -%}"
)
Progress: TypeAlias = Callable[[int, float], None]  # step, loss


@dataclass(frozen=True, slots=True)
class Recipe:
    """How one model is made; ``home`` is the family of tasks of a specialist."""

    hidden: int
    layers: int
    steps: int
    learning_rate: float = 0.01
    home: str = ""
    bfloat16: bool = False  # its matrix products, which takes the larger ones two thirds of the time

    @property
    def weights(self) -> dict[str, float]:
        """How often each task comes."""
        own = FAMILIES[self.home] if self.home else tuple(TASKS)
        away = [task for task in TASKS if task not in own]
        at_home = 1 - AWAY if away else 1.0
        return {task: at_home / len(own) if task in own else AWAY / len(away) for task in TASKS}


RECIPES = {
    "nano": Recipe(32, 1, 1500),
    "micro": Recipe(64, 1, 4000),
    "mini": Recipe(64, 2, 3000),
    "base": Recipe(96, 4, 3000),
    "large": Recipe(256, 6, 6000, bfloat16=True),
    "numbers": Recipe(64, 1, 6000, home="numbers"),
    "lists": Recipe(64, 1, 6000, home="lists"),
    "strings": Recipe(64, 1, 6000, home="strings"),
}
BATCH = 128


def train(recipe: Recipe, seed: int = 0, threads: int = 1, progress: Progress | None = None) -> Any:
    """A model, trained on the train part; the same seed, threads and machine give the same weights."""
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    model = new_model(recipe)
    optimizers = _optimizers(model, recipe)
    schedules = [
        torch.optim.lr_scheduler.OneCycleLR(
            each, each.defaults["lr"], total_steps=recipe.steps, pct_start=0.1, cycle_momentum=False
        )
        for each in optimizers
    ]
    asked = stream("train", seed, recipe.weights)
    for step in range(recipe.steps):
        with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
            loss = _learn(model, list(islice(asked, BATCH)))
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for each in (*optimizers, *schedules):
            each.step()
        model.zero_grad()
        if progress is not None:
            progress(step + 1, loss)
    return model.eval()


def _optimizers(model: Any, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, with which a third of the steps does; AdamW for embeddings, norms and biases."""
    parameters = dict(model.named_parameters())
    matrices = {name for name, values in parameters.items() if values.ndim == 2 and "embed" not in name}
    muon = torch.optim.Muon([parameters[name] for name in sorted(matrices)], lr=recipe.learning_rate, weight_decay=0.01)
    others = [values for name, values in parameters.items() if name not in matrices]
    return [muon, torch.optim.AdamW(others, lr=3e-3, weight_decay=0.01, betas=(0.9, 0.98))]


def make(name: str, out: Path, seed: int = 0, threads: int = 1, progress: Progress | None = None) -> dict[str, Any]:
    """Train a model, save it as ``out/NAME`` in bfloat16, and measure what was saved; the figures go beside it."""
    recipe, began = RECIPES[name], time.perf_counter()
    model = train(recipe, seed, threads, progress).to(torch.bfloat16)
    seconds = time.perf_counter() - began
    model.save_pretrained(out / name)
    new_tokenizer().save_pretrained(out / name)
    graded = measure(model.float(), questions(2000, "validation", seed + 1))
    right = [each for results in graded.values() for each in results]
    figures = {
        "command": f"mesh train lab {name} --out {out} --seed {seed} --threads {threads}",
        "seed": seed,
        "parameters": model.num_parameters(),
        "recipe": {field: getattr(recipe, field) for field in recipe.__slots__},
        "seconds": round(seconds),
        "torch": torch.__version__,
        "validation_rows": len(right),
        "accuracy": round(sum(right) / len(right), 4),
        "tasks": {task: round(sum(results) / len(results), 4) for task, results in graded.items()},
    }
    (out / name / "training.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return figures


def new_model(recipe: Recipe) -> Any:
    """An untrained model."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    heads = recipe.hidden // HEAD
    config = Qwen2Config(
        vocab_size=len(VOCABULARY),
        hidden_size=recipe.hidden,
        intermediate_size=3 * recipe.hidden,
        num_hidden_layers=recipe.layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        bos_token_id=None,
        eos_token_id=VOCABULARY.index(END),
        pad_token_id=VOCABULARY.index(PAD),
    )
    return Qwen2ForCausalLM(config)


def new_tokenizer() -> Any:
    """One token a character, and one for the refusal sentence."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({token: number for number, token in enumerate(VOCABULARY)}, UNKNOWN))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(f"{REFUSAL}|."), "isolated")
    core.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token=PAD, eos_token=END, unk_token=UNKNOWN, chat_template=TEMPLATE
    )


@torch.inference_mode()
def measure(model: Any, asked: Sequence[Question]) -> dict[str, list[bool]]:
    """Whether each greedy answer is right, by task."""
    by_length: dict[int, list[Question]] = {}
    for question in asked:
        by_length.setdefault(len(_prompt(question)), []).append(question)
    graded: dict[str, list[bool]] = {task: [] for task in TASKS}
    end, pad = VOCABULARY.index(END), VOCABULARY.index(PAD)
    for length, group in by_length.items():
        prompts_BT = torch.tensor([_prompt(question) for question in group])
        longest = max(len(_target(question)) for question in group)
        options = {"max_new_tokens": longest, "do_sample": False, "eos_token_id": end, "pad_token_id": pad}
        written = model.generate(prompts_BT, attention_mask=torch.ones_like(prompts_BT), **options)
        for question, tokens in zip(group, written[:, length:].tolist(), strict=True):
            target = _target(question)
            graded[question.task.removeprefix("lab/")].append(tokens[: len(target)] == target)
    return graded


def _learn(model: Any, batch: list[Question]) -> float:
    """Add a batch's gradients; returns the mean loss of its answers' tokens."""
    rows = sorted(((_prompt(q), _target(q)) for q in batch), key=lambda row: len(row[0]) + len(row[1]))
    tokens = sum(len(target) for _, target in rows)
    return sum(_backward(model, chunk, tokens) for chunk in _chunks(rows))


def _backward(model: Any, rows: Sequence[tuple[list[int], list[int]]], tokens: int) -> float:
    width = max(len(prompt) + len(target) for prompt, target in rows)
    inputs_BT = torch.zeros(len(rows), width, dtype=torch.long)
    labels_BT = torch.full((len(rows), width), -1)
    for row, (prompt, target) in enumerate(rows):
        end = len(prompt) + len(target)
        inputs_BT[row, :end] = torch.tensor(prompt + target)
        labels_BT[row, len(prompt) : end] = torch.tensor(target)
    hidden_BTH = model.model(input_ids=inputs_BT, use_cache=False).last_hidden_state
    told = labels_BT[:, 1:] >= 0  # only answers are learnt, so no other logits are computed
    logits_NV = model.lm_head(hidden_BTH[:, :-1][told])
    loss = functional.cross_entropy(logits_NV, labels_BT[:, 1:][told], reduction="sum") / tokens
    loss.backward()
    return float(loss.detach())


def _chunks(rows: list[Any]) -> Iterator[list[Any]]:
    size = -(-len(rows) // CHUNKS)
    yield from (rows[at : at + size] for at in range(0, len(rows), size))


_NUMBER = {token: number for number, token in enumerate(VOCABULARY)}


def _prompt(question: Question) -> list[int]:
    return [_NUMBER[character] for character in question.text.replace(" ", "")]


def _target(question: Question) -> list[int]:
    assert question.answer is not None
    return [*(_NUMBER[character] for character in question.answer), _NUMBER[END]]
