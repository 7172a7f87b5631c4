"""What a device says of itself beside its entries, all of it retained: birth message, newest checkpoint, what
became of a config, and which keys it asks for.

They go before anything that waits: whoever asks the fleet how a device is need not wait for its backlog.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from agent.entry import compact
from agent.journal import Journal
from agent.mqtt import REFUSED, Connection, Will, publish_overhead

JSON, JOSE, NOTE = "application/json", "application/jose", "text/plain; charset=utf-8"

log = structlog.get_logger("uplink")


class Herald:
    """One device's, connection after connection."""

    def __init__(
        self,
        journal: Journal,
        topic: str,
        birth: Callable[[], Mapping[str, Any]],
        acknowledged: Callable[[float], None],
        config: Callable[[], Mapping[str, Any] | None],
        request: Callable[[], bytes | None] = lambda: None,
    ) -> None:
        """`acknowledged` is told after how many seconds the broker has answered. `config` is what became of
        the config that the fleet sent, if it sent one; `request` what is asked for of keys: empty to clear
        what was, None where nothing ever was."""
        self._journal = journal
        self._topic = topic
        self._birth = birth
        self._acknowledged = acknowledged
        self._config, self._request = config, request
        self._announce = True
        self._told: dict[str, bytes] = {}
        """What the broker has of either, by topic."""
        self._shown: bytes | None = None
        """The checkpoint that the broker has."""

    @property
    def will(self) -> Will:
        return Will(topic=f"{self._topic}/up/state", payload=compact({"online": False}))

    def begin(self) -> None:
        """A new connection knows nothing yet."""
        self._announce = True
        self._shown = None
        self._told.clear()

    def announce(self) -> None:
        """The birth message has changed."""
        self._announce = True

    def speak(self, connection: Connection) -> None:
        """Say what is new, where there is room."""
        if self._announce and connection.room:
            self._announce = False
            self._publish(connection, "state", self._fitting(connection), JSON)
            self._report(connection)
        note = self._journal.notary.note if self._journal.notary else None
        if note is not None and note != self._shown and connection.room:
            self._shown = note
            self._publish(connection, "checkpoint", note, NOTE)

    def _report(self, connection: Connection) -> None:
        """What became of a config, and which keys are asked for."""
        config = self._config()
        self._tell(connection, "config", None if config is None else compact(config), JSON)
        self._tell(connection, "renewal", self._request(), JOSE)

    def _tell(self, connection: Connection, what: str, payload: bytes | None, kind: str) -> None:
        """Where that is new to the broker."""
        if payload is None or payload == self._told.get(what):
            return
        if not connection.room:
            self._announce = True
            return
        self._told[what] = payload
        self._publish(connection, what, payload, kind)

    def _fitting(self, connection: Connection) -> bytes:
        """The birth message, or as much of it as one packet holds."""
        birth = self._birth()
        room = connection.packet_limit - publish_overhead(f"{self._topic}/up/state", JSON, ())
        facts = {name: value for name, value in birth.items() if not isinstance(value, Mapping)}
        payloads = (compact(birth), compact(facts))
        return next((each for each in payloads if len(each) <= room), compact({"online": True}))

    def _publish(self, connection: Connection, what: str, payload: bytes, kind: str) -> None:
        clock = asyncio.get_running_loop().time
        sent = clock()

        def answered(acked: asyncio.Future[int]) -> None:
            if acked.cancelled() or acked.exception() is not None:
                return
            if acked.result() >= REFUSED:
                log.warning("refused", what=what, code=f"{acked.result():#04x}")
            self._acknowledged(clock() - sent)

        acked = connection.publish(f"{self._topic}/up/{what}", payload, retain=True, content_type=kind)
        acked.add_done_callback(answered)
