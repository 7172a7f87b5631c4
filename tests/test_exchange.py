"""What two agents say to each other over a line, where somebody breaks it off, and where one of them lies."""

import asyncio
import hashlib
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from agent import cargo
from agent.cargo import Label
from agent.exchange import DATA, DONE, HELLO, OFFER, PIECE, REST_TICKS, TAKE, Exchange
from agent.ferry import Ferry
from agent.workflow import Draft
from drivers.ferry import FerryCodec
from drivers.readings import PeerSaid, TellPeer

VAN, LOCKER, OTHER = (Label("parcels", name) for name in ("van-0042", "locker-07", "locker-08"))


class Taken:
    """Who takes documents, and believes each."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.refused: Counter[tuple[str, str]] = Counter()
        self.wanted: Sequence[str] = ()

    async def take(self, name: str, raw: bytes, via: str | None = None) -> None:
        self.names.append(name)


class End:
    """One agent's end of the line, and all that it has said and not been heard to say."""

    def __init__(self, folder: Path, label: Label) -> None:
        self.state, self.label, self.post = folder / label.device, label, Taken()
        self.entries: list[Draft] = []
        self.start()

    def start(self) -> None:
        """As after a crash: what lies in the folder is all that is left."""
        self.said: list[TellPeer] = []
        self.ferry = Ferry(self.state, self.label, 64, post=lambda: self.post, report=self._report)
        self.exchange = Exchange(self.state, self.label, self.ferry, self.said.append)

    def _report(self, draft: Draft) -> asyncio.Future[None]:
        self.entries.append(draft)
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        done.set_result(None)
        return done

    async def load(self, label: Label, size: int = 3 * PIECE) -> bytes:
        """Take a cargo for somebody on board; its bytes."""
        path = self.state / "ferry" / "in" / f"{size}.cargo"
        cargo.write(path, label, [("head", b"h" * size)])
        whole = path.read_bytes()
        assert await self.ferry.look() == {"loaded": 1}
        return whole

    async def hear(self, kind: int, body: bytes) -> list[tuple[int, bytes]]:
        """What is answered to one frame."""
        self.said.clear()
        await self.exchange.heard(PeerSaid(kind=kind, body=body))
        return [(said.kind, said.body) for said in self.said]

    async def meet(self, label: Label) -> list[tuple[int, bytes]]:
        return await self.hear(HELLO, json.dumps({"tenant": label.tenant, "device": label.device}).encode())

    def told(self) -> list[str]:
        return [entry.type for entry in self.entries]


async def talk(one: End, other: End, frames: int = 1000) -> int:
    """Both say hello and go on until neither has more to say, or the line is cut; how many frames passed."""
    one.exchange.tick()
    other.exchange.tick()
    over = 0
    while one.said or other.said:
        for speaker, hearer in ((one, other), (other, one)):
            said, speaker.said[:] = [*speaker.said], []
            for each in said:
                if over == frames:
                    one.said.clear()
                    other.said.clear()
                    return over
                over += 1
                await hearer.exchange.heard(PeerSaid(kind=each.kind, body=each.body))
    return over


@pytest.fixture
def van(tmp_path: Path) -> End:
    return End(tmp_path, VAN)


@pytest.fixture
def locker(tmp_path: Path) -> End:
    return End(tmp_path, LOCKER)


def offer(whole: bytes, size: int | None = None) -> bytes:
    return hashlib.sha256(whole).digest() + (len(whole) if size is None else size).to_bytes(4, "big")


def partial(end: End, whole: bytes) -> Path:
    path = end.state / "ferry" / "partial" / hashlib.sha256(whole).hexdigest()
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


async def test_each_has_what_the_other_carried_and_lets_go_of_what_was_taken(van: End, locker: End) -> None:
    await van.load(LOCKER)
    await locker.load(VAN)
    await talk(van, locker)
    assert van.post.names == locker.post.names == ["head"]
    assert van.ferry.on_board() == locker.ferry.on_board() == {}
    assert Counter(van.told()) == {"ferry.loaded": 1, "ferry.unloaded": 1, "ferry.handed_over": 1}


