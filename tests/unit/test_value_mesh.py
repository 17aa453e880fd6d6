"""A mesh whose agents learn values: feedback reaches them, and what they have learnt is there after a restart."""

from __future__ import annotations

from pathlib import Path

from agents.policies.value import Value
from mesh.client import Mesh
from mesh.config import load
from tests.pools import pool, questions


def learning(folder: Path) -> dict[str, object]:
    """A scripted pool of three that forwards by values, each agent's kept in a file of its own."""
    settings = pool("first_token", "mesh", agents=3)
    for agent in settings["agents"]:
        agent["policy"] = {"kind": "value", "keep": str(folder / f"{agent['name']}.json")}
    return settings


def answers(settings: dict[str, object], texts: list[str], feedback: bool) -> int:
    """How many of them a1 answers; with feedback, all of these are said to be wrong and all others right."""
    count = 0
    with Mesh.from_yaml(settings) as mesh:
        for text in texts:
            reply = mesh.ask(text, alpha=0.8)
            if feedback:
                mesh.feedback(reply.id, right=reply.agent != "a1")
            count += reply.agent == "a1"
    return count


def test_feedback_reaches_values_which_survive_a_restart(tmp_path: Path) -> None:
    """Whatever a1 answers is said to be wrong: whoever starts the mesh again finds it asked less than in another mesh,
    where nobody has said anything.
    """
    texts = questions(80)
    answers(learning(tmp_path / "told"), texts, feedback=True)
    assert (tmp_path / "told" / "a0.json").stat().st_size > 500
    assert answers(learning(tmp_path / "untold"), texts[:40], feedback=False) > 5
    assert answers(learning(tmp_path / "told"), texts[:40], feedback=False) < 3


def test_where_values_are_kept_is_relative_to_the_pool(tmp_path: Path) -> None:
    file = tmp_path / "pool.yaml"
    file.write_text(
        "name: p\nruntime: local\ndefaults: {engine: scripted, assessor: first_token}\nagents:\n"
        "  - {name: a, cost: 0.1, policy: {kind: value, keep: values/a.json}}\n"
        "  - {name: b, cost: 0.9, policy: value}\n",
        encoding="utf-8",
    )
    assert load(file).agents[0].policy.options["keep"] == tmp_path / "values" / "a.json"
    assert isinstance(Value(keep=tmp_path / "values" / "a.json"), Value)  # nothing is there yet, and nothing is wrong
