"""One unit on a real pseudo-terminal: opened, driven, lost, reopened, for ever."""

import asyncio
import contextlib
import os
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tenacity import RetryCallState, wait_fixed

from agent import units
from agent.clock import mono_ns
from agent.intake import Role
from agent.units import ORDERS, WIRED, Unit, UnitSpec, told_by
from agent.workflow import Lane
from drivers import driver_for
from drivers.base import ActionRefused, Driver, NoReply, Options, Unconfirmed
from drivers.port import Address, open_port
from drivers.readings import (
    Action,
    ActionDone,
    BoardChanged,
    CompareFinger,
    CompareResult,
    ContentChanged,
    DeleteFinger,
    DeviceLost,
    DeviceReady,
    DoorChanged,
    DoorSource,
    DoorState,
    FingerCompared,
    FingerEnrolled,
    InputChanged,
    NoiseCounted,
    OpenDoor,
    Reading,
    Scanned,
    SetPower,
    Signal,
    SlotsListed,
    SolenoidChanged,
    TagLeft,
    Tone,
    Trigger,
)
from simulators.base import VirtualDevice
from simulators.line import LineScanner
from simulators.r503 import FingerprintModule, Instruction

GOOD = Signal(tone=Tone.GOOD)


class Bench:
    """One unit, what it says, and whoever runs it."""

    def __init__(self, unit_class: type[Unit], where: Path | str, kind: str, **options: Any) -> None:
        self.readings: asyncio.Queue[Reading] = asyncio.Queue()
        spec = UnitSpec(
            name="gun",
            kind=kind,
            role=Role.PARCEL,
            address=Address.parse(str(where)),
            baud=9600,
            options=driver_for(kind).OptionsType(**options),
        )
        self.unit = unit_class(spec, self._deliver)
        self.running: asyncio.Task[None] | None = None

    async def _deliver(self, unit: Unit, reading: Reading) -> None:
        assert unit is self.unit
        await self.readings.put(reading)

    async def next(self) -> Reading:
        async with asyncio.timeout(10):
            return await self.readings.get()

    async def next_lost(self) -> str:
        reading = await self.next()
        assert isinstance(reading, DeviceLost)
        return reading.reason

    async def next_ready(self) -> str:
        reading = await self.next()
        assert isinstance(reading, DeviceReady)
        return reading.port


@asynccontextmanager
async def bench(
    where: Path | str, *, unit: type[Unit] = Unit, kind: str = "line", **options: Any
) -> AsyncIterator[Bench]:
    made = Bench(unit, where, kind, **options)
    made.running = asyncio.create_task(made.unit.run())
    try:
        yield made
    finally:
        made.running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await made.running


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits of half a minute: only a node that comes back can shorten them."""
    monkeypatch.setattr(units, "wait_random_exponential", lambda **_: wait_fixed(30))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardly any wait at all."""
    monkeypatch.setattr(units, "wait_random_exponential", lambda **_: wait_fixed(0.001))


# -- a driver of these tests' own -------------------------------------------------------------------


class Odd(Driver):
    """Does what a test wants of it."""

    kind = "odd"
    performs = frozenset({Signal, SetPower, Trigger, DeleteFinger, OpenDoor})
    on_identify: Callable[[], Mapping[str, str]] = dict
    on_run: Callable[[], None] = lambda: None
    on_perform: Callable[[Action], None] = lambda _: None
    began: asyncio.Event
    gate: asyncio.Event

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._noise = Counter[str]()

    @property
    def noise(self) -> Counter[str]:
        return self._noise

    async def identify(self) -> Mapping[str, str]:
        return type(self).on_identify()

    async def run(self) -> None:
        while True:
            data = await self.link.read()
            self._noise["bytes"] += len(data)
            type(self).on_run()

    async def perform(self, action: Action) -> None:
        type(self).began.set()
        await type(self).gate.wait()
        type(self).on_perform(action)


@pytest.fixture
def odd(monkeypatch: pytest.MonkeyPatch) -> type[Odd]:
    class Mine(Odd):
        OptionsType = Options
        began = asyncio.Event()
        gate = asyncio.Event()

    Mine.gate.set()
    monkeypatch.setattr(units, "WIRED", replace(WIRED, driver=lambda _: Mine))
    return Mine


def fails_with(error: Exception) -> Callable[..., Any]:
    def fail(*_: object) -> None:
        raise error

    return fail


# -- opening and reopening --------------------------------------------------------------------------


