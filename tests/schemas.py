"""JSON Schema in tests: our own schemas, and those of others where they are kept beside the checkout."""

import importlib
import json
import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from agent.schema import entries
from agent.schema.entry_types import CATALOGUE

BESIDE = Path(__file__).resolve().parents[2] / "shared" / "schemas"
"""Published by those who keep the standards; not ours to carry."""

jsonschema: Any = importlib.import_module("jsonschema")


def standard(name: str) -> Any:
    """The schema of a standard. Skips the test where it is not there; in CI, fails it."""
    path = BESIDE / name
    if not path.exists():
        why = f"no {name} in shared/schemas beside the checkout"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return json.loads(path.read_text(encoding="utf-8"))


def validator(schema: Mapping[str, Any]) -> Any:
    """Of a schema that is one itself."""
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    return kind(schema)


def fits(schema: Mapping[str, Any], value: Any) -> bool:
    return bool(validator(schema).is_valid(value))


@cache
def _entries() -> Any:
    return validator(entries.schema())


def unlike(made: Iterable[Mapping[str, Any]]) -> list[str]:
    """What in these entries is not as the catalogue says: the first mistake of each, and unknown words."""
    found = []
    for entry in made:
        errors = sorted(_entries().iter_errors(entry), key=lambda error: list(map(str, error.path)))
        found += [f"{entry['type']}: {error.json_path}: {error.message[:200]}" for error in errors[:1]]
        known = CATALOGUE.get(entry["type"].removeprefix("postern."))
        words = {field.name for field in known.fields} if known else set()
        found += [f"{entry['type']}: {word}" for word in entry["data"].keys() - words - entries.STAMPED]
    return found
