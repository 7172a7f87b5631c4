"""Words to a card through a real reader: what a card may do with its answers, and what it may not."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from drivers.base import NoReply
from drivers.isodep import LONGEST, Answer, Card, CardSilent, CardSlow
from drivers.pn532_dialogue import Pn532Dialogue
from drivers.port import Address, open_port
from simulators.pn532 import Pn532Reader, frame

SELECT = (0x00, 0xA4, 0x04, 0x00)


class Puppet:
    """A card that says what the test wants; None is nothing at all."""

    uid = b"\x01\x02\x03\x04"
    sak = 0x20
    ats = b""

    def __init__(self, says: Callable[[bytes], bytes | None]) -> None:
        self.says = says
        self.told: list[bytes] = []

    def ask(self, apdu: bytes, answer: Callable[[bytes], None]) -> None:
        self.told.append(apdu)
        if (said := self.says(apdu)) is not None:
            answer(said)

    def lose_power(self) -> None:
        """It has nothing to forget."""


class Odd(Pn532Reader):
    """A reader that says the same of every exchange, whatever the card has answered."""

    odd = b""

    def _hand_out(self, turn: int, said: bytes) -> None:
        self._answer(turn, b"\x41" + self.odd if self.odd else said)


@contextlib.asynccontextmanager
async def reading(
    folder: Path, card: Puppet, reader: Pn532Reader | None = None
) -> AsyncIterator[tuple[Pn532Reader, Pn532Dialogue]]:
    """A chip that has activated the card."""
    with reader or Pn532Reader(folder / "cards") as reader:
        reader.present(card)
        port = await open_port(Address.parse(str(reader.name)), baud=115200)
        with contextlib.closing(port):
            chip = Pn532Dialogue(port)
            await chip.wake()
            assert (await chip.command(0x4A, b"\x01\x00", within=1.0))[0] == 1
            yield reader, chip


async def test_what_does_not_fit_one_answer_is_fetched_as_often_as_the_card_says(tmp_path: Path) -> None:
    parts = iter([b"ab\x61\x02", b"cd\x61\x00", b"ef\x90\x00"])
    card = Puppet(lambda _: next(parts))
    async with reading(tmp_path, card) as (_, chip):
        assert await Card(chip, 2.0).tell(*SELECT, b"x") == Answer(b"abcdef", 0x9000)
        assert card.told[1:] == [bytes.fromhex("00 C0 00 00 02"), bytes.fromhex("00 C0 00 00 00")]


async def test_a_chained_command_ends_with_the_part_that_the_card_refuses(tmp_path: Path) -> None:
    card = Puppet(lambda apdu: b"\x69\x85" if apdu[0] & 0x10 else b"\x90\x00")
    async with reading(tmp_path, card) as (_, chip):
        assert await Card(chip, 2.0).tell(*SELECT, bytes(300)) == Answer(b"", 0x6985)
        assert len(card.told) == 1


ENDLESS = {
    "more for ever": lambda _: b"x" * 250 + b"\x61\x00",
    "more, and nothing comes": lambda _: b"\x61\x00",
    "no status word": lambda _: b"\x90",
    "nothing": lambda _: b"",
}


@pytest.mark.parametrize("says", ENDLESS.values(), ids=ENDLESS.keys())
async def test_an_answer_that_has_no_end_is_none(
    tmp_path: Path, says: Callable[[bytes], bytes | None]
) -> None:
    card = Puppet(says)
    async with reading(tmp_path, card) as (_, chip):
        with pytest.raises(CardSilent, match=r"^expected ") as silent:
            await Card(chip, 60.0).tell(*SELECT)
        assert not isinstance(silent.value, CardSlow), "long before its time was up"
        assert len(card.told) <= LONGEST // 250 + 2


@pytest.mark.parametrize("part", [b"", b"x"])
async def test_parts_of_the_chip_without_an_end_are_no_answer(tmp_path: Path, part: bytes) -> None:
    board = Odd(tmp_path / "cards")
    board.odd = b"\x40" + part * 200
    async with reading(tmp_path, Puppet(lambda _: b"\x90\x00"), board) as (_, chip):
        with pytest.raises(CardSilent, match=r"^expected "):
            await Card(chip, 60.0).tell(*SELECT)


@pytest.mark.parametrize("status", [0x01, 0x13, 0x27, 0x3F, 0x41])
async def test_an_error_of_the_chip_is_no_answer_whatever_follows_it(tmp_path: Path, status: int) -> None:
    board = Odd(tmp_path / "cards")
    board.odd = bytes([status]) + b"\x90\x00"
    async with reading(tmp_path, Puppet(lambda _: b"\x90\x00"), board) as (_, chip):
        with pytest.raises(CardSilent, match=f"^the chip reports error {status & 0x3F:02x}$"):
            await Card(chip, 2.0).tell(*SELECT)


async def test_a_card_that_stalls_costs_its_time_and_not_the_reader(tmp_path: Path) -> None:
    """What it says when nobody waits any longer is nobody's answer."""
    card = Puppet(lambda _: None)
    async with reading(tmp_path, card) as (reader, chip):
        stalled = Card(chip, 0.2)
        with pytest.raises(CardSlow):
            await stalled.tell(*SELECT)
        with pytest.raises(CardSlow, match="its time is up"):
            await stalled.tell(*SELECT)
        reader.send(frame(b"\x41\x00late\x90\x00"))
        card.says = lambda _: b"prompt\x90\x00"
        assert (await Card(chip, 2.0).tell(*SELECT)).data == b"prompt"
        assert reader.aborts >= 1


async def test_a_card_that_says_a_byte_at_a_time_has_no_more_time_than_others(tmp_path: Path) -> None:
    async with reading(tmp_path, Puppet(lambda _: b"x\x61\x01")) as (_, chip):
        with pytest.raises(CardSlow):
            await Card(chip, 0.2).tell(*SELECT)


async def test_words_to_a_card_are_never_sent_twice(tmp_path: Path) -> None:
    """The card may have heard them, though nothing came back."""
    async with reading(tmp_path, Puppet(lambda _: b"\x90\x00")) as (reader, chip):
        reader.deaf_to = 0x40
        with pytest.raises(NoReply, match="command 40 was not acknowledged"):
            await Card(chip, 5.0).tell(*SELECT)
        assert len(reader.unheard) == 1


async def test_a_cancelled_exchange_is_called_off_before_the_next(tmp_path: Path) -> None:
    card = Puppet(lambda _: None)
    async with reading(tmp_path, card) as (reader, chip):
        asking = asyncio.create_task(Card(chip, 5.0).tell(*SELECT))
        reader.heard.clear()
        await reader.heard.wait()
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        aborted = reader.aborts
        assert await chip.command(0x02, within=1.0)
        assert reader.aborts == aborted + 1
