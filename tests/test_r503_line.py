"""The fingerprint driver on a bad line, with a module that restarts, falls silent or is unplugged."""

import asyncio
from pathlib import Path

import pytest

from drivers.base import ActionRefused, NoReply
from drivers.port import PortGone
from drivers.readings import (
    CompareFinger,
    CompareResult,
    DeleteFinger,
    FingerCompared,
)
from simulators.base import Faults
from simulators.r503 import FingerprintModule, Instruction, Mishap
from tests.finger_bench import (
    DARK,
    at_work,
    bench,
    module_of_two,
)


@pytest.fixture
def module(tmp_path: Path) -> FingerprintModule:
    return module_of_two(tmp_path)


LINES = {
    "byte by byte": Faults(byte_gap=-1),
    "garbage": Faults(garbage=b"\x99\x55\xef\x00"),
    "half a header": Faults(garbage=b"\xef\x01"),
    "everything twice": Faults(twice_next=1000),
    "echo": Faults(echo=True),
    "slow": Faults(delay=0.01),
}


@pytest.mark.parametrize("line", LINES)
async def test_a_bad_line_changes_nothing(tmp_path: Path, line: str) -> None:
    module = FingerprintModule(tmp_path / "finger", LINES[line])
    module.teach(5, "alice")
    async with at_work(module) as made:
        module.touch("alice")
        assert (await made.compare()).result is CompareResult.MATCHED


@pytest.mark.parametrize("mishap", Mishap)
@pytest.mark.parametrize(
    "instruction",
    [Instruction.AURA_LED, Instruction.GEN_IMG, Instruction.IMG2TZ, Instruction.LOAD_CHAR, Instruction.MATCH],
)
async def test_one_spoilt_answer_costs_one_question(
    module: FingerprintModule, instruction: int, mishap: Mishap
) -> None:
    async with at_work(module, answer_within=0.05) as made:
        module.mishaps[instruction] = mishap
        module.touch("alice")
        assert (await made.compare()).result is CompareResult.MATCHED
        assert not module.mishaps


@pytest.mark.parametrize("instruction", [Instruction.GEN_IMG, Instruction.IMG2TZ])
async def test_a_late_yes_is_not_taken_for_a_later_commands(
    module: FingerprintModule, instruction: int
) -> None:
    """Else the template of whoever came before would stay in the buffer, and an empty slot would match."""
    async with at_work(module, answer_within=0.05) as made:
        module.touch("alice")
        assert (await made.compare(5)).result is CompareResult.MATCHED
        module.lift()
        task = made.start(CompareFinger(slot=9))
        await module.asked_for(Instruction.GEN_IMG)
        module.mishaps[instruction] = Mishap.LATE
        module.touch("alice")
        await task
        assert made.readings.get_nowait() == FingerCompared(slot=9, result=CompareResult.EMPTY_SLOT)


async def test_a_false_header_costs_one_question(module: FingerprintModule) -> None:
    async with at_work(module, answer_within=0.05) as made:
        module.faults.garbage = bytes.fromhex("EF01 FFFFFFFF 07 0080")
        module.touch("alice")
        task = made.start(CompareFinger(slot=5))
        await module.asked_for(Instruction.AURA_LED)
        module.faults.garbage = b""
        await task
        assert made.readings.qsize() == 1
        assert made.driver.noise["half_frame"] == 1


async def test_a_module_that_slept_gets_its_password_again(module: FingerprintModule) -> None:
    module.wake_needs_password = True
    async with at_work(module, answer_within=0.05) as made:
        module.doze()
        module.touch("alice")
        assert (await made.compare()).result is CompareResult.MATCHED


async def test_must_verify_is_answered_with_the_password_and_the_question(
    module: FingerprintModule,
) -> None:
    module.wake_needs_password = True
    async with at_work(module) as made:
        module.powered()
        module.touch("alice")
        assert (await made.compare()).result is CompareResult.MATCHED


async def test_a_restart_that_forgot_the_image_makes_a_new_one(module: FingerprintModule) -> None:
    async with at_work(module) as made:
        module.refusals[Instruction.IMG2TZ] = 0x21
        module.touch("alice")
        assert (await made.compare()).result is CompareResult.MATCHED


