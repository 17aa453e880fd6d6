"""What is wrong with agents' self-knowledge, told from a mesh's trace: the failure signatures of self-routing.

Of each query the trace has the path, with what every agent on it said of itself; of some, by ``feedback``, whether the
answer was right. A signature is reported where its evidence is beyond what chance gives (three standard errors).
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.errors import QueryError

FEWEST = 30  # visits, or answers with feedback, below which nothing is said
REJECTED = 0.8  # share of queries refused by everybody but the last: such a line is only overhead
OVERCONFIDENT = 0.1  # by how much p is above the share of right answers
RISE = 0.02  # least growth of the answer rate from the lowest to the highest alpha
DRIFT = 0.1  # change of the answer rate, or of the accuracy, from the first to the last third
SURE = 3.0  # standard errors

REMEDIES = {
    "cascading rejection": "lower the bar: fit gamma anew (`mesh train calibrate` prints the best), or train stage two "
    "with lessons that have more to answer; agents that are asked in vain should come later in the topology",
    "premature acceptance": "calibrate on validation rows like these queries (`mesh train calibrate`); if AUROC is low "
    "there, train the agent on them (`mesh train self-awareness --agent NAME`)",
    "thresholds do not follow alpha": "use policy 'reliability' with a calibration over a grid of alphas, and a prompt "
    "that tells alpha ('scenario', or 'level'); train on alphas from all of [0, 1]",
    "drift": "what is asked has changed, or the agent has: calibrate anew on recent queries; after an update, compare "
    "with `mesh rollback AGENT`",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One signature in one agent (or the mesh as a whole: ``agent`` is empty), and what to do about it."""

    signature: str
    agent: str
    evidence: str

    @property
    def remedy(self) -> str:
        """What to do about it."""
        return REMEDIES[self.signature]


@dataclass(frozen=True, slots=True)
class Visit:
    """One query at one agent: what it decided, with what p; ``right`` where the answer was its own and is known."""

    agent: str
    time: float
    alpha: float
    answered: bool
    p: float | None
    right: bool | None


def read_trace(path: Path) -> tuple[list[dict[str, Any]], dict[str, bool]]:
    """Answered queries in the order of time, and feedback by id.

    Raises:
        QueryError: there is no such file, or it is no trace.
    """
    answered, feedback = [], {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise QueryError(f"trace: {error}") from None
    for number, text in enumerate(lines, start=1):
        try:
            line = json.loads(text)
            event = line["event"]
        except (ValueError, KeyError, TypeError):
            raise QueryError(
                f"trace: {path}:{number} is no line of a trace, which `trace: FILE` in a pool writes"
            ) from None
        if event == "answered":
            answered.append(line)
        elif event == "feedback":
            feedback[line["id"]] = bool(line["right"])
    return sorted(answered, key=lambda line: float(line["time"])), feedback


def diagnose(answered: Sequence[Mapping[str, Any]], feedback: Mapping[str, bool]) -> list[Finding]:
    """The signatures that a trace shows; none where agents do well, or where it tells too little."""
    visits: dict[str, list[Visit]] = defaultdict(list)
    for visit in _visits(answered, feedback):
        visits[visit.agent].append(visit)
    found = [*_rejection(answered)]
    for agent, seen in visits.items():
        found += [*_acceptance(agent, seen), *_thresholds(agent, seen), *_drift(agent, seen)]
    return found


def _visits(answered: Iterable[Mapping[str, Any]], feedback: Mapping[str, bool]) -> Iterator[Visit]:
    for line in answered:
        for hop in line["path"]:
            if hop["verdict"] not in ("answered", "refused") or hop.get("reason") == "forced":
                continue
            own = hop["verdict"] == "answered"
            right = feedback.get(line["id"]) if own else None
            yield Visit(hop["agent"], line["time"], line["alpha"], own, hop["confidence"], right)


def _rejection(answered: Sequence[Mapping[str, Any]]) -> Iterator[Finding]:
    """Queries that had a choice, and were refused wherever there was one."""
    chosen = [line["path"] for line in answered if any(hop["verdict"] == "refused" for hop in line["path"])]
    chosen += [
        line["path"] for line in answered if len(line["path"]) == 1 and line["path"][0].get("reason") != "forced"
    ]
    if len(chosen) < FEWEST:
        return
    through = [path for path in chosen if path[-1].get("reason") == "forced"]
    share, error = _share(len(through), len(chosen))
    if share - SURE * error > REJECTED:
        spent = sum(hop["full_cost"] for path in chosen for hop in path if hop["verdict"] == "refused")
        whole = sum(hop["full_cost"] for path in chosen for hop in path)
        told = f"{share:.0%} of {len(chosen)} queries were refused by everybody who had a choice"
        yield Finding("cascading rejection", "", f"{told}; refusals took {spent / max(whole, 1e-12):.0%} of the work")


def _acceptance(agent: str, seen: Sequence[Visit]) -> Iterator[Finding]:
    known = [(visit.p, visit.right) for visit in seen if visit.right is not None and visit.p is not None]
    if len(known) < FEWEST:
        return
    right, error = _share(sum(fine for _, fine in known), len(known))
    claimed = sum(p for p, _ in known) / len(known)
    if claimed - right > max(OVERCONFIDENT, SURE * error):
        yield Finding(
            "premature acceptance",
            agent,
            f"says {claimed:.2f} of its {len(known)} answers, of which {right:.2f} are right",
        )


def _thresholds(agent: str, seen: Sequence[Visit]) -> Iterator[Finding]:
    by_alpha: dict[float, list[bool]] = defaultdict(list)
    for visit in seen:
        by_alpha[visit.alpha].append(visit.answered)
    told = sorted(alpha for alpha, all_of in by_alpha.items() if len(all_of) >= FEWEST)
    if len(told) < 2:
        return
    (low, low_error), (high, high_error) = (_share(sum(by_alpha[a]), len(by_alpha[a])) for a in (told[0], told[-1]))
    if max(low, high) == 0 or min(low, high) == 1:
        return  # it refuses, or answers, everything: that is another matter
    if high - low < RISE or low - high > SURE * math.hypot(low_error, high_error):
        rates = ", ".join(f"{sum(by_alpha[a]) / len(by_alpha[a]):.2f} at {a:g}" for a in told)
        yield Finding("thresholds do not follow alpha", agent, f"it answers {rates}")


def _drift(agent: str, seen: Sequence[Visit]) -> Iterator[Finding]:
    """Of one alpha, so that another mixture of alphas is no drift."""
    by_alpha: dict[float, list[Visit]] = defaultdict(list)
    for visit in seen:
        by_alpha[visit.alpha].append(visit)
    for alpha, all_of in sorted(by_alpha.items()):
        third = len(all_of) // 3
        first, last = all_of[:third], all_of[-third:] if third else []
        rates = [[visit.answered for visit in part] for part in (first, last)]
        graded = [[visit.right for visit in part if visit.right is not None] for part in (first, last)]
        for what, parts in (("answers", rates), ("is right in", graded)):
            if min(map(len, parts)) < FEWEST:
                continue
            (old, old_error), (new, new_error) = (_share(sum(part), len(part)) for part in parts)
            if abs(new - old) > max(DRIFT, SURE * math.hypot(old_error, new_error)):
                yield Finding("drift", agent, f"at alpha {alpha:g} it {what} {old:.2f} at first, {new:.2f} at last")
                break


def _share(some: int, of: int) -> tuple[float, float]:
    """A share, and its standard error (Agresti and Coull, 1998)."""
    smoothed = (some + 2) / (of + 4)
    return some / of, math.sqrt(smoothed * (1 - smoothed) / (of + 4))
