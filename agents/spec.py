"""All it takes to build one agent, as a value that travels; and the building."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from agents.assess import ASSESSORS, Assessor, Likelihood
from agents.engines import ENGINES
from agents.engines.base import Engine, Setup
from agents.errors import ConfigError
from agents.host import Host, Transport
from agents.messages import Card
from agents.node import Links, Node, Settings
from agents.plugins import build
from agents.policies import POLICIES, Policy

Plugin = tuple[str, Mapping[str, Any]]  # kind, options


@dataclass(frozen=True, slots=True)
class AgentSpec:
    """One agent: its card, its plug-ins, and what it needs of a machine.

    ``context`` None takes the engine's. ``lease_s`` and ``tick_s`` are those of the ``Host``.
    """

    card: Card
    setup: Setup
    engine: Plugin
    policy: Plugin = ("reliability", {})
    assessor: Plugin = ("refusal", {})
    settings: Settings = field(default_factory=Settings)
    context: int | None = None
    lease_s: float = 15.0
    tick_s: float = 0.25
    num_gpus: float | None = None  # None: one where the cluster has GPUs, else none
    num_cpus: float = 0.0
    resources: Mapping[str, float] = field(default_factory=dict)
    replicas: int = 1  # to begin with
    autoscale: Any = None  # how their number changes by itself (``mesh.autoscale``)

    @property
    def name(self) -> str:
        return self.card.name


def check(spec: AgentSpec) -> tuple[Policy, Assessor]:
    """Build policy and assessor, which need no model, so that a wrong option is told before anything is loaded.

    Raises:
        ConfigError: names the agent, the plug-in and the option.
    """
    policy: Policy = build(POLICIES, spec.policy[0], f"agent {spec.name!r}: policy", **spec.policy[1])
    assessor: Assessor = build(ASSESSORS, spec.assessor[0], f"agent {spec.name!r}: assessor", **spec.assessor[1])
    try:
        inspect.signature(policy.decide).bind("view")
    except TypeError as error:
        raise ConfigError(
            f"agent {spec.name!r}: policy {spec.policy[0]!r}: decide must take the view alone ({error}); "
            "what it does at random follows from view.seed"
        ) from None
    if policy.needs_probability and not assessor.gives_probability:
        able = ", ".join(name for name, kind in ASSESSORS.items() if kind.gives_probability)
        raise ConfigError(
            f"agent {spec.name!r}: policy {spec.policy[0]!r} needs a probability, which assessor "
            f"{spec.assessor[0]!r} does not give: use {able}, or policy 'refusal'"
        )
    return policy, assessor


async def serve(host: Host, spec: AgentSpec) -> None:
    """Have an agent serve the adapter, the assessor and the prompt of ``spec``; the rest of it stays as it is.

    Raises:
        ConfigError: they do not agree. AdapterError: the adapter does not fit; nothing has changed.
    """
    await host.serve(spec.setup.adapter, check(spec)[1], spec.settings)


async def open_host(spec: AgentSpec, links: Links, transport: Transport) -> Host:
    """Load the engine and put a host around it.

    Raises:
        ConfigError: an option is wrong, the model cannot be had, or the engine lacks what the assessor needs.
    """
    policy, assessor = check(spec)
    engine: Engine = build(ENGINES, spec.engine[0], f"agent {spec.name!r}: engine", spec.setup, **spec.engine[1])
    try:
        able = await engine.start()
        missing = assessor.needs - {name for name in ("logprobs", "scores") if getattr(able, name)}
        if policy.assesses and missing:
            raise ConfigError(
                f"agent {spec.name!r}: assessor {spec.assessor[0]!r} needs {', '.join(sorted(missing))}, "
                f"which engine {spec.engine[0]!r} does not give: use assessor 'refusal' or another engine"
            )
    except BaseException:  # also where the mesh is closed meanwhile
        await engine.close()
        raise
    context = min(able.context, spec.context or able.context)
    card = replace(spec.card, context=context, learns=policy.learns)
    kind: type[Node] = getattr(engine, "node", Node)
    node = kind(card, links, policy, assessor, spec.settings, checks(policy) if able.logprobs else None)
    return Host(node, engine, transport, spec.lease_s, spec.tick_s)


def checks(policy: Policy) -> Assessor | None:
    """How an agent judges its drafts, if its policy wants to know."""
    return Likelihood() if policy.staged else None
