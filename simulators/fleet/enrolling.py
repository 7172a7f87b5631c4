"""How the devices of the fleet come to be known: each asks with its own keys and takes the answer.

Both halves are the real ones. What is left out is the person on either side who compares fingerprints: they
are compared here, from the same memory.
"""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import keyfile
from agent.config import load
from agent.enrolment import ROOT, accept, read_welcome, request
from agent.fleet.certificates import make_authority
from agent.fleet.enrolment import devices as known_devices
from agent.fleet.enrolment import enrol, read_request
from agent.fleet.keyring import Keyring
from agent.keystore import Keystore
from agent.note import SignerKey
from simulators.fleet.hardware import Device, whole

PASSPHRASE = b"this fleet keeps no secrets"
"""Of the root keys that are made where there are none yet."""
RECEIPTS, RECEIPT_NAME = "receipts", "fleet-main"
"""File in the folder of keys that `postern fleet collect --key-file` signs receipts with, and its name."""


def keys_in(folder: Path, tenant: str) -> Keyring:
    """The fleet's keys; where there are none, the ceremony is held. Raises KeyringError."""
    if (folder / "root.jws").exists():
        return Keyring(folder)
    keyring = Keyring.create(folder, tenant, lambda _path: PASSPHRASE)
    make_authority(folder, tenant)
    return keyring


def receipt_key(folder: Path) -> str:
    """Whom devices believe that the fleet has their entries, as `collect --key-file` will sign."""
    private = Ed25519PrivateKey.from_private_bytes(keyfile.load(folder / RECEIPTS))
    return SignerKey(RECEIPT_NAME, private).verifier.text


def bring_in(
    keyring: Keyring,
    devices: Sequence[Device],
    broker: str,
    receipts: str,
    ca: str | None,
    told: Callable[[int], object],
) -> None:
    """Write each device's config, and enrol who is not known yet. `told` hears how many are done."""
    known = known_devices(keyring.folder)
    for number, device in enumerate(devices, 1):
        device.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        device.config.write_text(whole(device, keyring.tenant, broker, receipts))
        if device.name not in known or not (device.state / ROOT).exists():
            _enrol(keyring, device, ca)
        told(number)


def _enrol(keyring: Keyring, device: Device, ca: str | None) -> None:
    """Raises EnrolmentError for a name that the fleet knows with another key."""
    config = load(device.config)
    store = Keystore.of(config.state)
    asked = request(config.state, store, config.audience, now=int(time.time()), claim=None)
    answer = enrol(keyring, read_request(asked.raw, keyring.tenant), groups=[device.hardware], broker_ca=ca)
    welcome = read_welcome(json.dumps(answer).encode())
    accept(config.state, welcome, config.audience, keyring.fingerprint)
