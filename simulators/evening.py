"""The locker's evening, step by step, and what its doors and the fleet make of it.

Hands on virtual devices; no agent is known here. What hands have done counts: a parcel put in, one taken out,
a door forced, a solenoid fed. The fleet has to know of each, exactly as often.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from simulators.locker_stage import LockerDevices
from simulators.morning import BADGES, COLLEAGUE, PIN, until
from simulators.relay import Relay
from simulators.view import View

QR, TYPED, JAMMED = "s10:RB473124829DE", "ups:1Z5R89390357567127", "sscc:106141412345678908"
"""Three parcels: how each of them is to be collected."""
PARCELS = {
    QR: ("RB473124829DE", "S"),
    TYPED: ("1Z5R89390357567127", "M"),
    JAMMED: ("]C100106141412345678908", "L"),
}
"""What is scanned of a parcel, and the size of compartment it needs."""
REFUSED = ("locker.code_refused", "locker.refused")
ANSWER_S = 0.6
"""A little longer than it takes until a door has been looked at twice."""


@dataclass
class Codes:
    """What recipients were sent: by parcel."""

    signed: dict[str, str] = field(default_factory=dict)
    """QR codes of the fleet, made before the parcels came."""
    typed: dict[str, str] = field(default_factory=dict)
    """PINs that the locker has made, as the fleet has passed them on."""


@dataclass
class Doings:
    """What hands have done at the locker, and what the fleet knows of it."""

    put: Counter[str] = field(default_factory=Counter)
    """Parcels that were put in, with the good tone for it."""
    taken: Counter[str] = field(default_factory=Counter)
    forced: Counter[str] = field(default_factory=Counter)
    """By compartment."""
    told: dict[str, Counter[str]] = field(default_factory=dict)
    """Entries at the fleet: subjects by type."""

    def take(self, entry: dict[str, Any]) -> None:
        kind = entry["type"].removeprefix("postern.")
        self.told.setdefault(kind, Counter())[entry.get("subject", "")] += 1

    def of(self, *kinds: str) -> Counter[str]:
        return sum((self.told.get(kind, Counter()) for kind in kinds), Counter[str]())

    @property
    def lost(self) -> int:
        """Parcels that were put in or taken out, and doors forced, of which the fleet knows nothing."""
        return sum((hands - fleet).total() for hands, fleet in self._pairs.values())

    @property
    def _pairs(self) -> dict[str, tuple[Counter[str], Counter[str]]]:
        return {
            "put in": (self.put, self.of("locker.deposited")),
            "taken out": (self.taken, self.of("locker.collected")),
            "forced": (self.forced, self.of("door.forced")),
        }

    def wrong(self, *, pulses: int, bad_tones: int) -> list[str]:
        """What hands and fleet do not agree about."""
        found = [
            f"{what}: {dict(hands)} by hand, {dict(fleet)} at the fleet"
            for what, (hands, fleet) in self._pairs.items()
            if hands != fleet
        ]
        told = self.of("door.pulsed", "door.pulse_unknown").total()
        if told != pulses:
            found.append(f"{pulses} pulses at the solenoids, {told} at the fleet")
        refused = self.of(*REFUSED, "locker.outcome_unknown").total()
        if refused != bad_tones:
            found.append(f"{bad_tones} bad tones, but {refused} refusals at the fleet")
        return found


class Evening:
    """The story, step by step. Every step waits for what it is about."""

    def __init__(
        self, at: LockerDevices, network: Relay, view: View, doings: Doings, codes: Codes, pace: float
    ) -> None:
        self.at, self.network, self.view = at, network, view
        self.doings, self.codes, self.pace = doings, codes, pace
        self.online = True

    async def tell(self) -> None:
        """From the first badge to the last door."""
        await self._wait_for_the_locker()
        await self._deposit_in_the_dark()
        await self._collect_by_qr()
        await self._force_a_door()
        await self._back_online()
        await self._collect_by_pin()
        await self._jam_a_door()
        await until(lambda: not self._wrong(), "everything with the fleet")

    async def _wait_for_the_locker(self) -> None:
        self.view.step("a parcel locker: its agent finds six doors, and the fleet's word")
        await self._told("locker.in_service", 1)
        await self._told("clock.corrected", 1)
        await self._told("fleet.head_accepted", 1)

    async def _deposit_in_the_dark(self) -> None:
        self.view.step("the network is cut; a courier identifies: badge and PIN")
        self.network.cut()
        self.online = False
        good = self._good
        self.at.badge.scan(BADGES[COLLEAGUE])
        await asyncio.sleep(ANSWER_S)
        self.at.keypad.scan(PIN)
        await until(lambda: self._good > good, "a session")
        self.view.step("three parcels, three sizes: a door springs open for each")
        for parcel, (label, size) in PARCELS.items():
            await self._good_tone(f"POSTERN:SIZE:{size}")
            self.at.gun.scan(label)
            await self._through_the_door(parcel, put=True)
        await self._good_tone("POSTERN:END")

    async def _collect_by_qr(self) -> None:
        self.view.step("a recipient shows a QR code that the fleet signed before the parcel came")
        self.at.gun.scan(self.codes.signed[QR])
        await self._through_the_door(QR, put=False)
        self.view.step("the same code once more: spent, and the door stays shut")
        pulses, bad = self.at.pulses, self._bad
        self.at.gun.scan(self.codes.signed[QR])
        await until(lambda: self._bad > bad, "the bad tone")
        assert self.at.pulses == pulses
        await self._breathe()

    async def _force_a_door(self) -> None:
        self.view.step("somebody forces a door: an alarm, and nobody gets that compartment")
        self.at.door("c2").force()
        self.doings.forced["c2"] += 1
        await asyncio.sleep(ANSWER_S)
        self.at.door("c2").slam()
        await self._breathe()

    async def _back_online(self) -> None:
        self.view.step("the network is back: what happened in the dark reaches the fleet")
        self.network.restore()
        self.online = True
        await self._told("door.forced", 1)
        await self._told("locker.collected", 1)

    async def _collect_by_pin(self) -> None:
        self.view.step("the fleet opens what the locker sealed, and a recipient types the PIN")
        await until(lambda: TYPED in self.codes.typed, "the PIN")
        self.at.keypad.scan(self.codes.typed[TYPED])
        await self._through_the_door(TYPED, put=False)

    async def _jam_a_door(self) -> None:
        self.view.step("the third door is jammed: one pulse, not one more, and it is out of use")
        await until(lambda: JAMMED in self.codes.typed, "the PIN")
        self.at.door("c1").jam()
        self.at.keypad.scan(self.codes.typed[JAMMED])
        await self._told("locker.outcome_unknown", 1)
        self.view.step("somebody frees it, and the recipient may try once more")
        self.at.door("c1").stuck = False
        await self._breathe()
        self.at.keypad.scan(self.codes.typed[JAMMED])
        await self._through_the_door(JAMMED, put=False)

    # -- hands ------------------------------------------------------------------------------------

    async def _through_the_door(self, parcel: str, *, put: bool) -> None:
        """Put a parcel into the compartment that has opened, or take it out; shut the door."""
        await until(lambda: self.at.open, "an open door")
        (name,) = self.at.open
        door, good = self.at.door(name), self._good
        await self._breathe()
        if put:
            door.put()
        else:
            door.take()
        await asyncio.sleep(ANSWER_S)
        door.slam()
        if put:
            await until(lambda: self._good > good, "the good tone")
            self.doings.put[parcel] += 1
        else:
            self.doings.taken[parcel] += 1
        await self._breathe()

    async def _good_tone(self, words: str) -> None:
        good = self._good
        self.at.gun.scan(words)
        await until(lambda: self._good > good, f"the tone for {words}")

    async def _told(self, kind: str, times: int) -> None:
        await until(lambda: self.doings.of(kind).total() >= times, f"{times} {kind}")

    async def _breathe(self) -> None:
        await asyncio.sleep(self.pace)

    def _wrong(self) -> list[str]:
        return self.doings.wrong(pulses=self.at.pulses, bad_tones=self._bad)

    @property
    def _good(self) -> int:
        return self.at.gun.tones.count("good")

    @property
    def _bad(self) -> int:
        return self.at.gun.tones.count("bad")
