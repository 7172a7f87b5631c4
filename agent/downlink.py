"""What comes back from the fleet on the uplink's connection: receipts, and what is signed, with its pages.

Nothing is queued for a device that is away. Of receipts only the newest is worth anything, and the fleet
gives it again when it hears the birth; documents are retained; commands are for now or never. So the
connection starts clean, and nothing old is waiting to be brought. A page is asked for while it is lacked.
"""

import asyncio
import contextlib
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Protocol

import structlog

from agent.journal import Journal
from agent.mqtt import Connection, ConnectionLost, Message
from agent.note import Checkpoint, VerifierKey
from agent.receipts import RECORD, ROLLED_BACK, Reason, Refused, accept, open_receipt, rolled_back
from agent.workflow import Draft, Lane
from agent.writer import JournalFailed

Heard = Callable[[str, float], object]
"""Hears of what was taken: its name below `down/`, and seconds from its arrival until it was in force."""

PAGES = 64
"""Pages that are asked for at one time."""
FILTERS = 8
"""Topics of one subscription: one that is refused takes no others with it but these."""

log = structlog.get_logger("downlink")


class Post(Protocol):
    """Who opens what is signed. Names are topics below `down/`."""

    @property
    def topics(self) -> Sequence[str]:
        """What is always wanted, the most urgent first."""
        ...

    @property
    def wanted(self) -> Sequence[str]:
        """What is wanted for now: pages."""
        ...

    def connected(self) -> None:
        """A new connection begins."""
        ...

    async def take(self, name: str, raw: bytes) -> None:
        """A message. When it returns, whatever follows from it is durable."""
        ...


