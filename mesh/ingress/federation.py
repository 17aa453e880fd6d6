"""A mesh elsewhere as a neighbour like any other: an agent whose engine asks that mesh over gRPC.

    - {name: berlin, cost: 0.6, engine: {kind: mesh, target: "berlin.example:9000", api_key_env: BERLIN_KEY, rate: 0.5,
       tls_ca: ca.pem, tls_cert: us.pem, tls_key: us-key.pem}}

With the policy ``refusal`` (the default) it may decline, where its own agents do, and the query goes on to the next
neighbour; with ``always`` it has to answer. Alpha, deadline, budget, what the caller has seen of the answer, and the
names of the meshes that a query has come through travel along; closing the draft cancels the call. Its agents stand in
the reply's path as ``berlin/AGENT``. Whatever goes wrong there is this one agent's failure.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

import grpc
from msgspec.structs import asdict, replace

from agents import messages as msg
from agents.engines.base import Capabilities, Setup, room
from agents.errors import AdapterError, AgentDied, BudgetExceeded, ConfigError, QueryTooLong
from agents.prompts import REFUSAL
from mesh.ingress import mesh_pb2 as pb
from mesh.ingress.gateway import Gateway, Passed
from mesh.ingress.grpc_client import channel, check_target, unpacked
from mesh.ingress.mesh_pb2_grpc import MeshStub
from mesh.ingress.names import MESH
from mesh.ingress.tls import ClientTLS
from mesh.query import PRIORITIES

_ENDS: dict[str, type[Exception]] = {"context_length_exceeded": QueryTooLong, "budget_exceeded": BudgetExceeded}


@dataclass(eq=False)
class RemoteMesh:
    """Asks the mesh that is served at ``target``, HOST:PORT of its gRPC; ``setup.model`` is what it calls a model ("":
    the mesh as a whole).

    Its key stands in the environment variable ``api_key_env`` ("": it wants none); ``tls_ca`` is who signed its
    certificate, ``tls_cert`` and ``tls_key`` are what this one shows (see ``ClientTLS``). ``rate`` is what one unit of
    its costs is worth in this mesh's, by which budgets and full costs are converted. ``context``: tokens that it holds.
    """

    setup: Setup
    _: KW_ONLY
    target: str
    api_key_env: str = ""
    tls_ca: str | Path = ""
    tls_cert: str | Path = ""
    tls_key: str | Path = ""
    rate: float = 1.0
    context: int = 1_000_000
    node = Gateway
    _channel: Any = field(default=None, init=False, repr=False)
    _metadata: tuple[tuple[str, str], ...] = field(default=(), init=False, repr=False)
    _open: int = field(default=0, init=False)

    async def start(self) -> Capabilities:
        """Make the channel. Nothing is sent: what is wrong over there shows with the first query."""
        check_target("target", self.target)
        number = isinstance(self.rate, int | float) and not isinstance(self.rate, bool)
        if not (number and 0 < self.rate < float("inf")):
            raise ConfigError(f"rate: {self.rate!r}; it must be a number > 0")
        key = os.environ.get(self.api_key_env) if self.api_key_env else None
        if self.api_key_env and not key:
            raise ConfigError(f"api_key_env: the environment variable {self.api_key_env} is unset; put the key there")
        await self.load_adapter(self.setup.adapter)
        tls = ClientTLS(str(self.tls_ca), str(self.tls_cert), str(self.tls_key))
        if key:
            self._metadata = (("authorization", f"Bearer {key}"),)
        self._channel = channel(grpc.aio, self.target, tls)
        return Capabilities(self.context, logprobs=False, scores=False)

    async def generate(self, request: msg.Request) -> AsyncIterator[msg.Piece]:
        """What that mesh answers; closing the generator cancels the call.

        Where it declines, and may (``request.ban`` is empty), its answer is the refusal. Raises AgentDied where it
        cannot be reached, RuntimeError where it fails.
        """
        characters = sum(len(message.content) for message in request.messages) + len(request.continued)
        prompt = -(-characters // 4)  # tokens, until it tells
        room(request, prompt, self.context)
        passed = request if isinstance(request, Passed) else Passed(**asdict(request))
        call = MeshStub(self._channel).AskStream(
            self._query(passed), metadata=self._metadata, timeout=passed.remaining_s
        )
        tokens = 0
        self._open += 1
        try:
            async for piece in call:
                if piece.WhichOneof("what") == "reply":
                    yield self._last(unpacked(piece.reply), tokens, 0 if tokens else prompt)
                elif piece.text:
                    yield msg.Piece(piece.text, 1, None, 0 if tokens else prompt)
                    tokens += 1
        except grpc.aio.AioRpcError as error:
            raise self._explain(error) from None
        finally:
            self._open -= 1
            call.cancel()

    async def score(self, request: msg.ScoreRequest) -> msg.Scores:
        """Raises RuntimeError: a mesh scores nothing for others."""
        raise RuntimeError("a mesh elsewhere gives no scores")

    async def load_adapter(self, path: Path | None) -> None:
        """Raises AdapterError for anything but None: its agents are not ours to change."""
        if path is not None:
            raise AdapterError(f"adapter {str(path)!r}: a mesh elsewhere takes none; publish it there")

    def running(self) -> int:
        return self._open

    async def healthy(self) -> bool:
        """True: a mesh that is gone shows in the queries, and is asked again once it is back."""
        return True

    def describe(self) -> dict[str, Any]:
        """Address, model, and the name of the key's variable; never the key."""
        return {"model": self.setup.model or MESH, "target": self.target, "api_key_env": self.api_key_env}

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()

    def _query(self, request: Passed) -> Any:
        given = {
            "alpha": request.alpha,
            "deadline_s": request.remaining_s,
            "max_cost": None if request.max_cost is None else max(request.max_cost / self.rate, 1e-9),
        }
        return pb.Query(
            messages=[pb.Message(role=each.role, content=each.content) for each in request.messages],
            model=self.setup.model or MESH,
            max_tokens=request.max_tokens,
            may_decline=not request.ban,
            seed=request.seed,
            priority=PRIORITIES[request.priority],
            meshes=(*request.meshes, *([self.setup.mesh] if self.setup.mesh else [])),
            continued=request.continued,
            **{name: value for name, value in given.items() if value is not None},
        )

    def _last(self, reply: msg.Reply, tokens: int, prompt: int) -> msg.Piece:
        """A draft's end: what the reply tells, in this mesh's names and costs. RuntimeError where it cannot be."""
        name = self.setup.agent
        if not (reply.path and all(0 <= hop.full_cost < float("inf") for hop in reply.path)):
            raise RuntimeError(f"the mesh at {self.target} tells no path, or costs below 0")
        hops = [replace(hop, agent=f"{name}/{hop.agent}", full_cost=hop.full_cost * self.rate) for hop in reply.path]
        text, finish = (REFUSAL, "stop") if reply.finish == "declined" else ("", reply.finish)
        missed = max(0, reply.path[-1].generated_tokens - tokens)
        return msg.Piece(text, missed, None, prompt, finish, tuple(hops))  # type: ignore[arg-type]

    def _explain(self, error: Any) -> Exception:
        """Without what it says, which may be the question."""
        told = dict(error.trailing_metadata() or ()).get("mesh-code", "")
        if error.code() == grpc.StatusCode.UNAVAILABLE and not told:
            return AgentDied(self.setup.agent, f"{self.target}: {error.details()}")
        what = f"the mesh at {self.target}: {error.code().name}" + (f" ({told})" if told else "")
        return _ENDS.get(told, RuntimeError)(what)
