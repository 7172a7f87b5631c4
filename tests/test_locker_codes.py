"""From what is scanned or typed at a locker to a grant, and what those who steal the files learn of it."""

import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent import strict_json
from agent.clock import NS, Moment, Trust
from agent.documents import LABEL_MOST
from agent.envelope import Kind
from agent.jws import decoded, encoded
from agent.locker.codes import EARLY_S, Codes
from agent.locker.grants import WRONG_FOR_ONE, Grant, Guard, Refusal, Way, Wrong, may_open
from agent.locker.office import SEALED_FOR, KeyedOffice, new_pin, selector_of
from agent.locker.turn import MINTED
from agent.page import unseal
from agent.row_seal import Keys, seal_row, value_of
from agent.rows import Rows
from agent.trust import Trusted
from tests.authority import DAY, NOON, SELF, Authority, fresh
from tests.moments import moment

KEYS = Keys(bytes(range(32)), bytes(range(32, 64)))
LABEL = "s10:RB473124829DE"
FOR_IT = {"parcel": LABEL}


@dataclass
class Counter:
    """A locker's codes and its office, and the fleet whose word they take."""

    folder: Path
    keys: Keys = KEYS
    fleet: Authority = field(default_factory=Authority)
    records: dict[str, Any] = field(default_factory=dict)
    seal: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)

    def __post_init__(self) -> None:
        self.fleet.signers["grant"] = [fresh()]
        self.trusted: Trusted | None = self.fleet.trusted()
        self.rows = Rows(self.folder / "roster.db", self.keys)
        self.codes = Codes(self.rows, SELF, lambda: self.trusted, lambda: self.records)
        self.office = KeyedOffice(lambda: self.rows.keys, fresh(), SELF, self.seal.public_key())

    def grant(self, body: dict[str, Any] | None = None, **claims: Any) -> bytes:
        """A QR code that is right, but for the changes."""
        made = {"exp_in": DAY, "ver": 1, **claims}
        return self.fleet.made(Kind.GRANT, body or FOR_IT, **made)

    def scan(self, data: bytes) -> Grant | Refusal | None:
        shown = self.codes.scanned("gun", data, moment(0))
        return None if shown is None else shown.grant or shown.refusal

    def type(self, data: bytes) -> Grant | Refusal | None:
        shown = self.codes.typed("keypad", data, moment(0))
        assert shown.way is Way.PIN
        return shown.grant or shown.refusal

    def mint(self, label: str = LABEL, until: int = NOON + 7 * DAY) -> dict[str, Any]:
        """Deposit a parcel, and read what the fleet reads."""
        minted = self.office.mint(label, "a1", until)
        assert minted is not None
        assert minted.sealed is not None
        self.records.update(minted.records)
        purpose = b"\0".join((SEALED_FOR, SELF.name.encode(), minted.grant.encode()))
        plain: dict[str, Any] = strict_json.loads(unseal(decoded(minted.sealed), self.seal, purpose))
        return plain


@pytest.fixture(name="counter")
def _counter(tmp_path: Path) -> Iterator[Counter]:
    counter = Counter(tmp_path)
    yield counter
    counter.rows.close()


# -- codes that are signed --------------------------------------------------------------------------


def test_a_signed_code_is_a_grant_for_its_parcel_in_its_window(counter: Counter) -> None:
    grant = counter.scan(counter.grant({**FOR_IT, "nbf": NOON + 60}))
    assert isinstance(grant, Grant)
    assert (grant.way, grant.parcel, grant.compartment, grant.revoked) == (Way.QR, LABEL, None, False)
    assert (grant.nbf, grant.exp) == (NOON + 60, NOON + DAY)


def test_a_signer_whose_clock_runs_a_little_ahead_is_believed_at_once(counter: Counter) -> None:
    soon, later = (counter.scan(counter.grant(iat=NOON + s)) for s in (EARLY_S, EARLY_S + 1))
    assert isinstance(soon, Grant)
    assert isinstance(later, Grant)
    assert may_open(soon, None, moment(0)) is None
    assert may_open(later, None, moment(0)) is Refusal.NOT_YET


