"""What the fleet sends is verified, remembered and only then used, in whatever order it comes."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.bundle import Bundles
from agent.clock import BUILT_UTC_NS, NS, Correction, Moment, SystemClock, Trust
from agent.commands import OpenManyDoors, unsettled
from agent.documents import Document
from agent.envelope import Kind
from agent.errands import Errands
from agent.fleet.sealing import Epoch, Recipient, RowOf, seal_all
from agent.freshness import Freshness
from agent.journal import Journal
from agent.jws import cosign
from agent.postbox import TOPICS, Postbox
from agent.row_seal import Keys
from agent.rows import Rows
from agent.signed_time import AGAIN_S, SLOWEST_S
from agent.standing import NEVER
from agent.standing import Authority as Standings
from agent.trust import Trusted
from agent.workflow import Draft
from agent.writer import JournalFailed
from drivers.readings import ActionDone, OpenDoor, Signal
from tests.authority import DAY, NOON, SELF, Authority, fresh
from tests.moments import NOON_NS

KEYS = Keys(bytes(range(32)), bytes(range(32, 64)))


@dataclass
class Board:
    """The clocks of a machine, turned by hand."""

    mono_ns: int = 60 * NS
    wall_ns: int = NOON_NS + 60 * NS
    ntp_age_s: float | None = 0.0

    def pass_time(self, seconds: float) -> None:
        self.mono_ns += round(seconds * NS)
        self.wall_ns += round(seconds * NS)

    def clock(self) -> SystemClock:
        clock = SystemClock(
            boot="boot-1",
            has_rtc=False,
            mono=lambda: self.mono_ns,
            wall=lambda: self.wall_ns,
            ntp_age=lambda: self.ntp_age_s,
        )
        clock.observe_ntp()
        return clock


class Premises:
    """What commands ask of an agent, noted."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.units = {"scanner"}

    def status(self) -> Mapping[str, Any]:
        return {"held": 3}

    def perform(self, unit: str, action: OpenDoor | Signal) -> str:
        self.asked.append((unit, action))
        return "" if unit in self.units else "unknown_unit"

    def open_doors(self, wanted: OpenManyDoors, told: Mapping[str, Any], until_ns: int) -> str:
        self.asked.append((wanted, until_ns))
        return "no_locker"

    def keeps(self, command: str) -> bool:
        return False

    def heed(self) -> None:
        self.asked.append("heed")

    def open_door(self, unit: str, door: int, told: Mapping[str, Any]) -> str:
        return self.perform(unit, OpenDoor(door=door))

    def dismiss_all(self, reason: str) -> None:
        self.asked.append(reason)

    def confirm_config(self, version: int, sha256: str) -> str:
        self.asked.append((version, sha256))
        return "" if version == 7 else "another_config"

    def resend(self, epoch: str | None, first: int, last: int) -> str:
        self.asked.append((epoch, first, last))
        return "" if epoch is None else "another_journal"

    def diagnose(self, command: str, lines: int) -> Mapping[str, Any]:
        return {"sha256": "0" * 64, "bytes": 1, "lines": lines}

    async def reload(self, kind: str | None) -> Mapping[str, int]:
        self.asked.append(kind)
        return {"roster": 3}

    async def rotate_keys(self, keys: Sequence[str] | None, why: str) -> tuple[int, str]:
        self.asked.append((keys, why))
        return (7, "") if keys else (0, "no_certificate")

    async def confirm_keys(self, request: int, chain: Sequence[str]) -> str:
        return "" if request == 7 else "not_asked"

    def reinstate(self, subject: str) -> Mapping[str, Any]:
        return {f"subject/{subject}": None}


