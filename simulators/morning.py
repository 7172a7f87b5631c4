"""The courier's morning, step by step, and what the devices and the fleet make of it.

Hands on virtual devices; no agent is known here. A scan counts as accepted when its scanner was told to
sound the good tone.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from simulators.fido_card import FidoCard
from simulators.relay import Relay
from simulators.stage import Devices
from simulators.view import View

WINDOW_S = 1.1
"""A little more than the duplicate window that the demo's config sets."""

PATIENCE_S = 12.0
"""Longest that any one thing of the story may take."""

ACCEPTING = ("custody.accepted", "custody.offered", "custody.exception_noted")
"""Entry types that a parcel scan's good tone stands for."""

COURIER, COLLEAGUE, RELIEF = "drv-7f3a91", "drv-c2d804", "drv-19be66"
BADGES = {COURIER: "0100a3e9ae", COLLEAGUE: "0100b71c02"}
SLOT = 7
PIN = "20261124"


class StoryFailed(Exception):
    """Something that should have happened did not."""


@dataclass
class Tally:
    """What the devices and the fleet have seen."""

    toned: Counter[str] = field(default_factory=Counter)
    """Good tones by the label that was scanned."""
    accepted: Counter[str] = field(default_factory=Counter)
    """Accepting entries at the fleet, by parcel."""
    refused: Counter[str] = field(default_factory=Counter)
    """Refusals at the fleet, by reason."""
    bad_tones: int = 0
    types: Counter[str] = field(default_factory=Counter)
    shown: Counter[str] = field(default_factory=Counter)
    """Factors shown, by whom."""

    def take(self, entry: dict[str, Any]) -> None:
        kind = entry["type"].removeprefix("postern.")
        self.types[kind] += 1
        if kind in ACCEPTING:
            self.accepted[entry["subject"]] += 1
        if kind == "identity.factor_shown":
            self.shown[entry["subject"]] += 1
        if kind == "custody.refused":
            self.refused[entry["data"]["reason"]] += 1

    @property
    def lost(self) -> int:
        """Scans that sounded the good tone and are not with the fleet."""
        return (self.toned - self.accepted).total()


def sscc(serial: int) -> str:
    """A GS1 serial shipping container code: mod 10, weights 3 and 1 from the right."""
    return checked(f"0106141411{serial:07d}")


def checked(body: str) -> str:
    """With its check digit."""
    total = sum(int(digit) * (3 if at % 2 == 0 else 1) for at, digit in enumerate(reversed(body)))
    return body + str(-total % 10)


def tagged(serial: int) -> tuple[str, str]:
    """A tag's EPC and the SSCC it holds: header 31, filter 0, partition 5 (company 24 bits, serial 34)."""
    company, reference = 614_141, 1_000_000_000 + serial
    epc = 0x31 << 88 | 5 << 82 | company << 58 | reference << 24
    return f"{epc:024x}", checked(f"1{company:07d}{reference % 10**9:09d}")


