"""What whoever is at a locker's own command line can ask and do: look, read back, take out of use, give back.

It answers over the control socket of a running agent, or in a journal that no agent holds. It opens no door.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from agent.clock import Moment
from agent.control import Answer
from agent.decider import Decider
from agent.envelope import Envelope, Kind, Refused
from agent.journal import Journal
from agent.jws import kid_of
from agent.labels import named
from agent.locker.desk import LockerDesk
from agent.locker.events import ServiceAsked
from agent.locker.inspection import Books, judge
from agent.locker.looking import look
from agent.locker.service import why_not_seen_to
from agent.units import Unit

STRIDE = 8192
"""Entries that are looked through at a time."""
STRIDES = 64
"""So far back, and no further: half a million entries."""
MOST = 200
"""Entries in one answer."""
LONGEST = 200
"""Characters of a reason."""
VERBS = ("quarantine", "release")
DEPOSITED = "postern.locker.deposited"
NOT_SHOWN = ("sealed", "receipt")
"""Long, and of use to the fleet alone, or to be asked for by itself."""

Entry = dict[str, Any]


class House(Protocol):
    """What is needed of the app around it."""

    def stamp(self) -> tuple[Moment, Mapping[str, Any]]:
        """Time and place of now."""
        ...


class Caretaker:
    """Sees to the compartments of a locker. Everything it cannot do is a ValueError, in words."""

    def __init__(self, decider: Decider, journal: Journal, units: Mapping[str, Unit], house: House) -> None:
        self._decider, self._journal, self._units, self._house = decider, journal, units, house

    def answers(self) -> dict[str, Answer]:
        """What may be asked over the control socket."""
        return {
            "doors": lambda _: self.doors(),
            "door_history": lambda asked: self.history(asked.get("compartment"), asked.get("last", 50)),
            "door_service": lambda asked: self.see_to(
                asked.get("compartment"), asked.get("verb"), asked.get("reason")
            ),
            "door_receipt": lambda asked: self.receipt(asked.get("parcel")),
            "door_test": lambda _: self.test(),
        }

    def doors(self, *, running: bool = True) -> Mapping[str, Any]:
        """Every compartment, and what its sensors say; without a running agent what is remembered."""
        told = {name: {**each, "sensors": _sensors(each)} for name, each in self._compartments.items()}
        if not running:
            for name, each in told.items():
                status = self._desk.state.status(name)
                each |= {"state": status.word, "reason": status.quarantine, "since": status.since}
        return {"source": self._journal.source, "running": running, "compartments": told}

    async def history(self, compartment: object, last: object) -> Mapping[str, Any]:
        """The newest entries about a compartment, oldest first; `complete` unless more may be there."""
        name = self._known(compartment)
        if not isinstance(last, int) or not 1 <= last <= MOST:
            raise ValueError(f"last: expected 1 to {MOST} entries, got {last!r:.40}")
        found, complete = await self._newest(name, lambda entry: _is_about(entry, name), last)
        return {"entries": [_shown(entry) for entry in found], "complete": complete}

    async def see_to(self, compartment: object, verb: object, reason: object) -> Mapping[str, Any]:
        """Take a compartment out of use, or give it back; done once that is on stable storage."""
        name = self._known(compartment)
        if verb not in VERBS:
            raise ValueError(f"verb: expected one of {', '.join(VERBS)}, got {verb!r:.40}")
        if not (isinstance(reason, str) and 0 < len(reason.strip()) <= LONGEST and reason.isprintable()):
            raise ValueError(f"reason: expected 1 to {LONGEST} printable characters, got {reason!r:.60}")
        if (why := why_not_seen_to(self._desk.state, str(verb), name)) is not None:
            raise ValueError(f"{name}: expected a compartment to {verb}, but {why}")
        now, _ = self._house.stamp()
        done = self._decider.decide_on(
            ServiceAsked(at=now, verb=str(verb), compartment=name, reason=reason.strip())
        )
        if done is not None:
            await done
        return {"compartment": name, "state": self._desk.state.status(name).word}

    async def receipt(self, parcel: object) -> Mapping[str, Any]:
        """What the courier was given for a parcel, and that it is this device's own word."""
        if not isinstance(parcel, str) or not 0 < len(parcel) <= LONGEST:
            raise ValueError(f"parcel: expected a label, got {parcel!r:.60}")
        label = named(parcel)
        found, _ = await self._newest(label, lambda entry: _is_deposit_of(entry, label), 1)
        if not found:
            raise ValueError(f"{label}: expected a parcel that was deposited here, found no such entry")
        data = found[0]["data"]
        if not data.get("receipt"):
            raise ValueError(f"{label}: expected a receipt with its deposit, found none")
        return {
            "parcel": label,
            "compartment": data["compartment"],
            "courier": data["by"],
            "time": found[0]["time"],
            "receipt": data["receipt"],
            "signed_by": self._signer(data["receipt"]),
        }

    async def test(self) -> Mapping[str, Any]:
        """Read every board, and say what would be wrong."""
        desk = self._desk
        seen = []
        for name in sorted({each.unit for each in desk.wall.compartments.values()}):
            unit = self._units[name]
            lost = "" if unit.lost is None else f"{unit.lost.reason} {unit.lost.detail}".strip()
            seen += await look(name, None if lost else unit.driver, lost)
        books = Books(statuses=desk.state.statuses, out=desk.state.out)
        return report(seen, judge(desk.wall, seen, books))

    # -- the journal ------------------------------------------------------------------------------

    async def _newest(
        self, text: str, wanted: Callable[[Entry], bool], last: int
    ) -> tuple[list[Entry], bool]:
        """The newest entries in which this text stands, oldest first; False with them if more may be."""
        found: list[Entry] = []
        upto, strides = self._journal.last, 0
        while upto > 0 and len(found) < last and strides < STRIDES:
            after = max(0, upto - STRIDE)
            stored = await self._journal.naming(text, after, upto)
            found[:0] = [entry for entry in (json.loads(each.line) for each in stored) if wanted(entry)]
            upto, strides = after, strides + 1
        return found[-last:], upto == 0 and len(found) <= last

    def _signer(self, receipt: str) -> str:
        """The key that has signed a receipt: this device's. Raises ValueError for another's."""
        assert self._journal.notary is not None
        public = self._journal.notary.verifier.public
        try:
            (kid,) = Envelope.parse(Kind.DEPOSIT, receipt.encode()).signers({kid_of(public): public})
        except Refused as refused:
            raise ValueError(f"receipt: expected this device's own, got {refused}") from None
        return kid

    # -- what was asked ---------------------------------------------------------------------------

    @property
    def _desk(self) -> LockerDesk:
        desk = self._decider.desk
        if not isinstance(desk, LockerDesk):
            raise ValueError("expected a locker, got a device without [locker.compartment]")
        return desk

    @property
    def _compartments(self) -> dict[str, dict[str, Any]]:
        told: dict[str, dict[str, Any]] = self._desk.told()["compartments"]
        return told

    def _known(self, name: object) -> str:
        known = self._desk.wall.compartments
        if not isinstance(name, str) or name not in known:
            raise ValueError(f"compartment: expected one of {', '.join(known)}, got {name!r:.40}")
        return name


