"""The demo's figures, against numbers worked out by hand, and what it refuses."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from agents.errors import MeshError
from agents.messages import Hop, Reply
from benchmarks.demo import _of_each_length, figures_at
from mesh.cli import app
from mesh.questions import Question

COSTS = {"small": 0.1, "large": 0.9}


def question(text: str) -> Question:
    return Question(text, text, "lab/add", None, "2")


def reply(text: str, *path: str) -> Reply:
    hops = (*(Hop(name, "refused") for name in path[:-1]), Hop(path[-1], "answered"))
    return Reply("q", text, path[-1], 0.5, COSTS[path[-1]], COSTS[path[-1]], hops, 0.1)


OUTCOMES = [
    (question("1+1="), reply("2", "small")),
    (question("4-2="), reply("2", "small", "large")),
    (question("1*2="), reply("3", "small")),
    (question("5%3="), MeshError("nobody is left")),
]


def test_figures() -> None:
    alone = {"small": [True, False, False, True], "large": [True, True, False, True]}
    told = figures_at(0.5, OUTCOMES, alone, COSTS)
    assert (told["n"], told["failed"], told["accuracy"]) == (4, 1, 0.5)
    assert told["utility"] == pytest.approx((0.95 + 0.55 - 0.05 + 0.0) / 4)  # a failure is wrong, and free
    assert told["oracle_utility"] == pytest.approx((0.95 + 0.55 - 0.05 + 0.95) / 4)
    assert told["percent_of_oracle"] == pytest.approx(100 * 1.45 / 2.4)
    assert (told["best_single"], told["best_single_utility"]) == ("small", pytest.approx(0.45))
    assert told["shares"] == {"large": 25.0, "nobody": 25.0, "small": 50.0}


def test_where_even_an_oracle_gains_nothing() -> None:
    told = figures_at(0.5, OUTCOMES[2:3], {"small": [False], "large": [False]}, COSTS)
    assert told["percent_of_oracle"] is None


def test_where_everything_fails() -> None:
    told = figures_at(0.5, OUTCOMES[3:], {"small": [True]}, COSTS)
    assert (told["failed"], told["accuracy"], told["shares"]) == (1, 0.0, {"nobody": 100.0})


def test_a_way_of_each_length() -> None:
    assert [asked.text for asked, _ in _of_each_length(OUTCOMES)] == ["1+1=", "4-2="]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["--pool", "small"], "pool: the demo needs one with questions of its own"), (["--alpha", "2"], "alpha: 2.0")],
)
def test_what_it_refuses(arguments: list[str], told: str) -> None:
    done = CliRunner().invoke(app, ["demo", *arguments])
    assert done.exit_code == 2
    assert told in done.output


def test_unknown_models_and_pools_without_questions() -> None:
    done = CliRunner().invoke(app, ["train", "lab", "huge"])
    assert (done.exit_code, "no model 'huge' in the lab; there are nano" in done.output) == (2, True)
    done = CliRunner().invoke(app, ["train", "calibrate", "--pool", "small", "--out", "nowhere"])
    assert (done.exit_code, "pool 'small' has no questions of its own" in done.output) == (2, True)
