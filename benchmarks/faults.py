"""What becomes of streams when something breaks behind the real server, as OpenAI's own client sees it: agents and
replicas are killed, agents stall, dawdle and talk nonsense, clients go away.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import httpx
import numpy as np
import openai

from agents.engines.scripted import ScriptedEngine
from agents.errors import MeshError
from agents.messages import Piece, Request
from benchmarks.served import served
from mesh.client import Mesh
from mesh.config import MeshConfig, load
from mesh.running import connect

PIECES, PIECE_S, STALL_S = 10, 0.1, 2.0
WAIT_S = 0.75 * STALL_S  # before a first token that comes late
ANSWER = "".join(f"word {number} " for number in range(PIECES))
SEEN = 3  # pieces that a client has read when something happens to its stream
PATIENCE_S = 30.0  # a stream that has not ended by then hangs
SOON_S = 5.0  # and so does a generation that nobody wants any more
REPLICAS, ENOUGH = 3, 2  # when one is killed, one is left that a client may ask again, and one for the next try
KNOWN_S = 2.5  # how long until every replica has heard of a new agent
LIVES = 3  # deaths after which `first` is replaced: more in a short time are a crash loop, and it would be given up
FIRST: dict[str, Any] = {
    "name": "first",
    "cost": 0.1,
    "prompt": "plain",
    "engine": {"kind": "benchmarks.faults:Faulty", "answer": ANSWER, "pieces": PIECES, "piece_s": PIECE_S},
}
Outcome: TypeAlias = Literal["answered", "continued", "stopped", "error", "unclear", "hung"]


class Faulty(ScriptedEngine):
    """Does what the query says: ``wait``, ``stall``, ``slow``, ``malformed``, or else nothing special."""

    async def generate(self, request: Request) -> AsyncIterator[Piece]:
        told = request.messages[-1].content
        if told == "wait":
            await asyncio.sleep(WAIT_S)
        number = 0
        async with contextlib.aclosing(super().generate(request)) as pieces:  # type: ignore[type-var]
            async for piece in pieces:
                if told == "slow":
                    await asyncio.sleep(STALL_S / 5)
                if number == SEEN + 2 and told == "stall":
                    await asyncio.Event().wait()
                if number == SEEN + 2 and told == "malformed":
                    yield None  # type: ignore[misc]
                yield piece
                number += 1


def pool() -> MeshConfig:
    """One that goes wrong, and one that takes over."""
    second = {**FIRST, "name": "second", "cost": 0.9, "engine": {**FIRST["engine"], "kind": "scripted"}}
    limits = {"stall_s": STALL_S, "heartbeat_s": 0.5}
    return load({"name": "bench-faults", "runtime": "ray", "limits": limits, "agents": [FIRST, second]})


@dataclass(frozen=True, slots=True)
class Try:
    """How one stream ended; ``seconds`` since it was asked for, ``why`` what an error said."""

    outcome: Outcome
    seconds: float
    why: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """Something that goes wrong.

    ``told`` is the query. ``harm`` is called ``after`` so many pieces were read; 0: while the first is waited for.
    ``leaves``: the client itself goes then. ``at_once``: how many streams may go wrong side by side.
    """

    name: str
    told: str
    harm: Callable[[Server], None] | None = None
    after: int = 0
    leaves: bool = False
    at_once: int = 1


class Server:
    """The server under test."""

    def __init__(self, url: str, mesh: Mesh) -> None:
        self.url, self.mesh = url, mesh

    def agent(self) -> dict[str, Any]:
        """What the server tells of ``first``."""
        rows = httpx.get(f"{self.url}/v1/mesh", timeout=PATIENCE_S).json()["agents"]
        return next(row for row in rows if row["agent"] == "first")

    def idle(self) -> bool:
        """Whether ``first`` is up, with nothing in hand."""
        with contextlib.suppress(httpx.HTTPError, KeyError):
            row = self.agent()
            return (row["state"], row["in_hand"]) == ("up", 0)
        return False

    def recover(self) -> None:
        """Wait until what the next try needs is up again. Raises MeshError where that does not come."""
        if not until(lambda: self.idle() and len(list(replicas())) >= ENOUGH, 60):
            raise MeshError(f"the server does not recover: {self.agent()}, {len(list(replicas()))} replicas")
        if self.agent()["deaths"] >= LIVES:
            self.mesh.remove_agent("first")
            self.mesh.add_agent(FIRST)
            time.sleep(KNOWN_S)

    def kill_agent(self) -> None:
        """``kill -9`` for ``first``."""
        os.kill(next(row["pid"] for row in self.mesh.status() if row["agent"] == "first"), signal.SIGKILL)

    def kill_replica(self) -> None:
        """``kill -9`` for the replica that has a stream in hand. Raises MeshError where none has."""
        busy = (pid for pid, running in replicas() if running)  # one stream is under way
        if (pid := next(busy, None)) is None:
            raise MeshError("no replica has the stream in hand")
        os.kill(pid, signal.SIGKILL)


def replicas(within_s: float = 1.0) -> Iterator[tuple[int, int]]:
    """The server's replicas as they answer, those that start later not among them: process id, requests in hand."""
    import ray

    asked = []
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["name"].startswith("SERVE_REPLICA::mesh#"):
            with contextlib.suppress(ValueError):
                replica = ray.get_actor(actor["name"], namespace=actor["namespace"])
                asked.append(replica.__ray_call__.remote(lambda self: (os.getpid(), self.get_num_ongoing_requests())))
    end = time.monotonic() + within_s
    while asked:
        done, asked = ray.wait(asked, timeout=max(end - time.monotonic(), 0.0))
        if not done:
            return
        with contextlib.suppress(ray.exceptions.RayError):
            yield ray.get(done[0])


