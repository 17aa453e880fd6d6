"""What every engine must do, whichever it is. A factory makes one in a folder of its own; add new engines there."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import TypeVar

import pytest
from aiohttp import web
from msgspec.structs import replace

from agents.engines import ENGINES
from agents.engines.base import Capabilities, Engine, Setup
from agents.engines.measured import MeasuredEngine
from agents.engines.openai import OpenAIEngine
from agents.engines.replay import ReplayEngine
from agents.engines.scripted import ScriptedEngine
from agents.engines.transformers import TransformersEngine
from agents.engines.vllm import VllmEngine
from agents.errors import BudgetExceeded, QueryTooLong
from agents.messages import Message, Piece, Request, ScoreRequest
from mesh.ingress.federation import RemoteMesh
from tests.fake_openai import Fake, chunk, endpoint, scoring, streaming, usage
from tests.serving import pool, served
from tests.tiny import tiny_model

T = TypeVar("T")
QUESTION = "What is two plus two?"
UNBOUNDED = 1_000_000  # tokens: what an engine says whose context nothing overflows


def transformers(folder: Path) -> Engine:
    tiny_model(folder / "tiny", context=512)
    return TransformersEngine(Setup("contract", local_name="tiny", models_dir=folder), dtype="float32", threads=1)


def scripted(folder: Path) -> Engine:
    answer = "It is four, as far as I know, and it has been so for quite a while."
    return ScriptedEngine(Setup("contract"), answer=answer, pieces=10, piece_s=0.01, context=512)


def measured(folder: Path) -> Engine:
    kind = {"right": 0.5, "sure": [0.5, 1.0], "unsure": [0.0, 0.5]}
    kinds = {QUESTION.split()[0]: kind, "word": kind}
    return MeasuredEngine(Setup("contract"), kinds=kinds, pieces=5, piece_s=0.01, context=512)


def replay(folder: Path) -> Engine:
    recorded = {"response": "It is four.", "tokens": 8, "prompt_tokens": 6, "score": 1.0}
    (folder / "rows.jsonl").write_text(json.dumps({"id": "0", "question": QUESTION, "models": {"contract": recorded}}))
    return ReplayEngine(Setup("contract"), file=str(folder / "rows.jsonl"), seconds=0.05)


def openai(folder: Path) -> Engine:
    return Remote(Setup("contract", model="some-model"), api_key_env="", context=512, max_retries=0)


class Remote(OpenAIEngine):
    """Brings an endpoint of its own along, which counts the words that it is asked."""

    async def start(self) -> Capabilities:
        self._stack = AsyncExitStack()
        self.base_url = (await self._stack.enter_async_context(endpoint(self._reply))).url
        return await super().start()

    async def close(self) -> None:
        await super().close()
        await self._stack.aclose()

    @staticmethod
    async def _reply(fake: Fake, asked: web.Request) -> web.StreamResponse:
        body = fake.bodies[-1]
        words = sum(len(message["content"].split()) for message in body["messages"])
        if not body.get("stream"):
            reply = scoring({"True": -0.5, "False": -1.5, "I": -2.5}, words)
        else:
            count = min(body["max_tokens"], 10)
            parts = [chunk(" word", logprobs=[-0.5]) for _ in range(count)]
            reply = streaming(*parts, chunk(None, "stop"), usage(words, count), event_s=0.01)
        response: web.StreamResponse = await reply(fake, asked)
        return response


def vllm(folder: Path) -> Engine:
    pytest.importorskip("vllm", reason="vLLM is not installed")
    return VllmEngine(Setup("contract", local_name=folder.name, models_dir=folder.parent), max_model_len=512)


def mesh(folder: Path) -> Engine:
    return Elsewhere(Setup("contract"), target="")


class Elsewhere(RemoteMesh):
    """Brings a mesh of one agent along."""

    async def start(self) -> Capabilities:
        self._stack = AsyncExitStack()
        engine = {"answer": "It is four, as far as I know.", "pieces": 10, "piece_s": 0.01}
        opened = served(pool({"b": engine}), grpc=True)
        _, door = await asyncio.to_thread(opened.__enter__)
        self._stack.push_async_callback(asyncio.to_thread, opened.__exit__, None, None, None)
        self.target = f"127.0.0.1:{door.grpc_port}"  # type: ignore[attr-defined]
        return await super().start()

    async def close(self) -> None:
        await super().close()
        await self._stack.aclose()


FACTORIES: dict[str, Callable[[Path], Engine]] = {
    "transformers": transformers,
    "scripted": scripted,
    "measured": measured,
    "replay": replay,
    "openai": openai,
    "mesh": mesh,
    "vllm": vllm,
}
REAL = {"vllm": [pytest.mark.models, pytest.mark.slow, pytest.mark.filterwarnings("default")]}  # its imports warn


def test_every_engine_is_held_to_the_contract() -> None:
    assert FACTORIES.keys() == ENGINES.keys()


@pytest.fixture(params=[pytest.param(name, marks=REAL.get(name, ())) for name in FACTORIES])
def with_engine(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Callable[..., Awaitable[T]]], T]:
    """Runs a test's body with a started engine and what it is able to do."""
    name = request.param
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = request.getfixturevalue("smollm2") if name in REAL else tmp_path

    def run(body: Callable[[Engine, Capabilities], Awaitable[T]]) -> T:
        async def main() -> T:
            async with started(FACTORIES[name](folder)) as (engine, able):
                return await body(engine, able)

        return asyncio.run(main())

    return run


