"""The fleet's keys: the ceremony, who may sign, what a new root takes, and what stays on disk."""

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from agent.admission import Audience
from agent.clock import NS, Moment
from agent.documents import Role
from agent.enrolment import EnrolmentError
from agent.envelope import Envelope, Kind, Reason, Refused
from agent.fleet.certificates import make_authority
from agent.fleet.enrolment import devices, enrol, read_request
from agent.fleet.keyring import Keyring, KeyringError
from agent.jws import Signer
from agent.trust import Trusted
from tests.fleets import DEVICE, TENANT, ceremony, csr, enrolled, replaced, request
from tests.moments import moment

VAN = Audience(tenant=TENANT, device=DEVICE)


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return ceremony(tmp_path / "keys")


def now(keyring: Keyring) -> Moment:
    """Some time after the root in force was made."""
    return replace(moment(0), utc_ns=(keyring.root_at + 60) * NS)


# -- the ceremony ---------------------------------------------------------------------------------


def test_the_ceremony_makes_a_root_that_devices_can_be_pinned_to(keyring: Keyring) -> None:
    trusted = Trusted.pin(keyring.document.raw, VAN)
    assert len(Envelope.parse(Kind.ROOT, keyring.document.raw).jws.signatures) == 3
    assert trusted.root.body.threshold(Role.ROOT) == 2
    assert {role for role in Role if trusted.root.body.kids(role)} == set(Role)
    assert len(trusted.root.body.kids(Role.COMMAND)) == 3


def test_all_files_are_for_their_owner_and_root_keys_need_a_passphrase(keyring: Keyring) -> None:
    files = [path for path in keyring.folder.rglob("*") if path.is_file()]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert keyring.folder.stat().st_mode & 0o777 == 0o700
    encrypted = {path.name for path in files if b"ENCRYPTED PRIVATE KEY" in path.read_bytes()}
    assert encrypted == {"root-1.key", "root-2.key", "root-3.key"}


def test_a_folder_with_files_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "something").write_text("")
    with pytest.raises(KeyringError, match="expected an empty folder"):
        ceremony(tmp_path)


def test_a_wrong_passphrase_opens_no_root_key(keyring: Keyring) -> None:
    with pytest.raises(KeyringError, match=r"root-1\.key: expected a PEM key and its passphrase"):
        keyring.root_signers(lambda _: b"wrong passphrase")


def test_a_key_that_no_root_names_signs_nothing(keyring: Keyring, tmp_path: Path) -> None:
    other = ceremony(tmp_path / "other")
    (other.folder / "head-1.key").replace(keyring.folder / "head-1.key")
    with pytest.raises(KeyringError, match="expected a key of role head that the root names"):
        keyring.signers(Role.HEAD)


# -- new roots ------------------------------------------------------------------------------------


def test_a_device_goes_along_with_a_rotated_key(keyring: Keyring) -> None:
    trusted = Trusted.pin(keyring.document.raw, VAN)
    (old,) = keyring.root.kids(Role.BUNDLE)
    replaced(keyring, Role.BUNDLE, [old])
    (new,) = keyring.root.kids(Role.BUNDLE)
    assert old != new
    after = trusted.take(Kind.ROOT, keyring.document.raw, now(keyring)).trusted
    assert after.root.body.kids(Role.BUNDLE) == (new,)
    assert old not in after.root.body.keys
    assert [each.kid for each in keyring.signers(Role.BUNDLE)] == [new]
    assert [path.name for path in (keyring.folder / "retired").iterdir()] == ["bundle-1.key"]


def test_all_root_keys_can_be_changed_at_once(keyring: Keyring) -> None:
    trusted = Trusted.pin(keyring.document.raw, VAN)
    replaced(keyring, Role.ROOT, keyring.root.kids(Role.ROOT))
    after = trusted.take(Kind.ROOT, keyring.document.raw, now(keyring)).trusted
    assert not set(after.root.body.kids(Role.ROOT)) & set(trusted.root.body.kids(Role.ROOT))
    replaced(keyring, Role.HEAD, keyring.root.kids(Role.HEAD))
    assert after.take(Kind.ROOT, keyring.document.raw, now(keyring)).trusted.root.ver == 3


def test_one_lost_root_key_can_be_replaced_by_the_two_others(keyring: Keyring, tmp_path: Path) -> None:
    trusted = Trusted.pin(keyring.document.raw, VAN)
    lost = keyring.root.kids(Role.ROOT)[1]
    (keyring.folder / "root-2.key").unlink()
    replaced(keyring, Role.ROOT, [lost])
    after = trusted.take(Kind.ROOT, keyring.document.raw, now(keyring)).trusted
    assert lost not in after.root.body.kids(Role.ROOT)
    assert len(after.root.body.kids(Role.ROOT)) == 3


def test_root_keys_may_be_kept_elsewhere(keyring: Keyring, tmp_path: Path) -> None:
    safe = tmp_path / "safe"
    safe.mkdir()
    for path in keyring.folder.glob("root-*.key"):
        path.replace(safe / path.name)
    kids = keyring.root.kids(Role.TIME)
    with pytest.raises(KeyringError, match="expected a key of role root"):
        replaced(keyring, Role.TIME, kids)
    with pytest.raises(KeyringError, match="expected 2 root keys to sign with, got 1"):
        replaced(keyring, Role.TIME, kids, [safe / "root-3.key"])
    replaced(keyring, Role.TIME, kids, [safe / "root-3.key", safe / "root-1.key"])
    assert keyring.root.kids(Role.TIME) != kids


