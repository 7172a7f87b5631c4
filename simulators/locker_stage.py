"""The stage of the evening: a parcel locker's devices, and the config of the agent that has them.

Six compartments behind one lock board on an RS-485 bus, a scanner that couriers and recipients use, a badge
reader and a keypad.
"""

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from simulators.cu16 import Cu16Bus
from simulators.doors import Door
from simulators.line import LineScanner

LOCKER = "locker-0017"
SIZES = {"a1": "S", "a2": "S", "b1": "M", "b2": "M", "c1": "L", "c2": "L"}

CONFIG = """\
[device]
id = "locker-0017"
tenant = "demo"
state = "{{state}}"

[broker]
host = "{{host}}"
port = {{port}}
plain = true

[fleet]
seal_key = "{{seal_key}}"  # what recipients are told is sealed for the fleet

[custody]
tones = "gun"

[unit.gun]             # a Honeywell scanner: labels, control codes and the QR codes of recipients
kind = "line"
port = "{{dev}}/gun"
commands = "honeywell"

[unit.badge]
kind = "line"
role = "badge"
port = "{{dev}}/badge"

[unit.keypad]
kind = "line"
role = "keypad"
port = "{{dev}}/keypad"

[unit.wall]            # one lock board, whose sensors tell what lies in a compartment
kind = "cu16"
port = "{{dev}}/wall"
boards = [{{{{ address = 0, locks = 6, content = "1_occupied" }}}}]

[locker]
pulse = 0.35           # as the board is set: each coil has a budget of on-time
gap = 0.1

{compartments}
""".format(
    compartments="\n".join(
        f'[locker.compartment.{name}]\nunit = "wall"\ndoor = {door}\nsize = "{size}"\n'
        for door, (name, size) in enumerate(SIZES.items(), 1)
    )
)


@dataclass
class LockerDevices:
    """Everything that is wired to the locker's agent."""

    gun: LineScanner
    badge: LineScanner
    keypad: LineScanner
    wall: Cu16Bus

    def door(self, name: str) -> Door:
        return self.wall.door(0, [*SIZES].index(name) + 1)

    @property
    def open(self) -> list[str]:
        """Compartments whose doors stand open."""
        return [name for name in SIZES if not self.door(name).shut]

    @property
    def pulses(self) -> int:
        """How often a solenoid was fed."""
        return sum(self.door(name).pulses for name in SIZES)


@asynccontextmanager
async def locker_devices(folder: Path) -> AsyncIterator[LockerDevices]:
    """Plug everything in; unplug it at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    made = LockerDevices(
        gun=LineScanner(folder / "gun", speaks="honeywell"),
        badge=LineScanner(folder / "badge"),
        keypad=LineScanner(folder / "keypad"),
        wall=Cu16Bus(folder / "wall", {0: len(SIZES)}),
    )
    with contextlib.ExitStack() as plugs:
        for device in vars(made).values():
            plugs.enter_context(device)
        yield made
