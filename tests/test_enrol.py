"""`postern enrol`: what a device asks with, which answers it takes, and where its keys go."""

import json
import os
import shutil
import ssl
import subprocess
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from agent.config import load
from agent.documents import Role
from agent.envelope import Envelope, Kind, issue
from agent.fingerprint import of_device, of_root
from agent.jws import Signer, decoded, encoded
from tests.test_cli import Postern

DEVICE, TENANT = "van-0042", "parcels"


@pytest.fixture
def postern(tmp_path: Path) -> Postern:
    return Postern(tmp_path)


def made_key() -> Signer:
    return Signer(Ed25519PrivateKey.generate())


@dataclass
class Fleet:
    """A far side of two root keys and an authority, made as the test runs."""

    keys: list[Signer] = field(default_factory=lambda: [made_key() for _ in range(3)])
    authority: ec.EllipticCurvePrivateKey = field(
        default_factory=lambda: ec.generate_private_key(ec.SECP256R1())
    )

    def root(self, tenant: str = TENANT, *, signers: int = 2) -> bytes:
        kids = [key.kid for key in self.keys]
        emergency = made_key()
        roles = {role: {"kids": kids, "threshold": 2} for role in Role}
        roles[Role.EMERGENCY] = {"kids": [emergency.kid], "threshold": 1}
        public = {key.kid: encoded(key.public) for key in (*self.keys, emergency)}
        now = int(time.time())
        body = {"epoch": 1, "keys": public, "roles": roles}
        by = self.keys[:signers]
        return issue(Kind.ROOT, body, by, aud=f"{tenant}/*", iat=now, exp=now + 86_400, ver=1)

    def certificate(self, public: Any, name: str = DEVICE, *, ca: bool = False) -> str:
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.now(UTC)
        made = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority")]))
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
            .sign(self.authority, hashes.SHA256())
        )
        return made.public_bytes(Encoding.PEM).decode()


def enrol(postern: Postern, *words: object) -> tuple[int, str, str]:
    return postern.run("enrol", "--config", postern.config, *words)


def asked(postern: Postern, *words: object) -> dict[str, Any]:
    """The body of the request that the device wrote, after its signature was checked from outside."""
    out = postern.folder / "request.jws"
    assert enrol(postern, "--out", out, *words)[0] == 0
    envelope = Envelope.parse(Kind.ENROLMENT, out.read_bytes())
    body = envelope.claims(Kind.ENROLMENT).body
    public = decoded(body["sign_key"])
    assert envelope.signers({envelope.jws.signatures[0].kid: public})
    return body


def welcomed(postern: Postern, root: bytes, *words: object, **more: str) -> tuple[int, str, str]:
    welcome = postern.folder / "welcome.json"
    welcome.write_text(json.dumps({"root": root.decode(), **more}))
    words = words or ("--root-fingerprint", of_root(root))
    return enrol(postern, "--accept", welcome, *words)


def test_the_request_names_the_device_its_public_keys_and_how_well_each_is_kept(postern: Postern) -> None:
    body = asked(postern)
    assert (body["device"], body["tenant"], body["claim"]) == (DEVICE, TENANT, None)
    assert body["levels"] == dict.fromkeys(("device", "seal", "pepper", "epoch"), "file")
    csr = x509.load_pem_x509_csr(body["csr"].encode())
    assert csr.is_signature_valid
    assert [each.value for each in csr.subject] == [DEVICE]


def test_the_fingerprint_that_is_shown_is_over_both_public_keys(postern: Postern) -> None:
    body = asked(postern)
    _, out, _ = enrol(postern, "--out", postern.folder / "again.jws")
    assert of_device(decoded(body["sign_key"]), decoded(body["seal_key"])) in out


def test_a_request_holds_no_secret(postern: Postern) -> None:
    raw = (asked(postern), (postern.folder / "request.jws").read_bytes())[1]
    for file in (postern.state / "keys").iterdir():
        secret = file.read_bytes()
        assert encoded(secret).encode() not in raw
        assert secret.hex().encode() not in raw
    assert b"PRIVATE" not in raw


def test_a_one_time_code_comes_from_a_file(postern: Postern) -> None:
    (postern.folder / "claim").write_text("K7M2-9QXD\n")
    assert asked(postern, "--claim-file", postern.folder / "claim")["claim"] == "K7M2-9QXD"


def test_what_is_made_is_for_its_owner_alone(postern: Postern) -> None:
    asked(postern)
    made = [postern.state, *postern.state.rglob("*")]
    assert [str(each) for each in made if each.stat().st_mode & 0o077] == []


def test_the_keys_stay_the_same_however_often_is_asked(postern: Postern) -> None:
    assert asked(postern)["sign_key"] == asked(postern)["sign_key"]


def test_the_answer_is_put_where_the_config_finds_it_by_itself(postern: Postern) -> None:
    fleet = Fleet()
    csr = x509.load_pem_x509_csr(asked(postern)["csr"].encode())
    root, certificate = fleet.root(), fleet.certificate(csr.public_key())
    authority = fleet.certificate(fleet.authority.public_key(), "authority", ca=True)
    code, out, err = welcomed(postern, root, certificate=certificate, ca=authority)
    assert (code, err) == (0, "")
    assert f"{postern.state}/root.jws" in out
    assert (postern.state / "root.jws").read_bytes() == root
    postern.config.write_text(postern.config.read_text().replace("plain = true", ""))
    tls = load(postern.config).server().tls
    assert isinstance(tls, ssl.SSLContext)
    assert tls.cert_store_stats()["x509_ca"] == 1


