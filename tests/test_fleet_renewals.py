"""Which requests for new keys the fleet grants, by itself or because somebody says so. No broker."""

import os
from itertools import count
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.admission import Audience
from agent.certificate import PUBLIC, certificates, make_key
from agent.commands import RANKS
from agent.envelope import Envelope, Kind
from agent.fleet import certificates as given
from agent.fleet.answers import Answers
from agent.fleet.enrolment import devices
from agent.fleet.keyring import Keyring
from agent.fleet.renewals import BY_ITSELF, RenewalError, answer
from agent.jws import Signer, decoded
from agent.key_request import key_request, public_of
from tests.fleets import TENANT, ceremony, enrolled

NUMBERS = count(1)


@pytest.fixture(scope="module")
def keyring(tmp_path_factory: pytest.TempPathFactory) -> Keyring:
    return ceremony(tmp_path_factory.mktemp("keys"))


class Device:
    """One that is enrolled, and asks."""

    def __init__(self, keyring: Keyring) -> None:
        self.keyring, self.name, self.key = keyring, f"van-{next(NUMBERS):04d}", os.urandom(32)
        signer = Signer(Ed25519PrivateKey.from_private_bytes(self.key))
        enrolled(keyring, self.name, sign=signer)

    def request(self, number: int = 1, **values: Any) -> bytes:
        keys = {"tls_key": make_key(), "seal_key": None, **values}
        audience = Audience(tenant=keys.pop("tenant", TENANT), device=keys.pop("device", self.name))
        by = keys.pop("by", self.key)
        return key_request(audience, number, by, at=1, levels={}, **keys)

    def args(self, raw: bytes, operator: str | None = None) -> dict[str, Any]:
        """Of the command that answers."""
        made = answer(self.keyring, self.name, raw, "A" * 22, operator=operator)
        claims = Envelope.parse(Kind.COMMAND, made).claims(Kind.COMMAND)
        body = claims.body
        assert (body["class"], body["name"], body["nonce"]) == ("B", "confirm_keys", "A" * 22)
        assert claims.exp - claims.iat == RANKS["B"].longest_s
        args: dict[str, Any] = body["args"]
        return args

    def refused(self, raw: bytes) -> str:
        before = given.given(self.keyring.folder)
        with pytest.raises(RenewalError) as refused:
            answer(self.keyring, self.name, raw, None)
        assert given.given(self.keyring.folder) == before
        return str(refused.value)


@pytest.fixture
def device(keyring: Keyring) -> Device:
    return Device(keyring)


def test_a_certificate_is_for_the_key_that_was_asked_with_and_comes_with_its_authority(
    device: Device,
) -> None:
    key = make_key()
    args = device.args(device.request(7, tls_key=key))
    leaf, authority = (certificates(each.encode(), "chain")[0] for each in args["chain"])
    leaf.verify_directly_issued_by(authority)
    assert args["request"] == 7
    # Signed anew by the device, as after a restart, it is the same request and gets the same.
    assert device.args(device.request(7, tls_key=key)) == args
    assert leaf.public_key().public_bytes(*PUBLIC) != authority.public_key().public_bytes(*PUBLIC)


def test_a_seal_key_is_taken_and_no_certificate_given(device: Device) -> None:
    secret = os.urandom(32)
    before = given.given(device.keyring.folder)
    assert device.args(device.request(tls_key=None, seal_key=secret)) == {"request": 1, "chain": []}
    assert decoded(devices(device.keyring.folder)[device.name].seal_key) == public_of(secret)
    assert given.given(device.keyring.folder) == before


def test_what_a_device_has_not_signed_is_given_nothing(device: Device) -> None:
    other = Device(device.keyring)
    assert "unknown_key" in device.refused(device.request(by=os.urandom(32)))
    assert "unknown_key" in device.refused(other.request())
    assert "expected one for" in device.refused(device.request(device="van-9999"))
    assert "expected a request of acme" in device.refused(device.request(tenant="other-post"))
    assert "malformed" in device.refused(b"nothing")
    device.name = "van-9998"
    assert "expected an enrolled device" in device.refused(device.request())


def test_an_old_request_brings_back_no_old_key(device: Device) -> None:
    old, new = os.urandom(32), os.urandom(32)
    first = device.request(1, tls_key=None, seal_key=old)
    device.args(first)
    device.args(device.request(2, tls_key=None, seal_key=new))
    assert "expected a request after 2, got 1" in device.refused(first)
    assert "expected a request after 2, got 2" in device.refused(device.request(2))
    assert decoded(devices(device.keyring.folder)[device.name].seal_key) == public_of(new)


def test_by_themselves_the_tools_give_a_few_and_then_somebody_has_to_decide(device: Device) -> None:
    for number in range(1, BY_ITSELF + 1):
        device.args(device.request(number))
    more = device.request(BY_ITSELF + 1)
    assert "gives another" in device.refused(more)
    assert device.args(more, operator="op-1")["chain"]


def test_whoever_repeats_a_request_uses_up_no_commands(device: Device) -> None:
    answers, raw = Answers(device.keyring.folder), device.request()
    birth = {"time_nonce": "A" * 22}
    assert [name for name, _ in answers.renewal(device.name, birth, raw)] == ["command"]
    assert answers.renewal(device.name, birth, raw) == []
    assert len(answers.renewal(device.name, {"time_nonce": "A" * 21 + "Q"}, raw)) == 1
    assert answers.renewal(device.name, birth, b"nothing") == []


def test_a_device_whose_certificates_are_revoked_gets_no_other(device: Device) -> None:
    device.args(device.request(1))
    given.revoke(device.keyring.folder, device.name)
    assert "are revoked" in device.refused(device.request(2))
