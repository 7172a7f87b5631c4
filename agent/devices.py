"""`postern devices`: the ports of this machine, and what answers on them.

Only kinds that answer a question or talk by themselves can be found out; a plain line scanner is silent
until somebody scans. A port that another program holds is left alone.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass

from serial.tools import list_ports

from agent.units import UnitSpec
from drivers import KINDS, driver_for
from drivers.base import ActionRefused, NoReply
from drivers.port import Address, PortGone, open_port
from drivers.readings import Reading

PROBE_S = 3.0
"""Longest that one kind is given to answer on a port that the config does not name."""
UNIT_S = 10.0
"""Longest that a unit of the config is given: a bus of many lock boards takes its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One port and what is known of it."""

    port: str
    hardware: str = ""
    unit: str = ""
    """Name in the config, where it has one."""
    kind: str = ""
    about: Mapping[str, str] | None = None
    """What the device told; None when nothing answered."""
    problem: str = ""


async def survey(units: Iterable[UnitSpec]) -> AsyncIterator[Found]:
    """Configured units first, then every other port of this machine."""
    seen = set()
    for unit in units:
        seen.add(unit.address.find() or unit.address.text)
        yield await _configured(unit)
    for port in sorted(list_ports.comports(), key=lambda port: str(port.device)):
        if port.device not in seen:
            hardware = (
                port.hwid if port.vid is None else f"{port.description} usb:{port.vid:04x}:{port.pid:04x}"
            )
            yield await _unknown(str(port.device), str(hardware))


async def _configured(unit: UnitSpec) -> Found:
    where = unit.address.find() or unit.address.text
    try:
        about = await _ask(unit.kind, unit.address, unit.baud, unit)
    except (PortGone, NoReply, ActionRefused, TimeoutError) as error:
        return Found(port=where, unit=unit.name, kind=unit.kind, problem=str(error) or "no answer")
    return Found(port=where, unit=unit.name, kind=unit.kind, about=about)


async def _unknown(path: str, hardware: str) -> Found:
    for kind in KINDS:
        driver = driver_for(kind)
        if not driver.ANSWERS:
            continue
        try:
            about = await _ask(kind, Address.parse(path), driver.BAUD, None)
        except PortGone as gone:
            return Found(port=path, hardware=hardware, problem=str(gone))
        except (NoReply, ActionRefused, TimeoutError):
            continue
        return Found(port=path, hardware=hardware, kind=kind, about=about)
    return Found(port=path, hardware=hardware, problem="nothing answered")


async def _ask(kind: str, address: Address, baud: int, unit: UnitSpec | None) -> Mapping[str, str]:
    driver = driver_for(kind)
    port = await open_port(address, baud=baud)
    with contextlib.closing(port):
        options = unit.options if unit else driver.OptionsType()
        async with asyncio.timeout(UNIT_S if unit else PROBE_S):
            return await driver(port, _ignore, options).identify()


async def _ignore(_: Reading) -> None:
    """A survey accepts nothing."""
