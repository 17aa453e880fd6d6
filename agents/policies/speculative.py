"""Starting the next agent before this one has decided."""

from __future__ import annotations

from agents.errors import ConfigError
from agents.policies.base import Answer, Ask, Decision, Draft, Look, View, number, pass_on
from agents.policies.threshold import Reliability


class Speculative(Reliability):
    """The reliability rule on a draft: look; forward at once where that look is hopeless; else draft, and answer iff
    the draft's own p is above ``(1 - alpha) ** gamma``. Where the look is in doubt the next agent begins meanwhile, and
    is told to stop where this one's draft will do (speculative execution; AgentSwing runs branches side by side and
    keeps one). So a query that is forwarded after all has not waited for the draft; what was begun in vain is paid for.
    Who begins early does the same: where its look is in doubt, or hopeless, the one after it begins as well.

    A look is hopeless where it says less than ``hopeless`` times the bar, and in doubt below ``doubt`` times it. Of an
    agent that has a profile the next one begins before there is a look, where the query's text says less than ``early``
    times the bar. With ``doubt`` at ``hopeless``, and ``early`` 0, nobody ever begins early. An agent whose profile
    tells how to read its draft goes by that, others by the draft's likelihood.

    Raises:
        ConfigError: ``gamma`` is not a positive number, or a bound is out of order.
    """

    staged = True

    def __init__(self, gamma: float = 0.5, hopeless: float = 0.0, doubt: float = 1.0, early: float = 0.0) -> None:
        super().__init__(gamma)
        self.hopeless, self.doubt = number("speculative: hopeless", hopeless, 0), number("speculative: doubt", doubt, 0)
        self.early = number("speculative: early", early, 0)
        if doubt < hopeless:
            raise ConfigError(f"policy speculative: doubt is {doubt!r}, it must be at least hopeless, {hopeless!r}")

    def decide(self, view: View) -> Decision:
        bar, profile = (1 - view.alpha) ** self.gamma, view.agent.profile
        if not view.looked:
            early = self.early and profile is not None and profile.prior(view.text) < self.early * bar
            return Ask((view.neighbours[0].name,), Look()) if early and view.neighbours else Look()
        if view.refused or view.confidence is None:
            return pass_on(view)
        if view.draft is not None:
            return Answer() if self._sure(view) > bar else pass_on(view)
        if not view.neighbours:
            return Answer()
        hopeless = view.confidence < self.hopeless * bar
        if hopeless and not view.aside:
            return pass_on(view)
        if view.together or view.confidence >= self.doubt * bar:
            return pass_on(view) if hopeless else Draft()
        return Ask((view.neighbours[0].name,), None if hopeless else Draft())

    def _sure(self, view: View) -> float:
        """How likely its draft is right."""
        assert view.confidence is not None
        if (profile := view.agent.profile) is not None:
            return profile.once_both(profile.prior(view.text), view.confidence, view.drafted)
        return view.confidence if view.drafted is None else view.drafted
