"""Agents that do as measured ones did: by hand where that is possible, else as often as they should."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pytest

from agents.engines.base import Setup
from agents.engines.measured import RIGHT, WRONG, MeasuredEngine
from agents.errors import ConfigError, QueryError
from agents.messages import Message, Request, ScoreRequest
from agents.prompts import REFUSAL
from benchmarks.measured import figures, shared, write
from benchmarks.outcomes import Outcomes
from mesh.crowd import READY, WORK, Crowd, Figures
from mesh.questions import Question

KIND = {"right": 0.3, "sure": [0.6, 0.8, 1.0], "unsure": [0.0, 0.2, 0.6]}
ASKED = [f"add {number}" for number in range(4_000)]


def engine(name: str = "a", **options: Any) -> MeasuredEngine:
    return MeasuredEngine(Setup(name), **{"kinds": {"add": KIND}, **options})


def share(first: MeasuredEngine, second: MeasuredEngine) -> float:
    return sum(first.draw(text)[0] and second.draw(text)[0] for text in ASKED) / len(ASKED)


def test_it_is_as_often_right_as_was_measured_and_as_sure() -> None:
    drawn = [engine().draw(text) for text in ASKED]
    right, sure = zip(*drawn, strict=True)
    assert sum(right) / len(right) == pytest.approx(0.3, abs=0.03)
    when_right = [p for good, p in drawn if good]
    when_wrong = [p for good, p in drawn if not good]
    assert np.quantile(when_right, [0.0, 0.5, 1.0]) == pytest.approx([0.6, 0.8, 1.0], abs=0.02)
    assert np.quantile(when_wrong, [0.0, 0.5, 1.0]) == pytest.approx([0.0, 0.2, 0.6], abs=0.02)
    assert 0 <= min(sure) <= max(sure) <= 1


def test_a_question_that_is_hard_for_one_is_hard_for_others_as_far_as_they_share() -> None:
    alone, together, half = (share(engine(shared=rho), engine("b", shared=rho)) for rho in (0.0, 1.0, 0.5))
    assert alone == pytest.approx(0.3 * 0.3, abs=0.015)
    assert together == pytest.approx(0.3, abs=0.03)
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    given = [NormalDist().cdf((NormalDist().inv_cdf(0.3) - math.sqrt(0.5) * z) / math.sqrt(0.5)) for z in nodes]
    assert half == pytest.approx(float(np.dot(weights, np.square(given)) / weights.sum()), abs=0.02)


def test_what_it_says_and_what_it_scores_agree() -> None:
    messages = (Message("user", ASKED[0]),)
    right, p = engine().draw(ASKED[0])
    steps = engine(pieces=2).plan(Request(("q", 1), 1, messages, 100))
    assert "".join(step.piece.text for step in steps if step.piece) == (RIGHT if right else WRONG)
    scores = engine(look=7).scores(ScoreRequest(("q", 1), 1, messages, (REFUSAL,)))
    assert (math.exp(scores.logprobs[0]), scores.prompt_tokens) == (pytest.approx(1 - p), 7)


def test_all_chance_follows_from_names_and_texts() -> None:
    assert engine().draw("add 1") == engine().draw("add 1")
    assert [engine().draw(text) for text in ASKED[:20]] != [engine("b").draw(text) for text in ASKED[:20]]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"kinds": {}}, "kinds is empty"),
        ({"kinds": {"add": {"right": 0.5}}}, "must have right, sure and unsure"),
        ({"kinds": {"add": {**KIND, "right": 1.5}}}, "right is 1.5"),
        ({"kinds": {"add": {**KIND, "sure": [0.5, 0.4]}}}, "two probabilities that rise"),
        ({"kinds": {"add": {**KIND, "unsure": [0.5]}}}, "two probabilities that rise"),
        ({"shared": 2}, "shared is 2"),
        ({"look": 0}, "look is 0"),
        ({"refuse": 0.5}, "refuse follows from kinds"),
    ],
)
def test_a_wrong_option_is_named(options: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match="measured engine of 'a'") as caught:
        engine(**options)
    assert told in str(caught.value)


def test_a_question_of_no_kind_is_refused() -> None:
    with pytest.raises(QueryError, match=r"'why not'.*add"):
        engine().draw("why not")


# ---------------------------------------------------------------------------------- a crowd of them


@pytest.mark.parametrize("name", READY)
def test_ready_figures_are_read(name: str) -> None:
    found = Figures.load(name)
    assert len(found.agents) >= 8
    assert len(found.kinds) >= 7
    assert 0 < found.shared < 1


def test_a_crowd_is_the_measured_agents_give_or_take_a_little() -> None:
    found = Figures.load("lab")
    specs = list(Crowd(found, seed=3).draw(400).values())
    costs = [spec.card.cost for spec in specs]
    assert costs == sorted(costs)
    assert len({*costs}) > 350
    assert np.mean(costs) == pytest.approx(np.mean([agent["cost"] for agent in found.agents.values()]), rel=0.05)
    right = [spec.engine[1]["kinds"]["add"]["right"] for spec in specs]
    measured = [agent["kinds"]["add"]["right"] for agent in found.agents.values()]
    assert np.mean(right) == pytest.approx(np.mean(measured), abs=0.03)
    assert Crowd(found, seed=3).draw(400)["agent-123"] == specs[123]
    assert specs[0].card.mean_work == WORK


def test_figures_that_are_none_are_refused(tmp_path: Path) -> None:
    for text in ("[]", "{", '{"shared": 0.5, "look": 0.1, "agents": {}}', '{"shared": 0.5}'):
        (tmp_path / "figures.json").write_text(text)
        with pytest.raises(ConfigError, match=r"figures '.*figures\.json'"):
            Figures.load(str(tmp_path / "figures.json"))
    with pytest.raises(ConfigError, match=r"figures 'nobody': one of lab, nine_models, or a file"):
        Figures.load("nobody")


# ---------------------------------------------------------------------------------- from rows to figures


def outcomes(rho: float, rows: int = 4_000) -> Outcomes:
    """Two agents that are right half the time and a third of it, and say .9 or .2."""
    rng = np.random.default_rng(0)
    hard, luck = rng.normal(size=rows), rng.normal(size=(2, rows))
    bars = np.array([[0.0], [NormalDist().inv_cdf(1 / 3)]])
    right = (math.sqrt(rho) * hard + math.sqrt(1 - rho) * luck < bars).astype(float)
    questions = tuple(Question(str(number), f"add {number}", "lab/add") for number in range(rows))
    texts = tuple(("",) * rows for _ in range(2))
    beliefs = {0.5: np.where(right > 0, 0.9, 0.2)}
    work = np.ones((2, rows))
    return Outcomes(questions, ("a", "b"), np.array([0.1, 0.9]), right, work, texts, {}, beliefs, 0.25 * work)


@pytest.mark.parametrize("rho", [0.0, 0.4, 0.8])
def test_how_much_is_shared_is_found_again(rho: float) -> None:
    found = outcomes(rho)
    assert shared(found.right > 0.5, np.array(["add"] * len(found))) == pytest.approx(rho, abs=0.06)


def test_figures_are_shares_and_quantiles(tmp_path: Path) -> None:
    write(figures(outcomes(0.4), "made up"), tmp_path / "made.json")
    found = Figures.load(str(tmp_path / "made.json"))
    kind = found.agents["b"]["kinds"]["add"]
    assert kind["right"] == pytest.approx(1 / 3, abs=0.03)
    assert (kind["sure"], kind["unsure"]) == ((0.9,) * 11, (0.2,) * 11)
    assert (found.look, found.agents["a"]["cost"]) == (0.25, 0.1)
    assert json.loads((tmp_path / "made.json").read_text())["source"] == "made up"


def test_agents_that_never_said_how_sure_they_are_are_taken_for_calibrated() -> None:
    plain = outcomes(0.4)
    silent = Outcomes(plain.questions, plain.agents, plain.costs, plain.right, plain.work, plain.texts)
    kind = figures(silent, "made up")["agents"]["a"]["kinds"]["add"]
    assert kind["sure"][5] == pytest.approx(1 - kind["unsure"][5], abs=0.02)  # half of its answers are right
    apart = math.sqrt(2) * NormalDist().inv_cdf(0.85)
    assert kind["sure"][5] == pytest.approx(1 / (1 + math.exp(-apart * apart / 2)), abs=0.01)
