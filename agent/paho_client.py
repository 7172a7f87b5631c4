"""What paho-mqtt has to be told beyond its interface: all that is known of its inside."""

import struct
from typing import TYPE_CHECKING

import paho.mqtt.client as paho
from paho.mqtt import MQTTException
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from agent.wire import Wire

if TYPE_CHECKING:
    from paho.mqtt.client import SocketLike

UNREADABLE = (OSError, ValueError, LookupError, TypeError, struct.error, MQTTException)
"""What paho lets through when it cannot make sense of what the broker sent."""

# Mosquitto refuses a publish over its `message_size_limit` with a PUBACK of "packet too large", a reason that
# the standard keeps for CONNACK and DISCONNECT, and paho therefore takes for a broken packet.
_TOO_LARGE = {"Packet too large": [PacketTypes.CONNACK, PacketTypes.PUBACK, PacketTypes.DISCONNECT]}
ReasonCode.names = {**ReasonCode.names, 0x95: _TOO_LARGE}


class Paho(paho.Client):
    """paho on a connection that is open already: its own way of opening one blocks."""

    wire: Wire

    def _create_socket(self) -> "SocketLike":
        return self.wire


def properties_of(packet: int) -> Properties:
    """Empty properties for one type of packet."""
    return Properties(packet)  # type: ignore[no-untyped-call]
