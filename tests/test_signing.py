"""Documents as the fleet issues them, given to the device's own judgement: what it must take, it takes."""

import shutil
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent import page
from agent.admission import Audience
from agent.clock import NS
from agent.documents import ROSTER_S, Role
from agent.envelope import Kind, Refused
from agent.fleet.keyring import Keyring, KeyringError
from agent.fleet.sealing import MOST_BUCKETS, Epoch, Recipient, RowOf, TooManyRows, seal_all
from agent.fleet.signing import GRANT_S, Desk, Order, chosen
from agent.row_seal import BadPage, value_of
from agent.trust import Trusted
from tests.bundles import ADDRESS, badge, badges
from tests.fleets import DEVICE, TENANT, ceremony, enrolled, passphrase, replaced
from tests.moments import moment

EPOCH = Epoch(1, bytes(range(32)))
SEAL = X25519PrivateKey.generate()
TO = Recipient(ADDRESS, SEAL.public_key())
MINUTE, DAY = 60, 86_400


class Office:
    """A fleet, and one device that hears all it says."""

    def __init__(self, folder: Path) -> None:
        self.keyring = ceremony(folder)
        enrolled(self.keyring)
        audience = Audience(tenant=TENANT, device=DEVICE)
        self.trusted = Trusted.pin(self.keyring.document.raw, audience)
        self.now = self.keyring.root_at
        self.desk = self.at(MINUTE)

    def at(self, later: int) -> Desk:
        """The desk so many seconds later."""
        self.now += later
        self.desk = Desk(self.keyring, self.now)
        return self.desk

    def restart(self) -> None:
        """All versions start anew, a minute later."""
        self.at(MINUTE)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "time", lambda: float(self.now))
            self.keyring.restart(passphrase=passphrase)

    def hear(self) -> Trusted:
        """The device takes everything that stands at the broker. Raises Refused."""
        outgoing = {name: raw for name, raw in self.desk.outgoing(DEVICE).items() if "page/" not in name}
        for name in ("root", "head", *(each for each in outgoing if each not in ("root", "head"))):
            if name in outgoing:
                kind = Kind(name.partition("/")[0])
                moment_now = replace(moment(0), utc_ns=(self.now + 1) * NS)
                self.trusted = self.trusted.take(kind, outgoing[name], moment_now).trusted
        return self.trusted


@pytest.fixture
def office(tmp_path: Path) -> Office:
    return Office(tmp_path / "keys")


def roster(office: Office, rows: Iterable[RowOf]) -> Any:
    document = office.desk.bundle(DEVICE, "roster", rows, scope="depot-7")
    office.desk.head(DEVICE)
    return document


# -- what devices take ----------------------------------------------------------------------------


def test_a_device_takes_what_a_head_names(office: Office) -> None:
    roster(office, badges(range(100)))
    trusted = office.hear()
    assert trusted.complete
    (bundle,) = trusted.bundles
    assert (bundle.body.rows, bundle.body.scope, bundle.ver) == (100, "depot-7", 1)
    assert trusted.head is not None
    assert trusted.head.body.documents == {"root": trusted.root.pin, "bundle/roster": bundle.pin}


def test_a_fleet_whose_clock_is_behind_makes_nothing_that_is_older_than_its_root(office: Office) -> None:
    """What starts anew with a new root counts only if it was made after it."""
    head = Desk(office.keyring, office.keyring.root_at - DAY).head(DEVICE)
    assert head.claims.iat == office.keyring.root_at


def test_each_version_follows_the_one_before_even_after_a_restart(office: Office) -> None:
    for number in range(1, 4):
        office.at(MINUTE)
        assert roster(office, badges(range(number))).ver == number
        assert office.hear().complete
    again = Desk(Keyring(office.keyring.folder), office.now + MINUTE)
    assert again.head(DEVICE).ver == 4


