"""The fingerprint driver teaching fingers to slots and forgetting them."""

from pathlib import Path

import pytest

from drivers.base import ActionRefused
from drivers.readings import (
    DeleteFinger,
    EnrolFinger,
    FingerEnrolled,
)
from simulators.r503 import FingerprintModule, Instruction, Mishap
from tests.finger_bench import (
    BREATHING_BLUE,
    FLASHING_BLUE,
    FLASHING_RED,
    LIFT,
    at_work,
    module_of_two,
)


@pytest.fixture
def module(tmp_path: Path) -> FingerprintModule:
    return module_of_two(tmp_path)


async def lay_down_twice(module: FingerprintModule, first: str, second: str) -> None:
    module.touch(first)
    await module.asked_for(Instruction.IMG2TZ)
    await module.asked_for(Instruction.GEN_IMG)
    module.lift()
    await module.asked_for(Instruction.GEN_IMG)
    module.touch(second)


async def test_a_finger_laid_down_twice_is_enrolled(module: FingerprintModule) -> None:
    async with at_work(module) as made:
        made.start(EnrolFinger(slot=7))
        await lay_down_twice(module, "carol", "carol")
        assert await made.enrolled() == FingerEnrolled(slot=7, ok=True)
        assert module.templates[7] == "carol"
        await module.asked_for(Instruction.AURA_LED)
        assert module.light == [BREATHING_BLUE, LIFT, BREATHING_BLUE, FLASHING_BLUE]


async def test_two_different_fingers_are_not_enrolled(module: FingerprintModule) -> None:
    async with at_work(module) as made:
        made.start(EnrolFinger(slot=7))
        await lay_down_twice(module, "carol", "dave")
        assert await made.enrolled() == FingerEnrolled(slot=7, ok=False, reason="fingers_differ")
        assert 7 not in module.templates
        await module.asked_for(Instruction.AURA_LED)
        assert module.light[-1] == FLASHING_RED


async def test_a_taken_slot_is_not_overwritten(module: FingerprintModule) -> None:
    async with at_work(module) as made:
        await made.driver.perform(EnrolFinger(slot=5))
        assert await made.enrolled() == FingerEnrolled(slot=5, ok=False, reason="slot_taken")


async def test_enrolling_without_a_finger_ends_in_time(module: FingerprintModule) -> None:
    async with at_work(module) as made:
        await made.driver.perform(EnrolFinger(slot=7, within=0.1))
        assert await made.enrolled() == FingerEnrolled(slot=7, ok=False, reason="no_finger")


async def test_a_module_that_cannot_enrol_says_why(module: FingerprintModule) -> None:
    module.lacks.add(Instruction.REG_MODEL)
    async with at_work(module) as made:
        made.start(EnrolFinger(slot=7))
        await lay_down_twice(module, "carol", "carol")
        assert await made.enrolled() == FingerEnrolled(slot=7, ok=False, reason="RegModel: unsupported")


@pytest.mark.parametrize("mishap", [Mishap.LOST, Mishap.BAD_SUM, Mishap.LATE])
async def test_an_unanswered_store_is_looked_up_and_not_repeated(
    module: FingerprintModule, mishap: Mishap
) -> None:
    module.mishaps[Instruction.STORE] = mishap
    async with at_work(module, answer_within=0.05) as made:
        made.start(EnrolFinger(slot=7))
        await lay_down_twice(module, "carol", "carol")
        await module.asked_for(Instruction.STORE)
        # A second Store would be refused, and with that be seen.
        module.refusals[Instruction.STORE] = 0x18
        assert await made.enrolled() == FingerEnrolled(slot=7, ok=True)
        assert Instruction.STORE in module.refusals


async def test_a_store_that_never_happened_is_told(module: FingerprintModule) -> None:
    module.ignores.add(Instruction.STORE)
    async with at_work(module, answer_within=0.05) as made:
        made.start(EnrolFinger(slot=7))
        await lay_down_twice(module, "carol", "carol")
        assert await made.enrolled() == FingerEnrolled(slot=7, ok=False, reason="not_stored")


async def test_a_template_is_deleted(module: FingerprintModule) -> None:
    async with at_work(module) as made:
        await made.driver.perform(DeleteFinger(slot=5))
        assert await made.driver.inventory() == {6}


async def test_an_unanswered_delete_is_looked_up(module: FingerprintModule) -> None:
    module.mishaps[Instruction.DELETE_CHAR] = Mishap.LOST
    async with at_work(module, answer_within=0.05) as made:
        await made.driver.perform(DeleteFinger(slot=5))
        assert 5 not in module.templates


async def test_a_delete_that_never_happened_is_refused(module: FingerprintModule) -> None:
    module.ignores.add(Instruction.DELETE_CHAR)
    async with at_work(module, answer_within=0.05) as made:
        with pytest.raises(ActionRefused, match="not_deleted"):
            await made.driver.perform(DeleteFinger(slot=5))


async def test_deleting_a_slot_the_module_has_not_is_refused(module: FingerprintModule) -> None:
    async with at_work(module) as made:
        with pytest.raises(ActionRefused, match="DeletChar: no_such_slot"):
            await made.driver.perform(DeleteFinger(slot=200))
