"""A receipt counts only if this device and the fleet have signed it, and for more than the last one."""

import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.clock import Moment
from agent.config import parse
from agent.journal import Journal
from agent.ledger import EMPTY_ROOT
from agent.mistakes import BadConfig
from agent.note import Checkpoint, Note, SignerKey, VerifierKey, cosign, sign
from agent.receipts import RECORD, ROLLED_BACK, Reason, Receipt, Refused, accept, open_receipt
from agent.uplink import Uplink
from agent.workflow import Draft
from tests.brokers import BROKERS, AnyBroker, News, broker_of, connected, running, server

AT = Moment(boot="boot", mono_ns=1, utc_ns=1_800_000_000_000_000_000)
SECRET = bytes(range(32))
TOPIC = "postern/v1/van-0042"


def signer(name: str, secret: bytes = SECRET) -> SignerKey:
    return SignerKey(name, Ed25519PrivateKey.from_private_bytes(secret))


DEVICE = signer("test/van-0042/e1")
FLEET = signer("fleet-main", b"f" * 32)
STRANGER = signer("fleet-main", b"s" * 32)


def checkpoint(size: int, name: str = DEVICE.name, fill: bytes = b"r") -> Checkpoint:
    return Checkpoint(name, size, fill * 32 if size else EMPTY_ROOT)


def receipt(size: int, device: SignerKey = DEVICE, fleet: SignerKey = FLEET, fill: bytes = b"r") -> bytes:
    return cosign(sign(checkpoint(size, device.name, fill).text, device), fleet)


# -- pure -----------------------------------------------------------------------------------------


def test_a_receipt_opens_with_the_key_of_the_device_and_one_of_the_fleet() -> None:
    keys = [signer("fleet-other", b"o" * 32).verifier, FLEET.verifier]
    assert open_receipt(receipt(64), DEVICE.verifier, keys) == checkpoint(64)


def bent(raw: bytes) -> bytes:
    """The same signatures under another size."""
    return raw.replace(b"\n64\n", b"\n65\n")


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", Reason.MALFORMED),
        (b"nonsense", Reason.MALFORMED),
        (sign("no checkpoint\n", DEVICE, FLEET), Reason.MALFORMED),
        (receipt(64, signer("test/van-0043/e1")), Reason.OTHER_JOURNAL),
        (receipt(64, signer("test/van-0042/e2")), Reason.OTHER_JOURNAL),
        (receipt(64, signer("other/van-0042/e1")), Reason.OTHER_JOURNAL),
        (bent(receipt(64)), Reason.BAD_SIGNATURE),
        (receipt(64, signer(DEVICE.name, b"x" * 32)), Reason.BAD_SIGNATURE),
        (sign(checkpoint(64).text, FLEET), Reason.BAD_SIGNATURE),
        (sign(checkpoint(64).text, DEVICE), Reason.NOT_COSIGNED),
        (receipt(64, fleet=STRANGER), Reason.NOT_COSIGNED),
    ],
)
def test_what_is_no_receipt_for_this_journal_is_refused_by_name(raw: bytes, reason: Reason) -> None:
    with pytest.raises(Refused) as refused:
        open_receipt(raw, DEVICE.verifier, [FLEET.verifier])
    assert refused.value.reason is reason


def test_a_receipt_counts_once_and_only_for_more_than_the_last() -> None:
    own = checkpoint(64).root
    assert accept(checkpoint(64), own, None) == Receipt(64, b"r" * 32)
    assert accept(checkpoint(64), own, {"size": 64, "root": ""}) is None
    with pytest.raises(Refused) as refused:
        accept(checkpoint(64), own, {"size": 65, "root": ""})
    assert refused.value.reason is Reason.OLDER


@pytest.mark.parametrize("own", [None, b"q" * 32])
def test_a_checkpoint_of_other_entries_is_none_of_this_journal(own: bytes | None) -> None:
    with pytest.raises(Refused) as refused:
        accept(checkpoint(64), own, None)
    assert refused.value.reason is Reason.NOT_SIGNED_HERE


# -- in the config --------------------------------------------------------------------------------

CONFIG = """
[device]
id = "van-0042"
tenant = "test"
[broker]
host = "mqtt.example"
"""


def test_the_fleet_s_keys_stand_in_the_config() -> None:
    assert parse(CONFIG).fleet_keys == ()
    text = f'{CONFIG}[fleet]\nkeys = ["{FLEET.verifier.text}"]\n'
    assert parse(text).fleet_keys == (FLEET.verifier,)