CASES = (
    Case("nothing", "hello", at_once=5),
    Case("agent killed before the first token", "wait", Server.kill_agent),
    Case("agent killed mid-stream", "hello", Server.kill_agent, after=SEEN),
    Case("agent stalls mid-stream", "stall", after=SEEN, at_once=5),
    Case("agent slow", "slow", at_once=5),
    Case("malformed piece mid-stream", "malformed", after=SEEN, at_once=5),
    Case("replica killed before the first token", "wait", Server.kill_replica),
    Case("replica killed mid-stream", "hello", Server.kill_replica, after=SEEN),
    Case("client gone mid-stream", "hello", after=SEEN, leaves=True, at_once=5),
)


def measure(times: int, names: Sequence[str] = (), tell: Callable[[str], object] = print) -> dict[str, Any]:
    """Every case, or those named, ``times`` times.

    Returns:
        ``cases``: name -> how many streams ended how, and the seconds that were lost; see ``figures``.
    """
    chosen = [case for case in CASES if not names or case.name in (*names, CASES[0].name)]
    config, tries = pool(), {}
    with served(config, replicas=REPLICAS) as url, connect(config.name) as mesh:
        server = Server(url, mesh)
        for case in chosen:
            began = time.monotonic()
            tries[case.name] = run(server, case, times)
            ends = dict(Counter(each.outcome for each in tries[case.name]))
            tell(f"{case.name}: {ends}, {time.monotonic() - began:.0f} s")
    return {"bench": "serving_faults", "times": times, "cases": figures(tries)}


def run(server: Server, case: Case, times: int) -> list[Try]:
    """One case, each time on a server that is whole."""
    tries: list[Try] = []
    with ThreadPoolExecutor(case.at_once) as threads:
        for begun in range(0, times, case.at_once):
            server.recover()
            tries += threads.map(lambda _: attempt(server, case), range(min(case.at_once, times - begun)))
    return tries


def attempt(server: Server, case: Case) -> Try:
    """One stream; one that has not ended after ``PATIENCE_S`` is left to itself."""
    found: list[Try] = []
    thread = threading.Thread(target=lambda: found.append(_stream(server, case)), daemon=True)
    thread.start()
    thread.join(PATIENCE_S)
    return found[0] if found else Try("hung", PATIENCE_S)


