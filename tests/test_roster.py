"""The roster: what opens a row, what a row tells, what a thief finds, who is locked out."""

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest

from agent.bundle import Bundles
from agent.clock import NS, Moment, SystemClock, Trust
from agent.documents import ROSTER_S
from agent.keyfile import BadKeyFile
from agent.lockout import BURST, FREE_TRIES, LAST_TRY
from agent.roster import Roster, RosterError, Row, pin_token
from agent.row_seal import Keys, value_of
from agent.standing import NEVER, Authority
from agent.withdrawn import Withdrawn
from agent.workflow import Outcome, Pardon, Verdict
from drivers.readings import CompareResult, FingerCompared
from tests.bundles import ADDRESS, Press, badge, badges
from tests.moments import NOON_NS, moment

NOON = NOON_NS // NS
ANNA, BORIS = "drv-anna-5f2e81", "drv-boris-77c0d4"
ANNAS_BADGE, BORIS_BADGE = b"0100a3e9ae", b"0100b71c02"
TOKEN = b"8f14e45fceea167a5a36dedd4bea2543"
PIN = b"84612075"
KEYS = Keys(bytes(range(32)), bytes(range(32, 64)))


@dataclass
class Fleet:
    """What the fleet has said, and when it was last heard of."""

    heard_at: float | None = None
    subjects: set[str] = field(default_factory=set)
    credentials: set[bytes] = field(default_factory=set)

    def authority(self) -> Authority:
        return Authority(knowledge_at=lambda: self.heard_at, is_revoked=self._is_revoked)

    def _is_revoked(self, subject: str | None, credential: bytes | None) -> bool:
        return subject in self.subjects or credential in self.credentials


@dataclass
class Door:
    """A roster with the counters that the journal would keep."""

    roster: Roster
    now: Moment = field(default_factory=lambda: moment(1000))
    records: dict[str, Any] = field(default_factory=dict)

    def keep(self, records: Any) -> None:
        for key, value in json.loads(json.dumps(dict(records))).items():
            if value is None:
                del self.records[key]
            else:
                self.records[key] = value

    def present(
        self, kind: str, token: bytes, *, claim: str | None = None, reader: str = "badges"
    ) -> Verdict:
        judged = self.roster.present(
            kind, token, reader=reader, claim=claim, now=self.now, records=self.records
        )
        self.keep(judged.records)
        return judged.verdict

    def compared(self, result: CompareResult, subject: str = ANNA, slot: int = 7) -> Verdict:
        reading = FingerCompared(slot=slot, result=result)
        judged = self.roster.compared(
            reading, module="finger", subject=subject, now=self.now, records=self.records
        )
        self.keep(judged.records)
        return judged.verdict

    def fail(self, times: int, subject: str = ANNA) -> None:
        """So many wrong fingers, each as soon as one is allowed, on a module that never tires of it."""
        for _ in range(times):
            self.later(31)
            self.compared(CompareResult.NOT_MATCHED, subject)
            self.records.pop("reader/finger")

    def later(self, seconds: float) -> None:
        self.now = moment(self.now.mono_ns / NS + seconds, self.now.boot)


def provision(roster: Roster) -> None:
    until = NOON + 86_400
    for row, token in (
        (Row(subject=ANNA, kind="badge", finger=("finger", 7), until=until), ANNAS_BADGE),
        (Row(subject=BORIS, kind="badge", until=until), BORIS_BADGE),
        (Row(subject=ANNA, kind="static", until=until), TOKEN),
        (Row(subject=ANNA, kind="pin", until=until), pin_token(ANNA, PIN)),
        (Row(subject=BORIS, kind="pin", until=until), pin_token(BORIS, b"19283746")),
    ):
        roster.put(row, token, as_of=NOON)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "roster.db"


@pytest.fixture
def door(path: Path) -> Iterator[Door]:
    roster = Roster(path, KEYS)
    provision(roster)
    yield Door(roster)
    roster.close()


# -- what opens -----------------------------------------------------------------------------------


