"""A courier's device with its people: the whole agent in this process, and only the time is played.

    async with running(Van(tmp_path)) as van:
        van.hear_the_fleet()
        await van.badge(ANNA)

Journal, roster and keys are real; the broker is a port where nobody listens. What the devices say is handed
to the decider as their drivers would. Knowledge is as old as a signed head, and the head is a real one.
"""

import asyncio
import hashlib
import json
import os
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fido2 import cbor
from fido2.cose import EdDSA

from agent import config as configs
from agent import standing
from agent.app import App
from agent.clock import NS, Moment
from agent.envelope import Kind
from agent.revoked import CREDENTIAL
from agent.roster import Row, pin_token
from agent.row_seal import value_of
from agent.stake import rp_id
from drivers.readings import CardAsserted, CompareResult, FingerCompared, Reading, Scanned, TagArrived
from tests.authority import Authority
from tests.moments import NOON_NS, moment
from tests.site import PATIENCE

HOUR = 3600
NOON = NOON_NS // NS
ANNA, BORIS = "drv-anna", "drv-boris"
BADGES = {ANNA: b"0100a3e9ae", BORIS: b"0100b71c02"}
SLOTS = {ANNA: 7, BORIS: 8}
PIN = b"84612075"

VAN = """\
[device]
id = "locker-17"
tenant = "acme"
state = "{state}"

[broker]
host = "localhost"
port = 1
plain = true

[unit.gun]
kind = "line"
port = "{state}/gun"

[unit.badges]
kind = "em4100"
port = "{state}/badges"

[unit.pad]
kind = "line"
role = "keypad"
port = "{state}/pad"

[unit.finger]
kind = "r503"
port = "{state}/finger"

[unit.card]
kind = "pn532"
port = "{state}/card"
"""


class Played:
    """A clock that somebody turns by hand."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> Moment:
        return moment(self.seconds)


class Card:
    """A fingerprint card's key and counter."""

    def __init__(self) -> None:
        self.id = os.urandom(32)
        self._key = Ed25519PrivateKey.generate()
        self._counter = 0

    @property
    def public_key(self) -> str:
        point = self._key.public_key().public_bytes_raw()
        cose = cbor.encode({1: 1, 3: EdDSA.ALGORITHM, -1: 6, -2: point})
        return urlsafe_b64encode(cose).rstrip(b"=").decode()

    def sign(self, party: str, client_data: str) -> CardAsserted:
        """With the holder verified, as CTAP 2.1 has it."""
        self._counter += 1
        data = hashlib.sha256(party.encode()).digest() + b"\x05" + self._counter.to_bytes(4)
        signature = self._key.sign(data + hashlib.sha256(client_data.encode()).digest())
        return CardAsserted(credential_id=self.id, auth_data=data, signature=signature)


class Watched(App):
    """An agent that says when a unit has come or gone, and what was made of it."""

    def __init__(self, config: configs.Config, clock: Played) -> None:
        self.changed = asyncio.Event()
        super().__init__(config, clock)

    def units_changed(self) -> None:
        super().units_changed()
        self.changed.set()


