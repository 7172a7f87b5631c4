"""A line without its echo: what is taken off it, and what must not be."""

import asyncio
import random

import pytest

from drivers.bus import QuietLink

QUESTION = bytes.fromhex("8A 01 02 11 98")
OTHER = bytes.fromhex("8A 01 02 00 89")


class Memory:
    """A link that hears what a test says."""

    path = "memory"

    def __init__(self) -> None:
        self.arrived: asyncio.Queue[bytes] = asyncio.Queue()
        self.written: list[bytes] = []
        self.baud = 0

    async def read(self) -> bytes:
        return await self.arrived.get()

    async def write(self, data: bytes) -> None:
        self.written.append(data)

    def pending(self) -> bytes:
        return b"" if self.arrived.empty() else self.arrived.get_nowait()

    def set_baud(self, baud: int) -> None:
        self.baud = baud


def heard(line: QuietLink, memory: Memory, *cuts: bytes) -> bytes:
    got = b""
    for cut in cuts:
        memory.arrived.put_nowait(cut)
        got += line.pending()
    return got


@pytest.mark.parametrize(
    ("heard_back", "passed", "echoes"),
    [
        (QUESTION, b"", True),
        (QUESTION + OTHER, OTHER, True),
        (QUESTION + QUESTION, QUESTION, True),  # the answer "still closed" is a copy of the command
        (b"\x00" + QUESTION + OTHER, b"\x00" + OTHER, True),
        (b"\xff\x00\x00\x00" + QUESTION, b"\xff\x00\x00\x00", True),
        (b"\x8a" + QUESTION + OTHER, b"\x8a" + OTHER, True),  # noise that looks like the beginning
        (OTHER, OTHER, False),
        (OTHER + QUESTION, OTHER + QUESTION, False),
        (b"\x01\x02\x03\x04\x05" + QUESTION, b"\x01\x02\x03\x04\x05" + QUESTION, False),
        (b"\x01\x02\x03\x04\x05\x8a", b"\x01\x02\x03\x04\x05\x8a", False),
    ],
)
async def test_one_echo_is_taken_off_the_line_however_it_is_cut(
    heard_back: bytes, passed: bytes, echoes: bool
) -> None:
    chance = random.Random(3)
    for _ in range(20):
        memory = Memory()
        line = QuietLink(memory)
        await line.write(QUESTION)
        at = sorted(chance.sample(range(len(heard_back) + 1), 2))
        assert (
            heard(line, memory, heard_back[: at[0]], heard_back[at[0] : at[1]], heard_back[at[1] :]) == passed
        )
        line.judge()
        assert line.echoes is echoes


async def test_a_line_without_an_echo_keeps_an_answer_that_is_a_copy() -> None:
    memory = Memory()
    line = QuietLink(memory)
    await line.write(QUESTION)
    heard(line, memory, OTHER)
    line.judge()
    await line.write(QUESTION)
    assert heard(line, memory, QUESTION) == QUESTION


async def test_a_line_with_an_echo_takes_off_every_one_and_waits_for_more_than_that() -> None:
    memory = Memory()
    line = QuietLink(memory)
    for _ in range(3):
        await line.write(QUESTION)
        memory.arrived.put_nowait(QUESTION)
        memory.arrived.put_nowait(OTHER)
        assert await line.read() == OTHER
        line.judge()
    assert line.echoes


async def test_the_echo_of_an_earlier_question_is_not_waited_for_after_the_next() -> None:
    memory = Memory()
    line = QuietLink(memory)
    await line.write(OTHER)
    heard(line, memory, OTHER[:3])
    await line.write(QUESTION)
    assert heard(line, memory, QUESTION + OTHER) == OTHER


async def test_another_line_speed_begins_anew() -> None:
    memory = Memory()
    line = QuietLink(memory)
    await line.write(QUESTION)
    line.set_baud(9600)
    assert memory.baud == 9600
    assert line.path == "memory"
    assert heard(line, memory, QUESTION) == QUESTION