def report(seen: Any, findings: Any) -> dict[str, Any]:
    """What a look at the boards has shown, as it is told."""
    return {
        "boards": [
            {"unit": each.unit, "board": each.address, "doors": len(each.doors), "problem": each.problem}
            for each in seen
        ],
        "findings": [
            {"place": each.place, "expected": each.expected, "found": each.found} for each in findings
        ],
    }


def _sensors(told: Mapping[str, Any]) -> dict[str, str | None]:
    """What each sensor of a door says; None for one that is not there, or was not heard of yet."""
    words = {
        "hook": (told["latched"], "latched", "released"),
        "contact": (told["closed"], "shut", "open"),
        "content": (told["content"], "occupied", "empty"),
    }
    return {
        sensor: None if said is None else yes if said else no for sensor, (said, yes, no) in words.items()
    }


def _is_about(entry: Entry, name: str) -> bool:
    data = entry["data"]
    if not entry["type"].startswith(("postern.door.", "postern.locker.")):
        return False
    several = data.get("compartments")
    places = several if isinstance(several, list) else ()
    return name in (entry.get("subject"), data.get("compartment"), *places)


def _is_deposit_of(entry: Entry, label: str) -> bool:
    return entry["type"] == DEPOSITED and entry.get("subject") == label


def _shown(entry: Entry) -> Entry:
    data = {key: value for key, value in entry["data"].items() if key not in NOT_SHOWN}
    return {name: entry[name] for name in ("sequence", "time", "type", "subject") if name in entry} | {
        "data": data
    }
