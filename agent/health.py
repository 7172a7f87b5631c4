"""Is this process making progress? What the service manager's watchdog is fed with.

The watchdog is fed only after every part that matters has dealt with something queued for this purpose: a
process that is alive but stuck is not fed.
"""

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Sequence

import structlog

Check = Callable[[], Awaitable[None]]
"""Comes back when one part of the process has just made progress."""

log = structlog.get_logger("health")


class Notifier:
    """systemd's notification protocol (sd_notify(3)); silent where nobody listens."""

    def __init__(self) -> None:
        self._path = os.environ.get("NOTIFY_SOCKET", "")
        self.watchdog_s = _watchdog_s()
        """Seconds within which the manager wants to hear from us; 0 when it does not."""

    def send(self, *lines: str) -> None:
        if not self._path:
            return
        # An abstract socket's name is written with @ and begins with a null byte.
        address = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
                # A manager that does not read must not stop the loop: the next word will reach it.
                out.setblocking(False)
                out.sendto("\n".join(lines).encode(), address)
        except OSError as error:
            log.warning("service manager not reached", error=str(error))


def _watchdog_s() -> float:
    """As sd_watchdog_enabled(3) reads it: the wish may be meant for another process."""
    if os.environ.get("WATCHDOG_PID") not in (None, str(os.getpid())):
        return 0.0
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    return int(microseconds) / 1e6 if microseconds.isdecimal() else 0.0


async def feed_watchdog(notifier: Notifier, checks: Sequence[Check], every: float) -> None:
    """For ever: prove progress, then say so. What does not come back in time is not reported well."""
    while True:
        for check in checks:
            await check()
        notifier.send("WATCHDOG=1")
        await asyncio.sleep(every)
