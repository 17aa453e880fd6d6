"""Settings: what a good file becomes, and what is said about a bad one."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.errors import ConfigError
from mesh.config import AgentConfig, Limits, MeshConfig, Spec, load, with_overrides


def minimal(**changes: Any) -> dict[str, Any]:
    """A mapping that is right: two scripted agents."""
    agents = [{"name": "a", "cost": 0.1}, {"name": "b", "cost": 0.9}]
    return {"name": "m", "defaults": {"engine": "scripted"}, "agents": agents, **changes}


def one_agent(**settings: Any) -> dict[str, Any]:
    return {"name": "m", "agents": [{"name": "a", "cost": 0.5, "engine": "scripted", **settings}]}


def problems(source: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(source)
    return str(caught.value).splitlines()


def problem(source: Any) -> str:
    (line,) = problems(source)
    return line


def written(folder: Path, text: str) -> Path:
    path = folder / "pool.yaml"
    path.write_text(text, encoding="utf-8")
    return path


# ---------------------------------------------------------------------------------- good settings


def test_defaults_of_every_setting() -> None:
    config = load(minimal())
    assert (config.runtime, config.topology, config.entry, config.alpha) == ("ray", Spec("cascade"), None, 0.5)
    assert (config.deadline_s, config.max_tokens, config.max_attempts) == (120, 512, 4)
    assert (config.placement_timeout_s, config.start_timeout_s, config.seed, config.trace) == (60, 600, 0, None)
    assert config.limits == Limits(running=32, waiting=256, stall_s=30, lease_s=15, tick_s=0.25, heartbeat_s=1)
    agent = config.agents[0]
    assert (agent.policy, agent.assessor, agent.engine) == (Spec("refusal"), Spec("refusal"), Spec("scripted"))
    assert (agent.num_gpus, agent.num_cpus, agent.context, agent.mean_work) == ("auto", 0, None, 500)


def test_ready_settings_pass_through() -> None:
    config = load(minimal())
    assert load(config) is config


def test_a_plugin_is_a_name_or_a_mapping_with_kind() -> None:
    named, mapped = (load(one_agent(engine=e)).agents[0] for e in ("scripted", {"kind": "scripted", "refuse": 0.25}))
    assert named.engine == Spec("scripted")
    assert mapped.engine == Spec("scripted", {"refuse": 0.25})


def test_a_plugin_may_stand_anywhere() -> None:
    config = load(one_agent(policy={"kind": "agents.policies:Reliability", "gamma": 2.0}))
    assert config.agents[0].policy == Spec("agents.policies:Reliability", {"gamma": 2.0})


def test_defaults_stand_below_every_agent() -> None:
    engine = {"kind": "scripted", "refuse": 0.5, "pieces": 3}
    agents = [
        {"name": "a", "cost": 0.1},
        {"name": "b", "cost": 0.2, "engine": {"kind": "scripted", "pieces": 7}},
        {"name": "c", "cost": 0.3, "engine": {"pieces": 9}, "limits": {"waiting": 1}},
        {"name": "d", "cost": 0.4, "engine": {"kind": "openai", "context": 10}, "prompt": "plain"},
        {"name": "e", "cost": 0.5, "engine": "scripted"},
    ]
    limits = {"running": 2, "waiting": 5}
    config = load({"name": "m", "defaults": {"engine": engine, "limits": limits}, "agents": agents})
    assert [agent.engine.options for agent in config.agents] == [
        {"refuse": 0.5, "pieces": 3},
        {"refuse": 0.5, "pieces": 7},
        {"refuse": 0.5, "pieces": 9},
        {"context": 10},
        {"refuse": 0.5, "pieces": 3},
    ]
    assert [agent.prompt for agent in config.agents] == ["scenario", "scenario", "scenario", "plain", "scenario"]
    assert config.agents[2].limits == Limits(running=2, waiting=1)


def test_an_agents_limits_stand_above_the_meshs() -> None:
    agents = [{"name": "a", "cost": 0.1}, {"name": "b", "cost": 0.2, "limits": {"running": 3}}]
    config = load(minimal(limits={"running": 8, "stall_s": 5}, agents=agents))
    assert (config.limits_for(config.agents[0]).running, config.limits_for(config.agents[0]).stall_s) == (8, 5)
    assert (config.limits_for(config.agents[1]).running, config.limits_for(config.agents[1]).stall_s) == (3, 5)
    assert with_overrides(config, alpha=0.1).limits_for(config.agents[1]) == config.limits_for(config.agents[1])


def test_settings_are_frozen_and_travel() -> None:
    config = load(minimal())
    with pytest.raises(ValueError, match="frozen"):
        config.alpha = 0.2  # type: ignore[misc]
    assert pickle.loads(pickle.dumps(config)) == config


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    text = """
name: m
trace: out/m.trace.jsonl
defaults: {assessor: {kind: likelihood, calibration: maps/a.json}, engine: scripted}
agents:
  - {name: a, cost: 1, adapter: lora}
  - {name: b, cost: 1, adapter: /elsewhere/lora}
