"""Values learnt: by hand, on a made-up pool whose best rule is known, over a restart, and when somebody gets worse."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agents.errors import ConfigError
from agents.messages import Card, Hop, Outcome
from agents.policies import Answer, Decision, Forward, Look, View
from agents.policies.cells import Drift, Means, Memory, bin_of, cluster
from agents.policies.value import ALPHAS, Value
from agents.profile import near
from benchmarks.outcomes import Outcomes
from benchmarks.walking import walk
from tests.baselines import SURE, outcomes
from topologies import Cascade, Mesh

PEERS = (Card("b", 0.4), Card("c", 0.9))
PRICES = {"small": 0.1, "words": 0.2, "large": 0.9}
WORDS = {"add": "sums", "spell": "words", "why": "riddles"}


def seen(p: float | None, alpha: float = 0.5, id: str = "q", peers: tuple[Card, ...] = PEERS) -> View:
    return View(Card("a", 0.1), alpha, p, p is None, peers, text="what is it?", id=id)


def came(right: bool | None, to: str = "b", p: float = 0.3, sure: float = 0.9, id: str = "q") -> Outcome:
    cost = {"b": 0.4, "c": 0.9}[to]
    return Outcome(id, 0.5, (Hop("a", "refused", p), Hop(to, "answered", sure)), cost, cost, right)


def believing(count: int, seed: int) -> Outcomes:
    """Agents that know how sure they may be of each task, and look before they draft."""
    given = outcomes(count, seed)
    p = np.array([SURE[WORDS[question.text.split()[0]]] for question in given.questions]).T
    return replace(given, beliefs=dict.fromkeys((0.2, 0.5, 0.8), p), looks=np.full(p.shape, 0.01))


# ---------------------------------------------------------------------------------- by hand


def test_who_knows_nothing_believes_neighbours_are_right() -> None:
    """b is thought to be worth 1 - .5 * .4 = .8, c .55; this agent's own answer is worth p - .05."""
    assert Value().decide(seen(0.84)) == Forward("b")
    assert Value().decide(seen(0.86)) == Answer()
    assert Value(hop=0.1).decide(seen(0.76)) == Answer()
    assert Value().decide(seen(None)) == Forward("b")
    assert Value().decide(seen(0.1, peers=())) == Answer()
    assert Value().decide(replace_looked(seen(None))) == Look()


def replace_looked(view: View) -> View:
    from msgspec.structs import replace as changed

    return changed(view, looked=False, refused=False)


def test_a_value_by_hand() -> None:
    """After n wrong answers of b, which cost .4 at alpha .5 and so were worth -.2, each cell of weight 15 borrows from
    the one before: (n * -.2 + 15 * v) / (n + 15), four times over, from .8.
    """
    policy, expected = Value(), 0.8
    for number in range(5):
        policy.decide(seen(0.3, id=f"q{number}"))
        policy.learn(came(False, id=f"q{number}"))
    for _ in range(4):
        expected = (5 * -0.2 + 15 * expected) / 20
    done = policy.memory.of("q0")
    assert done is not None
    assert policy.value("b", done, 0.5, 0.8) == pytest.approx(expected)
    assert expected < 0.55
    assert policy.decide(seen(0.3)) == Forward("c")


def test_what_nobody_judges_is_worth_what_the_answering_agent_says() -> None:
    policy = Value()
    policy.decide(seen(0.3))
    done = policy.memory.of("q")
    assert done is not None
    policy.learn(came(None, sure=0.9))
    assert policy.values.value(done.cells("b", ALPHAS.index(0.5))[:1], 0.8) == pytest.approx((0.7 + 15 * 0.8) / 16)
    policy.learn(came(False, sure=0.9))  # the guess is replaced, not added to
    assert policy.values.cells["b", ALPHAS.index(0.5)] == (1, pytest.approx(-0.2))


def test_words_that_prove_worthless_are_not_believed() -> None:
    """b is sure of .9 and wrong in all: soon its word alone is no reason to ask it."""
    policy = Value()
    for number in range(10):
        policy.decide(seen(0.3, id=str(number)))
        policy.learn(came(False, id=str(number)))
    theirs = policy.memory.of("0")
    assert theirs is not None
    assert policy.right("b", theirs) < 0.1 + theirs.p  # type: ignore[operator]
    before = policy.right("a", theirs)
    assert before == pytest.approx(0.3)  # its own word is as good as ever
    assert policy.words.value([("b", -1)], 0.0) < -0.3


