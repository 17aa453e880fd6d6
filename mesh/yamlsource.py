"""Reads a settings file, and says about each thing that is wrong in it: where it stands and what would be right."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any, TypeAlias, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import InitErrorDetails, PydanticCustomError

from agents.errors import ConfigError

Loc: TypeAlias = tuple[int | str, ...]
Wrong: TypeAlias = tuple[Loc, str, Any]  # where, what would be right, and the value


class _Loader(yaml.SafeLoader):
    """Safe YAML in which 1e-3 is a number, and a scalar that cannot be read is an error with a place."""

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, OverflowError) as error:  # such as the date 2026-13-45
            raise yaml.constructor.ConstructorError(None, None, f"{node.value!r}: {error}", node.start_mark) from error


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+(?:\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


@dataclass
class Source:
    """Settings as plain Python, and where in ``file`` each one stands.

    ``base`` is the folder that relative paths in them are relative to, ``repeated`` the keys that occur a
    second time in their mapping.
    """

    data: Any
    base: Path
    file: str = ""
    node: yaml.Node | None = None
    repeated: tuple[yaml.Node, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Source:
        """Read a YAML file.

        Raises:
            ConfigError: it cannot be read, or is not YAML (with line and column).
        """
        try:
            text = path.read_bytes().decode("utf-8-sig")
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            place = _place(error.object[: error.start].decode(errors="replace"))
            raise ConfigError(f"{path}:{place}: byte {error.object[error.start]:#x} is not UTF-8 text") from error
        try:
            return cls._parse(text, path)
        except yaml.YAMLError as error:
            raise ConfigError(f"{path}:{_yaml_problem(error, text)}") from error
        except RecursionError as error:
            raise ConfigError(f"{path}: is nested too deeply") from error

    @classmethod
    def _parse(cls, text: str, path: Path) -> Source:
        loader = _Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                raise ConfigError(f"{path}: is empty")
            repeated = tuple(_repeated(node, set(), ()))
            data = loader.construct_document(node)
        finally:
            loader.dispose()
        return cls(data, path.resolve().parent, str(path), node, repeated)

    def refusal(
        self, model: type[BaseModel], errors: Iterable[Mapping[str, Any]] = (), more: Iterable[Wrong] = ()
    ) -> ConfigError:
        """All that is wrong as one error: one line each, in the file's order.

        Args:
            model: what the data should have been.
            errors: as ``pydantic.ValidationError.errors()`` gives them.
            more: what pydantic did not come to see.
        """
        lines = [(_mark(key), f"the key {key.value!r} occurs twice") for key in self.repeated]
        found = [(_loc(error), _right(model, error), error["input"], error["type"] == "missing") for error in errors]
        for loc, right, value, is_missing in [*found, *((*wrong, False) for wrong in more)]:
            written = self._as_written(loc)
            state = "is missing" if is_missing else f"is {_short(value)}"
            lines.append((self._find(written), f"{self._key(written)} {state}: {right}"))
        ordered = dict.fromkeys(sorted(lines, key=lambda line: line[0]))
        place = f"{self.file}:{{}}:{{}}: " if self.file else ""
        return ConfigError("\n".join(place.format(*mark) + text for mark, text in ordered))

    def _as_written(self, loc: Loc) -> Loc:
        """An agent's setting that stands in the defaults is spoken of there."""
        default = ("defaults", *loc[2:])
        inherited = loc[:1] == ("agents",) and len(loc) > 2 and _at(self.data, loc) is _NOTHING
        return default if inherited and _at(self.data, default) is not _NOTHING else loc

    def _key(self, loc: Loc) -> str:
        """``agents[1].cost (agent 'big')``."""
        path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in loc).lstrip(".")
        agent = _at(self.data, (*loc[:2], "name")) if loc[:1] == ("agents",) else _NOTHING
        return (path or "this") + ("" if agent is _NOTHING else f" (agent {agent!r})")

    def _find(self, loc: Loc) -> tuple[int, int]:
        """Line and column, from 1, of what ``loc`` leads to, or of the deepest part of the way that exists."""
        if self.node is None:
            return 0, 0
        node, place = self.node, self.node
        for part in loc:
            if isinstance(node, yaml.MappingNode):
                # An own key comes after those that `<<` merged in, and wins.
                pair = next((pair for pair in reversed(node.value) if pair[0].value == str(part)), None)
                if pair is None:
                    break
                node = pair[1]
                place = node if isinstance(node, yaml.ScalarNode) else pair[0]
            elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
                node = place = node.value[part]
            else:
                break
        return _mark(place)