def test_every_root_there_was_is_kept_so_that_none_is_jumped_over(keyring: Keyring) -> None:
    trusted = Trusted.pin(keyring.document.raw, VAN)
    for role in (Role.HEAD, Role.BUNDLE, Role.COMMAND):
        replaced(keyring, role, keyring.root.kids(role)[:1])
    for raw in keyring.roots():
        trusted = trusted.take(Kind.ROOT, raw, now(keyring)).trusted
    assert trusted.root.raw == keyring.document.raw
    assert trusted.root.ver == 4


def test_a_root_that_strangers_signed_is_refused(keyring: Keyring, tmp_path: Path) -> None:
    trusted = Trusted.pin(keyring.document.raw, VAN)
    other = ceremony(tmp_path / "other")
    replaced(other, Role.HEAD, other.root.kids(Role.HEAD))
    with pytest.raises(Refused) as refused:
        trusted.take(Kind.ROOT, other.document.raw, now(other))
    assert refused.value.reason is Reason.UNKNOWN_KEY


def test_an_epoch_key_is_renewed_without_a_new_root(keyring: Keyring) -> None:
    first, ver = keyring.epoch(), keyring.document.ver
    keyring.renew("epoch")
    assert keyring.epoch() != first
    assert (keyring.epoch().id, keyring.document.ver) == (2, ver)
    assert Keyring(keyring.folder).epoch() == keyring.epoch()


# -- enrolment ------------------------------------------------------------------------------------


def test_a_device_is_known_by_its_keys_and_welcomed_with_the_root(keyring: Keyring) -> None:
    welcome = enrolled(keyring, csr=csr(DEVICE))
    assert welcome["root"].encode() == keyring.document.raw
    assert set(devices(keyring.folder)) == {DEVICE}
    certificate = x509.load_pem_x509_certificate(welcome["certificate"].encode())
    authority = x509.load_pem_x509_certificate((keyring.folder / "ca.pem").read_bytes())
    certificate.verify_directly_issued_by(authority)
    assert certificate.subject.rfc4514_string() == f"CN={DEVICE}"
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usage) == [x509.oid.ExtendedKeyUsageOID.CLIENT_AUTH]
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_device_without_a_request_for_a_certificate_gets_none(keyring: Keyring) -> None:
    welcome = enrolled(keyring)
    assert (welcome["certificate"], welcome["ca"]) == (None, None)


def test_a_fingerprint_is_of_both_keys_in_groups(keyring: Keyring) -> None:
    one, other = (read_request(request(), TENANT) for _ in range(2))
    assert one.fingerprint != other.fingerprint
    assert [len(group) for group in one.fingerprint.split(" ")] == [4] * 16


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"device": "van/+"}, "device"),
        ({"device": "van-0042$"}, "device"),
        ({"tenant": "other"}, "expected a request to acme, got one to other"),
        ({"aud": "other/*"}, "expected a request to acme"),
        ({"sign_key": "AAAA"}, "sign_key"),
        ({"csr": "-----BEGIN NOTHING-----"}, "csr: expected a PEM"),
        ({"csr": csr("van-0043")}, "csr: expected one for van-0042"),
        ({"more": 1}, "more"),
    ],
)
def test_a_request_that_is_not_right_is_refused(changed: dict[str, str], said: str) -> None:
    values = {"device": DEVICE, **changed}
    with pytest.raises(EnrolmentError, match=said):
        read_request(request(**values), TENANT)  # type: ignore[arg-type]


def test_a_request_counts_only_when_the_key_in_it_has_signed_it(keyring: Keyring) -> None:
    stranger = keyring.signers(Role.TIME)[0]
    with pytest.raises(EnrolmentError, match="unknown_key"):
        read_request(request(by=stranger), TENANT)


def test_a_known_device_may_come_again_with_its_own_key_alone(keyring: Keyring) -> None:
    sign: Signer = keyring.signers(Role.TIME)[0]
    enrol(keyring, read_request(request(sign=sign), TENANT), ["depot-7"])
    first = devices(keyring.folder)[DEVICE]
    enrolled(keyring, sign=sign)
    second = devices(keyring.folder)[DEVICE]
    assert (second.sign_key, second.groups) == (first.sign_key, ["depot-7"])
    assert second.seal_key != first.seal_key
    with pytest.raises(EnrolmentError, match="expected the signing key that it is known by"):
        enrolled(keyring)


def test_an_authority_of_another_folder_did_not_sign_our_certificates(
    keyring: Keyring, tmp_path: Path
) -> None:
    welcome = enrolled(keyring, csr=csr(DEVICE))
    make_authority(tmp_path, TENANT)
    other = x509.load_pem_x509_certificate((tmp_path / "ca.pem").read_bytes())
    with pytest.raises(InvalidSignature):
        x509.load_pem_x509_certificate(welcome["certificate"].encode()).verify_directly_issued_by(other)
