"""Failure signatures from made-up traces: each shows in the trace that has it, and none in a healthy one."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agents.errors import QueryError
from mesh import Mesh
from training.diagnose import REMEDIES, diagnose, read_trace

Chooses = Callable[[float, float, float, random.Random], bool]  # p, alpha, time -> whether it answers


def hop(agent: str, verdict: str, p: float | None, reason: str = "") -> dict[str, Any]:
    return {"agent": agent, "verdict": verdict, "confidence": p, "reason": reason, "full_cost": 0.1}


def trace(chooses: Chooses, claims: Callable[[float], float] = lambda p: p, count: int = 1200) -> Any:
    """Two agents; the first knows its p and chooses, the second must answer, and is always right."""
    rng, answered, feedback = random.Random(3), [], {}
    for number in range(count):
        p, alpha, time = rng.random(), rng.choice((0.2, 0.8)), number / count
        said = claims(p)
        if chooses(said, alpha, time, rng):
            path, right = [hop("a", "answered", said)], rng.random() < p
        else:
            path, right = [hop("a", "refused", said), hop("b", "answered", None, "forced")], True
        answered.append({"id": str(number), "time": time, "alpha": alpha, "path": path})
        feedback[str(number)] = right
    return answered, feedback


def bar(p: float, alpha: float, time: float, rng: random.Random) -> bool:
    return p > (1 - alpha) ** 0.5


def kinds(found: Any) -> set[tuple[str, str]]:
    return {(one.signature, one.agent) for one in found}


def test_a_healthy_trace_shows_nothing() -> None:
    assert not diagnose(*trace(lambda p, alpha, time, rng: p > 0.6 * (1 - alpha)))


def test_everybody_refuses() -> None:
    found = diagnose(*trace(lambda p, alpha, time, rng: p > 0.97 - 0.1 * alpha))
    assert kinds(found) == {("cascading rejection", "")}
    assert "of 1200 queries were refused by everybody who had a choice; refusals took" in found[0].evidence
    assert "gamma" in found[0].remedy


def test_it_is_surer_than_it_is_right() -> None:
    found = diagnose(*trace(lambda p, alpha, time, rng: p > 0.9 - 0.5 * alpha, claims=lambda p: min(1.0, p + 0.4)))
    assert kinds(found) == {("premature acceptance", "a")}
    assert not diagnose(trace(bar)[0], {})  # nobody says what was right


@pytest.mark.parametrize("threshold", [lambda alpha: 0.5, lambda alpha: 0.4 + 0.3 * alpha])
def test_it_does_not_heed_alpha(threshold: Callable[[float], float]) -> None:
    found = diagnose(*trace(lambda p, alpha, time, rng: p > threshold(alpha)))
    assert kinds(found) == {("thresholds do not follow alpha", "a")}


def test_it_changes_over_time() -> None:
    found = diagnose(*trace(lambda p, alpha, time, rng: p > (0.2 if time < 0.5 else 0.6) * (1.1 - alpha)))
    assert kinds(found) == {("drift", "a")}


def test_few_queries_say_nothing() -> None:
    assert not diagnose(*trace(lambda *_: False, count=20))
    assert not diagnose([], {})


def test_every_signature_has_a_remedy() -> None:
    assert all(len(remedy) > 40 for remedy in REMEDIES.values())


def test_a_real_trace_is_read(tmp_path: Path) -> None:
    agents = [
        {"name": "a", "cost": 0.1, "engine": {"kind": "scripted", "confidence": "random"}, "assessor": "likelihood"},
        {"name": "b", "cost": 0.9, "engine": {"kind": "scripted"}},
    ]
    file = tmp_path / "trace.jsonl"
    with Mesh.from_yaml({"name": "two", "runtime": "local", "agents": agents, "trace": str(file)}) as mesh:
        replies = mesh.ask_many([f"question {n}" for n in range(40)], 0.5)
        for reply in replies:
            mesh.feedback(getattr(reply, "id"), True)  # noqa: B009
    answered, feedback = read_trace(file)
    assert (len(answered), len(feedback)) == (40, 40)
    diagnose(answered, feedback)


def test_what_is_no_trace(tmp_path: Path) -> None:
    with pytest.raises(QueryError, match=r"trace: .*No such file"):
        read_trace(tmp_path / "none")
    (tmp_path / "other").write_text(json.dumps({"time": 1}) + "\n")
    with pytest.raises(QueryError, match=r"other:1 is no line of a trace"):
        read_trace(tmp_path / "other")
