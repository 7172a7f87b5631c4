"""From reading to event: roles, control codes, credentials, duplicates. The roster is a real one."""

from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from agent.clock import NS, Moment
from agent.intake import ROLES, SEEN_LIMIT, Intake, Role, Taken
from agent.roster import Roster, Row, pin_token
from agent.row_seal import Keys
from agent.session import Login
from agent.stake import SESSION, Asked
from agent.workflow import CardShown, CodeEntered, ControlScanned, Event, FactorShown, LabelRead, Outcome
from drivers import KINDS
from drivers.readings import (
    CardAsserted,
    CardFailed,
    CardFailure,
    CompareResult,
    FingerCompared,
    Scanned,
    TagArrived,
)
from tests.moments import moment

ANNA = "drv-anna-5f2e81"
TOKEN = b"8f14e45fceea167a5a36dedd4bea2543"
NOW = moment(1000)
LOGIN = Login(
    subject=ANNA, kinds=("badge",), level=0, unit="badges", finger=("finger", 7), boot="boot-1", mono_ns=0
)


ASSERTED = CardAsserted(credential_id=bytes(16), auth_data=bytes(37), signature=bytes(64))


@pytest.fixture
def intake(tmp_path: Path) -> Iterator[Intake]:
    roster = Roster(tmp_path / "roster.db", Keys(bytes(32), bytes(32)))
    roster.put(Row(subject=ANNA, kind="badge", finger=("finger", 7)), b"0100a3e9ae", as_of=0)
    roster.put(Row(subject=ANNA, kind="static"), TOKEN, as_of=0)
    roster.put(Row(subject=ANNA, kind="pin"), pin_token(ANNA, b"84612075"), as_of=0)
    yield Intake(roster)
    roster.close()


def take(
    intake: Intake,
    role: Role,
    reading: Scanned | TagArrived | FingerCompared,
    *,
    claim: Login | None = None,
    at: Moment = NOW,
    unit: str = "unit",
) -> Taken | None:
    return intake.take(unit, "line", role, reading, at, claim, {})


def event(taken: Taken | None) -> Event:
    assert taken is not None
    return taken.event


def label(
    intake: Intake, data: bytes, symbology: str | None = None, *, at: Moment = NOW, unit: str = "unit"
) -> LabelRead:
    read = event(take(intake, Role.PARCEL, Scanned(data=data, symbology=symbology), at=at, unit=unit))
    assert isinstance(read, LabelRead)
    return read


@pytest.mark.parametrize(
    "code", [b"PICKUP:AAECAwQFBgcICQoLDA0ODw", b"]Q1PICKUP:AAECAwQFBgcICQoLDA0ODw", b"eyJ0.eyJ1.c2ln"]
)
def test_a_code_that_opens_a_door_is_no_label_and_is_not_remembered(intake: Intake, code: bytes) -> None:
    shown = event(take(intake, Role.PARCEL, Scanned(data=code)))
    assert shown == ControlScanned(unit="unit", at=NOW, words=("pickup_code",))


def verdict(taken: Taken | None) -> tuple[str, Outcome, str | None]:
    shown = event(taken)
    assert isinstance(shown, FactorShown)
    return shown.verdict.kind, shown.verdict.outcome, shown.verdict.subject


def test_every_kind_of_device_has_a_role() -> None:
    assert ROLES.keys() == KINDS.keys()
    assert all(ROLES.values())


# -- fingerprint cards ----------------------------------------------------------------------------

CARD = TagArrived(uid=bytes.fromhex("0100a3e9ae"), technology="iso14443", applets=("FIDO_2_0",))
ASKED = Asked(
    unit="unit",
    rp_id="acme.postern.invalid",
    client_data="{}",
    stake=SESSION,
    boot="boot-1",
    mono_ns=NOW.mono_ns,
    within=30.0,
)


def test_a_fingerprint_card_is_to_be_asked_something_new_each_time(intake: Intake) -> None:
    asking = Intake(intake.roster, asks_cards=True)
    shown = [event(take(asking, Role.BADGE, CARD, unit="cards")) for _ in range(20)]
    challenges = {each.challenge for each in shown if isinstance(each, CardShown)}
    assert len(challenges) == 20
    assert {len(challenge) for challenge in challenges} == {32}
    assert not any(repr(challenge) in repr(shown) for challenge in challenges)


def test_a_fingerprint_card_is_a_badge_where_no_policy_wants_one(intake: Intake) -> None:
    assert verdict(take(intake, Role.BADGE, CARD)) == ("badge", Outcome.GRANTED, ANNA)


def test_a_card_without_the_applet_is_a_badge(intake: Intake) -> None:
    asking = Intake(intake.roster, asks_cards=True)
    plain = TagArrived(uid=CARD.uid, technology="iso14443")
    assert verdict(take(asking, Role.BADGE, plain)) == ("badge", Outcome.GRANTED, ANNA)


