"""What a mesh is made of: YAML in, checked and frozen models out.

Every setting is checked when it is loaded, all problems are reported at once, and each names its key, its
value, its file, line and column, and what would be right.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    model_validator,
)

from agents.assess import ASSESSORS
from agents.engines import ENGINES
from agents.errors import ConfigError, NotUnderstood
from agents.plugins import build, resolve
from agents.policies import POLICIES
from agents.prompts import Style
from mesh.autoscale import Autoscale
from mesh.pluginspec import Plugin, Spec, absolute
from mesh.yamlsource import Source, Wrong, refused
from topologies import TOPOLOGIES, Topology, TopologyError

__all__ = ["AgentConfig", "Limits", "MeshConfig", "Spec", "load", "pools", "with_overrides"]


# ---------------------------------------------------------------------------------- models


def _gpus(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if value == "auto":
        return value
    if number and value >= 0 and (value <= 1 or value == int(value)):
        return float(value)
    raise ValueError("should be 'auto', a fraction of one GPU, or a whole number of GPUs >= 0")


def _model(value: str, info: ValidationInfo) -> str:
    return str(absolute(Path(value), info)) if value.startswith((".", "/", "~")) else value


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"should be a regular expression: {error}") from error
    return value


File: TypeAlias = Annotated[Path, AfterValidator(absolute)]
Count: TypeAlias = Annotated[int, Field(strict=True, ge=1, description="a whole number >= 1")]
Natural: TypeAlias = Annotated[int, Field(strict=True, ge=0, description="a whole number >= 0")]
Real: TypeAlias = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive: TypeAlias = Annotated[Real, Field(gt=0, description="a number > 0")]
NotNegative: TypeAlias = Annotated[Real, Field(ge=0, description="a number >= 0")]
Seconds: TypeAlias = Annotated[Real, Field(gt=0, description="a number of seconds > 0")]
Share: TypeAlias = Annotated[Real, Field(ge=0, le=1, description="a number in [0, 1]")]
Price: TypeAlias = Annotated[Real, Field(gt=0, le=1, description="a number in (0, 1]")]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Understands(_Settings):
    """What a pool that knows no language can read: ``pattern`` matches a whole query, in lower case and without
    blanks; ``examples`` show what does, and ``questions`` (as ``package.module:attr``) makes some: it is called with
    how many, which part (train, validation or test) and a seed.
    """

    pattern: Annotated[str, AfterValidator(_pattern)]
    examples: tuple[str, ...] = Field(default=(), description="a list of queries")
    questions: str = ""


class Limits(_Settings):
    """How much an agent takes on, and how long it waits.

    ``running`` queries are worked on at once and ``waiting`` ones queue; beyond that it is busy. An engine
    that gives nothing for ``stall_s`` has stalled; an answer that nobody pulls for ``lease_s`` is given up.
    Timers are looked at every ``tick_s``, agents every ``heartbeat_s``. While its queue fills, an agent raises the
    alpha of what comes, up to ``brownout`` of the way to 1: answers get cheaper instead of late.
    """

    running: Count = 32
    waiting: Natural = 256
    stall_s: Seconds = 30.0
    lease_s: Seconds = 15.0
    tick_s: Seconds = 0.25
    heartbeat_s: Seconds = 1.0
    brownout: Share = 0.0


class AgentConfig(_Settings):
    """One agent: its model and price, how it runs, judges itself and decides.

    ``cost`` is its normalised price per query in (0, 1]; ``mean_work`` the mean of prompt + 4 * generated
    tokens over its validation answers. A model is looked for as ``local_name`` in the models folder, then as
    hub id ``model``; a ``model`` that begins with ".", "/" or "~" is a folder. ``context`` (tokens) is the engine's
    own where None. ``profile`` is a file that ``mesh bench routing --profiles`` writes. ``num_gpus: auto`` means as
    many as the engine's ``tensor_parallel_size``; where that is 1, one if the cluster has any and the engine can use
    it. ``num_cpus`` only reserves, and is 0 so that a laptop of 2 cores can hold five agents. So many ``replicas``
    share its queries, at first where it has ``autoscale``.
    """

    name: Annotated[
        str, Field(description="a name of letters, digits, '.', '_' and '-'", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    ]
    cost: Price
    engine: Annotated[
        Spec,
        Plugin(ENGINES, "engine", given=("setup",), paths=("tls_ca", "tls_cert", "tls_key")),
        Field(description=f"a name or a mapping with `kind`: {', '.join(ENGINES)}"),
    ]
    model: Annotated[str, AfterValidator(_model)] = ""
    local_name: str = ""
    adapter: File | None = Field(default=None, description="a path")
    profile: File | None = Field(default=None, description="a path")
    policy: Annotated[Spec, Plugin(POLICIES, "policy", paths=("values", "keep"), trial=True)] = Spec("refusal")
    assessor: Annotated[Spec, Plugin(ASSESSORS, "assessor", paths=("calibration",), trial=True)] = Spec("refusal")
    prompt: Style = "scenario"
    temperature: NotNegative = 0.0
    mean_work: Positive = 500.0
    context: Count | None = Field(default=None, description="a whole number >= 1")
    num_gpus: Annotated[Literal["auto"] | float, PlainValidator(_gpus)] = "auto"
    num_cpus: NotNegative = 0.0
    resources: dict[str, Positive] = Field(default={}, description="a mapping of names to numbers > 0")
    limits: Limits | None = None
    replicas: Count = 1
    autoscale: Autoscale | None = Field(default=None, description="a mapping with `most`")


class MeshConfig(_Settings):
    """A whole mesh. Made by ``load``.

    ``defaults`` are settings for every agent, below its own: they go into the agents, and are empty here. ``extends``
    names a pool from which comes what is not set here; ``load`` has followed it, and it is None here.
    """

    name: Annotated[str, Field(description="a name of a-z, 0-9, '.', '_' and '-'", pattern=r"^[a-z0-9][a-z0-9._-]*$")]
    extends: str | None = Field(default=None, description="a ready pool's name, or the path of a .yaml file")
    agents: tuple[AgentConfig, ...] = Field(description="a list of at least one agent")
    description: str = ""
    understands: Understands | None = Field(default=None, description="a mapping with `pattern` and `examples`")
    guard: File | None = Field(default=None, description="a path")
    runtime: Literal["ray", "local"] = "ray"
    topology: Annotated[Spec, Plugin(TOPOLOGIES, "topology", given=("agents", "entry"))] = Spec("cascade")
    entry: str | None = None
    alpha: Share = 0.5
    seed: Natural = 0
    trace: File | None = Field(default=None, description="a path")
    defaults: dict[str, Any] = Field(default={}, description="a mapping")
    limits: Limits = Limits()
    deadline_s: Seconds = 120.0
    max_tokens: Count = 512
    max_attempts: Count = 4
    placement_timeout_s: Seconds = 60.0
    start_timeout_s: Seconds = 600.0

    @model_validator(mode="before")
    @classmethod
    def _merge(cls, data: Any) -> Any:
        return _merged(data) if isinstance(data, Mapping) else data

    @model_validator(mode="after")
    def _agree(self) -> MeshConfig:
        wrong = _disagreements(self.agents, self.entry)
        if not wrong:
            try:
                self.build_topology()
            except ConfigError as error:
                wrong = [(("topology",), str(error), self.topology.written())]
        if wrong:
            raise refused(*wrong)
        return self

    @property
    def speaks(self) -> bool:
        """Whether it answers whatever is written to it."""
        return self.understands is None and any(agent.engine.kind != "scripted" for agent in self.agents)

    @property
    def question_maker(self) -> Any:
        """What makes questions for this pool, called with how many, which part and a seed; None where nothing does.

        Raises:
            ConfigError: it cannot be imported.
        """
        made_by = self.understands.questions if self.understands else ""
        return resolve({}, made_by, "questions") if made_by else None

    def check_understood(self, text: str) -> None:
        """Raises NotUnderstood, which says what this pool can read, and which pools read more."""
        if self.understands and re.fullmatch(self.understands.pattern, "".join(text.split()).lower()) is None:
            raise NotUnderstood(
                f"query: {text[:80]!r} is nothing that the pool {self.name!r} can read; it understands "
                f"{', '.join(self.understands.examples)} and the like. Pools that answer in English: {_speaking()}"
            )

    def build_topology(self) -> Topology:
        """Who may forward to whom.

        Raises:
            ConfigError: these agents cannot be wired like that.
        """
        costs = {agent.name: agent.cost for agent in self.agents}
        try:
            graph: Topology = build(
                TOPOLOGIES, self.topology.kind, "topology", costs, entry=self.entry, **self.topology.options
            )
        except TopologyError as error:
            raise ConfigError(f"topology {self.topology.kind!r}: {error}") from error
        return graph

    def named(self, name: str) -> AgentConfig:
        """One of its agents. Raises ConfigError where there is no such."""
        for agent in self.agents:
            if agent.name == name:
                return agent
        raise ConfigError(f"agent: unknown agent {name!r}; there are {', '.join(agent.name for agent in self.agents)}")

    def limits_for(self, agent: AgentConfig) -> Limits:
        """The limits of one agent: its own above the mesh's."""
        own = agent.limits
        return self.limits.model_copy(update=own.model_dump(exclude_unset=True)) if own else self.limits

    def with_engine(self, kind: str, **options: Any) -> MeshConfig:
        """The same mesh on another engine: for trying a pool without its models.

        Agents judge themselves by their refusals, since calibrations belong to the models they were fitted
        on; a policy that needs a probability gives way to ``refusal``.

        Raises:
            ConfigError: there is no such engine, or it has no such option.
        """
        changes = {"engine": {"kind": kind, **options}, "assessor": "refusal"}
        agents = [{**agent.model_dump(exclude_unset=True), **changes} for agent in self.agents]
        for agent, new in zip(self.agents, agents, strict=True):
            if resolve(POLICIES, agent.policy.kind, "policy").needs_probability:
                new["policy"] = "refusal"
        return with_overrides(self, agents=agents)


