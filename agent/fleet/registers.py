"""Files that list what the fleet has many of: a JSON object with one line for each, for people and `diff`.

They are written whole and read whole, so that both have to be quick where there are thousands.
"""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from agent import keyfile


def save(path: Path, known: Mapping[str, Any]) -> None:
    """Dataclasses by name, whole and durable."""
    lines = (f"{json.dumps(name)}: {json.dumps(_tree(each))}" for name, each in sorted(known.items()))
    keyfile.write(path, ("{\n" + ",\n".join(lines) + "\n}\n").encode())


def _tree(each: Any) -> dict[str, Any]:
    """Of a flat dataclass. `asdict` would copy every text in it."""
    return {field.name: getattr(each, field.name) for field in fields(each)}
