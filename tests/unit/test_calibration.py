"""Calibration: the pure map, its documents, and how it is fitted; numbers by hand."""

from __future__ import annotations

import json
import math
import pickle
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.calibration import Calibration
from agents.errors import ConfigError
from training.fit import fit

KNOTS = {
    "kind": "isotonic",
    "alphas": [0.2, 0.6],
    "maps": [{"x": [0, 1, 2], "y": [0.1, 0.5, 0.9]}, {"x": [1], "y": [0.3]}],
}
PLATT = {"kind": "platt", "alphas": [0.5], "maps": [{"a": 2, "b": -1}], "meta": {"n": 7}}


@pytest.mark.parametrize(
    ("score", "alpha", "p"),
    [
        (0.5, 0.2, 0.3), (1, 0.2, 0.5), (1.75, 0.2, 0.8), (-9, 0.2, 0.1), (9, 0.2, 0.9), (-math.inf, 0.2, 0.1),
        (math.inf, 0.2, 0.9), (0.5, 0.6, 0.3), (9, 0.6, 0.3), (2, 0.4, 0.6), (2, 0.3, 0.75), (2, 0.0, 0.9),
        (2, 1.0, 0.3),
    ],
)  # fmt: skip
def test_knots_are_joined_by_lines_and_so_are_alphas(score: float, alpha: float, p: float) -> None:
    assert Calibration.from_json(KNOTS)(score, alpha) == pytest.approx(p)


def test_platt_is_a_logistic_curve() -> None:
    g = Calibration.from_json(PLATT)
    assert g(0.5, 0.9) == 0.5
    assert g(1, 0) == pytest.approx(1 / (1 + math.exp(-1)))
    assert (g(-math.inf, 0.5), g(math.inf, 0.5), g(-1e308, 0.5), g(1e308, 0.5)) == (0, 1, 0, 1)
    flat = Calibration.from_json({"kind": "platt", "alphas": [0], "maps": [{"a": 0, "b": 0}]})
    assert flat(math.inf, 0) == flat(-math.inf, 0) == 0.5


def test_identity_clamps() -> None:
    for g in (Calibration(), Calibration.from_json({"kind": "identity"})):
        assert [g(score, 0.5) for score in (-math.inf, -0.1, 0.3, 1, math.inf)] == [0, 0, 0.3, 1, 1]


@pytest.mark.parametrize("document", [KNOTS, PLATT, {"kind": "identity"}])
def test_nan_is_no_score(document: dict[str, Any]) -> None:
    g = Calibration.from_json(document)
    for score, alpha in ((math.nan, 0.5), (0.5, math.nan)):
        with pytest.raises(ValueError, match="both must be numbers"):
            g(score, alpha)