@pytest.mark.parametrize("instruction", [Instruction.LOAD_CHAR, Instruction.MATCH])
async def test_a_restart_that_forgot_the_finger_is_no_verdict(
    module: FingerprintModule, instruction: int
) -> None:
    async with at_work(module) as made:
        module.refusals[instruction] = 0x21
        module.touch("alice")
        with pytest.raises(ActionRefused, match="must_verify_password"):
            await made.compare()
        assert made.readings.empty()


async def test_a_deaf_module_is_noticed_by_the_heartbeat(module: FingerprintModule) -> None:
    async with bench(module, heartbeat=0.05, answer_within=0.04) as made:
        await made.driver.identify()
        task = made.run()
        await module.asked_for(Instruction.READ_SYS_PARA)
        module.faults.mute = True
        with pytest.raises(NoReply, match="no answer to ReadSysPara"):
            await task


async def test_frames_nobody_asked_for_are_counted_and_do_not_put_off_the_heartbeat(
    module: FingerprintModule,
) -> None:
    async with at_work(module, heartbeat=0.05) as made:
        await module.asked_for(Instruction.READ_SYS_PARA)
        module.send(bytes.fromhex("EF01 FFFFFFFF 07 0003 00 000A"))
        await module.asked_for(Instruction.READ_SYS_PARA)
        await module.asked_for(Instruction.READ_SYS_PARA)
        assert made.driver.noise == {"unasked": 1}


async def test_a_module_that_falls_silent_in_a_comparison_is_told(module: FingerprintModule) -> None:
    async with at_work(module, answer_within=0.04) as made:
        module.faults.mute = True
        with pytest.raises(NoReply, match="no answer to GenImg"):
            await made.compare()


async def test_unplugging_in_the_middle_of_a_command_is_noticed_at_once(module: FingerprintModule) -> None:
    async with bench(module, answer_within=2.0) as made:
        await made.driver.identify()
        running = made.run()
        module.ignores.add(Instruction.GEN_IMG)
        task = made.start(CompareFinger(slot=5))
        await module.asked_for(Instruction.GEN_IMG)
        module.unplug()
        for lost in (task, running):
            with pytest.raises(PortGone):
                await lost


@pytest.mark.parametrize(
    "instruction", [Instruction.GEN_IMG, Instruction.IMG2TZ, Instruction.LOAD_CHAR, Instruction.MATCH]
)
async def test_a_comparison_cut_short_leaves_the_module_usable(
    module: FingerprintModule, instruction: int
) -> None:
    async with at_work(module) as made:
        module.mishaps[instruction] = Mishap.LATE
        module.touch("alice")
        task = made.start(CompareFinger(slot=5))
        await module.asked_for(instruction)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert module.light[-1] == DARK
        module.lift()
        again = made.start(CompareFinger(slot=6))
        await module.asked_for(Instruction.GEN_IMG)
        await module.asked_for(Instruction.GEN_IMG)
        module.touch("bob")
        await again
        assert made.readings.get_nowait() == FingerCompared(slot=6, result=CompareResult.MATCHED, score=120)
        assert made.readings.empty()


async def test_the_late_yes_to_a_cancelled_question_is_not_taken_for_the_next(
    module: FingerprintModule,
) -> None:
    module.lacks.add(Instruction.AURA_LED)  # else putting out the light would be the next question
    async with at_work(module) as made:
        module.mishaps[Instruction.LOAD_CHAR] = Mishap.LATE
        module.touch("alice")
        task = made.start(CompareFinger(slot=5))
        await module.asked_for(Instruction.LOAD_CHAR)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(ActionRefused, match="no_such_slot"):
            await made.driver.perform(DeleteFinger(slot=200))


async def test_cancelling_at_a_mute_module_does_not_wait_for_it(module: FingerprintModule) -> None:
    async with at_work(module, answer_within=0.1) as made:
        task = made.start(CompareFinger(slot=5))
        await module.asked_for(Instruction.GEN_IMG)
        module.faults.mute = True
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
