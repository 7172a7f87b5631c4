"""Modbus RTU relay boards (Waveshare and clones): relays that feed solenoids, inputs that see doors.

A relay board knows no locks. Its pulse is a relay that closes and opens again, and the board times that
itself ("flash", coil 0200 and on, in tenths of a second), so that whatever happens to us no solenoid is left
burning. Boards with firmware from before September 2021 (V1) have no such pulse: for them alone the relay
is closed and opened by two commands, and read back.

Relays are opened whenever a board begins to answer, and a relay found closed for longer than any pulse may
last is opened and counted. Nothing is written before that to a board that may be none of ours.
"""

import asyncio
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from drivers.base import ActionRefused, Emit, Link, NoReply, Options
from drivers.boards import BoardsDriver
from drivers.doors import LONGEST_PULSE_MS, AsTables, Board, BusOptions, Fact, Levels, bits_of
from drivers.modbus import (
    ERROR,
    READ_COILS,
    READ_INPUTS,
    READ_REGISTERS,
    READS,
    ModbusCodec,
    Pdu,
    read,
    write_coil,
    write_coils,
)

FLASH_ON = 0x0200
"""Coil to write so that relay 1 closes for so many tenths of a second."""
TENTH_MS = 100
VERSION = 0x8000
"""Register of the firmware's version in hundredths; boards of other makers have none."""
TIMED_SINCE = 200
SLACK_S = 0.5
"""How much later than it happened a relay may be seen to open."""


class RelayBoard(Board):
    address: int = Field(ge=1, le=247)
    locks: int = Field(default=8, ge=1, le=32)
    """Relays that feed a solenoid, from the first on."""
    contacts: int = Field(default=0, ge=0, le=32)
    """Inputs that are the contacts of the first so many doors, from the first input on."""
    inputs: int = Field(default=0, ge=0, le=32)
    """Inputs after those that are nothing of a door's: tamper switches and the like."""
    polarity: Literal["1_closed", "0_closed"] = "1_closed"

    @property
    def plain_inputs(self) -> int:
        return self.inputs

    @model_validator(mode="after")
    def _contacts_have_doors(self) -> Self:
        if self.contacts > self.locks:
            raise ValueError(f"at most one contact for each of {self.locks} locks")
        return self


class ModbusRelayOptions(BusOptions):
    boards: Annotated[tuple[RelayBoard, ...], AsTables] = (RelayBoard(address=1),)
    pulse_ms: int = Field(default=500, ge=TENTH_MS, le=LONGEST_PULSE_MS)
    """How long a solenoid is fed; boards count in tenths of a second, upwards."""


