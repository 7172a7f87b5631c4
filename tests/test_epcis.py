"""Entries as EPCIS events: each valid by GS1's own schema, and no custody entry forgotten."""

import ast
import json
import os
import re
from collections.abc import Callable
from datetime import datetime
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import custody, epcis, table, taking_back
from agent.clock import rfc3339

SCHEMA = Path(__file__).parents[2] / "shared" / "schemas" / "epcis-2.0.json"
CREATED = "2026-11-24T09:00:00Z"
SOURCE = "/postern/lab/van-0001"
PARCEL = "sscc:106141412345678908"
LINK = "https://id.gs1.org/00/106141412345678908"
START_NS = 1_795_507_200_000_000_000
"""2026-11-24T08:00:00Z, when the boot of these entries began by the device's first belief."""
SECOND = 1_000_000_000

FIX = {"lat": 51.507351, "lon": -0.127758, "age_s": 0.4, "hdop": None, "source": "gps"}
SCAN = {"raw": "UkIxMjM0NTY3ODVHQg==", "symbology": "]C0", "driver": "ssi", "scheme": "s10"}

_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+")

Entry = dict[str, Any]
Valid = Callable[[dict[str, Any]], None]


def entry(type_: str, subject: str = PARCEL, sequence: int = 1, boot: str = "b1", **data: Any) -> Entry:
    """An entry in the shape of the journal, made `sequence` seconds after boot."""
    mono_ns = sequence * SECOND
    return {
        "specversion": "1.0",
        "id": f"0a1b2c3d4e5f-{sequence}",
        "source": SOURCE,
        "type": f"postern.{type_}",
        "subject": subject,
        "time": rfc3339(START_NS + mono_ns),
        "sequence": str(sequence),
        "data": {
            "unit": "scanner",
            **data,
            "clock": {"boot": boot, "mono_ns": mono_ns, "trust": "rtc", "error_s": 60.0},
            "position": FIX,
        },
    }


def corrected(corrects: str, sequence: int = 9, **data: Any) -> Entry:
    return entry("custody.corrected", sequence=sequence, corrects=corrects, **data)


def clock_corrected(epoch_ns: int, sequence: int, boot: str = "b1") -> Entry:
    return entry("clock.corrected", "van-0001", sequence, boot, epoch_ns=epoch_ns)


def told(entries: list[Entry], **more: Any) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = epcis.document(entries, CREATED, **more)["epcisBody"]["eventList"]
    return events


def the_event(found: Entry) -> dict[str, Any]:
    event = epcis.event(found)
    assert event is not None
    return event


@pytest.fixture(scope="session")
def valid() -> Valid:
    """Raises for what GS1's schema refuses, formats included."""
    if not SCHEMA.exists():
        missing = f"{SCHEMA.name}: expected GS1's schema in shared/schemas beside the checkout, got no file"
        pytest.fail(missing) if os.environ.get("CI") else pytest.skip(missing)
    jsonschema = import_module("jsonschema")
    formats = jsonschema.FormatChecker(formats=())
    formats.checks("uri")(_is_uri)
    formats.checks("date-time", raises=ValueError)(_is_moment)
    checker = jsonschema.Draft7Validator(json.loads(SCHEMA.read_text()), format_checker=formats)
    return lambda document: checker.validate(json.loads(json.dumps(document)))


def _is_uri(value: object) -> bool:
    return not isinstance(value, str) or _URI.fullmatch(value) is not None


def _is_moment(value: object) -> bool:
    return not isinstance(value, str) or datetime.fromisoformat(value).tzinfo is not None


def driver(ref: str) -> str:
    return f"urn:postern:driver:lab:{ref}"


def handed_over(to: dict[str, Any], subject: str = PARCEL) -> Entry:
    data: dict[str, Any] = {"from": "d-17", "to": to, "of": 1}
    return entry("custody.handed_over", subject, **data)


TO_DRIVER = {"kind": "driver", "ref": "d-18", "factors": ["badge", "pin"]}
TO_RECIPIENT = {"kind": "recipient", "evidence": "statement", "by": "d-17"}
WITH_CODE = {"kind": "recipient", "evidence": "code", "code_digest": "9f86d081884c7d65"}
TO_LOCKER = {"kind": "locker", "ref": "l-5", "door": "12"}