class Device:
    """One life of a device after the other, on one folder."""

    def __init__(self, folder: Path, fleet: Authority, first: bytes, seal: X25519PrivateKey) -> None:
        self.fleet, self.first, self.seal = fleet, first, seal
        self.board, self.premises = Board(), Premises()
        self.corrections: list[Correction] = []
        self.heeded = 0
        self.wished: list[int] = []
        """Versions of the configs that were to be looked at."""
        self._folder = folder

    async def start(self) -> None:
        self.clock = self.board.clock()
        self.journal = Journal(self._folder / "journal.db", source="/postern/acme/locker-17")
        await self.journal.open()
        self.rows = Rows(self._folder / "roster.db", KEYS)
        self.bundles = Bundles(self.rows, self.seal, SELF.name, self.report)
        self.errands = Errands(self.journal, SELF.device, self.premises, self.stamp)
        trusted = Trusted.load(self.first, SELF, self.journal.records)
        self.post = Postbox(trusted, self.journal, self.bundles, self.errands, clock=self.clock, house=self)
        await self.post.restore()
        self.post.connected()

    async def stop(self) -> None:
        await self.journal.close()
        self.bundles.close()
        self.rows.close()

    # -- the app around it --

    def stamp(self) -> tuple[Moment, Mapping[str, Any]]:
        return self.clock.now(), {"position": None}

    def corrected(self, correction: Correction | None) -> None:
        self.corrections += [correction] if correction else []

    def heed(self) -> None:
        self.heeded += 1

    def wish(self, document: Document[Any]) -> None:
        self.wished.append(document.ver)

    def report(self, draft: Draft) -> asyncio.Future[None]:
        return self.journal.append([draft], *self.stamp())

    # -- what tests ask --

    async def told(self, *messages: tuple[str, bytes]) -> None:
        for name, raw in messages:
            await self.post.take(name, raw)

    async def entries(self, *types: str) -> list[dict[str, Any]]:
        """The data of entries of these types, in order."""
        await self.journal.alive()
        lines = await self.journal.read(0, entries=5000, size=10**8)
        read = [json.loads(each.line) for each in lines]
        return [each["data"] for each in read if each["type"].removeprefix("postern.") in types]

    async def fetch(self, pages: Mapping[str, bytes]) -> None:
        while wanted := self.post.wanted:
            for name in wanted:
                await self.post.take(name, pages[name.removeprefix("page/")])

    def knows(self, badge: bytes) -> bool:
        return self.rows.open("roster", "badge", badge) is not None


@dataclass
class Printed:
    """A roster of some badges: its list and its pages."""

    raw: bytes
    pages: dict[str, bytes] = field(default_factory=dict)


def roster(device: Device, ver: int, *badges: bytes, **claims: Any) -> Printed:
    recipient = Recipient(SELF.name, device.seal.public_key())
    rows = [RowOf("badge", badge, {"subject": f"drv-{badge.decode()}"}) for badge in badges]
    laid = seal_all("roster", rows, recipient, Epoch(1, bytes(32)), before=None, ver=ver)
    raw = device.fleet.made(Kind.BUNDLE, laid.body("depot-7", NOON), ver, **claims)
    return Printed(raw, {each.sha256: each.raw for each in laid.pages})


@pytest.fixture
async def device(tmp_path: Path) -> AsyncIterator[Device]:
    fleet = Authority()
    made = Device(tmp_path, fleet, fleet.root(), X25519PrivateKey.generate())
    await made.start()
    yield made
    await made.stop()


# -- documents --------------------------------------------------------------------------------------


async def test_a_roster_is_believed_fetched_and_then_makes_knowledge_fresh(device: Device) -> None:
    printed = roster(device, 1, b"a", b"b")
    head = device.fleet.head(1, {"bundle/roster": printed.raw})
    await device.told(("head", head), ("bundle/roster", printed.raw))
    assert device.post.knowledge_at() == NEVER, "its pages are not here"
    await device.fetch(printed.pages)
    assert device.post.knowledge_at() == NOON
    assert device.knows(b"a")
    assert device.post.status()["documents"] == {"bundle/roster": 1}
    accepted = await device.entries("fleet.head_accepted", "fleet.bundle_accepted")
    assert [each["name"] for each in accepted] == ["head", "bundle/roster"]


async def test_what_comes_before_its_head_waits_for_it(device: Device) -> None:
    printed = roster(device, 1, b"a")
    await device.told(("bundle/roster", printed.raw))
    assert device.post.status()["waiting"] == ["bundle/roster"]
    assert not await device.entries("fleet.bundle_refused"), "it is only early"
    await device.told(("head", device.fleet.head(1, {"bundle/roster": printed.raw})))
    await device.fetch(printed.pages)
    assert device.knows(b"a")
    assert device.post.status()["waiting"] == []