def test_between_two_alphas_values_are_interpolated() -> None:
    assert [share for _, share in near(ALPHAS, 0.3)] == pytest.approx([1 / 3, 2 / 3])
    assert sum(share * ALPHAS[place] for place, share in near(ALPHAS, 0.3)) == pytest.approx(0.3)
    for place, alpha in enumerate(ALPHAS):
        assert near(ALPHAS, alpha) == ((place, 1.0),)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"hop": -1}, "hop is -1, it must be a number in"),
        ({"explore": True}, "explore is True"),
        ({"full": 1}, "full is 1, it must be true or false"),
        ({"values": {"alphas": [0.5]}}, "alphas are"),
        ({"values": {"alphas": list(ALPHAS), "values": [["b", 1, 0.5]], "words": []}}, "is no cell"),
        ({"values": "/nowhere/v.json"}, "learnt values /nowhere/v.json"),
    ],
)
def test_wrong_options_are_named(options: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        Value(**options)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------- where the best rule is known


@pytest.mark.parametrize("full", [False, True])
def test_it_finds_the_best_rule_of_a_mesh(full: bool) -> None:
    """Sums are for the small agent, words for the second, riddles for the dear one, straight; nobody says so."""
    given, topology = believing(1500, 1), Mesh(PRICES)
    policies = {name: Value(full=full, explore=0.1) for name in given.agents}
    for _ in range(2):
        walk(given, policies, topology, 0.5, feedback=np.ones(len(given), dtype=bool))
    for policy in policies.values():
        policy.explore = 0.0
    fresh = believing(300, 2)
    found, paths = walk(fresh, policies, topology, 0.5)
    tasks = [question.text.split()[0] for question in fresh.questions]
    assert {path[-1] for path, task in zip(paths, tasks, strict=True) if task == "add"} == {0}
    assert {path[-1] for path, task in zip(paths, tasks, strict=True) if task == "spell"} == {1}
    dear = [path[-1] == 2 for path, task in zip(paths, tasks, strict=True) if task == "why"]
    assert np.mean(dear) > 0.9
    best = np.choose([("add", "spell", "why").index(task) for task in tasks], fresh.utilities(0.5))
    assert found.utility(0.5).mean() == pytest.approx(best.mean(), abs=0.02)


def test_an_agent_that_forwards_is_worth_what_it_makes_of_a_query() -> None:
    """In a line the first learns that behind the second, which cannot do riddles, there is one who can."""
    given, topology = believing(1500, 1), Cascade(PRICES)
    policies = {name: Value() for name in given.agents}
    walk(given, policies, topology, 0.5, feedback=np.ones(len(given), dtype=bool))
    first = policies["small"]
    riddle = next(question for question in given.questions if question.text.startswith("why"))
    done = first.memory.of(riddle.id)
    assert done is not None
    assert first.value("words", done, 0.5, 0.9) == pytest.approx(0.9 - 0.45, abs=0.05)
    word = next(question for question in given.questions if question.text.startswith("spell"))
    done = first.memory.of(word.id)
    assert done is not None
    assert first.value("words", done, 0.5, 0.9) == pytest.approx(0.95 - 0.1, abs=0.05)


# ---------------------------------------------------------------------------------- a restart


def decisions(policy: Value) -> list[Decision]:
    return [policy.decide(seen(p / 20, alpha)) for p in range(21) for alpha in (0.1, 0.5, 0.9)]


def test_what_was_learnt_survives_a_restart(tmp_path: Path) -> None:
    place = tmp_path / "values" / "a.json"
    policy = Value(keep=place)
    rng = np.random.default_rng(0)
    for number in range(100):
        to, p = ("b", "c")[number % 2], float(rng.random())
        policy.decide(seen(p, id=str(number)))
        policy.learn(came(bool(rng.random() < 0.5), to=to, p=p, id=str(number)))
    again = Value(keep=place)
    assert again.values.cells.keys() == policy.values.cells.keys()
    assert decisions(again) == decisions(policy) != decisions(Value())
    assert decisions(Value(values=place)) == decisions(policy)
    place.write_text("{", encoding="utf-8")
    with pytest.raises(ConfigError, match="learnt values"):
        Value(keep=place)


# ---------------------------------------------------------------------------------- the small pieces


def test_means_borrow_and_are_bounded() -> None:
    means = Means(weight=1.0, window=2, most=2)
    means.learn([("x",), ("x", 1)], 1.0)
    assert means.value([("x",), ("x", 1)], 0.0) == pytest.approx(0.75)  # (1 + (1 + 0) / 2) / 2
    means.learn([("y",)], 0.0)
    assert set(means.cells) == {("x", 1), ("y",)}
    for _ in range(50):
        means.learn([("y",)], 1.0)
    assert means.cells["y",] == (2, pytest.approx(1.0))  # what was seen first is forgotten


def test_drift_is_told_from_chance() -> None:
    """Sure of .9 and right in .9 nearly all is believed throughout; right in .4 about half of it is, after 15 outcomes;
    and all of it again after as many that are right.
    """
    rng, fine, shares = np.random.default_rng(0), Drift(), []
    for _ in range(1000):
        fine.hear("a", 0.9, float(rng.random() < 0.9))
        shares.append(fine.share("a"))
    assert np.mean(shares) > 0.95
    worse = Drift()
    assert any([worse.hear("a", 0.9, float(number % 5 in (1, 4))) for number in range(15)])
    assert worse.share("a") < 0.6
    assert any([worse.hear("a", 0.9, 1.0) for _ in range(25)])
    assert worse.share("a") > 0.9
    assert worse.share("b") == 1.0


def test_a_broken_promise_by_hand() -> None:
    """.9 was promised and it was wrong: of 1, .75, .5, .25 and 0 that is .1, .325, .55, .775 and 1 likely; before, all
    of it was true with .95, and each other share with .0125. Their products add up to .128125.
    """
    drift = Drift(away=0.05)
    assert not drift.hear("a", 0.9, 0.0)  # one is not enough to doubt what was learnt
    assert drift.held["a"][0] == pytest.approx(0.095 / 0.128125)
    assert drift.share("a") == pytest.approx((0.095 + (0.75 * 0.325 + 0.5 * 0.55 + 0.25 * 0.775) / 80) / 0.128125)


def test_what_nobody_judges_may_have_changed_meanwhile() -> None:
    """Each answer is as good a chance to change, so that a wrong one after many that nobody judged tells more."""
    soon, late = Drift(), Drift()
    for drift in (soon, late):
        for _ in range(20):
            drift.hear("a", 0.9, 1.0)
    for _ in range(100):
        late.passes("a")
    for drift in (soon, late):
        drift.hear("a", 0.9, 0.0)
    assert late.share("a") < 0.82 < 0.95 < soon.share("a")


def test_who_has_become_worse_answers_less_and_says_so() -> None:
    policy = Value()
    assert policy.status() == {}
    for number in range(6):
        policy.decide(seen(0.9, id=str(number)))
        policy.learn(Outcome(str(number), 0.5, (Hop("a", "answered", 0.9),), 0.1, 0.1, False))
    done = policy.memory.of("0")
    assert done is not None
    assert policy.right("a", done) < 0.3
    assert policy.status() == {"doubts": {"a": pytest.approx(0.1, abs=0.2)}}


def test_memory_is_bounded() -> None:
    memory: Memory[int] = Memory(most=2)
    for number in range(3):
        memory.keep(str(number), number)
    assert [memory.of(str(number)) for number in range(3)] == [None, 1, 2]


def test_sorts_and_bins() -> None:
    assert cluster("37+58=") == ("+=", 6)
    assert cluster("Sort 31") == ("sort", 7)
    assert cluster("") == ("", 0)
    assert cluster("x" * 64) == ("x" * 32, 34)  # 32 and two for each doubling
    assert [bin_of(p) for p in (None, 0.0, 0.5, 0.51, 1.0)] == [-1, 0, 7, 8, 15]
