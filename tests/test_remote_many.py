"""Many doors from afar, end to end: the operator's command line, a real broker, a locker and its technician.

Two keys sign, somebody in charge stands there with a fingerprint card, and the doors open one after the
other; with anything less none does.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.documents import Role
from agent.envelope import Kind, issue
from agent.fleet.enrolment import enrol, read_request
from agent.fleet.keyring import Keyring
from agent.jws import Signer
from agent.mqtt import Connection
from simulators.fido_card import FidoCard
from simulators.pn532 import Pn532Reader
from simulators.stage import postern
from tests.brokers import connected
from tests.fleets import passphrase, request
from tests.locker_site import DEVICE, SIZES, TENANT, LockerSite
from tests.schemas import unlike
from tests.test_collect import collecting

TECHNICIAN, BADGE, PIN = "tech-9f8e7d", "0100a3e9af", "80402010"
READER = """
[unit.cards]
kind = "pn532"
port = "{dev}/cards"
presence_ms = 200
poll_ms = 50
"""
OUTCOMES = ("command.succeeded", "command.failed", "command.outcome_unknown")

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]


@dataclass
class Lab:
    """A locker, its technician, and whoever holds the command keys."""

    site: LockerSite
    keyring: Keyring
    connection: Connection
    reader: Pn532Reader
    card: FidoCard

    @property
    def keys(self) -> list[Signer]:
        return self.keyring.signers(Role.COMMAND)

    @property
    def at(self) -> tuple[str, ...]:
        """Where the broker is, and whose keys."""
        where = ("--host", "127.0.0.1", "--port", str(self.site.broker.port), "--plain")
        return (*where, "--keys", str(self.keyring.folder))

    async def fleet(self, *words: str) -> Any:
        """`postern fleet`, as an operator types it."""
        said = await postern("--log-level", "error", "fleet", *words, *self.at, "--json")
        return json.loads(said.splitlines()[-1])

    async def operate(self, *words: str) -> Any:
        return await self.fleet("command", *words, "--operator", "op-7", "--reason", "flood")

    def made(self, *, by: Sequence[Signer], doors: Any = "all", seq: int, **claims: Any) -> bytes:
        """A command of another shape than the command line gives."""
        now = int(time.time())
        given = {"aud": f"{TENANT}/{DEVICE}", "iat": now, "exp": now + 600, "ver": seq, **claims}
        body = {"class": "D", "name": "open_doors", "args": {"doors": doors}}
        return issue(Kind.COMMAND, {**body, "operator": "op-7", "reason": "flood"}, by, **given)

    async def publish(self, raw: bytes) -> None:
        assert await self.connection.publish(f"postern/v1/{DEVICE}/down/command", raw) < 128

    async def attend(self, *, card: bool = True) -> None:
        """The technician shows their badge, then card and finger, or only a PIN."""
        shown = len(self.site.of("identity.factor_shown"))
        opened = len(self.site.of("locker.session_opened"))
        self.site.badge.scan(BADGE)
        await self.site.count("identity.factor_shown", shown + 1)
        if card:
            self.card.touch("thumb")
            self.reader.present(self.card)
        else:
            self.site.keypad.scan(PIN)
        await self.site.count("locker.session_opened", opened + 1)
        self.reader.remove()

    async def twice_by_one(self, seq: int) -> None:
        """Two signatures, and one key."""
        whole = json.loads(self.made(by=self.keys[:2], seq=seq))
        whole["signatures"] = whole["signatures"][:1] * 2
        await self.publish(json.dumps(whole).encode())

    async def refused(self, wanted: int) -> str:
        await self.site.count("fleet.command_refused", wanted)
        reason: str = self.site.of("fleet.command_refused")[wanted - 1]["data"]["reason"]
        return reason

    async def outcome(self, wanted: int = 1) -> dict[str, Any]:
        await self.site.until(lambda: len(self.site.of(*OUTCOMES)) >= wanted, "the outcome")
        entry = self.site.of(*OUTCOMES)[wanted - 1]
        return {"type": entry["type"].removeprefix("postern.command."), **entry["data"]}

    @property
    def open(self) -> list[str]:
        return [name for name in SIZES if not self.site.door(name).shut]


@contextlib.asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[Lab]:
    """A locker that believes this fleet, has its newest word, and knows the time from it."""
    keyring = Keyring.create(folder / "keys", TENANT, passphrase)
    enrol(keyring, read_request(request(DEVICE, aud=f"{TENANT}/*", tenant=TENANT), TENANT))
    async with LockerSite(folder, keyring.document.raw, more=READER) as site:
        site.add(TECHNICIAN, "badge", BADGE, role="technician")
        site.add(TECHNICIAN, "pin", PIN, role="technician")
        reader, card = site.plug(Pn532Reader(site.dev / "cards")), FidoCard()
        reader.present(card)
        card.touch("thumb")
        await postern("cards", "make", TECHNICIAN, "--port", str(reader.name), "--config", str(site.config))
        card.lift()
        reader.remove()
        reader.unplug()
        reader.plug()
        async with connected(site.broker.port, "operator") as connection:
            made = Lab(site, keyring, connection, reader, card)
            async with collecting(*made.at, "--notices", str(folder / "notices")):
                await site.start()
                await site.ready("cards")
                await site.count("clock.corrected", 1)
                await made.fleet("head", "--device", DEVICE)
                await site.count("fleet.head_accepted", 1)
                yield made
                await site.kill_agent()


async def test_two_keys_and_a_technician_open_doors_one_after_the_other(tmp_path: Path) -> None:
    """And nothing does with less: one key, one key twice, too late, nobody there, somebody with a PIN."""
    async with lab(tmp_path) as at:
        one, two = at.keys[:2]
        await at.publish(at.made(by=[one], seq=1))
        assert await at.refused(1) == "below_threshold"
        await at.twice_by_one(seq=2)
        assert await at.refused(2) == "malformed"
        now = int(time.time())
        await at.publish(at.made(by=[one, two], seq=3, iat=now - 900, exp=now - 300))
        assert await at.refused(3) == "expired"
        operator = asyncio.create_task(at.operate("open_doors", DEVICE, "--doors", "1,4,5"))
        await at.site.count("command.accepted", 1)
        await at.attend(card=False)
        assert at.site.of("locker.session_opened")[0]["data"]["level"] == 1
        assert at.site.pulses == 0
        await at.attend()
        told = await operator
        assert told["type"] == "postern.command.succeeded"
        assert told["data"]["opened"] == at.open == ["a1", "b2", "c1"]
        assert at.site.pulses == 3
        assert told["data"]["present"] == TECHNICIAN
        types = [entry["type"].removeprefix("postern.") for entry in at.site.entries]
        steps = [each for each in types if each in ("locker.opening_intended", "door.opened")]
        assert steps == ["locker.opening_intended", "door.opened"] * 3
        assert not unlike(at.site.entries)


async def test_a_crash_or_the_emergency_lock_ends_it_and_nothing_goes_on_by_itself(tmp_path: Path) -> None:
    async with lab(tmp_path) as at:
        raw = at.made(by=at.keys[:2], seq=1)
        await at.attend()
        await at.publish(raw)
        await at.site.count("locker.opening_intended", 2)
        await at.site.kill_agent()
        pulses, opened = at.site.pulses, len(at.open)
        assert opened < len(SIZES), "some doors are left"
        await at.site.start()
        told = await at.outcome(1)
        assert (told["type"], told["detail"]) == ("outcome_unknown", "interrupted")
        assert len(told["unknown"]) == 1
        assert len(told["opened"]) + 1 + len(told["left"]) == len(SIZES)
        await at.publish(raw)
        assert (await at.outcome(2))["again"]
        await at.site.ready("cards")
        await at.attend()
        assert at.site.pulses == pulses

        closed = len(at.site.of("locker.session_closed"))
        at.site.gun.scan("POSTERN:END")
        await at.site.count("locker.session_closed", closed + 1)
        await at.publish(at.made(by=at.keys[:2], seq=2, doors=[6]))
        await at.site.count("command.accepted", 2)
        await at.fleet("command", "emergency_lock", DEVICE, "--operator", "op-7", "--reason", "breach")
        await at.site.until(lambda: len(at.site.of("command.failed")) == 1, "the end of the one that waits")
        assert at.site.of("command.failed")[0]["data"]["detail"] == "locked_down"
        refused = len(at.site.of("fleet.command_refused"))
        await at.publish(at.made(by=at.keys[:2], seq=3, doors=[6]))
        assert await at.refused(refused + 1) == "not_permitted"
        await at.attend()
        assert at.site.pulses == pulses
