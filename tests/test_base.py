"""What every driver stands on: the frame codec and the dialogue."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from drivers.base import (
    UNASKED,
    ActionRefused,
    BadFrame,
    Dialogue,
    Driver,
    FrameCodec,
    NoReply,
    Options,
    Unsupported,
)
from drivers.port import Address, PortGone, open_port
from drivers.readings import Signal, Tone
from simulators.base import VirtualDevice
from tests.codec_law import obey

# A frame is "<<", one byte of length, so many bytes, and their sum; or "!!" alone.


class Plain(FrameCodec[bytes]):
    HEADERS = (b"<<", b"!!")
    LIMIT = 64

    def measure(self, head: bytes) -> int | None:
        if head.startswith(b"!!"):
            return 2
        if len(head) < 3:
            return None
        if head[2] == 0:
            raise BadFrame("length")
        return head[2] + 4

    def decode(self, raw: bytes) -> bytes:
        if raw == b"!!":
            return raw
        if sum(raw[3:-1]) % 256 != raw[-1]:
            raise BadFrame("checksum")
        return raw[3:-1]


class Endless(Plain):
    """Never says how long its frame is."""

    def measure(self, head: bytes) -> int | None:
        return None


def frame(text: bytes) -> bytes:
    return b"<<" + bytes([len(text)]) + text + bytes([sum(text) % 256])


# -- the codec --------------------------------------------------------------------------------------


def test_the_frame_codec_obeys_the_law() -> None:
    texts = (b"a", b"hello", b"x" * 60, bytes(range(100, 150)))
    over_long = b"<<" + bytes([61]) + b"x" * 61 + b"\0"
    obey(
        Plain,
        [(frame(text), text) for text in texts],
        checksummed=True,
        limit=Plain.LIMIT,
        over_long=over_long,
    )


@pytest.mark.parametrize(
    ("data", "frames", "noise"),
    [
        (b"", [], {}),
        (b"noise", [], {"skipped_bytes": 5}),
        (b"noise" + frame(b"a"), [b"a"], {"skipped_bytes": 5}),
        (b"noise<", [], {"skipped_bytes": 5}),
        (frame(b"a") + b"!!" + frame(b"b"), [b"a", b"!!", b"b"], {}),
        (b"<<\x00" + frame(b"a"), [b"a"], {"length": 1, "skipped_bytes": 2}),
        (b"<<\x01ab" + frame(b"a"), [b"a"], {"checksum": 1, "skipped_bytes": 4}),
        (b"<<\xff" + frame(b"a"), [b"a"], {"too_long": 1, "skipped_bytes": 2}),
        (b"<<<" + frame(b"a"), [], {}),
    ],
)
def test_noise_is_skipped_and_counted_by_reason(
    data: bytes, frames: list[bytes], noise: dict[str, int]
) -> None:
    codec = Plain()
    assert codec.feed(data) == frames
    assert codec.noise == Counter(noise)


def test_a_frame_that_never_says_its_length_is_not_waited_for_without_end() -> None:
    codec = Endless()
    for _ in range(1000):
        assert codec.feed(b"<<" + b"x" * 30) == []
        assert len(codec._buffer) <= Endless.LIMIT
    assert codec.noise["too_long"] > 0


def test_half_a_frame_is_held_until_it_is_reset_and_then_counted() -> None:
    codec = Plain()
    held = [codec.waiting]
    for step in (lambda: codec.feed(frame(b"hello")[:4]), codec.reset, codec.reset):
        step()
        held.append(codec.waiting)
    assert held == [False, True, False, False]
    assert codec.noise == Counter(half_frame=1)
    # And no trace of it is left.
    assert codec.feed(frame(b"a")) == [b"a"]


# -- the dialogue -----------------------------------------------------------------------------------


class Answering(VirtualDevice):
    """Answers each question with what it was told to say."""

    def __init__(self, name: Path) -> None:
        super().__init__(name)
        self.heard = bytearray()
        self.answer: Callable[[bytes], bytes] = lambda question: frame(question)
        self.news = asyncio.Event()

    def received(self, data: bytes) -> None:
        self.heard += data
        self.news.set()
        self.send(self.answer(data))

    async def asked(self, count: int = 1) -> None:
        async with asyncio.timeout(10):
            while len(self.heard) < count:
                self.news.clear()
                await self.news.wait()


class Talk:
    def __init__(self, device: Answering, dialogue: Dialogue[bytes], codec: Plain) -> None:
        self.device, self.dialogue, self.codec = device, dialogue, codec


@asynccontextmanager
async def talking(tmp_path: Path, **more: Any) -> AsyncIterator[Talk]:
    with Answering(tmp_path / "device") as device:
        port = await open_port(Address.parse(str(device.name)), baud=9600)
        try:
            codec = Plain()
            yield Talk(device, Dialogue(port, codec, **{"within": 5.0, **more}), codec)
        finally:
            port.close()


def equals(*texts: bytes) -> Callable[[bytes], bool]:
    return lambda frame: frame in texts


async def running(work: Awaitable[bytes | None]) -> "asyncio.Task[bytes | None]":
    async def wait() -> bytes | None:
        return await work

    task = asyncio.create_task(wait())
    await asyncio.wait([task], timeout=0)
    return task


async def test_a_question_gets_its_answer_and_the_rest_is_for_the_listener(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        talk.device.answer = lambda question: frame(b"news") + frame(question) + frame(b"more")
        assert await talk.dialogue.ask(b"q", equals(b"q")) == b"q"
        assert await talk.dialogue.listen(5) == b"news"
        assert await talk.dialogue.listen(5) == b"more"


async def test_silence_is_heard_as_nothing(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        assert await talk.dialogue.listen(0.01) is None


async def test_half_a_frame_stirs(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        assert not await talk.dialogue.stirred(0.01)
        waiting = asyncio.create_task(talk.dialogue.stirred(10))
        talk.device.send(frame(b"news")[:-1])
        assert await waiting
        assert await talk.dialogue.listen(0.01) is None


async def test_what_came_beside_an_answer_is_not_slept_over(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        talk.device.answer = lambda question: frame(b"news") + frame(question)
        assert await talk.dialogue.ask(b"q", equals(b"q")) == b"q"
        assert await talk.dialogue.stirred(0)
        assert await talk.dialogue.listen(0) == b"news"


async def test_a_listener_and_a_question_share_one_port(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        listening = await running(talk.dialogue.listen(5))
        assert await talk.dialogue.ask(b"q", equals(b"q")) == b"q"
        assert not listening.done()
        talk.device.send(frame(b"news"))
        assert await listening == b"news"


async def test_a_question_goes_on_when_the_listener_that_read_for_it_is_gone(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        talk.device.answer = lambda _: b""
        listening = await running(talk.dialogue.listen(5))
        asking = await running(talk.dialogue.ask(b"q", equals(b"a")))
        await talk.device.asked()
        listening.cancel()
        await asyncio.wait([listening])
        talk.device.send(frame(b"a"))
        assert await asking == b"a"


async def test_questions_take_turns(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        answers = await asyncio.gather(
            *[talk.dialogue.ask(bytes([n]), equals(bytes([n]))) for n in range(1, 9)]
        )
        assert answers == [bytes([n]) for n in range(1, 9)]
        assert talk.device.heard == bytes(range(1, 9))


async def test_a_question_is_repeated_as_often_as_allowed_and_then_given_up(tmp_path: Path) -> None:
    async with talking(tmp_path, within=0.01, tries=3) as talk:
        talk.device.answer = lambda _: b""
        with pytest.raises(NoReply, match="no answer to a question of 6 bytes"):
            await talk.dialogue.ask(b"secret", equals(b"a"))
        await talk.device.asked(18)
        assert talk.device.heard == b"secret" * 3
        with pytest.raises(NoReply):
            await talk.dialogue.ask(b"again", equals(b"a"), tries=1)
        await talk.device.asked(23)
        assert talk.device.heard == b"secret" * 3 + b"again"


async def test_after_a_question_without_answer_the_next_is_answered(tmp_path: Path) -> None:
    async with talking(tmp_path, within=0.05) as talk:
        talk.device.faults.drop_next = 1
        with pytest.raises(NoReply):
            await talk.dialogue.ask(b"q", equals(b"q"))
        assert await talk.dialogue.ask(b"q", equals(b"q"), within=5) == b"q"


async def test_a_stale_answer_is_not_taken_for_the_next_questions(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        talk.device.send(frame(b"stale"))
        talk.device.answer = lambda _: frame(b"fresh")
        assert await talk.dialogue.ask(b"q", equals(b"stale", b"fresh")) == b"fresh"
        assert await talk.dialogue.listen(5) == b"stale"


async def test_an_answer_that_is_half_there_when_its_time_is_over_is_still_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with talking(tmp_path, within=0.05) as talk:
        monkeypatch.setattr(Dialogue, "SETTLE", 5.0)
        talk.device.answer = lambda _: frame(b"answer")[:5]
        asking = await running(talk.dialogue.ask(b"q", equals(b"answer")))
        # Longer than the answer may take: by now it waits for the other half.
        await asyncio.wait([asking], timeout=0.2)
        talk.device.send(frame(b"answer")[5:])
        assert await asking == b"answer"


async def test_garbage_that_looks_like_a_header_costs_no_question(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        talk.device.send(b"<<\x20garbage")
        assert await talk.dialogue.ask(b"q", equals(b"q")) == b"q"
        assert talk.codec.noise == Counter(half_frame=1)


async def test_what_nobody_listens_to_is_bounded_and_counted(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        talk.device.answer = lambda q: b"".join(frame(b"%03d" % n) for n in range(UNASKED + 10)) + frame(q)
        assert await talk.dialogue.ask(b"q", equals(b"q")) == b"q"
        assert talk.codec.noise == Counter(unheard=10)
        assert await talk.dialogue.listen(5) == b"010"


async def test_what_gets_no_answer_is_only_told(tmp_path: Path) -> None:
    async with talking(tmp_path, gap=0.001) as talk:
        talk.device.answer = lambda _: b""
        await talk.dialogue.tell(b"now")
        await talk.device.asked(3)
        assert talk.device.heard == b"now"


async def test_a_question_given_up_lets_the_next_one_through(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        talk.device.faults.mute = True
        asking = await running(talk.dialogue.ask(b"q", equals(b"q")))
        await talk.device.asked()
        asking.cancel()
        await asyncio.wait([asking])
        talk.device.faults.mute = False
        assert await talk.dialogue.ask(b"r", equals(b"r")) == b"r"


async def test_everyone_who_waits_learns_of_the_loss(tmp_path: Path) -> None:
    async with talking(tmp_path) as talk:
        talk.device.faults.mute = True
        listening = await running(talk.dialogue.listen(5))
        asking = await running(talk.dialogue.ask(b"q", equals(b"q")))
        await talk.device.asked()
        talk.device.unplug()
        for waiting in (listening, asking):
            with pytest.raises(PortGone):
                await waiting


# -- the driver -------------------------------------------------------------------------------------


class Dumb(Driver):
    kind = "dumb"

    @property
    def noise(self) -> Counter[str]:
        return Counter()

    async def identify(self) -> dict[str, str]:
        return {}

    async def run(self) -> None:
        await asyncio.Future()


async def test_what_a_driver_cannot_do_it_refuses_in_words(tmp_path: Path) -> None:
    async def ignore(_: object) -> None:
        return

    with Answering(tmp_path / "device") as device:
        port = await open_port(Address.parse(str(device.name)), baud=9600)
        with pytest.raises(Unsupported, match="dumb cannot Signal"):
            await Dumb(port, ignore, Options()).perform(Signal(tone=Tone.GOOD))
        port.close()
    assert issubclass(Unsupported, ActionRefused)