ENTRIES = [
    entry("custody.seen", scan=SCAN),
    entry("custody.accepted", by="d-17", scan=SCAN),
    entry("custody.offered", by="d-17", to="recipient", scan=SCAN),
    *(entry("custody.exception_noted", by="d-17", exception=why, scan=SCAN) for why in custody.EXCEPTIONS),
    *(handed_over(to) for to in (TO_DRIVER, TO_RECIPIENT, WITH_CODE, TO_LOCKER)),
    *(
        entry(f"locker.{what}", unit=None, compartment="B7", by="d-17", grant=None, content="occupied")
        for what in ("deposited", "returned", "collected", "retrieved")
    ),
]


@pytest.mark.parametrize("found", ENTRIES, ids=lambda found: found["type"])
def test_every_event_is_valid_by_the_schema(valid: Valid, found: Entry) -> None:
    document = epcis.document([found], CREATED)
    assert len(document["epcisBody"]["eventList"]) == 1
    valid(document)


def test_a_deposit_is_stored_in_its_compartment_and_a_pickup_is_accepted_by_the_recipient() -> None:
    event = the_event(entry("locker.deposited", unit=None, compartment="B7", by="d-17"))
    assert (event["bizStep"], event["bizLocation"]) == (
        "storing",
        {"id": "urn:postern:locker:lab:van-0001:B7"},
    )
    assert event["sourceList"] == [{"type": "possessing_party", "source": driver("d-17")}]
    event = the_event(entry("locker.collected", unit=None, compartment="B7", by=None))
    recipient = "urn:postern:recipient:lab:sscc:106141412345678908"
    assert event["destinationList"] == [{"type": "possessing_party", "destination": recipient}]
    assert event["readPoint"] == {"id": "urn:postern:device:lab:van-0001:B7"}


def test_a_compartment_whose_parcel_nobody_knows_is_no_parcel() -> None:
    assert epcis.event(entry("locker.collected", "B7", unit=None, compartment="B7", by=None)) is None


def test_a_document_without_events_is_valid(valid: Valid) -> None:
    valid(epcis.document([], CREATED))


@pytest.mark.parametrize(
    "wrong",
    [
        {"bizStep": "delivering"},
        {"disposition": "delivered"},
        {"position": {}},
        {"eventTime": "yesterday"},
        {"epcList": ["a b"]},
    ],
)
def test_the_schema_refuses_what_is_wrong(valid: Valid, wrong: dict[str, Any]) -> None:
    document = epcis.document([entry("custody.seen")], CREATED)
    document["epcisBody"]["eventList"][0].update(wrong)
    with pytest.raises(import_module("jsonschema").ValidationError):
        valid(document)


def test_an_event_says_what_when_where_and_why() -> None:
    assert the_event(entry("custody.accepted", by="d-17", scan=SCAN)) == {
        "type": "ObjectEvent",
        "eventID": epcis.event_id(SOURCE, "0a1b2c3d4e5f-1"),
        "eventTime": "2026-11-24T08:00:01.000000Z",
        "eventTimeZoneOffset": "+00:00",
        "action": "OBSERVE",
        "epcList": [LINK],
        "bizStep": "accepting",
        "disposition": "in_transit",
        "readPoint": {"id": "urn:postern:device:lab:van-0001:scanner"},
        "destinationList": [{"type": "possessing_party", "destination": driver("d-17")}],
        "postern:entry": "0a1b2c3d4e5f-1",
        "postern:entryType": "postern.custody.accepted",
        "postern:recordedTime": "2026-11-24T08:00:01.000000Z",
        "postern:recordedTrust": "rtc",
        "postern:position": {
            "postern:lat": 51.507351,
            "postern:lon": -0.127758,
            "postern:age_s": 0.4,
            "postern:source": "gps",
        },
    }


def test_a_gate_that_nobody_stands_at_claims_no_business_step() -> None:
    event = the_event(entry("custody.seen"))
    assert "bizStep" not in event
    assert "disposition" not in event


def test_an_offered_parcel_still_belongs_to_who_offers_it() -> None:
    event = the_event(entry("custody.offered", by="d-17", to="driver"))
    assert event["bizStep"] == "staging_outbound"
    assert event["sourceList"] == [{"type": "possessing_party", "source": driver("d-17")}]
    assert "destinationList" not in event


