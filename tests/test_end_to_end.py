"""One device of every kind, one agent, a real broker, and the fleet: what goes in comes out, well formed.

The long form has nothing more here: `pytest tests/test_end_to_end.py` is all of it.
"""

import contextlib
import gzip
import json
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.schema.topics import STATE as STATE_SCHEMA
from simulators.stage import CONFIG, Devices, devices, postern
from tests.broker_peer import Peer, Peers
from tests.schemas import fits, standard, unlike, validator
from tests.site import Entry, Site

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

DEVICE = "van-0042"
TOPICS = f"postern/v1/{DEVICE}/up/#"
ENTRIES, STATE = f"postern/v1/{DEVICE}/up/entries", f"postern/v1/{DEVICE}/up/state"
COURIER, BADGE, SLOT = "drv-7f3a91", "0100a3e9ae", 7

POST = "RB473124829DE"
"""A postal item number with a right check digit."""
CARTON = "1Z5R89390357567127"
EPC = f"{0x31 << 88 | 5 << 82 | 614_141 << 58 | 1_000_000_007 << 24:024x}"
"""SSCC-96: header 31, filter 0, partition 5, company 0614141, extension 1, reference 000000007."""
TAGGED = "sscc:106141410000000071"

KINDS = {
    "gun": "ssi",
    "desk": "line",
    "tunnel": "m100",
    "badge": "em4100",
    "finger": "r503",
    "cards": "pn532",
    "keypad": "line",
    "gps": "nmea",
}


@contextlib.asynccontextmanager
async def van(folder: Path) -> AsyncIterator[tuple[Site, Devices, Peer]]:
    """A van with everything plugged in, its agent not started; and one who hears all that is published."""
    async with Site(folder, config=CONFIG, device=DEVICE) as site, devices(site.dev) as at:
        for device in (at.gun, at.desk):
            await site.listen(device.obeyed)
        at.finger.teach(SLOT, "thumb")
        add = ("roster", "add", "--config", str(site.config), "--finger", f"finger:{SLOT}")
        await postern(*add, COURIER, "badge", stdin=BADGE)
        async with Peers(site.broker.port) as peers:
            peer = await peers.connected("eavesdropper")
            await peer.subscribe(TOPICS)
            yield site, at, peer
            # The agent first: a device that is unplugged under it is one more story to tell.
            await site.kill_agent()


async def all_ready(site: Site) -> None:
    await site.start_agent()
    await site.ready(*KINDS)
    await site.until(lambda: len(site.of("device.ready")) >= len(KINDS), "eight devices at the fleet")


async def count(site: Site, kind: str, wanted: int) -> None:
    await site.until(lambda: len(site.of(kind)) >= wanted, f"{wanted} {kind}")


async def morning(site: Site, at: Devices) -> None:
    """Badge and finger, three parcels by three readers, a handover with two of them."""
    await all_ready(site)
    await count(site, "position.tracked", 1)
    at.finger.touch("thumb")
    at.badge.present(BADGE)
    await count(site, "custody.session_opened", 1)
    at.badge.remove()
    at.finger.lift()
    at.gun.scan(POST)
    await count(site, "custody.accepted", 1)
    at.desk.scan(CARTON)
    await count(site, "custody.accepted", 2)
    at.tunnel.present(EPC)
    await count(site, "custody.accepted", 3)
    at.tunnel.remove(EPC)
    at.gun.scan("POSTERN:HANDOVER:RECIPIENT")
    await count(site, "custody.handover_opened", 1)
    # Each by the other scanner: the same unit would take the second reading for a duplicate.
    at.desk.scan(POST)
    at.gun.scan(CARTON)
    await count(site, "custody.offered", 2)
    at.keypad.scan("4711")
    await count(site, "custody.handover_closed", 1)
    at.gun.scan("POSTERN:END")
    await count(site, "custody.session_closed", 1)


async def test_a_morning_with_every_kind_of_device_reaches_the_fleet(tmp_path: Path) -> None:
    async with van(tmp_path) as (site, at, _):
        await morning(site, at)
        accepted = {
            entry["subject"]: entry["data"]["scan"]["driver"] for entry in site.of("custody.accepted")
        }
        assert accepted == {f"s10:{POST}": "ssi", f"ups:{CARTON}": "line", TAGGED: "m100"}
        handed = [entry["subject"] for entry in site.of("custody.handed_over")]
        assert handed == [f"s10:{POST}", f"ups:{CARTON}"]
        assert site.of("custody.session_opened")[0]["data"]["factors"] == ["badge", "slot"]
        assert not site.of("custody.refused", "identity.refused", "agent.fault")
        assert not unlike(site.entries)
        site.in_order()


