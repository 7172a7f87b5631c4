"""Documents for many devices: signed for some devices at a time, and left at the broker together.

    async for device, made, published in deliver(leave, keyring, devices, issue): ...

Most of the time that it takes to sign goes into waiting for the disk, since nothing may be given a version
that is not on stable storage: so several devices are signed for at once. One process at a time signs.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from agent.documents import Document
from agent.envelope import Kind
from agent.fleet.keyring import Keyring
from agent.fleet.publish import Outgoing, Published
from agent.fleet.signing import Desk

AT_ONCE = 50
"""Devices that are signed for, and left their documents, before the next are."""
THREADS = 8

Issue = Callable[[Desk, str], Document[Any]]
"""Makes the document of one device."""
Leave = Callable[[Outgoing], Awaitable[dict[str, Published]]]
"""Has the broker hold just these for these devices."""


@dataclass(frozen=True, slots=True)
class Signed:
    """What was signed for one device."""

    document: Document[Any]
    """The one that was asked for."""
    outgoing: Mapping[str, bytes]
    """All that is to stand at the broker for it, as `Desk.outgoing` has it."""
    news: Mapping[str, bytes]
    """What of it was not there before, pages left out."""


def sign(keyring: Keyring, devices: Sequence[str], issue: Issue) -> dict[str, Signed]:
    """For each device what `issue` makes, and a head that names it. Blocking.

    Raises what `issue` raises, for the first that fails: the others may have theirs under their next version.
    """
    with keyring.locked(), ThreadPoolExecutor(THREADS, thread_name_prefix="signing") as pool:
        Desk(keyring, int(time.time())).renew_shared()
        signed = pool.map(lambda device: _sign(keyring, device, issue), devices)
        return dict(zip(devices, signed, strict=True))


def _sign(keyring: Keyring, device: str, issue: Issue) -> Signed:
    desk = Desk(keyring, int(time.time()))
    before = desk.documents(device)
    document = issue(desk, device)
    if document.kind is not Kind.HEAD:
        desk.head(device)
    after = desk.documents(device)
    news = {name: raw for name, raw in after.items() if before.get(name) != raw}
    return Signed(document, desk.outgoing(device), news)


async def deliver(
    leave: Leave, keyring: Keyring, devices: Sequence[str], issue: Issue
) -> AsyncIterator[tuple[str, Document[Any], Published]]:
    """Sign for each device and have the broker hold what is then current. Raises what `leave` raises."""
    for some in batches(devices):
        signed = await asyncio.to_thread(sign, keyring, some, issue)
        published = await leave({name: each.outgoing for name, each in signed.items()})
        for device, each in signed.items():
            yield device, each.document, published[device]


def batches(devices: Sequence[str]) -> Iterator[Sequence[str]]:
    for start in range(0, len(devices), AT_ONCE):
        yield devices[start : start + AT_ONCE]
