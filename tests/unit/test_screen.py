"""The guard at the entry: what it learns, what it keeps out, and that nobody dear pays for it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agents.errors import ConfigError
from agents.messages import Reply
from agents.policies import Answer, Decline, Forward, Look, View
from agents.policies.guard import Guard, Screen
from agents.profile import BUCKETS
from benchmarks.guard import measure, rows
from mesh import Mesh
from mesh.config import load
from tests.pools import pool, simulated
from tests.unit.test_more_policies import seen
from training.guard import _bar, learn, score

SUMS = [f"{a}+{b}=" for a in range(30) for b in range(10)]
WORDS = [f"{word} {number}" for word in ("weather", "poem", "joke", "news") for number in range(60)]
SCREEN = learn(SUMS[::2], WORDS[::2], SUMS[1::2], WORDS[1::2])


def test_the_score_is_the_harmonic_mean() -> None:
    assert score(1.0, 0.5) == pytest.approx(2 / 3)
    assert score(0.0, 1.0) == score(0.0, 0.0) == 0.0


def test_the_bar_stands_in_the_middle_of_those_that_score_best() -> None:
    assert _bar(np.array([0.6, 0.9]), np.array([0.1, 0.4])) == pytest.approx(0.5)
    assert 0.2 < _bar(np.array([0.2, 0.8, 0.9, 0.95]), np.array([0.1, 0.3, 0.5])) < 0.8  # 3 of 4, and all


def test_it_tells_what_it_was_shown_from_what_it_never_saw() -> None:
    assert all(SCREEN.inside(text) >= SCREEN.bar for text in ("7+8=", "21+3="))
    assert all(SCREEN.inside(text) < SCREEN.bar for text in ("weather in May", "a poem, please"))


def test_a_screen_is_kept_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "guard.json"
    path.write_bytes(SCREEN.written())
    assert Screen.load(path) == SCREEN
    path.write_bytes(Screen(b"123", 1.0, 0.0, 0.5).written())
    with pytest.raises(ConfigError, match=f"it must have {BUCKETS} weights"):
        Screen.load(path)
    with pytest.raises(ConfigError, match=r"guard .*nothing.json"):
        Screen.load(tmp_path / "nothing.json")


def test_what_it_lets_in_is_for_the_other_policy() -> None:
    guard = Guard(SCREEN, "reliability", {"gamma": 1.0})
    assert guard.needs_probability
    assert guard.decide(seen(0.4, "poem 7", looked=False)) == Decline(reason="out of domain")
    assert guard.decide(seen(0.4, "7+8=", looked=False)) == Look()
    assert guard.decide(seen(0.4, "7+8=")) == Forward("b")  # the bar is .5
    assert guard.decide(seen(0.6, "7+8=")) == Answer()
    assert Guard(SCREEN, "always").decide(seen(0.0, "7+8=", looked=False)) == Answer()
    view: View = seen(0.0, "poem 7", looked=False)
    assert Guard(None).decide(view) == Look()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"policy": "guard"}, "policy is 'guard', it must be another one of"),
        ({"policy": "nobody"}, "policy is 'nobody'"),
        ({"options": {"delta": 1}}, "options of 'reliability': .*delta"),
        ({"options": {"gamma": 0}}, "gamma is 0"),
    ],
)
def test_wrong_options_are_named(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Guard(SCREEN, **options)


@pytest.fixture
def guarded(tmp_path: Path) -> dict[str, Any]:
    """Agents that refuse everything, behind a guard: what is let in goes to the dearest."""
    (tmp_path / "guard.json").write_bytes(SCREEN.written())
    return pool("refusal", engine={"refuse": 1.0}, guard=str(tmp_path / "guard.json"))


def test_nobody_pays_for_what_is_declined(guarded: dict[str, Any]) -> None:
    out, inside = simulated(guarded, ["poem 7", "7+8="], 0.5, may_decline=True)
    assert isinstance(out, Reply)
    assert isinstance(inside, Reply)
    assert (out.finish, out.full_cost, out.text) == ("declined", 0.0, "")
    assert [(hop.agent, hop.verdict, hop.reason) for hop in out.path] == [("a0", "declined", "out of domain")]
    assert [hop.agent for hop in inside.path] == ["a0", "a1", "a2", "a3", "a4"]


def test_where_nothing_may_be_declined_the_entry_answers_and_marks_it(guarded: dict[str, Any]) -> None:
    out, inside = simulated(guarded, ["poem 7", "7+8="], 0.5)
    assert isinstance(out, Reply)
    assert isinstance(inside, Reply)
    assert [(hop.agent, hop.verdict, hop.reason) for hop in out.path] == [("a0", "answered", "out of domain")]
    assert (inside.agent, inside.path[-1].reason) == ("a4", "forced")


def test_a_mesh_has_a_guard(guarded: dict[str, Any]) -> None:
    with Mesh(load(guarded)) as mesh:
        assert mesh.ask("poem 7", may_decline=True).finish == "declined"
        assert mesh.ask("7+8=", may_decline=True).path[0].reason != "out of domain"


def test_the_lab_tells_its_own_questions_from_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.guard.OWN_ROWS", {"train": 1500, "validation": 500})
    screen, result = measure(load("lab"), 400, 1)
    assert result["bar"] == screen.bar
    assert len(rows(result)) == 3
    assert result["gqr"] > 0.95
    with pytest.raises(ConfigError, match="does not say what it understands"):
        measure(load("scripted"), 400, 1)