def test_a_badge_says_who_and_where_the_finger_is_and_proves_nothing(door: Door) -> None:
    verdict = door.present("badge", ANNAS_BADGE)
    assert replace(verdict, credentials=()) == Verdict(
        outcome=Outcome.GRANTED, kind="badge", subject=ANNA, level=0, finger=("finger", 7), age_s=1000.0
    )


def test_what_was_shown_is_remembered_under_the_pepper_and_never_shown(door: Door) -> None:
    """With the fleet's key whoever finds its own name for a badge could guess the badge."""
    verdict = door.present("badge", ANNAS_BADGE)
    fleets = value_of(KEYS.epoch, "badge", ANNAS_BADGE)
    assert verdict.credentials == door.present("badge", ANNAS_BADGE).credentials
    (sealed,) = verdict.credentials
    assert sealed not in repr(verdict)
    assert fleets[:4].hex() not in sealed
    name, other = (Withdrawn().any_of([sealed], [each[:16].hex()], KEYS) for each in (fleets, bytes(32)))
    assert (name, other) == (True, False)
    assert Withdrawn().any_of([sealed], ["00" * 16], Keys.none()), "what does not open any more"


@pytest.mark.parametrize(("kind", "token"), [("static", TOKEN), ("pin", PIN)])
def test_what_is_presented_is_worth_level_one(door: Door, kind: str, token: bytes) -> None:
    verdict = door.present(kind, token, claim=ANNA)
    assert (verdict.outcome, verdict.subject, verdict.level) == (Outcome.GRANTED, ANNA, 1)


def test_a_finger_that_matches_is_worth_level_one_and_says_which_it_was(door: Door) -> None:
    verdict = door.compared(CompareResult.MATCHED)
    assert (verdict.granted, verdict.level, verdict.finger) == (True, 1, ("finger", 7))


@pytest.mark.parametrize(
    ("kind", "token"), [("badge", TOKEN), ("static", ANNAS_BADGE), ("badge", b""), ("static", b"\0" * 64)]
)
def test_a_secret_opens_only_its_own_kind_of_row(door: Door, kind: str, token: bytes) -> None:
    verdict = door.present(kind, token)
    assert (verdict.outcome, verdict.subject, verdict.level) == (Outcome.UNKNOWN, None, 0)
    assert list(door.records) == ["reader/badges"]


def test_a_pin_counts_only_for_the_subject_it_belongs_to(door: Door) -> None:
    verdict = door.present("pin", PIN, claim=BORIS)
    assert (verdict.outcome, verdict.subject) == (Outcome.MISMATCH, BORIS)
    assert door.records["subject/" + BORIS]["failures"] == 1


@pytest.mark.parametrize("typed", [PIN, pin_token(ANNA, PIN), b""])
def test_a_pin_that_claims_nobody_opens_nothing(door: Door, typed: bytes) -> None:
    assert door.present("pin", typed).outcome is Outcome.UNKNOWN


def test_a_pin_cannot_be_split_so_that_it_opens_somebody_elses_row(door: Door) -> None:
    door.roster.put(Row(subject="a\0b", kind="pin"), pin_token("a\0b", b"c"), as_of=NOON)
    assert door.present("pin", b"b\0c", claim="a").outcome is Outcome.MISMATCH


def test_a_row_is_void_after_its_time(door: Door) -> None:
    door.now = moment(86_400)
    assert door.present("badge", ANNAS_BADGE).granted
    door.later(0.001)
    verdict = door.present("badge", ANNAS_BADGE)
    assert (verdict.outcome, verdict.subject) == (Outcome.EXPIRED, ANNA)
    assert "subject/" + ANNA not in door.records, "nobody guessed anything"


@pytest.mark.parametrize("trust", list(Trust))
def test_a_row_expires_whatever_the_clock_is_worth(door: Door, trust: Trust) -> None:
    door.now = moment(86_401, trust=trust)
    assert door.present("badge", ANNAS_BADGE).outcome is Outcome.EXPIRED


def test_a_row_without_end_does_not_expire(door: Door) -> None:
    door.roster.put(Row(subject="drv-1", kind="badge"), b"forever", as_of=NOON)
    door.now = moment(1e9)
    assert door.present("badge", b"forever").granted