@pytest.mark.parametrize("document", [KNOTS, PLATT, {"kind": "identity"}])
def test_documents_survive(document: dict[str, Any], tmp_path: Path) -> None:
    g = Calibration.from_json(document)
    (tmp_path / "g.json").write_text(json.dumps(g.to_json()))
    assert Calibration.load(tmp_path / "g.json") == pickle.loads(pickle.dumps(g)) == g
    assert g.to_json() == {"alphas": [], "maps": [], "meta": {}} | document
    with pytest.raises(AttributeError):
        g.kind = "platt"  # type: ignore[misc]
    g.to_json()["meta"]["n"] = 0
    assert g.to_json()["meta"] == document.get("meta", {})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "spline"}, "kind must be one of isotonic, platt, identity, score, not 'spline'"),
        ({"kind": None}, "kind must"),
        ({"kind": []}, "kind must"), ({"knots": []}, r"keys must be kind, alphas, maps, meta, told, not \['knots'\]"),
        ({"meta": 5}, "meta must be an object, not 5"), ({"alphas": []}, "alphas must be empty for identity"),
        ({"alphas": [0.2]}, "maps must be a list of 1"), ({"alphas": [0.2, 1.6]}, "alphas must be numbers from 0 to 1"),
        ({"alphas": [0.6, 0.2]}, "alphas must be strictly rising"), ({"alphas": [0.2, True]}, "alphas must be numbers"),
        ({"alphas": "0.2"}, "alphas must be numbers"), ({"kind": "identity"}, "alphas must be empty for identity"),
        ({"maps": {}}, "maps must be a list of 2"), ({"maps": [[], []]}, r"maps\[0\] must be an object"),
        ({"maps": [{"x": [0]}, 0]}, r"maps\[0\] must be an object with x and y"),
        ({"maps": [{"x": [0], "y": [0.5]}, {"x": [1, 0], "y": [0, 1]}]}, r"maps\[1\].x must be strictly rising"),
        ({"maps": [{"x": [0], "y": [0.5]}, {"x": [0, 1], "y": [1, 0]}]}, r"maps\[1\].y must be never falling"),
        ({"maps": [{"x": [0], "y": [1.5]}, {}]}, r"maps\[0\].y must be numbers from 0 to 1, not \[1.5\]"),
        ({"maps": [{"x": [0], "y": []}, {}]}, r"maps\[0\] must be x and y of one length"),
        ({"maps": [{"x": [], "y": []}, {}]}, r"maps\[0\] must be x and y of one length, not empty"),
        ({"maps": [{"x": [math.nan], "y": [0]}, {}]}, r"maps\[0\].x must be numbers"),
        ({"maps": [{"x": [math.inf], "y": [0]}, {}]}, r"maps\[0\].x must be numbers"),
        ({"kind": "platt"}, r"maps\[0\] must be an object with a and b"),
        ({"kind": "platt", "maps": [{"a": -1, "b": 0}] * 2}, r"maps\[0\].a must be numbers from 0"),
        ({"kind": "platt", "maps": [{"a": 1, "b": "0"}] * 2}, r"maps\[0\].b must be numbers"),
    ],
)  # fmt: skip
def test_a_malformed_document_names_the_key(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Calibration.from_json(KNOTS | change)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"calibration .*none.json: .*No such file"):
        Calibration.load(tmp_path / "none.json")
    for text, message in (
        ("{", "line 1"),
        ("[]", "a calibration must be an object"),
        ('{"kind": "x"}', "kind must be one of"),
    ):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(ConfigError, match=rf"calibration .*bad.json: .*{message}"):
            Calibration.load(tmp_path / "bad.json")


@given(st.data())
def test_always_a_probability_that_never_falls(data: st.DataObject) -> None:
    real = st.floats(-1e6, 1e6)
    xs = sorted(data.draw(st.sets(real, min_size=1, max_size=5)))
    ys = sorted(data.draw(st.lists(st.floats(0, 1), min_size=len(xs), max_size=len(xs))))
    platt = {
        "kind": "platt",
        "alphas": [0.1, 0.7],
        "maps": [{"a": abs(data.draw(real)), "b": data.draw(real)} for _ in "ab"],
    }
    knots = {"kind": "isotonic", "alphas": [0.3], "maps": [{"x": xs, "y": ys}]}
    low, high = sorted(data.draw(st.tuples(*[st.floats(allow_nan=False)] * 2)))
    alpha = data.draw(st.floats(0, 1))
    for document in (platt, knots):
        g = Calibration.from_json(document)
        assert 0 <= g(low, alpha) <= g(high, alpha) + 1e-12 <= 1 + 1e-12


# ------------------------------------------------------------------------------------- fitting


def sampled(n: int, right_at: Any, seed: int = 0) -> list[tuple[float, bool]]:
    rng = random.Random(seed)
    scores = [rng.uniform(-4, 4) for _ in range(n)]
    return [(score, rng.random() < right_at(score)) for score in scores]


def logistic(score: float) -> float:
    return 1 / (1 + math.exp(-(1.5 * score - 0.5)))


def step(score: float) -> float:
    return 0.05 if score < -2 else 0.5 if score < 2 else 0.95


def test_a_logistic_truth_is_found_and_takes_platt() -> None:
    g = fit({0.5: sampled(2000, logistic)})
    assert g.kind == "platt"
    for score in (-2, -1, 0, 1, 2):
        assert g(score, 0.5) == pytest.approx(logistic(score), abs=0.05)


def test_a_step_takes_isotonic() -> None:
    g = fit({0.5: sampled(3000, step)})
    assert g.kind == "isotonic"
    for score in (-3, 0, 3):
        assert g(score, 0.5) == pytest.approx(step(score), abs=0.06)
    assert len(g.maps[0][0]) <= 64


def test_alphas_have_maps_of_their_own() -> None:
    g = fit({0.8: sampled(1000, lambda s: 0.2 * logistic(s), 1), 0.2: sampled(1000, logistic, 2)})
    assert g.alphas == (0.2, 0.8)
    assert g(3, 0.2) > 0.9
    assert g(3, 0.8) < 0.35
    assert g(3, 0.5) == pytest.approx((g(3, 0.2) + g(3, 0.8)) / 2)