# ---------------------------------------------------------------------------------- loading


def load(source: str | Path | Mapping[str, Any] | MeshConfig, _within: tuple[str, ...] = ()) -> MeshConfig:
    """A mesh's settings from a pool's name (see ``pools``), a YAML file's path, a mapping, or ready ones.

    Paths in a file are relative to it, paths in a mapping to the current folder.

    Raises:
        ConfigError: something is wrong; every problem on a line of its own.
    """
    if isinstance(source, MeshConfig):
        return source
    read = _source(source)
    if isinstance(read.data, Mapping) and read.data.get("extends") is not None:
        read = _extended(read, _within)
    try:
        config = MeshConfig.model_validate(read.data, context={"base": read.base})
    except ValidationError as error:
        raise read.refusal(MeshConfig, error.errors(), _unreached(read.data)) from None
    if read.repeated:
        raise read.refusal(MeshConfig)
    return config


def pools() -> dict[str, str]:
    """The ready pools, by name, with their descriptions."""
    return {path.stem: Source.read(path).data["description"] for path in sorted(_pools().glob("*.yaml"))}


def with_overrides(config: MeshConfig, **changes: Any) -> MeshConfig:
    """A copy with some settings changed, checked like a new one.

    Raises:
        ConfigError: a change is wrong.
    """
    return load({**config.model_dump(exclude_unset=True), **changes})