async def test_a_head_that_comes_before_its_root_waits_for_it(device: Device) -> None:
    device.fleet.rotate("head")
    root = device.fleet.root(2)
    await device.told(("head", device.fleet.head(1, {"root": root})))
    assert device.post.trusted.head is None
    await device.told(("root", root))
    assert device.post.trusted.complete


@pytest.mark.parametrize(
    "order", [("root", "head", "list"), ("list", "head", "root"), ("head", "list", "root")]
)
async def test_the_order_in_which_a_set_arrives_does_not_matter(
    device: Device, order: tuple[str, ...]
) -> None:
    device.fleet.rotate("head", "bundle")
    root, printed = device.fleet.root(2), roster(device, 1, b"a")
    head = device.fleet.head(1, {"root": root, "bundle/roster": printed.raw})
    told = {"root": ("root", root), "head": ("head", head), "list": ("bundle/roster", printed.raw)}
    await device.told(*(told[each] for each in order))
    await device.fetch(printed.pages)
    assert device.knows(b"a")


async def test_a_device_goes_on_where_it_was_stopped(device: Device) -> None:
    printed = roster(device, 1, b"a", b"b")
    head = device.fleet.head(1, {"bundle/roster": printed.raw})
    await device.told(("head", head), ("bundle/roster", printed.raw))
    first = device.post.wanted[0]
    await device.post.take(first, printed.pages[first.removeprefix("page/")])
    await device.stop()
    await device.start()
    assert device.post.trusted.complete
    await device.fetch(printed.pages)
    assert (device.knows(b"a"), device.post.knowledge_at()) == (True, NOON)
    assert len(await device.entries("fleet.root_pinned")) == 1, "it was pinned once, in its first life"


async def test_retained_documents_that_come_again_are_no_news(device: Device) -> None:
    printed = roster(device, 1, b"a")
    told = [("head", device.fleet.head(1, {"bundle/roster": printed.raw})), ("bundle/roster", printed.raw)]
    await device.told(*told)
    before = device.journal.last
    for _ in range(3):
        device.post.connected()
        await device.told(("root", device.first), *told)
    await device.journal.alive()
    assert device.journal.last == before


async def test_nothing_is_used_that_cannot_be_remembered(device: Device) -> None:
    await device.journal.close()
    lists = device.fleet.revocations(1, of={"subjects": ["drv-7"]})
    for message in (("revocations", lists), ("command", command(device, "locate", 1, unit="scanner"))):
        with pytest.raises(JournalFailed):
            await device.told(message)
    assert not device.post.is_revoked("drv-7", None)
    assert not device.premises.asked


async def test_the_text_that_the_head_names_is_remembered(device: Device) -> None:
    """It makes no entry, since nothing is new; but the set would not be complete without it."""
    lists = device.fleet.revocations(1, of={"subjects": ["drv-7"]})
    await device.told(("revocations", cosign(lists, fresh())))
    await device.told(("head", device.fleet.head(1, {"revocations": lists})), ("revocations", lists))
    await device.stop()
    await device.start()
    assert device.post.trusted.complete
    assert len(await device.entries("fleet.revocations_accepted")) == 1


async def test_revocations_are_in_force_at_once_and_after_every_start(device: Device) -> None:
    heeded = device.heeded
    await device.told(("revocations", device.fleet.revocations(1, of={"subjects": ["drv-7"]})))
    assert (device.post.is_revoked("drv-7", None), device.heeded) == (True, heeded + 1)
    await device.stop()
    await device.start()
    assert device.post.is_revoked("drv-7", None)


async def test_the_rows_of_a_stolen_bundle_key_go_with_it(device: Device) -> None:
    printed = roster(device, 1, b"thief")
    await device.told(("head", device.fleet.head(1, {"bundle/roster": printed.raw})))
    await device.told(("bundle/roster", printed.raw))
    await device.fetch(printed.pages)
    assert device.knows(b"thief")
    device.fleet.rotate("bundle")
    await device.told(("root", device.fleet.root(2)))
    assert not device.knows(b"thief")
    assert device.post.status()["documents"] == {}


