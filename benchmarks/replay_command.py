"""``mesh bench routing --pool replay:FILE``: every way to route, held to recorded outcomes of models that nobody here
runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from agents.errors import ConfigError
from benchmarks.baselines import BASELINES
from benchmarks.estimated import LABEL, Ours, estimated, ours
from benchmarks.ours import chosen, keep_profiles, priors, ways
from benchmarks.outcomes import Method, Outcomes
from benchmarks.replay import PREFIX, Replay, load
from benchmarks.routing import ALPHAS, baselines, decomposed, figures, planes
from mesh.query import check_alpha
from topologies import Mesh
from training.scores import interval, resampled

SINGLE = "best-single"  # always among the baselines: what any routing has to beat
FREE = "0: the estimate reads the question alone, as learnt baselines do, whose computing is not counted either"


def run(
    path: Path,
    texts: Sequence[str],
    tasks: bool,
    alphas: Sequence[float],
    seed: int,
    names: Sequence[str],
    told: Path | None,
    out: Path | None,
) -> None:
    """Measure, print the table and where costs come from, and publish as ``routing_NAME``.

    Args:
        path, texts, tasks: see ``benchmarks.replay.load``.
        names: of baselines; none: all.
        told: folder for the profiles that agents learn.
        out: folder of the result.
    """
    from benchmarks.results import folder, publish
    from benchmarks.routing_figures import draw, table
    from mesh.terminal import print_note, print_table, say

    replay = load(path, texts, tasks)
    say(
        f"{replay.name}: "
        + ", ".join(f"{count} {part}" for part, count in replay.parts.items())
        + " rows, by their ids"
    )
    result, methods, test, found = measure(replay, sorted(alphas or ALPHAS), seed, names, say)
    result["task_names"] = "read" if tasks else "hidden"
    print_table(table(result))
    for line in notes(result):
        print_note(line)
    best = next(iter(result["alphas"].values()))["ours"]
    if told is not None:
        keep_profiles(found.ways[best["name_full"]].profiles or {}, told)
    draw(methods, test, best["name"], folder(out) / f"routing_{replay.name}.png")
    publish(f"routing_{replay.name}", result, seed, out)


def measure(
    replay: Replay, alphas: Sequence[float], seed: int, names: Sequence[str], told: Callable[[str], None]
) -> tuple[dict[str, Any], list[Method], Outcomes, Ours]:
    """What stands under RESULT, all methods, the test rows as ours saw them, and our ways.

    Raises:
        ConfigError: confidences were recorded, but not at one of ``alphas``.
    """
    alphas = [check_alpha(alpha) for alpha in alphas]
    found, validation, test = _ours(replay, alphas, seed)
    known = found.tried(validation, alphas)
    best = chosen(known, False), chosen(known, True)
    told(f"ours, chosen on validation: {best[0]}, by full cost {best[1]}")
    asked = list(dict.fromkeys([*(names or BASELINES), SINGLE]))
    others = baselines(replay.train, replay.validation, replay.test, alphas, seed, asked, told)
    mine = found.tried(test, alphas)
    methods = [*mine, *others]
    result = {
        "bench": "routing",
        "pool": f"{PREFIX}{replay.name}",
        "seed": seed,
        "parts": replay.parts,
        "split": "by a hash of each id",
        "prices": dict(zip(test.agents, test.costs.tolist(), strict=True)),
        "cost_source": _sources(replay),
        "confidences": _confidences(replay),
        "left_out": [name for name in asked if name not in {method.name for method in others}],
        **figures(methods, best, test, alphas, seed),
        "planes": planes(methods, test),
        "missing": {
            name: decomposed(found.ways[name], next(m for m in mine if m.name == name), test, alphas, seed)
            for name in dict.fromkeys(best)
        },
    }
    for alpha in alphas:
        result["alphas"][f"{alpha:g}"] |= _singles(methods, best, test, alpha, seed)
    return result, methods, test, found


def notes(result: dict[str, Any]) -> list[str]:
    """What must be read with the table."""
    left = result["left_out"]
    lines = [f"{name} comes from: {source}" for name, source in result["cost_source"].items()]
    lines.append(f"confidences: {result['confidences']}")
    if left:
        lines.append(f"left out, since they need drafts or signals that were not recorded: {', '.join(left)}")
    for alpha, at in result["alphas"].items():
        versus, (low, high) = at["vs_single"], at["vs_single"]["ci"]
        lines.append(
            f"alpha {alpha}: oracle {at['oracle']:.3f}, best single {versus['agent']} {versus['utility']:.3f}; "
            f"{at['ours']['name']} is {versus['diff']:+.3f} ({low:+.3f} to {high:+.3f}) above it"
        )
    return lines


def _ours(replay: Replay, alphas: Sequence[float], seed: int) -> tuple[Ours, Outcomes, Outcomes]:
    """Our ways, and the rows to choose and to judge them on: with recorded confidences, or with estimates."""
    validation, test = replay.validation, replay.test
    if not replay.has["confidences"]:
        begun = priors(replay.train, validation)
        validation, test = estimated(replay.train, validation, test, begun, alphas, seed)
        return ours(begun, validation, alphas), validation, test
    for alpha in alphas:
        if alpha not in test.beliefs:
            told = ", ".join(f"{each:g}" for each in sorted(test.beliefs))
            raise ConfigError(f"alpha is {alpha:g}; confidences of {replay.name} were recorded at {told}")
    everybody = Mesh(dict(zip(test.agents, test.costs.tolist(), strict=True)))
    found = ways(replay.train, validation, everybody, alphas)
    return Ours(found, dict.fromkeys(found, everybody)), validation, test


def _sources(replay: Replay) -> dict[str, str]:
    return replay.cost_source if replay.has["confidences"] else {**replay.cost_source, "look": FREE}


def _confidences(replay: Replay) -> str:
    if replay.has["confidences"]:
        return "recorded"
    return f"{LABEL}: learnt from each agent's own scores on training rows, calibrated on validation rows"


def _singles(
    methods: Sequence[Method], best: tuple[str, str], test: Outcomes, alpha: float, seed: int
) -> dict[str, Any]:
    """Ours against the agent that was best on the rows to learn from, paired, and what each agent is worth alone."""
    draws, by_name = list(resampled(len(test), seed)), {method.name: method.found[alpha] for method in methods}
    single = by_name[SINGLE]
    versus: dict[str, Any] = {
        "agent": test.agents[int(single.agent[0])],
        "utility": float(single.utility(alpha).mean()),
    }
    for name, full, key in zip(best, (False, True), ("", "_full"), strict=True):
        diff = by_name[name].utility(alpha, full) - single.utility(alpha, full)
        versus |= {f"diff{key}": float(diff.mean()), f"ci{key}": interval([diff[at].mean() for at in draws])}
    worth = test.utilities(alpha)
    oracle = worth.max(axis=0)
    return {
        "oracle_ci": interval([oracle[at].mean() for at in draws]),
        "vs_single": versus,
        "singles": dict(zip(test.agents, worth.mean(axis=1).tolist(), strict=True)),
    }
