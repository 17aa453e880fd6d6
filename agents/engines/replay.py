"""Recorded outcomes as an engine: what models once answered, and how right that was, without the models."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator
from dataclasses import KW_ONLY, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from agents.engines.base import Capabilities, Setup, room
from agents.errors import AdapterError, ConfigError, QueryError
from agents.messages import Piece, Request, ScoreRequest, Scores, given_id

CONTEXT = 1_000_000  # no question of a recording is too long for it


class Recorded(NamedTuple):
    """What one model did with one question; tokens are 1 where none were recorded."""

    question: str
    score: float
    text: str
    tokens: int
    prompt_tokens: int


class Recording(NamedTuple):
    """One model's column of a file, by question and by row id. A question's first row stands for it."""

    by_question: dict[str, Recorded]
    by_id: dict[str, Recorded]


@dataclass(eq=False)
class ReplayEngine:
    """Answers each question as ``model`` did when it was recorded in ``file``.

    ``file`` holds one JSON object a line, with ``question`` (may be left out where an ``id`` is there) and either
    ``scores``: {model: score} or ``models``: {model: {score, and as far as known response, tokens,
    prompt_tokens}}; a score is in [0, 1]. A relative path that does not exist is looked for in ``MESH_DATA``.
    A query finds its row by its last user message, whitespace aside; its id decides between rows of one
    question, and stands alone where a row has no question. An answer that was not recorded reads
    "[recorded score S]". A call without recorded tokens takes one prompt token and generates one: 5 units of
    work, so a ``mean_work`` of 5 makes an agent's full cost its price per call. An answer longer than allowed is cut.

    Args:
        setup: ``model``, or else ``agent``, is the recorded model's name.
        model: its name, where that is another one.
        seconds: how long an answer takes.
    """

    setup: Setup
    _: KW_ONLY
    file: str
    model: str | None = None
    seconds: float = 0.0
    _running: int = field(default=0, init=False)
    _closed: bool = field(default=False, init=False)

    async def start(self) -> Capabilities:
        """Read the file. Raises ConfigError with file and line for a broken row, or where the model has none."""
        await asyncio.to_thread(lambda: self._recording)
        await self.load_adapter(self.setup.adapter)
        return Capabilities(CONTEXT, logprobs=False, scores=False)

    async def generate(self, request: Request) -> AsyncIterator[Piece]:
        """The recorded answer as one piece. Raises QueryError where the question is not recorded."""
        question = next((m.content for m in reversed(request.messages) if m.role == "user"), "")
        row = self._find(question, given_id(request.key[0]))
        allowed = room(request, row.prompt_tokens, CONTEXT)
        self._running += 1
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self._running -= 1
        cut = row.tokens > allowed
        text = row.text[: len(row.text) * allowed // row.tokens] if cut else row.text
        rest, tokens = text.removeprefix(request.continued), min(row.tokens, allowed)
        yield Piece(rest, tokens, None, row.prompt_tokens, "length" if cut else "stop")

    def outcome(self, question: str, query_id: str = "") -> float:
        """The recorded score of ``question``, in [0, 1]. Raises QueryError where it is not recorded."""
        return self._find(question, query_id).score

    async def score(self, request: ScoreRequest) -> Scores:
        """Raises RuntimeError: no probabilities were recorded."""
        raise RuntimeError(f"{self.file}: a recording has no log-probabilities; take the refusal assessor")

    async def load_adapter(self, path: Path | None) -> None:
        """Raises AdapterError for anything but None."""
        if path is not None:
            raise AdapterError(f"adapter {str(path)!r}: a recording takes none")

    def running(self) -> int:
        return self._running

    async def healthy(self) -> bool:
        return not self._closed

    def describe(self) -> dict[str, Any]:
        return {"model": self._model, "file": self.file}

    async def close(self) -> None:
        self._closed = True

    @property
    def _model(self) -> str:
        return self.model or self.setup.model or self.setup.agent

    @cached_property
    def _recording(self) -> Recording:
        return read(_locate(self.file), self._model)

    def _find(self, question: str, query_id: str) -> Recorded:
        wanted = _normal(question)
        row = self._recording.by_id.get(query_id)
        if row is None or row.question not in ("", wanted):
            row = self._recording.by_question.get(wanted)
        if row is None:
            raise QueryError(
                f"question {wanted[:60]!r} (id {query_id!r}) is not recorded for {self._model!r} in {self.file}"
            )
        return row


def read(path: Path, model: str) -> Recording:
    """The outcomes of ``model`` in ``path``; rows without that model are left out.

    Raises:
        ConfigError: a broken row, named as file:line, or no row of that model at all.
    """
    recording, models = Recording({}, {}), set[str]()
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
                cells = row["models"] if "models" in row else row["scores"]
                models |= cells.keys()
                if model not in cells:
                    continue
                recorded = _recorded(_normal(row.get("question", "")), cells[model])
                if recorded.question:
                    recording.by_question.setdefault(recorded.question, recorded)
                recording.by_id[str(row.get("id", "") if recorded.question else row["id"])] = recorded
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ConfigError(f"{path}:{number}: broken row: {error!r}") from error
    if not recording.by_id:
        raise ConfigError(f"{path}: model {model!r} is not recorded; these are: {', '.join(sorted(models)) or 'none'}")
    return recording


def _recorded(question: str, cell: Any) -> Recorded:
    seen = cell if isinstance(cell, dict) else {"score": cell}
    score, tokens, prompt_tokens = float(seen["score"]), int(seen.get("tokens", 1)), int(seen.get("prompt_tokens", 1))
    if not (0 <= score <= 1 and tokens >= 1 and prompt_tokens >= 1):
        raise ValueError(f"a score must be in [0, 1] and tokens at least 1, not {cell!r}")
    text = seen.get("response")
    return Recorded(
        question, score, f"[recorded score {score:g}]" if text is None else "" + text, tokens, prompt_tokens
    )


def _normal(text: str) -> str:
    return " ".join(text.split())


def _locate(file: str) -> Path:
    for path in (Path(file), Path(os.environ.get("MESH_DATA", "")) / file):
        if path.is_file():
            return path
    raise ConfigError(f"file {file!r} is neither here ({Path.cwd()}) nor in MESH_DATA")