"""
    config = load(str(written(tmp_path, text)))
    assert config.trace == tmp_path / "out/m.trace.jsonl"
    assert [agent.adapter for agent in config.agents] == [tmp_path / "lora", Path("/elsewhere/lora")]
    assert config.agents[0].assessor.options == {"calibration": tmp_path / "maps/a.json"}


def test_paths_in_a_mapping_are_relative_to_the_current_folder(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    config = load(minimal(trace="t.jsonl"))
    monkeypatch.chdir("/")
    assert with_overrides(config, alpha=0).trace == tmp_path / "t.jsonl"


def test_yaml_numbers_with_exponents_and_merge_keys(tmp_path: Path) -> None:
    text = """
name: m
agents:
  - &first {name: a, cost: 1e-1, engine: scripted}
  - {<<: *first, name: b}
"""
    config = load(written(tmp_path, text))
    assert [(agent.name, agent.cost) for agent in config.agents] == [("a", 0.1), ("b", 0.1)]


def test_overrides_are_checked() -> None:
    config = load(minimal())
    changed = with_overrides(config, alpha=0.8, topology={"kind": "tree", "branching": 3})
    assert (changed.alpha, changed.topology, changed.agents) == (0.8, Spec("tree", {"branching": 3}), config.agents)
    assert config.alpha == 0.5
    with pytest.raises(ConfigError, match=r"^alpha is 8: should be a number in \[0, 1\]$"):
        with_overrides(config, alpha=8)
    with pytest.raises(ConfigError, match="alhpa is 1: unknown key; did you mean 'alpha'"):
        with_overrides(config, alhpa=1)


def test_an_agent_more_by_override() -> None:
    config = load(minimal())
    more = AgentConfig(name="c", cost=0.5, engine=Spec("scripted"))
    assert [a.name for a in with_overrides(config, agents=[*config.agents, more]).agents] == ["a", "b", "c"]


def test_another_engine_drops_what_belongs_to_the_model() -> None:
    likely = {"kind": "likelihood", "calibration": "/maps/a.json"}
    agents = [
        {"name": "a", "cost": 0.1, "engine": {"kind": "openai", "context": 5}, "assessor": likely, "num_gpus": 1},
        {"name": "b", "cost": 0.2, "engine": "openai", "policy": "always"},
    ]
    config = load({"name": "m", "defaults": {"assessor": likely}, "agents": agents})
    other = config.with_engine("scripted", refuse=0.5)
    assert [agent.engine for agent in other.agents] == [Spec("scripted", {"refuse": 0.5})] * 2
    assert [agent.assessor for agent in other.agents] == [Spec("refusal")] * 2
    assert [agent.policy.kind for agent in other.agents] == ["refusal", "always"]
    assert (other.agents[0].num_gpus, other.agents[0].cost) == (1, 0.1)
    with pytest.raises(ConfigError, match="no option of engine 'scripted'; did you mean 'refuse'"):
        config.with_engine("scripted", refuze=0.5)


def test_the_topology_is_built_over_the_costs() -> None:
    graph = load(minimal()).build_topology()
    assert (graph.entry, graph.neighbours("a"), graph.neighbours("b")) == ("a", ("b",), ())
    assert load(minimal(topology="mesh", entry="b")).build_topology().entry == "b"


# ---------------------------------------------------------------------------------- bad values


@pytest.mark.parametrize("cost", [0, -0.1, 1.01, True, float("nan"), float("inf"), "0.5", None, [0.5]])
def test_cost_is_a_number_above_0_up_to_1(cost: Any) -> None:
    assert problem(one_agent(cost=cost)) == f"agents[0].cost (agent 'a') is {cost!r}: should be a number in (0, 1]"


@pytest.mark.parametrize(
    ("setting", "value", "right"),
    [
        ("alpha", -0.1, "a number in [0, 1]"),
        ("alpha", float("nan"), "a number in [0, 1]"),
        ("alpha", True, "a number in [0, 1]"),
        ("deadline_s", 0, "a number of seconds > 0"),
        ("max_tokens", 0, "a whole number >= 1"),
        ("max_tokens", 1.0, "a whole number >= 1"),
        ("max_attempts", True, "a whole number >= 1"),
        ("seed", -1, "a whole number >= 0"),
        ("runtime", "cloud", "'ray' or 'local'"),
        ("name", "Big", "a name of a-z, 0-9, '.', '_' and '-'"),
        ("name", "../x", "a name of a-z, 0-9, '.', '_' and '-'"),
        ("name", 3, "a name of a-z, 0-9, '.', '_' and '-', in quotes"),
        ("description", False, "a valid string, in quotes"),
        ("trace", 3, "a path"),
        ("defaults", None, "a mapping"),
        ("limits", 3, "a mapping"),
        ("topology", None, "a name, or a mapping with `kind` and options"),
        ("topology", {"branching": 2}, "a name, or a mapping with `kind` and options"),
    ],
)
def test_settings_of_the_mesh(setting: str, value: Any, right: str) -> None:
    data = minimal(agents=one_agent()["agents"], **{setting: value})
    assert problem(data) == f"{setting} is {value!r}: should be {right}"


@pytest.mark.parametrize(
    ("setting", "value", "right"),
    [
        ("name", "a b", "a name of letters, digits, '.', '_' and '-'"),
        ("temperature", -1, "a number >= 0"),
        ("mean_work", 0, "a number > 0"),
        ("context", 0, "a whole number >= 1"),
        ("num_cpus", True, "a number >= 0"),
        ("num_gpus", 1.5, "'auto', a fraction of one GPU, or a whole number of GPUs >= 0"),
        ("num_gpus", "all", "'auto', a fraction of one GPU, or a whole number of GPUs >= 0"),
        ("num_gpus", True, "'auto', a fraction of one GPU, or a whole number of GPUs >= 0"),
        ("resources", ["tpu"], "a mapping of names to numbers > 0"),
        ("prompt", "bare", "'scenario', 'level' or 'plain'"),
        ("engine", 3, "a name, or a mapping with `kind` and options"),
    ],
)
def test_settings_of_an_agent(setting: str, value: Any, right: str) -> None:
    data = one_agent(**{setting: value})
    name = data["agents"][0]["name"]
    assert problem(data) == f"agents[0].{setting} (agent {name!r}) is {value!r}: should be {right}"


@pytest.mark.parametrize("num_gpus", ["auto", 0, 0.5, 1, 2])
def test_gpus_as_ray_can_place_them(num_gpus: Any) -> None:
    assert load(one_agent(num_gpus=num_gpus)).agents[0].num_gpus == num_gpus


@pytest.mark.parametrize("setting", ["engine", "policy", "assessor"])
def test_unknown_plugins_list_the_known_ones(setting: str) -> None:
    line = problem(one_agent(**{setting: "nope"}))
    assert line.startswith(f"agents[0].{setting} (agent 'a') is 'nope': unknown {setting} 'nope': use one of ")
    assert {"engine": "scripted", "policy": "reliability", "assessor": "p_true"}[setting] in line
    line = problem(one_agent(**{setting: "agents.nowhere:It"}))
    assert f"{setting} 'agents.nowhere:It' cannot be imported" in line
    assert "should be a class or function, which 3.14" in problem(one_agent(**{setting: "math:pi"}))


def test_unknown_topology_lists_the_known_ones() -> None:
    assert problem(minimal(topology="star")).startswith("topology is 'star': unknown topology 'star': use one of casc")


def test_options_of_plugins() -> None:
    assert problem(one_agent(engine={"kind": "scripted", "refuze": 1})).startswith(
        "agents[0].engine.refuze (agent 'a') is 1: no option of engine 'scripted'; did you mean 'refuse'? "
        "its options are answer, refuse, "
    )
    assert "setup (agent 'a') is 1: no option of" in problem(one_agent(engine={"kind": "scripted", "setup": 1}))
    assert problem(one_agent(policy={"kind": "reliability", "gamma": -1})).endswith(
        "gamma is -1, it must be a number above 0"
    )
    assert problem(one_agent(assessor={"kind": "refusal", "calibration": "a.json"})) == (
        "agents[0].assessor.calibration (agent 'a') is 'a.json': no option of assessor 'refusal'; its options are none"
    )
    assert problem(one_agent(assessor={"kind": "likelihood", "calibration": 3})) == (
        "agents[0].assessor.calibration (agent 'a') is 3: should be a path"
    )


def test_what_the_topology_refuses_is_a_config_error() -> None:
    assert problem(minimal(topology={"kind": "tree", "branching": 0})).startswith(
        "topology is {'kind': 'tree', 'branching': 0}: topology 'tree': "
    )
    assert "branch" in problem(minimal(topology={"kind": "tree", "brunch": 2}))
    assert "topology.entry is 'a': no option of topology" in problem(minimal(topology={"kind": "tree", "entry": "a"}))
    many = [{"name": f"n{i}", "cost": 0.5} for i in range(257)]
    assert "257 agents" in problem(minimal(topology="mesh", agents=many))


def test_a_graph_without_exit_is_refused() -> None:
    edges = {"kind": "edges", "edges": {"a": ["b"], "b": ["a"]}}
    assert "exit" in problem(minimal(topology=edges))


def test_missing_settings_say_what_belongs_there() -> None:
    assert problems({"agents": [{"cost": 0.5}]}) == [
        "name is missing: should be a name of a-z, 0-9, '.', '_' and '-'",
        "agents[0].name is missing: should be a name of letters, digits, '.', '_' and '-'",
        "agents[0].engine is missing: should be a name or a mapping with `kind`: "
        "scripted, measured, transformers, vllm, openai, replay, mesh",
    ]
    assert problem({"name": "m"}) == "agents is missing: should be a list of at least one agent"


@pytest.mark.parametrize("agents", [[], {}, "a", None])
def test_agents_are_a_list_of_at_least_one(agents: Any) -> None:
    assert problem(minimal(agents=agents)) == f"agents is {agents!r}: should be a list of at least one agent"


def test_names_are_unique_and_the_entry_is_one_of_them() -> None:
    agents = [{"name": n, "cost": 0.5} for n in ("a", "b", "a")]
    assert problems(minimal(agents=agents, entry="z")) == [
        "agents[2].name (agent 'a') is 'a': agents[0] has that name already",
        "entry is 'z': no such agent; there are a, b, a",
    ]


def test_models_made_by_hand_check_the_same() -> None:
    agent = AgentConfig(name="a", cost=0.5, engine=Spec("scripted"))
    with pytest.raises(ValueError, match="has that name already"):
        MeshConfig(name="m", agents=(agent, agent))
    with pytest.raises(ValueError, match="at least one agent"):
        MeshConfig(name="m", agents=())


def test_only_pools_files_and_mappings_are_sources() -> None:
    assert "unknown pool 'smal': use one of " in problem("smal")
    assert "unknown pool None" in problem(None)


# ---------------------------------------------------------------------------------- bad files


def test_everything_is_told_at_once_with_line_and_column(tmp_path: Path) -> None:
    text = """\
