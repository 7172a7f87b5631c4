"""The fingerprint driver: who the module is, comparing, the ring light."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from drivers import driver_for
from drivers.base import ActionRefused, NoReply, Unsupported
from drivers.ef01 import index_digest
from drivers.r503 import R503Driver, R503Options, password_in
from drivers.readings import (
    CompareFinger,
    CompareResult,
    FingerCompared,
    Signal,
    Tone,
    Trigger,
)
from simulators.r503 import FingerprintModule, Instruction
from tests.finger_bench import (
    BREATHING_BLUE,
    DARK,
    FLASHING_BLUE,
    FLASHING_PURPLE,
    FLASHING_RED,
    LIFT,
    at_work,
    bench,
    module_of_two,
)


@pytest.fixture
def module(tmp_path: Path) -> FingerprintModule:
    return module_of_two(tmp_path)


# -- who it is ------------------------------------------------------------------------------------


def test_the_registry_knows_the_kind() -> None:
    assert driver_for("r503") is R503Driver


async def test_the_module_tells_what_it_is_and_which_slots_are_taken(module: FingerprintModule) -> None:
    module.capacity = 300
    module.teach(256, "carol")
    async with bench(module) as made:
        assert await made.driver.identify() == {
            "capacity": "300",
            "security": "3",
            "address": "ffffffff",
            "packet_bytes": "128",
            "baud": "57600",
            "templates": "3",
            "index": index_digest({5, 6, 256}),
            "model": "R5xx1111",
            "serial": "1111-10080307",
            "hardware": "1.1",
            "firmware": "1.0.1",
        }
        assert await made.driver.inventory() == {5, 6, 256}


@pytest.mark.parametrize("says", ["no", "nothing"])
async def test_a_module_without_maker_s_numbers_tells_the_rest(module: FingerprintModule, says: str) -> None:
    (module.lacks if says == "no" else module.ignores).add(Instruction.READ_PRODUCT)
    async with bench(module) as made:
        about = await made.driver.identify()
        assert about["templates"] == "2"
        assert not {"serial", "firmware"} & about.keys()


async def test_a_module_without_an_index_table_tells_the_rest(module: FingerprintModule) -> None:
    module.lacks.add(Instruction.READ_INDEX)
    async with bench(module) as made:
        about = await made.driver.identify()
        assert about["templates"] == "2"
        assert "index" not in about


async def test_the_boot_byte_is_tolerated_and_counted(module: FingerprintModule) -> None:
    async with bench(module) as made:
        module.powered()
        await made.driver.identify()
        assert made.driver.noise == {"skipped_bytes": 1}


async def test_a_module_that_is_still_waking_is_asked_again(module: FingerprintModule) -> None:
    async with bench(module) as made:
        module.doze()
        assert (await made.driver.identify())["capacity"] == "200"


async def test_a_password_opens_the_module(tmp_path: Path) -> None:
    module = FingerprintModule(tmp_path / "finger", password=0xCAFE4711)
    async with bench(module, password=0xCAFE4711) as made:
        assert (await made.driver.identify())["templates"] == "0"


async def test_a_wrong_password_is_said_and_not_shown(tmp_path: Path) -> None:
    module = FingerprintModule(tmp_path / "finger", password=1)
    async with bench(module, password=0xCAFE4711) as made:
        with pytest.raises(NoReply, match=r"^wrong password$"):
            await made.driver.identify()


async def test_a_silent_module_is_named_without_quoting_the_password(module: FingerprintModule) -> None:
    module.faults.mute = True
    async with bench(module, password=0xCAFE4711, answer_within=0.04) as made:
        with pytest.raises(NoReply, match=r"^no answer at any line speed$") as caught:
            await made.driver.identify()
        assert caught.value.__context__ is None


async def test_a_module_that_answers_the_password_only_is_not_there(module: FingerprintModule) -> None:
    module.ignores.add(Instruction.READ_SYS_PARA)
    async with bench(module, answer_within=0.04) as made:
        with pytest.raises(NoReply):
            await made.driver.identify()


async def test_a_module_that_refuses_its_parameters_is_not_used(module: FingerprintModule) -> None:
    module.lacks.add(Instruction.READ_SYS_PARA)
    async with bench(module) as made:
        with pytest.raises(NoReply):
            await made.driver.identify()


async def test_a_module_at_another_line_speed_is_found(module: FingerprintModule) -> None:
    module.baud = 115200
    async with bench(module, answer_within=0.05) as made:
        assert (await made.driver.identify())["baud"] == "115200"


async def test_a_module_at_another_address_is_not_ours(module: FingerprintModule) -> None:
    async with bench(module, address=0x01020304, answer_within=0.04) as made:
        with pytest.raises(NoReply):
            await made.driver.identify()


@pytest.mark.parametrize(
    "content",
    [b"", b"cafe471", b"cafe47110", b"0xcafe47", b"+cafe471", b"ca fe 47", b"ca_fe_47", b"\xff" * 8],
)
def test_what_is_no_password_in_its_file_is_refused_and_not_quoted(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "password"
    path.write_bytes(content)
    with pytest.raises(ActionRefused) as refused:
        password_in(path)
    assert str(refused.value) == f"{path}: expected 8 hex digits, got something else"
    path.write_bytes(b"CAFE4711\r\n")
    assert password_in(path) == 0xCAFE4711


def test_the_password_is_in_no_text() -> None:
    options = R503Options.model_validate({"password": 0xCAFE4711})
    assert str(0xCAFE4711) not in f"{options} {options!r}"
    with pytest.raises(ValidationError) as caught:
        R503Options.model_validate({"password": 0xCAFE47110})
    assert str(0xCAFE47110) not in str(caught.value)


# -- comparing ------------------------------------------------------------------------------------


async def test_the_right_finger_matches(module: FingerprintModule) -> None:
    async with at_work(module) as made:
        module.touch("alice")
        assert await made.compare() == FingerCompared(slot=5, result=CompareResult.MATCHED, score=120)
        assert module.light == [BREATHING_BLUE, DARK]


async def test_a_wrong_finger_does_not(module: FingerprintModule) -> None:
    async with at_work(module) as made:
        module.touch("bob")
        assert await made.compare() == FingerCompared(slot=5, result=CompareResult.NOT_MATCHED, score=8)
        assert module.light == [BREATHING_BLUE, DARK]


@pytest.mark.parametrize(("score", "result"), [(49, CompareResult.NOT_MATCHED), (50, CompareResult.MATCHED)])
async def test_a_match_counts_from_the_configured_score(
    module: FingerprintModule, score: int, result: CompareResult
) -> None:
    module.match_score = score
    async with at_work(module) as made:
        module.touch("alice")
        assert await made.compare() == FingerCompared(slot=5, result=result, score=score)


@pytest.mark.parametrize(("code", "slot"), [(0x0C, 9), (0x22, 9), (0x0B, 200)])
async def test_an_empty_slot_looks_like_a_wrong_finger(
    module: FingerprintModule, code: int, slot: int
) -> None:
    module.empty_code = code
    async with at_work(module) as made:
        module.touch("alice")
        assert (await made.compare(slot)).result is CompareResult.EMPTY_SLOT
        assert module.light == [BREATHING_BLUE, DARK]


async def test_nobody_touching_is_told_in_time(module: FingerprintModule) -> None:
    async with at_work(module) as made:
        assert (await made.compare(within=0.1)).result is CompareResult.NO_FINGER
        assert module.light == [BREATHING_BLUE, DARK]


async def test_a_finger_that_comes_late_is_waited_for(module: FingerprintModule) -> None:
    async with at_work(module) as made:
        task = made.start(CompareFinger(slot=5))
        await module.asked_for(Instruction.GEN_IMG)
        module.touch("alice")
        await task
        assert made.readings.qsize() == 1


@pytest.mark.parametrize("code", [0x06, 0x07, 0x15])
async def test_a_poor_image_is_taken_again(module: FingerprintModule, code: int) -> None:
    module.poor_next, module.poor_code = 2, code
    async with at_work(module) as made:
        module.touch("alice")
        assert (await made.compare()).result is CompareResult.MATCHED


async def test_poor_images_only_are_told_as_such(module: FingerprintModule) -> None:
    module.poor_next = 3
    async with at_work(module) as made:
        module.touch("alice")
        assert (await made.compare()).result is CompareResult.POOR_IMAGE
        assert module.light == [BREATHING_BLUE, DARK]


async def test_a_poor_image_at_the_last_moment_is_not_an_absent_finger(module: FingerprintModule) -> None:
    module.poor_next = 1
    async with at_work(module) as made:
        module.touch("alice")
        assert (await made.compare(within=0.0)).result is CompareResult.POOR_IMAGE


async def test_a_resting_finger_is_reported_once(module: FingerprintModule) -> None:
    async with at_work(module) as made:
        module.touch("alice")
        assert (await made.compare()).result is CompareResult.MATCHED
        assert (await made.compare(within=0.1)).result is CompareResult.NO_FINGER


async def test_a_finger_lifted_and_laid_down_again_is_reported_again(module: FingerprintModule) -> None:
    async with at_work(module) as made:
        module.touch("alice")
        await made.compare()
        module.light.clear()
        task = made.start(CompareFinger(slot=5))
        await module.asked_for(Instruction.GEN_IMG)
        module.lift()
        await module.asked_for(Instruction.GEN_IMG)
        assert made.readings.empty()
        module.touch("alice")
        await task
        assert made.readings.qsize() == 1
        assert module.light == [LIFT, BREATHING_BLUE, DARK]


async def test_two_comparisons_at_once_take_turns(module: FingerprintModule) -> None:
    async with at_work(module) as made:
        first = made.start(CompareFinger(slot=5))
        second = made.start(CompareFinger(slot=6))
        await module.asked_for(Instruction.GEN_IMG)
        module.touch("alice")
        await first
        await module.asked_for(Instruction.GEN_IMG)
        module.lift()
        await module.asked_for(Instruction.GEN_IMG)
        module.touch("bob")
        await second
        for slot in (5, 6):
            matched = FingerCompared(slot=slot, result=CompareResult.MATCHED, score=120)
            assert made.readings.get_nowait() == matched


async def test_a_sensor_fault_refuses_the_action(module: FingerprintModule) -> None:
    module.refusals[Instruction.GEN_IMG] = 0x29
    async with at_work(module) as made:
        with pytest.raises(ActionRefused, match="GenImg: sensor_fault"):
            await made.compare()
        assert module.light == [BREATHING_BLUE, DARK]


@pytest.mark.parametrize("slot", [-1, 65536])
async def test_a_slot_no_module_has_is_refused(module: FingerprintModule, slot: int) -> None:
    async with bench(module) as made:
        with pytest.raises(ActionRefused, match=f"expected a slot from 0 to 65535, got {slot}"):
            await made.compare(slot)


# -- the ring light -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tone", "look"),
    [(Tone.GOOD, FLASHING_BLUE), (Tone.BAD, FLASHING_RED), (Tone.ASK, FLASHING_PURPLE)],
)
async def test_tones_are_colours_of_the_ring(
    module: FingerprintModule, tone: Tone, look: tuple[int, int, int, int]
) -> None:
    async with at_work(module) as made:
        await made.driver.perform(Signal(tone=tone))
        assert module.light == [look]


async def test_a_module_without_a_ring_compares_in_the_dark(tmp_path: Path) -> None:
    module = FingerprintModule(tmp_path / "finger", lacks_aura=True)
    module.teach(5, "alice")
    async with at_work(module) as made:
        module.touch("alice")
        assert (await made.compare()).result is CompareResult.MATCHED
        with pytest.raises(Unsupported, match="no ring light"):
            await made.driver.perform(Signal(tone=Tone.GOOD))


async def test_a_module_that_ignores_the_ring_command_compares_too(module: FingerprintModule) -> None:
    module.ignores.add(Instruction.AURA_LED)
    async with at_work(module, answer_within=0.05) as made:
        module.touch("alice")
        assert (await made.compare()).result is CompareResult.MATCHED
        with pytest.raises(Unsupported, match="no ring light"):
            await made.driver.perform(Signal(tone=Tone.GOOD))


async def test_a_ring_that_once_answered_is_not_given_up(module: FingerprintModule) -> None:
    async with at_work(module, answer_within=0.04) as made:
        await made.driver.perform(Signal(tone=Tone.GOOD))
        module.ignores.add(Instruction.AURA_LED)
        assert (await made.compare(within=0.0)).result is CompareResult.NO_FINGER
        module.ignores.clear()
        await made.driver.perform(Signal(tone=Tone.BAD))
        assert module.light == [FLASHING_BLUE, FLASHING_RED]


async def test_what_a_fingerprint_module_cannot_do_is_unsupported(module: FingerprintModule) -> None:
    async with at_work(module) as made:
        with pytest.raises(Unsupported, match="r503 cannot Trigger"):
            await made.driver.perform(Trigger(pulled=True))
