"""What a device says of itself beside its entries: birth message and newest checkpoint, both retained.

They go before anything that waits: whoever asks the fleet how a device is need not wait for its backlog.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from agent.entry import compact
from agent.journal import Journal
from agent.mqtt import REFUSED, Connection, Will, publish_overhead

JSON, NOTE = "application/json", "text/plain; charset=utf-8"

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
    ) -> None:
        """`acknowledged` is told after how many seconds the broker has answered. `config` is what became of
        the config that the fleet sent, if it sent one."""
        self._journal = journal
        self._topic = topic
        self._birth = birth
        self._acknowledged = acknowledged
        self._config = config
        self._announce = True
        self._reported: bytes | None = None
        """What the broker has of the config."""
        self._shown: bytes | None = None
        """The checkpoint that the broker has."""

    @property
    def will(self) -> Will:
        return Will(topic=f"{self._topic}/up/state", payload=compact({"online": False}))

    def begin(self) -> None:
        """A new connection knows nothing yet."""
        self._announce, self._shown, self._reported = True, None, None

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
        """What became of a config, where that is new to the broker."""
        config = self._config()
        payload = None if config is None else compact(config)
        if payload is None or payload == self._reported:
            return
        if not connection.room:
            self._announce = True
            return
        self._reported = payload
        self._publish(connection, "config", payload, JSON)

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
