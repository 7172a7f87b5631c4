"""The words of a connection: where the broker is, what it brings, and how it ends. No I/O."""

import ssl
from dataclasses import dataclass, field
from typing import Self


class ConnectionLost(Exception):
    """The connection is over. `code` is the broker's reason code, where it gave one."""

    def __init__(self, reason: str, code: int | None = None) -> None:
        super().__init__(reason)
        self.code = code

    def again(self) -> Self:
        """The same news for one more who waits: a raised exception collects the way it took."""
        return type(self)(str(self), self.code)


class ConnectRefused(ConnectionLost):
    """The broker answered, and would not have us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Where the broker is and how to be let in."""

    host: str
    port: int
    client_id: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    tls: ssl.SSLContext | None = None
    keepalive: int = 25
    """Seconds."""
    session_expiry: int = 0
    """Seconds that the broker keeps subscriptions and unacknowledged messages for us; 0 starts clean."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """What the broker says for us at the end, whichever way it comes; retained."""

    topic: str
    payload: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """Something the broker brought. Acknowledged by `Connection.acknowledge` once it is dealt with."""

    topic: str
    payload: bytes
    properties: dict[str, str]
    retained: bool
    mid: int
    qos: int
    arrived: float = 0.0
    """When it was read, by the loop's clock."""
