"""What may be asked over HTTP: OpenAI's fields and our own, each checked; pure.

A field that would change the answer, and that no agent here can honour, is refused unless it says nothing; those that
only tune a model are taken and ignored, as a model's own settings stand in the pool.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema


def _empty(value: Any) -> Any:
    if value not in (None, "", [], {}):
        raise ValueError("should be null or empty: agents answer in text")
    return value


Real: TypeAlias = Annotated[float, Field(strict=True)]
Whole: TypeAlias = Annotated[int, Field(strict=True)]
Flag: TypeAlias = Annotated[bool, Field(strict=True)]
Text: TypeAlias = Annotated[str, Field(strict=True)]
Nothing: TypeAlias = Annotated[list[Any], Field(max_length=0)] | None
_NONE_OF_IT = [
    {"type": "null"},
    {"const": ""},
    {"type": "array", "maxItems": 0},
    {"type": "object", "maxProperties": 0},
]
Empty: TypeAlias = Annotated[Any, AfterValidator(_empty), WithJsonSchema({"anyOf": _NONE_OF_IT})]
Ignored: TypeAlias = Annotated[Any, Field(description="taken and ignored")]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class TextPart(_Body):
    """One part of a message; only text is understood."""

    type: Literal["text"]
    text: Text


class ChatMessage(_Body):
    """One message, also one of ours as it came. ``developer`` is another word for system."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]
    name: Ignored = None
    refusal: Empty = None
    annotations: Empty = None
    audio: Empty = None
    function_call: Empty = None
    tool_calls: Empty = None

    def plain(self) -> dict[str, str]:
        """As the mesh takes it."""
        parts = self.content if isinstance(self.content, list) else [TextPart(type="text", text=self.content)]
        return {"role": "system" if self.role == "developer" else self.role, "content": "".join(p.text for p in parts)}


class StreamOptions(_Body):
    """``include_usage``: end the stream with a chunk that counts the tokens."""

    include_usage: Flag = False
    include_obfuscation: Ignored = None


class ResponseFormat(_Body):
    """Agents answer in text."""

    type: Literal["text"]


class Asking(_Body):
    """What both endpoints take. ``alpha``, ``max_cost``, ``deadline_s``, ``entry``, ``priority`` are the mesh's own."""

    model: Text
    stream: Flag = False
    stream_options: StreamOptions | None = None
    max_tokens: Whole | None = None
    seed: Whole | None = None
    alpha: Real | None = Field(default=None, description="preference in [0, 1]: 0 the best answer, 1 the cheapest")
    max_cost: Real | None = Field(default=None, description="bounds the full cost of the query")
    deadline_s: Real | None = Field(default=None, description="bounds the wait, in seconds")
    entry: Text | None = Field(default=None, description="the agent to begin with")
    priority: Literal["low", "normal", "high"] | None = Field(default=None, description="the lowest gives way")

    n: Literal[1] | None = None
    stop: Nothing = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None

    temperature: Ignored = None
    top_p: Ignored = None
    frequency_penalty: Ignored = None
    presence_penalty: Ignored = None
    user: Ignored = None

    @property
    def most_tokens(self) -> int | None:
        """What bounds the answer."""
        return self.max_tokens

    @property
    def options(self) -> dict[str, Any]:
        """Options of ``Mesh.ask`` that are given."""
        given: dict[str, Any] = {
            "max_tokens": self.most_tokens,
            "deadline_s": self.deadline_s,
            "max_cost": self.max_cost,
        }
        given |= {"entry": self.entry, "seed": self.seed, "priority": self.priority}
        return {name: value for name, value in given.items() if value is not None}


class ChatRequest(Asking):
    """The body of ``POST /v1/chat/completions``."""

    messages: list[ChatMessage]
    max_completion_tokens: Whole | None = None
    response_format: ResponseFormat | None = None
    modalities: list[Literal["text"]] | None = None
    logprobs: Literal[False] | None = None
    top_logprobs: Literal[0] | None = None
    tools: Nothing = None
    functions: Nothing = None
    tool_choice: Literal["none", "auto"] | None = None
    function_call: Literal["none", "auto"] | None = None

    parallel_tool_calls: Ignored = None
    metadata: Ignored = None
    store: Ignored = None
    service_tier: Ignored = None
    reasoning_effort: Ignored = None
    verbosity: Ignored = None
    safety_identifier: Ignored = None
    prompt_cache_key: Ignored = None

    @property
    def most_tokens(self) -> int | None:
        """What bounds the answer."""
        return self.max_tokens if self.max_completion_tokens is None else self.max_completion_tokens


class CompletionRequest(Asking):
    """The body of ``POST /v1/completions``: the prompt is asked as a user's message."""

    prompt: Text | Annotated[list[Text], Field(min_length=1, max_length=1)]
    best_of: Literal[1] | None = None
    echo: Literal[False] | None = None
    suffix: Literal[""] | None = None
    logprobs: None = None


class Feedback(_Body):
    """The body of ``POST /v1/mesh/feedback``: whether the reply of that id was right."""

    id: Text
    right: Flag
