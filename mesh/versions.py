"""Versions of an agent: what training ends in, and a running mesh is given."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

from agents.calibration import Calibration
from agents.errors import ConfigError
from agents.prompts import Style
from agents.spec import AgentSpec, Plugin


@dataclass(frozen=True, slots=True)
class Version:
    """What an agent's training ends in: an adapter (None: the bare model), and where they change along with it, the
    assessor with its calibration, and how alpha is told.
    """

    adapter: Path | None
    assessor: Plugin | None = None
    prompt: Style | None = None

    def of(self, spec: AgentSpec) -> AgentSpec:
        """An agent that serves this version."""
        return replace(
            spec,
            setup=replace(spec.setup, adapter=self.adapter),
            assessor=self.assessor or spec.assessor,
            settings=replace(spec.settings, prompt=self.prompt or spec.settings.prompt),
        )


def read_version(adapter: str | Path | None) -> Version:
    """The version in a folder: an adapter and, where training has put ``agent.json`` beside it, how it assesses itself
    and is told alpha.

    Raises:
        ConfigError: ``agent.json`` cannot be read.
    """
    if adapter is None:
        return Version(None)
    folder = Path(adapter).resolve()
    file = folder / "agent.json"
    if not file.exists():
        return Version(folder)
    try:
        told = json.loads(file.read_text(encoding="utf-8"))
        kind, prompt = told["assessor"], told["prompt"]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file}: {error!r}; it must be an object with 'assessor' and 'prompt'") from None
    return Version(folder, (kind, {"calibration": Calibration.load(folder / "calibration.json").to_json()}), prompt)
