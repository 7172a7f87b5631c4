"""What of a device's entries somebody should look at now, and what says that it is over. No I/O."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from agent.fleet.device_log import Entry

MOST = 200
"""Alarms kept of one device; the oldest go first."""

ALARMS: Mapping[str, str] = {
    "door.forced": "door forced",
    "door.held": "door held open",
    "door.not_latched": "door not latched",
    "door.found_open": "door found open",
    "door.pulse_unknown": "nobody knows whether a door was pulsed",
    "locker.compartment_quarantined": "compartment in quarantine",
    "locker.left_behind": "something left behind",
    "locker.outcome_unknown": "nobody knows whether a door was used",
    "locker.out_of_service": "compartments out of service",
    "locker.pins_disabled": "PINs disabled after wrong ones",
    "locker.codes_paused": "wrong codes, the desk rests",
    "identity.clone_suspected": "clone of a card suspected",
    "identity.peripheral_changed": "another module than before",
    "identity.inventory_mismatch": "module holds fingers that nobody knows",
    "identity.template_not_deleted": "finger still in its module",
    "identity.wipe_begun": "keys are being wiped",
    "identity.wiped": "keys wiped",
    "identity.roster_damaged": "roster damaged, to be brought again",
    "journal.filling": "journal filling",
    "journal.filled": "journal full",
    "journal.damaged": "journal damaged, salvaged",
    "journal.declared_loss": "entries lost, declared",
    "journal.rolled_back": "record rolled back",
    "uplink.entry_passed_over": "entry that the broker will not take",
    "config.refused": "config refused",
    "config.reverted": "config taken back",
    "fleet.root_refused": "root refused",
    "fleet.knowledge_aged": "the fleet's word grows old there",
    "keys.certificate_expiring": "certificate about to expire",
    "keys.certificate_refused": "new certificate refused",
    "command.outcome_unknown": "nobody knows what became of a command",
    "clock.disputed": "clocks disagree",
    "agent.fault": "a part failed",
    "device.lost": "unit lost",
    "device.board_lost": "board lost",
}
"""By type of entry."""

OUTCOMES: Mapping[str, str] = {
    "locked": "locked after failures",
    "disabled": "disabled after failures",
    "cloned": "clone of a card refused",
    "forged": "forged card refused",
    "doubted": "reader not believed",
}
"""Of a refusal (`identity.refused`)."""

REFUSALS: Mapping[str, str] = {
    "budget": "more commands than the budget allows",
    "mixed": "two documents under one version",
    "fast_forward": "version driven far ahead",
    "bad_signature": "signature forged or damaged",
}
"""Of a refusal (`fleet.<kind>_refused`): what a fleet whose keys and folder are its own does not cause."""

AGREED = "clocks agree"
"""What `clock.disputed` says the second time, with no source."""

ENDS: Mapping[str, Sequence[str]] = {
    "door.shut_again": ("door.forced", "door.found_open"),
    "door.closed": ("door.held",),
    "door.pulsed": ("door.held", "door.not_latched"),
    "journal.recovered": ("journal.filling", "journal.filled"),
    "locker.compartment_released": ("locker.compartment_quarantined",),
    "fleet.knowledge_renewed": ("fleet.knowledge_aged",),
    "config.confirmed": ("config.refused", "config.reverted"),
    "locker.in_service": ("locker.out_of_service",),
    "locker.pins_restored": ("locker.pins_disabled",),
    AGREED: ("clock.disputed",),
    "keys.certificate_renewed": ("keys.certificate_expiring", "keys.certificate_refused"),
    "fleet.bundle_completed": ("identity.roster_damaged",),
    "device.ready": ("device.lost",),
    "device.board_ready": ("device.board_lost",),
    "identity.peripheral_believed": ("identity.peripheral_changed",),
    "identity.inventory_matched": ("identity.inventory_mismatch",),
    "identity.template_deleted": ("identity.template_not_deleted",),
    "identity.subject_unlocked": ("identity.refused",),
    "identity.reader_unlocked": ("identity.refused",),
    "identity.renewed": ("identity.wipe_begun", "identity.wiped"),
}
"""What is over with an entry of the same subject."""

GRAVE = frozenset({"door.forced", "identity.clone_suspected", "journal.rolled_back", "identity.wipe_begun"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Alarm:
    """One, with the time that the entry bears."""

    device: str
    at: str
    type: str
    """Of the entry, without `postern.`; of a finding, its kind."""
    subject: str
    text: str
    grave: bool = False
    over: bool = False

    def as_json(self) -> dict[str, Any]:
        told = {"at": self.at, "type": self.type, "subject": self.subject, "text": self.text}
        return {**told, "grave": self.grave, "over": self.over}


def alarm_of(device: str, entry: Entry) -> Alarm | None:
    """None for an entry that worries nobody."""
    kind, data = _kind(entry), _data(entry)
    text = ALARMS.get(kind)
    if kind == "identity.refused":
        text = "reader rests after failures" if data.get("reader_paused") is True else None
        text = OUTCOMES.get(str(data.get("outcome")), text)
    if text is None and kind.startswith("fleet.") and kind.endswith("_refused"):
        text = REFUSALS.get(str(data.get("reason")))
    if text is None:
        return None
    return Alarm(
        device=device,
        at=entry["time"],
        type=kind,
        subject=_subject(entry),
        text=text,
        grave=kind in GRAVE,
    )


def over(alarms: Sequence[Alarm], entry: Entry) -> list[Alarm]:
    """The alarms as they are after this entry, oldest first."""
    ended, subject = ENDS.get(_kind(entry), ()), _subject(entry)
    return [
        replace(each, over=True) if each.type in ended and each.subject == subject else each
        for each in alarms
    ]


def _kind(entry: Entry) -> str:
    kind: str = entry["type"]
    if kind == "postern.clock.disputed" and _data(entry).get("source") is None:
        return AGREED
    return kind.removeprefix("postern.")


def _subject(entry: Entry) -> str:
    subject = entry.get("subject")
    return subject if isinstance(subject, str) else ""


def _data(entry: Entry) -> Mapping[str, Any]:
    data = entry.get("data")
    return data if isinstance(data, dict) else {}