def _stream(server: Server, case: Case) -> Try:
    began, chunks, harmed = time.monotonic(), list[Any](), list[int]()

    def harm() -> None:
        if case.harm is not None:
            case.harm(server)
            harmed.append(len(chunks))

    early = threading.Timer(WAIT_S / 3, harm if not case.after else lambda: None)
    early.start()
    try:
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=2 * PATIENCE_S) as client:
            asked: Any = {"messages": [{"role": "user", "content": case.told}], "extra_body": {"entry": "first"}}
            with client.chat.completions.create(model="mesh", stream=True, **asked) as stream:
                for chunk in stream:
                    chunks.append(chunk)
                    if len(chunks) == case.after:
                        harm()
                        if case.leaves:
                            break
    except openai.APIError as error:
        clear = _is_clear(error) and in_time(case, harmed)
        return Try("error" if clear else "unclear", time.monotonic() - began, _told(error))
    except (httpx.HTTPError, MeshError) as error:
        return Try("unclear", time.monotonic() - began, _told(error))
    finally:
        early.join()
    if case.leaves:
        began = time.monotonic()
        return Try("stopped" if until(server.idle, SOON_S) else "hung", time.monotonic() - began)
    return ended(case, chunks, harmed, time.monotonic() - began)


def ended(case: Case, chunks: Sequence[Any], harmed: Sequence[int], seconds: float) -> Try:
    """What became of a stream that came to its end.

    Args:
        chunks: as OpenAI's client gave them.
        harmed: how many of them had come when the harm was done.
    """
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    if text != ANSWER or chunks[-1].choices[0].finish_reason != "stop":
        return Try("unclear", seconds, f"another text: {text!r}")
    agents = [hop["agent"] for hop in chunks[-1].model_extra["mesh"]["path"]]
    if not in_time(case, harmed):
        return Try("unclear", seconds, f"harm was done after {list(harmed)} pieces, not {case.after}")
    if "first" not in agents and case.harm is not Server.kill_replica:  # whose client may have asked again
        return Try("unclear", seconds, "the agent that was to go wrong was not asked")
    return Try("continued" if case.after and len(agents) > 1 else "answered", seconds)


def in_time(case: Case, harmed: Sequence[int]) -> bool:
    """Whether what was to go wrong went wrong, and when it should."""
    return case.harm is None or list(harmed) == [case.after]


def _is_clear(error: openai.APIError) -> bool:
    """Whether it says what went wrong, in a code that the server documents."""
    return isinstance(error.body, dict) and bool(error.body.get("code")) and bool(error.body.get("message"))


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def until(condition: Callable[[], bool], within_s: float) -> bool:
    """Wait for something; False where it does not come."""
    end = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.05)
    return True


def figures(tries: Mapping[str, Sequence[Try]]) -> dict[str, dict[str, Any]]:
    """For each case how many streams ended how, what the others were told, and the seconds lost.

    Lost are the seconds beyond the median of the first case, in which nothing goes wrong; for a client that has gone,
    those until the generation has stopped.
    """
    usual, *_ = tries.values()
    calm = float(np.median([each.seconds for each in usual]))
    told = {}
    for name, these in tries.items():
        outcomes = Counter(each.outcome for each in these)
        lost = [each.seconds - (0.0 if each.outcome == "stopped" else calm) for each in these]
        told[name] = {
            **{outcome: outcomes[outcome] for outcome in get_args(Outcome)},
            "lost_s": {"p50": round(float(np.median(lost)), 2), "max": round(max(lost), 2)},
            "why": dict(Counter(each.why for each in these if each.why)),
        }
    return told


def rows(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The fault table."""
    return [
        {"": name, **{"clear error" if outcome == "error" else outcome: told[outcome] for outcome in get_args(Outcome)}}
        | {"seconds lost, p50": told["lost_s"]["p50"], "max": told["lost_s"]["max"]}
        for name, told in result["cases"].items()
    ]