def refused(*wrong: Wrong) -> ValidationError:
    """What a validator raises about settings below its own."""
    return ValidationError.from_exception_data(
        "settings",
        [
            InitErrorDetails(type=PydanticCustomError("setting", "{text}", {"text": text}), loc=loc, input=value)
            for loc, text, value in wrong
        ],
    )


def known_words(wrong: str, known: Iterable[str], lead: str) -> str:
    """``did you mean 'cost'? lead name, cost, ...``."""
    known = list(known)
    close = difflib.get_close_matches(wrong, known, 1)
    return (f"did you mean {close[0]!r}? " if close else "") + f"{lead} {', '.join(known) or 'none'}"


_NOTHING = object()


def _at(data: Any, loc: Loc) -> Any:
    """What ``loc`` leads to in nested mappings and sequences, or ``_NOTHING``."""
    for part in loc:
        keyed = isinstance(data, Mapping) and part in data
        placed = isinstance(data, list | tuple) and isinstance(part, int) and part < len(data)
        if not (keyed or placed):
            return _NOTHING
        data = data[part]
    return data


def _loc(error: Mapping[str, Any]) -> Loc:
    return tuple(part for part in error["loc"] if part != "[key]")


def _right(model: type[BaseModel], error: Mapping[str, Any]) -> str:
    """What would be right instead."""
    loc = _loc(error)
    model, field = _declared(model, loc)
    match error["type"]:
        case "extra_forbidden":
            return f"unknown key; {known_words(str(loc[-1]), model.model_fields, 'the keys here are')}"
        case "value_error":
            return str(error["ctx"]["error"])
        case "model_type":
            return "should be a mapping"
        case "setting":
            return str(error["msg"])
    unquoted = error["type"] == "string_type" and isinstance(error["input"], bool | int | float | date)
    described = f"should be {field.description}" if field and field.description else ""
    return (described or re.sub("^Input s", "s", error["msg"])) + (", in quotes" if unquoted else "")


def _declared(model: type[BaseModel], loc: Loc) -> tuple[type[BaseModel], FieldInfo | None]:
    """The model in which ``loc`` ends, and the last field on the way."""
    field = None
    for part in loc:
        if isinstance(part, str) and part in model.model_fields:
            field = model.model_fields[part]
            model = next(_models(field.annotation), model)
    return model, field


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models(part)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _mark(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line + 1, node.start_mark.column + 1


def _place(before: str) -> str:
    """``line:column`` of what follows ``before``."""
    return f"{before.count(chr(10)) + 1}:{len(before) - before.rfind(chr(10))}"


def _yaml_problem(error: yaml.YAMLError, text: str) -> str:
    """``line:column: what is wrong``."""
    if isinstance(error, yaml.MarkedYAMLError) and (mark := error.problem_mark or error.context_mark):
        words = ", ".join(part for part in (error.context, error.problem) if part)
        return f"{mark.line + 1}:{mark.column + 1}: {words}"
    if isinstance(error, yaml.reader.ReaderError):
        return f"{_place(text[: error.position])}: the character {text[error.position]!r} is not allowed"
    return f" {error}"


def _repeated(node: yaml.Node, seen: set[int], within: tuple[int, ...]) -> Iterator[yaml.Node]:
    """The keys that occur a second time in their mapping. Refuses an alias to what it stands in."""
    if id(node) in within:
        raise yaml.composer.ComposerError(None, None, "an alias stands inside what it names", node.start_mark)
    if id(node) in seen or not isinstance(node, yaml.CollectionNode):
        return
    seen.add(id(node))
    children = node.value
    if isinstance(node, yaml.MappingNode):
        children = [child for pair in node.value for child in pair]
        keys: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in keys:
                    yield key
                keys.add(key.value)
    for child in children:
        yield from _repeated(child, seen, (*within, id(node)))
