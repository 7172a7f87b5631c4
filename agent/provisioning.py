"""Brings the templates of the fleet into fingerprint modules, and takes out those that are ours and unwanted.

One step at a time for each module: what is to be sent is remembered, then ordered, and what became of it is
an entry. A template is in memory from its page to its module, and nowhere else; while its module is not there
it is not even that, and its page is fetched again.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import structlog

from agent import slots
from agent.clock import NS, Moment
from agent.inventory import SLOTS, Inventory, taught_here
from agent.journal import Journal
from agent.roster import BUNDLE, Roster
from agent.templates import Finger, Ours, Plan, Template, Wanted, plan
from agent.workflow import Draft, Order
from drivers.readings import (
    ActionDone,
    DeleteFinger,
    DeviceLost,
    DeviceReady,
    FingerEnrolled,
    Reading,
    SlotsListed,
    StoreTemplate,
)

PREFIX = "template/"
"""Of the journal's records of what we have put into each slot."""
AGAIN_S = 300.0
"""Before what a module refused is tried once more; at once when it has been opened anew."""
CUT_OFF = 2
"""So often a module may be lost over the same slot before it has to wait after its opening as well."""
IN_MEMORY = 512 * 1024
"""Most bytes of templates that wait for their modules."""

PAGE = 96 * 1024
"""Bytes of templates that a page can bring, and more."""

log = structlog.get_logger("provisioning")

Doing = StoreTemplate | DeleteFinger


class House(Protocol):
    """What is needed of the app around it."""

    def stamp(self) -> tuple[Moment, Mapping[str, Any]]:
        """Time and place of an entry that is made now."""
        ...

    def seek(self, values: Sequence[bytes]) -> None:
        """Have the pages of these rows brought once more."""
        ...

    def revoked(self) -> frozenset[str]:
        """References of everybody whom the fleet has revoked."""
        ...

    def awaits_roster(self) -> bool:
        """Whether the fleet has a list of people that is not here."""
        ...

    def units_changed(self) -> None:
        """A unit is believed or doubted now."""
        ...


@dataclass(slots=True)
class _Module:
    """One that is open and has told which slots are taken."""

    present: frozenset[int]
    doing: Doing | None = None
    refused: dict[int, int] = field(default_factory=dict)
    """When a slot was last refused: monotonic nanoseconds."""

    def refuse(self, slot: int, now: Moment) -> None:
        self.refused[slot] = now.mono_ns

    def refuses(self, slot: int, now: Moment) -> bool:
        return slot in self.refused and now.since(self.refused[slot]) < AGAIN_S


