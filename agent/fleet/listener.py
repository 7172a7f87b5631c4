"""Hears what devices say, for somebody who looks at it: reads only, and keeps no place at the broker."""

import asyncio
import time
from collections.abc import Callable, Sequence

from agent.fleet.sight import Change, Watch
from agent.mqtt import Connection, ConnectionLost, Message, Server
from agent.reconnect import Backoff, forever

QUIET_S, LOOK_S = 1.0, 30.0
"""When another node has brought all that it retained, and the longest that may take."""


class Listener:
    """Fills a Watch, from one connection after another."""

    def __init__(self, server: Server, device: str, watch: Watch) -> None:
        """`device` is one device's id, or `+`."""
        self.problem: str | None = "connecting"
        """Why nothing is heard now."""
        self.told: Callable[[Sequence[Change]], object] = lambda _: None
        """Hears of every change, and of none when the connection comes or goes."""
        self._server, self._watch = server, watch
        self._nodes = server.in_turn()
        self._filters = (f"postern/v1/{device}/up/#", f"postern/v1/{device}/down/head")

    async def run(self) -> None:
        """For ever."""
        await forever(self._session, Backoff(self._server.client_id), lambda _failed, _wait: None)

    async def once(self, quiet: float, within: float) -> None:
        """Until nothing retained has come for so long (seconds), or so long in all. Raises ConnectionLost.

        No broker says when it has brought all that was retained. What devices say meanwhile is taken as well,
        and makes nobody wait: a fleet at work is never quiet. Each of its nodes is asked.
        """
        wrong = [await self._look(node, quiet, within) for node in self._server.nodes()]
        lost = [why for why in wrong if why is not None]
        if len(lost) == len(wrong):
            raise lost[0]

    async def _look(self, node: Server, quiet: float, within: float) -> ConnectionLost | None:
        """Take what a node has retained; why it could not be asked."""
        connection = Connection(node)
        try:
            await connection.connect()
            await connection.subscribe(*self._filters)
            async with asyncio.timeout(within), asyncio.timeout(quiet) as calm:
                while True:
                    message = await connection.receive()
                    if message.retained:
                        calm.reschedule(asyncio.get_running_loop().time() + quiet)
                    self._take(connection, message)
        except TimeoutError:
            return None
        except ConnectionLost as lost:
            return lost
        finally:
            await connection.close()

    async def _session(self) -> None:
        server = next(self._nodes)
        for other in self._server.nodes():
            if other != server:
                # What it retains, none of the others may bring.
                await self._look(other, QUIET_S, LOOK_S)
        connection = Connection(server)
        try:
            await connection.connect()
            await connection.subscribe(*self._filters)
            self._stands(None)
            while True:
                self._take(connection, await connection.receive())
        except ConnectionLost as lost:
            self._stands(str(lost))
            raise
        finally:
            await connection.close()

    def _stands(self, problem: str | None) -> None:
        self.problem = problem
        self.told(())

    def _take(self, connection: Connection, message: Message) -> None:
        encoding = message.properties.get("content-encoding")
        changes = self._watch.take(message.topic, message.payload, encoding, time.time())
        connection.acknowledge(message)
        if changes:
            self.told(changes)