def test_a_revoked_row_is_refused(door: Door) -> None:
    door.roster.put(Row(subject=ANNA, kind="badge", revoked=True), ANNAS_BADGE, as_of=NOON)
    verdict = door.present("badge", ANNAS_BADGE)
    assert (verdict.outcome, verdict.subject, verdict.finger) == (Outcome.REVOKED, ANNA, None)


def test_a_forgotten_row_opens_no_more(door: Door) -> None:
    rows = len(door.roster)
    assert door.roster.forget("badge", ANNAS_BADGE)
    assert not door.roster.forget("badge", ANNAS_BADGE)
    assert len(door.roster) == rows - 1
    assert door.present("badge", ANNAS_BADGE).outcome is Outcome.UNKNOWN


def test_rows_survive_closing(door: Door, path: Path) -> None:
    other = Roster(path, KEYS)
    assert Door(other).present("badge", ANNAS_BADGE).granted
    other.close()


# -- provisioning ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("token", "strong"),
    [
        (b"0123456789abcde", False),
        (b"0123456789abcdef", False),
        (b"0123456789abcdef0123456789abcde", False),
        (b"0f1e2d3c4b5a69788796a5b4c3d2e1f0", True),
        (b"31415926535897932384626433832795028841", False),
        (b"314159265358979323846264338327950288419", True),
        (b"AZaz09+/AZaz09+/AZaz0", False),
        (b"AZaz09+/AZaz09+/AZaz09", True),
        (bytes(range(128, 143)), False),
        (bytes(range(128, 144)), True),
        (b"", False),
        (b"a" * 64, False),
        (b"0123456789abcdef0123456789abcdef", False),
    ],
)
def test_a_token_that_cannot_hold_128_bits_is_not_taken(door: Door, token: bytes, strong: bool) -> None:
    row = Row(subject=ANNA, kind="static")
    if strong:
        door.roster.put(row, token, as_of=NOON)
        return
    with pytest.raises(RosterError, match="expected a token of at least 128 bits, got at most"):
        door.roster.put(row, token, as_of=NOON)


@pytest.mark.parametrize("kind", ["slot", "face", ""])
def test_a_row_is_sealed_only_under_what_can_be_presented(door: Door, kind: str) -> None:
    with pytest.raises(RosterError, match="expected one of badge, static, pin"):
        door.roster.put(Row(subject=ANNA, kind=kind), TOKEN, as_of=NOON)


@pytest.mark.parametrize(("kind", "public_key"), [("fido2", None), ("badge", "pQEC"), ("pin", "")])
def test_a_public_key_belongs_to_a_fingerprint_card_and_to_nothing_else(
    door: Door, kind: str, public_key: str | None
) -> None:
    row = Row(subject=ANNA, kind=kind, public_key=public_key)
    with pytest.raises(RosterError, match=f"expected a public key for fido2 .* got {kind}"):
        door.roster.put(row, bytes(32), as_of=NOON)


def test_a_row_put_again_replaces_the_one_before(door: Door) -> None:
    rows = len(door.roster)
    door.roster.put(Row(subject=BORIS, kind="badge"), ANNAS_BADGE, as_of=NOON)
    assert len(door.roster) == rows
    assert door.present("badge", ANNAS_BADGE).subject == BORIS


def test_every_verdict_says_how_old_its_knowledge_is(door: Door) -> None:
    told = [
        door.present("badge", ANNAS_BADGE),
        door.present("badge", b"nobody"),
        door.present("pin", b"1", claim=ANNA),
        door.compared(CompareResult.NO_FINGER),
        door.compared(CompareResult.NOT_MATCHED),
    ]
    assert [verdict.age_s for verdict in told] == [1000.0] * 5


def test_knowledge_is_as_old_as_the_newest_row_and_never_from_the_future(path: Path) -> None:
    roster = Roster(path, KEYS)
    assert roster.age_s(moment(0)) is None
    provision(roster)
    assert roster.age_s(moment(90)) == 90
    roster.put(Row(subject=ANNA, kind="badge"), ANNAS_BADGE, as_of=NOON + 60)
    assert roster.age_s(moment(90)) == 30
    assert roster.age_s(moment(10)) == 0
    roster.close()


