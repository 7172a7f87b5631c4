"""Messages that go up once beside the entries, to whoever asked: kept in memory until the broker has them."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import structlog

from agent.mqtt import REFUSED, Connection
from agent.mqtt_words import ConnectionLost

MOST = 4
"""That wait at one time; the oldest goes first, and whoever asked for it asks again."""

log = structlog.get_logger("uplink")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dispatch:
    """One message."""

    name: str
    """Its topic below `up/`."""
    payload: bytes
    content_type: str
    properties: tuple[tuple[str, str], ...] = ()


class Dispatches:
    """One device's, connection after connection."""

    def __init__(self, topic: str, wake: Callable[[], None]) -> None:
        """`topic` is `postern/v1/<device>`; `wake` is called when there is something to send."""
        self._topic = topic
        self._wake = wake
        self._waiting: deque[Dispatch] = deque(maxlen=MOST)
        self._flying = False

    def begin(self) -> None:
        """A new connection: what was on its way on the last one goes again."""
        self._flying = False

    def post(self, dispatch: Dispatch) -> None:
        self._waiting.append(dispatch)
        self._wake()

    def speak(self, connection: Connection) -> None:
        """The next one, where there is room."""
        if self._flying or not self._waiting or not connection.room:
            return
        self._flying, first = True, self._waiting[0]
        topic, pairs = f"{self._topic}/up/{first.name}", list(first.properties)
        acked = connection.publish(topic, first.payload, content_type=first.content_type, properties=pairs)
        acked.add_done_callback(partial(self._on_ack, first))

    def _on_ack(self, sent: Dispatch, acked: asyncio.Future[int]) -> None:
        if acked.cancelled() or isinstance(acked.exception(), ConnectionLost):
            return
        if acked.result() >= REFUSED:
            log.warning("refused", what=sent.name, code=f"{acked.result():#04x}")
        self._flying = False
        if self._waiting and self._waiting[0] is sent:
            self._waiting.popleft()
        self._wake()
