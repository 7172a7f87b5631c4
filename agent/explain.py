"""What a config would change, before anything is changed. Pure: two configs in, words out.

    explanation = explain(old, new, people={"drv-5f2e81": {"badge", "pin"}})
    print(explanation.text)

Every setting that differs is a change. An effect says what that means for doors, people and entries; a grave
one should make whoever pushes it look twice.
"""

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any

from agent.config import Config
from agent.config_file import Broker
from agent.intake import Role
from agent.mistakes import dotted, shown
from agent.policy import BODY
from agent.units import UnitSpec

READS = {Role.BADGE: "badge", Role.TOKEN: "static", Role.KEYPAD: "pin", Role.FINGER: "slot"}
CARD_READERS = ("pn532",)
ABSENT = object()


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A setting that differs. None where it is not set."""

    path: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        return f"{self.path}: {self.before or 'nothing'} -> {self.after or 'nothing'}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """What a change means."""

    what: str
    subject: str
    detail: str = ""
    grave: bool = False

    def __str__(self) -> str:
        words = f"{self.what.replace('_', ' ')}: {self.subject}"
        return f"{'! ' if self.grave else '  '}{words}{f' ({self.detail})' if self.detail else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    changes: tuple[Change, ...]
    effects: tuple[Effect, ...]

    @property
    def restart(self) -> bool:
        """Whether the agent starts anew: for any change at all."""
        return bool(self.changes)

    @property
    def text(self) -> str:
        """For people, one line each."""
        if not self.changes:
            return "nothing changes"
        lines = [
            *map(str, self.effects),
            *(f"    {change}" for change in self.changes),
            "  the agent restarts",
        ]
        return "\n".join(lines)

    def as_json(self) -> dict[str, Any]:
        changes, effects = map(asdict, self.changes), map(asdict, self.effects)
        return {"restart": self.restart, "effects": list(effects), "changes": list(changes)}


def explain(old: Config, new: Config, people: Mapping[str, Set[str]] | None = None) -> Explanation:
    """`people` are the kinds of factors that each subject of the roster has, where that is known."""
    effects = [
        *_broker(old, new),
        *_units(old.units, new.units),
        *_doors(old, new),
        *_policies(old, new),
        *_limits(old, new),
        *_bodies(old, new),
        *_people(old, new, people or {}),
    ]
    return Explanation(changes=tuple(_changes(old, new)), effects=tuple(effects))


def readable(config: Config) -> frozenset[str]:
    """Kinds of factors that its units can read."""
    found = {READS[unit.role] for unit in config.units if unit.role in READS}
    if any(unit.kind in CARD_READERS and unit.role is Role.BADGE for unit in config.units):
        found.add("fido2")
    if config.file.kiosk is not None:
        # Its page is a keypad.
        found.add("pin")
    return frozenset(found)


def asks_for_bodies(config: Config) -> tuple[str, ...]:
    """Actions that nobody can do here without a finger: the law asks for another way, such as badge and PIN.

    Not the technicians', who are few and known.
    """
    found = []
    for action in config.actions:
        usable = [
            factors for factors in config.policies()[action].at(None).sets if factors <= readable(config)
        ]
        if usable and action != "technician" and all(factors & BODY for factors in usable):
            found.append(action)
    return tuple(found)


def _changes(old: Config, new: Config) -> Iterable[Change]:
    before, after = (dict(_leaves((), config.file.model_dump())) for config in (old, new))
    for path in [*before, *(path for path in after if path not in before)]:
        was, becomes = before.get(path, ABSENT), after.get(path, ABSENT)
        if was != becomes:
            name = dotted(path)
            yield Change(path=name, before=_shown(name, was), after=_shown(name, becomes))


def _leaves(path: tuple[str, ...], value: Any) -> Iterable[tuple[tuple[str, ...], Any]]:
    if not isinstance(value, dict):
        yield path, value
        return
    for key, each in value.items():
        yield from _leaves((*path, key), each)


def _shown(path: str, value: Any) -> str | None:
    return None if value is ABSENT or value is None else shown(path.replace("password_file", ""), value)


def _broker(old: Config, new: Config) -> Iterable[Effect]:
    was, becomes = old.file.broker, new.file.broker
    before, after = _nodes(was), _nodes(becomes)
    if before != after:
        moved = f"{', '.join(before)} -> {', '.join(after)}"
        yield Effect(what="broker_moved", subject=moved, detail="tried before the trial begins", grave=True)
    elif was != becomes:
        yield Effect(what="connection_changed", subject=", ".join(after))


def _nodes(broker: Broker) -> list[str]:
    return [f"{broker.host}:{broker.port}", *broker.others]


def _units(old: Sequence[UnitSpec], new: Sequence[UnitSpec]) -> Iterable[Effect]:
    before, after = ({unit.name: unit for unit in units} for units in (old, new))
    for name in before.keys() - after.keys():
        yield Effect(what="unit_closed", subject=name, detail=before[name].kind, grave=True)
    for name, unit in after.items():
        if name not in before:
            yield Effect(what="unit_opened", subject=name, detail=f"{unit.kind} on {unit.address.text}")
        elif unit != before[name]:
            ports = f"{before[name].address.text} -> {unit.address.text}"
            moved = unit.address != before[name].address
            yield Effect(what="unit_reopened", subject=name, detail=ports if moved else unit.kind)


def _doors(old: Config, new: Config) -> Iterable[Effect]:
    """Parcels lie behind doors by the compartment's name: a door that moves opens another one."""
    before, after = (
        {name: (each.unit, each.door) for name, each in locker.compartment.items()} if locker else {}
        for locker in (old.file.locker, new.file.locker)
    )
    for name, (unit, door) in before.items():
        if name not in after:
            yield Effect(what="compartment_gone", subject=name, grave=True)
        elif after[name] != (unit, door):
            wired = "{} door {}".format(*after[name])
            yield Effect(
                what="door_remapped", subject=name, detail=f"{unit} door {door} -> {wired}", grave=True
            )
    for name in after.keys() - before.keys():
        yield Effect(what="compartment_added", subject=name, detail="{} door {}".format(*after[name]))


