"""The fingerprint driver storing templates that were made elsewhere."""

import asyncio
from pathlib import Path

import pytest

from drivers.base import ActionRefused
from drivers.ef01 import ANY_MODULE, Ef01Codec, Pid, data_packets, encode
from drivers.port import PortGone
from drivers.readings import CompareResult, SlotsListed, StoreTemplate
from simulators.base import Faults
from simulators.r503 import FingerprintModule, Instruction, Mishap, template_of
from tests.finger_bench import at_work, bench, module_of_two

CAROL = StoreTemplate(slot=7, template=template_of("carol"))


@pytest.fixture
def module(tmp_path: Path) -> FingerprintModule:
    return module_of_two(tmp_path)


async def test_a_stored_template_is_compared_like_any_other(module: FingerprintModule) -> None:
    async with at_work(module) as made:
        await made.driver.perform(CAROL)
        assert module.templates == {5: "alice", 6: "bob", 7: "carol"}
        module.touch("carol")
        assert (await made.compare(7)).result is CompareResult.MATCHED
        module.lift()
        assert not made.driver.noise


async def test_the_taken_slots_are_listed_once_after_every_opening(module: FingerprintModule) -> None:
    async with at_work(module) as made:
        assert await made.listed.get() == SlotsListed(slots=frozenset({5, 6}))
        await made.driver.perform(CAROL)
        assert made.listed.empty()


async def test_a_module_without_an_index_lists_nothing(module: FingerprintModule) -> None:
    module.lacks.add(Instruction.READ_INDEX)
    async with at_work(module) as made:
        with pytest.raises(ActionRefused, match="ReadIndexTable: unsupported"):
            await made.driver.perform(CAROL)
        assert made.listed.empty()


def test_no_template_is_shown_by_what_carries_it() -> None:
    assert "carol" not in repr(CAROL)
    assert "carol" not in repr(list(data_packets(CAROL.template, 32)))


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_a_template_is_cut_to_the_size_of_packets_and_its_end_is_marked(size: int) -> None:
    packets = list(data_packets(CAROL.template, size))
    assert [packet.pid for packet in packets] == [Pid.DATA] * (1536 // size - 1) + [Pid.END_OF_DATA]
    line = b"".join(encode(packet, ANY_MODULE) for packet in packets)
    assert b"".join(frame.content for frame in Ef01Codec().feed(line)) == CAROL.template
    assert [len(packet.content) for packet in data_packets(bytes(size + 1), size)] == [size, 1]


@pytest.mark.parametrize("size", [32, 64, 256])
async def test_packets_have_the_size_that_the_module_is_set_to(tmp_path: Path, size: int) -> None:
    module = FingerprintModule(tmp_path / "finger", packet_bytes=size)
    async with at_work(module) as made:
        await made.driver.perform(CAROL)
        assert module.templates == {7: "carol"}


async def test_packets_that_have_become_too_large_for_the_module_store_nothing(
    module: FingerprintModule,
) -> None:
    async with at_work(module) as made:
        module.packet_bytes = 64
        with pytest.raises(ActionRefused, match="UpChar: cannot_send"):
            await made.driver.perform(CAROL)
        assert 7 not in module.templates


async def test_a_packet_with_a_wrong_checksum_stores_nothing(module: FingerprintModule) -> None:
    async with at_work(module) as made:
        module.spoilt_data = 1
        with pytest.raises(ActionRefused, match="UpChar: cannot_send"):
            await made.driver.perform(CAROL)
        assert 7 not in module.templates
        await made.driver.perform(CAROL)
        assert module.templates[7] == "carol"


async def test_a_module_that_gives_back_something_else_stores_nothing(module: FingerprintModule) -> None:
    async with at_work(module) as made:
        module.garbles = True
        with pytest.raises(ActionRefused, match="expected the template back as it was sent"):
            await made.driver.perform(CAROL)
        assert 7 not in module.templates


async def test_a_full_module_says_so(module: FingerprintModule) -> None:
    module.refusals[Instruction.STORE] = 0x1F
    async with at_work(module) as made:
        with pytest.raises(ActionRefused, match="Store: library_full"):
            await made.driver.perform(CAROL)


async def test_a_slot_that_the_module_has_not_is_refused(module: FingerprintModule) -> None:
    async with at_work(module) as made:
        with pytest.raises(ActionRefused, match="Store: no_such_slot"):
            await made.driver.perform(StoreTemplate(slot=200, template=CAROL.template))


async def test_a_taken_slot_is_not_overwritten(module: FingerprintModule) -> None:
    async with at_work(module) as made:
        with pytest.raises(ActionRefused, match="slot_taken"):
            await made.driver.perform(StoreTemplate(slot=5, template=CAROL.template))
        assert module.templates[5] == "alice"


@pytest.mark.parametrize("packets", [1, 5, 12])
async def test_a_module_that_is_pulled_out_has_stored_nothing(
    module: FingerprintModule, packets: int
) -> None:
    """In the middle of the template, and between its last packet and the order to store it."""
    async with bench(module) as made:
        await made.driver.identify()
        module.pull_after = packets
        with pytest.raises(PortGone):
            await made.driver.perform(CAROL)
    assert module.templates == {5: "alice", 6: "bob"}


@pytest.mark.parametrize("instruction", [Instruction.DOWN_CHAR, Instruction.UP_CHAR])
async def test_a_module_that_cannot_take_templates_goes_on_comparing(
    module: FingerprintModule, instruction: int
) -> None:
    module.ignores.add(instruction)
    async with at_work(module, answer_within=0.05) as made:
        with pytest.raises(ActionRefused, match="not_received"):
            await made.driver.perform(CAROL)
        module.touch("alice")
        assert (await made.compare()).result is CompareResult.MATCHED


async def test_a_store_without_an_answer_is_looked_up(module: FingerprintModule) -> None:
    module.mishaps[Instruction.STORE] = Mishap.LOST
    async with at_work(module, answer_within=0.05) as made:
        await made.driver.perform(CAROL)
        assert module.templates[7] == "carol"


async def test_a_transfer_that_is_called_off_does_not_disturb_what_is_asked_next(
    module: FingerprintModule,
) -> None:
    async with at_work(module) as made:
        task = made.start(CAROL)
        await module.asked_for(Instruction.DOWN_CHAR)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert await made.driver.inventory() == {5, 6}
        await made.driver.perform(CAROL)
        assert module.templates[7] == "carol"


@pytest.mark.parametrize(
    "line", [Faults(byte_gap=-1), Faults(garbage=b"\x99\x55\xef\x00"), Faults(echo=True)]
)
async def test_a_bad_line_changes_nothing(tmp_path: Path, line: Faults) -> None:
    module = FingerprintModule(tmp_path / "finger", line)
    async with at_work(module, answer_within=0.5) as made:
        await made.driver.perform(CAROL)
        assert module.templates == {7: "carol"}
