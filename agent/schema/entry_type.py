"""What a type of entry is, and the vocabulary of its data.

    EntryType("custody.accepted", Subject.PARCEL, "A parcel came into …", "unit by scan after_s?")

A name in the data means the same wherever it stands, and so has one shape; where it has another, the shape
is named behind a colon. A question mark stands for what is not always there.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agent.workflow import Lane

Json = dict[str, Any]

_FIELD = re.compile(r"([a-z0-9_]+)(?::([a-z_]+))?(\?)?")


class Subject(StrEnum):
    """What an entry is about, by the value of its `subject`."""

    DEVICE = "device"
    UNIT = "unit"
    PARCEL = "parcel"
    """Its label, such as `sscc:…`; where a locker knows none, the compartment or unit."""
    DRIVER = "driver"
    """Their reference."""
    PERSON = "person"
    """The reference of whoever it is; where that is not known, the unit that they stand at."""
    DOOR = "door"
    """`<unit>/<door>`."""
    COMPARTMENT = "compartment"
    PART = "part"
    """Of the agent: where something went wrong."""
    ENTRY = "entry"
    """The id of another one."""


@dataclass(frozen=True, slots=True)
class Field:
    """One member of an entry's data."""

    name: str
    shape: str
    required: bool


@dataclass(frozen=True, slots=True)
class EntryType:
    """One type of entry, without the `postern.` before it."""

    type: str
    subject: Subject
    meaning: str
    data: str = ""
    """Its members as the module says. Clock and position are in every entry, and `freshness` may be."""
    lane: Lane = Lane.CUSTODY
    also: Lane | None = None
    """The other lane in which it can be."""

    @property
    def fields(self) -> tuple[Field, ...]:
        found = (_FIELD.fullmatch(word) for word in self.data.split())
        return tuple(Field(one[1], one[2] or one[1], not one[3]) for one in found if one)

    @property
    def lanes(self) -> tuple[str, ...]:
        both = (self.lane,) if self.also is None else (self.lane, self.also)
        return tuple(lane.name.lower() for lane in both)


def _or_null(shape: Json) -> Json:
    return {"anyOf": [shape, {"type": "null"}]}


def _list(shape: Json) -> Json:
    return {"type": "array", "items": shape}


def _table(shape: Json) -> Json:
    return {"type": "object", "additionalProperties": shape}


TEXT: Json = {"type": "string"}
FLAG: Json = {"type": "boolean"}
NUMBER: Json = {"type": "number"}
INTEGER: Json = {"type": "integer"}
COUNT: Json = {"type": "integer", "minimum": 0}
ANY_OBJECT: Json = {"type": "object"}
MAYBE_TEXT = _or_null(TEXT)
DIGEST: Json = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
BASE64: Json = {"type": "string", "contentEncoding": "base64"}

REASON: Json = {
    "type": "object",
    "required": ["path", "expected", "found"],
    "properties": {"path": TEXT, "expected": TEXT, "found": TEXT},
}

_TEXTS = (
    "action class client_data command control detail device epoch error evidence exception file from holder",
    "kind key name nonce operator outcome port purpose reason source state symbology technology topic",
    "transaction trust unit version was way why auth_data signature device_kind for via boot old_trust",
)
_COUNTS = (
    "backlog board bytes changed copied count counter counter_above counters door first_door held input",
    "kept lacking last limit lost_ranges of pages rows size slot times unwritten used ver wrong until",
    "copies given_up",
)
_FLAGS = "again closed energised first handover_open more_may_be_lost occupied ok reader_paused remembered"

SHAPES: Mapping[str, Json] = {
    **{name: TEXT for line in _TEXTS for name in line.split()},
    **{name: COUNT for line in _COUNTS for name in line.split()},
    **dict.fromkeys([*_FLAGS.split(), "renewed", "resumed"], FLAG),
    **dict.fromkeys(["after_s", "offline_s", "offset_s", "pause_s"], NUMBER),
    **dict.fromkeys(["knowledge_age_s", "roster_age_s", "speed_mps"], _or_null(NUMBER)),
    **dict.fromkeys(["beside", "grant", "parcel", "previous_epoch", "role", "subject_ref"], MAYBE_TEXT),
    **dict.fromkeys(["records_lost", "records_doubtful", "not_erased", "factors"], _list(TEXT)),
    **dict.fromkeys(["sealed", "receipt", "selector", "size_wanted"], MAYBE_TEXT),
    **dict.fromkeys(["about", "args", "scan", "status", "second_person", "changes"], ANY_OBJECT),
    **dict.fromkeys(["brought", "counts", "refused"], _table(COUNT)),
    **dict.fromkeys(["units", "keys"], _table(TEXT)),
    "epoch_ns": INTEGER,
    "old_epoch_ns": INTEGER,
    "by": MAYBE_TEXT,
    "sha256": DIGEST,
    "config": DIGEST,
    "lane": {"type": ["string", "null"], "enum": [*(lane.name.lower() for lane in Lane), None]},
    "lanes": _or_null(_table(COUNT)),
    "sequence": {"type": "string", "pattern": "^[0-9]+$"},
    "level": {"type": "integer", "minimum": 0, "maximum": 3},
    "code": _or_null(COUNT),
    "content": {"enum": ["occupied", "empty", None]},
    "compartment": TEXT,
    "compartments": _list(TEXT),
    **dict.fromkeys(["opened", "unknown", "left"], _list(TEXT)),
    "not_opened": _table(TEXT),
    "present": MAYBE_TEXT,
    "doors": {"type": "array", "items": COUNT, "minItems": 2, "maxItems": 2},
    "to": {"enum": ["driver", "recipient", "locker"]},
    "leaf": BASE64,
    "leaves": BASE64,
    "root": BASE64,
    "reasons": _list(REASON),
    "starts": COUNT,
    "left_s": NUMBER,
    "effects": _list(ANY_OBJECT),
    "ranges": _list(_list(COUNT)),
    "lost": _list(_list(COUNT)),
    "previous": _or_null(ANY_OBJECT),
    "documents": _table(COUNT),
    "satellites": _or_null(COUNT),
    "origin": TEXT,
    "cosigned": COUNT,
    # Shapes that are named behind a colon.
    "object": ANY_OBJECT,
    "text": TEXT,
    "maybe_text": MAYBE_TEXT,
    "count": COUNT,
    "maybe_count": _or_null(COUNT),
    "bucket": _or_null({"type": "integer", "minimum": -1}),
    "table": _table(COUNT),
    "number": NUMBER,
    "flag": FLAG,
    "slots": _list(COUNT),
    "texts": _list(TEXT),
    "list": _list(ANY_OBJECT),
    "receiver": {
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": ["driver", "recipient", "locker"]}, "ref": TEXT, "by": TEXT},
    },
}
