"""From a reply of the mesh to what OpenAI's clients read; pure.

The wire types are the ``openai`` package's own; each reply carries what the mesh knows of it in a field ``mesh``.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import to_builtins
from openai.types import Completion, CompletionChoice, CompletionUsage, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessage
from openai.types.chat.chat_completion import Choice
from openai.types.chat.chat_completion_chunk import Choice as Piece
from openai.types.chat.chat_completion_chunk import ChoiceDelta
from pydantic import BaseModel

from agents.messages import Reply

Kind = Literal["chat", "text"]
DONE = "data: [DONE]\n\n"


def usage(reply: Reply) -> CompletionUsage:
    """The tokens that the answering agent read and wrote; before it, those written by agents that broke off.

    What agents spent that refused stands in their hops.
    """
    prompt = reply.path[-1].prompt_tokens
    written = [hop.generated_tokens for hop in reply.path[:-1] if hop.verdict == "failed"]
    completion = sum(written) + reply.path[-1].generated_tokens
    return CompletionUsage(prompt_tokens=prompt, completion_tokens=completion, total_tokens=prompt + completion)


def about(reply: Reply) -> dict[str, Any]:
    """What the mesh knows of a reply, without its text."""
    return {
        "id": reply.id,
        "agent": reply.agent,
        "path": [to_builtins(hop) for hop in reply.path],
        "cost": reply.cost,
        "full_cost": reply.full_cost,
        "confidence": reply.confidence,
        "alpha": reply.alpha,
        "alpha_used": reply.alpha_used,
        "seconds": reply.seconds,
        "first_token_s": reply.first_token_s,
        "attempts": reply.attempts,
        "finish": reply.finish,
    }


def headers(reply: Reply, overhead_s: float) -> dict[str, str]:
    """The most useful of it as headers; ``overhead_s``: what the server took beside the mesh."""
    return {
        "X-Mesh-Agent": reply.agent,
        "X-Mesh-Hops": str(len(reply.path)),
        "X-Mesh-Cost": f"{reply.cost:g}",
        "X-Mesh-Full-Cost": f"{reply.full_cost:.6g}",
        "X-Mesh-Overhead-Ms": f"{1000 * overhead_s:.2f}",
    }


def finish_reason(reply: Reply) -> Literal["stop", "length"]:
    """Why the answer ended there; one that was declined ended by itself."""
    return "length" if reply.finish == "length" else "stop"


class Shape:
    """Replies to one request, whole or in chunks.

    Args:
        kind: which endpoint was asked.
        identity: the reply's id. model: the model's name, as asked. created: seconds since the epoch.
        count: whether a stream ends with a chunk that counts tokens.
    """

    def __init__(self, kind: Kind, identity: str, model: str, created: int, count: bool = False) -> None:
        self.kind, self.identity, self.model, self.created, self.count = kind, identity, model, created, count
        self._begun = False

    def whole(self, reply: Reply) -> dict[str, Any]:
        """The body of a reply that is not streamed."""
        common: dict[str, Any] = {"id": self.identity, "model": self.model, "created": self.created}
        common |= {"usage": usage(reply), "mesh": about(reply)}
        body: BaseModel
        if self.kind == "chat":
            message = ChatCompletionMessage(role="assistant", content=reply.text, refusal=None)
            choice = Choice(index=0, message=message, finish_reason=finish_reason(reply), logprobs=None)
            body = ChatCompletion(object="chat.completion", choices=[choice], **common)
        else:
            text = CompletionChoice(index=0, text=reply.text, finish_reason=finish_reason(reply), logprobs=None)
            body = Completion(object="text_completion", choices=[text], **common)
        return body.model_dump(exclude_unset=True)

    def piece(self, text: str) -> dict[str, Any]:
        """A chunk with some more of the text; the first one also says who speaks."""
        role: dict[str, Any] = {} if self._begun else {"role": "assistant"}
        self._begun = True
        return self._chunk(ChoiceDelta(content=text, **role), text, None)

    def last(self, reply: Reply) -> list[dict[str, Any]]:
        """The chunks that end a stream: why it ended, and what the mesh knows; then, where wanted, the tokens."""
        role: dict[str, Any] = {} if self._begun else {"role": "assistant", "content": ""}
        end = self._chunk(ChoiceDelta(**role), "", finish_reason(reply), mesh=about(reply))
        if not self.count:
            return [end]
        counted = self._chunk(None, "", None, usage=usage(reply))
        return [{**end, "usage": None}, counted]

    def _chunk(
        self, delta: ChoiceDelta | None, text: str, finish: Literal["stop", "length"] | None, **fields: Any
    ) -> dict[str, Any]:
        common: dict[str, Any] = {"id": self.identity, "model": self.model, "created": self.created, **fields}
        if self.kind == "chat":
            pieces = [] if delta is None else [Piece(index=0, delta=delta, finish_reason=finish, logprobs=None)]
            chunk = ChatCompletionChunk(object="chat.completion.chunk", choices=pieces, **common)
            return chunk.model_dump(exclude_unset=True)
        reason: Any = finish  # None in a stream's earlier chunks, as OpenAI has it, though not its type
        choice = CompletionChoice.model_construct(index=0, text=text, finish_reason=reason, logprobs=None)
        choices = [] if delta is None else [choice]
        return Completion.model_construct(object="text_completion", choices=choices, **common).model_dump(
            exclude_unset=True, warnings=False
        )


def models(agents: list[str], created: int) -> list[dict[str, Any]]:
    """What ``GET /v1/models`` lists: the mesh at its own alpha and at three others, then every agent alone."""
    names = ["mesh", *(f"mesh-alpha-{alpha}" for alpha in (0.2, 0.5, 0.8)), *agents]
    return [Model(id=name, object="model", created=created, owned_by="mesh").model_dump() for name in names]