async def test_wherever_the_line_is_cut_it_goes_on_from_there(van: End, locker: End) -> None:
    whole = await van.load(LOCKER, 6 * PIECE)
    frames = -(-len(whole) // PIECE) * 2 + 4
    over = 0
    for cut in range(frames):
        over += await talk(van, locker, cut)
        van.start()
        locker.start()
        if locker.post.names:
            break
    assert locker.post.names == ["head"], f"{frames} frames are enough for one who has not begun anew"
    await talk(van, locker)
    assert van.ferry.on_board() == {}


async def test_what_came_whole_before_a_crash_is_taken_though_there_is_nothing_left_to_send(
    van: End, locker: End
) -> None:
    whole = await van.load(LOCKER)
    partial(locker, whole).write_bytes(whole)
    await talk(van, locker)
    assert locker.post.names == ["head"]
    assert van.ferry.on_board() == {}


@pytest.mark.parametrize("rubbish", [b"x" * 1000, b"x" * 100_000])
async def test_what_a_hostile_end_has_left_under_its_name_costs_half_a_minute(
    van: End, locker: End, rubbish: bytes
) -> None:
    whole = await van.load(LOCKER)
    partial(locker, whole).write_bytes(rubbish)
    await talk(van, locker)
    assert locker.post.names == []
    for _ in range(REST_TICKS):
        await talk(van, locker)
    assert locker.post.names == ["head"]


async def test_over_a_line_comes_only_what_is_for_this_device(van: End, locker: End) -> None:
    """An honest end offers nothing else; a hostile one would put its own in the place of what is on board."""
    good = await van.load(OTHER)
    path = van.state.parent / "evil.cargo"
    cargo.write(path, OTHER, [("head", b"nothing")])
    evil = path.read_bytes()
    await van.meet(LOCKER)
    assert await van.hear(OFFER, offer(evil)) == [(TAKE, offer(evil, 0))]
    assert await van.hear(DATA, offer(evil, 0) + evil) == []
    assert van.ferry.on_board() == {OTHER.device: len(good)}
    assert van.entries[-1].type == "ferry.refused"
    assert van.entries[-1].data["reason"] == "expected cargo for van-0042, got some for locker-08"


async def test_a_hostile_end_is_heard_for_one_cargo_every_half_a_minute(locker: End) -> None:
    await locker.meet(VAN)
    for number in range(100):
        rubbish = b"%d" % number
        if await locker.hear(OFFER, offer(rubbish)):
            await locker.hear(DATA, offer(rubbish, 0) + rubbish)
        locker.exchange.tick()
    assert locker.told() == ["ferry.refused"] * -(-100 // REST_TICKS)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (HELLO, b"[" * 900),
        (HELLO, b'{"tenant": "parcels", "device": 7}'),
        (HELLO, b'{"tenant": "others", "device": "locker-07"}'),
        (HELLO, b'{"tenant": "parcels", "device": "../locker-07"}'),
        (OFFER, bytes(36)),
        (OFFER, bytes(32) + b"\xff" * 4),
        (OFFER, b""),
        (TAKE, bytes(36)),
        (DATA, bytes(40)),
        (DONE, bytes(32)),
        (99, b"?"),
    ],
)
async def test_what_makes_no_sense_is_nothing(van: End, kind: int, body: bytes) -> None:
    await van.load(LOCKER)
    assert await van.hear(kind, body) == []
    assert list(van.ferry.on_board()) == [LOCKER.device]


async def test_nothing_is_handed_out_or_let_go_of_to_somebody_else(van: End) -> None:
    whole = await van.load(LOCKER)
    for stranger in ((), (OTHER,)):
        for label in stranger:
            assert await van.meet(label) == []
        assert await van.hear(TAKE, offer(whole, 0)) == []
        assert await van.hear(DONE, hashlib.sha256(whole).digest()) == []
    assert list(van.ferry.on_board()) == [LOCKER.device]


async def test_a_disk_without_room_is_asked_again(van: End, locker: End) -> None:
    await van.load(LOCKER)
    in_the_way = locker.state / "ferry" / "partial"
    in_the_way.parent.mkdir(parents=True)
    in_the_way.write_bytes(b"a file where a folder should be")
    await talk(van, locker)
    assert locker.post.names == []
    in_the_way.unlink()
    await talk(van, locker)
    assert locker.post.names == ["head"]


async def test_a_piece_that_comes_twice_or_out_of_turn_is_kept_once(van: End, locker: End) -> None:
    whole = await van.load(LOCKER)
    await locker.meet(VAN)
    await locker.hear(OFFER, offer(whole))
    for offset in (PIECE, 0, 0, 2 * PIECE, 0, PIECE):
        await locker.hear(DATA, offer(whole, offset) + whole[offset : offset + PIECE])
    assert partial(locker, whole).read_bytes() == whole[: 2 * PIECE]


async def test_the_example_on_the_page_of_drivers_is_what_is_said(tmp_path: Path) -> None:
    text = (Path(__file__).parent.parent / "drivers/README.md").read_text()
    block = text.partition("with a head that says `eyJ`:\n\n")[2].partition("\n\n")[0]
    said = FerryCodec().feed(bytes.fromhex("".join(re.findall("[0-9a-f]{20,}", block))))
    acme = [Label("acme", name) for name in ("van-0042", "locker-07")]
    van, locker = (End(tmp_path, label) for label in acme)
    path = van.state / "ferry" / "in" / "1.cargo"
    cargo.write(path, acme[1], [("head", b"eyJ")])
    await van.ferry.look()
    hello, *rest = said
    assert json.loads(hello[1]) == {"tenant": "acme", "device": "locker-07"}
    for asks, heard, answer in zip((van, locker) * 2, said, rest, strict=False):
        assert await asks.hear(*heard) == [answer]
        await locker.meet(acme[0])
    assert locker.post.names == ["head"]
