"""Entries about what the fleet has told: documents, and commands with their outcomes."""

from agent.schema.entry_type import EntryType, Subject
from agent.workflow import Lane

STATE, CUSTODY = Lane.STATE, Lane.CUSTODY
DEVICE = Subject.DEVICE

_DOCUMENT = "name ver sha256 key? epoch:count? documents? via?"
_REFUSED = "reason detail times via?"

ACCEPTED = tuple(
    EntryType(f"fleet.{kind}_accepted", DEVICE, f"{what} is in force.", _DOCUMENT, STATE)
    for kind, what in {
        "root": "A new root",
        "head": "A newer list of what is current",
        "config": "A config",
        "revocations": "More of what was taken away",
        "bundle": "A newer list of pages",
    }.items()
)
REFUSED = (
    EntryType(
        "fleet.root_refused",
        DEVICE,
        "A root changes nothing, and why.",
        "reason detail times? remembered? via?",
        STATE,
        also=CUSTODY,
    ),
    *(
        EntryType(f"fleet.{kind}_refused", DEVICE, f"{what} changes nothing, and why.", _REFUSED, STATE)
        for kind, what in {
            "head": "A head",
            "config": "A config",
            "revocations": "A list of revocations",
            "bundle": "A list of pages",
            "command": "A command",
            "time": "An answer about the time",
        }.items()
    ),
)

FLEET = (
    *ACCEPTED,
    *REFUSED,
    EntryType("fleet.root_pinned", DEVICE, "A root was put here by hand.", "ver sha256", STATE),
    EntryType(
        "fleet.bundle_completed",
        DEVICE,
        "All pages of a bundle are in force.",
        "kind ver rows pages changed",
        STATE,
    ),
    EntryType(
        "fleet.page_refused",
        DEVICE,
        "A page is not taken, and why.",
        "kind:maybe_text bucket:bucket reason detail times",
        STATE,
    ),
    EntryType(
        "fleet.knowledge_aged",
        DEVICE,
        "The fleet's word has grown old by a step; `freshness` says to which.",
        "knowledge_age_s",
        STATE,
    ),
    EntryType("fleet.knowledge_renewed", DEVICE, "It is fresh again.", "knowledge_age_s", STATE),
    EntryType("fleet.receipt_refused", DEVICE, "A receipt is none, and why.", "reason detail", STATE),
    EntryType(
        "fleet.refusals_counted",
        DEVICE,
        "Refusals that were counted, not told one by one.",
        "times:table",
        STATE,
    ),
)

_COMMAND = "command key sequence class name args operator reason"
_ROUND = "present? opened? not_opened? unknown? left?"
_OUTCOME = f"{_COMMAND} detail? status? again? counts? sha256? bytes? lines:count? request:count? {_ROUND}"

KEYS = (
    EntryType(
        "keys.requested",
        DEVICE,
        "New keys were made, and the fleet is asked to take them.",
        "request:count keys reason",
        STATE,
    ),
    EntryType("keys.seal_taken", DEVICE, "The fleet seals to the new key.", "request:count", STATE),
    EntryType(
        "keys.seal_changed",
        DEVICE,
        "All that is in force came sealed to the new key; the old one is gone.",
        "request:count",
        STATE,
    ),
    EntryType(
        "keys.certificate_renewed",
        DEVICE,
        "The broker has let the device in with a new certificate: it is in force.",
        "request:count until:text",
        STATE,
    ),
    EntryType(
        "keys.certificate_refused",
        DEVICE,
        "A new certificate comes to nothing, and why; the one before stays.",
        "request:count reason",
        STATE,
    ),
    EntryType("keys.certificate_expiring", DEVICE, "The certificate is near its end.", "until:text", STATE),
)

COMMANDS = (
    EntryType("command.accepted", DEVICE, "A command is about to be carried out.", _COMMAND),
    EntryType("command.succeeded", DEVICE, "A command was carried out.", _OUTCOME, also=STATE),
    EntryType("command.failed", DEVICE, "A command was not carried out, and why.", _OUTCOME, also=STATE),
    EntryType(
        "command.outcome_unknown",
        DEVICE,
        "Nobody knows whether a command was carried out.",
        _OUTCOME,
        also=STATE,
    ),
)
