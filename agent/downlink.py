"""What comes back from the fleet on the uplink's connection: receipts.

None is queued for a device that is away, since only the newest is worth anything and the fleet gives it again
when it hears the birth; so the connection starts clean, and nothing old is waiting to be brought.
"""

from collections.abc import Callable, Collection

import structlog

from agent.journal import Journal
from agent.mqtt import Connection, ConnectionLost
from agent.note import Checkpoint, VerifierKey
from agent.receipts import RECORD, ROLLED_BACK, Reason, Refused, accept, open_receipt, rolled_back
from agent.workflow import Draft, Lane

log = structlog.get_logger("downlink")


class Downlink:
    """Takes receipts for a journal, one connection after the other."""

    def __init__(
        self,
        journal: Journal,
        topic: str,
        fleet: Collection[VerifierKey],
        report: Callable[[Draft], object],
    ) -> None:
        """`topic` is `postern/v1/<device>`. Without keys of the fleet nothing is asked for."""
        self._journal = journal
        self._topic = f"{topic}/down/receipt"
        self._device = topic.rpartition("/")[2]
        self._fleet = fleet
        self._report = report
        self._refused: set[Reason] = set()
        """Reasons why receipts were refused on this connection."""

    async def subscribe(self, connection: Connection) -> None:
        """Before the birth, which asks for the newest receipt. A broker that refuses still gets entries."""
        self._refused.clear()
        if not self._fleet:
            return
        try:
            await connection.subscribe(self._topic)
        except ConnectionLost as lost:
            if connection.lost.done():
                raise
            log.warning("no receipts", reason=str(lost))
            data = {"reason": str(lost), "code": lost.code}
            self._report(Draft("uplink.subscription_refused", self._device, data, Lane.STATE))

    async def hear(self, connection: Connection) -> bool:
        """What has arrived is applied, then acknowledged. Whether a receipt was taken."""
        taken = False
        for message in connection.waiting():
            if message.topic == self._topic:
                taken = await self._take(message.payload) or taken
            connection.acknowledge(message)
        return taken

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
