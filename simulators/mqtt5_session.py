"""What a broker keeps, connections or not, without I/O: sessions, subscriptions, retained messages.

A `Session` decides what its client gets next and under which packet identifier; an `Exchange` decides whose
session a message goes into. The client's connection takes messages out with `next` whenever it can send.
"""

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import replace

from simulators.mqtt5 import Publish, Subscription
from simulators.mqtt5_fields import Properties, Property
from simulators.mqtt5_topics import NOBODY, Tree, split_share

PACKET_IDS = 0xFFFF


class Session:
    """One client's subscriptions and the messages it has not acknowledged. Outlives its connections."""

    def __init__(self, client_id: str, queue_limit: int, dropped: Counter[str]) -> None:
        self.client_id = client_id
        self.subscriptions: dict[str, Subscription] = {}
        self.expiry = 0
        """Seconds this session outlives its connection; NEVER for ever."""
        self.wake: Callable[[], None] | None = None
        """Called when there may be something to send; None while no connection serves this session."""
        self._window = 0
        self._queue_limit = queue_limit
        self._dropped = dropped
        self._unacknowledged: dict[int, Publish] = {}
        self._again: deque[int] = deque()
        self._queue: deque[Publish] = deque()
        self._at_once: deque[Publish] = deque()
        self._last_id = 0

    @property
    def online(self) -> bool:
        return self.wake is not None

    @property
    def waiting(self) -> int:
        """QoS 1 messages the client has not acknowledged, sent or not."""
        return len(self._unacknowledged) + len(self._queue)

    def connected(self, wake: Callable[[], None], receive_maximum: int) -> None:
        """A connection serves this session from now on; what was sent and not acknowledged goes again."""
        self.wake = wake
        self._window = receive_maximum
        self._again = deque(self._unacknowledged)

    def disconnected(self) -> None:
        self.wake = None
        self._at_once.clear()

    def offer(self, message: Publish) -> None:
        """Queue for the client. QoS 0 is for those present; a full queue loses its oldest, counted."""
        if not message.qos and not self.online:
            return
        queue = self._queue if message.qos else self._at_once
        if len(queue) >= self._queue_limit:
            queue.popleft()
            self._dropped["queue_full"] += 1
        queue.append(message)
        if self.wake is not None:
            self.wake()

    def next(self) -> Publish | None:
        """The next message to send: QoS 0, then again what was lost, then new ones inside the window."""
        if self._at_once:
            return self._at_once.popleft()
        if len(self._unacknowledged) - len(self._again) >= self._window:
            return None
        # "the Client and Server MUST resend any unacknowledged PUBLISH packets (where QoS > 0) [...] using
        # their original Packet Identifiers" [MQTT-4.4.0-1]
        if self._again:
            return replace(self._unacknowledged[self._again.popleft()], dup=True)
        if not self._queue:
            return None
        packet_id = self._free_id()
        message = replace(self._queue.popleft(), packet_id=packet_id)
        self._unacknowledged[packet_id] = message
        return message

    def acknowledged(self, packet_id: int) -> bool:
        """The client has it, or refuses it for good; whether it was owed."""
        if self._unacknowledged.pop(packet_id, None) is None:
            return False
        if packet_id in self._again:
            self._again.remove(packet_id)
        return True

    def _free_id(self) -> int:
        while True:
            self._last_id = self._last_id % PACKET_IDS + 1
            if self._last_id not in self._unacknowledged:
                return self._last_id


class Exchange:
    """Sessions by client, retained messages by topic, and the tree of who subscribes to what."""

    def __init__(self) -> None:
        self.sessions: dict[str, Session] = {}
        self.retained: dict[str, Publish] = {}
        self._tree: Tree[Session, Subscription] = Tree()

    def open(self, client_id: str, queue_limit: int, dropped: Counter[str]) -> Session:
        """Begin a session. What its queue cannot hold is counted in `dropped`."""
        session = self.sessions[client_id] = Session(client_id, queue_limit, dropped)
        return session

    def end(self, session: Session) -> None:
        """Forget a session and its subscriptions."""
        for name in session.subscriptions:
            self._tree.remove(name, session)
        session.subscriptions.clear()
        del self.sessions[session.client_id]

    def subscribe(self, session: Session, subscription: Subscription) -> None:
        """Add or replace a subscription, and offer the retained messages it asks for."""
        new = self._tree.add(subscription.filter, session, subscription)
        session.subscriptions[subscription.filter] = subscription
        group, filter_ = split_share(subscription.filter)
        # Retain Handling 0: always; 1: "only if the subscription does not currently exist"; 2: never.
        wanted = subscription.retain_handling == 0 or (subscription.retain_handling == 1 and new)
        if not wanted or group is not NOBODY:
            return
        filters: Tree[None, None] = Tree()
        filters.add(filter_, None, None)
        for topic, message in self.retained.items():
            if filters.covers(topic):
                session.offer(_shaped(message, [subscription], retain=True))

    def unsubscribe(self, session: Session, name: str) -> bool:
        """Whether there was such a subscription."""
        session.subscriptions.pop(name, None)
        return self._tree.remove(name, session)

    def publish(self, message: Publish, publisher: str) -> bool:
        """Retain if asked, and offer to every subscriber once; whether there was any."""
        if message.retain:
            self._retain(message)
        chosen = self._chosen(message.topic, publisher)
        for session, subscriptions in chosen.items():
            as_published = any(subscription.retain_as_published for subscription in subscriptions)
            session.offer(_shaped(message, subscriptions, retain=message.retain and as_published))
        return bool(chosen)

    def _retain(self, message: Publish) -> None:
        # "If the Payload contains zero bytes [...] any retained message with the same topic name MUST be
        # removed" [MQTT-3.3.1-6]
        if message.payload:
            self.retained[message.topic] = message
        else:
            self.retained.pop(message.topic, None)

    def _chosen(self, topic: str, publisher: str) -> dict[Session, list[Subscription]]:
        chosen: dict[Session, list[Subscription]] = {}
        for groups in self._tree.matching(topic):
            for group, members in groups.items():
                takers = members.items() if group is NOBODY else [_turn(members)]
                for session, subscription in takers:
                    if not (subscription.no_local and session.client_id == publisher):
                        chosen.setdefault(session, []).append(subscription)
        return chosen


def _turn(members: dict[Session, Subscription]) -> tuple[Session, Subscription]:
    """Round robin over a share group, those present first: who is served goes to the end of the line."""
    session = next((session for session in members if session.online), next(iter(members)))
    subscription = members.pop(session)
    members[session] = subscription
    return session, subscription


def _shaped(message: Publish, subscriptions: list[Subscription], *, retain: bool) -> Publish:
    """The message as one subscriber gets it: 'the maximum QoS of all the matching subscriptions' (3.3.4)."""
    identifiers: Properties = tuple(
        (Property.SUBSCRIPTION_IDENTIFIER, subscription.identifier)
        for subscription in subscriptions
        if subscription.identifier
    )
    qos = min(message.qos, max(subscription.qos for subscription in subscriptions))
    return Publish(
        topic=message.topic,
        payload=message.payload,
        qos=qos,
        retain=retain,
        properties=message.properties + identifiers,
    )