@pytest.mark.parametrize(
    ("made", "why"),
    [
        (lambda counter: b"eyJ" + b"A" * 510, Refusal.MALFORMED),
        (lambda counter: b"A" * 513, Refusal.MALFORMED),
        (lambda counter: b"eyJhbGciOiJFZDI1NTE5In0", Refusal.MALFORMED),
        (lambda counter: b"eyJ..", Refusal.MALFORMED),
        (lambda counter: counter.grant().replace(b".", b"!"), Refusal.MALFORMED),
        (lambda counter: counter.grant() + b"=", Refusal.MALFORMED),
        (lambda counter: counter.grant()[:-8] + b"AAAAAAAA", Refusal.UNKNOWN),
        (lambda counter: counter.grant(by=[fresh()]), Refusal.UNKNOWN),
        (lambda counter: counter.grant(by=counter.fleet.signers["command"]), Refusal.UNKNOWN),
        (lambda counter: counter.fleet.made(Kind.TIME, FOR_IT, 1), Refusal.UNKNOWN),
        (lambda counter: counter.grant(aud="acme/locker-18"), Refusal.OTHER_LOCKER),
        (lambda counter: counter.grant(aud="other/locker-17"), Refusal.OTHER_LOCKER),
        (lambda counter: counter.grant(aud="acme/*"), Refusal.OTHER_LOCKER),
        (lambda counter: counter.grant(aud="acme/@north"), Refusal.OTHER_LOCKER),
        (lambda counter: counter.grant({"purpose": "pickup"}), Refusal.MALFORMED),
        (lambda counter: counter.grant({**FOR_IT, "door": 7}), Refusal.MALFORMED),
        (lambda counter: counter.grant({"parcel": "x" * (LABEL_MOST + 1)}), Refusal.MALFORMED),
        (lambda counter: counter.grant({"compartment": "../a1"}), Refusal.MALFORMED),
        (lambda counter: counter.grant({**FOR_IT, "purpose": "all"}), Refusal.MALFORMED),
    ],
)
def test_what_is_no_grant_of_ours_is_none(
    counter: Counter, made: Callable[[Counter], bytes], why: Refusal
) -> None:
    assert counter.scan(made(counter)) is why


def test_a_locker_without_a_fleet_takes_nobodys_signature(counter: Counter) -> None:
    counter.trusted = None
    assert counter.scan(counter.grant()) is Refusal.UNKNOWN


@pytest.mark.parametrize("way", ["qr", "code"])
def test_a_grant_that_the_fleet_has_withdrawn_says_so(counter: Counter, way: str) -> None:
    raw, plain = counter.grant(jti=encoded(bytes(16))), counter.mint()
    jti = {"qr": encoded(bytes(16)), "code": plain["jti"]}[way]
    assert counter.trusted is not None
    lists = counter.fleet.revocations(1, of={"grants": [jti]})
    counter.trusted = counter.trusted.take(Kind.REVOCATIONS, lists, moment(0)).trusted
    grant = counter.scan(raw if way == "qr" else b"PICKUP:" + plain["code"].encode())
    assert isinstance(grant, Grant)
    assert grant.revoked


def test_the_longest_label_fits_into_a_code_that_a_telephone_can_show(counter: Counter) -> None:
    assert isinstance(counter.scan(counter.grant({"parcel": "x" * LABEL_MOST})), Grant)


# -- codes that were made here ----------------------------------------------------------------------


def test_a_long_code_opens_the_compartment_it_was_made_for(counter: Counter) -> None:
    plain = counter.mint()
    grant = counter.scan(b"PICKUP:" + plain["code"].encode())
    assert isinstance(grant, Grant)
    assert (grant.jti, grant.way, grant.compartment, grant.parcel) == (plain["jti"], Way.CODE, "a1", LABEL)
    assert grant.exp == NOON + 7 * DAY


@pytest.mark.parametrize(
    "code",
    [
        b"",
        encoded(bytes(15)).encode(),
        encoded(bytes(17)).encode(),
        encoded(bytes(16)).encode() + b"==",
        b"A" * 21 + b"B",
        b"A" * 20 + b"\xff\xfe",
        b"A" * 21 + b" ",
        b"A" * 400,
    ],
)
def test_a_long_code_of_another_shape_is_malformed(counter: Counter, code: bytes) -> None:
    assert counter.scan(b"PICKUP:" + code) is Refusal.MALFORMED


@pytest.mark.parametrize(
    "label", [b"RB473124829DE", b"pickup:AAAAAAAAAAAAAAAAAAAAAA", b"00106141411234567897"]
)
def test_a_label_is_no_code(counter: Counter, label: bytes) -> None:
    assert counter.scan(label) is None


@pytest.mark.parametrize(
    "spelling", ["{s}{p}", "{s} {p}", "{s}*{p}", "{s}#{p}", "{s}-{p}", "{s}{p}#", "{s}*{p}*", " {s}{p}\r\n"]
)
@pytest.mark.parametrize("case", [str.upper, str.lower])
def test_a_pin_may_be_typed_as_people_do(counter: Counter, spelling: str, case: Callable[[str], str]) -> None:
    plain = counter.mint()
    text = spelling.format(s=case(plain["selector"]), p=plain["pin"])
    grant = counter.type(text.encode())
    assert isinstance(grant, Grant)
    assert (grant.jti, grant.way) == (plain["jti"], Way.PIN)


@pytest.mark.parametrize(
    "typed",
    [
        b"",
        b"#",
        b"123456",
        b"29D123456",
        b"29DE12345",
        b"29DE1234567",
        b"29DE12345a",
        b"29DE  123456",
        b"29DE*#123456",
        b"29DE123456##",
        b"29\xc3\x9fE123456",
        "29DE\uff11\uff12\uff13\uff14\uff15\uff16".encode(),
        b"29DE\x00123456",
        b"2" * 7000,
    ],
)
def test_what_is_no_pin_is_malformed_and_names_no_selector(counter: Counter, typed: bytes) -> None:
    counter.mint()
    shown = counter.codes.typed("keypad", typed, moment(0))
    assert (shown.refusal, shown.selector) == (Refusal.MALFORMED, None)