def test_nothing_is_put_in_place_for_a_root_that_was_not_compared(postern: Postern) -> None:
    asked(postern)
    fleet, other = Fleet(), Fleet()
    code, _, err = welcomed(postern, fleet.root(), "--root-fingerprint", of_root(other.root()))
    assert code == 2
    assert err.startswith("root: expected fingerprint ")
    assert not (postern.state / "root.jws").exists()


def test_a_fingerprint_may_be_typed_with_other_spaces_and_in_capitals(postern: Postern) -> None:
    root = Fleet().root()
    typed = of_root(root).replace(" ", ":").upper()
    assert welcomed(postern, root, "--root-fingerprint", typed)[0] == 0


def test_without_a_terminal_and_without_a_fingerprint_no_root_is_taken(postern: Postern) -> None:
    (postern.folder / "welcome.json").write_text(json.dumps({"root": Fleet().root().decode()}))
    code, _, err = enrol(postern, "--accept", postern.folder / "welcome.json")
    assert (code, err) == (2, "--root-fingerprint: expected it, or a terminal to ask at\n")


def test_a_root_of_another_tenant_or_below_its_threshold_is_refused(postern: Postern) -> None:
    fleet = Fleet()
    for root, told in (
        (fleet.root("others"), "wrong_audience"),
        (fleet.root(signers=1), "below_threshold"),
    ):
        code, _, err = welcomed(postern, root)
        assert code == 2
        assert told in err
    assert not (postern.state / "root.jws").exists()


@pytest.mark.parametrize(("name", "own"), [("van-0043", True), (DEVICE, False)])
def test_a_certificate_for_another_name_or_another_key_is_refused(
    postern: Postern, name: str, own: bool
) -> None:
    fleet = Fleet()
    csr = x509.load_pem_x509_csr(asked(postern)["csr"].encode())
    public = csr.public_key() if own else ec.generate_private_key(ec.SECP256R1()).public_key()
    code, _, err = welcomed(postern, fleet.root(), certificate=fleet.certificate(public, name))
    assert code == 2
    assert err.startswith("certificate: expected ")
    assert not (postern.state / "root.jws").exists()
    assert not (postern.state / "tls" / "client.pem").exists()


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b'{"root": 1}', b"\xff", b"[" * 100_000, b'{"root": "x", "more": 1}']
)
def test_what_is_no_welcome_is_refused_in_one_line(postern: Postern, raw: bytes) -> None:
    (postern.folder / "welcome.json").write_bytes(raw)
    code, _, err = enrol(postern, "--accept", postern.folder / "welcome.json", "--root-fingerprint", "00")
    assert code == 2
    assert err.count("\n") == 1


def test_a_wiped_device_asks_again_only_with_new_keys(postern: Postern) -> None:
    before = asked(postern)
    assert postern.run("wipe", "--config", postern.config, "--yes", DEVICE)[0] == 0
    code, _, err = enrol(postern, "--out", postern.folder / "request.jws")
    assert code == 2
    assert "wiped; `postern enrol --renew` makes a new one" in err
    after = asked(postern, "--renew")
    assert after["sign_key"] == before["sign_key"]
    assert after["seal_key"] != before["seal_key"]
    with postern.agent():
        told = json.loads(postern.run("status", "--config", postern.config, "--json")[1])
        assert told["wiped_by"] is None


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is Linux's")
def test_sealed_keys_leave_the_disk_and_open_as_credentials(
    postern: Postern, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the machine's own `systemd-creds`, its host key in a place of the test's own."""
    if shutil.which("systemd-creds") is None or os.geteuid() != 0:
        pytest.skip("systemd-creds seals for root alone, and only where there is one")
    before = asked(postern)
    sealed = tmp_path / "sealed"
    monkeypatch.setenv("SYSTEMD_CREDENTIAL_SECRET", str(tmp_path / "secret"))
    code, out, err = enrol(postern, "--seal", "host", "--sealed", sealed)
    assert (code, err) == (0, "")
    assert "opens with a key on this disk" in out
    assert list((postern.state / "keys").iterdir()) == []
    assert not (postern.state / "tls" / "client.key").exists()
    assert {file.name for file in sealed.iterdir()} == {
        f"postern.{name}" for name in ("device", "seal", "pepper", "epoch", "tls")
    }
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(unsealed(sealed, tmp_path / "handed")))
    out_file = postern.folder / "again.jws"
    assert enrol(postern, "--out", out_file)[0] == 0
    body = Envelope.parse(Kind.ENROLMENT, out_file.read_bytes()).claims(Kind.ENROLMENT).body
    assert (body["sign_key"], body["seal_key"]) == (before["sign_key"], before["seal_key"])
    assert set(body["levels"].values()) == {"credential"}
    assert list((postern.state / "keys").iterdir()) == []


def unsealed(sealed: Path, folder: Path) -> Path:
    """As systemd hands them to the unit."""
    folder.mkdir()
    for blob in sealed.iterdir():
        command = ["systemd-creds", "decrypt", f"--name={blob.name}", str(blob), str(folder / blob.name)]
        subprocess.run(command, check=True, capture_output=True)
    return folder
