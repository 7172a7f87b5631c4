"""Entries about the agent itself: its devices, its journal, its clock and its way to the fleet."""

from agent.schema.entry_type import EntryType, Subject
from agent.workflow import Lane

STATE, TELEMETRY, CUSTODY = Lane.STATE, Lane.TELEMETRY, Lane.CUSTODY
DEVICE, UNIT, PART = Subject.DEVICE, Subject.UNIT, Subject.PART

AGENT = (
    EntryType("agent.started", DEVICE, "The agent runs.", "version config units held roster_age_s", STATE),
    EntryType("agent.stopped", DEVICE, "The agent was told to stop, and does.", "", STATE),
    EntryType("agent.fault", PART, "A part of the agent failed, and starts again.", "error topic?", STATE),
    EntryType(
        "clock.corrected",
        DEVICE,
        "Better time: what it means for the entries of this boot before it.",
        "boot epoch_ns old_epoch_ns trust old_trust offset_s",
        STATE,
    ),
    EntryType("clock.disputed", DEVICE, "Two sources of time disagree.", "source:maybe_text", STATE),
    EntryType(
        "position.tracked",
        DEVICE,
        "The device has moved, or time has passed.",
        "unit speed_mps satellites",
        TELEMETRY,
    ),
    EntryType("position.lost", UNIT, "There is no fix any more.", "reason", TELEMETRY),
)

DEVICES = (
    EntryType("device.ready", UNIT, "A device answers.", "kind port about", STATE),
    EntryType("device.lost", UNIT, "A device does not answer any more, and why.", "reason detail", STATE),
    EntryType("device.board_ready", UNIT, "A board on a bus answers.", "board doors", STATE),
    EntryType("device.board_lost", UNIT, "A board on a bus does not answer any more.", "board doors", STATE),
    EntryType(
        "device.noise_counted",
        UNIT,
        "Bytes came that were no message, so many of each sort.",
        "counts",
        TELEMETRY,
    ),
    EntryType(
        "device.action_done", UNIT, "What a device was ordered to do is done.", "action reason", TELEMETRY
    ),
    EntryType(
        "device.action_failed",
        UNIT,
        "What a device was ordered to do is not done, and why.",
        "action reason",
        TELEMETRY,
    ),
    EntryType("device.finger_enrolled", UNIT, "A finger was taught, or not.", "slot ok reason", STATE),
    EntryType("device.finger_forgotten", UNIT, "A slot was emptied at the device.", "slot ok reason", STATE),
    EntryType("device.tag_left", UNIT, "A tag left the field.", "technology", TELEMETRY),
    EntryType("device.input_changed", UNIT, "A contact was made or broken.", "unit input closed first"),
)

JOURNAL = (
    EntryType(
        "journal.opened",
        DEVICE,
        "The first entry of a journal, and the last checkpoint of the one before.",
        "previous",
        STATE,
    ),
    EntryType(
        "journal.damaged",
        DEVICE,
        "A file was damaged and set aside; what of it is here, and what is not.",
        "file epoch reason kept copied last lost lost_ranges more_may_be_lost records_lost records_doubtful",
    ),
    EntryType(
        "journal.rolled_back",
        DEVICE,
        "This journal is an older copy of itself: somebody put it back.",
        "origin size cosigned root",
    ),
    EntryType("journal.filling", DEVICE, "The journal is filling up.", "used size", STATE),
    EntryType(
        "journal.filled",
        DEVICE,
        "The journal is full: nothing is taken into custody any more.",
        "used size",
        STATE,
    ),
    EntryType("journal.recovered", DEVICE, "The journal has room again.", "used? size?", STATE),
    EntryType(
        "journal.declared_loss",
        DEVICE,
        "Entries are gone; what their places in the tree need is told.",
        "lane count ranges leaves? unwritten?",
        STATE,
    ),
)

UPLINK = (
    EntryType("uplink.connected", DEVICE, "The broker answers.", "offline_s backlog lanes", STATE),
    EntryType("uplink.lost", DEVICE, "The broker does not answer any more, and why.", "reason code", STATE),
    EntryType(
        "uplink.subscription_refused",
        DEVICE,
        "The broker does not let the device hear the fleet.",
        "reason code",
        STATE,
    ),
    EntryType(
        "uplink.entry_passed_over",
        Subject.ENTRY,
        "The broker never takes this entry; its place in the tree is told.",
        "sequence bytes reason lane leaf",
    ),
    EntryType("ferry.loaded", DEVICE, "Cargo for another device is on board.", "file for sha256", STATE),
    EntryType(
        "ferry.unloaded",
        DEVICE,
        "Cargo for this device was taken.",
        "file for sha256 brought lacking refused?",
        STATE,
    ),
    EntryType(
        "ferry.refused", DEVICE, "Cargo was not taken, and why.", "file reason for? sha256? brought?", STATE
    ),
    EntryType(
        "ferry.handed_over", DEVICE, "Cargo for another device has reached it.", "device sha256", STATE
    ),
)
