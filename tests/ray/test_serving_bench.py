"""The serving benchmarks, each in its shortest form: that they measure what they say, on the real server."""

from __future__ import annotations

import pytest

from benchmarks import faults, serving, streams

pytestmark = [
    pytest.mark.ray,
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # Ray Serve's own
]


@pytest.mark.slow
def test_the_mesh_against_the_bare_server() -> None:
    found = serving.noop(10, 4)
    assert {part: set(sides) for part, sides in found.items()} == {
        **{part: {"mesh", "bare"} for part in ("alone-1", "together-1", "alone-16", "together-16")},
        "refusal": {"refused", "direct"},
    }
    for part, sides in found.items():
        first, second = (side["streams"] for side in sides.values())
        assert first == second >= 10, part  # a lost stream would have raised
    told = serving.result(found, None)
    assert told["noop_rps_ratio"] > 0
    assert told["refusal_ttft_ratio"] > 0
    assert len(serving.rows(found, None)) == 10


@pytest.mark.slow
def test_the_fault_table() -> None:
    """Cases that no test of the server itself plays, each once."""
    names = [
        "agent killed before the first token",
        "agent stalls mid-stream",
        "agent slow",
        "malformed piece mid-stream",
        "replica killed before the first token",
        "replica killed mid-stream",
    ]
    found = faults.measure(1, names)["cases"]
    ended = {name: [outcome for outcome, count in told.items() if count == 1] for name, told in found.items()}
    assert ended == {
        "nothing": ["answered"],
        "agent killed before the first token": ["answered"],
        "agent stalls mid-stream": ["continued"],
        "agent slow": ["answered"],
        "malformed piece mid-stream": ["continued"],
        "replica killed before the first token": ["answered"],
        "replica killed mid-stream": ["error"],
    }, found


def test_a_hundred_streams_at_once() -> None:
    result = streams.measure(100, 1, 5.0)
    (told,) = result["rounds"]
    assert (told["lost"], told["open_at_once"]) == (0, 100), told["why"]
    assert set(told["peak_mib"]) >= {"client", "ProxyActor", "ServeReplica", "ReplicaActor"}
    assert all(size > 0 for size in told["peak_mib"].values())