# -- what a thief finds ---------------------------------------------------------------------------


@pytest.mark.parametrize("secret", [ANNA, BORIS, "drv-", "finger", TOKEN, PIN, ANNAS_BADGE, BORIS_BADGE])
def test_the_file_names_nobody(door: Door, path: Path, secret: str | bytes) -> None:
    image = b"".join(file.read_bytes() for file in path.parent.iterdir())
    wanted = secret.encode() if isinstance(secret, str) else secret
    assert len(image) > 4096
    for form in (wanted, wanted.hex().encode(), wanted.decode("latin-1").encode("utf-16-le")):
        assert form not in image


@pytest.mark.parametrize(
    "keys", [Keys(bytes(32), KEYS.epoch), Keys(KEYS.device, bytes(32))], ids=["pepper", "epoch"]
)
def test_without_both_keys_nothing_opens(door: Door, path: Path, keys: Keys) -> None:
    thief = Door(Roster(path, keys))
    assert not thief.present("badge", ANNAS_BADGE).granted
    assert not thief.present("static", TOKEN).granted
    assert not thief.present("pin", PIN, claim=ANNA).granted
    thief.roster.close()


def test_with_the_keys_alone_no_row_opens(door: Door, path: Path) -> None:
    """The key of a row comes from what is presented: guesses that are not it decrypt nothing."""
    for guess in (b"", ANNA.encode(), KEYS.device, KEYS.epoch, ANNAS_BADGE[:-1]):
        assert not door.present("badge", guess).granted


@pytest.mark.parametrize("at", [0, 15, 16, 27, 28, -1])
def test_a_row_that_was_tampered_with_does_not_open(door: Door, path: Path, at: int) -> None:
    lookup = KEYS.derive("badge", ANNAS_BADGE)[0]
    with sqlite3.connect(path) as connection:
        sealed = bytearray(
            connection.execute("SELECT sealed FROM sealed WHERE id = ?", (lookup,)).fetchone()[0]
        )
        sealed[at] ^= 1
        connection.execute("UPDATE sealed SET sealed = ? WHERE id = ?", (bytes(sealed), lookup))
    connection.close()
    assert door.present("badge", ANNAS_BADGE).outcome is Outcome.UNKNOWN


def test_a_row_moved_to_another_badge_does_not_open(door: Door, path: Path) -> None:
    annas, boris = (KEYS.derive("badge", token)[0] for token in (ANNAS_BADGE, BORIS_BADGE))
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM sealed WHERE id = ?", (boris,))
        connection.execute("UPDATE sealed SET id = ? WHERE id = ?", (boris, annas))
    connection.close()
    assert not door.present("badge", BORIS_BADGE).granted


def test_a_deleted_row_is_gone_from_the_file(door: Door, path: Path) -> None:
    lookup = KEYS.derive("badge", ANNAS_BADGE)[0]
    assert lookup in path.read_bytes()
    door.roster.forget("badge", ANNAS_BADGE)
    assert lookup not in path.read_bytes()


def test_files_are_for_the_agent_alone(door: Door, path: Path, tmp_path: Path) -> None:
    Keys.load(tmp_path / "keys")
    assert path.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "keys").stat().st_mode & 0o777 == 0o700
    assert {file.stat().st_mode & 0o777 for file in (tmp_path / "keys").iterdir()} == {0o600}


# -- keys -----------------------------------------------------------------------------------------


def test_keys_are_made_once_and_read_ever_after(tmp_path: Path) -> None:
    keys = Keys.load(tmp_path / "keys")
    assert Keys.load(tmp_path / "keys") == keys
    assert len({keys.device, keys.epoch}) == 2
    assert sorted(file.name for file in (tmp_path / "keys").iterdir()) == ["epoch", "pepper"]


def test_a_key_of_the_wrong_length_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pepper").write_bytes(b"short")
    with pytest.raises(BadKeyFile, match="expected a key of 32 bytes, got 5"):
        Keys.load(tmp_path)


def test_keys_are_never_shown() -> None:
    assert repr(KEYS) == "Keys(...)"


