"""Routing held to outcomes: ours and baselines on a made-up pool, and the figures by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from agents.policies import Always, Reliability
from benchmarks.ours import chosen, tried, walked, ways
from benchmarks.outcomes import Asked, Method, Outcomes, routed
from benchmarks.routing import ALPHAS, baselines, figures, lab_outcomes, planes, report
from benchmarks.routing_figures import draw, table
from benchmarks.walking import walk
from mesh.config import load
from tests.baselines import COSTS, SURE, outcomes
from topologies import Cascade, Mesh, Topology

PRICES = {"small": 0.1, "words": 0.2, "large": 0.9}
LINE, EVERYBODY = Cascade(PRICES), Mesh(PRICES)


def believing(count: int, seed: int) -> Outcomes:
    """Agents that know how sure they may be of each task, and look before they draft."""
    given = outcomes(count, seed)
    words = {"add": "sums", "spell": "words", "why": "riddles"}
    p = np.array([SURE[words[question.text.split()[0]]] for question in given.questions]).T
    return replace(given, beliefs=dict.fromkeys(ALPHAS, p), looks=np.full(p.shape, 0.01))


TRAIN, VALIDATION, TEST = believing(400, 1), believing(300, 2), believing(400, 3)


def test_a_walk_by_hand() -> None:
    found, paths = walk(TEST, dict.fromkeys(TEST.agents, Reliability(0.5)), LINE, 0.5)
    for number, question in enumerate(TEST.questions):
        task = question.text.split()[0]
        assert paths[number] == {"add": (0,), "spell": (0, 1), "why": (0, 1, 2)}[task]
        assert found.full_cost[number] == pytest.approx({"add": 0.11, "spell": 0.22, "why": 0.92}[task])
        assert found.right[number] == TEST.right[paths[number][-1], number]
    assert walk(TEST, dict.fromkeys(TEST.agents, Always()), LINE, 0.5)[0].full_cost.tolist() == pytest.approx(
        [0.1] * 400
    )
    refusing = replace(TEST, beliefs={0.5: np.array([[np.nan], [0.99], [0.0]]).repeat(400, axis=1)})
    _, paths = walk(refusing, dict.fromkeys(TEST.agents, Reliability(0.5)), LINE, 0.5)
    assert set(paths) == {(0, 1)}
    with pytest.raises(ValueError, match=r"no confidences were recorded at alpha 0.3; there are \[0.2, 0.5, 0.8\]"):
        walk(TEST, {}, LINE, 0.3)


def test_a_draft_that_is_judged_is_paid_for_when_it_is_refused() -> None:
    drafting = replace(TEST, looks=np.full_like(TEST.work, np.nan))
    found, paths = walk(drafting, dict.fromkeys(TEST.agents, Reliability(0.5)), LINE, 0.5)
    spent = {(0,): 0.1, (0, 1): 0.3, (0, 1, 2): 1.2}
    assert found.full_cost.tolist() == pytest.approx([spent[path] for path in paths])


@pytest.mark.parametrize("topology", [LINE, EVERYBODY])
def test_nobody_is_left_out_of_the_line(topology: Topology) -> None:
    assert walked(TEST, topology) == [0, 1, 2]


@pytest.fixture(scope="module")
def ours() -> tuple[list[Method], list[Method]]:
    """Our ways, on the validation and on the test questions."""
    found = ways(TRAIN, VALIDATION, EVERYBODY, ALPHAS)
    return tried(found, VALIDATION, EVERYBODY, ALPHAS), tried(found, TEST, EVERYBODY, ALPHAS)


def test_the_report_is_of_what_was_found() -> None:
    found = {name: way for name, way in ways(TRAIN, VALIDATION, EVERYBODY, ALPHAS).items() if "-looks" in name}
    methods = tried(found, TEST, EVERYBODY, ALPHAS)
    names = "mesh-reservation-looks", "mesh-reservation-looks-full"
    others = baselines(TRAIN, VALIDATION, TEST, ALPHAS, 0, ("logistic",))
    told = report([*methods, *others], found, names, TEST, EVERYBODY, ALPHAS, 0)
    assert told["changes"] == []  # with three agents there is nobody to leave
    for name, by_alpha in told["missing"].items():
        for alpha, parts in by_alpha.items():
            got = told["alphas"][alpha]["methods"][name]["utility"]
            lacking = parts["information"] + parts["calibration"] + parts["policy"]
            assert got + lacking == pytest.approx(told["alphas"][alpha]["oracle"])
    by_name = {method.name: method.found for method in methods}
    everybody = by_name[names[1]][0.5]
    assert told["shares"][names[1]]["0.5"]["small"] == pytest.approx((everybody.agent == 0).mean())
    row = told["alphas"]["0.5"]["methods"][names[1]]
    assert row["hops"] == pytest.approx(everybody.hops.mean())
    answers = TEST.work[everybody.agent, np.arange(400)].sum()
    assert row["work_beside_answers"] == pytest.approx(1 - answers / everybody.full_cost.sum())
    assert set(told["easy_and_hard"]) == {*names, "logistic"}


def test_ours_are_chosen_on_validation_and_come_near_what_can_be_known(ours: tuple[list[Method], list[Method]]) -> None:
    known, mine = ours
    assert [method.name for method in known] == [method.name for method in mine]
    best = next(method for method in mine if method.name == chosen(known, False)).found
    for alpha in ALPHAS:
        surest = (TEST.beliefs[alpha] - alpha * COSTS[:, None]).argmax(axis=0)
        most = TEST.utilities(alpha)[surest, np.arange(400)].mean()
        assert best[alpha].utility(alpha).mean() > most - 0.02
    by_name = {method.name: method.found for method in known}
    for alpha in ALPHAS:  # where bars were learnt no gamma gains more
        gains = {name: each[alpha] for name, each in by_name.items() if "reservation" not in name}
        for full, name in ((False, "mesh-bar"), (True, "mesh-bar-full")):
            most = max(each.utility(alpha, full).mean() for each in gains.values())
            assert gains[name].utility(alpha, full).mean() == pytest.approx(most)


def test_whoever_is_told_what_the_others_are_good_at_need_not_ask_them(ours: tuple[list[Method], list[Method]]) -> None:
    """Where a question's words tell all there is to know, nobody looks in vain."""
    _, mine = ours
    by_name = {method.name: method.found for method in mine}
    for alpha in ALPHAS:
        told, asking = by_name["mesh-reservation-both-full"][alpha], by_name["mesh-bar-full"][alpha]
        assert told.utility(alpha, True).mean() > asking.utility(alpha, True).mean() + 0.003 * alpha
        surest = (TEST.beliefs[alpha] - alpha * COSTS[:, None]).argmax(axis=0)
        most = (TEST.right - alpha * TEST.work)[surest, np.arange(400)].mean()
        assert told.utility(alpha, True).mean() > most - 0.02