def alone(config: MeshConfig, agent: AgentConfig, **changes: Any) -> MeshConfig:
    """A pool of this one agent, with some of its settings changed. Raises ConfigError where a change is wrong."""
    settings = {**agent.model_dump(exclude_unset=True), **changes}
    return with_overrides(config, agents=[settings], entry=None, topology="cascade")


def _extended(read: Source, within: tuple[str, ...]) -> Source:
    """The settings above those of the pool that they extend. Raises ConfigError where they cannot be."""
    own = dict(read.data)
    name, limits = own.pop("extends"), own.get("limits")
    is_file = isinstance(name, str) and name.endswith((".yaml", ".yml"))
    parent = str(read.base / Path(name).expanduser()) if is_file else name
    wrong = "should be a ready pool's name, or the path of a .yaml file" if not isinstance(name, str) else ""
    if parent in within:
        wrong = f"it extends itself: {' → '.join((*within, parent))}"
    elif "defaults" in own and "agents" not in own:
        wrong = "its agents have their settings, above all defaults: give `agents` too, or no `defaults`"
    try:
        below = {} if wrong else load(parent, (*within, parent)).model_dump(exclude_unset=True)
    except ConfigError as error:
        wrong = str(error)
    if wrong:
        raise read.refusal(MeshConfig, more=[(("extends",), wrong, name)])
    if isinstance(limits, Mapping):
        own["limits"] = {**below.get("limits", {}), **limits}
    return replace(read, data={**below, **own})