async def test_another_root_put_here_by_hand_starts_anew(device: Device) -> None:
    printed = roster(device, 1, b"a")
    await device.told(("head", device.fleet.head(1, {"bundle/roster": printed.raw})))
    await device.told(("bundle/roster", printed.raw))
    await device.fetch(printed.pages)
    await device.stop()
    device.first = Authority().root()
    await device.start()
    assert (device.knows(b"a"), device.post.knowledge_at()) == (False, NEVER)
    assert len(await device.entries("fleet.root_pinned")) == 2
    assert not [key for key in device.journal.records if key.startswith("trust/doc/")]


# -- refusals ---------------------------------------------------------------------------------------


async def test_a_flood_of_refusals_is_counted_and_not_copied(device: Device) -> None:
    forged = Authority().revocations(1)
    for _ in range(1234):
        await device.told(("revocations", forged))
    told = await device.entries("fleet.revocations_refused")
    assert [each["times"] for each in told] == [1, 10, 100, 1000]
    assert {each["reason"] for each in told} == {"unknown_key"}
    device.post.connected()
    (counted,) = await device.entries("fleet.refusals_counted")
    assert counted["times"] == {"revocations: unknown_key": 1234}
    for _ in range(5):
        await device.told(("revocations", forged))
    assert len(await device.entries("fleet.revocations_refused")) == 5, "on a new connection it is told anew"
    device.post.connected()
    _, counted = await device.entries("fleet.refusals_counted")
    assert counted["times"] == {"revocations: unknown_key": 5}


async def test_what_is_refused_leaves_everything_as_it_was(device: Device) -> None:
    await device.told(("revocations", device.fleet.revocations(2, of={"subjects": ["drv-7"]})))
    before = device.post.trusted.dump()
    await device.told(("revocations", device.fleet.revocations(1)), ("head", b"nonsense"), ("down", b""))
    assert device.post.trusted.dump() == before
    refused = await device.entries("fleet.revocations_refused", "fleet.head_refused")
    assert [each["reason"] for each in refused] == ["rolled_back", "malformed"]


@pytest.mark.parametrize("another_head", [True, False])
async def test_what_no_head_names_is_refused_with_the_next_head_or_at_the_end(
    device: Device, another_head: bool
) -> None:
    """Mixed: a list of today beside the head of yesterday."""
    one, two = (device.fleet.bundle("grants", ver) for ver in (1, 2))
    await device.told(("head", device.fleet.head(1, {"bundle/grants": one})), ("bundle/grants", one))
    await device.told(("bundle/grants", two))
    assert not await device.entries("fleet.bundle_refused"), "its head may be on its way"
    if another_head:
        await device.told(("head", device.fleet.head(2, {"bundle/grants": one})))
    else:
        await device.post.take("root", device.first, via="ferry")
        device.post.connected()
    (refused,) = await device.entries("fleet.bundle_refused")
    assert (refused["reason"], refused["times"]) == ("not_in_head", 1)
    assert "via" not in refused, "it was the broker who brought it"
    assert device.post.status()["waiting"] == ([] if not another_head else ["bundle/grants"])
    assert refused["detail"] == "expected bundle/grants as the head has it (version 1), got 2"
    assert device.post.trusted.held["bundle/grants"].raw == one
    await device.told(("bundle/grants", two), ("head", device.fleet.head(3, {"bundle/grants": two})))
    assert device.post.trusted.held["bundle/grants"].raw == two


async def test_what_is_cleared_from_the_shelf_says_nothing(device: Device) -> None:
    before = device.journal.last
    await device.told(*((name, b"") for name in (*TOPICS, "page/" + "0" * 64)))
    await device.journal.alive()
    assert (device.journal.last, device.post.refused.total()) == (before, 0)


# -- frozen -----------------------------------------------------------------------------------------


