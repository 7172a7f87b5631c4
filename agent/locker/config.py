"""What the config says about a locker: its compartments, how they are wired, how long a parcel waits.

[locker]
hold_days = 7

[locker.compartment.a1]
unit = "bus"
door = 1
size = "S"
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints

from agent.intake import Role
from agent.locker.compartments import Compartment, Size, Wall
from agent.locker.doors import Timing
from agent.locker.governor import ON_TIME_MOST_S, Bounds
from agent.locker.turn import Rules
from agent.mistakes import STRICT, Mistake
from agent.policy import Policy
from agent.session import Times
from agent.units import UnitSpec

NAME = r"^[a-z0-9][a-z0-9-]{0,15}$"
DAY_S = 86_400.0
VISIT_S = 600.0
"""Nobody has business at a locker for longer: a session that lasts is one that somebody forgot."""


class _Section(BaseModel):
    model_config = STRICT


class CompartmentSection(_Section):
    """One compartment. `door` counts from 1 through the boards of its unit."""

    unit: str
    door: Annotated[int, Field(ge=1, le=9999)]
    size: Literal["S", "M", "L", "XL"] = "M"
    supply: Annotated[str, StringConstraints(pattern=NAME)] = "main"
    """The power supply of its solenoid: compartments of one supply open one after the other."""
    neighbours: list[str] = []
    """Compartments whose open door stands in the way."""


class LockerSection(_Section):
    """The locker. Durations in seconds, where the name says nothing else."""

    compartment: dict[Annotated[str, StringConstraints(pattern=NAME)], CompartmentSection]
    hold_days: Annotated[float, Field(gt=0, le=60)] = 7.0
    """How long a deposited parcel waits for its recipient."""
    pulse: Annotated[float, Field(ge=0.05, le=ON_TIME_MOST_S)] = 0.55
    """How long a pulse feeds a solenoid, as the boards are set: what the wiring is spared by."""
    gap: Annotated[float, Field(ge=0.1, le=10)] = 0.3
    """Between two pulses of one supply."""
    held: Annotated[float, Field(ge=10, le=3600)] = 120.0
    """A door open for longer is an alarm."""
    ajar: Annotated[float, Field(ge=0.5, le=10)] = 2.0
    """A hook that stays released for so long is a door that was opened, where no contact tells."""

    def rules(self, policies: Mapping[str, Policy], source: str, times: Times) -> Rules:
        """As the workflow takes them."""
        compartments = {
            name: Compartment(
                name=name,
                unit=each.unit,
                door=each.door,
                size=Size[each.size],
                supply=each.supply,
                pulse=self.pulse,
                neighbours=frozenset(each.neighbours),
            )
            for name, each in self.compartment.items()
        }
        return Rules(
            wall=Wall(compartments=compartments),
            deposit=policies["deposit"],
            retrieve=policies["retrieve"],
            technician=policies["technician"],
            timing=Timing(held=self.held, ajar=self.ajar),
            bounds=Bounds(gap=self.gap),
            source=source,
            hold=self.hold_days * DAY_S,
            idle=times.idle,
            longest=min(times.longest, VISIT_S),
            login=times.login,
        )


def meaning(locker: LockerSection, units: Sequence[UnitSpec]) -> Iterable[Mistake]:
    """What no schema can tell."""
    boards = {unit.name: unit for unit in units if unit.role is Role.DOORS}
    if not locker.compartment:
        yield Mistake("locker.compartment", "at least one compartment", "none")
    taken: dict[tuple[str, int], str] = {}
    for name, each in locker.compartment.items():
        path = f"locker.compartment.{name}"
        unit = boards.get(each.unit)
        if unit is None:
            known = ", ".join(sorted(boards)) or "(none)"
            yield Mistake(f"{path}.unit", f"one of the lock boards {known}", repr(each.unit))
        elif (doors := _doors(unit.options)) is not None and each.door > doors:
            yield Mistake(f"{path}.door", f"a door from 1 to {doors}", str(each.door))
        first = taken.setdefault((each.unit, each.door), name)
        if first != name:
            yield Mistake(f"{path}.door", "a door of its own", f"the door of {first}")
        for other in each.neighbours:
            if other not in locker.compartment or other == name:
                yield Mistake(f"{path}.neighbours", "names of other compartments", repr(other))


def _doors(options: Any) -> int | None:
    """How many doors a unit has, where its options say so."""
    boards = getattr(options, "boards", None)
    return None if boards is None else sum(board.locks for board in boards)
