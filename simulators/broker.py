"""A small honest MQTT 5 broker: the quickstart's fleet side, and faults that a production broker cannot play.

    async with Broker() as broker:
        broker.withhold_puback = 3
        await broker.until(lambda: broker.received["postern/v1/van-7/up/entries"] == 8)

QoS 0 and 1, sessions, retained messages, wills, shared subscriptions, flow control and packet size limits
both ways. No QoS 2, topic aliases or enhanced authentication: it says so where the standard provides for it.
By hand: `python -m simulators.broker --port 1883`.
"""

import argparse
import asyncio
import signal
import ssl
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from simulators.broker_client import Client
from simulators.listener import Listener
from simulators.mqtt5 import Connect, Publish
from simulators.mqtt5_fields import NEVER, Reason
from simulators.mqtt5_session import Exchange, Session


def everything(_: Publish) -> bool:
    return True


@dataclass(kw_only=True, eq=False)
class Broker:
    """Attributes that are documented as faults or limits may be changed at any time."""

    tls: ssl.SSLContext | None = None
    authenticate: Callable[[Connect], bool] | None = None
    """Whether this client may come in; it sees user name and password. None lets everyone in."""
    tap: Callable[[Publish], None] | None = None
    """Sees every accepted publish, wills included, before it is routed and acknowledged."""

    # -- limits, told to each client as it connects -----------------------------------------------

    receive_maximum: int = 100
    """QoS 1 publishes a client may have unanswered; one more ends the connection with reason 0x93."""
    maximum_packet_size: int = 1024 * 1024
    """Longer packets end the connection with reason 0x95."""
    queue_limit: int = 10_000
    """QoS 1 messages kept for each session; one more drops the oldest. For sessions made from now on."""

    # -- faults -----------------------------------------------------------------------------------

    withhold_puback: bool | int = False
    """Accept publishes and do not acknowledge: all of them while True, or so many of the next."""
    puback_reason: int = Reason.SUCCESS
    """At 0x80 and above, publishes that `puback_reason_for` picks get it: counted, not routed."""
    puback_reason_for: Callable[[Publish], bool] = everything
    refuse_connect: int | None = None
    """Refuse every client with this reason code, e.g. 0x88, server unavailable."""
    forget_between_publish_and_puback: int = 0
    """Accept so many of the next QoS 1 publishes and reset the connection in place of the acknowledgement."""
    delay: float = 0.0
    """Seconds before anything leaves, in order. A publish counts as unanswered until its answer left."""

    # -- what happened ----------------------------------------------------------------------------

    received: Counter[str] = field(default_factory=Counter)
    """Publishes accepted from clients, by topic, duplicates included."""
    refused: Counter[str] = field(default_factory=Counter)
    """Publishes refused, by topic."""
    dropped: Counter[str] = field(default_factory=Counter)
    """Messages that a subscriber never got, by reason: `queue_full`, `too_large`."""
    broken: Counter[Reason] = field(default_factory=Counter)
    """Connections ended for breaking the protocol, by reason."""
    connections: dict[str, Client] = field(default_factory=dict)
    """Connected clients, by client identifier."""
    host: str = "127.0.0.1"
    port: int = 0

    def __post_init__(self) -> None:
        self.exchange = Exchange()
        self.clients: set[Client] = set()
        self._timers: dict[Session, list[asyncio.TimerHandle]] = {}
        self._wills: dict[Session, Publish] = {}
        self._claims: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._listener: Listener | None = None
        self.stopping = False

    # -- life -------------------------------------------------------------------------------------

    async def start(self, host: str = "", port: int = 0) -> None:
        """Listen, where not told otherwise as the last time; the first time on a port from the kernel.

        A client that keeps calling a stopped broker on such a port sooner or later connects to itself:
        give a port below the ephemeral ones where that matters.
        """
        self.stopping = False
        self.host = host or self.host
        self._listener = Listener(lambda: Client(self).link, self.tls)
        self.port = self._listener.open(self.host, port or self.port)
        for session in list(self.sessions.values()):
            self._wait_out(session, 0)

    async def stop(self) -> None:
        """Send everyone away and stop listening. Sessions and retained messages wait for the next `start`.

        No will is published: nobody is there to hear it.
        """
        if self._listener is None:
            return
        self.stopping = True
        await self._listener.close()
        self._listener = None
        leaving = list(self.clients)
        for client in leaving:
            client.leave(Reason.SERVER_SHUTTING_DOWN, with_will=False)
        await asyncio.gather(*(client.link.closed for client in leaving))
        self._wills.clear()
        for session in list(self._timers):
            self._cancel_timers(session)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # -- hands ------------------------------------------------------------------------------------

    @property
    def sessions(self) -> dict[str, Session]:
        """By client identifier, connected or not."""
        return self.exchange.sessions

    @property
    def retained(self) -> dict[str, Publish]:
        """By topic; may be cleared or changed."""
        return self.exchange.retained

    def publish(self, message: Publish, publisher: str = "") -> bool:
        """Route a message as if a client had published it; whether anybody subscribes."""
        return self.exchange.publish(message, publisher)

    def drop_all(self) -> None:
        """Reset every connection, as when the path to the broker dies. Wills are published."""
        for client in list(self.clients):
            client.link.reset()

    def forget_sessions(self) -> None:
        """Amnesia: the broker came back without its sessions. Clients are reset, without their wills."""
        for client in list(self.clients):
            client.detach(with_will=False)
            client.link.reset()
        self._wills.clear()
        for session in list(self.sessions.values()):
            self._end(session)

    def release_pubacks(self) -> None:
        """Send the acknowledgements that were withheld from connections still there."""
        for client in self.connections.values():
            client.release_pubacks()

    async def until(self, claim: Callable[[], bool]) -> None:
        """Wait until `claim()` holds; it is asked again after every packet and every lost connection."""
        if claim():
            return
        future = asyncio.get_running_loop().create_future()
        waiting = (claim, future)
        self._claims.append(waiting)
        try:
            await future
        finally:
            self._claims.remove(waiting)

    # -- for its clients --------------------------------------------------------------------------

    def look(self) -> None:
        """Something happened: wake whoever waited for it."""
        for claim, future in self._claims:
            if not future.done() and claim():
                future.set_result(None)

    def accept(self, message: Publish, publisher: str) -> int:
        """Judge, count, show and route a client's publish; the reason code of its acknowledgement."""
        if self.puback_reason >= Reason.UNSPECIFIED and self.puback_reason_for(message):
            self.refused[message.topic] += 1
            return self.puback_reason
        return Reason.SUCCESS if self._admit(message, publisher) else Reason.NO_MATCHING_SUBSCRIBERS

    def loses_puback(self) -> bool:
        """Whether the connection breaks in place of this acknowledgement; counts it off."""
        if not self.forget_between_publish_and_puback:
            return False
        self.forget_between_publish_and_puback -= 1
        return True

    def withholds_puback(self) -> bool:
        """Whether this acknowledgement is withheld; counts it off."""
        if self.withhold_puback is True or not self.withhold_puback:
            return bool(self.withhold_puback)
        self.withhold_puback -= 1
        return True

    def enter(self, client: Client, connect: Connect) -> tuple[Session, bool]:
        """The session this client continues or begins, and whether it was there before."""
        if (other := self.connections.get(connect.client_id)) is not None:
            other.leave(Reason.SESSION_TAKEN_OVER)
        session = self.sessions.get(connect.client_id)
        if session is not None and connect.clean_start:
            self._end(session)
            session = None
        present = session is not None
        if session is None:
            session = self.exchange.open(connect.client_id, self.queue_limit, self.dropped)
        # "If [...] the Client [...] continues the Session before the Will Delay Interval has passed, the
        # Server MUST NOT send that Will Message" [MQTT-3.1.3-9]
        self._wills.pop(session, None)
        self._cancel_timers(session)
        self.connections[connect.client_id] = client
        return session, present

    def left(self, session: Session, will: Publish | None, will_delay: int) -> None:
        """No connection serves this session any more; `will` is None where it is not to be published."""
        session.disconnected()
        del self.connections[session.client_id]
        if will is not None:
            self._wills[session] = will
        self._wait_out(session, will_delay)

    # -- time -------------------------------------------------------------------------------------

    def _wait_out(self, session: Session, will_delay: int) -> None:
        """The will goes out 'when the Will Delay Interval has passed or the Session ends', the earlier."""
        if not session.expiry:
            self._end(session)
            return
        later = asyncio.get_running_loop().call_later
        timers = self._timers[session] = []
        if will_delay:
            timers.append(later(will_delay, self._publish_will, session))
        else:
            self._publish_will(session)
        if session.expiry != NEVER:
            timers.append(later(session.expiry, self._end, session))

    def _publish_will(self, session: Session) -> None:
        will = self._wills.pop(session, None)
        if will is not None:
            self._admit(will, session.client_id)
            self.look()

    def _end(self, session: Session) -> None:
        self._cancel_timers(session)
        self._publish_will(session)
        self.exchange.end(session)
        self.look()

    def _cancel_timers(self, session: Session) -> None:
        for timer in self._timers.pop(session, []):
            timer.cancel()

    def _admit(self, message: Publish, publisher: str) -> bool:
        self.received[message.topic] += 1
        if self.tap is not None:
            self.tap(message)
        return self.exchange.publish(message, publisher)


async def serve(host: str, port: int) -> None:
    """Run until SIGINT or SIGTERM."""
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    async with Broker(host=host, port=port) as broker:
        sys.stdout.write(f"listening on {broker.host}:{broker.port}\n")
        sys.stdout.flush()
        await stopped.wait()


def main() -> None:
    parser = argparse.ArgumentParser(prog="simulators.broker", description="A small MQTT 5 broker.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=1883, help="0 takes one from the kernel")
    arguments = parser.parse_args()
    asyncio.run(serve(arguments.host, arguments.port))


if __name__ == "__main__":
    main()
