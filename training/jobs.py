"""One agent's training: its plan, and its stages. A stage whose mark is there is not done again, and one that broke
off goes on at its last checkpoint.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from dataclasses import KW_ONLY, asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from agents.plugins import build
from agents.prompts import Style
from mesh.config import MeshConfig, alone, with_overrides
from mesh.questions import Question
from training.calibrate import calibrate
from training.examine import by_the_hundred, forced
from training.label import SIZE, choices, lessons
from training.rewards import REWARDS
from training.rl import RlRecipe, rl
from training.sample import SAMPLES, Experience, experience, once, sample
from training.sft import SftRecipe, bare_model, sft, style_of
from training.trainer import as_kept, digest, same_run

STAGES = ("sample", "sft", "rl", "calibrate", "publish")
POLL_S = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """How agents are trained: ``questions`` to sample, ``validation`` for their calibration. ``others`` they are asked
    once: half of what they are taught and rehearse is of these, and they are rewarded on them too. ``nonsense`` they
    are taught to refuse.

    A recipe that is None leaves its stage out. ``alphas`` are the preferences in lessons (None: any), ``style`` is how
    they are told (None: as the pool's models can read it), ``reasons`` makes refusals say what is hard.
    """

    questions: tuple[Question, ...]
    validation: tuple[Question, ...]
    _: KW_ONLY
    others: tuple[Question, ...] = ()
    nonsense: tuple[Question, ...] = ()
    samples: int = SAMPLES
    size: int = SIZE
    sft: SftRecipe | None = field(default_factory=SftRecipe)
    rl: RlRecipe | None = field(default_factory=RlRecipe)
    reward: str = "localized"
    alphas: tuple[float, ...] | None = None
    style: Style | None = None
    reasons: bool = False
    seed: int = 0
    threads: int = 1


@dataclass(frozen=True, slots=True)
class Job:
    """One agent's training."""

    config: MeshConfig
    agent: str
    plan: Plan
    out: Path
    models_dir: Path | None

    @property
    def done(self) -> bool:
        """Whether its last stage is."""
        return mark(self.out, STAGES[-1]).exists()

    def run(self, stage: str) -> None:
        """Do one stage, unless it is done."""
        same_run(self.out / "plan.json", self.facts())
        done = mark(self.out, stage)
        if not done.exists():
            began = time.monotonic()
            getattr(self, f"_{stage}")(_Told(self.out / "progress.json", stage))
            done.write_text(f"{time.monotonic() - began:.0f}\n", encoding="utf-8")

    def _sample(self, told: _Told) -> None:
        plan = self.plan
        config = by_the_hundred(with_overrides(self.config, runtime="local"))
        sample(
            config, self.agent, plan.questions, self.out / "samples", self.models_dir, plan.samples, seed=plan.seed,
            progress=told, others=plan.others,
        )  # fmt: skip

    def _sft(self, told: _Told) -> None:
        plan = self.plan
        if plan.sft is None:
            return
        taught = lessons(
            self._experience(), plan.size, plan.alphas, plan.sft.rehearsal, plan.seed,
            self.style if plan.reasons else None, once(self.out / "samples", plan.others), plan.nonsense,
        )  # fmt: skip
        sft(self._bare(), taught, self.out / "sft", plan.sft, progress=told, **self._how())

    def _rl(self, told: _Told) -> None:
        plan, recipe = self.plan, self.rl_recipe
        if recipe is None:
            return
        begun = self._bare() if plan.sft is None else self.out / "sft" / "final"
        steps = recipe.steps * recipe.prompts
        met = choices(self._met(told), steps, plan.alphas, recipe.rehearsal, plan.seed, plan.nonsense)
        reward = build(REWARDS, plan.reward, "reward")
        rl(begun, met, self.out / "rl", recipe, reward=reward, progress=told, **self._how())

    def _met(self, told: _Told) -> list[Experience]:
        """Its questions, and whether it is right now where it must answer: before stage one that was not quite so,
        unless only the beginnings of answers were taught.
        """
        plan = self.plan
        asked = [*self._experience(), *once(self.out / "samples", plan.others)]
        if plan.sft is None or plan.sft.target_tokens is not None:
            return asked
        kept = self.out / "begun"
        shutil.rmtree(kept, ignore_errors=True)
        as_kept(self.out / "sft" / "final", kept, self._bare(), self.model_name)
        config, replies = self.served(kept), self.out / "truth" / digest(kept)[:12]
        right = forced(config, config.agents[0], (one.question for one in asked), replies, self.models_dir, told)
        return [replace(one, forced=right[one.question.id]) for one in asked if one.question.id in right]

    def _experience(self) -> list[Experience]:
        return experience(self.out / "samples", self.plan.questions)

    def _how(self) -> dict[str, Any]:
        return {"style": self.style, "seed": self.plan.seed, "threads": self.plan.threads}

    def _bare(self) -> Path:
        return bare_model(self.config, self.agent, self.models_dir)

    def _calibrate(self, told: _Told) -> None:
        """Examine what is about to be published."""
        stages = [name for name in ("sft", "rl") if getattr(self.plan, name) is not None]
        shutil.rmtree(self.candidate, ignore_errors=True)
        for stage, place in zip(reversed(stages), (self.candidate, self.candidate / "sft"), strict=False):
            as_kept(self.out / stage / "final", place, self._bare(), self.model_name)
        replies = self.out / "calibration" / digest(self.candidate)[:12]  # those of other weights are none of these
        (result,) = calibrate(
            self.served(self.candidate), self.plan.validation, replies, self.models_dir,
            progress=lambda _, done, total: told(done, total),
        )  # fmt: skip
        shutil.copy(result.path, self.candidate / "calibration.json")
        packages = {name: version(name) for name in ("torch", "transformers", "trl", "peft")}
        serving = {"assessor": "first_token", "prompt": self.style}
        model = {"model": self.model_name, "weights_sha256": digest(self.candidate)}
        seconds = {stage: int(mark(self.out, stage).read_text(encoding="utf-8")) for stage in ("sample", *stages)}
        facts = {**self.facts(), "seconds": seconds, "packages": packages}
        report = {"agent": self.agent, **model, **facts, "calibration": result.meta}
        for name, content in {"agent": serving, "report": report}.items():
            (self.candidate / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")

    def _publish(self, told: _Told) -> None:
        """Give it a place of its own that never changes: a version is named by its weights."""
        if self.candidate.exists():  # else it broke off after the move
            (self.out / "current").write_text(digest(self.candidate)[:12] + "\n", encoding="utf-8")
            self.version.parent.mkdir(exist_ok=True)
            if not self.version.exists():
                self.candidate.rename(self.version)
        told(1, 1)

    @property
    def rl_recipe(self) -> RlRecipe | None:
        """Its plan's, with its pool's ``max_tokens`` where that says none; drafts that fewer cut off are not graded."""
        planned, most = self.plan.rl, self.config.max_tokens
        if planned is None:
            return None
        tokens = planned.max_tokens or most
        return replace(planned, max_tokens=tokens, forced=planned.forced if tokens >= most else 1.0)

    @property
    def style(self) -> Style:
        """How it is told alpha."""
        return self.plan.style or style_of(self.config)

    @property
    def model_name(self) -> str:
        """Its bare model's name on the hub, or the last folders of its place here."""
        model = self.config.named(self.agent).model
        return "/".join(Path(model).parts[-2:]) if Path(model).is_absolute() else model

    @property
    def candidate(self) -> Path:
        """What is examined, and then published; ``sft`` in it is what stage one alone had taught."""
        return self.out / "candidate"

    @property
    def version(self) -> Path:
        """The folder of what was published last: its weights, ``calibration.json``, ``report.json``."""
        return current(self.out)

    def serving(self, version: Path) -> dict[str, Any]:
        """The settings with which its agent serves a version."""
        calibration = version / "calibration.json"
        told = {"calibration": str(calibration.resolve())} if calibration.exists() else {}
        return {
            "adapter": str(version.resolve()),
            "prompt": self.style,
            "policy": "reliability",
            "assessor": {"kind": "first_token", **told},
        }

    def served(self, version: Path) -> MeshConfig:
        """A mesh of its agent alone, in this process, with a version."""
        local = by_the_hundred(with_overrides(self.config, runtime="local"))
        return alone(local, local.named(self.agent), **self.serving(version))

    def facts(self) -> dict[str, Any]:
        """What tells this run from another."""
        ids = "\n".join(f"{question.id} {question.answer}" for question in self.plan.questions)
        plan = self.plan
        return {
            "questions": len(plan.questions),
            "others": len(plan.others),
            "nonsense": len(plan.nonsense),
            "data_sha256": hashlib.sha256(ids.encode()).hexdigest(),
            "samples": plan.samples,
            "size": plan.size,
            "sft": plan.sft and asdict(plan.sft),
            "rl": self.rl_recipe and asdict(self.rl_recipe),
            "reward": plan.reward,
            "alphas": plan.alphas or "any",
            "style": self.style,
            "reasons": plan.reasons,
            "seed": plan.seed,
        }


class _Told:
    """Writes progress where the driver reads it, now and then."""

    def __init__(self, path: Path, stage: str) -> None:
        self.path, self.stage, self._last = path, stage, 0.0

    def __call__(self, done: int, total: int) -> None:
        if done == total or time.monotonic() - self._last > POLL_S:
            self._last = time.monotonic()
            new = self.path.with_suffix(".tmp")
            told = {"stage": self.stage, "done": done, "all": total, "pid": os.getpid()}
            new.write_text(json.dumps(told), encoding="utf-8")
            new.replace(self.path)


def mark(folder: Path, stage: str) -> Path:
    """The file that says that a stage of an agent's training is done, and how many seconds it took (since it was last
    begun).
    """
    return folder / f"{stage}.done"


def current(folder: Path) -> Path:
    """The version that an agent's training has published last."""
    return folder / "versions" / (folder / "current").read_text(encoding="utf-8").strip()