def test_a_digest_tells_values_and_purposes_apart_and_keeps_neither() -> None:
    digests = {KEYS.digest(purpose, value) for purpose in ("code", "pin") for value in (b"1", b"2")}
    assert len(digests) == 4
    assert {len(digest) for digest in digests} == {16}
    assert KEYS.digest("code", b"1") == KEYS.digest("code", b"1")


# -- failing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("result", [CompareResult.NO_FINGER, CompareResult.POOR_IMAGE])
def test_where_nothing_was_compared_nothing_is_counted(door: Door, result: CompareResult) -> None:
    assert door.compared(result).outcome is Outcome.NO_TRY
    assert door.records == {}


@pytest.mark.parametrize("result", [CompareResult.NOT_MATCHED, CompareResult.EMPTY_SLOT])
def test_a_wrong_finger_counts_against_subject_and_module(door: Door, result: CompareResult) -> None:
    assert door.compared(result).outcome is Outcome.MISMATCH
    assert sorted(door.records) == ["reader/finger", "subject/" + ANNA]


def test_the_sixth_try_within_thirty_seconds_is_refused_right_or_wrong(door: Door) -> None:
    for _ in range(FREE_TRIES):
        assert door.present("pin", b"wrong", claim=ANNA, reader="pad").outcome is Outcome.MISMATCH
    door.later(29)
    assert door.present("pin", PIN, claim=ANNA, reader="pad").outcome is Outcome.LOCKED
    assert door.compared(CompareResult.MATCHED).outcome is Outcome.LOCKED
    assert door.present("static", TOKEN).outcome is Outcome.LOCKED
    assert door.present("badge", ANNAS_BADGE).outcome is Outcome.LOCKED
    assert door.present("badge", BORIS_BADGE).granted, "only she is locked out"
    door.later(1)
    assert door.present("pin", PIN, claim=ANNA, reader="pad").granted


def test_trying_while_locked_makes_the_lock_no_longer(door: Door) -> None:
    door.fail(FREE_TRIES)
    for _ in range(5):
        door.later(5)
        door.compared(CompareResult.MATCHED)
    door.later(5)
    assert door.compared(CompareResult.MATCHED).granted


def test_a_locked_subjects_badge_reads_like_an_unknown_one(door: Door) -> None:
    door.fail(FREE_TRIES)
    locked, unknown = door.present("badge", ANNAS_BADGE), door.present("badge", b"nobody")
    assert (locked.outcome, unknown.outcome) == (Outcome.LOCKED, Outcome.UNKNOWN)
    assert (locked.granted, locked.level, locked.finger) == (unknown.granted, unknown.level, unknown.finger)


def test_fifty_failures_disable_for_good(door: Door) -> None:
    door.fail(LAST_TRY)
    door.now = moment(60, boot="boot-2")
    assert door.compared(CompareResult.MATCHED).outcome is Outcome.DISABLED
    door.later(1e6)
    assert door.compared(CompareResult.MATCHED).outcome is Outcome.DISABLED


async def test_nobody_stays_in_for_longer_than_a_month_after_their_list_was_signed(path: Path) -> None:
    press, signed_at = Press(), NOON
    roster = Roster(path, KEYS, authority=Authority(listed_at=lambda: signed_at))
    bundles = Bundles(roster.rows, press.seal, ADDRESS, AsyncMock())
    await bundles.accepted(press.print(badges(range(3))))
    for raw in press.pages.values():
        await bundles.page(raw)
    roster.put(Row(subject=BORIS, kind="badge", until=NOON + 10**8), BORIS_BADGE, as_of=NOON)
    door = Door(roster, moment(ROSTER_S))
    assert door.present("badge", badge(1)).granted
    door.later(1)
    assert door.present("badge", badge(1)).outcome is Outcome.EXPIRED
    assert door.present("badge", BORIS_BADGE).granted, "a row that was added here says itself until when"
    signed_at += 1
    assert door.present("badge", badge(1)).granted
    bundles.close()
    roster.close()


