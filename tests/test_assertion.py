"""Level 3 held to its word: every answer of a card but the one is refused. The signatures are real."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from fido2 import cbor as library_cbor

from agent.assertion import BadKey, public_key
from agent.clock import NS, Moment
from agent.lockout import BURST
from agent.roster import Roster, RosterError, Row
from agent.row_seal import Keys
from agent.stake import SESSION, Asked, Stake, about, b64, client_data, rp_id
from agent.workflow import Outcome, Verdict
from drivers.readings import CardAsserted, CardFailed, CardFailure
from simulators import cbor
from simulators.fido_card import EDDSA, ES256, FidoCard
from tests.moments import NOON_NS, moment

ANNA, BORIS = "drv-anna-5f2e81", "drv-boris-77c0d4"
SOURCE = "/postern/acme/van-7"
NOON = NOON_NS // NS
KEYS = Keys(bytes(range(32)), bytes(range(32, 64)))
READER = "card"

ALGORITHMS = pytest.mark.parametrize("algorithm", [ES256, EDDSA], ids=["ES256", "EdDSA"])


def asked(
    *,
    source: str = SOURCE,
    unit: str = READER,
    stake: Stake = SESSION,
    challenge: bytes = bytes(32),
) -> Asked:
    return Asked(
        unit=unit,
        rp_id=rp_id(source),
        client_data=client_data(source, unit, stake, challenge),
        stake=stake,
        boot="boot-1",
        mono_ns=0,
        within=30.0,
    )


def told(card: FidoCard, command: int, request: dict[int, Any]) -> dict[int, Any]:
    """What the card answers to one CTAP2 message, through its APDUs."""
    said: list[bytes] = []
    card.ask(bytes.fromhex("00 A4 04 00 08 A0 00 00 06 47 2F 00 01 00"), said.append)
    message = bytes([command]) + cbor.encode(request)
    while len(message) > 255:
        card.ask(bytes([0x90, 0x10, 0x80, 0, 255]) + message[:255], said.append)
        message = message[255:]
    card.ask(bytes([0x80, 0x10, 0x80, 0, len(message)]) + message + b"\x00", said.append)
    whole = said[-1][:-2]
    while said[-1][-2] == 0x61:
        card.ask(bytes([0, 0xC0, 0, 0, 0]), said.append)
        whole += said[-1][:-2]
    assert whole[0] == 0, f"declined with {whole[0]:02x}"
    answer: dict[int, Any] = cbor.decode(whole[1:])
    return answer


@dataclass
class Desk:
    """A roster, the records that a journal would keep, and Anna's card."""

    roster: Roster
    card: FidoCard
    now: Moment = field(default_factory=lambda: moment(10))
    records: dict[str, Any] = field(default_factory=dict)

    def signed(self, what: Asked, card: FidoCard | None = None, *, rp: str | None = None) -> CardAsserted:
        said = told(card or self.card, 0x02, {1: rp or what.rp_id, 2: what.client_data_hash, 5: {"uv": True}})
        return CardAsserted(credential_id=said[1]["id"], auth_data=said[2], signature=said[3])

    def judge(self, said: CardAsserted | CardFailed, what: Asked | None = None) -> Verdict:
        judged = self.roster.answered(
            said, what or asked(), reader=READER, now=self.now, records=self.records
        )
        for key, value in json.loads(json.dumps(dict(judged.records))).items():
            if value is None:
                del self.records[key]
            else:
                self.records[key] = value
        return judged.verdict

    def enrol(self, card: FidoCard, subject: str, **row: Any) -> None:
        for rp in (rp_id(SOURCE), "other.invalid"):
            request = {
                1: bytes(32),
                2: {"id": rp},
                3: {"id": subject.encode()},
                4: [{"type": "public-key", "alg": each} for each in (ES256, EDDSA)],
            }
            told(card, 0x01, request)
        made = next(each for each in card.credentials if each.rp_id == rp_id(SOURCE))
        key = b64(cbor.encode(made.cose()))
        self.roster.put(Row(subject=subject, kind="fido2", public_key=key, **row), made.id, as_of=NOON)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    yield from opened(tmp_path, FidoCard())


def opened(folder: Path, card: FidoCard) -> Iterator[Desk]:
    roster = Roster(folder / "roster.db", KEYS)
    card.touch("thumb")
    made = Desk(roster, card)
    made.enrol(card, ANNA)
    yield made
    roster.close()


