"""Recorded outcomes as a pool: parts, where costs come from, and estimates in the place of confidences."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from agents.errors import ConfigError
from benchmarks.cli import app
from benchmarks.estimated import OwnScore, estimated, ours
from benchmarks.ours import priors
from benchmarks.replay import Replay, load, parted
from benchmarks.replay_command import measure, notes
from benchmarks.rows import prices_path, write
from tests.baselines import AGENTS, COSTS, SURE, TASKS, outcomes

PRICES = {name: {"cost": float(cost)} for name, cost in zip(AGENTS, COSTS, strict=True)}
TASK = {words.split()[0]: name for name, words in TASKS.items()}


def written(path: Path, rows: list[dict[str, Any]], prices: object = None) -> Path:
    """A file of rows, and its prices where there are some."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    if prices is not None:
        prices_path(path).write_text(json.dumps(prices), encoding="utf-8")
    return path


def scored(count: int = 500, **keys: Any) -> list[dict[str, Any]]:
    """Rows of scores alone, of the made-up pool."""
    given = outcomes(count, 1)
    return [
        {
            "id": question.id,
            "task": TASK[question.text.split()[0]],
            "question": question.text,
            "scores": dict(zip(AGENTS, given.right[:, number].tolist(), strict=True)),
        }
        | keys
        for number, question in enumerate(given.questions)
    ]


def paid(count: int = 200) -> list[dict[str, Any]]:
    """Rows of two agents whose calls cost 1 or 3, and 2 or 6."""
    return [
        {
            "id": f"q{n}",
            "question": f"What is {n}?",
            "models": {
                "a": {"score": n % 2, "cost": 1 + 2 * (n % 2)},
                "b": {"score": 1, "cost": 2 + 4 * (n % 2)},
            },
        }
        for n in range(count)
    ]


@pytest.fixture(scope="module")
def replay(tmp_path_factory: pytest.TempPathFactory) -> Replay:
    """The made-up pool, of which nothing but scores was recorded."""
    return load(written(tmp_path_factory.mktemp("rows") / "made_up.jsonl", scored(), PRICES))


def test_parts_follow_from_ids_alone(replay: Replay) -> None:
    ids = [f"q{n}" for n in range(300)]
    at = parted(ids)
    for part, (low, high) in {"validation": (0, 0.2), "test": (0.2, 0.5), "train": (0.5, 1)}.items():
        where = [int(hashlib.sha256(ids[n].encode()).hexdigest()[:16], 16) / 16**16 for n in at[part]]
        assert all(low <= each < high for each in where)
    assert sorted(np.concatenate(list(at.values())).tolist()) == list(range(300))
    begin = {part: [ids[n] for n in places if n < 6] for part, places in at.items()}
    assert begin == {"train": ["q1", "q2"], "validation": ["q4", "q5"], "test": ["q0", "q3"]}
    reversed_ids = {part: {ids[::-1][n] for n in places} for part, places in parted(ids[::-1]).items()}
    assert reversed_ids == {part: {ids[n] for n in places} for part, places in at.items()}
    assert replay.parts == {"train": len(replay.train), "validation": len(replay.validation), "test": len(replay.test)}
    assert sum(replay.parts.values()) == 500


def test_rows_without_those_of_calibration_are_parted_among_themselves() -> None:
    """Agents are calibrated on ids whose hash is below .2 of its range; who records such agents leaves those out."""
    where = {f"q{n}": int(hashlib.sha256(f"q{n}".encode()).hexdigest()[:16], 16) / 16**16 for n in range(400)}
    ids = [id for id, at in where.items() if at >= 0.2]
    for part, (low, high) in {"validation": (0.2, 0.36), "test": (0.36, 0.6), "train": (0.6, 1)}.items():
        assert [ids[n] for n in parted(ids)[part]] == [id for id in ids if low <= where[id] < high]


def test_a_part_of_few_rows_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"few.jsonl: \w+ has \d+ of its 30 rows; it must have 20"):
        load(written(tmp_path / "few.jsonl", scored(30), PRICES))