@pytest.mark.parametrize(
    ("exception", "step", "disposition"),
    [
        ("damaged", "inspecting", "damaged"),
        ("held", "holding", "in_transit"),
        ("refused", "other", "in_transit"),
        ("absent", "other", "in_transit"),
        ("wrong_address", "other", "in_transit"),
        ("eaten_by_a_dog", "other", "in_transit"),
    ],
)
def test_an_exception_is_told_in_the_vocabulary_and_in_our_own_word(
    exception: str, step: str, disposition: str
) -> None:
    event = the_event(entry("custody.exception_noted", by="d-17", exception=exception))
    assert (event["bizStep"], event["disposition"]) == (step, disposition)
    assert (event["postern:exception"], event["postern:by"]) == (exception, driver("d-17"))


def test_damage_outlives_the_next_event() -> None:
    event = the_event(entry("custody.exception_noted", by="d-17", exception="damaged"))
    assert event["persistentDisposition"] == {"set": ["damaged"]}


@pytest.mark.parametrize(
    ("to", "receiver", "disposition"),
    [
        (TO_DRIVER, driver("d-18"), "in_transit"),
        (TO_RECIPIENT, "urn:postern:recipient:lab:sscc:106141412345678908", "in_progress"),
        (TO_LOCKER, "urn:postern:locker:lab:l-5", "in_progress"),
    ],
)
def test_a_handover_names_who_had_the_parcel_and_who_has_it(
    to: dict[str, Any], receiver: str, disposition: str
) -> None:
    event = the_event(handed_over(to))
    assert event["sourceList"] == [{"type": "possessing_party", "source": driver("d-17")}]
    assert event["destinationList"] == [{"type": "possessing_party", "destination": receiver}]
    assert (event["bizStep"], event["disposition"]) == ("accepting", disposition)


def test_a_parcel_in_a_locker_is_behind_its_door() -> None:
    assert the_event(handed_over(TO_LOCKER))["bizLocation"] == {"id": "urn:postern:locker:lab:l-5:12"}


def test_a_recipients_code_is_mentioned_but_never_its_digest() -> None:
    event = the_event(handed_over(WITH_CODE))
    assert event["postern:evidence"] == "code"
    assert WITH_CODE["code_digest"] not in json.dumps(event)


def test_a_missing_position_is_told_with_its_reason_and_the_last_known_one_is_not() -> None:
    found = entry("custody.seen")
    found["data"].update(position=None, position_missing="stale", last_known=FIX)
    event = the_event(found)
    assert event["postern:positionMissing"] == "stale"
    assert "51.507351" not in json.dumps(event)


# -- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        (PARCEL, LINK),
        ("sgtin:09506000134352.12345", "https://id.gs1.org/01/09506000134352/21/12345"),
        ("sgtin:09506000134352.a/b.c", "https://id.gs1.org/01/09506000134352/21/a%2Fb.c"),
        ("grai:09506000134376.7", "https://id.gs1.org/8003/095060001343767"),
        ("giai:95060001343ABC", "https://id.gs1.org/8004/95060001343ABC"),
        ("gdti:9506000134352.77", "https://id.gs1.org/253/950600013435277"),
        ("gsin:95060001343522349", "https://id.gs1.org/402/95060001343522349"),
        ("ginc:95060001343X1", "https://id.gs1.org/401/95060001343X1"),
        ("gid:95100000.12345.400", "urn:epc:id:gid:95100000.12345.400"),
        ("sscc:106141412345678909", "urn:postern:parcel:sscc:106141412345678909"),
        ("sscc:10614141", "urn:postern:parcel:sscc:10614141"),
        ("sgtin:09506000134352.123456789012345678901", "urn:postern:parcel:sgtin:"),
        ("gln:9506000134352", "urn:postern:parcel:gln:9506000134352"),
        ("s10:RB123456785GB", "urn:postern:parcel:s10:RB123456785GB"),
        ("ups:1Z5R89390357567127", "urn:postern:parcel:ups:1Z5R89390357567127"),
        ("uid:04a224f1", "urn:postern:parcel:uid:04a224f1"),
        ("epc:E2801160", "urn:postern:parcel:epc:E2801160"),
        ("text:A 1:B/é", "urn:postern:parcel:text:A%201%3AB%2F%C3%A9"),
        ("bare", "urn:postern:parcel:bare"),
    ],
)
def test_a_thing_is_named_by_its_gs1_key_or_else_by_our_own_urn(subject: str, name: str) -> None:
    (found,) = the_event(entry("custody.seen", subject))["epcList"]
    assert found.startswith(name) if name.endswith(":") else found == name