# -- the one that counts ----------------------------------------------------------------------------


@ALGORITHMS
def test_a_fresh_signature_for_what_was_asked_is_level_3(tmp_path: Path, algorithm: int) -> None:
    for desk in opened(tmp_path, FidoCard(algorithms=(algorithm,))):
        said = desk.signed(asked())
        verdict = desk.judge(said)
        assert (verdict.outcome, verdict.kind, verdict.subject, verdict.level) == (
            Outcome.GRANTED,
            "fido2",
            ANNA,
            3,
        )
        assert verdict.assertion == {"auth_data": b64(said.auth_data), "signature": b64(said.signature)}
        assert b64(said.credential_id) not in repr((verdict, said))


def test_the_journal_keeps_the_counter_and_nothing_that_names_the_card(desk: Desk) -> None:
    said = desk.signed(asked())
    desk.judge(said)
    ((key, counter),) = desk.records.items()
    assert key.startswith("card/")
    assert counter == 1
    assert said.credential_id.hex() not in key


def test_a_card_clears_the_failures_of_its_holder(desk: Desk) -> None:
    desk.records[f"subject/{ANNA}"] = {"failures": 3, "boot": "boot-1", "mono_ns": 0}
    assert desk.judge(desk.signed(asked())).granted
    assert f"subject/{ANNA}" not in desk.records


# -- what a wire tapper has -------------------------------------------------------------------------


ELSEWHERE = {
    "another challenge": asked(challenge=b"\x01" * 32),
    "another purpose": asked(stake=Stake("handover")),
    "another transaction": asked(stake=replace(about("handover", [ANNA, "P1"]), purpose=SESSION.purpose)),
    "another reader": asked(unit="gate"),
    "another device": asked(source="/postern/acme/van-8"),
}


@ALGORITHMS
@pytest.mark.parametrize("signed", ELSEWHERE.values(), ids=ELSEWHERE.keys())
def test_a_signature_for_anything_else_is_forged(tmp_path: Path, algorithm: int, signed: Asked) -> None:
    for desk in opened(tmp_path, FidoCard(algorithms=(algorithm,))):
        verdict = desk.judge(desk.signed(signed))
        assert (verdict.outcome, verdict.detail, verdict.level) == (Outcome.FORGED, "signature", 0)
        assert not any(key.startswith("card/") for key in desk.records)


def test_of_a_thousand_recorded_answers_none_opens_anything(desk: Desk) -> None:
    recorded = [desk.signed(asked(challenge=n.to_bytes(32, "big"))) for n in range(1, 1001)]
    outcomes = set()
    for said in recorded:
        desk.records.pop(f"reader/{READER}", None)
        outcomes.add(desk.judge(said, asked(challenge=b"\xff" * 32)).outcome)
    assert outcomes == {Outcome.FORGED}


def test_the_same_answer_once_more_is_taken_for_a_copy(desk: Desk) -> None:
    said = desk.signed(asked())
    assert desk.judge(said).granted
    assert desk.judge(said).outcome is Outcome.CLONED


def test_a_signature_for_another_relying_party_is_forged(desk: Desk) -> None:
    """The same card and the same holder: a web site has had it sign our hash."""
    other = desk.signed(asked(), rp="other.invalid")
    ours = next(each for each in desk.card.credentials if each.rp_id == rp_id(SOURCE))
    verdict = desk.judge(replace(other, credential_id=ours.id))
    assert (verdict.outcome, verdict.detail) == (Outcome.FORGED, "other_party")


def test_another_tenants_credential_is_unknown(desk: Desk) -> None:
    verdict = desk.judge(desk.signed(asked(), rp="other.invalid"))
    assert (verdict.outcome, verdict.subject) == (Outcome.UNKNOWN, None)


def test_a_card_that_did_not_verify_its_holder_is_not_believed(desk: Desk) -> None:
    desk.card.claims_verification = False
    verdict = desk.judge(desk.signed(asked()))
    assert (verdict.outcome, verdict.detail) == (Outcome.FORGED, "not_verified")


def test_nobody_present_and_a_flag_set_by_the_wire_are_not_believed(desk: Desk) -> None:
    desk.card.claims_verification = False
    said = desk.signed(asked())
    for flags, detail in ((0x04, "not_present"), (0x05, "signature")):
        forged = said.auth_data[:32] + bytes([flags]) + said.auth_data[33:]
        verdict = desk.judge(replace(said, auth_data=forged))
        assert (verdict.outcome, verdict.detail) == (Outcome.FORGED, detail)


