"""A locker in the dark: deposits and pickups, on a real line, with nobody to ask."""

import time
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.envelope import Envelope, Kind
from agent.jws import kid_of
from agent.keystore import FOLDER, Keystore
from agent.performer import GRID_NS
from tests.locker_site import LockerSite
from tests.schemas import unlike

UNLOCK = b"\x02\x00\x31"
"""How the frame begins that pulses the first door of the first board."""

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]


async def test_a_courier_deposits_and_recipients_collect_with_no_network(tmp_path: Path) -> None:
    async with LockerSite(tmp_path) as site:
        await site.start()
        await site.identify()
        first = await site.deposit("RB473124829DE")
        second = await site.deposit("1Z5R89390357567127", "M")
        site.gun.scan("POSTERN:END")
        await site.count("locker.session_closed", 1)
        await site.collect(first.long)
        await site.collect(second.pin, typed=True)
        assert [entry["subject"] for entry in site.of("locker.collected")] == [
            "s10:RB473124829DE",
            "ups:1Z5R89390357567127",
        ]
        assert site.pulses == 4
        site.gun.scan(first.long)
        assert await site.refused(1) == "spent"
        assert site.pulses == 4
        assert not site.of("agent.fault")
        assert not unlike(site.entries)
        site.in_order()


async def test_a_refused_code_sounds_no_sooner_than_the_next_point_of_the_grid(tmp_path: Path) -> None:
    async with LockerSite(tmp_path) as site:
        await site.start()
        for code in ("PICKUP:AAAAAAAAAAAAAAAAAAAAAA", "PICKUP:nonsense", "eyJ.nothing.signed"):
            before, since_ns = len(site.gun.tones), time.monotonic_ns()
            site.gun.scan(code)
            await site.until(lambda before=before: len(site.gun.tones) > before, "a tone")  # type: ignore[misc]
            assert site.gun.tones[before:] == ["bad"]
            assert time.monotonic_ns() - since_ns >= GRID_NS


async def test_a_forced_door_is_an_alarm_and_its_compartment_out_of_use(tmp_path: Path) -> None:
    async with LockerSite(tmp_path) as site:
        await site.start()
        site.door("c1").force()
        await site.count("door.forced", 1)
        assert site.of("door.forced")[0]["subject"] == "c1"
        site.door("c1").slam()
        await site.count("door.shut_again", 1)
        await site.identify()
        await site.deposit("RB473124829DE", "L")
        assert site.of("locker.deposited")[0]["data"]["compartment"] == "c2"


async def test_a_code_is_never_pulsed_again_by_itself_after_kill_9(tmp_path: Path) -> None:
    async with LockerSite(tmp_path) as site:
        await site.start()
        await site.identify()
        codes = await site.deposit("RB473124829DE")
        site.gun.scan("POSTERN:END")
        await site.count("locker.session_closed", 1)
        site.door("a1").jam()
        pulses = site.pulses
        site.gun.scan(codes.long)
        await site.bus.asked_for(UNLOCK)
        await site.kill_agent()
        await site.start()
        await site.count("locker.outcome_unknown", 1)
        assert site.pulses == pulses + 1
        site.door("a1").stuck = False
        await site.collect(codes.long)
        assert site.pulses == pulses + 2


async def test_what_a_courier_gets_is_signed_by_the_locker(tmp_path: Path) -> None:
    async with LockerSite(tmp_path) as site:
        await site.start()
        await site.identify()
        await site.deposit("RB473124829DE")
        receipt = site.of("locker.deposited")[0]["data"]["receipt"].encode()
        secret = Keystore(tmp_path / "state" / FOLDER).load("device").reveal()
        public = Ed25519PrivateKey.from_private_bytes(secret).public_key().public_bytes_raw()
        envelope = Envelope.parse(Kind.DEPOSIT, receipt)
        assert envelope.signers({kid_of(public): public})
        body = envelope.claims(Kind.DEPOSIT).body
        assert (body["parcel"], body["compartment"], body["courier"]) == (
            "s10:RB473124829DE",
            "a1",
            "drv-1a2b3c",
        )