def test_figures_by_hand(ours: tuple[list[Method], list[Method]]) -> None:
    known, mine = ours
    told: list[str] = []
    others = baselines(TRAIN, VALIDATION, TEST, ALPHAS, 0, ("largest", "best-single", "knn"), told.append)
    assert told == ["largest", "best-single", "knn"]
    methods, best, full = [*mine, *others], chosen(known, False), chosen(known, True)
    result = figures(methods, (best, full), TEST, ALPHAS, seed=0)
    at = result["alphas"]["0.5"]
    assert at["oracle"] == pytest.approx((TEST.right - 0.5 * COSTS[:, None]).max(axis=0).mean())
    large = at["methods"]["largest"]
    assert large["accuracy"] == pytest.approx(TEST.right[2].mean())
    assert large["utility"] == pytest.approx(TEST.right[2].mean() - 0.45)
    low, high = large["ci"]
    assert low < large["utility"] < high
    assert high - low == pytest.approx(2 * 1.96 * TEST.right[2].std() / 20, rel=0.15)
    versus, rows = at["vs_best"], at["methods"]
    assert versus["baseline"] == "knn"
    assert versus["diff"] == pytest.approx(rows[best]["utility"] - rows["knn"]["utility"])
    assert versus["diff_full"] == pytest.approx(rows[full]["utility_full"] - rows["knn"]["utility_full"])
    assert at["ours"] == {"name": best, "name_full": full, "chosen_on": "validation"}
    assert versus["gap_closed"] == pytest.approx(versus["diff"] / (at["oracle"] - rows["knn"]["utility"]))
    assert [row["method"] for row in table(result)][-1] == "largest"
    single = planes(methods, TEST)["largest"]
    assert (single["perf_gain"], single["cost_save"]) == pytest.approx((0.0, 0.0))


def test_a_baseline_without_its_signal_is_left_out() -> None:
    told: list[str] = []
    blind = [replace(rows, signals={}) for rows in (TRAIN, VALIDATION, TEST)]
    assert baselines(*blind, ALPHAS, 0, ("automix",), told.append) == []
    assert len(told) == 1
    assert told[0].startswith("automix, left out: automix routes by 'p_true', which these outcomes do not have")


def test_baselines_in_processes_of_their_own_are_the_same() -> None:
    names = ("best-single", "automix", "logistic")
    told: list[str] = []
    blind = [replace(rows, signals={}) for rows in (TRAIN, VALIDATION, TEST)]
    apart = baselines(*blind, ALPHAS, 0, names, told.append, processes=2)
    for one, two in zip(baselines(*blind, ALPHAS, 0, names), apart, strict=True):
        assert one.name == two.name
        assert all((one.found[alpha].agent == two.found[alpha].agent).all() for alpha in ALPHAS)
    assert [line.partition(",")[0] for line in told] == [*names]


def test_what_routers_look_at_they_pay_for() -> None:
    asked = Asked(TEST)
    drafts = asked.draft(2, np.array([0, 1]))
    assert len(drafts.texts) == len(drafts.signals["likelihood"]) == 2
    found = routed(TEST, np.zeros(400, dtype=int), asked)
    assert found.full_cost[:3].tolist() == pytest.approx([1.0, 1.0, 0.1])
    assert not hasattr(asked, "right")


def test_plots_are_drawn(tmp_path, ours) -> None:  # type: ignore[no-untyped-def]
    _, mine = ours
    draw([*mine, *baselines(TRAIN, VALIDATION, TEST, ALPHAS, 0, ("random",))], TEST, "mesh-bar", tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 10_000


def test_a_pool_without_questions_is_told() -> None:
    from agents.errors import ConfigError

    with pytest.raises(ConfigError, match="'small' makes no questions; record its agents"):
        lab_outcomes(load("small"), 10, 0, ALPHAS, None, print)  # type: ignore[arg-type]
