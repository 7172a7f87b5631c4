"""Drivers for serial devices. Adding one is a file here and a line in `KINDS`.

A driver's module is imported only when the config names its kind, so that a device pays for what it has.
"""

from importlib import import_module

from drivers.base import Driver

KINDS = {
    "line": "LineDriver",
    "ssi": "SsiDriver",
    "em4100": "Em4100Driver",
    "m100": "M100Driver",
    "nmea": "NmeaDriver",
    "gpsd": "GpsdDriver",
    "r503": "R503Driver",
    "pn532": "Pn532Driver",
    "cu16": "Cu16Driver",
    "cu48": "Cu48Driver",
    "cu12": "Cu12Driver",
    "bcc": "BccDriver",
    "wkly": "WklyDriver",
    "winnsen": "WinnsenDriver",
    "osdp": "OsdpDriver",
    "modbus_relay": "ModbusRelayDriver",
    "ferry": "FerryDriver",
}
"""Kind, which is also the module's name, to the driver class in it."""


def driver_for(kind: str) -> type[Driver]:
    """The driver class of a kind in `KINDS`."""
    driver: type[Driver] = getattr(import_module(f"drivers.{kind}"), KINDS[kind])
    return driver