def test_rows_are_a_file_or_a_name_in_mesh_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MESH_DATA", str(tmp_path))
    written(tmp_path / "rows.jsonl", scored(), PRICES)
    assert load(Path("rows")).name == "rows"
    with pytest.raises(ConfigError, match=r"pool replay:none, rows as .*: questions 'none': there is no such file"):
        load(Path("none"))


def test_prices_alone_are_prices_per_call(replay: Replay) -> None:
    assert replay.test.costs.tolist() == COSTS.tolist()
    assert (replay.test.work == COSTS[:, None]).all()
    assert replay.cost_source["cost"].startswith("price per call, in made_up.prices.json")
    assert replay.cost_source["full_cost"].startswith("the price per call, the same for every question")


def test_costs_by_call_without_prices(tmp_path: Path) -> None:
    found = load(written(tmp_path / "paid.jsonl", paid()))
    odd = np.mean([int(question.id[1:]) % 2 for question in found.train.questions])
    mean = 1 + 2 * odd  # of a, on training rows; b costs twice that
    assert found.test.costs.tolist() == pytest.approx([0.5, 1.0])
    assert found.cost_source["cost"].startswith("mean of `cost` in paid.jsonl over the training rows")
    assert found.cost_source["full_cost"].startswith("`cost` in paid.jsonl, call by call")
    for rows in (found.train, found.validation, found.test):
        calls = np.array([1 + 2 * (int(question.id[1:]) % 2) for question in rows.questions])
        assert np.allclose(rows.work, [calls / (2 * mean), calls / mean])
    assert np.allclose(found.train.work.mean(axis=1), found.train.costs)


def test_costs_by_call_beside_prices(tmp_path: Path) -> None:
    found = load(written(tmp_path / "paid.jsonl", paid(), {"a": {"cost": 0.1}, "b": {"cost": 0.9}}))
    assert found.test.costs.tolist() == [0.1, 0.9]
    assert found.cost_source["cost"].startswith("price per call, in paid.prices.json")
    assert np.allclose(found.train.work.mean(axis=1), [0.1, 0.9])
    assert np.allclose(found.test.work[1], 9 * found.test.work[0])


@pytest.mark.parametrize("key", ["cost", "work"])
def test_a_cost_by_call_that_never_changes_is_refused(tmp_path: Path, key: str) -> None:
    rows = paid()
    for row in rows:
        row["models"]["b"][key] = 0.25
    with pytest.raises(
        ConfigError, match=rf"paid.jsonl: {key} of 'b' is 0.25 in all 200 rows, .* into paid.prices.json"
    ):
        load(written(tmp_path / "paid.jsonl", rows))


@pytest.mark.parametrize(
    ("value", "told"), [(-1, r"row 'q7': cost of 'a' is -1; it must be 0 or more"), ("?", "is '?'"), (None, "no cost")]
)
def test_a_cost_that_is_none_is_told(tmp_path: Path, value: object, told: str) -> None:
    rows = paid()
    rows[7]["models"]["a"]["cost"] = value
    with pytest.raises(ConfigError, match=r"paid.jsonl: row 'q7'") as caught:
        load(written(tmp_path / "paid.jsonl", rows))
    assert told in str(caught.value)


def test_texts_are_looked_up_and_missed_by_name(tmp_path: Path) -> None:
    rows = scored()
    ids = [{key: value for key, value in row.items() if key != "question"} for row in rows]
    path = written(tmp_path / "ids.jsonl", ids, PRICES)
    first = written(
        tmp_path / "first.jsonl", [{key: row[key] for key in ("id", "task", "question")} for row in rows[:300]]
    )
    rest = written(
        tmp_path / "rest.jsonl", [{key: row[key] for key in ("id", "task", "question")} for row in rows[300:]]
    )
    found = load(path, (str(first), str(rest)))
    assert found.test.questions == load(written(tmp_path / "all.jsonl", rows, PRICES)).test.questions
    with pytest.raises(ConfigError, match=r"ids.jsonl:301: .*question '1-300' has no text here"):
        load(path, (str(first),))