@functools.cache
def _speaking() -> str:
    return ", ".join(name for name in pools() if load(name).speaks)


def _pools() -> Path:
    return Path(str(files("mesh"))) / "pools"


def _source(source: str | Path | Mapping[str, Any]) -> Source:
    if isinstance(source, Mapping):
        return Source(dict(source), Path.cwd())
    if isinstance(source, Path) or (isinstance(source, str) and source.endswith((".yaml", ".yml"))):
        return Source.read(Path(source).expanduser())
    names = [path.stem for path in sorted(_pools().glob("*.yaml"))]
    if source in names:
        return Source.read(_pools() / f"{source}.yaml")
    raise ConfigError(f"unknown pool {source!r}: use one of {', '.join(names)}, or the path of a .yaml file")


# ---------------------------------------------------------------------------------- defaults and agreement


def _merged(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """``data`` with its defaults below every agent."""
    defaults, agents = data.get("defaults", {}), data.get("agents")
    if not isinstance(defaults, Mapping) or not isinstance(agents, list | tuple):
        return data
    full = [_below(defaults, agent) if isinstance(agent, Mapping) else agent for agent in agents]
    return {**data, "agents": full, "defaults": {}}


def _below(defaults: Mapping[str, Any], agent: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**defaults, **agent}
    for key in {"engine", "policy", "assessor"} & defaults.keys() & agent.keys():
        merged[key] = _options_below(defaults[key], agent[key])
    if isinstance(below := defaults.get("limits"), Mapping) and isinstance(own := agent.get("limits"), Mapping):
        merged["limits"] = {**below, **own}
    return merged


def _options_below(below: Any, own: Any) -> Any:
    """Options of the same kind of plug-in are merged; an own mapping without `kind` is of the default's."""
    default = below.written() if isinstance(below, Spec) else below
    default = dict(default) if isinstance(default, Mapping) else {"kind": default}
    mine = own.written() if isinstance(own, Spec) else own
    mine = dict(mine) if isinstance(mine, Mapping) else {"kind": mine}
    return {**default, **mine} if mine.get("kind", default.get("kind")) == default.get("kind") else own


def _disagreements(agents: Sequence[Any], entry: Any) -> list[Wrong]:
    """What concerns several agents at once; also of settings that are not otherwise right."""
    if not agents:
        return [(("agents",), "should be a list of at least one agent", [])]
    names = [agent.get("name") if isinstance(agent, Mapping) else getattr(agent, "name", None) for agent in agents]
    wrong: list[Wrong] = [
        (("agents", place, "name"), f"agents[{names.index(name)}] has that name already", name)
        for place, name in enumerate(names)
        if isinstance(name, str) and names.index(name) < place
    ]
    if isinstance(entry, str) and entry not in names:
        there = ", ".join(name for name in names if isinstance(name, str))
        wrong.append((("entry",), f"no such agent; there are {there}", entry))
    return wrong


def _unreached(data: Any) -> list[Wrong]:
    """Disagreements of settings that were not compared because some are wrong by themselves."""
    merged = _merged(data) if isinstance(data, Mapping) else {}
    agents = merged.get("agents")
    return _disagreements(agents, merged.get("entry")) if isinstance(agents, list | tuple) else []
