"""A transformers model inside the agent's process: one thread decodes, any number of requests at a time."""

from __future__ import annotations

import asyncio
import os
import queue
import threading
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from agents.engines.base import Capabilities, Setup, room
from agents.engines.batching import Batch, Row, TextStream, together
from agents.engines.chat import encode_ban, encode_chat, encode_text
from agents.engines.models import check_adapter, find_model, is_whole, load_model, load_tokenizer, model_context
from agents.errors import AdapterError, ConfigError, EngineError, QueryTooLong
from agents.messages import Piece, Request, ScoreRequest, Scores

_LOADING = threading.Lock()  # transformers first makes weights on a device of the whole process: one thread at a time


@dataclass(eq=False)
class _Asked:
    """How likely ``tail`` is after ``prompt``, which somebody waits for."""

    prompt: list[int]
    tail: list[int]
    logprob: Future[float] = field(default_factory=Future)


@dataclass(eq=False)
class TransformersEngine:
    """Serves ``setup.model`` with transformers; the choice for small models and where vLLM does not run.

    Args:
        dtype: "auto" is bfloat16 on a GPU, float32 on a CPU.
        device: "auto" takes a GPU if there is one.
        max_batch: how many requests are decoded together; others wait.
        stream_interval: tokens in a piece of a stream, after the first: with hundreds of requests at a time most of a
            step is otherwise spent on handing tokens on one by one.
        context: tokens; None: what the model was made for.
        threads: CPU threads of this process's torch; None: as many as there are cores. Tiny models, or several
            engines on the same cores, are many times faster with one.
    """

    setup: Setup
    _: KW_ONLY
    dtype: str = "auto"
    device: str = "auto"
    max_batch: int = 16
    stream_interval: int = 1
    context: int | None = None
    threads: int | None = None
    _thread: threading.Thread | None = field(default=None, init=False)
    _inbox: queue.SimpleQueue[Callable[[], None]] = field(default_factory=queue.SimpleQueue, init=False)
    _waiting: deque[Row] = field(default_factory=deque, init=False)
    _asked: deque[_Asked] = field(default_factory=deque, init=False)
    _swaps: deque[Callable[[], None]] = field(default_factory=deque, init=False)
    _closed: bool = field(default=False, init=False)
    _adapter: Path | None = field(default=None, init=False)
    _wrapped: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        for name in ("max_batch", "stream_interval"):
            if not isinstance(value := getattr(self, name), int) or isinstance(value, bool) or value < 1:
                raise ConfigError(
                    f"agent {self.setup.agent!r}: engine: {name}: {value!r}; it must be a whole number >= 1"
                )

    async def start(self) -> Capabilities:
        """Load the model. Raises ModelNotFound or AdapterError."""
        self._name = await asyncio.to_thread(find_model, self.setup)
        if self.setup.adapter:
            await asyncio.to_thread(check_adapter, self.setup.adapter, self._name)
        self._model = await asyncio.to_thread(self._load_alone)
        self._batch = Batch(self._model)
        self._ended, loop = asyncio.Event(), asyncio.get_running_loop()
        name = f"engine of {self.setup.agent}"
        self._thread = threading.Thread(target=self._work, args=(_to(loop, self._ended.set),), name=name, daemon=True)
        self._thread.start()
        try:
            await self.load_adapter(self.setup.adapter)
        except BaseException:
            await self.close()
            raise
        return Capabilities(self._context, logprobs=True, scores=True)

    async def generate(self, request: Request) -> AsyncGenerator[Piece]:
        """Stream a draft."""
        prompt = encode_chat(self._tokenizer, request.messages, request.continued)
        limit = room(request, len(prompt), self._context)
        pieces, loop = asyncio.Queue[Piece | Exception](), asyncio.get_running_loop()
        row = Row(prompt, limit, self._stops, TextStream(self._tokenizer), _to(loop, pieces.put_nowait))
        row.temperature, row.seed, row.interval = request.temperature, request.seed, self.stream_interval
        if request.ban:
            row.banned, first = encode_ban(self._tokenizer, request.ban)
            if not request.continued:
                row.never_first = self._stops | first
        self._put(lambda: self._waiting.append(row))
        try:
            while True:
                piece = await pieces.get()
                if isinstance(piece, Exception):
                    raise EngineError(self.setup.agent, f"{type(piece).__name__}: {piece}") from piece
                yield piece
                if piece.finish:
                    return
        finally:
            row.cancelled = True

    async def score(self, request: ScoreRequest) -> Scores:
        """Each continuation is read after the prompt, together with all others that are waiting."""
        prompt = encode_chat(self._tokenizer, request.messages)
        tails = [encode_text(self._tokenizer, text) for text in request.continuations]
        longest = len(prompt) + max(map(len, tails))
        if longest > self._context:
            raise QueryTooLong(f"prompt and continuation take {longest} tokens, the context holds {self._context}")
        asked = [_Asked(prompt, tail) for tail in tails]
        self._put(lambda: self._asked.extend(asked))
        logprobs = await asyncio.gather(*(asyncio.wrap_future(one.logprob) for one in asked))
        return Scores(tuple(logprobs), sum(len(prompt) + len(tail) for tail in tails))

    async def load_adapter(self, path: Path | None) -> None:
        """Serve the LoRA or the weights in ``path`` (None: the bare model) once the running requests are through."""
        if path is None and self._adapter is None:
            return
        if path is not None:
            await asyncio.to_thread(check_adapter, path, self._name)
        await self._when_idle(partial(self._swap, path))

    def running(self) -> int:
        return len(self._waiting) + len(self._batch.rows) if self._thread else 0

    async def healthy(self) -> bool:
        return self._thread is not None and self._thread.is_alive() and not self._closed

    def describe(self) -> dict[str, Any]:
        """``device``: the GPUs that this process was given, else what the model is on."""
        return {"model": self._name, "adapter": str(self._adapter) if self._adapter else "", **self._facts}

    async def close(self) -> None:
        if self._thread is None or self._closed:
            return
        self._closed = True
        self._inbox.put(lambda: None)
        await self._ended.wait()  # in no other thread: when the process ends, none can be started any more
        self._batch, self._model, self._wrapped = Batch(None), None, None
        self._waiting.clear()

    # ------------------------------------------------------------------------------ the model

    def _load_alone(self) -> Any:
        with _LOADING:
            return self._load()

    def _load(self) -> Any:
        import torch
        from transformers.utils import logging

        logging.disable_progress_bar()
        if self.threads is not None:
            torch.set_num_threads(self.threads)
        self._tokenizer = load_tokenizer(self._name)
        self._context = min(self.context or 1 << 60, model_context(self._name))
        device = self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        dtype = self.dtype if self.dtype != "auto" else "float32" if device == "cpu" else "bfloat16"
        model = load_model(self._name, dtype).to(device).eval()
        ends = model.generation_config.eos_token_id
        ends = ends if isinstance(ends, list) else [ends]
        given = os.environ.get("CUDA_VISIBLE_DEVICES") or str(model.device)
        self._facts = {"device": given, "dtype": str(model.dtype).removeprefix("torch.")}
        self._stops = frozenset(token for token in (*ends, self._tokenizer.eos_token_id) if token is not None)
        return model

    def _swap(self, path: Path | None) -> None:
        """Put the adapter at ``path`` in place, and the old one out of the model's layers."""
        with _LOADING:
            whole = self._weights(path) if path is not None and is_whole(path) else None
            self._swap_lora(path if whole is None else None)
        self._adapter = path
        self._batch = Batch(self._model if whole is None else whole)  # nothing runs in the old one

    def _weights(self, path: Path) -> Any:
        return load_model(path, self._model.dtype).to(self._model.device).eval()

    def _swap_lora(self, path: Path | None) -> None:
        if path is None and self._wrapped is None:
            return
        try:
            from peft import PeftModel
        except ImportError as error:
            raise AdapterError(f"adapter {path}: the engine 'transformers' needs peft: pip install peft") from error
        old = self._adapter if self._wrapped is not None else None
        if self._wrapped is not None:
            self._wrapped.unload()
        self._wrapped = None
        try:
            if path is not None:
                self._wrapped = PeftModel.from_pretrained(self._model, str(path)).eval()
        except Exception as error:
            if old is not None:
                self._wrapped = PeftModel.from_pretrained(self._model, str(old)).eval()
            raise AdapterError(f"adapter {path}: peft refuses it: {error}") from error

    # ------------------------------------------------------------------------------ the thread

    def _put(self, work: Callable[[], None]) -> None:
        if self._thread is None or self._closed:
            raise EngineError(self.setup.agent, "it is not running")
        self._inbox.put(work)

    async def _when_idle(self, work: Callable[[], None]) -> None:
        """Do ``work`` in the thread once nothing runs there."""
        done: Future[None] = Future()

        def perform() -> None:
            if done.set_running_or_notify_cancel():
                try:
                    work()
                    done.set_result(None)
                except Exception as error:
                    done.set_exception(error)

        self._put(lambda: self._swaps.append(perform))
        await asyncio.wrap_future(done)

    def _work(self, ended: Callable[[], None]) -> None:
        try:
            while not self._closed:
                self._read(wait=not (self._waiting or self._batch.rows or self._swaps))
                try:
                    self._turn()
                except Exception as error:  # the cache of all rows is in doubt
                    self._fail(error)
            self._read()
            self._score()
            while self._swaps:
                self._swaps.popleft()()
            self._batch.rows += self._waiting
            self._fail(RuntimeError("the engine was closed"))
        finally:
            ended()

    def _read(self, wait: bool = False) -> None:
        """Perform what came in, having waited for it or not."""
        try:
            self._inbox.get(block=wait)()
            while True:
                self._inbox.get_nowait()()
        except queue.Empty:
            return

    def _turn(self) -> None:
        """One step for everybody. Who waits joins first, unless the model is about to change."""
        self._score()
        while self._swaps and not self._batch.rows:
            self._swaps.popleft()()
        self._waiting = deque(row for row in self._waiting if not row.cancelled)
        while self._waiting and (places := self.max_batch - len(self._batch.rows)) > 0 and not self._swaps:
            joining = next(together(islice(self._waiting, places), lambda row: len(row.prompt)))
            for _ in joining:
                self._waiting.popleft()
            try:
                self._batch.join(joining)
            except Exception as error:
                for row in joining:
                    row.emit(error)
                raise
        self._batch.step()

    def _score(self) -> None:
        """Answer all that wait for scores; what fails fails only those that were read with it."""
        asked = [one for one in self._asked if one.logprob.set_running_or_notify_cancel()]
        self._asked.clear()
        for group in together(asked, lambda one: len(one.prompt) + len(one.tail)):
            try:
                logprobs = self._batch.logprobs([(one.prompt, one.tail) for one in group])
            except Exception as error:
                for one in group:
                    one.logprob.set_exception(error)
            else:
                for one, logprob in zip(group, logprobs, strict=True):
                    one.logprob.set_result(logprob)

    def _fail(self, error: Exception) -> None:
        for row in self._batch.rows:
            row.emit(error)
        self._batch.clear()


def _to(loop: asyncio.AbstractEventLoop, do: Callable[..., Any]) -> Callable[..., None]:
    """``do``, called from another thread; nothing where the loop, and so whoever waits in it, is gone."""

    def call(*arguments: Any) -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(do, *arguments)

    return call