@pytest.mark.parametrize("kind", ["platt", "isotonic", "auto"])
@pytest.mark.parametrize(("outcomes", "p"), [([True] * 8, 0.9), ([False] * 8, 0.1), ([True], 2 / 3), ([False], 1 / 3)])
def test_all_right_or_all_wrong_follows_laplace(kind: str, outcomes: list[bool], p: float) -> None:
    g = fit({0.5: [(float(i), right) for i, right in enumerate(outcomes)]}, kind)
    assert [g(score, 0.5) for score in (-9, 0, 9)] == pytest.approx([p] * 3)


def test_equal_scores_give_their_accuracy() -> None:
    rows = [(1.0, True), (1.0, False), (1.0, True), (1.0, True)]
    assert fit({0.5: rows}, "platt")(1.0, 0.5) == pytest.approx(4 / 6)
    assert fit({0.5: rows}, "isotonic")(1.0, 0.5) == pytest.approx(3 / 4)


def test_isotonic_pools_violators_and_is_never_sure() -> None:
    # 0 | 1 0 pooled to one half | 1 1; with n = 5 the ends are 1/7 and 6/7
    g = fit({0.5: [(0, False), (1, True), (2, False), (3, True), (4, True)]}, "isotonic")
    assert [g(score, 0.5) for score in range(5)] == pytest.approx([1 / 7, 0.5, 0.5, 6 / 7, 6 / 7])


def test_a_score_that_misleads_is_ignored() -> None:
    g = fit({0.5: [(-s, right) for s, right in sampled(400, logistic)]}, "platt")
    assert g(-3, 0.5) == g(3, 0.5)


def test_infinite_scores_count_as_the_ends() -> None:
    g = fit({0.5: [(-math.inf, False), (-1, False), (1, True), (math.inf, True)] * 5}, "isotonic")
    assert g(-math.inf, 0.5) == pytest.approx(1 / 22)
    assert g(math.inf, 0.5) == pytest.approx(21 / 22)
    assert fit({0.5: [(math.inf, True), (-math.inf, False)]}, "platt")(0, 0.5) == pytest.approx(0.5)


def test_meta_tells_how_and_the_seed_decides_the_folds() -> None:
    rows = {0.2: sampled(200, logistic, 1), 0.8: sampled(100, logistic, 2)}
    g, same, other = fit(rows), fit(rows), fit(rows, seed=1)
    assert g == same
    meta = g.to_json()["meta"]
    assert (meta["n"], meta["asked"], meta["kind"], meta["seed"]) == (300, "auto", g.kind, 0)
    assert [(part["alpha"], part["n"]) for part in meta["by_alpha"]] == [(0.2, 200), (0.8, 100)]
    assert meta["accuracy"] == sum(right for part in rows.values() for _, right in part) / 300
    assert 0 < meta["brier"] < 0.2
    assert 0.8 < meta["auroc"] < 1
    assert 0 < meta["ece"] < 0.2
    for name in ("brier", "log_loss", "auroc"):
        low, high = meta["ci"][name]
        assert low < meta[name] < high
    assert fit(rows).to_json()["meta"]["ci"] == meta["ci"]
    assert meta["brier"] == min(scores["brier"] for scores in meta["held_out"].values())
    assert other.to_json()["meta"]["brier"] != meta["brier"]
    assert Calibration.from_json(json.loads(json.dumps(g.to_json()))) == g
    alone = fit({0.5: [(0.1, True)]}).to_json()["meta"]
    assert (alone["brier"], alone["ci"]) == (None, {})


@pytest.mark.parametrize(
    ("rows", "kind", "message"),
    [
        ({0.5: [(0, True)]}, "spline", "kind is 'spline'; use auto or one of"), ({}, "auto", "no rows to fit"),
        ({0.5: []}, "auto", "alpha 0.5 has no rows"), ({1.5: [(0, True)]}, "auto", "alpha is 1.5; it must be"),
        ({0.5: [(0, True), (math.nan, True)]}, "auto", "alpha 0.5: score of row 1 is NaN"),
    ],
)  # fmt: skip
def test_what_cannot_be_fitted(rows: dict[float, list[tuple[float, bool]]], kind: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(rows, kind)


def test_the_map_itself_needs_neither_numpy_nor_sklearn() -> None:
    code = (
        "import sys, agents.calibration; print([m for m in ('numpy', 'sklearn', 'torch', 'ray') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    code = "import sys, training.fit; print('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
