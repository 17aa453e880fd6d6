"""What OpenAPI says of the answers: for every route its statuses, and what its bodies look like; pure."""

from __future__ import annotations

from typing import Any, TypeAlias

from mesh.ingress.errors import STATUSES

Schema: TypeAlias = dict[str, Any]
Responses: TypeAlias = dict[int | str, dict[str, Any]]


def an_object(**properties: Schema) -> Schema:
    """An object that has all of these, and maybe more."""
    return {"type": "object", "required": list(properties), "properties": properties}


def array(items: Schema) -> Schema:
    return {"type": "array", "items": items}


TEXT: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
WHOLE: Schema = {"type": "integer"}
FLAG: Schema = {"type": "boolean"}
ANY: Schema = {}
MAYBE: Schema = {"type": ["string", "null"]}
ERROR = an_object(error=an_object(message=TEXT, type=TEXT, param=MAYBE, code=MAYBE))
HOP = an_object(
    agent=TEXT, verdict={"enum": ["answered", "refused", "declined", "failed", "cancelled"]}, confidence=ANY
)
HOP["properties"] |= {"seconds": NUMBER, "prompt_tokens": WHOLE, "generated_tokens": WHOLE, "full_cost": NUMBER}
ABOUT = an_object(id=TEXT, agent=TEXT, path=array(HOP), cost=NUMBER, full_cost=NUMBER, confidence=ANY, alpha=NUMBER)
MODEL = an_object(id=TEXT, object=TEXT, created=WHOLE, owned_by=TEXT)
MODELS = an_object(object=TEXT, data=array(MODEL))
USAGE = an_object(prompt_tokens=WHOLE, completion_tokens=WHOLE, total_tokens=WHOLE)
AGENT = an_object(agent=TEXT, state=TEXT, cost=NUMBER, deaths=WHOLE)
TRACE = an_object(id=TEXT, alpha=NUMBER, time=NUMBER, right=ANY)  # and ABOUT's, or an error
OVERVIEW = an_object(
    name=TEXT, alpha=NUMBER, entry=MAYBE, agents=array(AGENT), topology=an_object(kind=TEXT, neighbours=ANY),
    examples=array(TEXT), last=array(TRACE),
)  # fmt: skip
CURVES = an_object(
    pool=MAYBE,
    questions=WHOLE,
    seed=ANY,
    date=MAYBE,
    alphas=array(NUMBER),
    curves=array(an_object(name=TEXT, kind=TEXT)),
)
WHOLE_REPLY = an_object(
    id=TEXT, object=TEXT, created=WHOLE, model=TEXT, choices=array({"type": "object"}), usage=USAGE, mesh=ABOUT
)
JUDGED = an_object(id=TEXT, right=FLAG)
CHANGED = an_object(agent=TEXT, state=TEXT)
HEALTH = an_object(status=TEXT)


def answers(shape: Schema, *statuses: int) -> Responses:
    """Of a route behind the keys: ``shape`` is what 200 brings; which errors there are besides those of every route."""
    return {**_whole(shape), **errors(401, 403, 408, 429, 431, 500, 503, *statuses)}


def replies(*statuses: int) -> Responses:
    """Of a route that asks the mesh: a reply, or a stream of events."""
    told = answers(WHOLE_REPLY, *statuses)
    told[200]["content"]["text/event-stream"] = {"schema": TEXT}
    return told


def open_to_all(shape: Schema, *statuses: int) -> Responses:
    """Of a route that wants no key."""
    return {**_whole(shape), **errors(408, 431, *statuses)}


def errors(*statuses: int) -> Responses:
    """Errors, all of one shape."""
    content = {"application/json": {"schema": ERROR}}
    return {status: {"description": STATUSES[status], "content": content} for status in sorted(set(statuses))}


def _whole(shape: Schema) -> Responses:
    return {200: {"description": "as asked", "content": {"application/json": {"schema": shape}}}}