@asynccontextmanager
async def started(engine: Engine) -> AsyncIterator[tuple[Engine, Capabilities]]:
    try:
        yield engine, await engine.start()
    finally:
        await engine.close()
        await engine.close()


def request(text: str = QUESTION, max_tokens: int = 12, **more: object) -> Request:
    return Request(("q", 1), 1, (Message("user", text),), max_tokens, **more)  # type: ignore[arg-type]


async def draft(engine: Engine, asked: Request) -> list[Piece]:
    return [piece async for piece in engine.generate(asked)]


async def idle(engine: Engine) -> bool:
    async with asyncio.timeout(2):
        while engine.running():  # noqa: ASYNC110 - engines have no event for it
            await asyncio.sleep(0.01)
    return True


def test_is_an_engine_and_says_what_it_is(with_engine: Callable[..., None]) -> None:
    async def body(engine: Engine, able: Capabilities) -> None:
        assert isinstance(engine, Engine)
        assert able.context > 0
        assert await engine.healthy()
        assert json.loads(json.dumps(engine.describe()))["model"]

    with_engine(body)


def test_a_draft_is_told_whole(with_engine: Callable[..., None]) -> None:
    async def body(engine: Engine, able: Capabilities) -> None:
        pieces = await draft(engine, request())
        assert pieces[0].prompt_tokens > 0
        assert [piece.finish is not None for piece in pieces] == [False] * (len(pieces) - 1) + [True]
        assert "".join(piece.text for piece in pieces)
        assert sum(piece.tokens for piece in pieces) <= 12
        assert [piece.logprob is None for piece in pieces] == [not able.logprobs] * len(pieces)
        assert all((piece.logprob or 0) <= 0 for piece in pieces)
        assert await idle(engine)

    with_engine(body)


def test_the_same_request_gives_the_same_draft(with_engine: Callable[..., None]) -> None:
    async def body(engine: Engine, able: Capabilities) -> None:
        first, second = [
            [(piece.text, piece.tokens, piece.finish) for piece in await draft(engine, request())] for _ in range(2)
        ]
        assert first == second

    with_engine(body)


def test_closing_the_stream_stops_the_work(with_engine: Callable[..., None]) -> None:
    async def body(engine: Engine, able: Capabilities) -> None:
        async with aclosing(engine.generate(request(max_tokens=300))) as pieces:  # type: ignore[type-var]
            piece = await anext(pieces)
            assert engine.running() == (piece.finish is None)  # one that answers in one piece is done
        assert await idle(engine)
        assert await draft(engine, request())

    with_engine(body)


def test_cancelling_the_reader_stops_the_work(with_engine: Callable[..., None]) -> None:
    async def body(engine: Engine, able: Capabilities) -> None:
        task = asyncio.create_task(draft(engine, request(max_tokens=300)))
        await asyncio.sleep(0.02)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await idle(engine)

    with_engine(body)


def test_many_drafts_at_once(with_engine: Callable[..., None]) -> None:
    async def body(engine: Engine, able: Capabilities) -> None:
        drafts = await asyncio.gather(*(draft(engine, replace(request(), key=(f"q{n}", 1))) for n in range(20)))
        assert all(pieces[-1].finish for pieces in drafts)
        assert await idle(engine)

    with_engine(body)


def test_what_does_not_fit_is_refused(with_engine: Callable[..., None]) -> None:
    async def body(engine: Engine, able: Capabilities) -> None:
        if able.context < UNBOUNDED:
            with pytest.raises(QueryTooLong, match=str(able.context)):
                await draft(engine, request("word " * (able.context + 1)))
        with pytest.raises(BudgetExceeded):
            await draft(engine, request(max_work=4))
        assert await draft(engine, request())

    with_engine(body)


def test_scores_are_log_probabilities(with_engine: Callable[..., None]) -> None:
    async def body(engine: Engine, able: Capabilities) -> None:
        if not able.scores:
            pytest.skip("this engine does not score")
        asked = ScoreRequest(("q", 1), 1, (Message("user", QUESTION),), ("True", "False", "I don't know!"))
        scores = await engine.score(asked)
        assert len(scores.logprobs) == 3
        assert all(logprob <= 0 for logprob in scores.logprobs)
        assert scores.prompt_tokens > 0

    with_engine(body)
