"""Custody as GS1 EPCIS 2.0 events in JSON-LD, for whoever shares a parcel's history with partners. Pure.

    document(entries, "2026-11-24T09:00:00Z")["epcisBody"]["eventList"]

A parcel's entry becomes one ObjectEvent that observes it. GS1 keys are named by their Digital Link, drivers
by reference, and everything else by a URN of our own. What EPCIS has no word for stands under `postern:`.
Entries about sessions, refusals, credentials and devices are no EPCIS matter: the journal is their record.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import NAMESPACE_URL, uuid5

from agent.clock import rfc3339
from agent.gs1 import check_digit

CONTEXT = (
    "https://ref.gs1.org/standards/epcis/2.0.0/epcis-context.jsonld",
    {"postern": "urn:postern:epcis:"},
)

Entry = Mapping[str, Any]
Json = dict[str, Any]
Key = tuple[str, str]
"""Source and id: what CloudEvents promises to be unique."""
Lookup = Callable[[str, str], Entry | None]
"""The entry of this source with this id, or None."""

RULES: Mapping[str, Mapping[str, Any] | None] = {
    # At a gate or belt nobody says why the parcel passes: no step is better than a guessed one.
    "custody.seen": {},
    "custody.accepted": {"bizStep": "accepting", "disposition": "in_transit"},
    "custody.offered": {"bizStep": "staging_outbound", "disposition": "in_transit"},
    "custody.handed_over": {"bizStep": "accepting"},
    "custody.exception_noted": {"bizStep": "other", "disposition": "in_transit"},
    # It corrects the event of another entry: `declared_wrong`.
    "custody.corrected": None,
    # Storing it in a locker is the end of transit; who takes it out accepts it.
    "locker.deposited": {"bizStep": "storing", "disposition": "in_progress"},
    "locker.returned": {"bizStep": "storing", "disposition": "in_progress"},
    "locker.collected": {"bizStep": "accepting", "disposition": "in_progress"},
    "locker.retrieved": {"bizStep": "accepting", "disposition": "in_transit"},
    # A refused scan changed nothing; the rest is about people and controls, not about a parcel.
    "custody.refused": None,
    "custody.untracked": None,
    "custody.session_opened": None,
    "custody.session_closed": None,
    "custody.handover_opened": None,
    "custody.handover_closed": None,
    "custody.handover_refused": None,
    "custody.handover_abandoned": None,
    "custody.exception_opened": None,
    "custody.exception_cancelled": None,
    "custody.correction_opened": None,
    "custody.correction_lapsed": None,
    "custody.correction_cancelled": None,
    "custody.control_refused": None,
    "custody.code_refused": None,
}
"""What the Core Business Vocabulary calls each custody entry; None for no EPCIS matter."""

HANDED_OVER: Mapping[str, Mapping[str, str]] = {
    "driver": {"disposition": "in_transit"},
    "recipient": {"disposition": "in_progress"},
    "locker": {"disposition": "in_progress"},
}
"""By receiver. The vocabulary has no word for delivered; `in_progress` says that transit is over."""

EXCEPTIONS: Mapping[str, Mapping[str, Any]] = {
    # Persistent, because a disposition holds only until the next event: the handover must not heal it.
    "damaged": {
        "bizStep": "inspecting",
        "disposition": "damaged",
        "persistentDisposition": {"set": ["damaged"]},
    },
    "held": {"bizStep": "holding", "disposition": "in_transit"},
    "refused": {},
    "absent": {},
    "wrong_address": {},
}
"""By exception, over the rule of `custody.exception_noted`."""

_REASONS = ("did_not_occur", "incorrect_data")
_WORD = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SET_82 = r"""[!"%-?A-Z_a-z]"""
"""GS1's characters for serials: ISO/IEC 646 without space, `#`, `$` and what else differs by country."""


class _Form(NamedTuple):
    """How one kind of id is named."""

    pattern: re.Pattern[str]
    uri: str
    is_class: bool = False
    """It names a kind of thing, of which this parcel is one."""


def _key_form(kind: str, digits: int, serial: int, uri: str, *, is_class: bool = False) -> _Form:
    """A GS1 key: so many digits, the last a check digit, and a serial of up to so many characters."""
    parts = []
    if digits:
        parts.append(f"(?P<number>[0-9]{{{digits}}})")
    if serial:
        parts.append(f"(?P<serial>{_SET_82}{{1,{serial}}})")
    return _Form(re.compile(f"{kind}:" + r"\.".join(parts)), f"https://id.gs1.org/{uri}", is_class)


_FORMS = (
    _key_form("sscc", 18, 0, "00/{number}"),
    _key_form("sgtin", 14, 20, "01/{number}/21/{serial}"),
    _key_form("gtin", 14, 0, "01/{number}", is_class=True),
    _key_form("grai", 14, 16, "8003/{number}{serial}"),
    _key_form("grai", 14, 0, "8003/{number}", is_class=True),
    _key_form("giai", 0, 30, "8004/{serial}"),
    _key_form("gdti", 13, 17, "253/{number}{serial}"),
    _key_form("gdti", 13, 0, "253/{number}", is_class=True),
    _key_form("gsin", 17, 0, "402/{number}"),
    _key_form("ginc", 0, 30, "401/{serial}"),
    _Form(re.compile(r"gid:(?P<serial>[0-9]+\.[0-9]+\.[0-9]+)"), "urn:epc:id:gid:{serial}"),
)
"""Keys that name things. Places (GLN) and relations with people (GSRN) are none: they keep our own name."""


def document(entries: Iterable[Entry], created: str, lookup: Lookup = lambda _source, _id: None) -> Json:
    """An EPCISDocument with the events of these entries, in their order and with corrected times.

    Raises LookupError when an entry corrects one that is neither here nor found by `lookup`.
    """
    told = list(entries)
    wrong = _corrected_entries(told, lookup)
    times = corrected_times([*told, *wrong.values()])
    events = (_event(entry, wrong, times) for entry in told)
    return {
        "@context": list(CONTEXT),
        "type": "EPCISDocument",
        "schemaVersion": "2.0",
        "creationDate": created,
        "epcisBody": {"eventList": [found for found in events if found]},
    }


def event(entry: Entry, time: str | None = None) -> Json | None:
    """The ObjectEvent of a parcel's entry, None for no EPCIS matter. `time` is better than its own."""
    kind = _kind(entry)
    rule = RULES.get(kind)
    data = entry["data"]
    # A compartment of which nobody knows what was in it stands for no parcel.
    if rule is None or entry["subject"] == data.get("compartment"):
        return None
    tenant, device = _where(entry["source"])
    place = data.get("unit") or data["compartment"]
    return {
        "type": "ObjectEvent",
        "eventID": event_id(entry["source"], entry["id"]),
        "eventTime": time or entry["time"],
        "eventTimeZoneOffset": "+00:00",
        "action": "OBSERVE",
        **_named(entry["subject"]),
        **rule,
        "readPoint": {"id": _urn("device", tenant, device, place)},
        **_particulars(kind, entry["subject"], _where(entry["source"]), data),
        **_evidence(entry),
    }


def declared_wrong(
    original: Entry, correction: Entry, *, time: str | None = None, declared: str | None = None
) -> Json | None:
    """The event of `original` once more, id included, and the declaration that it is wrong.

    None where the original had no event. `time` and `declared` are better than the entries' own times.
    """
    repeated = event(original, time)
    if repeated is None:
        return None
    data = correction["data"]
    declaration: Json = {"declarationTime": declared or correction["time"]}
    if reason := _reason(data.get("reason", "")):
        declaration["reason"] = reason
    if "instead" in data:
        declaration["correctiveEventIDs"] = [event_id(correction["source"], data["instead"])]
    return {**repeated, "errorDeclaration": declaration}


def corrected_times(entries: Iterable[Entry]) -> dict[Key, str]:
    """Better times of the entries made before the latest clock correction of their device's boot."""
    known = list(entries)
    corrections = sorted((entry for entry in known if _kind(entry) == "clock.corrected"), key=_mono_ns)
    latest = {_boot(entry): entry for entry in corrections}
    times = {}
    for entry in known:
        correction = latest.get(_boot(entry))
        if correction and _mono_ns(entry) < _mono_ns(correction):
            times[_key(entry)] = rfc3339(_mono_ns(entry) + correction["data"]["epoch_ns"])
    return times


def event_id(source: str, id_: str) -> str:
    """The same for an entry wherever and whenever it is told."""
    return uuid5(NAMESPACE_URL, f"{source}#{id_}").urn


# -- entries --------------------------------------------------------------------------------------


def _kind(entry: Entry) -> str:
    type_: str = entry["type"]
    return type_.removeprefix("postern.")


def _key(entry: Entry) -> Key:
    return entry["source"], entry["id"]


def _mono_ns(entry: Entry) -> int:
    mono_ns: int = entry["data"]["clock"]["mono_ns"]
    return mono_ns


def _boot(entry: Entry) -> tuple[str, str]:
    return entry["source"], entry["data"]["clock"]["boot"]


def _where(source: str) -> tuple[str, str]:
    """Tenant and device of `/postern/<tenant>/<device>`."""
    tenant, _, device = source.removeprefix("/postern/").partition("/")
    return tenant, device


def _corrected_entries(entries: list[Entry], lookup: Lookup) -> dict[Key, Entry]:
    """For each correction, by its key, the entry that it corrects."""
    known = {_key(entry): entry for entry in entries}
    found = {}
    for entry in entries:
        if _kind(entry) != "custody.corrected":
            continue
        source, wanted = entry["source"], entry["data"]["corrects"]
        original = known.get((source, wanted)) or lookup(source, wanted)
        if original is None:
            raise LookupError(f"{entry['id']} corrects {wanted} of {source}: expected that entry, got none")
        found[_key(entry)] = original
    return found


def _event(entry: Entry, wrong: Mapping[Key, Entry], times: Mapping[Key, str]) -> Json | None:
    time = times.get(_key(entry))
    original = wrong.get(_key(entry))
    if original is None:
        return event(entry, time)
    return declared_wrong(original, entry, time=times.get(_key(original)), declared=time)


# -- names ----------------------------------------------------------------------------------------


def _urn(*parts: str) -> str:
    return ":".join(("urn:postern", *(quote(part, safe="") for part in parts)))


def _named(subject: str) -> Json:
    """What was observed: one thing, or one of a kind."""
    for form in _FORMS:
        found = form.pattern.fullmatch(subject)
        if found and _is_right(found.groupdict().get("number")):
            parts = {name: quote(part, safe="") for name, part in found.groupdict().items()}
            uri = form.uri.format(**parts)
            one_of_a_kind = {"quantityList": [{"epcClass": uri, "quantity": 1}]}
            return one_of_a_kind if form.is_class else {"epcList": [uri]}
    return {"epcList": [_urn("parcel", *_split(subject))]}


def _split(subject: str) -> list[str]:
    return subject.split(":", 1)


def _is_right(number: str | None) -> bool:
    return number is None or check_digit(number[:-1]) == number[-1]


def _reason(reason: str) -> str | None:
    """The vocabulary's word, or ours as a URN. Free text stays in the journal: it may name people."""
    if reason in _REASONS:
        return reason
    return _urn("reason", reason) if _WORD.fullmatch(reason) else None


# -- what, why and who, by type -------------------------------------------------------------------


def _particulars(kind: str, subject: str, where: tuple[str, str], data: Entry) -> Json:
    """What only this type of entry tells: parties, place, exception."""
    tenant, device = where
    match kind:
        case "custody.accepted":
            return {"destinationList": [_destination(_urn("driver", tenant, data["by"]))]}
        case "custody.offered":
            return {"sourceList": [_source(_urn("driver", tenant, data["by"]))]}
        case "custody.handed_over":
            return _handed_over(subject, tenant, data)
        case "custody.exception_noted":
            told = {"postern:exception": data["exception"], "postern:by": _urn("driver", tenant, data["by"])}
            return {**EXCEPTIONS.get(data["exception"], {}), **told}
        case "locker.deposited" | "locker.returned":
            return {
                "bizLocation": {"id": _urn("locker", tenant, device, data["compartment"])},
                **_giver(tenant, data),
            }
        case "locker.collected":
            return {"destinationList": [_destination(_urn("recipient", tenant, *_split(subject)))]}
        case "locker.retrieved" if isinstance(data.get("by"), str):
            return {"destinationList": [_destination(_urn("driver", tenant, data["by"]))]}
        case _:
            return {}


def _giver(tenant: str, data: Entry) -> Json:
    """The courier who gave it up, where one is named."""
    by = data.get("by")
    return {"sourceList": [_source(_urn("driver", tenant, by))]} if isinstance(by, str) else {}


def _handed_over(subject: str, tenant: str, data: Entry) -> Json:
    to = data["to"]
    # Nobody names a recipient here: it is whoever this parcel was for.
    receiver = [to["ref"]] if "ref" in to else _split(subject)
    told: Json = {
        **HANDED_OVER.get(to["kind"], {}),
        "sourceList": [_source(_urn("driver", tenant, data["from"]))],
        "destinationList": [_destination(_urn(to["kind"], tenant, *receiver))],
    }
    if "door" in to:
        told["bizLocation"] = {"id": _urn("locker", tenant, to["ref"], to["door"])}
    if "evidence" in to:
        told["postern:evidence"] = to["evidence"]
    return told


def _source(uri: str) -> Json:
    return {"type": "possessing_party", "source": uri}


def _destination(uri: str) -> Json:
    return {"type": "possessing_party", "destination": uri}


def _evidence(entry: Entry) -> Json:
    """Where this can be looked up, how far its time was trusted, and where the device was."""
    data = entry["data"]
    told = {
        "postern:entry": entry["id"],
        "postern:entryType": entry["type"],
        "postern:recordedTime": entry["time"],
        "postern:recordedTrust": data["clock"]["trust"],
    }
    if position := data.get("position"):
        known = {f"postern:{name}": value for name, value in position.items() if value is not None}
        return {**told, "postern:position": known}
    return {**told, "postern:positionMissing": data.get("position_missing", "unknown")}