def _policies(old: Config, new: Config) -> Iterable[Effect]:
    before, after = old.policies(), new.policies()
    for action in new.actions:
        if action not in old.actions:
            yield Effect(what="action_begins", subject=action)
        elif before[action] != after[action]:
            sets = " or ".join(sorted("+".join(sorted(factors)) for factors in after[action].at(None).sets))
            second = ", and a second person" if after[action].second_person else ""
            yield Effect(
                what="policy_changed", subject=action, detail=f"{sets or 'nothing'}{second}", grave=True
            )


def _limits(old: Config, new: Config) -> Iterable[Effect]:
    """Shorter keeping drops what the fleet has; a smaller journal may drop telemetry that it has not."""
    before, after = old.limits(), new.limits()
    if after.size < before.size:
        yield Effect(
            what="journal_smaller", subject=f"{after.size // 2**20} MiB", detail="drops entries", grave=True
        )
    for lane, days in after.days.items():
        if days < before.days[lane]:
            kept = f"{before.days[lane]} -> {days} days"
            yield Effect(
                what="kept_shorter", subject=lane.name.lower(), detail=f"{kept}, drops entries", grave=True
            )


def _bodies(old: Config, new: Config) -> Iterable[Effect]:
    """Whoever cannot or will not show a finger had a way, and has none any more."""
    before = asks_for_bodies(old)
    for action in asks_for_bodies(new):
        if action not in before:
            yield Effect(what="body_asked_for", subject=action, detail="no badge and PIN instead", grave=True)


def _people(old: Config, new: Config, people: Mapping[str, Set[str]]) -> Iterable[Effect]:
    """Who could prove themselves before, and could not any more."""
    for action in new.actions:
        had = set(_able(old, action, people)) if action in old.actions else set(people)
        out = sorted(had - set(_able(new, action, people)))
        for subject in out:
            yield Effect(what="locked_out", subject=subject, detail=action, grave=True)


def _able(config: Config, action: str, people: Mapping[str, Set[str]]) -> Iterable[str]:
    policy, units = config.policies()[action].at(None), readable(config)
    return (subject for subject, kinds in people.items() if not policy.sets or policy.met_by(kinds & units))