async def test_yesterdays_head_again_and_again_lets_knowledge_grow_old(device: Device) -> None:
    head = device.fleet.head(1, {})
    authority = Standings(knowledge_at=device.post.knowledge_at)
    seen: list[Freshness | None] = []
    for _hour in range(8 * 24):
        device.board.ntp_age_s = 0.0
        device.clock.observe_ntp()
        device.post.connected()
        await device.told(("head", head))
        standing = authority.standing(device.clock.now())
        seen += [standing.freshness] if standing.freshness not in seen else []
        device.board.pass_time(3600)
    standing = authority.standing(device.clock.now())
    assert seen == [Freshness.FRESH, Freshness.GRACE, Freshness.STALE, Freshness.CLOSED]
    assert standing.age_s is not None
    assert standing.age_s > 7 * DAY


async def test_a_head_whose_documents_are_withheld_makes_nothing_fresh(device: Device) -> None:
    await device.told(("head", device.fleet.head(1, {})))
    first = device.post.knowledge_at()
    device.board.pass_time(3600)
    withheld = {"bundle/roster": (1, "0" * 64)}
    await device.told(("head", device.fleet.head(2, withheld, iat=NOON + 3600)))
    assert device.post.knowledge_at() == first
    printed = roster(device, 2, b"a", iat=NOON + 3600)
    await device.told(("head", device.fleet.head(3, {"bundle/roster": printed.raw}, iat=NOON + 3601)))
    await device.told(("bundle/roster", printed.raw))
    assert device.post.knowledge_at() == first, "its pages are withheld"
    await device.fetch(printed.pages)
    assert device.post.knowledge_at() == NOON + 3601


# -- time -------------------------------------------------------------------------------------------


