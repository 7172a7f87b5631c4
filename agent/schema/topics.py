"""Every topic, and what travels on it: what the AsyncAPI document is made of.

`<device>` in a topic is the name that the broker has from the client's certificate.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from agent.batch import LINES
from agent.envelope import Kind
from agent.herald import NOTE
from agent.intake import Role
from agent.logs import KEPT
from agent.page import LIMIT
from agent.schema import bodies, entries
from agent.schema.entry_type import REASON, Json
from agent.trial import State
from agent.workflow import Lane
from drivers import KINDS

BASE = "postern/v1/{device}"
JSON, JOSE, SEALED = "application/json", "application/jose", "application/octet-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """One topic below `postern/v1/<device>`. QoS is 1 everywhere."""

    path: str
    message: str
    """Name of the only message there is on it."""
    summary: str
    retained: bool
    content_type: str
    payload: Json
    headers: Json | None = None
    """MQTT user properties."""
    claims: Kind | None = None
    """Of an envelope: the kind whose claims are its payload."""

    @property
    def up(self) -> bool:
        return self.path.startswith("up/")


NUMBER: Json = {"type": "string", "pattern": "^[0-9]+$"}

PROPERTIES: Json = {
    "type": "object",
    "required": ["from", "to"],
    "properties": {
        "from": {**NUMBER, "description": "Sequence of the first entry."},
        "to": {**NUMBER, "description": "Sequence of the last."},
        "lane": {
            "enum": [lane.name.lower() for lane in Lane],
            "description": "Of a backlog: the only lane in this batch. What is missing between is of others.",
        },
        "content-encoding": {"const": "gzip", "description": "There above 1 KiB."},
    },
}

_VERSION: Json = {"type": ["integer", "null"], "minimum": 1}
_UNIT: Json = {
    "type": "object",
    "required": ["kind", "role", "state"],
    "properties": {
        "kind": {"enum": [*KINDS]},
        "role": {"enum": [*Role]},
        "state": {"type": "string", "description": "`ready`, `doubted`, or why it is lost."},
    },
}
STATE: Json = {
    "type": "object",
    "description": "The birth message, or the will. Hearsay: the broker could have written it.",
    "required": ["online"],
    "properties": {
        "online": {"type": "boolean"},
        "device": {"type": "string"},
        "version": {"type": "string"},
        "epoch": {"type": "string", "description": "Of the journal."},
        "key": {"type": ["string", "null"], "description": "Verifier key of its checkpoints (C2SP)."},
        "units": {"type": "object", "additionalProperties": _UNIT},
        "config": {"type": "object", "description": "Where it came from, and how far a trial has come."},
        "certificate": {
            "description": "Towards the broker; null where there is none.",
            "type": ["object", "null"],
            "required": ["until", "level", "state"],
            "properties": {
                "until": {"type": "string", "format": "date-time"},
                "level": {"enum": ["file", "credential", "tpm", None]},
                "state": {
                    "enum": ["in_force", "asked", "on_trial"],
                    "description": "`asked`: a new one was asked for; `on_trial`: it is here.",
                },
            },
        },
        "keys": {"type": "object", "additionalProperties": {"enum": ["file", "credential", "tpm", "none"]}},
        "wiped_by": {"type": ["string", "null"]},
        "trust": {
            "description": "Versions that are believed; null where no root was put there.",
            "type": ["object", "null"],
            "properties": {
                "root": _VERSION,
                "head": _VERSION,
                "complete": {"type": "boolean"},
                "documents": {"type": "object", "additionalProperties": _VERSION},
            },
        },
        "time_nonce": {"type": ["string", "null"], "description": "To be answered on `down/time`."},
    },
}

REPORT: Json = {
    "type": "object",
    "description": "What became of the config that the fleet sent last.",
    "required": ["version", "sha256", "state", "reasons"],
    "properties": {
        "version": _VERSION,
        "sha256": {"type": ["string", "null"], "pattern": "^[0-9a-f]{64}$"},
        "state": {"enum": [*State, None]},
        "reasons": {"type": "array", "items": REASON},
        "gates": {"type": "object", "description": "Of a trial: what is well and what is not."},
        "waiting": {
            "type": "object",
            "description": "A config that is tried once nobody is at work, or when so much time is over.",
            "required": ["version", "sha256", "at_work", "at_most_s"],
        },
        "ready": {"type": "boolean", "description": "Of a trial: it waits for nothing but to be confirmed."},
        "checked": {
            "type": "object",
            "description": "What one that was sent on trial of words alone would do.",
        },
    },
}

ANSWER: Json = {
    "type": "object",
    "required": ["command", "content-encoding"],
    "properties": {
        "command": {"type": "string", "description": "The id of the command that asked for it."},
        "content-encoding": {"const": "gzip"},
    },
}
DIAGNOSTICS: Json = {
    "type": "object",
    "description": "Of the status what names nobody, the machine, and the latest lines of the log.",
    "required": ["device", "command", "machine", "log"],
    "properties": {
        "device": {"type": "string"},
        "command": {"type": "string"},
        "machine": {"type": "object", "description": "Versions, disk, memory, and the config's hash."},
        "log": {"type": "array", "maxItems": KEPT, "items": {"type": "object"}},
    },
}

CHECKPOINT: Json = {
    "type": "string",
    "description": "A signed note (C2SP): origin `<tenant>/<device>/<epoch>`, size, root, signatures.",
    "pattern": "^[^/\n]+/[^/\n]+/[^/\n]+\n[0-9]+\n[A-Za-z0-9+/]{43}=\n\n(— [^ \n]+ [A-Za-z0-9+/=]+\n)+$",
}
PAGE: Json = {
    "type": "string",
    "contentEncoding": "binary",
    "maxLength": LIMIT,
    "description": "Sealed to the device with HPKE; its plaintext is described by the page schemas.",
}
ENVELOPE = "Envelope"
ENVELOPES: Mapping[str, Json] = {
    ENVELOPE: {
        "description": "A JWS; `alg` is Ed25519 and `typ` names the kind. Bytes that do not fit are refused.",
        "oneOf": [bodies.COMPACT, bodies.GENERAL],
    }
}


def topics(reference: str) -> tuple[Topic, ...]:
    """All of them; payloads refer to named schemas."""
    envelope: Json = {"$ref": reference.format(model=ENVELOPE)}
    return (*_up(reference), *_down(envelope))


def _up(reference: str) -> tuple[Topic, ...]:
    return (
        Topic(
            path="up/entries",
            message="entries",
            summary="Entries, one a line, oldest first; what comes again has the same id. Each line is"
            " described by the payload.",
            retained=False,
            content_type=LINES,
            payload={"$ref": reference.format(model=entries.NAME)},
            headers=PROPERTIES,
        ),
        Topic(
            path="up/state",
            message="state",
            summary="How the device is; the will says that it is gone.",
            retained=True,
            content_type=JSON,
            payload=STATE,
        ),
        Topic(
            path="up/config",
            message="report",
            summary="What became of the config that the fleet sent.",
            retained=True,
            content_type=JSON,
            payload=REPORT,
        ),
        Topic(
            path="up/renewal",
            message="renewal",
            summary="New keys that the device asks the fleet to take. Empty once it asks for none any more.",
            retained=True,
            content_type=JOSE,
            payload={"$ref": reference.format(model=ENVELOPE)},
            claims=Kind.RENEWAL,
        ),
        Topic(
            path="up/diagnostics",
            message="diagnostics",
            summary="How the device is, to whoever commanded `diagnostics`. Compressed; nobody is in it.",
            retained=False,
            content_type=JSON,
            payload=DIAGNOSTICS,
            headers=ANSWER,
        ),
        Topic(
            path="up/checkpoint",
            message="checkpoint",
            summary="What the device has signed about its journal last.",
            retained=True,
            content_type=NOTE,
            payload=CHECKPOINT,
        ),
    )


_DOWN: Mapping[str, tuple[Kind, str, bool]] = {
    "root": (Kind.ROOT, "Whose signatures count, and for what.", True),
    "head": (Kind.HEAD, "What is current, for a day.", True),
    "config": (Kind.CONFIG, "How the device is to be set up.", True),
    "revocations": (Kind.REVOCATIONS, "What is taken away for ever.", True),
    "bundle/{bundle}": (Kind.BUNDLE, "The pages of the roster, the grants or the manifest.", True),
    "command": (Kind.COMMAND, "Something to be done once.", False),
    "time": (Kind.TIME, "What time it is, to whoever asked.", False),
}


def _down(envelope: Json) -> tuple[Topic, ...]:
    signed = tuple(
        Topic(
            path=f"down/{path}",
            message=str(kind),
            summary=summary,
            retained=retained,
            content_type=JOSE,
            payload=envelope,
            claims=kind,
        )
        for path, (kind, summary, retained) in _DOWN.items()
    )
    page = Topic(
        path="down/page/{sha256}",
        message="page",
        summary="One sealed page of a bundle, named by its hash.",
        retained=True,
        content_type=SEALED,
        payload=PAGE,
    )
    receipt = Topic(
        path="down/receipt",
        message="receipt",
        summary="A checkpoint of the device with the fleet's signature added: all up to it is there. Given"
        " again it asks for the rest of what the device has signed for.",
        retained=False,
        content_type=NOTE,
        payload=CHECKPOINT,
    )
    return (*signed, page, receipt)
