"""The bare loop that the agent is measured against: the least that could be called the same work.

It reads a tty, commits each line with SQLite (WAL, FULL) in a thread, and publishes it at QoS 1 with paho.
No batches in flight, no cursor, no sequence, no devices that go and come, nothing sent again.

    python -m tests.bench.bare TTY PORT DATABASE TOPIC
"""

import asyncio
import json
import os
import sqlite3
import sys
import time
import tty

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion


class Bare:
    """Lines in, messages out."""

    def __init__(self, path: str, port: int, database: str, topic: str) -> None:
        self.loop = asyncio.get_running_loop()
        self.topic = topic
        self.arrived: asyncio.Queue[bytes] = asyncio.Queue()
        self.store = sqlite3.connect(database, isolation_level=None, check_same_thread=False)
        self.store.execute("PRAGMA journal_mode=WAL")
        self.store.execute("PRAGMA synchronous=FULL")
        self.store.execute("CREATE TABLE entry (sequence INTEGER PRIMARY KEY, line BLOB NOT NULL)")
        self.client = paho.Client(CallbackAPIVersion.VERSION2)
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        self.tty = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
        tty.setraw(self.tty)
        self.loop.add_reader(self.tty, lambda: self.arrived.put_nowait(os.read(self.tty, 4096)))

    async def run(self) -> None:
        held = b""
        while True:
            *lines, held = (held + await self.arrived.get()).split(b"\r")
            entries = [json.dumps({"time": time.time(), "label": line.decode()}).encode() for line in lines]
            if entries:
                await self.loop.run_in_executor(None, self.commit, entries)
            for entry in entries:
                self.client.publish(self.topic, entry, qos=1)

    def commit(self, entries: list[bytes]) -> None:
        self.store.execute("BEGIN IMMEDIATE")
        self.store.executemany("INSERT INTO entry (line) VALUES (?)", [(entry,) for entry in entries])
        self.store.execute("COMMIT")


async def main(path: str, port: str, database: str, topic: str) -> None:
    await Bare(path, int(port), database, topic).run()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