def test_a_lock_survives_restart_and_reboot(door: Door, path: Path) -> None:
    door.fail(FREE_TRIES)
    again = Door(Roster(path, KEYS), door.now, json.loads(json.dumps(door.records)))
    assert again.compared(CompareResult.MATCHED).outcome is Outcome.LOCKED
    again.now = moment(5, boot="boot-2")
    assert again.compared(CompareResult.MATCHED).outcome is Outcome.LOCKED
    again.now = moment(30, boot="boot-2")
    assert again.compared(CompareResult.MATCHED).granted
    again.roster.close()


def test_success_forgives_but_a_badge_does_not(door: Door) -> None:
    door.fail(FREE_TRIES - 1)
    assert door.present("badge", ANNAS_BADGE).granted
    assert door.records["subject/" + ANNA]["failures"] == 4
    assert door.compared(CompareResult.MATCHED).granted
    assert "subject/" + ANNA not in door.records


@pytest.mark.parametrize("reader", ["badges", "finger"])
def test_a_reader_rests_after_twenty_failures_whoever_comes_next(door: Door, reader: str) -> None:
    def fail(who: int) -> Verdict:
        if reader == "finger":
            return door.compared(CompareResult.NOT_MATCHED, f"drv-{who}")
        return door.present("badge", b"nobody")

    def succeed() -> Verdict:
        if reader == "finger":
            return door.compared(CompareResult.MATCHED)
        return door.present("badge", ANNAS_BADGE)

    *before, last = [fail(who).reader_paused for who in range(BURST)]
    assert (any(before), last) == (False, True)
    verdict = succeed()
    assert (verdict.outcome, verdict.subject, verdict.age_s) == (Outcome.PAUSED, None, 1000.0)
    door.later(299)
    assert succeed().outcome is Outcome.PAUSED
    door.later(1)
    assert succeed().granted


def test_one_reader_that_rests_leaves_the_others_alone(door: Door) -> None:
    for _ in range(BURST):
        door.present("badge", b"nobody")
    assert door.present("badge", ANNAS_BADGE, reader="other").granted


# -- what the fleet says counts at once -----------------------------------------------------------


@pytest.fixture
def fleet(door: Door) -> Fleet:
    fleet = Fleet()
    door.roster.authority = fleet.authority()
    return fleet


def test_nothing_of_a_subject_that_is_revoked_counts(door: Door, fleet: Fleet) -> None:
    assert door.present("badge", ANNAS_BADGE).granted
    fleet.subjects.add(ANNA)
    assert door.present("badge", ANNAS_BADGE).outcome is Outcome.REVOKED
    assert door.present("static", TOKEN).outcome is Outcome.REVOKED
    assert door.present("pin", PIN, claim=ANNA).outcome is Outcome.REVOKED
    assert door.present("pin", b"wrong", claim=ANNA).outcome is Outcome.REVOKED
    assert door.compared(CompareResult.MATCHED).outcome is Outcome.REVOKED
    assert door.present("badge", BORIS_BADGE).granted


@pytest.mark.parametrize(
    ("kind", "token", "sealed_under"),
    [("badge", ANNAS_BADGE, ANNAS_BADGE), ("static", TOKEN, TOKEN), ("pin", PIN, pin_token(ANNA, PIN))],
)
def test_a_credential_that_is_revoked_opens_nothing_and_the_others_do(
    door: Door, fleet: Fleet, kind: str, token: bytes, sealed_under: bytes
) -> None:
    fleet.credentials.add(value_of(KEYS.epoch, kind, sealed_under)[:16])
    for each, secret in (("badge", ANNAS_BADGE), ("static", TOKEN), ("pin", PIN)):
        verdict = door.present(each, secret, claim=ANNA)
        assert (verdict.outcome is Outcome.REVOKED) is (each == kind)


def test_a_revocation_is_no_failure_of_the_subject(door: Door, fleet: Fleet) -> None:
    fleet.subjects.add(ANNA)
    door.present("badge", ANNAS_BADGE)
    assert list(door.records) == ["reader/badges"]


