"""Whether a certificate is the one that was asked for, and which pair is in force. No broker."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from agent.certificate import BadCertificate, Life, certificates, check_renewed, key_of, make_key
from agent.fleet import certificates as authority
from agent.keyfile import write
from agent.keystore import Level
from agent.tls_files import NextPair, discard_pair, fold, lay_out, tls_files, tls_level

DEVICE, DAY = "van-0042", 86_400


class Fleet:
    """Who gives certificates, and a device that has one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        authority.make_authority(folder, "acme")
        self.key = key_of(make_key(), "key")
        (self.before,) = certificates(self.issue(ec.generate_private_key(ec.SECP256R1())).encode(), "before")
        self.own = (folder / "ca.pem").read_text()

    def issue(self, key: ec.EllipticCurvePrivateKey, name: str = DEVICE) -> str:
        return authority.issue(self.folder, key.public_key(), name)


@pytest.fixture
def fleet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fleet:
    with monkeypatch.context() as short:
        short.setattr(authority, "CERTIFICATE_DAYS", 100)
        return Fleet(tmp_path)


def checked(fleet: Fleet, *chain: str, now_s: float | None = None) -> x509.Certificate:
    now_s = time.time() if now_s is None else now_s
    (found,) = certificates(
        check_renewed(chain, fleet.key, DEVICE, before=fleet.before, now_s=now_s), "found"
    )
    return found


def test_what_was_asked_for_is_taken(fleet: Fleet) -> None:
    made = fleet.issue(fleet.key)
    assert [checked(fleet, made, fleet.own)] == certificates(made.encode(), "made")


def test_what_was_not_asked_for_is_refused_and_why(fleet: Fleet, tmp_path: Path) -> None:
    good, others = fleet.issue(fleet.key), tmp_path / "others"
    others.mkdir()
    authority.make_authority(others, "acme")
    foreign = authority.issue(others, fleet.key.public_key(), DEVICE), (others / "ca.pem").read_text()
    wrong = {
        "got one for another": (fleet.issue(ec.generate_private_key(ec.SECP256R1())), fleet.own),
        "expected the name van-0042, got van-0043": (fleet.issue(fleet.key, "van-0043"), fleet.own),
        "the one that issued the one in force": foreign,
        "the one that issued the new one": (foreign[0], fleet.own),
        "expected a certificate and its authority's, got 1": (good,),
        "expected certificates in PEM": ("nothing", fleet.own),
    }
    for said, chain in wrong.items():
        with pytest.raises(BadCertificate, match=said):
            checked(fleet, *chain)


@pytest.mark.parametrize("days", [-2, 826])
def test_one_that_is_not_for_now_is_refused(fleet: Fleet, days: int) -> None:
    with pytest.raises(BadCertificate, match="expected one for now"):
        checked(fleet, fleet.issue(fleet.key), fleet.own, now_s=time.time() + days * DAY)


def test_one_that_ends_before_the_one_in_force_is_refused(
    fleet: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(authority, "CERTIFICATE_DAYS", 99)
    with pytest.raises(BadCertificate, match="expected one until"):
        checked(fleet, fleet.issue(fleet.key), fleet.own)


def test_what_is_left_of_a_life_is_a_share() -> None:
    begins = datetime(2026, 1, 1, tzinfo=UTC)
    life = Life(begins, begins + timedelta(days=90))
    shares = [life.left(begins.timestamp() + day * DAY) for day in (0, 60, 90, 180)]
    assert shares == pytest.approx([1, 1 / 3, 0, -1])


# -- files ----------------------------------------------------------------------------------------


def enrolled(state: Path) -> None:
    for name in ("client.key", "client.pem", "ca.pem"):
        write(state / "tls" / name, name.encode())


def names(state: Path) -> set[str]:
    return {path.name for path in (state / "tls").iterdir()}


def renewed(state: Path) -> NextPair:
    following = NextPair(state)
    following.keep_key(b"KEY\n")
    following.try_out(b"-----BEGIN CERTIFICATE-----\nnew\n")
    following.put_in_force()
    return following


def test_a_renewed_pair_is_one_file_and_what_was_before_goes_last(tmp_path: Path) -> None:
    enrolled(tmp_path)
    following = renewed(tmp_path)
    assert following.in_force
    assert {"client.key", "pair.pem"} <= names(tmp_path)
    pair = tmp_path / "tls" / "pair.pem"
    assert (tls_files(tmp_path).certificate, tls_files(tmp_path).key) == (pair, pair)
    following.done()
    assert names(tmp_path) == {"pair.pem", "ca.pem"}
    assert tls_level(tmp_path) is Level.FILE


def test_what_comes_to_nothing_leaves_what_was_before(tmp_path: Path) -> None:
    enrolled(tmp_path)
    following = NextPair(tmp_path)
    following.keep_key(b"KEY")
    following.try_out(b"CERTIFICATE")
    following.drop()
    assert names(tmp_path) == {"client.key", "client.pem", "ca.pem"}


def test_a_renewed_key_can_be_laid_out_to_be_sealed_and_its_certificate_follows(tmp_path: Path) -> None:
    enrolled(tmp_path)
    renewed(tmp_path).done()
    lay_out(tmp_path)
    assert (tmp_path / "tls" / "client.key").read_bytes() == b"KEY\n"
    assert tls_files(tmp_path).key == tmp_path / "tls" / "pair.pem", "until the certificate has followed"
    fold(tmp_path)
    assert names(tmp_path) == {"client.key", "client.pem", "ca.pem"}
    assert (tmp_path / "tls" / "client.pem").read_bytes() == b"-----BEGIN CERTIFICATE-----\nnew\n"


def test_what_enrolment_puts_in_place_counts_again(tmp_path: Path) -> None:
    enrolled(tmp_path)
    renewed(tmp_path)
    discard_pair(tmp_path)
    assert tls_files(tmp_path).key == tmp_path / "tls" / "client.key"
