"""Any OpenAI-compatible chat endpoint as an engine. ``ban`` is ignored: the node's prompt just offers no refusal."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any

from agents.engines.base import Capabilities, Setup, room
from agents.errors import AdapterError, ConfigError, QueryTooLong
from agents.messages import Message, Piece, Request, ScoreRequest, Scores

CONTINUE = "Continue your last message exactly where it stops. Repeat nothing and add no introduction."
TOO_LONG = ("context_length_exceeded", "maximum context length", "maximum model length", "context size")
MALFORMED = (ValueError, TypeError, AttributeError, LookupError)  # what reading a malformed chunk raises


@dataclass(eq=False)
class OpenAIEngine:
    """Streams chat completions of the remote model ``setup.model`` at ``base_url`` (None: OpenAI's own).

    The key stands in the environment variable ``api_key_env`` ("": the server wants none). ``context`` is what
    the model holds; ``timeout_s`` the longest wait for a connection or a chunk. Without ``logprobs`` there is no
    ``score``. A server that ``continues`` goes on with an assistant message by itself (vLLM), others are told to.
    ``extra`` goes into every request's body.

    Counting: a chunk takes one token per log-probability in it, or one where it has none; the first piece
    estimates the prompt (4 characters a token). The server's own count comes last: the closing, textless
    piece adds what was missed of either, its generated tokens at the mean log-probability of the others.
    A draft that is cut off keeps its estimates.
    """

    setup: Setup
    _: KW_ONLY
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    context: int = 8192
    timeout_s: float = 60.0
    max_retries: int = 2
    logprobs: bool = True
    continues: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)
    _client: Any = field(default=None, init=False, repr=False)
    _open: int = field(default=0, init=False)
    _who: str = field(default="", init=False)

    async def start(self) -> Capabilities:
        """Make the client. Nothing is sent: a key or model that the server refuses shows with the first request."""
        if not self.setup.model:
            raise ConfigError(f"agent {self.setup.agent!r}: model is empty; it must be the remote model's name")
        if self.base_url and (not self.base_url.startswith(("http://", "https://")) or "@" in self.base_url):
            raise ConfigError("base_url must begin with http:// or https:// and hold no credentials (see api_key_env)")
        key = os.environ.get(self.api_key_env) if self.api_key_env else "none"
        if not key:
            raise ConfigError(f"api_key_env: the environment variable {self.api_key_env} is unset; put the key there")
        await self.load_adapter(self.setup.adapter)
        try:
            import openai
        except ImportError as error:
            raise ConfigError("the engine 'openai' needs a package: pip install openai") from error
        limits: dict[str, Any] = {"timeout": self.timeout_s, "max_retries": self.max_retries}
        self._client = openai.AsyncOpenAI(api_key=key, base_url=self.base_url, **limits)
        self.base_url = str(self._client.base_url)
        self._who = f"model {self.setup.model!r} at {self.base_url}"
        return Capabilities(self.context, logprobs=self.logprobs, scores=self.logprobs)

    async def generate(self, request: Request) -> AsyncIterator[Piece]:
        """Stream a draft; closing the generator drops the connection. RuntimeError where the server fails."""
        prompt = _estimate(request.messages, request.continued)
        options: dict[str, Any] = {"max_tokens": room(request, prompt, self.context), "seed": request.seed}
        options |= {"stream": True, "temperature": request.temperature, "stream_options": {"include_usage": True}}
        tokens, logprob, usage, finish = 0, None, None, None
        with self._request():
            stream = await self._create(request, request.continued, **options)
            async with stream:
                async for chunk in stream:
                    usage = chunk.usage or usage
                    for choice in chunk.choices:
                        finish = choice.finish_reason or finish
                        piece = _piece(choice, 0 if tokens else prompt)
                        if piece.tokens:
                            tokens += piece.tokens
                            logprob = piece.logprob if logprob is None else logprob + (piece.logprob or 0.0)
                            yield piece
        if finish not in ("stop", "length"):
            raise RuntimeError(f"{self._who}: the answer broke off, finish_reason {finish!r} (stop or length is right)")
        missed = max(0, usage.completion_tokens - tokens) if usage else 0
        rest = max(0, (usage.prompt_tokens if usage else prompt) - (prompt if tokens else 0))
        yield Piece("", missed, None if logprob is None else missed * logprob / tokens, rest, finish)

    async def score(self, request: ScoreRequest) -> Scores:
        """First-token approximation, from the 20 likeliest first tokens of an answer.

        A continuation gets the log-probability of the likeliest listed token that it begins with, or that begins
        with it, leading spaces aside; else the smallest listed one, an upper bound. So continuations should differ
        in their first token. RuntimeError where the server fails or gives no log-probabilities.
        """
        prompt = _estimate(request.messages)
        room(Request(request.key, request.generation, request.messages, 1), prompt, self.context)
        with self._request():
            # Temperature 1 leaves the distribution as it is where a server applies it before the logarithm.
            answer = await self._create(request, max_tokens=1, temperature=1.0, logprobs=True, top_logprobs=20)
            tops = [top for entry in _entries(answer.choices[0])[:1] for top in entry.top_logprobs]
            listed = [(str(top.token).lstrip(), float(top.logprob)) for top in tops]
        if not listed:
            raise RuntimeError(f"{self._who} gives no log-probabilities: set logprobs to false")
        found = tuple(_likeliest(continuation.lstrip(), listed) for continuation in request.continuations)
        return Scores(found, answer.usage.prompt_tokens if answer.usage else prompt)

    async def load_adapter(self, path: Path | None) -> None:
        """Raises AdapterError for anything but None: the model is not ours to change."""
        if path is not None:
            raise AdapterError(f"adapter {str(path)!r}: a remote model takes none; serve it there under its own name")

    def running(self) -> int:
        return self._open

    async def healthy(self) -> bool:
        """True until ``close``: a server that is gone shows in the requests."""
        return self._client is None or not self._client.is_closed()

    def describe(self) -> dict[str, Any]:
        """Model, address and the name of the key's variable; never the key."""
        return {"model": self.setup.model, "base_url": self.base_url, "api_key_env": self.api_key_env}

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()

    async def _create(self, request: Request | ScoreRequest, continued: str = "", **options: Any) -> Any:
        chat = [{"role": message.role, "content": message.content} for message in request.messages]
        extra = dict(self.extra)
        if continued:
            chat.append({"role": "assistant", "content": continued})
        if continued and self.continues:
            extra |= {"continue_final_message": True, "add_generation_prompt": False}
        elif continued:
            chat.append({"role": "user", "content": CONTINUE})
        options |= {"model": self.setup.model, "messages": chat} | ({"logprobs": True} if self.logprobs else {})
        return await self._client.chat.completions.create(extra_body=extra, **options)

    @contextmanager
    def _request(self) -> Iterator[None]:
        """Count an open request, and say in words how it failed."""
        import openai

        self._open += 1
        try:
            yield
        except (openai.OpenAIError, *MALFORMED) as error:
            raise self._explain(error) from None  # a server may echo the key: only the scrubbed text goes on
        finally:
            self._open -= 1

    def _explain(self, error: Exception) -> Exception:
        said = f"{type(error).__name__}: {error}" + (f" ({error.__cause__!r})" if error.__cause__ else "")
        said = said.replace(self._client.api_key, "***")
        if any(sign in f"{getattr(error, 'code', '')} {said}".lower() for sign in TOO_LONG):
            return QueryTooLong(f"{self._who}: {said}")
        key, model = f"refused the key in {self.api_key_env!r}. ", "knows no such model or address. "
        hint = {401: key, 403: key, 404: model}.get(getattr(error, "status_code", 0), "")
        return RuntimeError(f"{self._who}: {hint}{said}")


def _estimate(messages: Sequence[Message], continued: str = "") -> int:
    return max(1, -(-(sum(len(message.content) for message in messages) + len(continued)) // 4))


def _entries(choice: Any) -> list[Any]:
    return (choice.logprobs.content if choice.logprobs else None) or []


def _piece(choice: Any, prompt_tokens: int) -> Piece:
    """What one chunk brings; its ``tokens`` are 0 where that is nothing. TypeError where its content is no text."""
    text = "" + ((choice.delta and choice.delta.content) or "")
    logprobs = [float(entry.logprob) for entry in _entries(choice)]
    return Piece(text, len(logprobs) or int(text != ""), sum(logprobs) if logprobs else None, prompt_tokens)


def _likeliest(continuation: str, listed: Sequence[tuple[str, float]]) -> float:
    fits = [p for token, p in listed if token and (continuation.startswith(token) or token.startswith(continuation))]
    return max(fits, default=min(p for _, p in listed))
