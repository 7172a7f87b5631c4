"""Entries about lockers and about doors."""

from agent.schema.entry_type import EntryType, Subject
from agent.workflow import Lane

PARCEL, COMPARTMENT, UNIT = Subject.PARCEL, Subject.COMPARTMENT, Subject.UNIT
DRIVER, DOOR = Subject.DRIVER, Subject.DOOR

LOCKER = (
    EntryType(
        "locker.session_opened",
        DRIVER,
        "A courier or technician is at the desk.",
        "unit factors level role knowledge_age_s second_person?",
    ),
    EntryType("locker.session_closed", DRIVER, "Nobody is at the desk any more, and why.", "reason"),
    EntryType("locker.parcel_scanned", PARCEL, "A parcel is to be deposited.", "by unit evidence:object"),
    EntryType("locker.deposit_cancelled", PARCEL, "A parcel is not deposited after all.", "by"),
    EntryType(
        "locker.refused",
        PARCEL,
        "What was asked for at the desk is not done, and why.",
        "unit reason size:text? compartment? length:count?",
    ),
    EntryType(
        "locker.opening_intended",
        COMPARTMENT,
        "The door is about to be opened: remembered before its pulse.",
        "purpose by grant parcel size:text? way? command? operator? reason?",
    ),
    EntryType(
        "locker.round_begun",
        DRIVER,
        "A technician is there: doors that the fleet named open one after the other.",
        "command compartments factors level",
    ),
    EntryType("locker.opening_used", COMPARTMENT, "The door was open and is shut.", "purpose by content"),
    EntryType(
        "locker.not_opened", PARCEL, "Nothing shows that the door was open.", "compartment purpose why grant"
    ),
    EntryType(
        "locker.outcome_unknown",
        PARCEL,
        "Nobody knows whether the door was open.",
        "compartment purpose why grant",
    ),
    EntryType(
        "locker.deposited",
        PARCEL,
        "A parcel lies in a compartment; codes for it are sealed for the fleet.",
        "compartment by until:maybe_count content grant sealed receipt",
    ),
    EntryType(
        "locker.returned",
        PARCEL,
        "A recipient gave a parcel back.",
        "compartment by until:maybe_count content",
    ),
    EntryType(
        "locker.deposit_abandoned",
        COMPARTMENT,
        "A parcel was to be deposited, and the door was shut on nothing.",
        "parcel by evidence",
    ),
    EntryType("locker.collected", PARCEL, "The recipient took the parcel.", "compartment by grant content"),
    EntryType("locker.retrieved", PARCEL, "A courier took the parcel.", "compartment by grant content"),
    EntryType(
        "locker.left_behind",
        PARCEL,
        "The door was shut with the parcel still inside.",
        "compartment by grant",
    ),
    EntryType(
        "locker.taken_out",
        PARCEL,
        "Somebody in charge opened the door, and the parcel is seen to be gone.",
        "compartment by purpose",
    ),
    EntryType("locker.expired", PARCEL, "The parcel was not collected in time.", "compartment"),
    EntryType(
        "locker.code_refused",
        UNIT,
        "A code was shown that opens nothing, and why.",
        "reason way grant selector",
    ),
    EntryType("locker.codes_paused", UNIT, "Too many wrong codes: none counts for a while.", "pause_s"),
    EntryType(
        "locker.pins_disabled",
        UNIT,
        "Too many wrong PINs: none counts until a technician restores them.",
        "wrong",
    ),
    EntryType("locker.pins_restored", DRIVER, "A technician restored PINs.", "unit"),
    EntryType(
        "locker.grant_restored", COMPARTMENT, "A grant whose door never opened is good again.", "grant"
    ),
    EntryType("locker.lease_refused", COMPARTMENT, "The fleet's word opens nothing now.", "reason command"),
    EntryType(
        "locker.compartment_quarantined",
        COMPARTMENT,
        "Nobody gets this compartment until a person has looked at it.",
        "reason",
    ),
    EntryType(
        "locker.compartment_released",
        COMPARTMENT,
        "A person has looked at the compartment, and it can be used again.",
        "reason was",
    ),
    EntryType(
        "locker.service_refused",
        COMPARTMENT,
        "What was asked at the command line does not fit how the compartment is.",
        "action reason why",
    ),
    EntryType("locker.in_service", UNIT, "The doors of a lock board can be used.", "compartments:count"),
    EntryType(
        "locker.out_of_service",
        UNIT,
        "The doors of a lock board cannot be used, and why.",
        "compartments reason",
    ),
)

_PULSE = "reason unit? door?"
"""Of a compartment where a locker minds the door; elsewhere of a unit's door, which it names."""

DOORS = (
    EntryType("door.pulsed", DOOR, "The lock board has given the pulse.", _PULSE),
    EntryType("door.not_pulsed", DOOR, "The lock board has given no pulse, and why.", _PULSE),
    EntryType(
        "door.pulse_unknown", DOOR, "A pulse was ordered, and nothing tells whether it was given.", _PULSE
    ),
    EntryType("door.unlatched", COMPARTMENT, "The hook let go.", "evidence"),
    EntryType("door.opened", COMPARTMENT, "The door stands open.", "evidence"),
    EntryType("door.closed", COMPARTMENT, "The door is shut; the hook does not hold it yet.", "evidence"),
    EntryType("door.held", COMPARTMENT, "Alarm: the door stands open for too long.", "purpose grant"),
    EntryType(
        "door.not_latched", COMPARTMENT, "Alarm: the door is shut, and no hook holds it.", "purpose grant"
    ),
    EntryType(
        "door.forced", COMPARTMENT, "Alarm: the door is open, and nobody was to open it.", "beside parcel"
    ),
    EntryType("door.found_open", COMPARTMENT, "The door was open when it was looked at first.", "evidence"),
    EntryType("door.shut_again", COMPARTMENT, "A door that was found or forced open is shut."),
    EntryType("door.bounced", COMPARTMENT, "A door sprang open after a slam, and is shut."),
    EntryType(
        "door.changed",
        DOOR,
        "A sensor says something else of a door than before.",
        "unit door state source first",
    ),
    EntryType(
        "door.content_changed",
        DOOR,
        "Something lies behind the door, or no longer does.",
        "unit door occupied",
    ),
    EntryType(
        "door.solenoid_changed",
        DOOR,
        "The coil of a lock is on, or off.",
        "unit door energised",
        Lane.TELEMETRY,
    ),
)
