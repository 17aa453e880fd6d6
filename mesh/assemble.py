"""From a checked configuration to what an agent is built from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from agents.calibration import Calibration
from agents.engines.base import Setup
from agents.errors import ConfigError
from agents.messages import Card
from agents.node import Settings
from agents.policies.cells import restored
from agents.policies.guard import Screen
from agents.profile import Profile
from agents.spec import AgentSpec, check
from mesh.config import AgentConfig, MeshConfig

WITHOUT_GPUS = ("scripted", "measured", "openai", "replay", "mesh")  # engines whose work, if any, is done elsewhere


def models_folder(given: str | Path | None) -> Path | None:
    """Where models are looked for before the hub, ``MESH_MODELS`` where nothing is given: a path that does not depend
    on who uses it, since other processes have another environment and another working directory.
    """
    folder = given or os.environ.get("MESH_MODELS")
    return Path(folder).expanduser().resolve() if folder else None


def agent_specs(config: MeshConfig, models_dir: Path | None = None) -> dict[str, AgentSpec]:
    """One spec for every agent of ``config``; files of calibrations, profiles and learnt values are read here, so that
    what is in them travels.

    Raises:
        ConfigError: a plug-in's option is wrong, or a calibration or a profile cannot be read.
    """
    return {agent.name: agent_spec(config, agent, models_dir) for agent in config.agents}


def agent_spec(config: MeshConfig, agent: AgentConfig, models_dir: Path | None = None) -> AgentSpec:
    """The spec of one agent; it need not be one of ``config``'s own (an agent that joins)."""
    limits = config.limits_for(agent)
    options: dict[str, Any] = dict(agent.assessor.options)
    mean_work = agent.mean_work
    if isinstance(options.get("calibration"), str | Path):
        options["calibration"] = Calibration.load(options["calibration"]).to_json()
        if "mean_work" not in agent.model_fields_set:
            mean_work = options["calibration"]["meta"].get("mean_work") or mean_work
    policy = (agent.policy.kind, dict(agent.policy.options))
    if isinstance(values := policy[1].get("values"), str | Path):
        policy[1]["values"] = restored(values)
    if config.guard is not None:
        policy = ("guard", {"screen": Screen.load(config.guard), "policy": policy[0], "options": policy[1]})
    spec = AgentSpec(
        Card(agent.name, agent.cost, mean_work, profile=Profile.load(agent.profile) if agent.profile else None),
        Setup(agent.name, agent.model, agent.local_name, models_dir, agent.adapter, config.seed, config.name),
        (agent.engine.kind, dict(agent.engine.options)),
        policy,
        (agent.assessor.kind, options),
        Settings(
            agent.prompt,
            agent.temperature,
            config.seed,
            limits.running,
            limits.waiting,
            limits.stall_s,
            limits.brownout,
        ),
        agent.context,
        limits.lease_s,
        limits.tick_s,
        _gpus(agent),
        agent.num_cpus,
        dict(agent.resources),
        agent.replicas,
        agent.autoscale,
    )
    check(spec)
    return spec


def _gpus(agent: AgentConfig) -> float | None:
    """How many GPUs it asks for, all on one node; None: one where the cluster has any.

    Raises:
        ConfigError: they are not as many as its engine splits its model over.
    """
    split = agent.engine.options.get("tensor_parallel_size", 1)
    if not isinstance(split, int) or isinstance(split, bool) or split < 1:
        raise ConfigError(f"agent {agent.name!r}: tensor_parallel_size: {split!r}; it must be a whole number >= 1")
    if agent.num_gpus == "auto":
        return 0.0 if agent.engine.kind in WITHOUT_GPUS else float(split) if split > 1 else None
    if split > 1 and agent.num_gpus not in (0, split):
        raise ConfigError(
            f"agent {agent.name!r}: num_gpus: {agent.num_gpus:g}; it must be {split}, the tensor_parallel_size of its "
            "engine, or auto, or on CPUs 0"
        )
    return float(agent.num_gpus)
