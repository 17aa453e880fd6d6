"""The HTTP API: OpenAI's endpoints, and the mesh's own beside them."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Annotated, Any, TypeAlias

from fastapi import APIRouter, Depends, FastAPI, Request, Response, Security
from fastapi.exceptions import RequestValidationError
from fastapi.security import HTTPBearer
from starlette.exceptions import HTTPException
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from agents.errors import MeshError
from agents.messages import Reply
from mesh.ingress import curves, wire
from mesh.ingress.described import (
    CHANGED,
    CURVES,
    HEALTH,
    JUDGED,
    MODEL,
    MODELS,
    OVERVIEW,
    TRACE,
    answers,
    open_to_all,
    replies,
)
from mesh.ingress.door import Door, Question, log_fault
from mesh.ingress.errors import Refused, refusal
from mesh.ingress.guard import JSON, Guard, refused
from mesh.ingress.keys import ANYBODY, Key
from mesh.ingress.names import read_alpha, read_priority
from mesh.ingress.page import page
from mesh.ingress.requests import Asking, ChatRequest, CompletionRequest, Feedback


async def _door(request: Request) -> Door:
    door: Door = request.app.state.door
    return door


async def _who(request: Request) -> Key:
    key: Key = getattr(request.state, "key", ANYBODY)
    return key


async def _admin(request: Request) -> None:
    (await _door(request)).admin(await _who(request))


AtDoor: TypeAlias = Annotated[Door, Depends(_door)]
Who: TypeAlias = Annotated[Key, Depends(_who)]
_KEY = HTTPBearer(auto_error=False, description="an API key, where the server has any")
public = APIRouter()
api = APIRouter(dependencies=[Security(_KEY)])


# ---------------------------------------------------------------------------------- OpenAI's


@api.post("/v1/chat/completions", responses=replies(400, 404, 408, 413, 415, 502, 504), response_class=JSON)
async def chat(request: Request, body: ChatRequest, door: AtDoor, who: Who) -> Response:
    """Ask the mesh, or one agent of it; with `stream` the answer comes as server-sent events."""
    return await _answer(request, "chat", body, [message.plain() for message in body.messages], door, who)


@api.post("/v1/completions", responses=replies(400, 404, 408, 413, 415, 502, 504), response_class=JSON)
async def completions(request: Request, body: CompletionRequest, door: AtDoor, who: Who) -> Response:
    """The same for a prompt, which is asked as a user's message."""
    prompt = body.prompt if isinstance(body.prompt, str) else body.prompt[0]
    return await _answer(request, "text", body, [{"role": "user", "content": prompt}], door, who)


@api.get("/v1/models", responses=answers(MODELS), response_class=JSON)
async def models(door: AtDoor) -> Response:
    """Names that may stand in `model`. Any alpha may stand in `mesh-alpha-…`."""
    return JSON({"object": "list", "data": wire.models(await door.agents(), _STARTED)})


@api.get("/v1/models/{name}", responses=answers(MODEL, 400, 404), response_class=JSON)
async def model(name: str, door: AtDoor) -> Response:
    """One of them."""
    await door.model(name)
    return JSON({"id": name, "object": "model", "created": _STARTED, "owned_by": "mesh"})


async def _answer(
    request: Request, kind: wire.Kind, body: Asking, messages: list[dict[str, str]], door: Door, who: Key
) -> Response:
    asked = "messages" if kind == "chat" else "prompt"
    try:
        model = await door.model(body.model)
        alpha = read_alpha(body.alpha, request.headers.get("x-mesh-alpha"), model)
        options = body.options | read_priority(body.priority, request.headers.get("x-mesh-priority"))
        question = Question(who, messages, alpha, model.only(options), request.state.arrived)
        count = body.stream_options is not None and body.stream_options.include_usage
        shape = wire.Shape(kind, question.id, body.model, int(time.time()), count)
        if body.stream:
            return await _streamed(request, door, question, shape, asked)
        reply = await door.ask(question)
        overhead_s = time.monotonic() - question.arrived - reply.seconds
        return JSON(shape.whole(reply), headers=wire.headers(reply, overhead_s))
    except MeshError as error:
        return refused(error, asked)


async def _streamed(request: Request, door: Door, question: Question, shape: wire.Shape, asked: str) -> Response:
    """Begins once there is something to tell, so that what goes wrong before has a status of its own."""
    pieces = door.stream(question)
    try:
        first = await anext(pieces)
    except BaseException:
        await pieces.aclose()
        raise
    events = _events(first, pieces, shape, asked, request.state.request_id)
    told = {"X-Mesh-Id": question.id, "X-Accel-Buffering": "no"}
    return _Stream(events, pieces, told)


class _Stream(StreamingResponse):
    """Server-sent events; ``pieces`` end with it, also where its client has gone before the first event."""

    def __init__(self, events: AsyncIterator[str], pieces: AsyncGenerator[Any], headers: dict[str, str]) -> None:
        super().__init__(events, media_type="text/event-stream", headers=headers)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        async with contextlib.aclosing(self._pieces):
            await super().__call__(scope, receive, send)


async def _events(
    first: str | Reply, pieces: AsyncGenerator[str | Reply], shape: wire.Shape, asked: str, request_id: str
) -> AsyncIterator[str]:
    try:
        for chunk in _chunks(first, shape):
            yield chunk
        async for piece in pieces:
            for chunk in _chunks(piece, shape):
                yield chunk
    except Exception as error:  # the status is gone: what is left is an event
        if not isinstance(error, MeshError):
            log_fault(request_id, error)
        yield _event(refusal(error, asked).body)
    yield wire.DONE