def test_tasks_are_read_by_everybody_or_nobody(tmp_path: Path) -> None:
    path = written(tmp_path / "all.jsonl", scored(), PRICES)
    named, hidden = load(path).test.questions[0], load(path, tasks=False).test.questions[0]
    assert named.text == f"{named.task}: {hidden.text}"
    assert named.task in TASKS
    assert hidden.task == ""


def test_estimates_are_learnt_on_training_rows_and_calibrated_on_validation_rows(replay: Replay) -> None:
    own, same = OwnScore(), OwnScore()
    own.fit(replay.train, replay.validation)
    same.fit(replay.train, replay.validation)
    raw = own(replay.test.questions)
    assert np.array_equal(raw, same(replay.test.questions))
    tasks = [question.task for question in replay.test.questions]
    for agent in range(3):
        sure = np.array([SURE[task][agent] for task in tasks])
        assert np.abs(raw[agent] - sure).mean() < 0.08
    begun = priors(replay.train, replay.validation)
    blind = replace(replay.test, right=1 - replay.test.right)
    first = estimated(replay.train, replay.validation, replay.test, begun, (0.2, 0.5), 0)
    other = estimated(replay.train, replay.validation, blind, begun, (0.2, 0.5), 0)
    for one, two in zip(first, other, strict=True):
        assert np.array_equal(one.beliefs[0.2], two.beliefs[0.2])
        assert one.looks is not None
        assert not one.looks.any()
    assert np.abs(first[0].beliefs[0.5].mean(axis=1) - replay.validation.right.mean(axis=1)).max() < 0.02
    unsure = replace(replay.validation, right=np.full_like(replay.validation.right, 0.5))
    assert np.abs(estimated(replay.train, unsure, replay.test, begun, (0.5,), 0)[1].beliefs[0.5] - 0.5).max() < 0.1


def test_an_agents_estimate_is_of_its_own_record(replay: Replay) -> None:
    whole, alone = OwnScore(), OwnScore()
    whole.fit(replay.train, replay.validation)
    others, held = (np.vstack([rows.right[:1], 1 - rows.right[1:]]) for rows in (replay.train, replay.validation))
    alone.fit(replace(replay.train, right=others), replace(replay.validation, right=held))
    assert np.allclose(whole(replay.test.questions)[0], alone(replay.test.questions)[0])


@pytest.fixture(scope="module")
def measured(replay: Replay) -> tuple[dict[str, Any], list[Any], Any, Any, list[str]]:
    """Everything measured on the made-up pool, with a few baselines."""
    told: list[str] = []
    names = ("smallest", "knn", "automix", "uncertainty", "frugalgpt")
    return (*measure(replay, (0.2, 0.5, 0.8), 0, names, told.append), told)


def test_what_goes_by_estimates_says_so(measured: tuple[Any, ...]) -> None:
    result, methods, _, _, told = measured
    assert result["pool"] == "replay:made_up"
    assert result["confidences"].startswith("estimated: ")
    mine = {method.name for method in methods if method.ours}
    assert {"mesh-reliability-0.5-estimated", "mesh-bar-full-estimated", "mesh-reservation-text-estimated"} < mine
    assert all(name.startswith("mesh-") and name.endswith("-estimated") for name in mine)
    for at in result["alphas"].values():
        assert {name for name in at["methods"] if name.startswith("mesh")} == mine
        assert at["ours"]["name"] in mine
    assert result["left_out"] == ["automix", "uncertainty", "frugalgpt"]
    assert any(line.startswith("frugalgpt, left out: frugalgpt reads drafts") for line in told)
    assert result["cost_source"]["look"].startswith("0: the estimate reads the question alone")
    text = "\n".join(notes(result))
    for part in ("cost comes from: price per call", "confidences: estimated", "left out", "best single"):
        assert part in text


