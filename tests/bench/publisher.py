"""Publishes at QoS 1, a window at a time, with paho on the event loop and nothing else.

What the agent's drain is measured against. From a pickled list it sends ready-made payloads; from a journal
it reads BATCH lines at a time and compresses them, as the agent does. Neither keeps a cursor, or could
send anything again.

    python -m tests.bench.publisher PORT TOPIC WINDOW FILE [BATCH]
"""

import asyncio
import gzip
import pickle
import socket
import sqlite3
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion


class Publisher:
    """One connection."""

    def __init__(self, port: int, window: int) -> None:
        self.loop = asyncio.get_running_loop()
        self.window = window
        self.room = asyncio.Semaphore(window)
        self.up = asyncio.Event()
        self.client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
        self.client.max_inflight_messages_set(0)
        self.client.on_connect = lambda *_: self.up.set()
        self.client.on_publish = lambda *_: self.room.release()
        self.client.connect("127.0.0.1", port)
        held: Any = self.client.socket()
        held.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        held.setblocking(False)
        self.fd = held.fileno()
        self.loop.add_reader(self.fd, self._read)

    async def publish(self, topic: str, payloads: Iterable[bytes]) -> None:
        """Until the last one is acknowledged."""
        await self.up.wait()
        for payload in payloads:
            await self.room.acquire()
            self.client.publish(topic, payload, qos=1)
            self._flush()
        for _ in range(self.window):
            await self.room.acquire()

    def _read(self) -> None:
        if self.client.loop_read() != paho.MQTT_ERR_SUCCESS:
            sys.exit("the connection was lost")
        self._flush()

    def _flush(self) -> None:
        if self.client.want_write():
            self.client.loop_write()
        if self.client.want_write():
            self.loop.add_writer(self.fd, self._flush)
        else:
            self.loop.remove_writer(self.fd)


def packed(file: str, batch: int) -> Iterator[bytes]:
    """Lines of a journal, so many at a time, compressed at level 1."""
    with closing(sqlite3.connect(file)) as store:
        cursor = store.execute("SELECT line FROM entry ORDER BY sequence")
        while rows := cursor.fetchmany(batch):
            yield gzip.compress(b"\n".join(line for (line,) in rows), 1, mtime=0)


async def main(port: str, topic: str, window: str, file: str, batch: str = "") -> None:
    payloads = packed(file, int(batch)) if batch else pickle.loads(Path(file).read_bytes())
    await Publisher(int(port), int(window)).publish(topic, payloads)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
