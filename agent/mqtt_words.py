"""The words of a connection: where the broker is, what it brings, and how it ends. No I/O."""

import hashlib
import itertools
import re
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv6Address
from typing import Self

_NODE = re.compile(
    r"(?:\[(?P<six>[0-9a-fA-F:.]{2,45})\]|(?P<host>[^\s\x00/:\[\]]{1,253}))(?::(?P<port>[0-9]{1,5}))?"
)


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


def node(text: str, port: int) -> tuple[str, int]:
    """Host and port of `HOST` or `HOST:PORT`; an IPv6 address with a port stands in brackets.

    Raises ValueError.
    """
    if text.count(":") > 1 and not text.startswith("["):
        return str(IPv6Address(text)), port
    matched = _NODE.fullmatch(text)
    if matched is None:
        raise ValueError(f"expected HOST or HOST:PORT, got {text[:80]!r}")
    found = int(matched["port"] or port)
    if not 1 <= found <= 65_535:
        raise ValueError(f"expected a port from 1 to 65535, got {found}")
    return str(IPv6Address(matched["six"])) if matched["six"] else matched["host"], found


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
    others: tuple[tuple[str, int], ...] = ()
    """Host and port of more nodes of the same broker: any of them will do."""

    @property
    def where(self) -> str:
        return f"{self.host}:{self.port}"

    def nodes(self) -> tuple[Self, ...]:
        """One server for each node, in the order of the config."""
        places = ((self.host, self.port), *self.others)
        return tuple(replace(self, host=host, port=port, others=()) for host, port in places)

    def in_turn(self, *, by_name: bool = False) -> Iterator[Self]:
        """The nodes, again and again, in their order; `by_name`, the client id decides which comes first, so
        that many who have the same list spread over all of them."""
        nodes = self.nodes()
        first = hashlib.sha256(self.client_id.encode()).digest()[-1] % len(nodes) if by_name else 0
        return itertools.cycle((*nodes[first:], *nodes[:first]))


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
