"""The lab's models as they ship: they answer, know themselves, and are what their recipe makes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import mesh
from mesh.config import load
from training.lab import RECIPES, VOCABULARY, make, measure, new_tokenizer
from training.lab_questions import EXAMPLES, questions
from training.scores import auroc

pytestmark = [pytest.mark.models, pytest.mark.filterwarnings("default")]

FOLDER = Path(load("lab").agents[0].model).parent


def figures(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((folder / name / "training.json").read_text())
    return told


@pytest.fixture(scope="module")
def lab() -> Iterator[mesh.Mesh]:
    with mesh.Mesh.from_yaml("lab-mesh") as opened:
        yield opened


def test_every_model_says_how_it_was_made() -> None:
    for name, recipe in RECIPES.items():
        told = figures(name)
        assert told["command"].startswith(f"mesh train lab {name} --out mesh/pools/lab --seed ")
        assert told["recipe"] == {field: getattr(recipe, field) for field in recipe.__slots__}
        assert told["validation_rows"] == 2000


def test_the_ladder_rises_clearly() -> None:
    ladder = [figures(agent.name)["accuracy"] for agent in load("lab").agents]
    assert all(higher - lower > 0.05 for lower, higher in pairwise(ladder)), ladder
    assert ladder[0] >= 0.3
    assert ladder[-1] <= 0.95


def test_specialists_win_at_home_and_lose_away() -> None:
    home = {"numbers": ("add", "subtract", "multiply", "modulo"), "lists": ("sort", "count"), "strings": ("reverse",)}

    def mean(name: str, tasks: tuple[str, ...]) -> float:
        return sum(figures(name)["tasks"][task] for task in tasks) / len(tasks)

    for name, own in home.items():
        away = tuple(task for tasks in home.values() for task in tasks if task not in own)
        for generalist in ("nano", "micro"):  # those of its price
            assert mean(name, own) > mean(generalist, own) + 0.03, (name, generalist)
            assert mean(name, away) < mean(generalist, away) - 0.03, (name, generalist)


@pytest.mark.parametrize("name", ["nano", "lists"])
def test_what_ships_is_as_good_as_it_says(name: str) -> None:
    """Greedy decoding in float32 of the very same weights and rows: but for ties, the same answers."""
    asked = questions(2000, "validation", figures(name)["seed"] + 1)[:400]
    with mesh.Mesh.from_yaml("lab-bare") as bare:
        replies = bare.ask_many([question.text for question in asked], 0.5, entry=name, max_hops=0)
    right = [reply.text == q.answer for reply, q in zip(replies, asked, strict=True) if isinstance(reply, mesh.Reply)]
    assert len(right) == 400
    by_hand = _measured(name, asked)
    assert sum(right) == pytest.approx(by_hand, abs=4)


def _measured(name: str, asked: list[Any]) -> int:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(FOLDER / name).eval()
    return sum(sum(results) for results in measure(model.float(), asked).values())


def test_agents_know_themselves(lab: mesh.Mesh) -> None:
    asked = questions(280, "test", 21)
    replies = lab.ask_many([question.text for question in asked], 0.999, entry="mini")
    own = [(r, q) for r, q in zip(replies, asked, strict=True) if isinstance(r, mesh.Reply) and r.agent == "mini"]
    sure = [reply.confidence for reply, _ in own]
    assert len(own) > 200
    assert all(p is not None for p in sure)
    assert auroc(sure, [reply.text == q.answer for reply, q in own]) > 0.8  # type: ignore[arg-type,operator]


def test_more_is_forwarded_where_quality_counts(lab: mesh.Mesh) -> None:
    asked = [question.text for question in questions(140, "test", 22)]
    costs = []
    for alpha in (0.1, 0.5, 0.9):
        replies = [reply for reply in lab.ask_many(asked, alpha) if isinstance(reply, mesh.Reply)]
        assert len(replies) == len(asked)
        costs.append(sum(reply.cost for reply in replies) / len(replies))
    assert costs == sorted(costs, reverse=True)


def test_examples_are_answered_however_they_are_written(lab: mesh.Mesh) -> None:
    for example in EXAMPLES:
        plain = lab.ask(example, 0.2)
        assert plain.text
        assert set(plain.text) <= set(VOCABULARY)
    assert lab.ask("31+4=", 0.2).text == lab.ask(" 31 + 4 ", 0.2).text
    assert lab.ask("SORT 4 1 3", 0.2).text == lab.ask("sort 413=", 0.2).text


def test_asking_without_a_pool_asks_the_lab() -> None:
    code = "import mesh; print(mesh.ask('37+58=', 0.5))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    assert "nano" in done.stdout
    assert "full cost" in done.stdout
    assert done.stderr == ""


def test_the_demo_in_one_process(tmp_path: Path) -> None:
    options = ["--runtime", "local", "--queries", "56", "--json", "--out", str(tmp_path)]
    command = [sys.executable, "-m", "mesh", "demo", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert json.loads((tmp_path / "demo.json").read_text())["result"] == told
    assert [each["alpha"] for each in told["alphas"]] == [0.2, 0.5, 0.8]
    for each in told["alphas"]:
        assert each["n"] == 56
        assert sum(each["shares"].values()) == pytest.approx(100)
        assert each["best_single_utility"] <= each["oracle_utility"]
        assert each["percent_of_oracle"] == pytest.approx(100 * each["utility"] / each["oracle_utility"])
    assert "one path of each length" in done.stderr


def test_the_tokenizer_is_one_token_a_character() -> None:
    tokenizer = new_tokenizer()
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("sort31=")) == list("sort31=")
    assert tokenizer.decode(tokenizer.encode("I don't know!")) == "I don't know!"
    assert len(tokenizer.encode("I don't know!")) == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_smallest_can_be_made_again(tmp_path: Path) -> None:
    """The same recipe and seed; torch sums in another order on another machine, hence not bit by bit."""
    made, told = make("nano", tmp_path, figures("nano")["seed"]), figures("nano")
    assert made["parameters"] == told["parameters"]
    assert made["accuracy"] == pytest.approx(told["accuracy"], abs=0.04)
