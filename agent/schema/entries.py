"""The schema of an entry: a CloudEvents 1.0 object with two extensions of ours, `sequence` and `lane`.

The data of each type is open: a newer agent may say more. What it says by now stands in the catalogue.
"""

from collections.abc import Mapping

from agent.config_file import DEVICE_ID
from agent.freshness import Freshness
from agent.schema.entry_type import SHAPES, EntryType, Json
from agent.schema.entry_types import CATALOGUE
from agent.schema.models import document
from agent.workflow import Lane

NAME, STAMP = "Entry", "Stamp"
_ID = DEVICE_ID.strip("^$")

TIME: Json = {
    "type": "string",
    "format": "date-time",
    "pattern": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z$",
}

FIX: Json = {
    "type": "object",
    "required": ["lat", "lon", "age_s", "hdop", "source"],
    "properties": {
        "lat": {"type": "number", "minimum": -90, "maximum": 90},
        "lon": {"type": "number", "minimum": -180, "maximum": 180},
        "age_s": {"type": "number", "minimum": 0},
        "hdop": {"type": ["number", "null"]},
        "source": {"type": "string"},
    },
}

CLOCK: Json = {
    "type": "object",
    "description": "How far the time of this entry can be trusted.",
    "required": ["boot", "mono_ns", "trust", "error_s"],
    "additionalProperties": False,
    "properties": {
        "boot": {"type": "string", "description": "Which run of this machine: `mono_ns` counts within it."},
        "mono_ns": {"type": "integer", "minimum": 0},
        "trust": {"enum": ["gps", "ntp", "fleet", "rtc", "none"]},
        "error_s": {"type": ["number", "null"], "minimum": 0},
    },
}

_STAMP: Json = {
    "type": "object",
    "description": "What the data of every entry holds, whatever its type.",
    "required": ["clock", "position"],
    "properties": {
        "clock": CLOCK,
        "position": {"anyOf": [FIX, {"type": "null"}]},
        "position_missing": {"type": "string", "description": "Why there is no position."},
        "last_known": {**FIX, "description": "The last fix; never to be taken for the position."},
        "freshness": {
            "enum": [each for each in Freshness if each is not Freshness.FRESH],
            "description": "There where what the fleet has told was not fresh when this was decided.",
        },
    },
}

STAMPED = frozenset(_STAMP["properties"])
"""Members of the data that belong to no type."""


def data_of(type_: EntryType) -> Json:
    """The data of one type, but for what is in every entry."""
    fields = type_.fields
    schema: Json = {"type": "object", "description": type_.meaning}
    if required := [field.name for field in fields if field.required]:
        schema["required"] = required
    if fields:
        schema["properties"] = {field.name: SHAPES[field.shape] for field in fields}
    return schema


def parts(reference: str) -> dict[str, Json]:
    """The entry as `Entry`, and what it is made of: `Stamp`, and the data of each type by its name."""
    entry: Json = {
        "type": "object",
        "description": "One thing that happened at a gate: CloudEvents 1.0, one line of UTF-8.",
        "required": list(_attributes(reference)),
        "additionalProperties": False,
        "properties": _attributes(reference),
        "allOf": [_case(each, reference) for each in CATALOGUE.values()],
    }
    return {NAME: entry, STAMP: _STAMP, **{each.type: data_of(each) for each in CATALOGUE.values()}}


def _attributes(reference: str) -> Mapping[str, Json]:
    return {
        "specversion": {"const": "1.0"},
        "id": {
            "type": "string",
            "pattern": "^[0-9a-f]{12}-[1-9][0-9]*$",
            "description": "Epoch of the journal and sequence: never made of the time.",
        },
        "source": {"type": "string", "pattern": f"^/postern/{_ID}/{_ID}$"},
        "type": {"enum": [f"postern.{name}" for name in CATALOGUE]},
        "subject": {"type": "string", "minLength": 1},
        "time": {**TIME, "description": "Best knowledge when it was recorded."},
        "sequence": {"type": "string", "pattern": "^[1-9][0-9]*$", "description": "From 1, without gaps."},
        "lane": {
            "enum": [lane.name.lower() for lane in Lane],
            "description": "How dearly it is kept and how soon it is sent.",
        },
        "data": {"$ref": reference.format(model=STAMP)},
    }


def _case(type_: EntryType, reference: str) -> Json:
    then = {
        "lane": {"enum": list(type_.lanes)},
        "data": {"$ref": reference.format(model=type_.type)},
    }
    return {
        "if": {"properties": {"type": {"const": f"postern.{type_.type}"}}},
        "then": {"properties": then},
    }


def schema() -> Json:
    """As a file of its own."""
    made = parts("#/$defs/{model}")
    return document("entry", "An entry of Postern", made.pop(NAME), made)