def test_a_verdict_says_how_long_the_fleet_was_silent_whatever_it_is(door: Door, fleet: Fleet) -> None:
    fleet.heard_at = NOON - 7200.0
    fleet.subjects.add(BORIS)
    verdicts = [
        door.present("badge", ANNAS_BADGE),
        door.present("badge", b"nobody"),
        door.present("badge", BORIS_BADGE),
        door.present("pin", b"wrong", claim=ANNA),
        door.compared(CompareResult.NO_FINGER),
    ]
    assert {verdict.age_s for verdict in verdicts} == {8200.0}
    fleet.heard_at = NEVER
    assert door.present("badge", ANNAS_BADGE).age_s is None


def test_a_row_says_what_its_subject_is(door: Door) -> None:
    door.roster.put(Row(subject="drv-sue", kind="badge", role="supervisor"), b"0100ffffff", as_of=NOON)
    assert door.present("badge", b"0100ffffff").role == "supervisor"
    assert door.present("badge", ANNAS_BADGE).role is None


# -- what a lock can be lifted by -----------------------------------------------------------------


def test_a_supervisor_ends_the_wait_and_nothing_else(door: Door) -> None:
    door.fail(FREE_TRIES)
    assert door.compared(CompareResult.MATCHED).outcome is Outcome.LOCKED
    door.keep(door.roster.pardon(Pardon(subject=ANNA), door.records))
    assert door.records["subject/" + ANNA]["failures"] == FREE_TRIES
    assert door.compared(CompareResult.MATCHED).granted


def test_no_supervisor_lifts_what_fifty_failures_disabled(door: Door) -> None:
    door.fail(LAST_TRY)
    door.keep(door.roster.pardon(Pardon(subject=ANNA), door.records))
    door.later(1e6)
    assert door.compared(CompareResult.MATCHED).outcome is Outcome.DISABLED


def test_the_fleet_lifts_it(door: Door) -> None:
    door.fail(LAST_TRY)
    door.keep(door.roster.reinstate(ANNA, door.records))
    assert door.compared(CompareResult.MATCHED).granted
    assert door.roster.reinstate(ANNA, door.records) == {}


def test_a_supervisor_wakes_a_reader_that_rests(door: Door) -> None:
    for _ in range(BURST):
        door.present("badge", b"nobody")
    assert door.present("badge", ANNAS_BADGE).outcome is Outcome.PAUSED
    door.keep(door.roster.pardon(Pardon(reader="badges"), door.records))
    assert door.present("badge", ANNAS_BADGE).granted


# -- clocks that lie ------------------------------------------------------------------------------

TEN_YEARS_NS = 10 * 365 * 86_400 * NS


def clock_at(wall_ns: int, floor_ns: int, mono_s: float = 5.0) -> SystemClock:
    return SystemClock(
        floor_ns=floor_ns,
        has_rtc=True,
        boot="boot-2",
        mono=lambda: round(mono_s * NS),
        wall=lambda: wall_ns,
        ntp_age=lambda: None,
    )


@pytest.mark.parametrize("off_ns", [-TEN_YEARS_NS, TEN_YEARS_NS])
def test_no_row_that_had_ended_opens_again_however_the_clock_is_set(door: Door, off_ns: int) -> None:
    """Its end lies before the floor, and no clock is believed below that."""
    ended_ns = (NOON + 86_400) * NS
    door.now = clock_at(ended_ns + off_ns, floor_ns=ended_ns + NS).now()
    assert door.present("badge", ANNAS_BADGE).outcome is Outcome.EXPIRED
    assert door.present("static", TOKEN).outcome is Outcome.EXPIRED


def test_a_clock_ten_years_ahead_ends_rows_and_is_not_remembered_as_the_floor(door: Door) -> None:
    ahead = clock_at(NOON_NS + TEN_YEARS_NS, floor_ns=NOON_NS)
    ahead.observe(Trust.NTP, NOON_NS + TEN_YEARS_NS, 5 * NS, 0.1)
    door.now = ahead.now()
    assert door.present("badge", ANNAS_BADGE).outcome is Outcome.EXPIRED
    right = clock_at(NOON_NS + 60 * NS, floor_ns=ahead.next_floor_ns)
    right.observe(Trust.NTP, right.floor_ns + 60 * NS, 5 * NS, 0.1)
    assert right.floor_ns <= NOON_NS + 8 * 86_400 * NS, "a week at most was lost to the lie"