def test_a_key_that_is_none_is_named_with_its_place() -> None:
    with pytest.raises(BadConfig) as bad:
        parse(f'{CONFIG}[fleet]\nkeys = ["{FLEET.verifier.text}", "fleet-main+0"]\n')
    (mistake,) = bad.value.mistakes
    assert (mistake.path, mistake.expected, mistake.got) == (
        "fleet.keys[1]",
        "a verifier key as name+id+key",
        "'fleet-main+0'",
    )


# -- on a broker ----------------------------------------------------------------------------------


@pytest.fixture(params=BROKERS)
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AnyBroker]:
    async with broker_of(request.param, tmp_path) as made:
        yield made


class Van:
    """A journal with signed checkpoints, and an uplink that believes the fleet's key."""

    def __init__(self, journal: Journal, port: int, fleet: Sequence[VerifierKey]) -> None:
        self.journal = journal
        self.news = News()
        self.reported: list[Draft] = []
        self.uplink = Uplink(
            journal,
            server(port),
            TOPIC,
            birth=self._birth,
            report=self._reported,
            fleet=fleet,
        )
        self.uplink.watch(self.news.look)

    def _birth(self) -> dict[str, Any]:
        assert self.journal.notary is not None
        key = self.journal.notary.verifier.text
        return {"online": True, "epoch": self.journal.epoch, "key": key}

    def _reported(self, draft: Draft) -> None:
        self.reported.append(draft)
        self.news.look()

    async def scan(self, count: int, subject: str = "parcel") -> bytes:
        """So many entries, and the checkpoint of all that there are."""
        await self.journal.append([Draft("custody.seen", subject, {})] * count, AT, {"position": None})
        self.journal.checkpoint()
        await self.journal.save()
        note = await self.journal.checkpoint_at(self.journal.last)
        assert note is not None
        return note

    def fork(self, note: bytes) -> bytes:
        """Another checkpoint of the same size, signed as this device would never do."""
        found = Checkpoint.parse(Note.parse(note).text)
        return sign(checkpoint(found.size, found.origin).text, signer(found.origin))

    @property
    def size(self) -> int:
        record: dict[str, Any] = self.journal.records.get(RECORD, {"size": 0})
        return int(record["size"])

    @property
    def connections(self) -> list[Draft]:
        return [each for each in self.reported if each.type == "uplink.connected"]

    def refusals(self) -> list[str]:
        return [each.data["reason"] for each in self.reported if each.type == "fleet.receipt_refused"]


@contextlib.asynccontextmanager
async def van_at(
    port: int, folder: Path, fleet: Sequence[VerifierKey] = (FLEET.verifier,)
) -> AsyncIterator[Van]:
    journal = Journal(folder / "journal.db", source="/postern/test/van-0042", key=SECRET)
    await journal.open()
    van = Van(journal, port, fleet)
    try:
        async with running(van.uplink.run()):
            await van.news.until(lambda: van.uplink.online)
            yield van
    finally:
        await journal.close()


@contextlib.asynccontextmanager
async def fleet_at(port: int) -> AsyncIterator[Callable[[bytes], Any]]:
    """Publishes as whoever can publish to the device."""
    async with connected(port, "someone") as connection:

        async def say(payload: bytes) -> None:
            # Its subscription may be a moment away: it is published until somebody has subscribed.
            while await connection.publish(f"{TOPIC}/down/receipt", payload) == 0x10:
                pass

        yield say


async def test_a_receipt_is_remembered_with_the_journal(broker: AnyBroker, tmp_path: Path) -> None:
    async with van_at(broker.port, tmp_path) as van, fleet_at(broker.port) as say:
        note = await van.scan(70)
        await say(cosign(note, FLEET))
        await van.news.until(lambda: van.size == 70)
        assert not van.refusals()
    async with van_at(broker.port, tmp_path) as again:
        assert again.size == 70