@ALGORITHMS
def test_no_flipped_bit_passes(tmp_path: Path, algorithm: int) -> None:
    for desk in opened(tmp_path, FidoCard(algorithms=(algorithm,))):
        said = desk.signed(asked())
        for part in ("auth_data", "signature"):
            whole = getattr(said, part)
            for bit in range(0, len(whole) * 8, 3):
                bent = bytearray(whole)
                bent[bit // 8] ^= 1 << bit % 8
                desk.records.clear()
                assert desk.judge(replace(said, **{part: bytes(bent)})).outcome is Outcome.FORGED


@pytest.mark.parametrize("auth_data", [b"", bytes(36), bytes(32) + b"\xc5" + bytes(4) + b"\x81" * 2000])
def test_what_is_no_authenticator_data_is_forged(desk: Desk, auth_data: bytes) -> None:
    verdict = desk.judge(replace(desk.signed(asked()), auth_data=auth_data))
    assert (verdict.outcome, verdict.detail) == (Outcome.FORGED, "malformed")


def test_somebody_elses_card_does_not_sign_for_anna(desk: Desk) -> None:
    theirs = FidoCard()
    theirs.touch("thumb")
    desk.enrol(theirs, BORIS)
    said = desk.signed(asked(), theirs)
    assert desk.judge(said).subject == BORIS
    stolen = replace(said, credential_id=desk.signed(asked()).credential_id)
    assert desk.judge(stolen).outcome is Outcome.FORGED


# -- counters ---------------------------------------------------------------------------------------


@ALGORITHMS
def test_the_second_of_two_cards_with_one_key_is_found_out(tmp_path: Path, algorithm: int) -> None:
    for desk in opened(tmp_path, FidoCard(algorithms=(algorithm,))):
        copy = desk.card.cloned()
        for _ in range(3):
            assert desk.judge(desk.signed(asked())).granted
        for shown in (1, 2, 3):
            verdict = desk.judge(desk.signed(asked(), copy))
            assert (verdict.outcome, verdict.counters) == (Outcome.CLONED, (3, shown))
        for _ in range(3):
            # Whichever of them is ahead by now, neither is believed, and the alarm has been given.
            for card in (copy, desk.card):
                verdict = desk.judge(desk.signed(asked(), card))
                assert (verdict.outcome, verdict.level) == (Outcome.CLONED, 0)


def test_a_new_credential_on_the_card_that_is_left_is_believed(desk: Desk) -> None:
    copy = desk.card.cloned()
    assert desk.judge(desk.signed(asked())).granted
    assert desk.judge(desk.signed(asked(), copy)).outcome is Outcome.CLONED
    desk.enrol(desk.card, ANNA)
    assert desk.judge(desk.signed(asked())).granted
    assert desk.judge(desk.signed(asked(), copy)).outcome is Outcome.CLONED


def test_a_counter_that_falls_back_to_zero_is_a_copy(desk: Desk) -> None:
    assert desk.judge(desk.signed(asked())).granted
    for credential in desk.card.credentials:
        credential.counter = 0
    desk.card.counts = False
    verdict = desk.judge(desk.signed(asked()))
    assert (verdict.outcome, verdict.counters) == (Outcome.CLONED, (1, 0))


def test_a_card_that_does_not_count_is_believed(desk: Desk) -> None:
    desk.card.counts = False
    assert all(desk.judge(desk.signed(asked())).granted for _ in range(3))
    assert desk.records == {}


# -- who holds it -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "outcome"), [({"revoked": True}, Outcome.REVOKED), ({"until": NOON}, Outcome.EXPIRED)]
)
def test_a_right_signature_does_not_revive_a_row(desk: Desk, row: dict[str, Any], outcome: Outcome) -> None:
    desk.enrol(desk.card, ANNA, **row)
    verdict = desk.judge(desk.signed(asked()))
    assert (verdict.outcome, verdict.subject) == (outcome, ANNA)
    assert next(value for key, value in desk.records.items() if key.startswith("card/")) == 1