name: m
alpha: 1.5
topolgy: tree
defaults:
  engine: {kind: scripted, refuze: 1}
  cots: 0.1
agents:
  - name: a
    cost: 2
  - name: a
    cost: 0.5
    policy:
      kind: reliability
      gamma: 0
  - 7
alpha: 3
"""
    path = written(tmp_path, text)
    lines = problems(path)
    assert [line.removeprefix(f"{path}:").split(": ")[0] for line in lines] == [
        "3:10", "5:36", "6:9", "9:11", "10:11", "12:5", "15:5", "16:1", "16:8",
    ]  # fmt: skip
    assert lines[0].startswith(f"{path}:3:10: topolgy is 'tree': unknown key; did you mean 'topology'? the keys here ")
    assert ": defaults.engine.refuze is 1: no option of engine 'scripted'" in lines[1]
    assert lines[2].startswith(f"{path}:6:9: defaults.cots is 0.1: unknown key; did you mean 'cost'? ")
    assert lines[3] == f"{path}:9:11: agents[0].cost (agent 'a') is 2: should be a number in (0, 1]"
    assert lines[6] == f"{path}:15:5: agents[2] is 7: should be a mapping"
    assert lines[7:] == [
        f"{path}:16:1: the key 'alpha' occurs twice",
        f"{path}:16:8: alpha is 3: should be a number in [0, 1]",
    ]


def test_a_repeated_key_alone_is_refused(tmp_path: Path) -> None:
    text = "name: m\nagents:\n  - {name: a, engine: scripted, cost: 0.5, cost: 0.6}\n"
    assert problem(written(tmp_path, text)).endswith("pool.yaml:3:44: the key 'cost' occurs twice")


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("name: m\nagents: [\n", ":3:1: ", "flow"),
        ("name: m\n\tagents: 3\n", ":2:1: ", "'\\t'"),
        ("name: m\nalpha: 'x\n", ":3:1: ", "quoted scalar"),
        ("name: m\nalpha: *gone\n", ":2:8: ", "undefined alias"),
        ("name: m\nalpha: !!python/object:os.system x\n", ":2:8: ", "constructor"),
        ("name: 2026-13-45\n", ":1:7: ", "month"),
        ("name: m\nalpha: 0x_\n", ":2:8: ", "0x_"),
        ("name: m\n--- \nname: n\n", ":2:1: ", "single document"),
        ("name: m\nalpha: \x07\n", ":2:8: ", "'\\x07' is not allowed"),
        ("name: m\ndefaults: &d {engine: *d}\n", ":2:11: ", "alias stands inside"),
        ("name: m\n? [a]\n: 3\n", ":2:3: ", "unhashable"),
        ("- name: m\n", ":1:1: ", "should be a mapping"),
        ("", ": ", "is empty"),
        ("[" * 5000, ": ", "nested too deeply"),
    ],
)
def test_broken_yaml_tells_line_and_column(tmp_path: Path, text: str, place: str, words: str) -> None:
    path = written(tmp_path, text)
    line = problem(path)
    assert line.startswith(f"{path}{place}")
    assert words in line


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert problem(tmp_path / "gone.yaml").endswith("gone.yaml: cannot be read: No such file or directory")
    assert problem(tmp_path).endswith(": cannot be read: Is a directory")
    (tmp_path / "latin.yaml").write_bytes(b"name: m\ndescription: caf\xe9\n")
    assert problem(str(tmp_path / "latin.yaml")).endswith("latin.yaml:2:17: byte 0xe9 is not UTF-8 text")


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    path = tmp_path / "bom.yml"
    path.write_bytes(b"\xef\xbb\xbfname: m\nagents: [{name: a, cost: 1, engine: scripted}]\n")
    assert load(str(path)).name == "m"


_json = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
_keys = st.sampled_from([*MeshConfig.model_fields, *AgentConfig.model_fields, *Limits.model_fields])


@given(top=st.dictionaries(_keys, _json, max_size=3), agent=st.dictionaries(_keys, _json, max_size=3))
def test_nothing_but_a_config_error_comes_of_bad_settings(top: dict[str, Any], agent: dict[str, Any]) -> None:
    data = {**minimal(), "agents": [{"name": "a", "cost": 0.5, "engine": "scripted", **agent}], **top}
    try:
        config = load(data)
    except ConfigError:
        return
    assert with_overrides(config) == config


# ---------------------------------------------------------------------------------- weight


def test_importing_settings_loads_nothing_heavy() -> None:
    code = (
        "import sys, mesh.config; "
        "print(sorted({'ray', 'torch', 'transformers', 'vllm', 'openai', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
