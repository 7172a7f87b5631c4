"""Accepts connections, and owns each from the moment in which the kernel handed it over.

    listener = Listener(make_protocol)
    port = listener.open("127.0.0.1", 0)
    await listener.close()

asyncio's own server lets go of a connection between its acceptance and the first call to its protocol: who
stops just then leaves it open.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable

BACKLOG = 100
TLS_HANDSHAKE_TIMEOUT = 10.0


class Listener:
    """One listening socket at a time."""

    def __init__(self, make: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None = None) -> None:
        self._make = make
        self._tls = tls
        self._socket: socket.socket | None = None
        self._arriving: set[asyncio.Task[None]] = set()

    def open(self, host: str, port: int) -> int:
        """Listen; the port, which is the kernel's choice for 0. Raises OSError."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
        listening.setblocking(False)
        self._socket = listening
        asyncio.get_running_loop().add_reader(listening, self._accept, listening)
        return int(listening.getsockname()[1])

    async def close(self) -> None:
        """Listen no more. Every connection accepted so far is its protocol's when this returns, or closed."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None
        # Each gets to its first wait: one that was cancelled before that would not close its socket.
        await asyncio.sleep(0)
        for arriving in self._arriving:
            arriving.cancel()
        await asyncio.gather(*self._arriving, return_exceptions=True)
        # A transport tells its protocol of the connection one round after it was made.
        await asyncio.sleep(0)

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(BlockingIOError, InterruptedError, ConnectionAbortedError):
            tcp, _ = listening.accept()
            # asyncio sets this only where it has made the socket itself.
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            arriving = asyncio.get_running_loop().create_task(self._hand_over(tcp), name="arriving")
            self._arriving.add(arriving)
            arriving.add_done_callback(self._arriving.discard)

    async def _hand_over(self, tcp: socket.socket) -> None:
        tcp.setblocking(False)
        handshake = TLS_HANDSHAKE_TIMEOUT if self._tls else None
        # Whoever cannot shake hands, or has gone meanwhile, is not worth a word.
        with contextlib.suppress(OSError):
            await asyncio.get_running_loop().connect_accepted_socket(
                self._make, tcp, ssl=self._tls, ssl_handshake_timeout=handshake
            )
