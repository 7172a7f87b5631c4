"""The broker's side of the dialogue with one client: what each packet does and how it is answered."""

from dataclasses import replace
from typing import TYPE_CHECKING
from uuid import uuid4

from simulators import mqtt5
from simulators.mqtt5 import Connect, Disconnect, Packet, Publish, Subscribe, Unsubscribe
from simulators.mqtt5_fields import BadPacket, Properties, Property, Reason, number, protocol_error
from simulators.mqtt5_link import Link
from simulators.mqtt5_session import Session

if TYPE_CHECKING:
    from simulators.broker import Broker

CONNECT_PATIENCE = 10.0
"""Without a CONNECT 'within a reasonable amount of time', the server 'SHOULD close' the connection (3.1)."""


class Client:
    """Serves a session from CONNECT until it is detached, which happens once, whatever ends it."""

    def __init__(self, broker: "Broker") -> None:
        self.link = Link(self, broker.maximum_packet_size, lambda: broker.delay)
        self.session: Session | None = None
        self.unanswered = 0
        """QoS 1 publishes whose acknowledgement has not left."""
        self._broker = broker
        self._receive_maximum = broker.receive_maximum
        self._maximum_packet_size = broker.maximum_packet_size
        self._packet_limit = 0
        self._will: Publish | None = None
        self._will_delay = 0
        self._withheld: list[bytes] = []

    def leave(self, reason: Reason, text: str = "", *, with_will: bool = True) -> None:
        """Say DISCONNECT and go."""
        connected = self.session is not None
        self.detach(with_will=with_will)
        last_words = mqtt5.encode_disconnect(reason, text)
        if len(last_words) > self._packet_limit:
            last_words = mqtt5.encode_disconnect(reason)
        self.link.close(last_words if connected else b"")

    def detach(self, *, with_will: bool) -> None:
        """Give the session back; the connection is of no more use."""
        session, self.session = self.session, None
        if session is not None:
            self._broker.left(session, self._will if with_will else None, self._will_delay)

    def release_pubacks(self) -> None:
        """Send what was withheld."""
        withheld, self._withheld = self._withheld, []
        for puback in withheld:
            self._answer(puback)

    # -- from the link ----------------------------------------------------------------------------

    def made(self) -> None:
        self._broker.clients.add(self)
        if self._broker.stopping:  # accepted by the kernel before the broker stopped listening
            self.link.abort()
            return
        self.link.expect_within(CONNECT_PATIENCE)

    def packet(self, packet: Packet) -> None:
        if self.session is None:
            self._greet(packet)
        else:
            self._serve(self.session, packet)
        self._broker.look()

    def broken(self, error: BadPacket) -> None:
        self._broker.broken[error.reason] += 1
        if self.session is not None:
            self.leave(error.reason, str(error))
        elif self.link.stream.greeted and error.reason is not Reason.KEEP_ALIVE_TIMEOUT:
            self.link.close(mqtt5.encode_connack(error.reason))
        else:
            # Whatever this is, it is no MQTT: it gets no answer to learn from.
            self.link.abort()
        self._broker.look()

    def writable(self) -> None:
        session = self.session
        if session is None:
            return
        while not self.link.full and (message := session.next()) is not None:
            data = mqtt5.encode_publish(message)
            if len(data) <= self._packet_limit:
                self.link.send(data)
                continue
            # "Where a Packet is too large to send, the Server MUST discard it without sending it and then
            # behave as if it had completed sending that Application Message" [MQTT-3.1.2-25]
            self._broker.dropped["too_large"] += 1
            session.acknowledged(message.packet_id)

    def lost(self) -> None:
        self.detach(with_will=True)
        self._broker.clients.discard(self)
        self._broker.look()

    # -- CONNECT ----------------------------------------------------------------------------------

    def _greet(self, packet: Packet) -> None:
        match packet:
            case mqtt5.ForeignConnect(level=level):
                # An old client reads only its own CONNACK; a newer one is told in ours.
                refusal = mqtt5.encode_connack(Reason.UNSUPPORTED_PROTOCOL_VERSION)
                self.link.close(mqtt5.FOREIGN_REFUSAL if level in (3, 4) else refusal)
            case Connect() if (reason := self._objection(packet)) is not None:
                self.link.close(mqtt5.encode_connack(reason))
            case Connect():
                self._welcome(packet)
            case _:
                raise protocol_error("expected CONNECT first")

    def _objection(self, connect: Connect) -> int | None:
        if self._broker.refuse_connect is not None:
            return self._broker.refuse_connect
        if any(name is Property.AUTHENTICATION_METHOD for name, _ in connect.properties):
            return Reason.BAD_AUTHENTICATION_METHOD
        if connect.will is not None and connect.will.qos > 1:
            return Reason.QOS_NOT_SUPPORTED
        if self._broker.authenticate is not None and not self._broker.authenticate(connect):
            return Reason.BAD_USER_NAME_OR_PASSWORD
        return None

    def _welcome(self, connect: Connect) -> None:
        told: Properties = (
            (Property.RECEIVE_MAXIMUM, self._receive_maximum),
            (Property.MAXIMUM_QOS, 1),
            (Property.MAXIMUM_PACKET_SIZE, self._maximum_packet_size),
            (Property.TOPIC_ALIAS_MAXIMUM, 0),
        )
        if not connect.client_id:
            connect = replace(connect, client_id=f"assigned-{uuid4().hex}")
            told = (*told, (Property.ASSIGNED_CLIENT_IDENTIFIER, connect.client_id))
        session, present = self._broker.enter(self, connect)
        session.expiry = number(connect.properties, Property.SESSION_EXPIRY_INTERVAL, 0)
        self._packet_limit = number(connect.properties, Property.MAXIMUM_PACKET_SIZE, mqtt5.LARGEST_PACKET)
        self._will, self._will_delay = connect.will, connect.will_delay
        self.session = session
        self.link.send(mqtt5.encode_connack(Reason.SUCCESS, session_present=present, properties=told))
        # "If the Server does not receive a Control Packet from the Client within one and a half times the
        # Keep Alive time period, it MUST close the Network Connection" [MQTT-3.1.2-22]
        self.link.expect_within(1.5 * connect.keepalive)
        session.connected(self.writable, number(connect.properties, Property.RECEIVE_MAXIMUM, 0xFFFF))
        self.writable()

    # -- and then ---------------------------------------------------------------------------------

    def _serve(self, session: Session, packet: Packet) -> None:
        match packet:
            case Publish():
                self._publish(session, packet)
            case mqtt5.Puback(packet_id=packet_id):
                session.acknowledged(packet_id)
                self.writable()
            case Subscribe():
                self._subscribe(session, packet)
            case Unsubscribe():
                self._unsubscribe(session, packet)
            case mqtt5.Pingreq():
                self.link.send(mqtt5.PINGRESP)
            case Disconnect():
                self._disconnect(session, packet)
            case Connect() | mqtt5.ForeignConnect():
                raise protocol_error("second CONNECT")

    def _publish(self, session: Session, message: Publish) -> None:
        if message.qos > 1:
            raise BadPacket(Reason.QOS_NOT_SUPPORTED, "Maximum QoS is 1")
        if message.qos and self.unanswered >= self._receive_maximum:
            text = f"Receive Maximum is {self._receive_maximum}"
            raise BadPacket(Reason.RECEIVE_MAXIMUM_EXCEEDED, text)
        reason = self._broker.accept(message, session.client_id)
        if not message.qos:
            return
        self.unanswered += 1
        puback = mqtt5.encode_puback(message.packet_id, reason)
        if self._broker.loses_puback():
            self.link.reset()
        elif self._broker.withholds_puback():
            self._withheld.append(puback)
        else:
            self._answer(puback)

    def _answer(self, puback: bytes) -> None:
        self.link.send(puback, self._answered)

    def _answered(self) -> None:
        self.unanswered -= 1

    def _subscribe(self, session: Session, packet: Subscribe) -> None:
        granted = [replace(wanted, qos=min(wanted.qos, 1)) for wanted in packet.subscriptions]
        self.link.send(mqtt5.encode_suback(packet.packet_id, [subscription.qos for subscription in granted]))
        for subscription in granted:
            self._broker.exchange.subscribe(session, subscription)

    def _unsubscribe(self, session: Session, packet: Unsubscribe) -> None:
        reasons = [
            Reason.SUCCESS
            if self._broker.exchange.unsubscribe(session, name)
            else Reason.NO_SUBSCRIPTION_EXISTED
            for name in packet.filters
        ]
        self.link.send(mqtt5.encode_unsuback(packet.packet_id, reasons))

    def _disconnect(self, session: Session, packet: Disconnect) -> None:
        expiry = number(packet.properties, Property.SESSION_EXPIRY_INTERVAL, session.expiry)
        # "If the Session Expiry Interval in the CONNECT packet was zero, then it is a Protocol Error to set
        # a non-zero Session Expiry Interval in the DISCONNECT packet" (3.14.2.2.2)
        if expiry and not session.expiry:
            raise protocol_error("session expiry was 0 in CONNECT")
        session.expiry = expiry
        self.detach(with_will=packet.reason != Reason.SUCCESS)
        self.link.close()
