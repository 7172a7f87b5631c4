"""Pydantic models as JSON Schema of 2020-12, with what their authors wrote beneath each field.

schemas = definitions([Root, Head], "#/$defs/{model}")
"""

import ast
import inspect
import textwrap
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, models_json_schema

from agent.schema.entry_type import Json

DIALECT = "https://json-schema.org/draft/2020-12/schema"
LOCAL = "#/$defs/{model}"


class _Told(GenerateJsonSchema):
    """Fields are described by their docstrings, and not named a second time in capitals."""

    ignored_warning_kinds = {"skipped-choice", "non-serializable-default"}  # noqa: RUF012 -- as pydantic has it

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False

    def model_schema(self, schema: Any) -> Json:
        made: Json = super().model_schema(schema)
        properties = made.get("properties", {})
        for name, text in described(schema["cls"]).items():
            if name in properties:
                properties[name].setdefault("description", text)
        return made


def definitions(models: Iterable[type[BaseModel]], reference: str = LOCAL) -> dict[str, Json]:
    """The schema of each model, and of all it is made of, by class name."""
    asked = [(model, "validation") for model in models]
    _, made = models_json_schema(asked, ref_template=reference, schema_generator=_Told)  # type: ignore[arg-type]
    found: dict[str, Json] = made["$defs"]
    return found


@cache
def described(model: type[BaseModel]) -> Mapping[str, str]:
    """The docstring beneath each field, by the name that the field has outside."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if base is not BaseModel and issubclass(base, BaseModel):
            found |= _beneath(base)
    aliases = {name: field.alias or name for name, field in model.model_fields.items()}
    return {aliases[name]: text for name, text in found.items() if name in aliases}


def _beneath(model: type[BaseModel]) -> dict[str, str]:
    tree = ast.parse(textwrap.dedent(inspect.getsource(model))).body[0]
    assert isinstance(tree, ast.ClassDef)
    return {
        field.target.id: " ".join(inspect.cleandoc(text.value.value).split())
        for field, text in zip(tree.body, tree.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign)
        and isinstance(field.target, ast.Name)
        and isinstance(text, ast.Expr)
        and isinstance(text.value, ast.Constant)
        and isinstance(text.value.value, str)
    }


def document(name: str, title: str, schema: Json, parts: Mapping[str, Json]) -> Json:
    """A schema as a file of its own, with those of the parts that it refers to."""
    whole = {"$schema": DIALECT, "$id": f"urn:postern:schema:{name}", "title": title, **schema}
    needed = reachable(schema, parts)
    return {**whole, "$defs": {key: parts[key] for key in sorted(needed)}} if needed else whole


def reachable(schema: Any, parts: Mapping[str, Json]) -> set[str]:
    """The names of all parts that a schema refers to, by one way or another."""
    found: set[str] = set()
    waiting = [schema]
    while waiting:
        for name in _referred(waiting.pop()) - found:
            found.add(name)
            waiting.append(parts[name])
    return found


def _referred(tree: Any) -> set[str]:
    match tree:
        case {"$ref": str(name)}:
            return {name.rpartition("/")[2]}
        case dict():
            return {name for each in tree.values() for name in _referred(each)}
        case list():
            return {name for each in tree for name in _referred(each)}
    return set()
