"""The public fake: fixed or random answers, delays and failures, all from a seed.

``plan`` is pure and is what the simulation plays in virtual time; ``generate`` plays the same plan for real,
so that one seed gives the same path on every runtime.
"""

from __future__ import annotations

import asyncio
import math
import os
import random
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agents.engines.base import Capabilities, Setup, room
from agents.errors import ConfigError
from agents.messages import Piece, Request, ScoreRequest, Scores
from agents.prompts import REFUSAL


@dataclass(frozen=True, slots=True)
class Step:
    """After ``delay_s``: a piece, or, where it is None, a failure (``stall``: nothing, ever)."""

    delay_s: float
    piece: Piece | None = None
    stall: bool = False


class ScriptedEngine:
    """An engine that needs no model.

    Args:
        answer: the text; ``{agent}`` and ``{query}`` are filled in.
        refuse: share of the queries that it refuses, unless it must answer.
        confidence: what its likelihood says, a number or "random"; None: certain.
        pieces: into how many pieces the answer is cut.
        delay_s, piece_s, score_s: seconds before the first piece, between two, and that scores take.
        fail, stall: share of drafts that break off, or stop moving, halfway.
        context: tokens (here: words) that it holds.
    """

    def __init__(
        self,
        setup: Setup,
        *,
        answer: str = "{agent} answers: {query}",
        refuse: float = 0.0,
        confidence: float | str | None = None,
        pieces: int = 1,
        delay_s: float = 0.0,
        piece_s: float = 0.0,
        score_s: float = 0.0,
        fail: float = 0.0,
        stall: float = 0.0,
        context: int = 1_000_000,
    ) -> None:
        for name, share in (("refuse", refuse), ("fail", fail), ("stall", stall)):
            if not isinstance(share, int | float) or not 0 <= share <= 1:
                raise ConfigError(f"scripted engine of {setup.agent!r}: {name} is {share!r}, it must be in [0, 1]")
        if not isinstance(confidence, int | float | None) and confidence != "random":
            raise ConfigError(f"scripted engine of {setup.agent!r}: confidence is {confidence!r}, a number or 'random'")
        if not isinstance(pieces, int) or pieces < 1:
            raise ConfigError(f"scripted engine of {setup.agent!r}: pieces is {pieces!r}, it must be at least 1")
        self.setup, self.answer, self.refuse, self.certainty = setup, answer, refuse, confidence
        self.pieces, self.delay_s, self.piece_s, self.score_s = pieces, delay_s, piece_s, score_s
        self.fail, self.stall, self.context = fail, stall, context
        self.troubled = bool(refuse or fail or stall)
        self._running = 0
        self._adapter: Path | None = setup.adapter

    async def start(self) -> Capabilities:
        return Capabilities(context=self.context, logprobs=True, scores=True)

    def plan(self, request: Request) -> list[Step]:
        """What this engine does for a request, step by step; the same request gives the same plan.

        Raises QueryTooLong and BudgetExceeded as every engine does.
        """
        prompt_tokens = sum(len(message.content.split()) for message in request.messages)
        tokens = room(request, prompt_tokens, self.context)
        refused = broken = stalled = False
        if self.troubled:
            rng = self._rng(request, "plan")
            refused, broken, stalled = (rng.random() < share for share in (self.refuse, self.fail, self.stall))
        logprob = self._log_confidence(request)
        text = REFUSAL if refused and not request.ban else self._answer(request)
        text = text.removeprefix(request.continued)
        size = -(-len(text) // min(self.pieces, tokens)) or 1
        parts = [text[at : at + size] for at in range(0, len(text), size)] or [""]
        steps = []
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            piece = Piece(part, 1, logprob, 0 if number else prompt_tokens, "stop" if last else None)
            steps.append(Step(self.piece_s if number else self.delay_s, piece))
        if broken or stalled:
            steps[len(steps) // 2 :] = [Step(self.piece_s, None, stall=stalled)]
        return steps

    async def generate(self, request: Request) -> AsyncIterator[Piece]:
        self._running += 1
        try:
            for step in self.plan(request):
                if step.delay_s:
                    await asyncio.sleep(step.delay_s)
                if step.piece is not None:
                    yield step.piece
                elif step.stall:
                    await asyncio.Event().wait()
                else:
                    raise RuntimeError("scripted failure")
        finally:
            self._running -= 1

    async def score(self, request: ScoreRequest) -> Scores:
        if self.score_s:
            await asyncio.sleep(self.score_s)
        return self.scores(request)

    def scores(self, request: ScoreRequest) -> Scores:
        """The pure part of ``score``: the refusal gets log(1 - confidence), True and False their share of it."""
        p = math.exp(self._log_confidence(request))
        log = {REFUSAL: 1 - p, "True": p, "False": 1 - p}
        words = sum(len(message.content.split()) for message in request.messages)
        return Scores(tuple(math.log(max(log.get(text, 0.5), 1e-9)) for text in request.continuations), words)

    async def load_adapter(self, path: Path | None) -> None:
        self._adapter = path

    def running(self) -> int:
        return self._running

    async def healthy(self) -> bool:
        return True

    def describe(self) -> dict[str, Any]:
        devices = os.environ.get("CUDA_VISIBLE_DEVICES", "")
        return {"model": "scripted", "adapter": str(self._adapter or ""), "device": devices or "cpu"}

    async def close(self) -> None:
        """Nothing to free."""

    def _rng(self, request: Request | ScoreRequest, what: str) -> random.Random:
        return random.Random(zlib.crc32(f"{what}:{self.setup.seed}:{self.setup.agent}:{request.seed}".encode()))

    def _answer(self, request: Request) -> str:
        return self.answer.format(agent=self.setup.agent, query=request.messages[-1].content)

    def _log_confidence(self, request: Request | ScoreRequest) -> float:
        if self.certainty is None:
            return 0.0
        p = self._rng(request, "confidence").random() if self.certainty == "random" else float(self.certainty)
        return math.log(max(p, 1e-9))