async def test_forged_receipts_change_nothing_and_are_told_once_each(
    broker: AnyBroker, tmp_path: Path
) -> None:
    async with van_at(broker.port, tmp_path) as van, fleet_at(broker.port) as say:
        old = cosign(await van.scan(10), FLEET)
        new = cosign(await van.scan(10), FLEET)
        await say(new)
        await van.news.until(lambda: van.size == 20)
        origin = van.journal.notary.verifier.name if van.journal.notary else ""
        ours = signer(origin)
        forged = [
            (b"\xff" + random.Random(1).randbytes(300), Reason.MALFORMED),
            (cosign(await van.scan(10), STRANGER), Reason.NOT_COSIGNED),
            (receipt(30, signer("test/van-0043/e1")), Reason.OTHER_JOURNAL),
            (receipt(30, signer("test/van-0042/e0")), Reason.OTHER_JOURNAL),
            (receipt(5000, ours), Reason.NOT_SIGNED_HERE),
            (receipt(30, signer(origin, b"x" * 32)), Reason.BAD_SIGNATURE),
            (old, Reason.OLDER),
        ]
        for payload, _ in [*forged, *forged]:
            await say(payload)
        await van.news.until(lambda: Reason.OLDER in van.refusals())
        last = cosign(await van.scan(10), FLEET)
        await say(last)
        await van.news.until(lambda: van.size == van.journal.last)
        assert van.refusals() == list(dict.fromkeys(reason for _, reason in forged))


async def test_the_same_receipt_again_is_no_news(broker: AnyBroker, tmp_path: Path) -> None:
    async with van_at(broker.port, tmp_path) as van, fleet_at(broker.port) as say:
        note = cosign(await van.scan(10), FLEET)
        for _ in range(5):
            await say(note)
        await say(b"the end")
        await van.news.until(van.refusals)
        assert van.size == 10
        assert van.refusals() == [Reason.MALFORMED]


# -- an older copy --------------------------------------------------------------------------------


def of_another_life(van: Van, size: int, fill: bytes = b"r") -> bytes:
    """What the fleet has cosigned, of entries that this journal does not hold."""
    assert van.journal.notary is not None
    return receipt(size, signer(van.journal.notary.verifier.name), fill=fill)


def told_of_rollback(van: Van) -> list[Draft]:
    return [each for each in van.reported if each.type == "journal.rolled_back"]


@pytest.mark.parametrize("size", [5, 20, 5000])
async def test_a_receipt_for_what_is_not_here_says_that_the_journal_is_an_older_copy(
    broker: AnyBroker, tmp_path: Path, size: int
) -> None:
    async with van_at(broker.port, tmp_path) as van, fleet_at(broker.port) as say:
        await van.scan(20)
        for _ in range(3):
            await say(of_another_life(van, size))
        await say(b"the end")
        await van.news.until(lambda: Reason.MALFORMED in van.refusals())
        (told,) = told_of_rollback(van)
        assert (told.data["size"], told.data["cosigned"]) == (20, size)
        assert van.size == 0
    async with van_at(broker.port, tmp_path) as again:
        assert again.journal.records[ROLLED_BACK] == told.data


async def test_nothing_that_lacks_one_of_both_signatures_suspends_a_device(
    broker: AnyBroker, tmp_path: Path
) -> None:
    async with van_at(broker.port, tmp_path) as van, fleet_at(broker.port) as say:
        await van.scan(20)
        assert van.journal.notary is not None
        origin = van.journal.notary.verifier.name
        for forged in (
            sign(checkpoint(5000, origin).text, signer(origin)),
            sign(checkpoint(5000, origin).text, FLEET),
            receipt(5000, signer(origin), fleet=STRANGER),
            receipt(5000, signer(origin, b"x" * 32)),
            receipt(5000, signer("test/van-0042/e0")),
            of_another_life(van, 5000).replace(b"\n5000\n", b"\n5001\n"),
        ):
            await say(forged)
        await say(cosign(await van.scan(1), FLEET))
        await van.news.until(lambda: van.size == 21)
        assert not told_of_rollback(van)
        assert ROLLED_BACK not in van.journal.records


async def test_an_old_receipt_whose_checkpoint_was_pruned_is_no_rollback(
    broker: AnyBroker, tmp_path: Path
) -> None:
    async with van_at(broker.port, tmp_path) as van, fleet_at(broker.port) as say:
        old = cosign(await van.scan(100), FLEET)
        await say(cosign(await van.scan(200), FLEET))
        await van.news.until(lambda: van.size == 300)
        await van.journal.prune(0, range(1, 257))
        assert await van.journal.checkpoint_at(100) is None
        await say(old)
        await van.news.until(van.refusals)
        assert van.refusals() == [Reason.OLDER]
        assert not told_of_rollback(van)
