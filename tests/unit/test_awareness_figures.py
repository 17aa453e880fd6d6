"""From what was seen of two made-up agents to the reported figures: one knows itself, the other does not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.assessment import LEAST, MOST
from benchmarks.awareness_figures import draw, figures, keep, tables
from benchmarks.judges.base import cell
from benchmarks.self_awareness import ALPHAS, SURE, Seen
from training import scores
from training.lab_questions import questions

ASKED = questions(300, "test", 5)


def seen(name: str, knows: bool) -> Seen:
    rng = np.random.default_rng(1)
    right = rng.random(300) < 0.5
    told = right if knows else rng.random(300) < 0.5
    p = np.where(told, 0.9, 0.1)[None].repeat(len(ALPHAS), 0)
    one = Seen(name, base=right, competence=right.astype(float))
    one.right = {"sft": right, "rl": right}
    one.scores = {"sft": np.zeros_like(p), "rl": np.where(p > 0.5, SURE + 1, 0.0)}  # stage one alone refuses all
    one.p = p
    one.judges = {"constant": (np.full(300, 0.5), right)}
    one.outside = {
        "longer": {"questions": ASKED, "right": right, "p": p[0]},
        "unseen": {"refused": np.arange(4) < 3, "right": np.zeros(4, dtype=bool)},
    }
    return one


@pytest.fixture
def result(monkeypatch: pytest.MonkeyPatch) -> dict[str, object]:
    monkeypatch.setattr(scores, "RESAMPLES", 20)
    return figures([seen("wise", True), seen("blind", False)], ASKED)


def test_who_knows_itself_scores_so(result: dict) -> None:  # type: ignore[type-arg]
    wise, blind = result["agents"]["wise"], result["agents"]["blind"]
    assert (wise["accuracy"], wise["auroc"], wise["auroc_cell"], wise["f1"]) == (1, 1, 1, 1)
    assert wise["reward_share"]["rl"] == {f"{alpha:g}": pytest.approx(1) for alpha in ALPHAS}
    assert abs(blind["auroc"] - 0.5) < 0.1
    assert blind["wrong_among_answered"]["0.5"] == pytest.approx(0.5, abs=0.1)
    assert result["mean"]["accuracy"] == pytest.approx((1 + blind["accuracy"]) / 2)
    low, high = result["mean_ci"]["auroc"]
    assert low < result["mean"]["auroc"] < high
    assert result["judges"]["constant"]["auroc"] == 0.5
    assert result["above_judges_ci"]["constant"]["auroc"][0] > 0.1


def test_what_stage_two_earns_above_stage_one(result: dict) -> None:  # type: ignore[type-arg]
    """Stage one refuses everything, which earns (1 - alpha) ** .5; who knows itself then earns 1 on half of it."""
    right = float(seen("wise", True).base.mean())
    both = result["rl_above_sft"]["0.9"]
    gained = right * (1 - 0.1**0.5)
    assert both["ci"][0] > 0
    assert both["mean"] < gained  # the blind one loses
    assert result["outside"]["unseen_refused_at_0.2"]["mean"] == 0.75
    assert result["outside"]["longer_auroc"]["wise"] == 1


def test_what_cells_tell_of_longer_questions_with_hindsight(result: dict) -> None:  # type: ignore[type-arg]
    """A right answer is above a wrong one where its cell's share is larger, half where it is the same."""
    blind, names = seen("blind", False), np.array([cell(question) for question in ASKED])
    shares = {name: blind.outside["longer"]["right"][names == name].mean() for name in names}
    told = [
        (shares[name], bool(right))
        for name, right in zip(names, blind.outside["longer"]["right"], strict=True)
        if LEAST <= shares[name] <= MOST
    ]
    pairs = [(one, two) for one, it in told if it for two, other in told if not other]
    expected = np.mean([(one > two) + 0.5 * (one == two) for one, two in pairs])
    assert result["outside"]["longer_auroc_with_hindsight"]["blind"] == pytest.approx(expected)
    assert 0.5 < expected < 1


def test_it_is_json_tables_pictures_and_arrays(result: dict, tmp_path: Path) -> None:  # type: ignore[type-arg]
    json.dumps(result)
    known, chosen = tables(result)
    assert [row[""] for row in known] == ["wise", "blind", "mean", "(constant)"]
    assert chosen[0]["can do"] == chosen[0]["bare"]
    draw([seen("wise", True)], tmp_path / "risk.png")
    assert (tmp_path / "risk.png").stat().st_size > 5000
    keep([seen("wise", True)], tmp_path / "seen.npz")
    kept = np.load(tmp_path / "seen.npz")
    assert kept["wise/rl/score"].shape == (len(ALPHAS), 300)