async def test_a_unit_is_ready_once_its_device_is_open_and_hands_on_what_it_reads(tmp_path: Path) -> None:
    with LineScanner(tmp_path / "gun") as scanner:
        async with bench(scanner.name) as made:
            before = made.unit.ready
            assert await made.next_ready() == os.path.realpath(scanner.name)
            assert (before, made.unit.ready) == (False, True)
            scanner.scan("ABC")
            assert await made.next() == Scanned(data=b"ABC")


@pytest.mark.usefixtures("patient")
async def test_a_device_that_comes_back_under_another_name_is_back_at_once(tmp_path: Path) -> None:
    with LineScanner(tmp_path / "gun") as scanner:
        async with bench(scanner.name) as made:
            first = await made.next_ready()
            scanner.unplug()
            assert await made.next_lost() == "gone"
            in_its_place = os.openpty()
            scanner.plug()
            if (again := await made.next()) == DeviceLost(reason="absent", detail=str(scanner.name)):
                again = await made.next()
            assert isinstance(again, DeviceReady)
            assert again.port != first
            scanner.scan("back")
            assert await made.next() == Scanned(data=b"back")
            for descriptor in in_its_place:
                os.close(descriptor)


@pytest.mark.usefixtures("patient")
async def test_a_device_that_was_never_there_is_opened_at_once_when_it_comes(tmp_path: Path) -> None:
    scanner = LineScanner(tmp_path / "gun")
    async with bench(scanner.name) as made:
        assert await made.next_lost() == "absent"
        with scanner:
            await made.next_ready()


@pytest.mark.usefixtures("patient")
async def test_a_deaf_device_is_tried_at_once_when_it_is_plugged_anew(tmp_path: Path, odd: type[Odd]) -> None:
    odd.on_identify = fails_with(NoReply("no answer"))
    with VirtualDevice(tmp_path / "gun") as device:
        async with bench(device.name) as made:
            assert await made.next_lost() == "deaf"
            odd.on_identify = dict
            device.unplug()
            device.plug()
            await made.next_ready()