def _chunks(piece: str | Reply, shape: wire.Shape) -> list[str]:
    return [_event(chunk) for chunk in (shape.last(piece) if isinstance(piece, Reply) else [shape.piece(piece)])]


def _event(body: dict[str, Any]) -> str:
    return f"data: {json.dumps(body, separators=(',', ':'))}\n\n"


# ---------------------------------------------------------------------------------- the mesh's own


@api.get("/v1/mesh", responses=answers(OVERVIEW), response_class=JSON)
async def overview(door: AtDoor, who: Who) -> Response:
    """Agents with their health and load, who may forward to whom, and the last queries."""
    return JSON(await door.overview(who))


@api.get("/v1/mesh/curves", responses=answers(CURVES), response_class=JSON)
async def utility_over_alpha(door: AtDoor) -> Response:
    """What ways to route are worth at each alpha, as measured by `mesh bench routing`; empty without results."""
    return JSON(curves.told(door.curves))


@api.get("/v1/mesh/trace/{identity}", responses=answers(TRACE, 404), response_class=JSON)
async def trace(identity: str, door: AtDoor, who: Who) -> Response:
    """What became of a query, by its reply's id: the path, hop by hop. Neither its text nor the answer's."""
    return JSON(await door.trace(identity, who))


@api.post("/v1/mesh/feedback", responses=answers(JUDGED, 400, 404, 408, 409, 413, 415), response_class=JSON)
async def feedback(body: Feedback, door: AtDoor, who: Who) -> Response:
    """Say whether a reply was right: agents on its path that learn hear of it, once."""
    await door.feedback(body.id, body.right, who)
    return JSON({"id": body.id, "right": body.right})


@api.post(
    "/v1/mesh/agents",
    responses=answers(CHANGED, 400, 408, 409, 413, 415),
    response_class=JSON,
    dependencies=[Depends(_admin)],
)
async def add_agent(settings: dict[str, Any], door: AtDoor) -> Response:
    """Start one more agent; its settings are those of an agent in a pool file. For admins."""
    await door.add_agent(settings)
    return JSON({"agent": settings["name"], "state": "up"})


@api.delete(
    "/v1/mesh/agents/{name}", responses=answers(CHANGED, 400, 404), response_class=JSON, dependencies=[Depends(_admin)]
)
async def remove_agent(name: str, door: AtDoor) -> Response:
    """End an agent. For admins."""
    await door.remove_agent(name)
    return JSON({"agent": name, "state": "removed"})


@public.get("/healthz", responses=open_to_all(HEALTH), response_class=JSON)
async def healthy() -> Response:
    """Whether this server answers."""
    return JSON({"status": "ok"})


@public.get("/readyz", responses=open_to_all(HEALTH, 503), response_class=JSON)
async def ready(door: AtDoor) -> Response:
    """Whether any agent is there to answer."""
    if await door.ready():
        return JSON({"status": "ready"})
    raise Refused(503, "mesh_down", "no agent is up", retry_after_s=1.0)


@public.get("/", include_in_schema=False)
async def web_page(door: AtDoor) -> Response:
    """The web page."""
    return page(needs_key=bool(door.keys))


# ---------------------------------------------------------------------------------- the application

_STARTED = int(time.time())


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """Without the status with which FastAPI refuses by itself: ours is 400."""
        told = super().openapi()
        for path in told["paths"].values():
            for route in path.values():
                route["responses"].pop("422", None)
        return told


OpenDoor: TypeAlias = Callable[[], contextlib.AbstractAsyncContextManager[Door]]


def application(open_door: OpenDoor, local_only: bool) -> FastAPI:
    """The whole server as an ASGI application.

    Args:
        open_door: opened when the server starts, left when it ends.
        local_only: see ``Guard``.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_door() as door:
            app.state.door = door
            yield

    told = "A mesh of LLM agents that route queries among themselves, as an OpenAI-compatible server."
    app = _App(
        title="Mesh",
        description=told,
        version="1",
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_middleware(Guard, local_only=local_only)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)
    app.add_exception_handler(MeshError, _mesh_error)
    app.include_router(public)
    app.include_router(api)
    return app


async def _invalid(request: Request, error: Exception) -> Response:
    """What pydantic found, as one sentence: the field, its value, and what would be right."""
    assert isinstance(error, RequestValidationError)
    wrong = error.errors()[0]
    path = [str(part) for part in wrong["loc"] if part != "body"]
    field = path[0] if path else "body"
    where = field + "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in path[1:])
    if wrong["type"] == "extra_forbidden":
        return refused(Refused(400, "unknown_field", f"{where}: there is no such field here", field))
    if wrong["type"] == "json_invalid":
        return refused(Refused(400, "invalid_json", "the body is no JSON", None))
    if wrong["type"] == "missing":
        return refused(Refused(400, "missing_field", f"{where}: it is missing", field))
    value = repr(wrong.get("input"))
    value = value if len(value) <= 80 else value[:80] + "…"
    return refused(Refused(400, "invalid_value", f"{where}: {value}; {wrong['msg']}", field))


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    codes = {404: "no_such_path", 405: "wrong_method"}
    told = f"{request.method} {request.url.path[:80]!r}: {error.detail}"
    answer = refused(Refused(error.status_code, codes.get(error.status_code, "invalid_request"), told))
    answer.headers.update(error.headers or {})  # a 405 says which methods are meant
    return answer


async def _mesh_error(request: Request, error: Exception) -> Response:
    return refused(error)