class Provisioning:
    """Keeps the modules of this device as the fleet wants them."""

    def __init__(
        self,
        roster: Roster,
        inventory: Inventory,
        journal: Journal,
        order: Callable[[Any, tuple[Order, ...], None], None],
        *,
        modules: Collection[str],
        house: House,
    ) -> None:
        """`order` has orders done once a future is; `modules` are the names of all fingerprint modules."""
        self._roster, self._inventory, self._journal = roster, inventory, journal
        self._order, self._known, self._house = order, modules, house
        self._unable: set[str] = set()
        """Units that were told of as unable to hold what is listed for them."""
        self._modules: dict[str, _Module] = {}
        self._waiting: dict[Finger, Template] = {}
        """What pages have brought and no module has yet."""
        self._cut: Counter[Finger] = Counter()
        """How often in turn the outcome for a slot was unknown: its module was lost over it."""
        self._names: dict[str, str] = {}
        """Subjects by the digest that stands for them, as far as they were heard of in this run."""
        self._revoked: frozenset[str] = frozenset()
        self._barred: dict[str, str] = {}
        """Digests of those who are revoked, and their names."""

    # -- what happens -----------------------------------------------------------------------------

    def arrived(self, templates: Iterable[Template]) -> None:
        """A page was opened."""
        room = IN_MEMORY - sum(len(each.content) for each in self._waiting.values())
        for each in templates:
            self._names[slots.owner(self._roster.rows.keys, each.subject)] = each.subject
            room -= len(each.content)
            if each.unit in self._modules and room >= 0:
                self._waiting[each.unit, each.slot] = each
        self.look()

    def saw(self, unit: str, reading: Reading) -> None:
        """What a fingerprint module tells, in its order."""
        match reading:
            case DeviceReady(about=about):
                self._gone(unit)
                if "index" not in about and self._listed(unit):
                    self._cannot(unit, "no_index")
            case DeviceLost():
                self._gone(unit)
            case SlotsListed(slots=taken):
                waits = [slot for (of, slot), times in self._cut.items() if of == unit and times >= CUT_OFF]
                now_ns = self._house.stamp()[0].mono_ns
                self._modules[unit] = _Module(taken, refused=dict.fromkeys(waits, now_ns))
                self._remember_first(unit, taken)
            case FingerEnrolled(slot=slot, ok=True):
                self._taught(unit, slot, taught=True)
            case ActionDone(action=StoreTemplate() | DeleteFinger()):
                self.done(unit, reading)
            case _:
                return
        self.look()

    def done(self, unit: str, done: ActionDone) -> bool:
        """What became of an order; whether it was ours."""
        module = self._modules.get(unit)
        if module is None or module.doing is None or done.action != module.doing:
            if isinstance(done.action, DeleteFinger) and done.ok:
                self._taught(unit, done.action.slot, taught=False)
            return False
        action, module.doing = module.doing, None
        finger = (unit, action.slot)
        self._cut[finger] = self._cut[finger] + 1 if done.unknown else 0
        match action:
            case StoreTemplate():
                self._stored(unit, module, action.slot, done)
            case DeleteFinger():
                self._deleted(unit, module, action.slot, done)
        return True

    def undone(self, unit: str, done: ActionDone) -> bool:
        """An order that its unit did not even take; whether it was ours."""
        ours = self.done(unit, done)
        if ours:
            self.look()
        return ours

    def look(self) -> None:
        """Do what is to be done next, if anything is: after whatever may have changed that."""
        sought: list[bytes] = []
        for unit in sorted({*self._modules, *(unit for unit, _ in self._roster.rows.slots(BUNDLE))}):
            sought += self._look_at(unit, self._listed(unit))
        room = IN_MEMORY - sum(len(each.content) for each in self._waiting.values())
        self._house.seek(sought[: room // PAGE])

    def status(self) -> dict[str, Any]:
        """For people: of how many slots the fleet says what they hold, and how many do."""
        units = sorted({unit for unit, _ in self._roster.rows.slots(BUNDLE)})
        return {unit: {"listed": len(self._listed(unit)), "stored": self._right(unit)} for unit in units}

    def _right(self, unit: str) -> int:
        listed, ours = self._listed(unit), self._ours(unit)
        return sum(have.is_right(listed.get(slot)) for slot, have in ours.items())

    # -- one module -------------------------------------------------------------------------------

    def _look_at(self, unit: str, listed: Mapping[int, Wanted]) -> list[bytes]:
        """Rows whose pages are to be fetched for it."""
        if listed and unit not in self._known:
            self._cannot(unit, "unknown_unit")
            return []
        if listed:
            self._mind(unit)
        module, told = self._modules.get(unit), self._journal.records.get(SLOTS + unit)
        if module is None or told is None or not told["fleet"]:
            return []
        now, position = self._house.stamp()
        wanted = {slot: each for slot, each in listed.items() if self._is_due(each, now)}
        found = plan(wanted, self._ours(unit), frozenset(told["local"]), module.present)
        if (entry := self._inventory.listed(unit, found)) is not None:
            log.info("slots compared", unit=unit, foreign=found.foreign, missing=found.missing)
            self._journal.append([entry], now, position)
            self._house.units_changed()
        due = {slot: wanted[slot] for slot in (*found.store, *found.delete) if slot in wanted}
        self._forget_but(unit, due, listed)
        trusted = not self._inventory.doubts(unit)
        # Nobody's finger is given to a module that may be anybody's.
        store = [slot for slot in found.store if trusted and not module.refuses(slot, now)]
        if module.doing is None:
            self._next(unit, module, found, store, wanted)
        self._tell_kept(unit, module, found, wanted)
        lacked = [wanted[slot].value for slot in store if (unit, slot) not in self._waiting]
        return [value for value in lacked if value]

    def _listed(self, unit: str) -> dict[int, Wanted]:
        if self._house.awaits_roster():
            # What the fleet wants in there is to be heard yet: what it wanted stays.
            ours = self._ours(unit).items()
            return {
                slot: Wanted(value=b"", owner=of.owner, digest=of.digest, until=None) for slot, of in ours
            }
        listed = self._roster.rows.slots(BUNDLE)
        return {slot: each for (of, slot), each in listed.items() if of == unit}

    def _cannot(self, unit: str, reason: str) -> None:
        """Nothing that is listed for it can be stored: told once."""
        if unit not in self._unable:
            self._unable.add(unit)
            self._tell("template_not_stored", unit, None, None, reason, {})

    def _next(
        self, unit: str, module: _Module, found: Plan, store: Sequence[int], wanted: Mapping[int, Wanted]
    ) -> None:
        now, _ = self._house.stamp()
        for slot in found.delete:
            if not module.refuses(slot, now):
                self._do(unit, module, DeleteFinger(slot=slot), {})
                return
        for slot in store:
            if (template := self._waiting.get((unit, slot))) is not None:
                ours = Ours(owner=wanted[slot].owner, digest=wanted[slot].digest, stored=False)
                action = StoreTemplate(slot=slot, template=template.content)
                self._do(unit, module, action, {_key(unit, slot): ours.dump()})
                return

    def _tell_kept(self, unit: str, module: _Module, found: Plan, wanted: Mapping[int, Wanted]) -> None:
        for slot in found.kept:
            if slot not in module.refused:
                module.refuse(slot, self._house.stamp()[0])
                name = self._name(wanted[slot].owner)
                self._tell("template_not_stored", unit, slot, name, "taught_here", {})

    def _do(self, unit: str, module: _Module, action: Doing, records: Mapping[str, Any]) -> None:
        now, position = self._house.stamp()
        module.doing = action
        committed = self._journal.append([], now, position, records) if records else None
        self._order(committed, (Order(unit, action),), None)

    def _is_due(self, wanted: Wanted, now: Moment) -> bool:
        """Whether the slot is still to hold what was listed for it."""
        if wanted.until is not None and now.utc_ns > wanted.until * NS:
            return False
        self._know_revoked()
        return wanted.owner not in self._barred and not self._roster.authority.is_revoked(None, wanted.value)

    def _know_revoked(self) -> None:
        revoked = self._house.revoked()
        if revoked != self._revoked:
            keys = self._roster.rows.keys
            self._barred = {slots.owner(keys, subject): subject for subject in revoked}
            self._revoked = revoked

    def _forget_but(self, unit: str, missing: Mapping[int, Wanted], listed: Mapping[int, Wanted]) -> None:
        """Let go of templates that no slot waits for. One that is not listed may be of a page that came
        before its list is in force."""
        for finger, template in list(self._waiting.items()):
            if finger[0] != unit or finger[1] not in listed:
                continue
            wanted = missing.get(finger[1])
            digest = slots.digest(self._roster.rows.keys, template.content)
            if wanted is None or wanted.digest != digest:
                del self._waiting[finger]

    def _gone(self, unit: str) -> None:
        self._modules.pop(unit, None)
        for finger in [finger for finger in self._waiting if finger[0] == unit]:
            del self._waiting[finger]

    # -- what became of it ------------------------------------------------------------------------

    def _stored(self, unit: str, module: _Module, slot: int, done: ActionDone) -> None:
        key = _key(unit, slot)
        ours = Ours.load(self._journal.records[key])
        subject = self._name(ours.owner)
        waiting = self._waiting.get((unit, slot))
        if waiting is not None and slots.digest(self._roster.rows.keys, waiting.content) == ours.digest:
            del self._waiting[unit, slot]  # and not a newer one that has come meanwhile
        if done.ok:
            module.present |= {slot}
            self._tell("template_stored", unit, slot, subject, None, {key: replace(ours, stored=True).dump()})
            return
        module.refuse(slot, self._house.stamp()[0])
        # One of which nobody knows whether it was stored stays ours: it is deleted if it is there.
        self._tell(
            "template_not_stored", unit, slot, subject, done.reason, {} if done.unknown else {key: None}
        )

    def _deleted(self, unit: str, module: _Module, slot: int, done: ActionDone) -> None:
        key = _key(unit, slot)
        subject = self._name(Ours.load(self._journal.records[key]).owner)
        if done.ok:
            module.present -= {slot}
            self._tell("template_deleted", unit, slot, subject, None, {key: None})
            return
        module.refuse(slot, self._house.stamp()[0])
        self._tell("template_not_deleted", unit, slot, subject, done.reason, {})

    def _tell(
        self,
        what: str,
        unit: str,
        slot: int | None,
        subject: str | None,
        reason: str | None,
        records: Mapping[str, Any],
    ) -> None:
        log.info(what.replace("_", " "), unit=unit, slot=slot)
        data: dict[str, Any] = {"unit": unit, "slot": slot, "subject_ref": subject}
        if reason is not None:
            data["reason"] = reason[:200]
        now, position = self._house.stamp()
        self._journal.append([Draft(f"identity.{what}", unit, data)], now, position, records)

    def _name(self, owner: str) -> str | None:
        return self._barred.get(owner) or self._names.get(owner)

    # -- what is remembered -----------------------------------------------------------------------

    def _ours(self, unit: str) -> dict[int, Ours]:
        prefix = f"{PREFIX}{unit}/"
        return {
            int(key.removeprefix(prefix)): Ours.load(record)
            for key, record in self._journal.records.items()
            if key.startswith(prefix)
        }

    def _remember_first(self, unit: str, taken: frozenset[int]) -> None:
        """What was there before the fleet said anything was taught here, as far as the module is believed."""
        if SLOTS + unit not in self._journal.records and not self._inventory.doubts(unit):
            self._remember(unit, taken, fleet=False)

    def _mind(self, unit: str) -> None:
        """From now on it is for the fleet to say what the module holds."""
        told = self._journal.records.get(SLOTS + unit)
        if told is None or not told["fleet"]:
            self._remember(unit, told["local"] if told else (), fleet=True)

    def _taught(self, unit: str, slot: int, *, taught: bool) -> None:
        """A finger was taught, or forgotten, at the device itself."""
        module = self._modules.get(unit)
        records = taught_here(unit, slot, self._journal.records, taught=taught)
        if module is None or not records:
            return
        change = frozenset({slot})
        module.present = module.present | change if taught else module.present - change
        now, position = self._house.stamp()
        self._journal.append([], now, position, records)

    def _remember(self, unit: str, local: Iterable[int], *, fleet: bool) -> None:
        now, position = self._house.stamp()
        record = {"local": sorted(local), "fleet": fleet}
        if self._journal.records.get(SLOTS + unit) != record:
            self._journal.append([], now, position, {SLOTS + unit: record})


def _key(unit: str, slot: int) -> str:
    return f"{PREFIX}{unit}/{slot}"