class Van:
    """The agent, and the people at it. Each thing they do returns the entries that came of it."""

    def __init__(self, folder: Path, *, config: str = VAN) -> None:
        self.folder = folder
        self.clock = Played()
        self.app = Watched(configs.parse(config.format(state=folder)), self.clock)
        self.fleet = Authority()
        self.trusted = self.fleet.trusted()
        self.app.roster.authority = replace(
            self.app.roster.authority,
            knowledge_at=self._knowledge_at,
            is_revoked=lambda subject, credential: self.trusted.is_revoked(subject, credential),
            revoked_credentials=lambda: self.trusted.revoked.credentials,
            manifest=lambda: self._announced,
        )
        self.cards = {ANNA: Card(), BORIS: Card()}
        self._read = self._heads = 0
        for subject, card in self.cards.items():
            finger = ("finger", SLOTS[subject])
            put = self.app.roster.put
            put(Row(subject=subject, kind="badge", finger=finger), BADGES[subject], as_of=NOON)
            put(Row(subject=subject, kind="pin"), pin_token(subject, PIN), as_of=NOON)
            put(Row(subject=subject, kind="fido2", public_key=card.public_key), card.id, as_of=NOON)

    def revoke(self, *subjects: str) -> None:
        """The fleet takes people's rights away."""
        revoked = self.fleet.revocations(1, of={"subjects": list(subjects)})
        self.trusted = self.trusted.take(Kind.REVOCATIONS, revoked, self.clock.now()).trusted
        self.app.decider.heed()

    def revoke_credential(self, kind: str, token: bytes) -> None:
        """The fleet takes one credential away, and nothing from whoever has it."""
        name = value_of(self.app.roster.keys.epoch, kind, token)[:CREDENTIAL].hex()
        revoked = self.fleet.revocations(1, of={"credentials": [name]})
        self.trusted = self.trusted.take(Kind.REVOCATIONS, revoked, self.clock.now()).trusted
        self.app.decider.heed()

    def _knowledge_at(self) -> float:
        known = self.trusted.knowledge_at
        return standing.NEVER if known is None else known

    @staticmethod
    def _announced(label: str) -> bool:
        return "KNOWN" in label

    def hear_the_fleet(self) -> None:
        """A head arrives: the last one, if nobody calls this again."""
        self._heads += 1
        head = self.fleet.head(self._heads, {}, iat=NOON + round(self.clock.seconds))
        self.trusted = self.trusted.take(Kind.HEAD, head, self.clock.now()).trusted.known()

    async def until(self, claim: Callable[[], bool]) -> None:
        """Wait for something about the units; it is asked again whenever one has come or gone."""
        async with asyncio.timeout(PATIENCE):
            while not claim():
                self.app.changed.clear()
                await self.app.changed.wait()

    async def ready(self, *units: str) -> None:
        await self.until(lambda: all(self.app.units[unit].ready for unit in units))

    async def tell(self, unit: str, *readings: Reading) -> list[dict[str, Any]]:
        for reading in readings:
            await self.app.decider.deliver(self.app.units[unit], reading, self.clock.now())
            await self.app.decider.alive()
        return await self.entries()

    async def entries(self) -> list[dict[str, Any]]:
        """What was remembered since the last time, about people and parcels."""
        await self.app.journal.save()
        rows = await self.app.journal.read(self._read, entries=1000, size=1 << 20)
        self._read = rows[-1].sequence if rows else self._read
        told = [json.loads(row.line) for row in rows]
        return [each for each in told if each["type"].split(".")[1] in ("identity", "custody")]

    async def badge(self, subject: str) -> list[dict[str, Any]]:
        return await self.tell("badges", Scanned(data=BADGES[subject]))

    async def touch(self, subject: str) -> list[dict[str, Any]]:
        matched = FingerCompared(slot=SLOTS[subject], result=CompareResult.MATCHED, score=120)
        return await self.tell("finger", matched)

    async def show_card(self, subject: str) -> list[dict[str, Any]]:
        tag = TagArrived(uid=b"\x04", technology="iso14443", applets=("FIDO_2_0",))
        before = await self.tell("card", tag)
        asked = self.app.decider.desk.duty.asked
        assert asked is not None
        said = self.cards[subject].sign(rp_id("/postern/acme/locker-17"), asked.client_data)
        return before + await self.tell("card", said)

    async def scan(self, text: str) -> list[dict[str, Any]]:
        return await self.tell("gun", Scanned(data=text.encode()))

    def on_duty(self) -> bool:
        return self.app.decider.desk.duty.session is not None


@asynccontextmanager
async def running(van: Van) -> AsyncIterator[Van]:
    task = asyncio.create_task(van.app.run())
    try:
        await van.app.decider.alive()
        yield van
    finally:
        van.app.stop()
        await task
