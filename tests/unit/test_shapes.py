"""The same agents in every shape, and curves of learning, on a made-up pool whose best rule is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from agents.errors import ConfigError
from agents.policies import POLICIES, Policy, Reliability
from agents.policies.value import Value
from benchmarks import learning
from benchmarks.learning import _first
from benchmarks.learning import draw as draw_curves
from benchmarks.rehearsal import rehearsed
from benchmarks.shapes import LINE, Shape, by_backward_induction, contenders, draw, measure, table
from benchmarks.walking import walk
from mesh.terminal import print_table
from tests.unit.test_value import PRICES, believing
from topologies import Cascade, Mesh

VALIDATION, TEST = believing(300, 1), believing(150, 2)
ALPHAS = (0.2, 0.5, 0.8)
FOUND = {
    LINE: Shape(Cascade(PRICES), VALIDATION, TEST),
    "cascade": Shape(Cascade(PRICES), VALIDATION, TEST),
    "mesh": Shape(Mesh(PRICES), VALIDATION, TEST),
}


def test_backward_induction_finds_the_best_rule_of_a_line() -> None:
    """Who can do it does it: sums small, words words, riddles large; at .8 riddles are worth .9 - .72, less than
    nothing that anybody else could do with them.
    """
    line = Cascade(PRICES)
    _, paths = walk(TEST, by_backward_induction(VALIDATION, line, 0.5), line, 0.5)
    best = {"add": (0,), "spell": (0, 1), "why": (0, 1, 2)}
    assert paths == [best[question.text.split()[0]] for question in TEST.questions]


def test_every_policy_in_every_shape(tmp_path: Path) -> None:
    result = measure(FOUND, contenders(["reliability", "value"]), {}, ALPHAS, 0)
    for alpha in ALPHAS:
        at = result["alphas"][f"{alpha:g}"]
        assert at.keys() == {"reliability", "value"}
        for name, shape in FOUND.items():
            policies = dict.fromkeys(TEST.agents, Reliability())
            by_hand, _ = walk(shape.test, policies, shape.topology, alpha)
            told = at["reliability"][name]
            assert told["utility"] == pytest.approx(by_hand.utility(alpha).mean())
            assert told["utility_full"] == pytest.approx(by_hand.utility(alpha, True).mean())
            assert told["pct_oracle"] == pytest.approx(100 * told["utility"] / result["oracle"][name][f"{alpha:g}"])
            assert told["ci"][0] <= told["utility"] <= told["ci"][1]
        versus = result["value_vs_reliability"][f"{alpha:g}"]
        assert versus["diff"] == pytest.approx(at["value"][LINE]["utility"] - at["reliability"][LINE]["utility"])
        assert abs(result["value_vs_optimum"][f"{alpha:g}"]["diff"]) < 0.05
        parts = result["missing"][f"{alpha:g}"]
        assert parts["oracle"] - parts["information"] - parts["calibration"] - parts["policy"] == pytest.approx(
            at["value"][LINE]["utility"]
        )
    assert len(table(result)) == 6
    draw(result, tmp_path / "shapes.png")
    assert (tmp_path / "shapes.png").stat().st_size > 1000


def test_who_does_not_learn_is_left_alone_and_who_does_stops_exploring() -> None:
    shape = FOUND["mesh"]

    def gone_over(make: Callable[[], Policy]) -> dict[str, Policy]:
        return rehearsed({name: make() for name in TEST.agents}, shape.validation, shape.topology, (0.5,))

    assert gone_over(Reliability).keys() == set(TEST.agents)
    learnt = gone_over(Value)
    assert all(isinstance(policy, Value) and policy.explore == 0 and policy.doubting for policy in learnt.values())
    assert not any(policy.drift.held for policy in learnt.values())  # type: ignore[attr-defined]
    assert all(policy.values.cells for name, policy in learnt.items() if name == "small")  # type: ignore[attr-defined]


def test_unknown_policies_are_named() -> None:
    with pytest.raises(ConfigError, match="unknown nobody; there are reliability"):
        contenders(["nobody"])


def test_curves_of_learning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second agent joins, and is asked for words; it gets worse, and is asked less."""
    monkeypatch.setattr(learning, "WINDOW", 50)
    result = learning.measure(VALIDATION, believing(400, 3), "words", 0.5, 0, orders=1)
    begun = result["from_nothing"]["1"]
    lost = np.subtract(begun["offline"], begun["utility"]) * 50
    assert begun["regret"] == pytest.approx(np.cumsum(lost).tolist())
    assert begun["regret"][0] > 0  # nothing was known yet
    assert len(begun["utility"]) == len(begun["regret"]) == 8
    joined = result["joins"]["1"]
    assert joined["share_end"] == pytest.approx(1 / 3, abs=0.1)
    assert joined["gain_end"] > 0.05
    assert joined["share_there"] is not None
    told, untold = (result[key]["1"] for key in ("dearest_joins", "dearest_joins_with_nothing"))
    assert told["agent"] == untold["agent"] == "large"
    assert told["share"][0] > untold["share"][0]  # who knows nothing passes on what it was chosen for
    assert result["worsens"]["1"]["share_before"] == pytest.approx(1 / 3, abs=0.06)
    for rows, count in zip(learning.tables(result), (2, 8), strict=True):
        assert len(rows) == count
        print_table(rows)
    draw_curves(result, tmp_path / "learning.png")
    assert (tmp_path / "learning.png").stat().st_size > 1000


def test_the_busiest_agent_besides_the_entry() -> None:
    """Without riddles there are sums, which the entry does, and words."""
    kept = [at for at, question in enumerate(VALIDATION.questions) if not question.text.startswith("why")]
    assert learning.busiest(VALIDATION.at(np.array(kept)), 0.5) == "words"


def test_when_a_curve_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learning, "WINDOW", 2)
    assert _first(np.array([0.0, 0.0, 0.5, 1.0, 1.0]), 0.0, 1.0) == 5
    assert _first(np.array([1.0, 1.0, 0.5, 0.0, 0.0]), 1.0, 0.0) == 5
    assert _first(np.array([0.0, 0.0, 0.0]), 0.0, 1.0) is None


def walked(policy: str, **options: object) -> tuple[float, float, float]:
    """Accuracy, cost and full cost of the test questions in the mesh, where everybody goes by a policy."""
    policies = {name: POLICIES[policy](**options) for name in TEST.agents}
    found, _ = walk(TEST, policies, Mesh(PRICES), 0.5)
    return float(found.right.mean()), float(found.cost.mean()), float(found.full_cost.mean())


def test_several_at_once_are_all_paid_for() -> None:
    """Of whoever would forward a committee asks both others: what it takes is one answer, what it costs all of them."""
    right, cost, full = walked("committee", members=2, quorum=1)
    alone = walked("reliability")
    assert full > alone[2] + 0.2
    assert cost < full
    assert right >= 0.9 * alone[0]
    same = walked("speculative", doubt=0.0)
    early = walked("speculative", doubt=1.0)
    assert early[:2] == same[:2]  # who begins early changes nothing but what is done in vain
    assert early[2] >= same[2]
