"""The schemas of what is signed: claims and body of each kind of envelope, rows of pages, welcome.

Each kind's payload is one schema: the claims, with the body that is this kind's. The envelope around it is a
JWS, whose own schema is the same for all.
"""

from collections.abc import Mapping

from pydantic import BaseModel

from agent.commands import COMMANDS
from agent.desired import Desired
from agent.documents import BODIES, Command
from agent.enrolment import WelcomeFile
from agent.envelope import CAPS, Claims, Kind
from agent.fleet.enrolment import RequestBody
from agent.fleet.renewals import RenewalBody
from agent.page import GrantRow, KeyPage, LoadRow, PersonRow
from agent.schema.entry_type import Json
from agent.schema.models import LOCAL, definitions, document

ROWS: Mapping[str, type[BaseModel]] = {"roster": PersonRow, "grants": GrantRow, "manifest": LoadRow}
MODELS: Mapping[Kind, type[BaseModel]] = {
    **BODIES,
    Kind.CONFIG: Desired,
    Kind.ENROLMENT: RequestBody,
    Kind.RENEWAL: RenewalBody,
}

DEPOSIT: Json = {
    "type": "object",
    "description": "That a locker took a parcel: the courier's proof, signed by the locker.",
    "required": ["parcel", "compartment", "courier", "clock"],
    "additionalProperties": False,
    "properties": {
        "parcel": {"type": "string"},
        "compartment": {"type": "string"},
        "courier": {"type": "string", "description": "Reference of the driver."},
        "clock": {"type": "string", "description": "How far the locker's time could be trusted."},
    },
}

_B64 = "[A-Za-z0-9_-]+"

COMPACT: Json = {
    "type": "string",
    "description": "JWS compact serialisation, with one signature (RFC 7515, 3.1).",
    "pattern": rf"^{_B64}\.{_B64}\.{_B64}$",
}
GENERAL: Json = {
    "type": "object",
    "description": "JWS general JSON serialisation, with several signatures (RFC 7515, 7.2.1).",
    "required": ["payload", "signatures"],
    "additionalProperties": False,
    "properties": {
        "payload": {"type": "string", "pattern": f"^{_B64}$"},
        "signatures": {
            "type": "array",
            "minItems": 1,
            "items": {
                "type": "object",
                "required": ["protected", "signature"],
                "additionalProperties": False,
                "properties": {
                    "protected": {"type": "string", "pattern": f"^{_B64}$"},
                    "signature": {"type": "string", "pattern": f"^{_B64}$"},
                },
            },
        },
    },
}


def header(kind: Kind) -> Json:
    """The protected header of each signature: exactly this."""
    return {
        "type": "object",
        "required": ["alg", "kid", "typ"],
        "additionalProperties": False,
        "properties": {
            "alg": {"const": "Ed25519"},
            "kid": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
            "typ": {"const": kind.typ},
        },
    }


def payload_name(kind: Kind) -> str:
    return f"{kind.capitalize()}Claims"


def parts(reference: str) -> dict[str, Json]:
    """The payload of each kind as `<Kind>Claims`, and all that they are made of."""
    arguments = dict.fromkeys(model for _, model in COMMANDS.values())
    made = definitions(
        [*MODELS.values(), Claims, *ROWS.values(), KeyPage, WelcomeFile, *arguments], reference
    )
    claims = made.pop(Claims.__name__)
    made[Command.__name__]["allOf"] = [_command(name, reference) for name in COMMANDS]
    made["Deposit"] = DEPOSIT
    for kind in Kind:
        body = MODELS[kind].__name__ if kind in MODELS else "Deposit"
        properties = {**claims["properties"], "body": {"$ref": reference.format(model=body)}}
        made[payload_name(kind)] = {
            **claims,
            "title": f"Payload of {kind.typ}",
            "description": f"At most {CAPS[kind]} bytes with its signatures.",
            "properties": properties,
        }
    return made


def _command(name: str, reference: str) -> Json:
    rank, model = COMMANDS[name]
    args = {"$ref": reference.format(model=model.__name__)}
    return {
        "if": {"properties": {"name": {"const": name}}},
        "then": {"properties": {"class": {"const": rank}, "args": args}},
    }


def documents() -> dict[str, Json]:
    """The payload of each kind of envelope, and the welcome, each as a file of its own."""
    made = parts(LOCAL)
    files = {
        f"document-{kind}": document(
            f"document-{kind}", f"Payload of {kind.typ}", made[payload_name(kind)], made
        )
        for kind in Kind
    }
    welcome = document("welcome", "What a device is answered", made[WelcomeFile.__name__], made)
    return {**files, "welcome": welcome}


def rows() -> dict[str, Json]:
    """The plaintext of a page of each bundle, and one row of it; and the key page."""
    made = parts(LOCAL)
    files = {}
    for bundle, model in ROWS.items():
        row = made[model.__name__]
        files[f"row-{bundle}"] = document(f"row-{bundle}", f"A row of the {bundle}", row, made)
        page = {
            "type": "object",
            "required": ["rows"],
            "additionalProperties": False,
            "properties": {"rows": {"type": "array", "items": {"$ref": LOCAL.format(model=model.__name__)}}},
        }
        files[f"page-{bundle}"] = document(f"page-{bundle}", f"A page of the {bundle}, unsealed", page, made)
    return {**files, "page-key": document("page-key", "The key page, unsealed", made[KeyPage.__name__], made)}