@pytest.mark.parametrize(
    ("subject", "name"),
    [
        ("gtin:09506000134352", "https://id.gs1.org/01/09506000134352"),
        ("grai:09506000134376", "https://id.gs1.org/8003/09506000134376"),
        ("gdti:9506000134352", "https://id.gs1.org/253/9506000134352"),
    ],
)
def test_a_key_without_a_serial_names_one_of_a_kind(valid: Valid, subject: str, name: str) -> None:
    found = entry("custody.seen", subject)
    event = the_event(found)
    assert event["quantityList"] == [{"epcClass": name, "quantity": 1}]
    assert "epcList" not in event
    valid(epcis.document([found], CREATED))


KINDS = ("", "sscc:", "sgtin:", "gtin:", "grai:", "giai:", "gdti:", "ginc:", "gid:", "s10:", "text:", "epc:")


@settings(deadline=None)
@given(kind=st.sampled_from(KINDS), number=st.text(st.characters(codec="utf-8"), max_size=128))
def test_whatever_was_read_the_document_is_valid(valid: Valid, kind: str, number: str) -> None:
    subject = kind + number
    valid(epcis.document([entry("custody.seen", subject), handed_over(TO_RECIPIENT, subject)], CREATED))


def test_an_event_id_follows_from_source_and_id_alone() -> None:
    assert epcis.event_id(SOURCE, "e-1") == "urn:uuid:0459d1f4-1461-5e54-94b7-250111a9647a"
    assert epcis.event_id(SOURCE, "e-2") != epcis.event_id(SOURCE, "e-1")
    assert epcis.event_id("/postern/lab/van-0002", "e-1") != epcis.event_id(SOURCE, "e-1")


# -- which entries --------------------------------------------------------------------------------


def custody_types() -> list[str]:
    """Every entry type that the courier's workflow can write, from its source."""
    rooms = (custody, table, taking_back)
    trees = [ast.parse(Path(str(room.__file__)).read_text()) for room in rooms]
    strings = {node.value for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Constant)}
    return sorted(s for s in strings if isinstance(s, str) and re.fullmatch(r"custody\.[a-z_]+", s))


def test_every_custody_entry_has_a_rule_or_is_decided_to_be_no_epcis_matter() -> None:
    assert "custody.accepted" in custody_types()
    assert set(custody_types()) - set(epcis.RULES) == set()


def test_every_exception_and_every_receiver_has_a_rule() -> None:
    assert set(epcis.EXCEPTIONS) == set(custody.EXCEPTIONS)
    assert set(epcis.HANDED_OVER) == set(custody.TO)


NO_MATTER = [type_ for type_, rule in epcis.RULES.items() if rule is None]


@pytest.mark.parametrize(
    "type_",
    [*NO_MATTER, "device.ready", "identity.refused", "uplink.lost", "clock.corrected", "agent.started"],
)
def test_what_is_no_epcis_matter_has_no_event(type_: str) -> None:
    assert epcis.event(entry(type_, "d-17")) is None


def test_events_keep_the_order_of_their_entries() -> None:
    found = [
        entry("custody.accepted", sequence=1, by="d-17"),
        entry("device.ready", sequence=2),
        entry("custody.offered", sequence=3, by="d-17", to="driver"),
    ]
    assert [event["postern:entry"] for event in told(found)] == [found[0]["id"], found[2]["id"]]


# -- corrections ----------------------------------------------------------------------------------