async def test_every_entry_of_a_morning_tells_when_and_where(tmp_path: Path) -> None:
    async with van(tmp_path) as (site, at, _):
        await morning(site, at)
        for entry in site.entries:
            clock = entry["data"]["clock"]
            assert set(clock) == {"boot", "mono_ns", "trust", "error_s"}
            assert clock["trust"] in ("gps", "ntp", "fleet", "rtc", "none")
        moments = [entry["data"]["clock"]["mono_ns"] for entry in site.entries]
        assert moments == sorted(moments)
        for entry in site.of("custody.accepted", "custody.handed_over"):
            position = entry["data"]["position"]
            assert (round(position["lat"]), round(position["lon"])) == (48, 12)
            assert 0 <= position["age_s"] <= 10


async def test_tones_sound_where_the_scan_was_made_and_at_the_gun_for_what_cannot(tmp_path: Path) -> None:
    async with van(tmp_path) as (site, at, _):
        await morning(site, at)
        await site.until(lambda: at.good >= 8, "the last tone")
        # At the gun: the badge asks; then one parcel, one tag, two codes, one offer and what was typed.
        assert at.gun.tones == ["ask", *["good"] * 6]
        assert at.desk.tones == ["good", "good"]


async def test_the_birth_names_every_unit_and_the_will_speaks_for_the_dead(tmp_path: Path) -> None:
    async with van(tmp_path) as (site, _, peer):
        await all_ready(site)
        birth = await state(peer, lambda said: said["online"] and is_ready(said))
        assert {name: unit["kind"] for name, unit in birth["units"].items()} == KINDS
        assert birth["device"] == DEVICE
        assert fits(STATE_SCHEMA, birth)
        await site.kill_agent()
        assert await state(peer, lambda said: not said["online"]) == {"online": False}
        await site.start_agent()
        again = await state(peer, lambda said: said["online"])
        assert again["epoch"] == birth["epoch"]
        await site.stop_agent()
        assert await state(peer, lambda said: not said["online"]) == {"online": False}


def is_ready(said: Entry) -> bool:
    return all(unit["state"] == "ready" for unit in said["units"].values())


async def state(peer: Peer, wanted: Any) -> Entry:
    """The next state that is wanted, of those published."""
    while True:
        message = await peer.message()
        if message.topic == STATE and wanted(said := json.loads(message.payload)):
            found: Entry = said
            return found


async def published(site: Site, at: Devices, peer: Peer) -> list[bytes]:
    """Every line that a morning has published, as it was on the wire."""
    await morning(site, at)
    lines: list[bytes] = []
    last = site.entries[-1]["id"].encode()
    while not lines or last not in lines[-1]:
        message = await peer.message()
        if message.topic == ENTRIES:
            payload = bytes(message.payload)
            packed = payload.startswith(b"\x1f\x8b")
            lines += (gzip.decompress(payload) if packed else payload).split(b"\n")
    return lines


async def test_every_published_line_is_a_cloudevents_object(tmp_path: Path) -> None:
    async with van(tmp_path) as heard:
        for line in await published(*heard):
            event = json.loads(line)
            assert event["specversion"] == "1.0"
            for attribute in ("id", "source", "type", "subject", "time", "sequence"):
                assert isinstance(event[attribute], str)
                assert event[attribute]
            assert event["source"] == f"/postern/demo/{DEVICE}"
            assert event["type"].startswith("postern.")
            assert datetime.fromisoformat(event["time"]).utcoffset() == timedelta(0)
            assert isinstance(event["data"], dict)
            # "CloudEvents attribute names MUST consist of lower-case letters ('a' to 'z') or digits".
            assert all(name.isalnum() and name.islower() for name in event)


async def test_every_published_line_satisfies_the_published_schema(tmp_path: Path) -> None:
    schema = validator(standard("cloudevents-1.0.json"))
    async with van(tmp_path) as heard:
        for line in await published(*heard):
            schema.validate(json.loads(line))