def test_who_is_locked_out_is_not_let_in_by_a_card(desk: Desk) -> None:
    desk.records[f"subject/{ANNA}"] = {"failures": 5, "boot": "boot-1", "mono_ns": desk.now.mono_ns}
    assert desk.judge(desk.signed(asked())).outcome is Outcome.LOCKED


def test_a_forged_answer_is_held_against_the_reader_and_not_against_the_holder(desk: Desk) -> None:
    """Who has heard a credential's id cannot lock its holder out with it."""
    wrong = desk.signed(asked(challenge=b"\x01" * 32))
    verdicts = [desk.judge(wrong) for _ in range(BURST)]
    assert verdicts[-1].reader_paused
    assert f"subject/{ANNA}" not in desk.records
    assert desk.judge(desk.signed(asked())).outcome is Outcome.PAUSED


@pytest.mark.parametrize(
    ("failure", "outcome", "counted"),
    [
        (CardFailure.WRONG_FINGER, Outcome.MISMATCH, True),
        (CardFailure.BLOCKED, Outcome.MISMATCH, True),
        (CardFailure.NO_CREDENTIAL, Outcome.UNKNOWN, True),
        (CardFailure.NO_FINGER, Outcome.NO_TRY, False),
        (CardFailure.GONE, Outcome.NO_TRY, False),
        (CardFailure.UNFIT, Outcome.NO_TRY, False),
    ],
)
def test_a_card_that_fails_says_why_and_only_a_try_counts(
    desk: Desk, failure: CardFailure, outcome: Outcome, counted: bool
) -> None:
    verdict = desk.judge(CardFailed(failure=failure))
    assert (verdict.outcome, verdict.detail, verdict.subject) == (outcome, failure, None)
    assert (f"reader/{READER}" in desk.records) is counted


# -- rows -------------------------------------------------------------------------------------------


def test_a_row_without_a_usable_key_is_not_taken(desk: Desk) -> None:
    good = cbor.encode(desk.card.credentials[0].cose())
    bad = {
        "": "expected a COSE key",
        b64(good) + "=": "base64url without padding",
        b64(good[:-1]): "expected a COSE key",
        b64(cbor.encode({1: 2, 3: -7, -1: 1, -2: bytes(32), -3: bytes(32)})): "expected a COSE key",
        b64(library_cbor.encode(_rsa())): "expected a key for ES256 or EdDSA, got algorithm -257",
        b64(cbor.encode([1])): "expected a map",
    }
    for text, reason in bad.items():
        with pytest.raises(RosterError, match=reason):
            desk.roster.put(Row(subject=ANNA, kind="fido2", public_key=text), bytes(32), as_of=NOON)
    with pytest.raises(BadKey):
        public_key("!")


def _rsa() -> dict[int, Any]:
    """A COSE key of a kind that we have no use for (RFC 8230)."""
    return {1: 3, 3: -257, -1: b"\xc3" * 256, -2: b"\x01\x00\x01"}


def test_a_credential_id_that_could_be_guessed_is_not_taken(desk: Desk) -> None:
    key = b64(cbor.encode(desk.card.credentials[0].cose()))
    with pytest.raises(RosterError, match="expected a credential id of at least 16 bytes, got 15"):
        desk.roster.put(Row(subject=ANNA, kind="fido2", public_key=key), bytes(15), as_of=NOON)


def test_the_file_alone_names_neither_card_nor_holder(desk: Desk, tmp_path: Path) -> None:
    held = b"".join(each.read_bytes() for each in tmp_path.glob("roster.db*"))
    for credential in desk.card.credentials:
        assert credential.id not in held
        assert b64(cbor.encode(credential.cose())).encode() not in held
    assert ANNA.encode() not in held


# -- what is signed ---------------------------------------------------------------------------------


def test_what_is_signed_can_be_put_together_again_by_anyone() -> None:
    what = asked(stake=about("handover", [ANNA, "P1", "P2"]), challenge=b"\x02" * 32)
    said = json.loads(what.client_data)
    assert set(said) == {"type", "challenge", "device", "reader", "purpose", "transaction"}
    again = json.dumps(said, sort_keys=True, separators=(",", ":"))
    assert sha256(again.encode()).digest() == what.client_data_hash


def test_words_of_a_stake_cannot_be_shifted_from_one_to_the_next() -> None:
    assert about("handover", ["a", "bc"]) != about("handover", ["ab", "c"])
    assert about("handover", ["a"]) != about("session", ["a"])