def test_revocations_add_up(office: Office) -> None:
    office.desk.revoke(subjects=["drv-1"])
    office.at(MINUTE).revoke(subjects=["drv-2"], grants=["g-1"])
    office.desk.head(DEVICE)
    trusted = office.hear()
    assert [trusted.is_revoked(subject) for subject in ("drv-1", "drv-2", "drv-3")] == [True, True, False]
    assert "g-1" in trusted.revoked.grants
    assert trusted.complete


def test_a_code_that_was_taken_back_and_has_expired_since_makes_room_for_others(office: Office) -> None:
    """A document holds some thousands of names: without this the fleet could one day revoke nobody more."""
    many = [f"code-{number:017d}" for number in range(2900)]
    office.desk.revoke(subjects=["drv-1"], grants=many)
    with pytest.raises(Refused, match="oversized: expected a revocations of at most 98304 bytes"):
        office.at(GRANT_S).revoke(grants=[f"late-{number}" for number in range(900)])
    office.desk.revoke(grants=["late-1"])
    office.desk.head(DEVICE)
    assert office.hear().is_withdrawn(many[0]), "its last day may not be over everywhere"
    office.at(2 * DAY).revoke(grants=["late-2"])
    office.desk.head(DEVICE)
    body = office.desk.current(DEVICE)["revocations"].body
    assert (body.subjects, body.grants) == (["drv-1"], ["late-1", "late-2"])
    assert office.hear().is_withdrawn(many[0]), "whoever has heard of it keeps it"


@pytest.mark.parametrize("role", [Role.HEAD, Role.BUNDLE, Role.REVOCATIONS])
def test_after_a_key_is_rotated_everything_it_signed_is_signed_anew(office: Office, role: Role) -> None:
    laid = roster(office, badges(range(100)))
    office.desk.revoke(subjects=["drv-1"])
    office.desk.head(DEVICE)
    assert office.hear().complete
    replaced(office.keyring, role, office.keyring.root.kids(role))
    office.at(MINUTE).head(DEVICE)
    trusted = office.hear()
    assert trusted.complete
    assert trusted.bundles[0].body.pages == laid.body.pages, "and no page has to be fetched again"
    assert trusted.is_revoked("drv-1")


def test_a_key_is_rotated_without_a_moment_in_which_nothing_counts(office: Office) -> None:
    roster(office, badges(range(100)))
    assert office.hear().complete
    (old,) = office.keyring.root.kids(Role.BUNDLE)
    office.keyring.change(Role.BUNDLE, fresh=1, passphrase=passphrase)
    office.at(MINUTE)
    assert office.hear().complete, "the old key still counts"
    office.at(MINUTE).head(DEVICE)
    (bundle,) = office.hear().bundles
    assert bundle.signers != (old,)
    office.keyring.change(Role.BUNDLE, gone=[old], passphrase=passphrase)
    office.at(MINUTE)
    assert office.hear().bundles == (bundle,)


def test_after_a_restart_versions_may_be_lower_and_nothing_of_before_counts(office: Office) -> None:
    """The folder of what was issued is lost: without it the fleet begins at version 1, and is refused."""
    roster(office, badges(range(100)))
    office.at(MINUTE).revoke(subjects=["drv-1"])
    for _ in range(5):
        office.at(MINUTE)
        roster(office, badges(range(100)))
    old = office.hear().head
    shutil.rmtree(office.keyring.folder / "issued")
    office.at(MINUTE).revoke(subjects=["drv-2"])
    roster(office, badges(range(50)))
    with pytest.raises(Refused, match="rolled_back: expected head 6 or later, got 1"):
        office.hear()
    office.restart()
    office.at(MINUTE).head(DEVICE)
    trusted = office.hear()
    assert (trusted.complete, trusted.root.body.epoch) == (True, 2)
    assert [each.ver for each in (trusted.head, *trusted.bundles) if each] == [2, 2]
    assert [trusted.is_revoked(subject) for subject in ("drv-1", "drv-2")] == [True, True]
    assert old is not None
    with pytest.raises(Refused, match="rolled_back"):
        trusted.take(Kind.HEAD, old.raw, replace(moment(0), utc_ns=(office.now + 1) * NS))