def test_figures_against_the_best_single_and_the_oracle(measured: tuple[Any, ...], replay: Replay) -> None:
    result, methods, _, _, _ = measured
    by_name = {method.name: method.found for method in methods}
    for alpha in (0.2, 0.5, 0.8):
        at, right = result["alphas"][f"{alpha:g}"], replay.test.right
        worth = right - alpha * COSTS[:, None]
        assert at["oracle"] == pytest.approx(worth.max(axis=0).mean())
        assert at["oracle_ci"][0] < at["oracle"] < at["oracle_ci"][1]
        assert at["singles"] == pytest.approx(dict(zip(AGENTS, worth.mean(axis=1), strict=True)))
        known = np.hstack([replay.train.right, replay.validation.right]).mean(axis=1) - alpha * COSTS
        single = int(known.argmax())
        assert at["vs_single"]["agent"] == AGENTS[single]
        got = by_name[at["ours"]["name"]][alpha].utility(alpha)
        assert at["vs_single"]["diff"] == pytest.approx((got - worth[single]).mean())
        low, high = at["vs_single"]["ci"]
        assert low < at["vs_single"]["diff"] < high


def test_ours_come_near_what_texts_can_tell(measured: tuple[Any, ...], replay: Replay) -> None:
    _, methods, _, _, _ = measured
    by_name = {method.name: method.found for method in methods}
    sure = np.array([SURE[question.task] for question in replay.test.questions]).T
    for alpha in (0.2, 0.5, 0.8):
        chosen = (sure - alpha * COSTS[:, None]).argmax(axis=0)
        most = replay.test.utilities(alpha)[chosen, np.arange(len(replay.test))].mean()
        for name in ("bar", "reservation-text", "reservation-looks"):
            assert by_name[f"mesh-{name}-estimated"][alpha].utility(alpha).mean() > most - 0.03


def test_drafts_are_looked_at_where_they_were_recorded(replay: Replay) -> None:
    drafts = replace(replay.validation, signals={"likelihood": replay.validation.right - 1.0})
    begun = priors(replay.train, drafts)
    seen, _ = estimated(replay.train, drafts, replay.test, begun, (0.5,), 0)
    names = set(ours(begun, seen, (0.5,)).ways)
    assert {f"mesh-reservation-{kind}-estimated" for kind in ("looks", "drafts", "both")} < names
    assert "mesh-reservation-text-estimated" not in names


def test_recorded_confidences_are_no_estimates(tmp_path: Path) -> None:
    given = outcomes(300, 1)
    p = np.array([SURE[TASK[question.text.split()[0]]] for question in given.questions]).T
    work = given.work * np.random.default_rng(0).uniform(0.5, 1.5, given.work.shape)
    write(replace(given, beliefs={0.5: p}, looks=0.01 * work, work=work), tmp_path / "own.jsonl")
    own = load(tmp_path / "own.jsonl")
    result, methods, _, _ = measure(own, (0.5,), 0, ("smallest",), lambda _: None)
    assert result["confidences"] == "recorded"
    assert result["cost_source"]["full_cost"].startswith("`work` in own.jsonl, call by call")
    assert result["cost_source"]["look"] == "`look` in own.jsonl, call by call"
    assert not any("estimated" in method.name for method in methods)
    with pytest.raises(ConfigError, match=r"alpha is 0.2; confidences of own were recorded at 0.5"):
        measure(own, (0.2,), 0, ("smallest",), lambda _: None)


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path / "made_up.jsonl", scored(), PRICES)
    args = [
        "mesh",
        "routing",
        "--pool",
        f"replay:{path}",
        "--baseline",
        "smallest",
        "--alpha",
        "0.5",
        "--out",
        str(tmp_path),
    ]
    monkeypatch.setattr("sys.argv", args)
    done = CliRunner().invoke(app, args[1:])
    assert done.exit_code == 0, done.output
    last = done.stdout.strip().splitlines()[-1]
    result = json.loads(last.removeprefix("RESULT "))
    assert str(tmp_path) not in (tmp_path / "routing_made_up.json").read_text()
    assert json.loads((tmp_path / "routing_made_up.json").read_text())["result"] == result
    assert set(result["alphas"]["0.5"]["methods"]) > {"smallest", "best-single"}
    assert (tmp_path / "routing_made_up.png").stat().st_size > 10_000
    assert scored()[0]["question"] not in (tmp_path / "routing_made_up.json").read_text()
    assert "full_cost comes from: the price per call" in done.stdout