class ModbusRelayDriver(BoardsDriver[Pdu, RelayBoard]):
    """One bus of relay boards."""

    kind: ClassVar[str] = "modbus_relay"
    OptionsType: ClassVar[type[Options]] = ModbusRelayOptions

    def __init__(self, link: Link, emit: Emit, options: ModbusRelayOptions) -> None:
        addresses = [board.address for board in options.boards]
        super().__init__(link, emit, options, ModbusCodec(addresses))
        self._untimed: set[int] = set()
        """Boards that cannot time a pulse."""
        self._closed_since: dict[tuple[int, int], float] = {}

    async def levels(self, board: RelayBoard) -> Levels:
        coils = await self._bits(board, READ_COILS, board.locks)
        await self._cut(board, coils)
        levels = {Fact.SOLENOID: coils}
        if count := board.contacts + board.inputs:
            inputs = await self._bits(board, READ_INPUTS, count)
            levels |= {Fact.CONTACT: inputs[: board.contacts], Fact.INPUT: inputs[board.contacts :]}
        return levels

    async def prepare(self, board: RelayBoard) -> None:
        """Open all relays, and find out whether the board can time a pulse. Raises NoReply."""
        try:
            await self._write(write_coils(board.address, 0, [False] * board.locks), tries=3)
        except ActionRefused:
            for relay in range(board.locks):
                await self._write(write_coil(board.address, relay, 0), tries=3)
        closed = await self._bits(board, READ_COILS, board.locks)
        if any(closed):
            raise NoReply(f"board {board.address} does not open its relays")
        if await self._version(board) < TIMED_SINCE:
            self._untimed.add(board.address)

    async def pulse(self, board: RelayBoard, lock: int, pulse_ms: int | None) -> bool:
        length_ms = self.on_ms(pulse_ms)
        if board.address not in self._untimed:
            tenths = -(-length_ms // TENTH_MS)
            try:
                await self._write(write_coil(board.address, FLASH_ON + lock - 1, tenths), tries=1)
            except ActionRefused:
                # An error is an answer: no relay has moved, and the same order may be carried out by hand.
                self._untimed.add(board.address)
            else:
                return True
        await self._close_for(board, lock - 1, length_ms / 1000)
        return True

    def on_ms(self, pulse_ms: int | None) -> int:
        return pulse_ms or int(self.options.pulse_ms)

    def check_pulse(self, pulse_ms: int | None) -> None:
        if pulse_ms is not None and not TENTH_MS <= pulse_ms <= LONGEST_PULSE_MS:
            raise ActionRefused(f"expected a pulse of {TENTH_MS} to {LONGEST_PULSE_MS} ms, got {pulse_ms}")

    def answers_for(self, frame: Pdu) -> int | None:
        return frame.address if frame.function in READS else None

    # -- relays -----------------------------------------------------------------------------------

    async def _close_for(self, board: RelayBoard, relay: int, seconds: float) -> None:
        """Without an answer the relay may have closed: it is opened in any case, also when cancelled."""
        try:
            await self._write(write_coils(board.address, relay, [True]), tries=1)
            await asyncio.sleep(seconds)
        finally:
            await self._open_relay(board, relay)

    async def _open_relay(self, board: RelayBoard, relay: int) -> None:
        """Raises NoReply if it does not open; then it is tried again at every look."""
        await self._write(write_coils(board.address, relay, [False]), tries=3)
        if (await self._bits(board, READ_COILS, board.locks))[relay]:
            raise NoReply(f"relay {relay + 1} of board {board.address} stays closed")

    async def _cut(self, board: RelayBoard, coils: Sequence[bool]) -> None:
        """Open what has been closed for longer than any pulse."""
        for relay, closed in enumerate(coils):
            key = (board.address, relay)
            if not closed or board.address not in self._answering:
                self._closed_since.pop(key, None)
            elif self._now() - self._closed_since.setdefault(key, self._now()) > self._too_long_s:
                self.noise["relay_cut"] += 1
                await self._write(write_coils(board.address, relay, [False]), tries=1)

    @property
    def _too_long_s(self) -> float:
        return LONGEST_PULSE_MS / 1000 + SLACK_S

    # -- asking -----------------------------------------------------------------------------------

    async def _version(self, board: RelayBoard) -> int:
        """In hundredths; that of a board that times pulses where it does not say."""
        try:
            answer = await self._ask(read(board.address, READ_REGISTERS, VERSION, 1), size=2)
        except (NoReply, ActionRefused):
            return TIMED_SINCE
        return int.from_bytes(answer.data)

    async def _bits(self, board: RelayBoard, function: int, count: int) -> tuple[bool, ...]:
        answer = await self._ask(read(board.address, function, 0, count), size=(count + 7) // 8)
        return bits_of(answer.data, count)

    async def _ask(self, question: Pdu, *, size: int) -> Pdu:
        """The answer to a read, of `size` bytes."""
        return _checked(
            await self.dialogue.ask(
                question.encode(), lambda frame: _is_answer(question, frame) and _has_size(frame, size)
            )
        )

    async def _write(self, command: Pdu, *, tries: int) -> None:
        """Raises ActionRefused where the board refuses, NoReply where it says nothing."""
        copy = command.data[:4]
        answer = await self.dialogue.ask(
            command.encode(),
            lambda frame: _is_answer(command, frame) and (frame.function >= ERROR or frame.data == copy),
            tries=tries,
        )
        _checked(answer)


def _is_answer(question: Pdu, frame: Pdu) -> bool:
    return frame.address == question.address and frame.function & ~ERROR == question.function


def _has_size(frame: Pdu, size: int) -> bool:
    return frame.function >= ERROR or len(frame.data) == size


def _checked(answer: Pdu) -> Pdu:
    if answer.function >= ERROR:
        raise ActionRefused(f"board {answer.address} answered with exception {answer.data.hex()}")
    return answer
