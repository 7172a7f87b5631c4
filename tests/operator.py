"""The far side of a device, as tests play it: publishes what the fleet signs, and answers what time it is.

async with operating(site.broker.port, Authority(), "locker-17") as operator:
    await operator.tell("head", fleet.head(1, {}), retain=True)
"""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from agent.envelope import Kind
from agent.jws import Signer
from agent.mqtt import Connection
from tests.authority import Authority
from tests.brokers import News, connected, running


class Operator:
    """Hears the birth of one device and speaks to it."""

    def __init__(self, connection: Connection, fleet: Authority, device: str) -> None:
        self.fleet = fleet
        self.births: list[dict[str, Any]] = []
        self.news = News()
        self.knows_time = True
        """Answers what time it is."""
        self._connection = connection
        self._down = f"postern/v1/{device}/down/"
        self._aud = f"acme/{device}"

    async def tell(self, name: str, raw: bytes, *, retain: bool = False) -> None:
        """Publish, and wait until the broker has it."""
        code = await self._connection.publish(self._down + name, raw, retain=retain)
        assert code < 128, hex(code)

    async def flood(self, name: str, envelopes: Sequence[bytes]) -> None:
        """Publish all of it as fast as the broker takes it."""
        for start in range(0, len(envelopes), 20):
            some = envelopes[start : start + 20]
            await asyncio.gather(*(self.tell(name, raw) for raw in some))

    def command(self, name: str, seq: int, by: Sequence[Signer] | None = None, **changes: Any) -> bytes:
        """A right one of now, but for the changes."""
        claims = {key: changes.pop(key) for key in ("iat", "aud", "exp_in", "jti") if key in changes}
        body = {"class": "C", "name": name, "args": {}, "operator": "op-1", "reason": "a test", **changes}
        given = {"aud": self._aud, "iat": int(time.time()), "exp_in": 120, **claims}
        return self.fleet.made(Kind.COMMAND, body, seq, by, **given)

    async def hear(self) -> None:
        """For ever."""
        while True:
            message = await self._connection.receive()
            birth = json.loads(message.payload)
            if birth.get("online"):
                self.births.append(birth)
            self.news.look()
            self._connection.acknowledge(message)
            if self.knows_time and "time_nonce" in birth and not message.retained:
                await self.say_time(birth["time_nonce"], time.time_ns() // 1_000_000)

    async def say_time(self, nonce: str, utc_ms: int) -> None:
        now = int(time.time())
        body = {"nonce": nonce, "utc": utc_ms}
        await self.tell("time", self.fleet.made(Kind.TIME, body, 1, aud=self._aud, iat=now, exp_in=60))


@contextlib.asynccontextmanager
async def operating(port: int, fleet: Authority, device: str) -> AsyncIterator[Operator]:
    async with connected(port, "operator") as connection:
        operator = Operator(connection, fleet, device)
        await connection.subscribe(f"postern/v1/{device}/up/state")
        async with running(operator.hear()):
            yield operator
