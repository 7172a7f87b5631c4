"""`postern cards`: make a credential on a fingerprint card, at a reader that no agent holds.

The card makes the key pair and keeps the private half. What it tells, its credential's id and public key,
goes into this device's roster and out as one JSON object, for the fleet and for `postern roster add`.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import sys
import time
from base64 import b64decode
from dataclasses import dataclass, field
from typing import Any, Self

from agent.cli import EXIT_FAILED, Mistake, config_option
from agent.roster_command import ROLES, days, opened, subject_of

KIND = "pn532"
CARD_WITHIN = 60.0
"""Seconds in which a card has to be held to the reader."""
FINGER_WITHIN = 30.0
JSON_LIMIT = 8192

FAILURES = {
    "no_finger": "nobody laid a finger on the card in time",
    "wrong_finger": "the card does not know that finger",
    "blocked": "the card has seen too many wrong fingers and is blocked",
    "no_credential": "the card has no room for another credential",
    "gone": "the card was taken away too early",
    "unfit": "the card cannot verify its holder: a finger has to be enrolled on it first",
}


class _NotMade(Exception):
    """No credential, in words for the operator."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """What others may know of a card's credential. Nothing in it is secret; the id alone opens no door."""

    credential_id: bytes = field(repr=False)
    public_key: str
    """COSE key, base64url without padding."""

    @classmethod
    def read(cls) -> Self:
        """From standard input. Raises Mistake."""
        try:
            said = json.loads(sys.stdin.buffer.read(JSON_LIMIT))
            id_ = said["credential_id"]
            padded = id_ + "=" * (-len(id_) % 4)
            return cls(
                credential_id=b64decode(padded, altchars=b"-_", validate=True),
                public_key=str(said["public_key"]),
            )
        except (ValueError, TypeError, KeyError, RecursionError):
            expected = "a JSON object with credential_id and public_key, as `postern cards make` prints it"
            raise Mistake(f"standard input: expected {expected}, got something else") from None


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `cards` to the `postern` command."""
    cards = commands.add_parser("cards", help="make credentials on fingerprint cards")
    actions = cards.add_subparsers(required=True, metavar="ACTION")
    make = actions.add_parser("make", help="make a credential at a reader and add it to the roster")
    make.add_argument("subject", help="the driver's reference: random, never a name")
    make.add_argument("--port", required=True, metavar="DEV", help="port of a PN532 that no agent holds")
    make.add_argument("--role", choices=ROLES, help="what this person is (driver)")
    make.add_argument("--days", type=days, default=31, help="how long the row is good for (31)")
    config_option(make)
    make.set_defaults(run=_make)


def _make(given: argparse.Namespace) -> int:
    from agent.assertion import BadKey, algorithm, public_key
    from agent.config import load
    from agent.roster import Row
    from agent.stake import b64, rp_id
    from drivers.base import NoReply
    from drivers.port import BadAddress, PortGone

    config, subject, now = load(given.config), subject_of(given), int(time.time())
    try:
        made = asyncio.run(_at_the_reader(config.source, subject, given.port))
        key = b64(made.public_key)
        name = algorithm(public_key(key))
    except BadAddress as bad:
        raise Mistake(f"--port: {bad}") from bad
    except (PortGone, NoReply, _NotMade, BadKey) as failed:
        print(f"{given.port}: {failed}", file=sys.stderr)
        return EXIT_FAILED
    until = now + given.days * 86_400
    row = Row(subject=subject, kind="fido2", until=until, role=given.role, public_key=key)
    with opened(config.state) as roster:
        roster.put(row, made.credential_id, as_of=now)
    record = {
        "kind": "fido2",
        "subject": subject,
        "credential_id": b64(made.credential_id),
        "public_key": key,
        "algorithm": name,
        "rp_id": rp_id(config.source),
        "aaguid": made.aaguid,
    }
    print(json.dumps(record))
    return 0


async def _at_the_reader(source: str, subject: str, port: str) -> Any:
    """What the card has made. Raises BadAddress, PortGone, NoReply or _NotMade."""
    from agent.stake import Stake, client_data, rp_id
    from drivers import driver_for
    from drivers.port import Address, open_port
    from drivers.readings import CardFailed, CredentialMade, MakeCredential, Reading, TagArrived

    kind = driver_for(KIND)
    said: asyncio.Queue[Reading] = asyncio.Queue()
    opened_port = await open_port(Address.parse(port), baud=kind.BAUD)
    with contextlib.closing(opened_port):
        driver = kind(opened_port, said.put, kind.OptionsType())
        await driver.identify()
        looking = asyncio.create_task(driver.run(), name="looking for a card")
        try:
            print("hold the card to the reader, and keep it there", file=sys.stderr)
            await _next(said, looking, lambda seen: isinstance(seen, TagArrived) and seen.applets)
            print("lay the finger on the card", file=sys.stderr)
            challenge = client_data(source, port, Stake("enrolment"), os.urandom(32))
            action = MakeCredential(
                rp_id=rp_id(source),
                client_data_hash=hashlib.sha256(challenge.encode()).digest(),
                # The same person's next credential takes this one's place on the card.
                person=hashlib.sha256(subject.encode()).digest(),
                within=FINGER_WITHIN,
            )
            await driver.perform(action)
            made = await _next(
                said, looking, lambda reading: isinstance(reading, CredentialMade | CardFailed)
            )
        finally:
            looking.cancel()
            await asyncio.gather(looking, return_exceptions=True)
    if isinstance(made, CardFailed):
        raise _NotMade(FAILURES[made.failure])
    return made


async def _next(said: "asyncio.Queue[Any]", looking: "asyncio.Task[None]", wanted: Any) -> Any:
    """The next reading that is wanted, while the reader lasts."""
    clock = asyncio.get_running_loop()
    until = clock.time() + CARD_WITHIN
    while True:
        getting = asyncio.ensure_future(said.get())
        left = max(0.0, until - clock.time())
        await asyncio.wait({getting, looking}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        if not getting.done():
            getting.cancel()
            if looking.done():
                looking.result()
            raise _NotMade(f"no fingerprint card within {CARD_WITHIN:g} s")
        if wanted(reading := getting.result()):
            return reading
