"""Certificates renewed over MQTT, on the broker as we ship it: asked for, given, tried out, in force."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from agent.certificate import Life, in_file, key_of
from agent.config import load
from agent.envelope import Envelope, Kind
from agent.fleet import certificates
from agent.tls_files import tls_files
from simulators.stage import postern
from tests.dying_renewal import renewing, told
from tests.schemas import unlike
from tests.test_broker_setup import COLLECTOR, ONE, PUBLISHER, Fleet, brought_in, entry_of, running, shipped

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]


@pytest.fixture
def acme(tmp_path: Path) -> Iterator[Fleet]:
    with shipped(tmp_path) as made:
        yield made


def until(state: Path) -> str:
    there = tls_files(state).certificate
    assert there is not None
    return Life.of(in_file(there)).ends.isoformat()


async def status(config: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(await postern("status", "--json", "--config", str(config)))
    return told


async def test_an_operator_has_a_certificate_renewed_and_it_is_used_from_then_on(acme: Fleet) -> None:
    config, state = brought_in(acme), acme.folder / "state"
    keys = ("--keys", str(acme.keyring.folder))
    words = ["fleet", "collect", "--json", *acme.options(COLLECTOR)]
    run = ("run", "--config", str(config))
    async with running(*words) as collecting:
        async with running(*run):
            entries = [await entry_of(collecting, "postern.uplink.connected")]
            said = await postern(
                *("fleet", "certificates", "renew", ONE, "--operator", "op-7", "--json"),
                *keys,
                *acme.options(PUBLISHER),
            )
            told = json.loads(said)
            assert (told["type"], told["data"]["until"]) == ("postern.keys.certificate_renewed", until(state))
            entries.append(await entry_of(collecting, "postern.keys.requested"))
            entries.append(await entry_of(collecting, "postern.keys.certificate_renewed"))
            # The one name may connect once: the new pair has ended the old connection, and comes back.
            await entry_of(collecting, "postern.uplink.connected")
            certificate = (await status(config))["certificate"]
            assert certificate == {"until": until(state), "level": "file", "state": "in_force"}
        assert {path.name for path in (state / "tls").iterdir()} == {"ca.pem", "pair.pem"}
        assert (state / "tls" / "pair.pem").stat().st_mode & 0o777 == 0o600
        async with running(*run):
            entries.append(await entry_of(collecting, "postern.uplink.connected"))
    assert not unlike(entries)
    async with acme.online(PUBLISHER) as publisher:
        await publisher.subscribe(f"postern/v1/{ONE}/up/+")
        topics = {(await publisher.receive()).topic.rpartition("/")[2] for _ in range(2)}
        assert topics == {"state", "checkpoint"}, "nothing is asked for any more"


async def test_a_device_asks_by_itself_in_time_and_whoever_collects_gives(
    acme: Fleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as short:
        short.setattr(certificates, "CERTIFICATE_DAYS", 0.15)
        config, state = brought_in(acme), acme.folder / "state"
    before = until(state)
    words = ["fleet", "collect", "--json", "--keys", str(acme.keyring.folder), *acme.options(COLLECTOR)]
    async with running(*words) as collecting, running("run", "--config", str(config)):
        entries = [
            await entry_of(collecting, f"postern.keys.{what}")
            for what in ("requested", "certificate_expiring", "certificate_renewed")
        ]
    asked, expiring, renewed = (entry["data"] for entry in entries)
    assert (asked["reason"], asked["keys"]) == ("expiring", {"certificate": "file"})
    assert (expiring["until"], renewed["until"]) == (before, until(state))
    assert before < until(state)
    assert not unlike(entries)


async def test_an_authority_that_did_not_issue_the_one_in_force_issues_no_other(acme: Fleet) -> None:
    config, state = brought_in(acme), acme.folder / "state"
    before = until(state)
    words = ["fleet", "collect", "--json", "--keys", str(acme.keyring.folder), *acme.options(COLLECTOR)]
    publisher = acme.options(PUBLISHER)
    certificates.make_authority(acme.keyring.folder, "acme")
    order = ["--operator", "op-7", "--reason", "test", "--keys", str(acme.keyring.folder)]
    async with running(*words) as collecting, running("run", "--config", str(config)):
        await entry_of(collecting, "postern.clock.corrected")
        ordered = ("fleet", "command", "rotate_keys", "--device", ONE, "--json", *order)
        await postern(*ordered, *publisher)
        failed = await entry_of(collecting, "postern.command.failed")
    assert failed["data"]["name"] == "confirm_keys"
    assert "authority: expected the one that issued the one in force" in failed["data"]["detail"]
    assert until(state) == before
    assert not unlike([failed])


def test_killed_before_any_change_to_a_file_a_device_has_a_pair_and_goes_on(acme: Fleet) -> None:
    config = brought_in(acme)
    words = ["-m", "tests.dying_renewal", acme.keyring.folder, acme.folder / "state", config]
    done = subprocess.run(
        [sys.executable, *map(str, words)], check=False, capture_output=True, timeout=100, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[-1]) >= 10


async def test_what_the_broker_does_not_let_in_comes_to_nothing(acme: Fleet) -> None:
    """The authority is the device's own, and none of this broker's: all that is wrong shows in the trial."""
    config, others, device = load(brought_in(acme)), acme.folder / "others", acme.folder / "state" / "tls"
    others.mkdir()
    certificates.make_authority(others, "acme")
    key = key_of((device / "client.key").read_bytes(), "key")
    (device / "client.pem").write_text(certificates.issue(others, key.public_key(), ONE))
    before = {path.name: path.read_bytes() for path in device.iterdir()}
    async with renewing(config) as (renewal, house, journal):
        number, _ = await renewal.rotate(["certificate"], "command")
        assert await renewal.confirm(number + 1, []) == "not_asked"
        asked = x509.load_pem_x509_csr(csr_in(renewal.request()))
        with pytest.MonkeyPatch.context() as longer:
            longer.setattr(certificates, "CERTIFICATE_DAYS", 900)
            chain = [certificates.issue(others, asked.public_key(), ONE), (others / "ca.pem").read_text()]
        assert await renewal.confirm(number, chain) == ""
        assert await renewal.confirm(number, chain) == "", "the same again is the same"
        assert renewal.request() == b""
        await house.news.until(lambda: not renewal.open)
        assert house.server is None
        (refused,) = await told(journal, "keys.certificate_refused")
        assert refused["request"] == number
    assert {path.name: path.read_bytes() for path in device.iterdir()} == before


async def test_a_certificate_that_is_refused_keeps_no_seal_key_waiting(acme: Fleet) -> None:
    config = load(brought_in(acme))
    async with renewing(config) as (renewal, _, journal):
        number, _ = await renewal.rotate(None, "command")
        assert renewal.open == ["certificate", "seal"]
        assert "expected a certificate and its authority's" in await renewal.confirm(number, [])
        assert (renewal.open, renewal.request()) == ([], b"")
        assert await told(journal, "keys.seal_taken")
        assert await renewal.rotate(["seal"], "command") == (0, "seal: under_way")
        await renewal.rotate(["certificate"], "command")
        (config.state / "tls" / "next.key").write_bytes(b"damaged")
        assert renewal.request() == b"", "and nothing else is the worse for it"


def csr_in(request: bytes | None) -> bytes:
    body = Envelope.parse(Kind.RENEWAL, request or b"").claims(Kind.RENEWAL).body
    found: str = body["csr"]
    return found.encode()