@pytest.mark.parametrize("reading", [ASSERTED, CardFailed(failure=CardFailure.WRONG_FINGER)])
def test_an_answer_that_nobody_waits_for_means_nothing(
    intake: Intake, reading: CardAsserted | CardFailed
) -> None:
    for asked in (
        None,
        replace(ASKED, unit="another"),
        replace(ASKED, boot="boot-0"),
        replace(ASKED, mono_ns=NOW.mono_ns - 30 * NS),
    ):
        assert intake.take("unit", "pn532", Role.BADGE, reading, NOW, None, {}, asked) is None
    taken = intake.take("unit", "pn532", Role.BADGE, reading, NOW, None, {}, ASKED)
    assert verdict(taken)[:2] in (("fido2", Outcome.UNKNOWN), ("fido2", Outcome.MISMATCH))


# -- labels ---------------------------------------------------------------------------------------


def test_a_label_keeps_what_was_read_and_how_it_was_understood(intake: Intake) -> None:
    read = label(intake, b"]C100376130321109103420", "]C1", unit="gun")
    assert (read.unit, read.at, read.label) == ("gun", NOW, "sscc:376130321109103420")
    assert b64decode(read.evidence["raw"]) == b"]C100376130321109103420"
    assert (read.evidence["symbology"], read.evidence["driver"]) == ("]C1", "line")
    assert read.evidence["scheme"] == "sscc"
    assert read.evidence["candidates"][0] == read.label
    assert read.repeated_after is None


def test_a_label_with_one_reading_needs_no_candidates(intake: Intake) -> None:
    assert label(intake, b"LAB0000000001").evidence == {
        "raw": "TEFCMDAwMDAwMDAwMQ==",
        "symbology": None,
        "driver": "line",
        "scheme": "text",
    }


def test_what_else_a_label_tells_is_kept(intake: Intake) -> None:
    read = label(intake, b"420221539101026837331000039521")
    assert read.label == "usps:9101026837331000039521"
    assert read.evidence["fields"]


def test_no_more_than_three_candidates_are_kept(intake: Intake) -> None:
    for data in (b"JJD0099999999", b"]C1106141412345678908", b"J4603636537", b"5901234123457"):
        assert len(label(intake, data).evidence.get("candidates", ())) <= 3


def test_bytes_that_are_no_text_are_kept_as_they_came(intake: Intake) -> None:
    raw = bytes(range(256))
    assert b64decode(label(intake, raw).evidence["raw"]) == raw


@pytest.mark.parametrize(
    "reading",
    [Scanned(data=b""), Scanned(data=b"", symbology="]C1"), TagArrived(uid=b"", technology="epc-gen2")],
)
def test_a_reading_without_content_means_nothing(intake: Intake, reading: Scanned | TagArrived) -> None:
    assert take(intake, Role.PARCEL, reading) is None


def test_a_uhf_tag_is_read_as_its_epc(intake: Intake) -> None:
    tag = TagArrived(
        uid=bytes.fromhex("3114257BF4499602D2000000"), technology="epc-gen2", rssi_dbm=-61, pc=0x3000
    )
    read = event(take(intake, Role.PARCEL, tag))
    assert isinstance(read, LabelRead)
    assert read.label.startswith("sscc:")
    assert (read.evidence["symbology"], read.evidence["rssi_dbm"]) == ("epc-gen2", -61)


@pytest.mark.parametrize("technology", ["em4100", "iso14443"])
def test_a_chips_own_number_is_nobodys_parcel_number(intake: Intake, technology: str) -> None:
    read = event(
        take(intake, Role.PARCEL, TagArrived(uid=bytes.fromhex("0100a3e9ae"), technology=technology))
    )
    assert isinstance(read, LabelRead)
    assert (read.label, read.evidence["scheme"]) == ("uid:0100a3e9ae", technology)
    assert "rssi_dbm" not in read.evidence


# -- duplicates -----------------------------------------------------------------------------------


def test_a_repeated_label_says_after_how_long(intake: Intake) -> None:
    assert label(intake, b"P1").repeated_after is None
    assert label(intake, b"P1", at=moment(1001.5)).repeated_after == 1.5
    assert label(intake, b"P1", at=moment(1002)).repeated_after == 0.5, "since the last time, not the first"


@pytest.mark.parametrize(
    ("data", "symbology", "unit"), [(b"P2", "]C0", "gun"), (b"P1", "]d1", "gun"), (b"P1", "]C0", "desk")]
)
def test_another_label_symbology_or_unit_is_no_repetition(
    intake: Intake, data: bytes, symbology: str, unit: str
) -> None:
    label(intake, b"P1", "]C0", unit="gun")
    assert label(intake, data, symbology, unit=unit).repeated_after is None


def test_the_oldest_label_is_forgotten_first(intake: Intake) -> None:
    for number in range(SEEN_LIMIT):
        label(intake, str(number).encode())
    assert label(intake, b"0").repeated_after == 0.0, "now it is the newest"
    label(intake, b"one more")
    assert label(intake, b"0").repeated_after == 0.0
    assert label(intake, b"1").repeated_after is None


