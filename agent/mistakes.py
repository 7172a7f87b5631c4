"""What is wrong in a config file, in words: where, what was expected there, and what was found.

Error text is part of the interface: it is short whatever was found, and never shows a password.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

M = TypeVar("M", bound=BaseModel)

STRICT = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)
"""Strict, closed and frozen, as every table of the file is."""

ABSOLUTE = r"^/[^\x00]*$"
HOST = r"^[^\s\x00/]{1,253}$"
_TOLD = re.compile(r"expected (.+), got (.+)", re.DOTALL)
"""What a model has to say of several settings together."""
_IN_WORDS = {ABSOLUTE: "an absolute path", HOST: "a host name or an address"}


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong in the file."""

    path: str
    expected: str
    got: str

    def __str__(self) -> str:
        return f"{self.path}: expected {self.expected}, got {self.got}"


class BadConfig(Exception):
    """The file cannot be used. `mistakes` names every reason."""

    def __init__(self, source: str, mistakes: list[Mistake]) -> None:
        super().__init__("\n".join(f"{source}: {mistake}" for mistake in mistakes))
        self.mistakes = mistakes


def validate(
    model: type[M],
    tree: Any,
    where: tuple[str, ...],
    mistakes: list[Mistake],
    siblings: Iterable[str] = (),
) -> M | None:
    """`tree` as a `model`, or None and its mistakes. `siblings` are settings that belong to another model."""
    try:
        return model.model_validate(tree)
    except ValidationError as error:
        mistakes += [_mistake(model, each, where, siblings) for each in error.errors(include_url=False)]
        return None


def dotted(loc: Iterable[str | int]) -> str:
    """The path of a setting, as TOML would have it written."""
    path = ""
    for step in loc:
        path += f"[{step}]" if isinstance(step, int) else f".{_key(step)}" if path else _key(step)
    return path or "file"


def shown(path: str, value: Any) -> str:
    """What was found, short, and never a secret."""
    try:
        text = repr(value)
    except (RecursionError, ValueError):
        # Nested too deeply, or a number of thousands of digits.
        text = f"something too long to show ({type(value).__name__})"
    if "password" in path or "password" in text:
        return "something else (not shown)"
    return text if len(text) <= 60 else f"{text[:57]}..."


def reason(error: Exception) -> str:
    """Why a file could not be read, without its name."""
    match error:
        case OSError(strerror=str() as text):
            return text
        case UnicodeDecodeError(start=start):
            return f"bytes that are not UTF-8 (at {start})"
    return str(error)


def _mistake(model: type[BaseModel], error: Any, where: tuple[str, ...], siblings: Iterable[str]) -> Mistake:
    loc, expected = error["loc"], _expected(error)
    if loc and loc[-1] == "[key]":
        return Mistake(
            dotted((*where, *loc[:-2])), f"names that match {error['ctx']['pattern']}", _key(loc[-2])
        )
    path = dotted((*where, *loc))
    match error["type"]:
        case "extra_forbidden":
            known = sorted((*siblings, *_fields(model, loc[:-1])))
            return Mistake(path, f"one of the settings {', '.join(known)}", "an unknown one")
        case "missing":
            return Mistake(path, "a value", "nothing")
        case "model_type" | "dict_type":
            expected = "a table"
        case "value_error" if told := _TOLD.fullmatch(expected):
            return Mistake(path, *told.groups())
    return Mistake(path, expected, shown(path, error["input"]))


def _expected(error: Any) -> str:
    if words := _IN_WORDS.get(error.get("ctx", {}).get("pattern")):
        return words
    text = str(error["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")
    text = text.replace("String should match pattern", "text that matches")
    return text[:1].lower() + text[1:]


def _fields(model: type[BaseModel], loc: Iterable[str | int]) -> Iterable[str]:
    for step in loc:
        field = model.model_fields.get(str(step))
        if field is None or not (
            isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        ):
            return ()
        model = field.annotation
    return model.model_fields


def _key(key: object) -> str:
    text = str(key)
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else json.dumps(text)