def test_what_was_issued_before_a_restart_is_signed_anew_with_the_next_head(office: Office) -> None:
    laid = roster(office, badges(range(100)))
    assert office.hear().complete
    office.restart()
    office.at(MINUTE).head(DEVICE)
    trusted = office.hear()
    assert trusted.complete
    assert trusted.bundles[0].body.pages == laid.body.pages, "and no page has to be fetched again"
    again = office.at(MINUTE).head(DEVICE)
    assert again.body.documents["bundle/roster"] == trusted.bundles[0].pin, "once"


def test_a_document_is_signed_anew_before_it_expires(office: Office) -> None:
    first = roster(office, badges(range(100)))
    office.at(ROSTER_S // 2).head(DEVICE)
    assert office.desk.current(DEVICE)["bundle/roster"].ver == 1
    office.at(ROSTER_S // 4).head(DEVICE)
    document = office.desk.current(DEVICE)["bundle/roster"]
    assert (document.ver, document.body) == (2, first.body)
    assert document.claims.exp == office.now + ROSTER_S
    assert office.hear().complete


def test_a_head_lives_for_a_day(office: Office) -> None:
    head = office.desk.head(DEVICE)
    assert head.claims.exp - head.claims.iat == DAY


def test_a_command_has_a_number_of_its_own_for_each_device_and_key(office: Office) -> None:
    enrolled(office.keyring, "van-0043")
    order = Order(rank="C", name="open", args={"compartment": 17}, operator="op-1", reason="stuck")
    opened = [
        office.trusted.open(Kind.COMMAND, office.desk.command(DEVICE, order, lasts=120)) for _ in range(3)
    ]
    assert [each.ver for each in opened] == [1, 2, 3]
    assert opened[0].body.args == {"compartment": 17}
    assert opened[0].claims.exp - opened[0].claims.iat == 120
    other = Trusted.pin(office.keyring.document.raw, Audience(tenant=TENANT, device="van-0043"))
    assert other.open(Kind.COMMAND, office.desk.command("van-0043", order, lasts=120)).ver == 1


def test_a_command_that_reaches_far_has_two_signatures(office: Office) -> None:
    order = Order(rank="D", name="open_all", args={}, operator="op-1", reason="fire")
    raw = office.desk.command(DEVICE, order, lasts=600, signatures=2)
    assert len(office.trusted.open(Kind.COMMAND, raw).signers) == 2


def test_an_emergency_is_signed_with_its_own_key(office: Office) -> None:
    order = Order(rank="E", name="lock", args={}, operator="op-1", reason="break-in")
    opened = office.trusted.open(Kind.COMMAND, office.desk.command(DEVICE, order, lasts=3600))
    assert opened.signers == office.keyring.root.kids(Role.EMERGENCY)


def test_the_time_answers_the_nonce(office: Office) -> None:
    told = office.trusted.open(Kind.TIME, office.desk.time(DEVICE, "A" * 22, 1_795_521_600_123))
    assert (told.body.nonce, told.body.utc) == ("A" * 22, 1_795_521_600_123)


def test_a_device_that_nobody_enrolled_is_named(office: Office) -> None:
    with pytest.raises(KeyringError, match=r"expected one of the enrolled devices van-0042, got 'van-9999'"):
        office.desk.head("van-9999")
    assert chosen(office.keyring, None) == [DEVICE]


# -- pages ----------------------------------------------------------------------------------------


def test_a_device_gets_its_own_grants_alone(office: Office) -> None:
    lockers = [DEVICE, f"{TENANT}/{DEVICE}", "locker-elsewhere"]
    rows = [
        RowOf(
            "grant", bytes([number]) * 16, {"jti": f"g-{number}", "locker": locker, "parcel": "p", "exp": 2}
        )
        for number, locker in enumerate(lockers)
    ]
    document = office.desk.bundle(DEVICE, "grants", rows, scope="all")
    assert document.body.rows == 2


def test_pages_that_nothing_names_are_forgotten(office: Office) -> None:
    roster(office, badges(range(300)))
    before = office.desk.outgoing(DEVICE)
    office.at(MINUTE)
    roster(office, badges(range(1, 300)))
    after = office.desk.outgoing(DEVICE)
    gone = {name for name in before.keys() - after.keys() if name.startswith("page/")}
    assert len(gone) == 1
    pages = office.keyring.folder / "issued" / DEVICE / "pages"
    assert {f"page/{path.name}" for path in pages.iterdir()} == {n for n in after if n.startswith("page/")}


def test_unchanged_rows_leave_every_page_as_it_was() -> None:
    first = seal_all("roster", badges(range(300)), TO, EPOCH, before=None, ver=1)
    second = seal_all("roster", badges(range(300)), TO, EPOCH, before=first, ver=2)
    assert second == first


def test_another_epoch_key_or_recipient_leaves_none() -> None:
    first = seal_all("roster", badges(range(300)), TO, EPOCH, before=None, ver=1)
    for to, epoch in (
        (TO, Epoch(2, bytes(32))),
        (Recipient(ADDRESS, X25519PrivateKey.generate().public_key()), EPOCH),
    ):
        second = seal_all("roster", badges(range(300)), to, epoch, before=first, ver=2)
        assert not {each.sha256 for each in first.pages} & {each.sha256 for each in second.pages}


@pytest.mark.parametrize("rows", [0, 1, 300, 2000, 20_000])
def test_pages_hold_every_row_once_and_none_is_too_large(rows: int) -> None:
    laid = seal_all("roster", badges(range(rows)), TO, EPOCH, before=None, ver=1)
    assert all(each.size == len(each.raw) <= page.LIMIT for each in laid.pages)
    key, *others = laid.pages
    plain = page.unseal(key.raw, SEAL, page.info("roster", ADDRESS, key.ver))
    assert page.read_key(plain) == page.EpochKey(1, EPOCH.key)
    content = [
        row
        for each in others
        for row in page.read_rows("roster", page.unseal(each.raw, SEAL, page.info("roster", ADDRESS, 1))).rows
    ]
    assert {value for value, _ in content} == {value_of(EPOCH.key, "badge", badge(n)) for n in range(rows)}
    assert len(content) == laid.rows == rows


def test_a_change_and_the_list_that_names_it_cost_little_beside_the_whole() -> None:
    rows = badges(range(2000))
    first = seal_all("roster", rows, TO, EPOCH, before=None, ver=1)
    second = seal_all("roster", rows[1:], TO, EPOCH, before=first, ver=2)
    new = [each for each in second.pages if each.ver == 2]
    assert len(new) == 1
    whole = sum(each.size for each in second.pages)
    assert new[0].size + 153 * len(second.pages) < whole / 10


def test_a_few_rows_more_move_no_row() -> None:
    first = seal_all("roster", badges(range(1000)), TO, EPOCH, before=None, ver=1)
    second = seal_all("roster", badges(range(1600)), TO, EPOCH, before=first, ver=2)
    assert first.buckets == second.buckets


def test_more_than_all_pages_hold_is_refused_before_anything_is_sealed() -> None:
    large = {"flags": ["x" * 64] * 16}
    rows = [RowOf("parcel", b"sscc:%018d" % number, large) for number in range(MOST_BUCKETS * 90)]
    with pytest.raises(TooManyRows, match="expected what 512 pages can hold"):
        seal_all("manifest", rows, TO, EPOCH, before=None, ver=1)


def test_the_same_secret_twice_is_refused() -> None:
    with pytest.raises(BadPage, match="expected each badge once"):
        seal_all("roster", [*badges([1]), *badges([1])], TO, EPOCH, before=None, ver=1)


def test_secrets_leave_as_v_alone() -> None:
    laid = seal_all("roster", badges(range(10)), TO, EPOCH, before=None, ver=1)
    plains = b"".join(
        page.unseal(each.raw, SEAL, page.info("roster", ADDRESS, each.ver)) for each in laid.pages
    )
    assert b"badge-" not in plains
    assert "badge-" not in repr(badges([1]))