def time_of(device: Device, nonce: str, utc_ns: int) -> bytes:
    return device.fleet.made(Kind.TIME, {"nonce": nonce, "utc": utc_ns // 1_000_000}, 1)


@pytest.mark.parametrize("off_s", [-20 * DAY, -3600, 3600, 3650 * DAY])
async def test_the_fleets_answer_sets_the_clock(device: Device, off_s: int) -> None:
    device.board.wall_ns = NOON_NS + off_s * NS
    device.board.ntp_age_s = None
    await device.stop()
    await device.start()
    nonce = device.post.ask()
    device.board.pass_time(2)
    await device.told(("time", time_of(device, nonce, NOON_NS)))
    now = device.clock.now()
    assert (now.trust, now.assured) == (Trust.FLEET, True)
    assert abs(now.utc_ns - NOON_NS) <= 1.1 * NS
    assert now.error_s is not None
    assert 1.0 <= now.error_s < 1.1
    assert device.corrections


async def test_an_answer_counts_once_in_time_and_for_the_last_question_alone(device: Device) -> None:
    old = device.post.ask()
    device.post.connected()
    nonce = device.post.ask()
    await device.told(("time", time_of(device, old, NOON_NS)))
    device.board.pass_time(SLOWEST_S + 1)
    await device.told(("time", time_of(device, nonce, NOON_NS)))
    nonce = device.post.ask()
    now_ns = device.clock.now().utc_ns
    await device.told(
        ("time", time_of(device, nonce, now_ns)), ("time", time_of(device, nonce, now_ns + 99 * NS))
    )
    assert device.clock.now().utc_ns < now_ns + 9 * NS, "a second answer is none"
    refused = await device.entries("fleet.time_refused")
    assert [(each["reason"], each["times"]) for each in refused] == [("replayed", 1), ("expired", 1)]


async def test_a_question_stands_until_it_is_answered_or_late_and_is_asked_anew_after_hours(
    device: Device,
) -> None:
    nonce = device.post.ask()
    assert device.post.ask() == nonce, "another birth message a moment later"
    device.board.pass_time(SLOWEST_S)
    late, nonce = nonce, device.post.ask()
    assert late != nonce
    await device.told(("time", time_of(device, nonce, device.clock.now().utc_ns)))
    device.board.pass_time(AGAIN_S - 1)
    assert (device.post.ask(), device.post.asks_again()) == (nonce, False)
    device.board.pass_time(1)
    assert device.post.asks_again()
    assert device.post.ask() != nonce
    assert not device.post.asks_again()


async def test_what_is_of_the_future_waits_until_the_clock_is_set(device: Device) -> None:
    """A month without power and without a battery: the floor is all that is known."""
    device.board.wall_ns, device.board.ntp_age_s = 0, None
    await device.stop()
    await device.start()
    assert device.clock.now().utc_ns == BUILT_UTC_NS
    head = device.fleet.head(1, {})
    await device.told(("head", head))
    assert device.post.trusted.head is None
    nonce = device.post.ask()
    await device.told(("time", time_of(device, nonce, NOON_NS + 60 * NS)))
    assert device.post.trusted.head is not None


async def test_what_was_signed_moves_a_clock_that_knows_nothing(device: Device) -> None:
    device.board.wall_ns, device.board.ntp_age_s = 0, None
    await device.stop()
    await device.start()
    built = BUILT_UTC_NS // NS
    await device.told(("head", device.fleet.head(1, {}, iat=built + 5 * DAY)))
    assert device.clock.now().utc_ns == BUILT_UTC_NS + 5 * DAY * NS
    await device.told(("head", device.fleet.head(2, {}, iat=built + 11 * DAY)))
    furthest = BUILT_UTC_NS + 7 * DAY * NS + device.board.mono_ns
    assert device.clock.now().utc_ns == device.clock.next_floor_ns == furthest


async def test_each_document_that_moves_the_clock_may_bring_in_what_was_of_the_future(device: Device) -> None:
    device.board.wall_ns, device.board.ntp_age_s = 0, None
    await device.stop()
    await device.start()
    built = BUILT_UTC_NS // NS
    root = device.fleet.root(2, iat=built + 12 * DAY)
    await device.told(("root", root), ("head", device.fleet.head(1, {}, iat=built + 9 * DAY)))
    assert device.post.status()["waiting"] == ["head", "root"]
    await device.told(("revocations", device.fleet.revocations(1, iat=built + 3 * DAY)))
    assert (device.post.status()["waiting"], device.post.trusted.root.raw) == ([], root)


@pytest.mark.parametrize("years", [-10, 10])
async def test_a_clock_that_somebody_has_set_revives_nothing_and_poisons_nothing(
    device: Device, years: int
) -> None:
    """Set back, what has expired stays so, by the floor; set ahead, the floor does not follow."""
    expired = device.fleet.head(1, {}, iat=NOON - 2 * DAY)
    device.clock.remember_floor(NOON_NS)
    device.board.wall_ns += years * 365 * DAY * NS
    device.clock.observe_ntp()
    await device.told(("head", expired))
    assert device.post.trusted.head is None
    assert device.clock.next_floor_ns <= NOON_NS + 8 * DAY * NS
    nonce = device.post.ask()
    await device.told(("time", time_of(device, nonce, NOON_NS + 60 * NS)))
    await device.told(("head", device.fleet.head(2, {})))
    assert device.post.trusted.head is not None


# -- commands ---------------------------------------------------------------------------------------


def command(device: Device, name: str, seq: int, rank: str = "A", **args: Any) -> bytes:
    body = {"class": rank, "name": name, "args": args, "operator": "op-1", "reason": "why"}
    return device.fleet.made(Kind.COMMAND, body, seq, exp_in=120)


async def test_commands_are_answered_by_what_came_of_them(device: Device) -> None:
    device.journal.ride({"subject/drv-7": {"failures": 50, "boot": "b", "mono_ns": 0}})
    await device.told(
        ("command", command(device, "status", 1)),
        ("command", command(device, "locate", 2, unit="scanner")),
        ("command", command(device, "locate", 3, unit="nothing")),
        ("command", command(device, "session_end", 4)),
        ("command", command(device, "checkpoint", 5)),
        ("command", command(device, "unlock_subject", 6, "B", subject="drv-7")),
        ("command", command(device, "open_door", 7, "C", unit="doors", door=1)),
        ("command", command(device, "resend", 8, first=5, last=9)),
        ("command", command(device, "resend", 9, first=5, last=9, epoch="another")),
        ("command", command(device, "reload_bundle", 10, "B", kind="roster")),
        ("command", command(device, "diagnostics", 11, lines=3)),
        ("command", command(device, "rotate_keys", 12, "B", keys=["certificate"])),
        ("command", command(device, "rotate_keys", 13, "B")),
        ("command", command(device, "confirm_keys", 14, "B", request=7, chain=["a", "b"])),
        ("command", command(device, "confirm_keys", 15, "B", request=8, chain=[])),
    )
    done = await device.entries("command.succeeded")
    assert [each["name"] for each in done] == [
        "status",
        "locate",
        "session_end",
        "checkpoint",
        "unlock_subject",
        "resend",
        "reload_bundle",
        "diagnostics",
        "rotate_keys",
        "confirm_keys",
    ]
    assert [done[number].get(name) for number, name in ((6, "counts"), (7, "lines"), (8, "request"))] == [
        {"roster": 3},
        3,
        7,
    ]
    assert done[9]["args"] == {"request": 7}, "a certificate is not told twice"
    assert done[0]["status"] == {"held": 3}
    failed = await device.entries("command.failed")
    assert [(each["name"], each["detail"]) for each in failed] == [
        ("locate", "unknown_unit"),
        ("open_door", "unknown_unit"),
        ("resend", "another_journal"),
        ("rotate_keys", "no_certificate"),
        ("confirm_keys", "not_asked"),
    ]
    assert (None, 5, 9) in device.premises.asked
    assert "command" in device.premises.asked
    assert "subject/drv-7" not in device.journal.records


async def test_a_repeated_command_is_answered_once_for_a_connection(device: Device) -> None:
    raw = command(device, "locate", 1, unit="scanner")
    for _ in range(50):
        await device.told(("command", raw))
    assert len(await device.entries("command.succeeded")) == 2
    assert len(device.premises.asked) == 1
    device.post.connected()
    await device.told(("command", raw))
    assert len(await device.entries("command.succeeded")) == 3


async def test_what_was_begun_in_another_life_is_reported_once(device: Device) -> None:
    device.premises.units.add("doors")
    await device.told(("command", command(device, "open_door", 1, "C", unit="doors", door=1)))
    for _ in range(2):
        await device.stop()
        await device.start()
    unknown = await device.entries("command.outcome_unknown")
    assert [each["name"] for each in unknown] == ["open_door"]


def doors(device: Device, *numbers: int) -> list[tuple[str, bytes]]:
    return [("command", command(device, "open_door", n, "C", unit="doors", door=n)) for n in numbers]


def ordered(device: Device) -> list[int]:
    return [action.door for _, action in device.premises.asked if isinstance(action, OpenDoor)]


async def test_doors_of_one_unit_are_opened_one_after_the_other(device: Device) -> None:
    device.premises.units.add("doors")
    await device.told(*doors(device, 1, 2, 3))
    assert ordered(device) == [1]
    device.errands.done("doors", ActionDone(action=OpenDoor(door=9), ok=True))
    device.errands.done("gate", ActionDone(action=OpenDoor(door=1), ok=True))
    assert ordered(device) == [1], "that was somebody else's"
    device.errands.done("doors", ActionDone(action=OpenDoor(door=1), ok=False, reason="silent", unknown=True))
    device.errands.done("doors", ActionDone(action=OpenDoor(door=2), ok=False, reason="refused"))
    device.errands.done("doors", ActionDone(action=OpenDoor(door=3), ok=True))
    assert ordered(device) == [1, 2, 3]
    told = await device.entries("command.succeeded", "command.failed", "command.outcome_unknown")
    assert [(each["args"]["door"], each["detail"]) for each in told] == [
        (1, "silent"),
        (2, "refused"),
        (3, ""),
    ]
    assert not unsettled(device.journal.records)


async def test_a_door_that_had_to_wait_past_its_time_stays_shut(device: Device) -> None:
    device.premises.units.add("doors")
    await device.told(*doors(device, 1, 2))
    device.board.pass_time(121)
    device.errands.done("doors", ActionDone(action=OpenDoor(door=1), ok=True))
    assert ordered(device) == [1]
    (failed,) = await device.entries("command.failed")
    assert (failed["args"]["door"], failed["detail"]) == (2, "expired")
