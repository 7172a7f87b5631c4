"""What is built into the devices of the fleet, and the configs that go with it.

`HARDWARE` is what is plugged into which port, whatever a config says: a config that was made for other
hardware finds nobody, or somebody else, at its ports, and its trial fails.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

HARDWARE: Mapping[str, Mapping[str, str]] = {
    "van": {"/sim/gun": "line", "/sim/badge": "em4100", "/sim/gps": "nmea"},
    "ring": {"/sim/gun": "ssi", "/sim/badge": "em4100", "/sim/gps": "nmea"},
    "dock": {"/sim/gate": "m100", "/sim/badge": "em4100"},
    "locker": {"/sim/gun": "line", "/sim/wall": "cu16"},
}
"""By hardware, the kind of device at each port: a van's scanner, one worn on a finger, an RFID gate at a
depot's dock, a wall of compartments."""
MIX = ("van", "ring", "dock", "locker", "van", "van", "ring", "van", "dock", "van")
"""The first ten devices, and again from the start."""
DOORS = 8

_COMMON = """\
[broker]
{broker}

[journal]
size_mib = 64
"""
_COURIER = "\n[custody]\nattended = false\n"
_UNIT = '\n[unit.{name}]\nkind = "{kind}"\nport = "{port}"\n'
_BOARDS = f"boards = [{{ address = 0, locks = {DOORS} }}]\n"
_LOCKER = "\n[locker]\n" + "".join(
    f'\n[locker.compartment.a{door}]\nunit = "wall"\ndoor = {door}\n' for door in range(1, DOORS + 1)
)


@dataclass(frozen=True, slots=True)
class Device:
    """One device of the fleet."""

    name: str
    hardware: str
    state: Path

    @property
    def config(self) -> Path:
        return self.state / "postern.toml"


def devices(count: int, kinds: Sequence[str], folder: Path) -> list[Device]:
    """So many, of these kinds of hardware in turn."""
    made = []
    for number in range(1, count + 1):
        hardware = kinds[(number - 1) % len(kinds)]
        name = f"{hardware}-{number:04}"
        made.append(Device(name, hardware, folder / name))
    return made


def whole(device: Device, tenant: str, broker: str, receipt_key: str) -> str:
    """The config file of a device. `broker` are the lines of that table."""
    who = f'[device]\nid = "{device.name}"\ntenant = "{tenant}"\nstate = "{device.state}"\n\n'
    return who + shared(device.hardware, broker, receipt_key)


def shared(hardware: str, broker: str, receipt_key: str) -> str:
    """What all devices of one hardware have in common: a config as the fleet would push it."""
    fleet = f'\n[fleet]\nkeys = ["{receipt_key}"]\n'
    units = "".join(
        _UNIT.format(name=Path(port).name, kind=kind, port=port) + (_BOARDS if kind == "cu16" else "")
        for port, kind in HARDWARE[hardware].items()
    )
    rest = _LOCKER if hardware == "locker" else _COURIER
    return _COMMON.format(broker=broker) + fleet + rest + units
