"""The names that others build on. Whoever changes one here has changed what users see."""

from __future__ import annotations

import inspect
import tomllib
from importlib.metadata import entry_points
from pathlib import Path

import agents.errors
import mesh
from agents.assess import ASSESSORS
from agents.engines import ENGINES
from agents.errors import MeshError
from agents.plugins import resolve
from agents.policies import POLICIES
from topologies import TOPOLOGIES, TopologyError
from training.rewards import REWARDS

REPO = Path(__file__).parents[1]


def test_what_mesh_offers() -> None:
    assert sorted(mesh.__all__) == [
        "AgentError",
        "BudgetExceeded",
        "ConfigError",
        "DeadlineExceeded",
        "Hop",
        "Mesh",
        "MeshClosed",
        "MeshConfig",
        "MeshError",
        "NoAgentLeft",
        "PlacementError",
        "QueryError",
        "QueryTooLong",
        "Reply",
        "ask",
        "connect",
    ]
    assert all(hasattr(mesh, name) for name in mesh.__all__)


def test_what_a_mesh_can_do() -> None:
    assert sorted(name for name in vars(mesh.Mesh) if not name.startswith("_")) == [
        "aask",
        "add_agent",
        "ask",
        "ask_many",
        "astream",
        "close",
        "feedback",
        "from_yaml",
        "remove_agent",
        "rollback_agent",
        "scale_agent",
        "start",
        "status",
        "stream",
        "submit",
        "update_agent",
        "upgrade_agent",
    ]


def test_what_a_reply_tells() -> None:
    assert list(inspect.signature(mesh.Reply).parameters) == [
        "id", "text", "agent", "alpha", "cost", "full_cost", "path", "seconds", "first_token_s", "attempts", "finish",
        "alpha_used",
    ]  # fmt: skip
    assert list(inspect.signature(mesh.Hop).parameters) == [
        "agent", "verdict", "confidence", "seconds", "prompt_tokens", "generated_tokens", "full_cost", "reason",
    ]  # fmt: skip


def test_plug_ins_by_name() -> None:
    assert [*REWARDS] == ["localized", "success_gated", "boundary"]
    assert {name: kind.__name__ for name, kind in TOPOLOGIES.items()} == {
        "cascade": "Cascade",
        "tree": "Tree",
        "mesh": "Mesh",
        "nearest": "Nearest",
        "small_world": "SmallWorld",
        "edges": "Edges",
    }
    assert {name: kind.__name__ for name, kind in POLICIES.items()} == {
        "refusal": "RefusalPolicy",
        "reliability": "Reliability",
        "bar": "Bar",
        "reservation": "Reservation",
        "always": "Always",
        "value": "Value",
        "budget": "Budget",
        "bandit": "Bandit",
        "irt": "Irt",
        "cluster_card": "ClusterCard",
        "pheromone": "Pheromone",
        "similarity": "Similarity",
        "shortest_path": "ShortestPath",
        "committee": "Committee",
        "speculative": "Speculative",
        "guard": "Guard",
    }
    assert {name: kind.__name__ for name, kind in ASSESSORS.items()} == {
        "refusal": "RefusalAssessor",
        "first_token": "FirstToken",
        "likelihood": "Likelihood",
        "p_true": "PTrue",
    }
    assert {name: resolve(ENGINES, name, "engine").__name__ for name in ENGINES} == {
        "scripted": "ScriptedEngine",
        "measured": "MeasuredEngine",
        "transformers": "TransformersEngine",
        "vllm": "VllmEngine",
        "openai": "OpenAIEngine",
        "replay": "ReplayEngine",
        "mesh": "RemoteMesh",
    }


def test_commands_plug_in_through_the_entry_point_group() -> None:
    written = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert written["scripts"] == {"mesh": "mesh.cli:main"}
    assert written["entry-points"] == {
        "mesh.commands": {
            "bench": "benchmarks.cli:app",
            "demo": "benchmarks.demo:app",
            "learn": "benchmarks.rehearsal:app",
            "record": "benchmarks.recording:app",
            "train": "training.cli:app",
        },
        "mesh.results": {"routing": "benchmarks.results:routing"},
    }
    installed = {entry.name: entry.value for entry in entry_points(group="mesh.commands")}
    assert installed.items() >= written["entry-points"]["mesh.commands"].items()


def drawn() -> dict[str, tuple[str, str]]:
    """Every class of the tree in the docstring of ``agents.errors``: its parent in the drawing, its other base."""
    lines = [line for line in inspect.getdoc(agents.errors).splitlines() if "Error" in line or "──" in line]
    branch: list[str] = []
    found: dict[str, tuple[str, str]] = {}
    for line in lines:
        words = line.replace("│", " ").replace("├──", "   ").replace("└──", "   ")
        depth, name = (len(words) - len(words.lstrip()) - 4) // 4, words.split()[0]
        if depth < 0:  # text below the drawing
            continue
        other = words.split()[1].strip("()") if words.split()[1:] and words.split()[1].startswith("(") else ""
        branch[depth:] = [name]
        found[name] = (branch[depth - 1] if depth else "Exception", other)
    return found


def test_the_exception_tree_is_as_drawn() -> None:
    classes = {
        name: kind
        for name, kind in vars(agents.errors).items()
        if inspect.isclass(kind) and issubclass(kind, Exception) and kind.__module__ == "agents.errors"
    }
    bases = {name: [base.__name__ for base in kind.__bases__] for name, kind in classes.items()}
    assert bases == {name: [base for base in pair if base] for name, pair in drawn().items()}


def test_the_exception_tree() -> None:
    assert drawn() == {
        "MeshError": ("Exception", ""),
        "ConfigError": ("MeshError", "ValueError"),
        "ModelNotFound": ("ConfigError", ""),
        "AdapterError": ("ConfigError", ""),
        "QueryError": ("MeshError", "ValueError"),
        "NotUnderstood": ("QueryError", ""),
        "QueryTooLong": ("QueryError", ""),
        "BudgetExceeded": ("QueryError", ""),
        "PlacementError": ("MeshError", ""),
        "AgentError": ("MeshError", ""),
        "AgentDied": ("AgentError", ""),
        "AgentStalled": ("AgentError", ""),
        "AgentBusy": ("AgentError", ""),
        "EngineError": ("AgentError", ""),
        "NoAgentLeft": ("MeshError", ""),
        "DeadlineExceeded": ("MeshError", "TimeoutError"),
        "MeshClosed": ("MeshError", ""),
    }
    assert TopologyError.__bases__ == (ValueError,)
    assert not issubclass(TopologyError, MeshError)  # topologies know nothing of agents