def test_a_pin_is_worth_nothing_without_its_selector_nor_with_another(counter: Counter) -> None:
    plain = counter.mint()
    wrong = counter.codes.typed("keypad", b"AAAA" + plain["pin"].encode(), moment(0))
    right = counter.codes.typed("keypad", (plain["selector"] + plain["pin"]).encode(), moment(0))
    assert (wrong.refusal, wrong.grant) == (Refusal.UNKNOWN, None)
    assert wrong.selector != right.selector, "tries are counted for each selector"


def test_a_code_of_another_locker_that_came_with_the_bundle_opens_nothing_here(counter: Counter) -> None:
    body = {"jti": "j", "locker": "locker-18", "parcel": LABEL, "exp": NOON + DAY}
    lookup, row = seal_row(KEYS, value_of(KEYS.epoch, "grant", bytes(16)), body)
    counter.records[MINTED + lookup.hex()] = {"row": encoded(row), "exp": NOON + DAY}
    assert counter.scan(b"PICKUP:" + encoded(bytes(16)).encode()) is Refusal.OTHER_LOCKER


# -- the office -------------------------------------------------------------------------------------


def test_nothing_is_minted_that_nobody_could_be_told_of(counter: Counter) -> None:
    assert KeyedOffice(lambda: KEYS, fresh(), SELF).mint(LABEL, "a1", NOON) is None


@pytest.mark.parametrize(
    ("label", "selector"),
    [
        (LABEL, "29DE"),
        ("sscc:00106141411234567897", "7897"),
        ("raw:a-b", "AWAB"),
        ("a", "A"),
        ("é", "0000"),
        ("", "0000"),
    ],
)
def test_a_selector_is_the_tail_of_the_label(label: str, selector: str) -> None:
    assert selector_of(label) == selector.rjust(4, "0")


def test_no_two_grants_have_a_code_in_common_and_no_pin_is_one_that_people_try_first(
    counter: Counter,
) -> None:
    made = [counter.mint() for _ in range(200)]
    assert len({each["code"] for each in made}) == len({each["jti"] for each in made}) == 200
    assert not {new_pin() for _ in range(3000)} & {"000000", "111111", "123456", "654321"}


def test_codes_open_by_presentation_alone(tmp_path: Path, counter: Counter) -> None:
    """A thief of the files who lacks the pepper, or who has it and no code."""
    plain = counter.mint()
    thief = Counter(tmp_path, keys=Keys(bytes(32), KEYS.epoch), records=counter.records)
    assert thief.scan(b"PICKUP:" + plain["code"].encode()) is Refusal.UNKNOWN
    assert thief.type((plain["selector"] + plain["pin"]).encode()) is Refusal.UNKNOWN
    thief.rows.close()
    kept = json.dumps(counter.records).encode() + (tmp_path / "roster.db").read_bytes()
    pin = f"(?<![0-9]){plain['pin']}(?![0-9])"
    for secret in (plain["code"], decoded(plain["code"]).hex(), plain["jti"], LABEL, pin):
        assert not re.search(secret.encode(), kept), secret
    assert decoded(plain["code"]) not in kept


# -- guessing ---------------------------------------------------------------------------------------

PARCELS = 200
SELECTORS = 10_000
"""The last four digits of a label: what a stranger has to guess beside the PIN."""


def test_a_year_of_guessing_as_fast_as_allowed_opens_next_to_nothing(counter: Counter) -> None:
    """Every guess that is compared goes through the real guard and the real codes; what it might have opened
    is added up, since chance alone would show nothing in a year.
    """
    for number in range(PARCELS):
        counter.mint(f"sscc:{number * 49 + 17:020}", NOON + 400 * DAY)
    chance, guard, day, compared = random.Random(13), Guard(), 0, 0
    second = 0.0
    while second < 365 * DAY:
        at = _moment(second)
        if guard.refuses(Way.PIN, at) is not None:
            assert not guard.pin_off, "who wants to go on must not be the thirtieth"
            second += 60.0
            continue
        shown = counter.codes.typed("keypad", f"{chance.randrange(10**10):010}".encode(), at)
        assert shown.grant is None
        compared += 1
        guard = Guard.load(guard.failed(at).dump())  # every guess may be followed by a power cut
        second += 1.0
        if guard.wrong == 29:
            day += 1
            second = _midnight(second)
    assert 29 * 360 < compared <= 29 * 366
    assert compared * PARCELS / SELECTORS / 10**6 < 1e-3


def _moment(second: float) -> Moment:
    return Moment("boot-1", int(second * NS), (NOON * NS) + int(second * NS), Trust.NTP, 0.1)


def _midnight(second: float) -> float:
    utc = datetime.fromtimestamp(NOON + second, UTC)
    return second + 86_400 - (utc.hour * 3600 + utc.minute * 60 + utc.second)


def test_who_has_seen_a_label_has_five_tries_at_its_pin(counter: Counter) -> None:
    wrong = Wrong()
    for _ in range(WRONG_FOR_ONE):
        assert not wrong.dead
        wrong = Wrong.load(wrong.more(moment(0)).dump())
    assert wrong.dead
