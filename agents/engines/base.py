"""What every engine does: it streams drafts, scores continuations, and stops when told to."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

from agents.errors import BudgetExceeded, QueryTooLong
from agents.messages import Piece, Request, ScoreRequest, Scores

_INSTALLED = Path(__file__).parents[2]  # where we are installed, and the models that come with us


@dataclass(frozen=True, slots=True)
class Setup:
    """Whose engine it is and which model it serves; every engine's first argument.

    ``model`` is a hub id, an absolute path (or a remote model's name), ``local_name`` a folder to look for in
    ``models_dir`` first, ``adapter`` a folder with a LoRA or with all weights, trained further,
    ``seed`` the seed of everything random, ``mesh`` the name of the mesh that the agent is in.

    Pickled on one machine and read on another, paths of what comes with us become those of that machine's installation.
    """

    agent: str
    model: str = ""
    local_name: str = ""
    models_dir: Path | None = None
    adapter: Path | None = None
    seed: int = 0
    mesh: str = ""

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrived, tuple(_sent(getattr(self, field.name)) for field in fields(self))


class _Ours(NamedTuple):
    """A path within an installation; ``kind`` is what it is a path as."""

    kind: type[str] | type[Path]
    path: str


def _sent(value: Any) -> Any:
    if isinstance(value, str | Path) and value and Path(value).is_relative_to(_INSTALLED):
        return _Ours(str if isinstance(value, str) else Path, Path(value).relative_to(_INSTALLED).as_posix())
    return value


def _arrived(*sent: Any) -> Setup:
    found: list[Any] = [each.kind(_INSTALLED / each.path) if isinstance(each, _Ours) else each for each in sent]
    return Setup(*found)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What an engine can do: tokens of context, whether pieces carry log-probabilities, whether it scores."""

    context: int
    logprobs: bool
    scores: bool


@runtime_checkable
class Engine(Protocol):
    """One model behind one agent.

    ``generate`` and ``score`` are called concurrently from one event loop, the engine batches by itself.
    Closing the generator (or cancelling the task that reads it) stops the generation for real. Both raise
    ``QueryTooLong`` where the prompt does not fit the context and ``BudgetExceeded`` where not one token
    fits into ``max_work``; anything else that they raise counts as the engine's failure. A class attribute ``node``
    names the kind of ``Node`` that decides for its agent, where that is another one.
    """

    async def start(self) -> Capabilities:
        """Load the model. Raises ModelNotFound, AdapterError or ConfigError, each naming the setting."""
        ...

    def generate(self, request: Request) -> AsyncIterator[Piece]:
        """Stream a draft. The last piece, and only it, has ``finish`` set; the first has ``prompt_tokens``."""
        ...

    async def score(self, request: ScoreRequest) -> Scores:
        """Log-probability of every continuation as a whole answer's beginning (natural logarithm)."""
        ...

    async def load_adapter(self, path: Path | None) -> None:
        """Serve the adapter at ``path`` (None: the bare model) from the next request on.

        Raises AdapterError where it does not fit; the old one then stays in place.
        """
        ...

    def running(self) -> int:
        """How many requests the engine works on right now, by its own count."""
        ...

    async def healthy(self) -> bool:
        """Whether the engine can still generate."""
        ...

    def describe(self) -> dict[str, Any]:
        """Facts for ``mesh status``: model, device, process ids. Values must be JSON."""
        ...

    async def close(self) -> None:
        """Free everything; idempotent."""
        ...


def room(request: Request, prompt_tokens: int, context: int) -> int:
    """How many tokens may be generated: the least that ``max_tokens``, the context and ``max_work`` allow.

    Raises:
        QueryTooLong: not one token fits after the prompt.
        BudgetExceeded: the prompt alone uses up ``max_work``.
    """
    if prompt_tokens >= context:
        raise QueryTooLong(f"the query takes {prompt_tokens} tokens, the context holds {context}")
    tokens = min(request.max_tokens, context - prompt_tokens)
    if request.max_work is not None:
        tokens = min(tokens, int((request.max_work - prompt_tokens) // 4))
        if tokens < 1:
            raise BudgetExceeded(
                f"the prompt's {prompt_tokens} tokens leave nothing of a budget of {request.max_work:.0f} token units"
            )
    return tokens