class Counting(Unit):
    """Does not wait, and keeps how long it would have waited."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.waits: list[tuple[int, float]] = []
        self.enough = asyncio.Event()
        self.wanted = 0

    def _tell_of_wait(self, attempt: RetryCallState) -> None:
        super()._tell_of_wait(attempt)
        assert attempt.next_action is not None
        self.waits.append((attempt.attempt_number, attempt.next_action.sleep))

    async def _pause(self, seconds: float) -> None:
        await asyncio.sleep(0)
        if len(self.waits) >= self.wanted:
            self.enough.set()
            await asyncio.Future()


async def test_an_absent_device_is_tried_for_ever_with_full_jitter_up_to_half_a_minute(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path / "gun", unit=Counting) as made:
        assert isinstance(made.unit, Counting)
        made.unit.wanted = 3000
        async with asyncio.timeout(50):
            await made.unit.enough.wait()
        assert made.running is not None
        assert not made.running.done()
        assert [number for number, _ in made.unit.waits] == list(range(1, 3001))
        assert all(0 <= wait <= min(30, 0.5 * 2 ** (n - 1)) for n, wait in made.unit.waits[:20])
        late = sorted(wait for _, wait in made.unit.waits[20:])
        assert late[0] < 1
        assert 29 < late[-1] <= 30
        assert 14 < late[len(late) // 2] < 16
        assert await made.next_lost() == "absent"
        assert made.readings.empty()


@pytest.mark.parametrize(("healthy_after", "numbers"), [(-1.0, [1, 2, 3]), (3600.0, [2, 3, 4])])
async def test_the_backoff_begins_anew_after_health_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, healthy_after: float, numbers: list[int]
) -> None:
    monkeypatch.setattr(units, "HEALTHY_S", healthy_after)
    with LineScanner(tmp_path / "gun") as scanner:
        async with bench(scanner.name, unit=Counting) as made:
            assert isinstance(made.unit, Counting)
            made.unit.wanted = 3 if healthy_after < 0 else 4
            await made.next_ready()
            scanner.unplug()
            async with asyncio.timeout(10):
                await made.unit.enough.wait()
            assert [number for number, _ in made.unit.waits[-3:]] == numbers


@pytest.mark.usefixtures("impatient")
async def test_a_loss_is_told_once_and_again_only_when_its_reason_changes(tmp_path: Path) -> None:
    device = VirtualDevice(tmp_path / "gun")
    async with bench(device.name) as made:
        assert await made.next_lost() == "absent"
        with device:
            held = await open_port(Address.parse(str(device.name)), baud=9600)
            device.name.unlink()
            device.name.symlink_to("/dev/null")
            assert await made.next_lost() == "unusable"
            device.name.unlink()
            device.name.symlink_to(held.path)
            assert await made.next_lost() == "busy"
            held.close()
            await made.next_ready()
        # From now on it is absent as well, which is no other loss.
        assert await made.next_lost() == "gone"
        with device:
            await made.next_ready()
        assert await made.next_lost() == "gone"
        assert made.readings.empty()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize(
    ("error", "reason", "detail"),
    [
        (NoReply("no answer"), "deaf", "no answer"),
        (ActionRefused("wrong password"), "unusable", "wrong password"),
    ],
)
async def test_a_device_that_does_not_say_who_it_is_is_told_once(
    tmp_path: Path, odd: type[Odd], error: Exception, reason: str, detail: str
) -> None:
    tries = asyncio.Semaphore(0)

    def fail() -> Mapping[str, str]:
        tries.release()
        raise error

    odd.on_identify = fail
    with VirtualDevice(tmp_path / "gun") as device:
        async with bench(device.name) as made:
            for _ in range(3):
                async with asyncio.timeout(10):
                    await tries.acquire()
            assert await made.next() == DeviceLost(reason=reason, detail=detail)
            assert made.readings.empty()
            odd.on_identify = dict
            await made.next_ready()


async def test_a_defect_in_a_driver_is_passed_on_and_leaves_no_unit_that_seems_ready(
    tmp_path: Path, odd: type[Odd]
) -> None:
    odd.on_run = fails_with(LookupError("a defect"))
    with VirtualDevice(tmp_path / "gun") as device:
        async with bench(device.name) as made:
            await made.next_ready()
            assert made.running is not None
            device.send(b"x")
            with pytest.raises(ExceptionGroup) as group:
                await made.running
            assert group.group_contains(LookupError)
            assert not made.unit.ready
            assert not made.unit.can(GOOD)
            assert made.unit.order(GOOD) == "lost"
            made.running = asyncio.create_task(made.unit.run())
            assert await made.next() == NoiseCounted(counts={"bytes": 1})
            await made.next_ready()


async def test_a_unit_that_is_stopped_does_not_wait_for_an_inbox_that_nobody_empties(
    tmp_path: Path, odd: type[Odd], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "LAST_WORDS_S", 0.01)
    with VirtualDevice(tmp_path / "gun") as device:
        async with bench(device.name) as made:
            await made.next_ready()
            driver = made.unit.driver
            assert driver is not None
            driver.noise["x"] += 1
            made.readings = asyncio.Queue(1)
            made.readings.put_nowait(DeviceLost(reason="full"))
            assert made.running is not None
            made.running.cancel()
            with pytest.raises(asyncio.CancelledError):
                async with asyncio.timeout(10):
                    await made.running


async def test_a_unit_stopped_just_when_its_device_is_lost_is_stopped(tmp_path: Path) -> None:
    with LineScanner(tmp_path / "gun") as scanner:
        async with bench(scanner.name) as made:
            await made.next_ready()
            assert made.running is not None
            # The loss is noticed in one step of the loop, and the stop comes within the few that follow.
            for steps in range(8):
                scanner.unplug()
                for _ in range(steps):
                    await asyncio.sleep(0)
                made.running.cancel()
                with pytest.raises(asyncio.CancelledError):
                    async with asyncio.timeout(10):
                        await made.running
                scanner.plug()
                made.running = asyncio.create_task(made.unit.run())
                while not isinstance(await made.next(), DeviceReady):
                    pass


async def test_a_peer_that_is_not_there_is_waited_for_without_looking_for_a_node() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        async with bench(f"tcp:127.0.0.1:{held.getsockname()[1]}") as made:
            assert await made.next_lost() == "absent"
            await made.unit._pause(0.0)


# -- orders -----------------------------------------------------------------------------------------


async def test_orders_are_done_in_turn_and_their_outcome_told_but_for_tones(tmp_path: Path) -> None:
    with LineScanner(tmp_path / "gun", speaks="honeywell") as scanner:
        async with bench(scanner.name, commands="honeywell") as made:
            assert made.unit.order(GOOD) == "lost"
            await made.next_ready()
            assert made.unit.can(GOOD)
            assert not made.unit.can(SetPower(dbm=20))
            for action in (GOOD, Trigger(pulled=True), SetPower(dbm=20)):
                assert made.unit.order(action) == ""
            assert await made.next() == ActionDone(action=Trigger(pulled=True), ok=True)
            refused = await made.next()
            assert refused == ActionDone(
                action=SetPower(dbm=20), ok=False, reason="commands honeywell: no SetPower"
            )
            async with asyncio.timeout(10):
                while not scanner.triggered:
                    scanner.obeyed.clear()
                    await scanner.obeyed.wait()
            assert scanner.tones == ["good"]


async def test_orders_are_bounded_and_what_waits_is_told_when_the_device_is_lost(
    tmp_path: Path, odd: type[Odd]
) -> None:
    odd.gate.clear()
    with VirtualDevice(tmp_path / "gun") as device:
        async with bench(device.name) as made:
            await made.next_ready()
            assert made.unit.order(DeleteFinger(slot=0)) == ""
            async with asyncio.timeout(10):
                await odd.began.wait()
            answers = [made.unit.order(DeleteFinger(slot=n)) for n in range(1, ORDERS + 3)]
            assert answers == [""] * ORDERS + ["busy"] * 2
            device.unplug()
            assert await made.next() == ActionDone(
                action=DeleteFinger(slot=0), ok=False, reason="outcome_unknown", unknown=True
            )
            for n in range(1, ORDERS + 1):
                assert await made.next() == ActionDone(action=DeleteFinger(slot=n), ok=False, reason="lost")
            assert await made.next_lost() == "gone"
            assert made.unit.order(GOOD) == "lost"


async def test_nothing_ordered_before_a_loss_is_done_after_it(tmp_path: Path, odd: type[Odd]) -> None:
    done: list[Action] = []
    odd.on_perform = done.append
    odd.gate.clear()
    with VirtualDevice(tmp_path / "gun") as device:
        async with bench(device.name) as made:
            await made.next_ready()
            for slot in range(3):
                made.unit.order(DeleteFinger(slot=slot))
            device.unplug()
            device.plug()
            while not isinstance(await made.next(), DeviceReady):
                pass
            odd.gate.set()
            made.unit.order(DeleteFinger(slot=9))
            assert await made.next() == ActionDone(action=DeleteFinger(slot=9), ok=True)
            assert done == [DeleteFinger(slot=9)]


async def test_a_tone_that_comes_too_late_or_once_too_often_is_counted_and_not_sounded(
    tmp_path: Path, odd: type[Odd], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "NOISE_EVERY_S", 0.05)
    done: list[Action] = []
    odd.on_perform = done.append
    with VirtualDevice(tmp_path / "gun") as device:
        async with bench(device.name) as made:
            await made.next_ready()
            made.unit._orders.put_nowait((mono_ns() - int(2e9), GOOD))
            made.unit._orders.put_nowait((mono_ns() - int(2e9), SetPower(dbm=1)))
            assert await made.next() == ActionDone(action=SetPower(dbm=1), ok=True)
            assert done == [SetPower(dbm=1)]
            for _ in range(units.ORDERS + 3):
                assert made.unit.order(GOOD) == ""
            assert await made.next() == NoiseCounted(counts={"tones_not_sounded": 4})


async def test_a_newer_comparison_overtakes_the_one_that_waits_for_a_finger(tmp_path: Path) -> None:
    module = FingerprintModule(tmp_path / "finger")
    module.teach(8, "thumb")
    async with bench(module.name, kind="r503") as made:
        with module:
            await made.next_ready()
            assert await made.next() == SlotsListed(slots=frozenset({8}))
            made.unit.order(CompareFinger(slot=7, within=20))
            await module.asked_for(Instruction.GEN_IMG)
            made.unit.order(CompareFinger(slot=8, within=20))
            first = ActionDone(action=CompareFinger(slot=7, within=20), ok=False, reason="overtaken")
            assert await made.next() == first
            module.touch("thumb")
            compared = await made.next()
            assert isinstance(compared, FingerCompared)
            assert (compared.slot, compared.result) == (8, CompareResult.MATCHED)


@pytest.mark.usefixtures("impatient")
async def test_a_device_that_does_not_answer_an_order_is_deaf(tmp_path: Path, odd: type[Odd]) -> None:
    odd.on_perform = fails_with(NoReply("no answer"))
    with VirtualDevice(tmp_path / "gun") as device:
        async with bench(device.name) as made:
            await made.next_ready()
            made.unit.order(SetPower(dbm=1))
            assert await made.next() == ActionDone(
                action=SetPower(dbm=1), ok=False, reason="no answer", unknown=True
            )
            assert await made.next_lost() == "deaf"
            await made.next_ready()


async def test_one_pulse_waits_at_most_and_one_that_waited_too_long_is_never_given(
    tmp_path: Path, odd: type[Odd], monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Action] = []
    odd.on_perform = done.append
    odd.gate.clear()
    with VirtualDevice(tmp_path / "gun") as device:
        async with bench(device.name) as made:
            await made.next_ready()
            assert made.unit.order(SetPower(dbm=1)) == ""
            assert made.unit.order(OpenDoor(door=1)) == ""
            assert made.unit.order(OpenDoor(door=2)) == "busy"
            monkeypatch.setattr(units, "STALE_PULSE_S", -1.0)
            odd.gate.set()
            assert await made.next() == ActionDone(action=SetPower(dbm=1), ok=True)
            assert await made.next() == ActionDone(action=OpenDoor(door=1), ok=False, reason="expired")
            monkeypatch.setattr(units, "STALE_PULSE_S", 60.0)
            assert made.unit.order(OpenDoor(door=3)) == ""
            assert await made.next() == ActionDone(action=OpenDoor(door=3), ok=True)
            assert done == [SetPower(dbm=1), OpenDoor(door=3)]


async def test_counting_the_tones_that_were_not_sounded_lets_no_second_pulse_wait(
    tmp_path: Path, odd: type[Odd], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "NOISE_EVERY_S", 0.05)
    odd.gate.clear()
    with VirtualDevice(tmp_path / "gun") as device:
        async with bench(device.name) as made:
            await made.next_ready()
            assert made.unit.order(SetPower(dbm=1)) == ""
            assert made.unit.order(OpenDoor(door=1)) == ""
            for _ in range(units.ORDERS + 1):
                made.unit.order(GOOD)
            counted = await made.next()
            assert isinstance(counted, NoiseCounted)
            assert "tones_not_sounded" in counted.counts
            assert made.unit.order(OpenDoor(door=2)) == "busy"
            odd.gate.set()


async def test_a_pulse_that_waited_at_a_loss_is_not_given_and_does_not_stand_in_the_way_of_the_next(
    tmp_path: Path, odd: type[Odd]
) -> None:
    done: list[Action] = []
    odd.on_perform = done.append
    odd.gate.clear()
    with VirtualDevice(tmp_path / "gun") as device:
        async with bench(device.name) as made:
            await made.next_ready()
            made.unit.order(SetPower(dbm=1))
            async with asyncio.timeout(10):
                await odd.began.wait()
            made.unit.order(OpenDoor(door=1))
            device.unplug()
            device.plug()
            told = [await made.next() for _ in range(2)]
            assert told[1] == ActionDone(action=OpenDoor(door=1), ok=False, reason="lost")
            while not isinstance(await made.next(), DeviceReady):
                pass
            odd.gate.set()
            assert made.unit.order(OpenDoor(door=2)) == ""
            assert await made.next() == ActionDone(action=OpenDoor(door=2), ok=True)
            assert done == [OpenDoor(door=2)]


async def test_a_pulse_in_doubt_is_told_as_such_and_its_device_stays(tmp_path: Path, odd: type[Odd]) -> None:
    odd.on_perform = fails_with(Unconfirmed("no answer"))
    with VirtualDevice(tmp_path / "gun") as device:
        async with bench(device.name) as made:
            await made.next_ready()
            made.unit.order(OpenDoor(door=1))
            assert await made.next() == ActionDone(
                action=OpenDoor(door=1), ok=False, reason="no answer", unknown=True
            )
            assert made.unit.ready


# -- noise ------------------------------------------------------------------------------------------


async def test_noise_is_counted_and_told_at_intervals_and_at_a_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(units, "NOISE_EVERY_S", 0.01)
    with LineScanner(tmp_path / "gun") as scanner:
        async with bench(scanner.name, cap=4) as made:
            await made.next_ready()
            scanner.scan("too long for it")
            assert await made.next() == NoiseCounted(counts={"too_long": 1})
            monkeypatch.setattr(units, "NOISE_EVERY_S", 3600)
            scanner.scan("too long for it")
            scanner.scan("ABC")
            assert await made.next() in (NoiseCounted(counts={"too_long": 1}), Scanned(data=b"ABC"))
            scanner.unplug()
            told = [await made.next() for _ in range(2)]
            assert isinstance(told[-1], DeviceLost)


# -- what is told of a device -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reading", "told"),
    [
        (
            DeviceReady(port="/dev/x", about={"model": "m"}),
            ("device.ready", {"kind": "line", "port": "/dev/x", "about": {"model": "m"}}, Lane.STATE),
        ),
        (
            DeviceLost(reason="gone", detail="d" * 300),
            ("device.lost", {"reason": "gone", "detail": "d" * 200}, Lane.STATE),
        ),
        (
            NoiseCounted(counts={"x": 1}),
            ("device.noise_counted", {"counts": {"x": 1}}, Lane.TELEMETRY),
        ),
        (
            ActionDone(action=GOOD, ok=False, reason="lost"),
            ("device.action_failed", {"action": "Signal", "reason": "lost"}, Lane.TELEMETRY),
        ),
        (
            ActionDone(action=GOOD, ok=True),
            ("device.action_done", {"action": "Signal", "reason": ""}, Lane.TELEMETRY),
        ),
        (
            FingerEnrolled(slot=3, ok=True, reason=""),
            ("device.finger_enrolled", {"slot": 3, "ok": True, "reason": ""}, Lane.STATE),
        ),
        (
            TagLeft(uid=b"1", technology="epc"),
            ("device.tag_left", {"technology": "epc"}, Lane.TELEMETRY),
        ),
        (
            BoardChanged(board=2, first_door=17, last_door=32, answers=False),
            ("device.board_lost", {"board": 2, "doors": [17, 32]}, Lane.STATE),
        ),
        (
            BoardChanged(board=2, first_door=17, last_door=32, answers=True),
            ("device.board_ready", {"board": 2, "doors": [17, 32]}, Lane.STATE),
        ),
        (
            InputChanged(input=3, closed=False),
            (
                "device.input_changed",
                {"unit": "gun", "input": 3, "closed": False, "first": False},
                Lane.CUSTODY,
            ),
        ),
        (Scanned(data=b"x"), None),
    ],
)
async def test_what_happens_to_a_device_is_an_entry(
    reading: Reading, told: tuple[str, dict[str, object], Lane] | None
) -> None:
    draft = told_by(Bench(Unit, "/dev/x", "line").unit, reading)
    assert (draft and (draft.type, draft.data, draft.lane)) == told
    assert draft is None or draft.subject == "gun"


@pytest.mark.parametrize(
    ("reading", "told"),
    [
        (
            DoorChanged(door=7, state=DoorState.CLOSED, source=DoorSource.HOOK),
            ("door.changed", {"state": "closed", "source": "hook", "first": False}),
        ),
        (
            DoorChanged(door=7, state=DoorState.OPEN, source=DoorSource.CONTACT, first=True),
            ("door.changed", {"state": "open", "source": "contact", "first": True}),
        ),
        (DoorChanged(door=7, state=DoorState.CLOSED, source=DoorSource.HOOK, first=True), None),
        (ContentChanged(door=7, occupied=True), ("door.content_changed", {"occupied": True})),
        (ContentChanged(door=7, occupied=True, first=True), None),
        (SolenoidChanged(door=7, energised=True, first=True), ("door.solenoid_changed", {"energised": True})),
        (SolenoidChanged(door=7, energised=False, first=True), None),
        (ActionDone(action=OpenDoor(door=7), ok=True), ("door.pulsed", {"reason": ""})),
        (
            ActionDone(action=OpenDoor(door=7), ok=False, reason="expired"),
            ("door.not_pulsed", {"reason": "expired"}),
        ),
        (
            ActionDone(action=OpenDoor(door=7), ok=False, reason="no answer", unknown=True),
            ("door.pulse_unknown", {"reason": "no answer"}),
        ),
    ],
)
async def test_what_happens_at_a_door_is_an_entry_about_that_door(
    reading: Reading, told: tuple[str, dict[str, object]] | None
) -> None:
    draft = told_by(Bench(Unit, "/dev/x", "line").unit, reading)
    if told is None:
        assert draft is None
        return
    assert draft is not None
    assert (draft.type, draft.subject) == (told[0], "gun/7")
    assert draft.data == {"unit": "gun", "door": 7, **told[1]}
    assert draft.lane is (Lane.TELEMETRY if draft.type == "door.solenoid_changed" else Lane.CUSTODY)