class Morning:
    """The story, step by step. Every step waits for what it is about."""

    def __init__(
        self,
        at: Devices,
        card: FidoCard,
        network: Relay,
        view: View,
        tally: Tally,
        seed: int,
        pace: float,
    ) -> None:
        self.at = at
        self.card = card
        """The relief driver's."""
        self.network = network
        self.view = view
        self.tally = tally
        self.chance = random.Random(seed)
        self.pace = pace
        self.serial = 0
        self.online = True
        self.labels: list[str] = []
        self._good = 0
        self._read_at: dict[str, float] = {}

    async def tell(self) -> None:
        """From the first badge to the last parcel."""
        await self._wait_for_devices()
        await self._before_anyone_is_there()
        await self._identify()
        await self._load_the_van()
        await self._take_one_back()
        await self._tunnel()
        self.at.gps.drive_to(48.1520, 11.5580, over=240.0)
        await self._deliver_offline()
        await self._back_online()
        await self._hand_to_colleague()
        await self._trip_over_the_cable()
        await self._end()
        await self._relief()

    async def _wait_for_devices(self) -> None:
        self.view.step("the agent finds its eight devices")
        await until(lambda: self.tally.types["device.ready"] >= len(self.at.all()), "eight devices ready")
        await until(lambda: self.at.gun.packeted, "the handheld in packet mode")

    async def _before_anyone_is_there(self) -> None:
        self.view.step("a scan before anybody has identified: refused")
        await self._scan_badly(self._new_sscc())

    async def _identify(self) -> None:
        self.view.step("badge, and somebody else's finger: refused")
        self.at.finger.touch("somebody")
        await self._show_badge(COURIER)
        await until(lambda: self.tally.types["identity.refused"] >= 1, "a refusal")
        self.at.finger.lift()
        await asyncio.sleep(0.4)
        self.view.step("the right finger: a session opens")
        self.at.finger.touch("thumb")
        await until(lambda: self.tally.types["custody.session_opened"] >= 1, "a session")
        self.at.finger.lift()

    async def _load_the_van(self) -> None:
        self.view.step("loading: barcodes of four kinds, with both scanners")
        labels = [self._new_sscc() for _ in range(4)]
        for label in labels:
            await self._scan(f"]C100{label}", f"sscc:{label}", code_type=0x0F)
        await self._scan("RB473124829DE", "s10:RB473124829DE")
        await self._scan("1Z5R89390357567127", "ups:1Z5R89390357567127")
        for _ in range(3):
            label = self._new_sscc()
            await self._scan(f"]C100{label}", f"sscc:{label}", desk=True)
        self.view.step("the same label twice, a label already on board: the other tone")
        await self._scan_badly(f"]C100{label}", desk=True)
        await self._scan_badly(f"]C100{labels[0]}", code_type=0x0F)
        self.labels = [f"]C100{label}" for label in labels]

    async def _take_one_back(self) -> None:
        self.view.step("a parcel of another van, scanned by mistake: taken back, and both stay on record")
        label = self._new_sscc()
        await self._scan(f"]C100{label}", f"sscc:{label}", code_type=0x0F)
        await self._read("POSTERN:CORRECT:WRONG_PARCEL", 0x03)
        await until(lambda: self.tally.types["custody.correction_opened"] >= 1, "to be asked for the parcel")
        await self._breathe()
        await self._once_more(f"]C100{label}")
        await until(lambda: self.tally.types["custody.corrected"] >= 1, "the correction")

    async def _tunnel(self) -> None:
        self.view.step("four RFID tags through the door, one reading each")
        for serial in range(4):
            tag, label = tagged(serial)
            self._good = self.at.good
            self.at.tunnel.present(tag)
            await self._tone("a good tone for the tag")
            self.tally.toned[f"sscc:{label}"] += 1
            self.at.tunnel.remove(tag)

    async def _deliver_offline(self) -> None:
        self.view.step("the network is cut; the work goes on")
        self.network.cut()
        self.online = False
        for _ in range(6):
            label = self._new_sscc()
            await self._scan(f"]C100{label}", f"sscc:{label}", code_type=0x0F)
        self.view.step("two parcels handed to a recipient, who types a code")
        await self._control("POSTERN:HANDOVER:RECIPIENT")
        await self._offer(self.labels[:2])
        self.at.keypad.scan("4711")
        await self._tone("the handover to close")
        self.view.step("one parcel is damaged: noted")
        await self._control("POSTERN:EXCEPTION:DAMAGED")
        await self._offer(self.labels[2:3])

    async def _back_online(self) -> None:
        self.view.step("the network is back: the backlog drains")
        self.network.restore()
        self.online = True
        await until(lambda: self.tally.lost == 0, "every accepted scan with the fleet")
        await until(lambda: self.tally.types["custody.handed_over"] >= 2, "the handover with the fleet")

    async def _hand_to_colleague(self) -> None:
        self.view.step("two parcels handed to a colleague: badge and PIN")
        await self._control("POSTERN:HANDOVER:DRIVER")
        await self._offer(self.labels[2:4])
        await self._show_badge(COLLEAGUE)
        await until(lambda: self.tally.shown[COLLEAGUE] > 0, "the colleague's badge")
        self.at.keypad.scan(PIN)
        await until(lambda: self.tally.types["custody.handed_over"] >= 4, "the handover")

    async def _trip_over_the_cable(self) -> None:
        self.view.step("the handheld is unplugged and comes back under another name")
        was = self.tally.types["device.ready"]
        self.at.gun.unplug()
        await until(lambda: self.tally.types["device.lost"] >= 1, "the loss")
        self.at.gun.plug()
        await until(lambda: self.tally.types["device.ready"] > was, "the handheld")
        await until(lambda: self.at.gun.packeted, "the handheld in packet mode")
        for _ in range(2):
            label = self._new_sscc()
            await self._scan(f"]C100{label}", f"sscc:{label}", code_type=0x0F)

    async def _end(self) -> None:
        self.view.step("the shift ends")
        was = self.tally.types["custody.session_closed"]
        await self._control("POSTERN:END")
        await until(lambda: self.tally.types["custody.session_closed"] > was, "the end of the session")
        await until(lambda: self.tally.lost == 0, "every accepted scan with the fleet")
        refused = self.tally.refused
        await until(lambda: refused.total() >= self.tally.bad_tones, "every refusal with the fleet")

    async def _relief(self) -> None:
        self.view.step("the relief driver's fingerprint card, and a finger it does not know: refused")
        was = self.tally.types["identity.refused"]
        await self._hold_card("stranger")
        await until(lambda: self.tally.types["identity.refused"] > was, "a refusal")
        self.view.step("its holder's finger: the card signs, and a session opens without badge or PIN")
        was = self.tally.types["custody.session_opened"]
        await self._hold_card("index")
        await until(lambda: self.tally.types["custody.session_opened"] > was, "a session")
        await self._breathe()
        label = self._new_sscc()
        await self._scan(f"]C100{label}", f"sscc:{label}", code_type=0x0F)
        await self._end()

    # -- hands ------------------------------------------------------------------------------------

    def _new_sscc(self) -> str:
        self.serial += self.chance.randint(1, 99)
        return sscc(self.serial)

    async def _scan(self, label: str, subject: str, *, code_type: int = 0x03, desk: bool = False) -> None:
        """Scan and wait for the good tone."""
        await self._read(label, code_type, desk=desk)
        await self._tone("the good tone")
        self.tally.toned[subject] += 1

    async def _offer(self, labels: Iterable[str]) -> None:
        for label in labels:
            await self._once_more(label)
            self.tally.toned[f"sscc:{label[5:]}"] += 1

    async def _once_more(self, label: str) -> None:
        # The same label again too soon would rightly be refused as a duplicate.
        await asyncio.sleep(max(0.0, self._read_at.get(label, 0.0) + WINDOW_S - time.monotonic()))
        await self._read(label, 0x0F)
        await self._tone("the good tone")

    async def _scan_badly(self, label: str, *, code_type: int = 0x03, desk: bool = False) -> None:
        bad = self.at.bad
        await self._read(label, code_type, desk=desk)
        await until(lambda: self.at.bad > bad, "the bad tone")
        self.tally.bad_tones += 1

    async def _control(self, words: str) -> None:
        await self._read(words, 0x03)
        await self._tone(f"the tone for {words}")

    async def _read(self, label: str, code_type: int, *, desk: bool = False) -> None:
        self._good = self.at.good
        if desk:
            self.at.desk.scan(label)
        elif not await self.at.gun.scan(label, code_type):
            raise StoryFailed("the handheld's packet was not acknowledged")
        self._read_at[label] = time.monotonic()

    async def _tone(self, what: str) -> None:
        await until(lambda: self.at.good > self._good, what)
        await self._breathe()

    async def _show_badge(self, driver: str) -> None:
        self.at.badge.present(BADGES[driver])
        await asyncio.sleep(0.15)
        self.at.badge.remove()
        await asyncio.sleep(0.5)

    async def _hold_card(self, finger: str) -> None:
        """Hold the card to the reader, lay a finger on it when it is asked for, and take it away."""
        asked = self.tally.types["identity.card_asked"]
        self.at.cards.present(self.card)
        await until(lambda: self.tally.types["identity.card_asked"] > asked, "the card to be asked")
        signed = self.card.tried
        self.card.touch(finger)
        await until(lambda: self.card.tried > signed, "the card to have looked at the finger")
        self.card.lift()
        await self._breathe()
        self.at.cards.remove()
        # Longer than the reader's presence time: held there again sooner, it would never have left.
        await asyncio.sleep(0.8)

    async def _breathe(self) -> None:
        await asyncio.sleep(self.pace * self.chance.uniform(0.5, 1.5))


async def until(claim: Callable[[], object], what: str) -> None:
    """Wait for something of a story to happen. Raises StoryFailed when it takes too long."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not claim():
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise StoryFailed(f"waited {PATIENCE_S:g} s for {what}") from None
