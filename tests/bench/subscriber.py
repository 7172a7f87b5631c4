"""A subscription that takes what a broker has kept for it: paho on the event loop, and no more.

What the collector is measured against.
"""

import asyncio
import socket
import time
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties


class Subscriber:
    """One session that the broker keeps under `name`."""

    def __init__(self, port: int, name: str) -> None:
        self._port = port
        self._client = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=name, protocol=MQTTProtocolVersion.MQTTv5
        )
        self._left = 0
        self._done = asyncio.Event()
        self._client.on_message = self._took

    async def hear(self, messages: int) -> float:
        """Seconds from the connection to the last of so many messages."""
        self._left = messages
        loop = asyncio.get_running_loop()
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 3600
        began = time.perf_counter()
        self._client.connect("127.0.0.1", self._port, clean_start=False, properties=properties)
        held: Any = self._client.socket()
        held.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        held.setblocking(False)
        loop.add_reader(held.fileno(), self._read)
        try:
            await self._done.wait()
        finally:
            loop.remove_reader(held.fileno())
            self._client.disconnect()
        return time.perf_counter() - began

    def _read(self) -> None:
        self._client.loop_read()
        while self._client.want_write():
            self._client.loop_write()

    def _took(self, *_: object) -> None:
        self._left -= 1
        if not self._left:
            self._done.set()
