"""``Node.step`` by hand: every event, every branch. ``a`` may forward to ``b``, then ``c``; ``d`` is behind ``b``."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from msgspec.structs import replace

from agents.assess import Ask, Assessor, FirstToken, Likelihood, PTrue, RefusalAssessor, Session, Verdict, Wait
from agents.messages import (
    Accepted,
    Alive,
    Asked,
    Cancel,
    Cancelled,
    Card,
    Drafted,
    DraftFailed,
    Emit,
    End,
    Generate,
    Hop,
    Judge,
    Message,
    NodeCommand,
    NodeEvent,
    Outcome,
    PeerDown,
    PeerUp,
    Piece,
    Probe,
    Query,
    Rejected,
    Rewired,
    Route,
    Scored,
    Scores,
    Tick,
)
from agents.node import Node, Settings
from agents.offers import Offer
from agents.overload import FULL_S
from agents.policies import (
    Always,
    Answer,
    Decision,
    Decline,
    Draft,
    Forward,
    Look,
    Policy,
    RefusalPolicy,
    Reliability,
    View,
)
from agents.prompts import REFUSAL, prompted
from mesh.directory import Directory
from topologies import TOPOLOGIES

CARDS = {
    "a": Card("a", 0.1, mean_work=100.0, context=1000),
    "b": Card("b", 0.3, mean_work=100.0, context=1000),
    "c": Card("c", 0.5, mean_work=100.0, context=5000),
    "d": Card("d", 0.9, mean_work=100.0, context=5000),
}
EDGES = {"a": ["b", "c"], "b": ["d"], "c": ["d"]}
PAIR: dict[str, list[str]] = {"a": ["b"], "b": []}
ALONE: dict[str, list[str]] = {"a": []}
QUESTION = (Message("user", "why?"),)
KEY = ("q", 1)
REFUSED = Piece(REFUSAL, 4, -1.0, 20, "stop")  # 20 + 4 * 4 = 36 units of 100, at 0.1: full cost 0.036


def links(edges: dict[str, list[str]] = EDGES, cards: dict[str, Card] = CARDS) -> Directory:
    there = edges.keys() | {name for to in edges.values() for name in to}
    topology = TOPOLOGIES["edges"]({name: CARDS[name].cost for name in there}, edges=edges)
    return Directory(topology, {name: cards[name] for name in there})


class Bench:
    """Node ``a`` and a clock; the commands of the last step in ``out``."""

    def __init__(self, policy: Policy | None = None, assessor: Assessor | None = None, **settings: Any) -> None:
        edges = settings.pop("edges", EDGES)
        prompt = settings.pop("prompt", "plain")
        self.now, self.out = 0.0, list[NodeCommand]()
        own = Settings(prompt=prompt, **settings)
        self.node = Node(CARDS["a"], links(edges), policy or RefusalPolicy(), assessor or RefusalAssessor(), own)

    def __call__(self, event: NodeEvent, at: float | None = None) -> list[NodeCommand]:
        self.now = self.now if at is None else at
        self.out = self.node.step(event, self.now)
        assert len(self.node.running) <= self.node.settings.running
        return self.out

    def ask(self, **fields: Any) -> list[NodeCommand]:
        return self(Asked(query(**fields)))

    def draft(self, *pieces: Piece, at: float | None = None) -> list[NodeCommand]:
        """The engine says so, for the draft begun last; all the commands."""
        said = []
        for piece in pieces:
            said += self(Drafted(KEY, self.node.turns[KEY].generation, piece), at)
        return said

    def idle(self) -> bool:
        return not (self.node.turns or self.node.running or self.node.queue)


def query(**fields: Any) -> Query:
    return replace(Query("q", QUESTION, 0.5, remaining_s=60.0, seed=3), **fields)


def one(commands: list[NodeCommand], kind: type[Any]) -> Any:
    """The only command of its kind."""
    (found,) = [command for command in commands if isinstance(command, kind)]
    return found


def kinds(commands: list[NodeCommand]) -> list[str]:
    return [type(command).__name__ for command in commands]


# ---------------------------------------------------------------------------------- answering


def test_a_query_becomes_a_draft() -> None:
    bench = Bench(temperature=0.5)
    request = one(bench.ask(max_tokens=7), Generate).request
    assert (request.key, request.generation, request.messages) == (KEY, 1, QUESTION)
    assert (request.max_tokens, request.ban, request.max_work, request.temperature) == (7, "", None, 0.5)


def test_the_scenario_is_told_to_the_model() -> None:
    request = one(Bench(prompt="scenario").ask(alpha=0.2), Generate).request
    assert request.messages == prompted(QUESTION, 0.2, "scenario") != QUESTION


def test_an_agent_is_told_the_preference_at_which_it_knows_itself_best() -> None:
    settled = {"kind": "isotonic", "alphas": [1], "maps": [{"x": [0], "y": [0.4]}], "told": 1}
    for alpha in (0.1, 0.5):
        judge = one(Bench(Reliability(), FirstToken(settled), prompt="scenario").ask(alpha=alpha), Judge)
        assert judge.request.messages == prompted(QUESTION, 1.0, "scenario")


def test_a_good_beginning_is_accepted_at_once_and_the_rest_follows() -> None:
    bench = Bench()
    bench.ask()
    assert bench.draft(Piece("I don't", 2, None, 20)) == []  # could still become the refusal
    said = bench.draft(Piece(" care", 1), at=1.0)
    assert said == [
        Accepted(KEY, "a"),
        Emit(KEY, Piece("I don't", 2, None, 20)),
        Emit(KEY, Piece(" care", 1)),
    ]
    last = Piece(".", 1, None, 0, "length")
    hop = Hop("a", "answered", None, 2.0, 20, 4, pytest.approx(0.1 * (20 + 4 * 4) / 100))
    assert bench.draft(last, at=2.0) == [Emit(KEY, last), End(KEY, "length", hop, 0.1, alpha=0.5)]
    assert bench.idle()


def test_a_policy_that_assesses_nothing_answers_without_a_scenario_or_a_refusal() -> None:
    bench = Bench(Always(), prompt="scenario")
    request = one(bench.ask(), Generate).request
    assert (request.ban, request.messages) == (REFUSAL, QUESTION)
    assert kinds(bench.draft(Piece("so", 1, None, 2, "stop"))) == ["Accepted", "Emit", "End"]
    assert one(bench.out, End).hop.reason == ""  # nobody forced it


@pytest.mark.parametrize(("edges", "must_answer"), [(EDGES, True), (ALONE, False)])
def test_whoever_must_answer_is_not_asked_whether_it_can(edges: dict[str, list[str]], must_answer: bool) -> None:
    bench = Bench(prompt="scenario", edges=edges)
    request = one(bench.ask(must_answer=must_answer), Generate).request
    assert (request.ban, request.messages) == (REFUSAL, QUESTION)  # no scenario, which tempts to refuse
    assert one(bench.draft(Piece(REFUSAL, 4, None, 1, "stop")), End).hop.reason == "forced"


def test_emitted_text_is_continued() -> None:
    bench = Bench()
    assert one(bench.ask(emitted="I don't know"), Generate).request.continued == "I don't know"
    assert kinds(bench.draft(Piece("! he said", 1, None, 5))) == ["Accepted", "Emit"]  # no refusal any more


# ---------------------------------------------------------------------------------- refusing and forwarding


def test_a_refusal_stops_the_draft_and_goes_to_the_first_neighbour() -> None:
    bench = Bench()
    bench.ask(hops_left=5)
    said = bench.draft(Piece("I don't know", 3, None, 20), Piece("!", 1), at=1.5)
    assert kinds(said) == ["Stop", "Route"]
    hop = Hop("a", "refused", None, 1.5, 20, 4, pytest.approx(0.036))
    assert said[1] == Route("b", query(hops_left=4, remaining_s=58.5, path=(hop,)))
    assert bench.node.running == set()
    assert bench(Accepted(KEY, "d", (hop,))) == [Accepted(KEY, "d", (hop,))]
    assert bench.idle()


def test_a_refusal_that_is_complete_needs_no_stop() -> None:
    bench = Bench()
    bench.ask()
    assert kinds(bench.draft(REFUSED)) == ["Route"]


@pytest.mark.parametrize("alpha", [0.2, 0.5, 0.8])
@pytest.mark.parametrize(("above", "answers"), [(-0.01, False), (0.01, True)])
def test_the_reliability_rule_at_its_threshold(alpha: float, above: float, answers: bool) -> None:
    threshold = {0.2: 0.8944, 0.5: 0.7071, 0.8: 0.4472}[alpha]  # sqrt(1 - alpha)
    bench = Bench(Reliability(), FirstToken())
    score = one(bench.ask(alpha=alpha), Judge).request
    assert (score.messages, score.continuations, score.generation) == (QUESTION, (REFUSAL,), 0)
    refusal = 1 - (threshold + above)
    said = bench(Scored(KEY, 0, Scores((math.log(refusal),), 20)))
    assert kinds(said) == (["Generate"] if answers else ["Route"])
    if answers:
        assert said[0].request.ban == REFUSAL  # type: ignore[union-attr]
        end = one(bench.draft(Piece("so", 1, None, 20, "stop")), End)
        assert end.hop.confidence == pytest.approx(threshold + above)
        assert end.hop.prompt_tokens == 40  # the scores took a pass over the prompt, too


def test_a_whole_draft_that_is_unsure_is_forwarded_and_kept_for_the_worst() -> None:
    bench = Bench(Reliability(), Likelihood(), edges=PAIR)
    bench.ask()
    assert bench.draft(Piece("per", 1, -1.0, 20)) == []
    said = bench.draft(Piece("haps", 1, -1.0, 0, "stop"))  # p = exp(-1)
    assert kinds(said) == ["Route"]
    again = bench(Rejected(KEY, "b", "died"), at=3.0)
    assert kinds(again) == ["Accepted", "Emit", "Emit", "End"]  # nobody is left: it has an answer already
    assert [hop.verdict for hop in again[0].hops] == ["refused", "failed"]  # type: ignore[union-attr]
    hop = one(again, End).hop
    assert (hop.verdict, hop.reason, hop.generated_tokens) == ("answered", "forced", 0)
    assert hop.confidence == pytest.approx(0.3679, abs=1e-4)
    assert bench.idle()


def test_a_judged_draft_waits_for_its_judgement() -> None:
    bench = Bench(Reliability(), PTrue())
    bench.ask()
    judge = one(bench.draft(Piece("42", 1, None, 20, "stop")), Judge).request
    assert (judge.continuations, judge.generation) == (("True", "False"), 1)
    said = bench(Scored(KEY, 1, Scores((-0.1, -3.0), 30)))  # p = 1 / (1 + exp(-2.9)) = .948
    assert kinds(said) == ["Accepted", "Emit", "End"]
    assert one(said, End).hop.prompt_tokens == 50


class Unsure(Assessor):
    """Its opening scores settle nothing."""

    class session(RefusalAssessor.session):
        opening = Ask(QUESTION, ("yes",))

        def scored(self, scores: Scores) -> Verdict:
            return Wait()


def test_opening_scores_that_leave_it_open_are_followed_by_a_draft() -> None:
    bench = Bench(assessor=Unsure())
    assert kinds(bench.ask()) == ["Judge"]
    request = one(bench(Scored(KEY, 0, Scores((-1.0,), 20))), Generate).request
    assert request.ban == ""
    assert kinds(bench.draft(REFUSED)) == ["Route"]
    assert bench.out[0].query.path[0].prompt_tokens == 40  # type: ignore[union-attr]


def test_who_has_refused_and_finds_nobody_drafts_again_without_the_refusal() -> None:
    bench = Bench(edges=PAIR)
    bench.ask()
    bench.draft(REFUSED)
    request = one(bench(Rejected(KEY, "b", "busy")), Generate).request
    assert (request.generation, request.ban) == (2, REFUSAL)
    end = one(bench.draft(Piece("so be it", 2, None, 20, "stop")), End)
    assert (end.hop.verdict, end.hop.reason) == ("answered", "forced")


def test_a_last_draft_waits_for_a_place_like_any_other() -> None:
    bench = Bench(edges=PAIR, running=1)
    bench.ask()
    bench.draft(REFUSED)
    bench(Asked(query(id="other")))
    assert bench(Rejected(KEY, "b", "busy")) == []
    assert list(bench.node.queue) == [KEY]
    said = bench(Drafted(("other", 1), 1, Piece("yes", 1, None, 1, "stop")))
    assert kinds(said) == ["Accepted", "Emit", "End", "Generate"]
    assert said[3].request.key == KEY  # type: ignore[union-attr]


def test_no_hops_left_means_answering() -> None:
    assert one(Bench().ask(hops_left=0), Generate).request.ban == REFUSAL


def test_visited_and_excluded_agents_are_not_asked() -> None:
    bench = Bench()
    bench.ask(path=(Hop("b", "refused"),))
    assert one(bench.draft(REFUSED), Route).agent == "c"
    bench = Bench()
    bench.ask(excluded=frozenset({"b"}))
    assert one(bench.draft(REFUSED), Route).agent == "c"


def test_behind_an_agent_that_failed_its_successors_stand_in() -> None:
    bench = Bench(edges={"a": ["b"], "b": ["d"], "d": ["c"]})
    bench.ask(path=(Hop("b", "failed", reason="died"),))
    assert one(bench.draft(REFUSED), Route).agent == "d"


# ---------------------------------------------------------------------------------- declining


def test_declining_where_the_caller_allows_it() -> None:
    bench = Bench(edges=ALONE)
    request = one(bench.ask(may_decline=True), Generate).request
    assert request.ban == ""
    said = bench.draft(Piece("I don't know", 3, None, 20), Piece("!", 1))
    assert kinds(said) == ["Accepted", "End", "Stop"]
    assert (said[1].finish, said[1].hop.verdict) == ("declined", "declined")  # type: ignore[union-attr]
    assert bench.idle()


class Saying(Policy):
    """Decides as told, once for every query."""

    def __init__(self, *decisions: Decision | Exception) -> None:
        self.decisions, self.views = list(decisions), list[View]()

    def decide(self, view: View) -> Decision:
        self.views.append(view)
        decision = self.decisions.pop(0)
        if isinstance(decision, Exception):
            raise decision
        return decision


def test_declining_where_the_caller_does_not_allow_it_is_answering() -> None:
    bench = Bench(Saying(Decline()))
    bench.ask()
    assert kinds(bench.draft(Piece("fine", 1, None, 2, "stop"))) == ["Accepted", "Emit", "End"]


def test_answering_after_all_excludes_the_refusal() -> None:
    bench = Bench(Saying(Answer()))
    bench.ask()
    said = bench.draft(Piece("I don't know", 3, None, 20), Piece("!", 1))
    assert kinds(said) == ["Stop", "Generate"]
    assert said[1].request.ban == REFUSAL  # type: ignore[union-attr]


def test_a_view_tells_all_there_is() -> None:
    policy = Saying(Answer())
    bench = Bench(policy)
    bench.ask(max_cost=1.0, spent=0.1, alpha=0.3, path=(Hop("z", "refused", full_cost=0.2),))
    bench.draft(Piece("fine", 1, None, 6))
    (view,) = policy.views
    assert (view.agent.name, view.alpha, view.confidence, view.refused) == ("a", 0.3, None, False)
    assert [card.name for card in view.neighbours] == ["b", "c"]
    assert view.budget == pytest.approx(1.0 - 0.1 - 0.2 - 0.1 * 10 / 100)


# ---------------------------------------------------------------------------------- plug-ins that fail


def test_a_policy_that_raises_costs_only_that_query(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(Saying(ValueError("boom"), Answer()))
    bench.ask()
    said = bench.draft(Piece("well", 1, None, 20))
    assert kinds(said) == ["Stop", "Rejected"]
    assert (said[1].reason, said[1].detail) == ("failed", "ValueError('boom')")  # type: ignore[union-attr]
    assert [hop.verdict for hop in said[1].hops] == ["failed"]  # type: ignore[union-attr]  # its work is on the bill
    assert bench.idle()
    bench(Asked(query(id="next")))
    assert kinds(bench(Drafted(("next", 1), 1, Piece("well", 1, None, 20)))) == ["Accepted", "Emit"]


def test_a_policy_that_forwards_to_a_stranger_is_told_whom_it_may() -> None:
    bench = Bench(Saying(Forward("d")))
    bench.ask()
    rejected = one(bench.draft(Piece("well", 1, None, 20)), Rejected)
    assert "forwards to 'd', not one of ['b', 'c']" in rejected.detail


def test_a_policy_that_raises_when_a_peer_dies_leaves_other_queries_alone() -> None:
    bench = Bench(Saying(Forward("b"), Forward("b"), ValueError("boom"), Forward("c")))
    for name in ("one", "two"):
        bench(Asked(query(id=name)))
        bench(Drafted((name, 1), 1, REFUSED))
    said = bench(PeerDown("b"))
    assert kinds(said) == ["Rejected", "Route"]
    assert (said[0].key[0], said[1].query.id) == ("one", "two")  # type: ignore[union-attr]


class Broken(Assessor):
    def begin(self, query: Query, messages: Any) -> Session:
        raise ValueError("no assessment today")


def test_an_assessor_that_cannot_begin_costs_only_that_query() -> None:
    bench = Bench(assessor=Broken(), running=1)
    assert kinds(bench.ask()) == ["Rejected"]
    assert bench.idle()
    bench(Asked(query(id="forced", must_answer=True)))
    assert kinds(bench.out) == ["Generate"]


def test_an_error_that_belongs_to_no_query_is_not_hidden() -> None:
    with pytest.raises(AttributeError):
        Bench()(Rewired(None))


def test_a_policy_that_cannot_learn_fails_nobody() -> None:
    class Slow(RefusalPolicy):
        learns = True

        def learn(self, outcome: Outcome) -> None:
            raise ValueError("boom")

    bench = Bench(Slow())
    assert bench(Outcome("q", 0.5, (), 0.1, 0.1)) == []


def test_outcomes_go_to_those_who_learn() -> None:
    class Learner(RefusalPolicy):
        learns = True
        heard: Outcome | None = None

        def learn(self, outcome: Outcome) -> None:
            self.heard = outcome

    learner, outcome = Learner(), Outcome("q", 0.5, (), 0.1, 0.1, True)
    assert Bench(learner)(outcome) == []
    assert learner.heard == outcome
    learner.heard, learner.learns = None, False
    Bench(learner)(outcome)
    assert learner.heard is None


# ---------------------------------------------------------------------------------- budgets


def test_the_budget_masks_peers_and_bounds_the_work() -> None:
    bench = Bench()
    request = one(bench.ask(max_cost=0.45), Generate).request  # enough for a and b, not for c
    assert request.max_work == pytest.approx(450.0)
    bench.draft(REFUSED)
    assert one(bench.out, Route).agent == "b"
    said = bench(Rejected(KEY, "b", "died"))  # c costs .5: nobody else can be paid
    assert one(said, Generate).request.max_work == pytest.approx((0.45 - 0.036) / 0.1 * 100)


def test_a_budget_that_pays_nobody_else_leaves_no_choice() -> None:
    request = one(Bench().ask(max_cost=0.39), Generate).request  # .1 for itself leaves .29, b costs .3
    assert request.ban == REFUSAL


def test_hops_of_failed_peers_count_against_the_budget() -> None:
    bench = Bench()
    bench.ask(max_cost=1.0)
    bench.draft(REFUSED)
    said = bench(Rejected(KEY, "b", "failed", hops=(Hop("b", "failed", full_cost=0.5),)))
    assert kinds(said) == ["Generate"]  # 1 - .036 - .5 = .464 does not pay for c


# ---------------------------------------------------------------------------------- the engine fails


@pytest.mark.parametrize("reason", ["failed", "died", "budget"])
def test_a_failing_engine_hands_the_query_over(reason: str) -> None:
    bench = Bench(edges={"a": ["b", "c"]})
    bench.ask()
    bench.draft(Piece("I don't", 2, None, 20))
    said = bench(DraftFailed(KEY, 1, reason, "sorry"), at=1.0)
    hop = Hop("a", "failed", None, 1.0, 20, 2, pytest.approx(0.028), reason)
    assert said == [Route("b", query(hops_left=63, remaining_s=59.0, path=(hop,)))]
    assert kinds(bench(Rejected(KEY, "b", "busy"))) == ["Route"]  # c
    rejected = one(bench(Rejected(KEY, "c", "died", "gone")), Rejected)
    assert (rejected.agent, rejected.reason, rejected.detail) == ("a", "died", "gone")
    assert [(hop.agent, hop.reason) for hop in rejected.hops] == [
        ("a", reason),
        ("b", "busy"),
        ("c", "died"),
    ]


def test_a_failing_engine_without_peers_rejects() -> None:
    bench = Bench()
    bench.ask(hops_left=0)
    rejected = one(bench(DraftFailed(KEY, 1, "failed", "sorry")), Rejected)
    assert (rejected.reason, rejected.detail, rejected.hops[0].reason) == ("failed", "sorry", "failed")
    assert bench.idle()


def test_a_failure_midway_ends_what_was_accepted() -> None:
    bench = Bench()
    bench.ask()
    bench.draft(Piece("well", 1, None, 20))
    (end,) = bench(DraftFailed(KEY, 1, "failed"), at=2.0)
    hop = Hop("a", "failed", None, 2.0, 20, 1, pytest.approx(0.024), "failed")
    assert end == End(KEY, "failed", hop, 0.1, alpha=0.5)
    assert bench.idle()


def test_too_long_a_query_goes_to_a_longer_context() -> None:
    bench = Bench()
    bench.ask()
    assert one(bench(DraftFailed(KEY, 1, "too_long", "9 > 5")), Route).agent == "c"  # b's is no longer than a's


def test_a_stalled_engine_is_stopped_and_left() -> None:
    bench = Bench(stall_s=5.0)
    bench.ask()
    bench.draft(Piece("I don't", 2, None, 20), at=3.0)
    assert bench(Tick(), at=8.0) == []  # moved 5 s ago
    said = bench(Tick(), at=8.1)
    assert kinds(said) == ["Stop", "Route"]
    assert said[1].query.path[0].reason == "stalled"  # type: ignore[union-attr]
    assert bench(Drafted(KEY, 1, Piece(" know", 1))) == []  # it moves again, too late


def test_an_engine_that_stalls_midway_ends_what_was_accepted() -> None:
    bench = Bench(stall_s=5.0)
    bench.ask()
    bench.draft(Piece("well", 1, None, 20))
    assert kinds(bench(Tick(), at=5.1)) == ["End", "Stop"]


def test_late_pieces_of_an_old_draft_are_dropped() -> None:
    bench = Bench(Saying(Answer()))
    bench.ask()
    bench.draft(REFUSED)  # a second draft has begun
    for late in (Drafted(KEY, 1, Piece("old", 1)), Scored(KEY, 1, Scores((-1.0,))), DraftFailed(KEY, 1, "failed")):
        assert bench(late) == []
    assert kinds(bench.draft(Piece("new", 1, None, 2))) == ["Accepted", "Emit"]


@pytest.mark.parametrize(
    "stray",
    [
        Drafted(KEY, 1, Piece("x")),
        Scored(KEY, 1, Scores((-1.0,))),
        DraftFailed(KEY, 1, "failed"),
        Accepted(KEY, "b"),
        Rejected(KEY, "b", "died"),
        Alive(KEY, "b"),
        Cancelled(KEY),
        Tick(),
    ],
)
def test_strays_are_dropped(stray: NodeEvent) -> None:
    bench = Bench()
    assert bench(stray) == []
    bench.ask()
    bench.draft(REFUSED)
    bench(Accepted(KEY, "b"))
    assert bench(stray) == []  # nor do they matter once all is over


# ---------------------------------------------------------------------------------- peers


def test_a_peer_that_rejects_gives_way_to_the_next_with_its_hops() -> None:
    bench = Bench()
    bench.ask()
    bench.draft(REFUSED, at=1.0)
    tried = (Hop("d", "failed", reason="died"),)
    route = one(bench(Rejected(KEY, "b", "failed", "it tried d", tried), at=3.0), Route)
    assert route.agent == "c"
    assert [(hop.agent, hop.verdict, hop.reason, hop.seconds) for hop in route.query.path] == [
        ("a", "refused", "", 1.0),
        ("d", "failed", "died", 0.0),
        ("b", "failed", "failed", 2.0),
    ]


def test_only_the_peer_waited_for_can_reject() -> None:
    bench = Bench()
    bench.ask()
    bench.draft(REFUSED)
    assert bench(Rejected(KEY, "c", "died")) == []
    bench(Rejected(KEY, "b", "died"))
    assert bench(Rejected(KEY, "b", "stalled")) == []  # the answer to a probe, too late


def test_a_deadline_told_by_a_peer_ends_the_search() -> None:
    bench = Bench()
    bench.ask()
    bench.draft(REFUSED)
    rejected = one(bench(Rejected(KEY, "b", "deadline")), Rejected)
    assert (rejected.agent, rejected.reason) == ("a", "deadline")
    assert bench.idle()


def test_a_silent_peer_is_probed_until_it_moves_or_is_gone() -> None:
    bench = Bench(stall_s=5.0)
    bench.ask()
    bench.draft(REFUSED, at=1.0)
    assert bench(Tick(), at=6.0) == []
    assert bench(Tick(), at=6.1) == [Probe("b", KEY)]
    assert bench(Tick(), at=6.2) == []
    bench(Alive(KEY, "b"), at=7.0)
    assert bench(Tick(), at=12.0) == []
    assert bench(Tick(), at=12.1) == [Probe("b", KEY)]
    assert one(bench(Rejected(KEY, "b", "stalled")), Route).agent == "c"


def test_a_peer_that_is_down_is_passed_over_until_it_is_up() -> None:
    bench = Bench()
    bench(PeerDown("b"))
    bench.ask()
    assert one(bench.draft(REFUSED), Route).agent == "c"
    bench(PeerUp("b"))
    bench(Asked(query(id="next")))
    assert one(bench(Drafted(("next", 1), 1, REFUSED)), Route).agent == "b"


def test_a_peer_that_goes_down_frees_those_who_wait_for_it() -> None:
    bench = Bench()
    bench.ask()
    bench.draft(REFUSED)
    assert bench(PeerDown("c")) == []
    route = one(bench(PeerDown("b")), Route)
    assert route.agent == "d"  # behind b and c, for which it stands in
    assert [hop.reason for hop in route.query.path] == ["", "died"]


def test_new_neighbours_and_cards_count_at_once() -> None:
    bench = Bench()
    bench.ask()
    cards = {**CARDS, "a": Card("a", 0.2, mean_work=50.0)}
    bench(Rewired(links({"a": ["c"], "c": ["b", "d"]}, cards)))
    assert bench.node.card.cost == 0.2
    route = one(bench.draft(REFUSED), Route)
    assert (route.agent, route.query.path[0].full_cost) == ("c", pytest.approx(0.2 * 36 / 50))
    bench(Rewired(Directory(None, {})))
    assert bench.node.card == cards["a"]  # it knows itself


# ---------------------------------------------------------------------------------- asked twice


def test_two_who_ask_share_one_turn() -> None:
    bench = Bench()
    bench.ask()
    assert bench.ask() == []
    bench.draft(Piece("well", 1, None, 20))
    assert bench.ask(path=(Hop("z", "failed"),)) == [Accepted(KEY, "a")]
    bench.draft(Piece("!", 1, None, 0, "stop"))
    bench(Tick(), at=89.9)
    assert bench.ask() == [Accepted(KEY, "a")]  # known for stall_s after its deadline: messages may be late
    bench(Tick(), at=90.0)
    assert kinds(bench.ask()) == ["Generate"]


def test_a_settled_rejection_is_repeated() -> None:
    bench = Bench()
    bench.ask(hops_left=0)
    (rejected,) = bench(DraftFailed(KEY, 1, "failed"))
    assert bench.ask() == [rejected]


def test_another_attempt_is_another_turn() -> None:
    bench = Bench()
    bench.ask()
    assert one(bench.ask(attempt=2), Generate).request.key == ("q", 2)
    assert len(bench.node.running) == 2


# ---------------------------------------------------------------------------------- limits, time, cancellation


def test_a_full_queue_is_busy() -> None:
    bench = Bench(running=1, waiting=1)
    said = [bench(Asked(query(id=name))) for name in ("one", "two", "three")]
    assert [kinds(commands) for commands in said] == [["Generate"], [], ["Rejected"]]
    assert (said[2][0].reason, said[2][0].detail) == ("busy", "2 queries in hand")  # type: ignore[union-attr]
    first = bench(Drafted(("one", 1), 1, Piece("ok", 1, None, 1, "stop")))
    assert kinds(first) == ["Accepted", "Emit", "End", "Generate"]  # the second takes its place


def test_a_query_without_time_is_not_begun() -> None:
    assert Bench().ask(remaining_s=0.0) == [Rejected(KEY, "a", "deadline")]


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        ([], ["Stop", "Rejected"]),
        ([REFUSED], ["Cancel", "Rejected"]),
        ([Piece("well", 1, None, 20)], ["End", "Stop"]),
    ],
)
@pytest.mark.parametrize("event", [Tick(), Cancelled(KEY)])
def test_a_deadline_and_a_cancellation_end_every_stage(
    event: NodeEvent, pieces: list[Piece], expected: list[str]
) -> None:
    bench = Bench()
    bench.ask(remaining_s=10.0)
    bench.draft(*pieces)
    assert bench(Tick(), at=9.9) == []
    said = bench(event, at=10.0)
    assert kinds(said) == expected
    reason = "deadline" if isinstance(event, Tick) else "cancelled"
    match said[-1] if expected[-1] == "Rejected" else said[0]:
        case Rejected() as rejected:
            assert rejected.reason == reason
        case End(_, finish, hop):
            assert (finish, hop.reason) == ("failed", reason)
    if "Cancel" in expected:
        assert said[0] == Cancel("b", KEY)
    assert bench.idle()


def test_a_cancelled_query_leaves_the_queue() -> None:
    bench = Bench(running=1)
    bench(Asked(query(id="first")))
    bench.ask()
    assert kinds(bench(Cancelled(KEY))) == ["Rejected"]
    said = bench(Drafted(("first", 1), 1, Piece("ok", 1, None, 1, "stop")))
    assert kinds(said) == ["Accepted", "Emit", "End"]
    assert bench.idle()


def test_a_query_asked_again_after_its_deadline_is_started_once() -> None:
    bench = Bench(running=1, stall_s=1000.0)
    bench(Asked(query(id="first", remaining_s=9000.0)))
    bench.ask(remaining_s=10.0)
    bench(Tick(), at=10.0)  # it waited in vain
    bench(Drafted(("first", 1), 1, Piece("I", 1)), at=500.0)
    bench(Tick(), at=1010.0)  # and is forgotten, but for its place in the queue
    bench.ask(remaining_s=2000.0)
    said = bench(Drafted(("first", 1), 1, Piece(" see", 1, None, 1, "stop")))
    assert kinds(said) == ["Accepted", "Emit", "Emit", "End", "Generate"]
    assert bench.node.turns[KEY].generation == 1


@pytest.mark.parametrize("seed", [0, 1])
def test_randomness_follows_from_the_seeds(seed: int) -> None:
    def drawn(name: str, own: int, asked: int) -> int:
        bench = Bench(seed=own)
        bench.node.card = replace(CARDS["a"], name=name)
        seeded: Callable[[], Any] = lambda: one(bench.ask(seed=asked), Generate).request.seed  # noqa: E731
        return int(seeded())

    same = drawn("a", seed, 3)
    assert same == drawn("a", seed, 3)
    assert len({same, drawn("b", seed, 3), drawn("a", seed + 1, 3), drawn("a", seed, 4)}) == 4


# ---------------------------------------------------------------------------------- staged policies


class Staged(Policy):
    """Decides as it is told, in turn; keeps the views."""

    staged = True

    def __init__(self, *decisions: Decision) -> None:
        self.decisions, self.views = list(decisions), list[View]()

    def decide(self, view: View) -> Decision:
        self.views.append(view)
        return self.decisions.pop(0)


def staged(*decisions: Decision, checks: bool = True) -> tuple[Bench, Staged]:
    policy = Staged(*decisions)
    bench = Bench(policy, FirstToken(), prompt="scenario")
    bench.node.checker = Likelihood() if checks else None
    return bench, policy


def test_a_staged_policy_forwards_before_any_work() -> None:
    bench, policy = staged(Forward("b", (Offer("a", 0.4),)))
    said = bench.ask(offers=(Offer("z", 0.3),))
    assert kinds(said) == ["Route"]
    route = one(said, Route)
    assert (route.agent, route.query.offers, route.query.path[-1].prompt_tokens) == ("b", (Offer("a", 0.4),), 0)
    assert (route.query.path[-1].verdict, route.query.path[-1].reason) == ("refused", "not tried")
    view = policy.views[0]
    assert (view.text, view.looked, view.draft, view.confidence) == ("why?", False, None, None)
    assert view.offers == (Offer("z", 0.3),)


def test_it_looks_and_then_drafts_as_it_wishes() -> None:
    bench, policy = staged(Look(), Draft(), Answer())
    judge = one(bench.ask(alpha=0.2), Judge).request
    assert judge.messages == prompted(QUESTION, 0.2, "scenario")
    request = one(bench(Scored(KEY, 0, Scores((math.log(0.2),), 20))), Generate).request
    assert (request.messages, request.ban) == (QUESTION, REFUSAL)
    said = bench.draft(Piece("4", 1, -0.1, 10), Piece("2", 1, -0.3, finish="stop"))
    assert kinds(said) == ["Accepted", "Emit", "Emit", "End"]
    hop = one(said, End).hop
    assert (hop.verdict, hop.reason, hop.prompt_tokens, hop.generated_tokens) == ("answered", "", 30, 2)
    assert hop.confidence == pytest.approx(math.exp(-0.2))
    looked, drafted = policy.views[1:]
    assert (looked.confidence, looked.looked, looked.draft) == (pytest.approx(0.8), True, None)
    assert (drafted.confidence, drafted.draft) == (pytest.approx(0.8), "42")
    assert drafted.drafted == pytest.approx(math.exp(-0.2))
    assert bench.idle()


def test_without_a_checker_a_draft_is_the_answer() -> None:
    bench, policy = staged(Draft(), checks=False)
    request = one(bench.ask(), Generate).request
    assert (request.messages, request.ban) == (QUESTION, REFUSAL)
    assert kinds(bench.draft(Piece("42", 1, None, 10))) == ["Accepted", "Emit"]
    assert len(policy.views) == 1


def test_what_comes_back_is_decided_anew_with_the_draft_in_hand() -> None:
    bench, policy = staged(Draft(), Forward("b", (Offer("a", 0.6),)), Answer())
    bench.ask()
    said = bench.draft(Piece("42", 1, -0.5, 10, "stop"))
    assert kinds(said) == ["Route"]
    offers = (Offer("a", 0.6, 0.1, "42"), Offer("b", 0.5, 0.2, "42"))
    back = Rejected(KEY, "b", "handed back", "", (Hop("b", "refused", None, 0.1),), offers)
    said = bench(back)
    assert kinds(said) == ["Accepted", "Emit", "End"]
    assert [hop.agent for hop in one(said, Accepted).hops] == ["a", "b"]
    assert one(said, End).hop.reason == ""
    assert [card.name for card in policy.views[-1].neighbours] == ["c"]
    assert policy.views[-1].drafted == pytest.approx(math.exp(-0.5))
    assert policy.views[-1].offers == offers
    assert bench.idle()


def test_what_others_can_do_better_is_handed_back() -> None:
    offers = (Offer("z", 0.5), Offer("a", 0.1))
    bench, _ = staged(Look(), Decline(offers))
    bench.ask(offers=offers[:1], path=(Hop("z", "refused"),))
    said = bench(Scored(KEY, 0, Scores((-0.01,), 20)))
    rejected = one(said, Rejected)
    assert (rejected.reason, [(hop.agent, hop.verdict, hop.prompt_tokens) for hop in rejected.hops]) == (
        "handed back",
        [("a", "refused", 20)],
    )
    assert rejected.offers == offers
    assert bench.idle()
    bench, _ = staged(Decline())  # nobody to hand it back to: it answers
    assert kinds(bench.ask()) == ["Generate"]


def test_who_has_nobody_left_answers_with_its_draft() -> None:
    bench, _ = staged(Draft(), Forward("b"))
    bench.ask()
    bench.draft(Piece("42", 1, -0.5, 10, "stop"))
    hops = tuple(Hop(name, "failed", reason="busy") for name in "bcd")
    assert kinds(bench(Rejected(KEY, "b", "busy", "", hops))) == ["Accepted", "Emit", "End"]
    assert bench.idle()


def test_a_draft_that_broke_off_is_none() -> None:
    bench, policy = staged(Draft(), Answer())
    bench.ask()
    bench.draft(Piece("4", 1, -0.5, 10))
    assert kinds(bench(DraftFailed(KEY, 1, "engine"))) == ["Route"]
    said = bench(Rejected(KEY, "b", "busy", "", (Hop("b", "failed", reason="busy"),)))
    assert policy.views[-1].draft is None
    assert kinds(said) == ["Generate"]


# ---------------------------------------------------------------------------------- too much to do


def test_what_cannot_be_done_in_time_is_not_begun() -> None:
    """Neither when it comes, nor when its turn has come."""
    bench = Bench(running=1)
    bench(Asked(query(id="first")))
    bench.ask(remaining_s=5.0)  # nobody knows yet how long one takes
    (*_, late) = bench(Drafted(("first", 1), 1, Piece("ok", 1, None, 1, "stop")), at=4.0)
    assert late == Rejected(KEY, "a", "late", "it would take 4.4 s here, and 1 s are left")
    (late,) = bench(Asked(query(id="third", remaining_s=3.0)))
    assert (late.reason, late.detail) == ("late", "it would take 4.4 s here, and 3 s are left")
    assert kinds(bench(Asked(query(id="fourth", remaining_s=4.5)))) == ["Generate"]


def test_the_last_of_the_lowest_priority_gives_way() -> None:
    bench = Bench(running=1, waiting=3)
    bench(Asked(query(id="works", priority=0)))  # whoever is worked on stays
    for name, priority in (("low", 0), ("low too", 0), ("normal", 1)):
        bench(Asked(query(id=name, priority=priority)))
    assert kinds(bench(Asked(query(id="low again", priority=0)))) == ["Rejected"]
    gone = [bench(Asked(query(id=f"high {n}", priority=2))) for n in range(4)]
    assert [(one.key[0], one.reason) for (one,) in gone] == [
        ("low too", "busy"), ("low", "busy"), ("normal", "busy"), ("high 3", "busy"),
    ]  # fmt: skip
    assert list(bench.node.queue) == [("high 0", 1), ("high 1", 1), ("high 2", 1)]


def test_a_neighbour_that_was_full_is_passed_over_for_one_like_it() -> None:
    bench = Bench()
    bench(Rewired(links(EDGES, {**CARDS, "c": replace(CARDS["c"], cost=0.31)})))

    def refused(name: str, at: float) -> str:
        bench(Asked(query(id=name)), at)
        return str(one(bench(Drafted((name, 1), 1, REFUSED)), Route).agent)

    assert refused("first", 0.0) == "b"
    assert one(bench(Rejected(("first", 1), "b", "busy")), Route).agent == "c"  # b has had it
    assert refused("second", 0.5 * FULL_S) == "c"
    assert refused("third", FULL_S) == "b"


def test_a_full_queue_raises_alpha_and_the_end_tells_by_how_much() -> None:
    bench = Bench(running=1, waiting=2, brownout=0.8)
    for name in ("first", "second", "third"):
        bench(Asked(query(id=name)))
    assert [turn.query.alpha for turn in bench.node.turns.values()] == [0.5, 0.5, 0.7]
    bench(Drafted(("first", 1), 1, Piece("ok", 1, None, 1, "stop")))
    (*_, end, _) = bench(Drafted(("second", 1), 1, Piece("ok", 1, None, 1, "stop")))
    assert (end.key, end.alpha) == (("second", 1), 0.5)
    (*_, end) = bench(Drafted(("third", 1), 1, Piece("ok", 1, None, 1, "stop")))
    assert (end.key, end.alpha) == (("third", 1), 0.7)