# -- control codes --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"POSTERN:HANDOVER:RECIPIENT", ("handover", "recipient")),
        (b"POSTERN:DONE", ("done",)),
        (b"POSTERN:locker:Locker-9:A12", ("locker", "locker-9", "a12")),
        (b"]C0POSTERN:END", ("end",)),
        (b"]Q1POSTERN:END", ("end",)),
        (b"POSTERN:", ("",)),
        (b"POSTERN:\xff", ("\ufffd",)),
    ],
)
def test_a_control_code_is_taken_apart(intake: Intake, data: bytes, words: tuple[str, ...]) -> None:
    control = event(take(intake, Role.PARCEL, Scanned(data=data)))
    assert control == ControlScanned(unit="unit", at=NOW, words=words)


@pytest.mark.parametrize("data", [b"XPOSTERN:END", b"ABCPOSTERN:END", b"postern:END", b"POSTERN", b"]C0"])
def test_what_only_looks_like_a_control_code_is_a_label(intake: Intake, data: bytes) -> None:
    assert isinstance(event(take(intake, Role.PARCEL, Scanned(data=data))), LabelRead)


@pytest.mark.parametrize("role", [Role.BADGE, Role.TOKEN])
def test_a_control_code_on_a_badge_reader_is_an_unknown_badge(intake: Intake, role: Role) -> None:
    assert verdict(take(intake, role, Scanned(data=b"POSTERN:END")))[1] is Outcome.UNKNOWN


# -- credentials ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "reading", "kind"),
    [
        (Role.BADGE, TagArrived(uid=bytes.fromhex("0100a3e9ae"), technology="em4100"), "badge"),
        (Role.BADGE, Scanned(data=b"0100a3e9ae"), "badge"),
        (Role.TOKEN, Scanned(data=TOKEN), "static"),
        (Role.KEYPAD, Scanned(data=b"84612075"), "pin"),
    ],
)
def test_the_role_says_what_kind_of_factor_it_is(
    intake: Intake, role: Role, reading: Scanned | TagArrived, kind: str
) -> None:
    assert verdict(take(intake, role, reading, claim=LOGIN)) == (kind, Outcome.GRANTED, ANNA)


def test_a_pin_is_judged_against_who_has_begun_to_log_in(intake: Intake) -> None:
    taken = take(intake, Role.KEYPAD, Scanned(data=b"0000"), claim=LOGIN)
    assert verdict(taken) == ("pin", Outcome.MISMATCH, ANNA)
    assert taken is not None
    assert sorted(taken.records) == ["reader/unit", "subject/" + ANNA]


def test_keys_typed_while_nobody_logs_in_are_a_code_of_which_only_the_digest_is_kept(
    intake: Intake,
) -> None:
    one, two = (event(take(intake, Role.KEYPAD, Scanned(data=data))) for data in (b"4711", b"4712"))
    assert isinstance(one, CodeEntered)
    assert isinstance(two, CodeEntered)
    assert one.digest != two.digest
    assert "4711" not in repr(one)


@pytest.mark.parametrize(
    ("role", "reading"),
    [
        (Role.BADGE, Scanned(data=b"SECRET-BADGE")),
        (Role.TOKEN, Scanned(data=b"SECRET-TOKEN")),
        (Role.KEYPAD, Scanned(data=b"SECRET-PIN")),
        (Role.BADGE, TagArrived(uid=b"SECRET", technology="em4100")),
    ],
)
@pytest.mark.parametrize("claim", [LOGIN, None])
def test_no_event_holds_what_was_presented(
    intake: Intake, role: Role, reading: Scanned | TagArrived, claim: Login | None
) -> None:
    taken = repr(take(intake, role, reading, claim=claim))
    assert "SECRET" not in taken
    assert b"SECRET".hex() not in taken


# -- fingers --------------------------------------------------------------------------------------

MATCH = FingerCompared(slot=7, result=CompareResult.MATCHED, score=120)


def test_the_finger_that_was_asked_for_is_judged(intake: Intake) -> None:
    taken = take(intake, Role.FINGER, MATCH, claim=LOGIN, unit="finger")
    assert verdict(taken) == ("slot", Outcome.GRANTED, ANNA)


@pytest.mark.parametrize(
    ("slot", "unit", "claim"),
    [
        (8, "finger", LOGIN),
        (7, "other", LOGIN),
        (7, "finger", None),
    ],
)
@pytest.mark.parametrize("result", list(CompareResult))
def test_a_finger_asked_for_somebody_else_is_nobodys_answer_and_counts_against_nobody(
    intake: Intake, slot: int, unit: str, claim: Login | None, result: CompareResult
) -> None:
    assert take(intake, Role.FINGER, FingerCompared(slot=slot, result=result), claim=claim, unit=unit) is None