class Downlink:
    """Hears the fleet, one connection after the other."""

    def __init__(
        self,
        journal: Journal,
        topic: str,
        fleet: Collection[VerifierKey],
        report: Callable[[Draft], object],
        receipt_taken: Callable[[], None],
        receipt_again: Callable[[int], None],
        post: Post | None = None,
        heard: Heard = lambda _name, _took: None,
    ) -> None:
        """`topic` is `postern/v1/<device>`. Receipts are asked for where there are keys of the `fleet`, and
        what is signed where there is a `post`. `receipt_again` is told the size of one that is no news."""
        self._journal = journal
        self._down = f"{topic}/down/"
        self._device = topic.rpartition("/")[2]
        self._fleet = fleet
        self._report = report
        self._receipt_taken = receipt_taken
        self._receipt_again = receipt_again
        self._post, self._heard = post, heard
        self._pages: set[str] = set()
        """Pages that are subscribed to."""
        self._more = asyncio.Event()
        """Pages are lacked that were not a moment ago."""
        self._again = False
        """What is retained is wanted once more."""
        self._one = asyncio.Lock()
        self._refused: set[Reason] = set()
        """Reasons why receipts were refused on this connection."""

    async def subscribe(self, connection: Connection) -> None:
        """Before the birth, which asks for the newest of all. A broker that refuses still gets entries."""
        self._refused.clear()
        self._pages.clear()
        if self._fleet:
            await self._ask_for(connection, ["receipt"])
        if self._post is not None:
            self._post.connected()
            await self._ask_for(connection, self._post.topics)
            await self._ask_for_pages(connection)

    def ask_for_pages(self) -> None:
        """Something is lacked now that no message has told of."""
        self._more.set()

    def ask_again(self) -> None:
        """What the broker has retained is wanted once more: whoever subscribes anew is brought it."""
        self._again = True
        self._more.set()

    async def hear(self, connection: Connection) -> None:
        """Until the connection is lost: what has arrived is applied, then acknowledged in its order."""
        asking = asyncio.create_task(self._ask_when_told(connection), name="downlink: pages")
        try:
            await self._hear(connection)
        finally:
            asking.cancel()
            await asyncio.wait([asking])

    async def _ask_when_told(self, connection: Connection) -> None:
        with contextlib.suppress(ConnectionLost):
            while True:
                await self._more.wait()
                self._more.clear()
                if self._again and self._post is not None:
                    self._again = False
                    await self._ask_for(connection, self._post.topics)
                await self._ask_for_pages(connection)

    async def _hear(self, connection: Connection) -> None:
        try:
            while True:
                batch = [await connection.receive(), *connection.waiting()]
                for message in sorted(batch, key=self._urgency):
                    await _whole(self._open(message))
                for message in batch:
                    connection.acknowledge(message)
                await self._ask_for_pages(connection)
        except ConnectionLost:
            return

    def _urgency(self, message: Message) -> int:
        """A root before the head it vouches for, a head before what it names."""
        name = message.topic.removeprefix(self._down)
        topics = list(self._post.topics) if self._post is not None else []
        return topics.index(name) if name in topics else len(topics)

    async def _open(self, message: Message) -> None:
        name = message.topic.removeprefix(self._down)
        if name == "receipt":
            if await self._take(message.payload):
                self._receipt_taken()
        elif self._post is not None and name != message.topic:
            try:
                await self._post.take(name, message.payload)
                self._heard(name, asyncio.get_running_loop().time() - message.arrived)
            except JournalFailed:
                raise
            except Exception as error:
                # One message that we cannot digest must not stop the ones behind it, nor what goes up.
                log.error("fault", part="downlink", topic=name, error=type(error).__name__, exc_info=error)
                fault = {"error": type(error).__name__, "topic": name[:80]}
                self._report(Draft("agent.fault", "downlink", fault, Lane.STATE))

    async def _ask_for(self, connection: Connection, names: Sequence[str]) -> None:
        for start in range(0, len(names), FILTERS):
            some = names[start : start + FILTERS]
            try:
                await connection.subscribe(*(self._down + name for name in some))
            except ConnectionLost as lost:
                if connection.lost.done():
                    raise
                log.warning("subscription refused", topics=list(some), reason=str(lost))
                data = {"reason": str(lost), "code": lost.code}
                self._report(Draft("uplink.subscription_refused", self._device, data, Lane.STATE))

    async def _ask_for_pages(self, connection: Connection) -> None:
        if self._post is None:
            return
        async with self._one:
            wanted = self._post.wanted[:PAGES]
            done = self._pages - set(wanted)
            fresh = [name for name in wanted if name not in self._pages]
            self._pages = set(wanted)
            if done:
                connection.unsubscribe(*(self._down + name for name in sorted(done)))
            await self._ask_for(connection, fresh)

    async def _take(self, raw: bytes) -> bool:
        """Remember how much the fleet has. Losing that costs work only: it rides, and is given again."""
        notary = self._journal.notary
        if notary is None:
            return False
        checkpoint: Checkpoint | None = None
        try:
            checkpoint = open_receipt(raw, notary.verifier, self._fleet)
            own = await self._journal.root_at(checkpoint.size)
            receipt = accept(checkpoint, own, self._journal.records.get(RECORD))
        except Refused as refused:
            self._tell(refused)
            if checkpoint is not None and refused.reason is Reason.NOT_SIGNED_HERE:
                await self._remember_rollback(checkpoint)
            return False
        if receipt is None:
            self._receipt_again(checkpoint.size)
            return False
        log.info("receipt", size=receipt.size)
        self._journal.ride({RECORD: receipt.record()})
        return True

    async def _remember_rollback(self, cosigned: Checkpoint) -> None:
        """Once for a journal. What it is now is signed, so that the fleet has proof of both."""
        known = self._journal.records.get(ROLLED_BACK)
        if known is not None and known["origin"] == cosigned.origin:
            return
        found = rolled_back(cosigned, self._journal.last)
        log.error("journal is an older copy", size=found["size"], cosigned=found["cosigned"])
        # It rides on the entry that says so: one transaction.
        self._journal.ride({ROLLED_BACK: found})
        self._report(Draft("journal.rolled_back", self._device, found))
        await self._journal.save()
        self._journal.checkpoint()

    def _tell(self, refused: Refused) -> None:
        """An entry for each reason and connection: a flood of forgeries must not fill the journal."""
        log.warning("receipt refused", reason=refused.reason, detail=refused.detail)
        if refused.reason not in self._refused:
            self._refused.add(refused.reason)
            data = {"reason": refused.reason, "detail": refused.detail}
            self._report(Draft("fleet.receipt_refused", self._device, data, Lane.STATE))


async def _whole(work: Coroutine[None, None, None]) -> None:
    """To its end even when we are to stop: between remembering and doing is no place to be cut off."""
    task = asyncio.create_task(work, name="downlink: a message")
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        raise