def test_a_correction_repeats_the_event_and_declares_it_wrong(valid: Valid) -> None:
    wrong = entry("custody.accepted", sequence=1, by="d-17")
    right = entry("custody.accepted", "s10:RB123456785GB", 2, by="d-17")
    correction = corrected(wrong["id"], reason="incorrect_data", instead=right["id"])
    first, second, repeated = told([wrong, right, correction])
    assert repeated == {
        **first,
        "errorDeclaration": {
            "declarationTime": correction["time"],
            "reason": "incorrect_data",
            "correctiveEventIDs": [second["eventID"]],
        },
    }
    valid(epcis.document([wrong, right, correction], CREATED))


@pytest.mark.parametrize(
    ("reason", "told_as"),
    [
        ("did_not_occur", "did_not_occur"),
        ("wrong_parcel", "urn:postern:reason:wrong_parcel"),
        ("Ms Smith called", None),
        ("", None),
    ],
)
def test_a_reason_is_a_word_or_left_out(valid: Valid, reason: str, told_as: str | None) -> None:
    wrong = entry("custody.seen")
    found = [wrong, corrected(wrong["id"], reason=reason)]
    assert told(found)[1]["errorDeclaration"].get("reason") == told_as
    valid(epcis.document(found, CREATED))


def test_a_correction_comes_before_the_entry_it_corrects_as_well_as_after() -> None:
    wrong = entry("custody.seen")
    repeated, first = told([corrected(wrong["id"], reason="did_not_occur"), wrong])
    assert "errorDeclaration" in repeated
    assert "errorDeclaration" not in first


def test_a_corrected_entry_told_before_is_looked_up() -> None:
    wrong = entry("custody.seen")
    asked = {(SOURCE, wrong["id"]): wrong}
    (repeated,) = told([corrected(wrong["id"])], lookup=lambda source, id_: asked.get((source, id_)))
    assert repeated["eventID"] == epcis.event_id(SOURCE, wrong["id"])


def test_a_correction_of_an_unknown_entry_is_an_error() -> None:
    with pytest.raises(LookupError, match="corrects gone-1 of /postern/lab/van-0001: expected that entry"):
        told([corrected("gone-1")])


def test_an_entry_without_an_event_has_none_to_declare_wrong() -> None:
    refused = entry("custody.refused", reason="duplicate")
    assert told([refused, corrected(refused["id"])]) == []


# -- time -----------------------------------------------------------------------------------------


def times(entries: list[Entry]) -> list[str]:
    return [event["eventTime"] for event in told(entries)]


def test_the_latest_correction_of_the_boot_gives_the_time_of_what_came_before() -> None:
    found = [
        entry("custody.seen", sequence=1),
        clock_corrected(START_NS + 600 * SECOND, 2),
        clock_corrected(START_NS + 3600 * SECOND, 3),
        entry("custody.seen", sequence=4),
    ]
    assert times(found) == ["2026-11-24T09:00:01.000000Z", found[3]["time"]]
    assert times(found[::-1]) == [found[3]["time"], "2026-11-24T09:00:01.000000Z"]


def test_a_better_time_does_not_hide_the_recorded_one() -> None:
    seen = entry("custody.seen", sequence=1)
    (event,) = told([seen, clock_corrected(START_NS + 3600 * SECOND, 2)])
    assert event["postern:recordedTime"] == seen["time"]
    assert event["postern:recordedTrust"] == "rtc"


@pytest.mark.parametrize("other", [{"boot": "b2"}, {"source": "/postern/lab/van-0002"}])
def test_another_boot_or_device_keeps_its_time(other: dict[str, str]) -> None:
    correction = clock_corrected(START_NS + 3600 * SECOND, 2, other.get("boot", "b1"))
    correction["source"] = other.get("source", SOURCE)
    seen = entry("custody.seen", sequence=1)
    assert times([seen, correction]) == [seen["time"]]
    assert epcis.corrected_times([seen, correction]) == {}


def test_a_declaration_repeats_the_event_with_the_same_better_time() -> None:
    wrong = entry("custody.seen", sequence=1)
    correction = corrected(wrong["id"], sequence=2)
    first, repeated = told([wrong, correction, clock_corrected(START_NS + 3600 * SECOND, 3)])
    assert first["eventTime"] == repeated["eventTime"] == "2026-11-24T09:00:01.000000Z"
    assert repeated["errorDeclaration"]["declarationTime"] == "2026-11-24T09:00:02.000000Z"
