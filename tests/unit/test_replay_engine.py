"""The replay engine against recordings of each shape."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from agents.engines.base import Engine, Setup
from agents.engines.replay import ReplayEngine
from agents.errors import AdapterError, BudgetExceeded, ConfigError, QueryError
from agents.messages import Message, Piece, Request, ScoreRequest

SCORES = [
    {"id": "q-0", "task": "t", "question": "What is\n 2 + 2?", "scores": {"big": 1.0, "small": 0.25}},
    {"id": "q-1", "task": "t", "question": "Same?", "scores": {"big": 1.0, "small": 0.0}},
    {"id": "q-2", "task": "t", "question": "Same?", "scores": {"big": 0.0, "small": 1.0}},
    {"id": "q-3", "task": "t", "question": "Only big?", "scores": {"big": 0.5}},
]
MODELS = [
    {"id": "m-0", "question": "Who?", "models": {"big": {"response": "It was Ada.", "cost": 3.0, "score": 1.0}}},
    {
        "id": "m-1",
        "question": "Long?",
        "models": {"big": {"response": "abcdefgh", "tokens": 4, "prompt_tokens": 7, "score": 0.0}},
    },
]


def recording(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> str:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n", encoding="utf-8")
    return str(path)


def request(question: str, query_id: str = "x", **options: Any) -> Request:
    messages = (Message("system", "Be brief."), Message("user", question))
    return Request((query_id, 1), 0, messages, **{"max_tokens": 64} | options)


def drafted(engine: ReplayEngine, asked: Request) -> list[Piece]:
    async def main() -> list[Piece]:
        await engine.start()
        return [piece async for piece in engine.generate(asked)]

    return asyncio.run(main())


def engine(file: str, model: str = "big", **options: Any) -> ReplayEngine:
    return ReplayEngine(Setup("agent", model=model), file=file, **options)


def test_it_is_an_engine_without_probabilities(tmp_path: Path) -> None:
    replay = engine(recording(tmp_path, SCORES))
    assert isinstance(replay, Engine)
    able = asyncio.run(replay.start())
    assert (able.logprobs, able.scores) == (False, False)
    assert replay.describe() == {"model": "big", "file": str(tmp_path / "rows.jsonl")}
    with pytest.raises(RuntimeError, match="no log-probabilities"):
        asyncio.run(replay.score(ScoreRequest(("x", 1), 0, (), ("A",))))


def test_a_question_is_found_whatever_its_whitespace(tmp_path: Path) -> None:
    small = engine(recording(tmp_path, SCORES), "small")
    assert drafted(small, request(" What is 2  +\t2? ")) == [Piece("[recorded score 0.25]", 1, None, 1, "stop")]
    assert small.outcome("What is 2 + 2?") == 0.25


def test_the_id_decides_between_rows_of_one_question_and_never_alone(tmp_path: Path) -> None:
    big = engine(recording(tmp_path, SCORES))
    assert [big.outcome("Same?", query_id) for query_id in ("q-1", "q-2", "unknown")] == [1.0, 0.0, 1.0]
    assert big.outcome("Same?", "q-3") == 1.0
    assert drafted(big, request("Same?", "q-2"))[0].text == "[recorded score 0]"


def test_rows_without_a_question_are_found_by_id(tmp_path: Path) -> None:
    big = engine(recording(tmp_path, [{"id": 7, "scores": {"big": 0.75}}]))
    assert big.outcome("anything", "7") == 0.75
    with pytest.raises(QueryError, match="'anything'"):
        big.outcome("anything", "8")


def test_recorded_response_and_tokens(tmp_path: Path) -> None:
    big = engine(recording(tmp_path, MODELS))
    assert drafted(big, request("Who?")) == [Piece("It was Ada.", 1, None, 1, "stop")]
    assert drafted(big, request("Long?")) == [Piece("abcdefgh", 4, None, 7, "stop")]


def test_what_is_allowed_cuts_the_answer(tmp_path: Path) -> None:
    big = engine(recording(tmp_path, MODELS))
    assert drafted(big, request("Long?", max_tokens=3)) == [Piece("abcdef", 3, None, 7, "length")]
    assert drafted(big, request("Long?", max_work=7 + 4 * 2)) == [Piece("abcd", 2, None, 7, "length")]
    with pytest.raises(BudgetExceeded):
        drafted(big, request("Long?", max_work=10))


def test_an_emitted_beginning_is_not_repeated(tmp_path: Path) -> None:
    big = engine(recording(tmp_path, MODELS))
    assert drafted(big, request("Who?", continued="It was"))[0].text == " Ada."


@pytest.mark.parametrize(
    ("setup", "model"),
    [(Setup("big"), None), (Setup("agent", model="big"), None), (Setup("agent", model="hub/big"), "big")],
)
def test_the_column_is_model_or_setup_model_or_agent(tmp_path: Path, setup: Setup, model: str | None) -> None:
    assert ReplayEngine(setup, file=recording(tmp_path, SCORES), model=model).outcome("Only big?") == 0.5


def test_an_unrecorded_question_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    file = recording(tmp_path, SCORES)
    with pytest.raises(QueryError, match=r"'Never asked\?' .*rows\.jsonl"):
        drafted(engine(file), request("Never asked?"))
    with pytest.raises(QueryError, match="'small'"):
        engine(file, "small").outcome("Only big?")


def test_an_unrecorded_model_is_an_error_that_lists_the_models(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="'huge' is not recorded; these are: big, small"):
        asyncio.run(engine(recording(tmp_path, SCORES), "huge").start())


@pytest.mark.parametrize(
    "line",
    [
        '{"question": "a"',
        "[]",
        "5",
        '{"question": "a"}',
        '{"question": "a", "scores": 3}',
        '{"question": "a", "scores": {"big": 1.5}}',
        '{"question": "a", "scores": {"big": NaN}}',
        '{"question": "a", "scores": {"big": null}}',
        '{"question": 5, "scores": {"big": 1}}',
        '{"scores": {"big": 1}}',
        '{"question": "a", "models": {"big": {"response": "b"}}}',
        '{"question": "a", "models": {"big": {"response": 5, "score": 1}}}',
        '{"question": "a", "models": {"big": {"score": 1, "tokens": 0}}}',
        '{"question": "\udcff", "scores": {"big": 1}}',
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "rows.jsonl"
    good = json.dumps(SCORES[0])
    path.write_bytes(f"{good}\n\n{line}\n{good}\n".encode(errors="surrogateescape"))
    with pytest.raises(ConfigError, match=r"rows\.jsonl:3: broken row"):
        asyncio.run(engine(str(path)).start())


def test_a_missing_file_and_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MESH_DATA", raising=False)
    with pytest.raises(ConfigError, match=r"'replay/rows\.jsonl'.*MESH_DATA"):
        asyncio.run(engine("replay/rows.jsonl").start())
    (tmp_path / "replay").mkdir()
    recording(tmp_path / "replay", SCORES)
    monkeypatch.setenv("MESH_DATA", str(tmp_path))
    assert engine("replay/rows.jsonl").outcome("Only big?") == 0.5


def test_an_adapter_is_refused(tmp_path: Path) -> None:
    replay = engine(recording(tmp_path, SCORES))
    asyncio.run(replay.load_adapter(None))
    with pytest.raises(AdapterError, match="lora"):
        asyncio.run(replay.load_adapter(tmp_path / "lora"))


def test_it_takes_its_seconds_and_stops_when_cancelled(tmp_path: Path) -> None:
    async def main() -> None:
        slow = engine(recording(tmp_path, SCORES), seconds=30.0)
        await slow.start()
        task = asyncio.ensure_future(anext(slow.generate(request("Same?"))))
        await asyncio.sleep(0.01)
        assert slow.running() == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert slow.running() == 0
        assert await slow.healthy()
        await slow.close()
        await slow.close()
        assert not await slow.healthy()

    asyncio.run(main())
