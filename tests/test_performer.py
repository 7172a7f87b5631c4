"""Remember, then act: what the performer does after which commit, and when answers leave."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from agent import performer
from agent.clock import NS, Moment, SystemClock
from agent.intake import Role
from agent.journal import Journal
from agent.performer import GRID_NS, Performer
from agent.units import Unit, UnitSpec
from agent.workflow import Draft, Order
from agent.writer import JournalFailed
from drivers import driver_for
from drivers.port import Address
from drivers.readings import (
    ActionDone,
    CompareFinger,
    DeviceLost,
    DeviceReady,
    OpenDoor,
    Reading,
    Signal,
    Tone,
    Trigger,
)
from simulators.line import LineScanner
from tests.moments import moment
from tests.test_writer import Gate

GOOD, BAD, ASK = (Order("gun", Signal(tone=tone)) for tone in Tone)


class Stage:
    """A journal, one scanner that can sound tones and one that cannot, and the performer between them."""

    def __init__(self, folder: Path) -> None:
        self.scanner = LineScanner(folder / "gun", speaks="honeywell")
        self.mute = LineScanner(folder / "mute")
        self.journal = Journal(folder / "journal.db", source="/postern/t/d")
        self.clock = SystemClock()
        self.reports: list[Draft] = []
        self.lost = asyncio.Event()
        self._ready: asyncio.Queue[None] = asyncio.Queue()
        self.units = {
            name: Unit(
                UnitSpec(
                    name=name,
                    kind="line",
                    role=Role.PARCEL,
                    address=Address.parse(str(folder / name)),
                    baud=9600,
                    options=driver_for("line").OptionsType.model_validate({"commands": commands}),
                ),
                self._deliver,
            )
            for name, commands in (("gun", "honeywell"), ("mute", "none"))
        }

    async def _deliver(self, _: Unit, reading: Reading) -> None:
        match reading:
            case DeviceReady():
                self._ready.put_nowait(None)
            case DeviceLost():
                self.lost.set()

    async def ready(self) -> None:
        for _ in self.units:
            await self._ready.get()

    def performer(self, tones: str | None = None) -> Performer:
        return Performer(self.units, tones, self.clock, self.reports.append)

    async def sounded(self, count: int) -> list[str]:
        async with asyncio.timeout(10):
            while len(self.scanner.tones) < count:
                self.scanner.obeyed.clear()
                await self.scanner.obeyed.wait()
        return self.scanner.tones


@asynccontextmanager
async def running(*work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(each) for each in work]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    made = Stage(tmp_path)
    await made.journal.open()
    with made.scanner, made.mute:
        async with running(*[unit.run() for unit in made.units.values()]):
            async with asyncio.timeout(10):
                await made.ready()
            yield made
    await made.journal.close()


def append(stage: Stage) -> asyncio.Future[None]:
    return stage.journal.append([Draft("custody.scanned", "s")], stage.clock.now(), {"position": None})


async def test_a_tone_sounds_only_after_the_commit(stage: Stage) -> None:
    work = stage.performer()
    async with running(work.run()):
        gate = Gate()
        held = stage.journal._writer.submit(gate)
        await gate.reached()
        work.later(append(stage), (GOOD,), None)
        # What needs no commit is not held up by the disk; by then a tone would have sounded too.
        stage.units["gun"].order(Trigger(pulled=True))
        async with asyncio.timeout(10):
            await stage.scanner.obeyed.wait()
        assert stage.scanner.tones == []
        gate.open()
        await held
        assert await stage.sounded(1) == ["good"]


async def test_a_commit_that_fails_takes_its_orders_with_it(stage: Stage) -> None:
    work = stage.performer()
    stage.journal._writer.submit(lambda connection: connection.execute("nonsense"))
    work.later(append(stage), (GOOD,), None)
    work.later(append(stage), (GOOD,), None)
    with pytest.raises(JournalFailed):
        await work.run()
    stage.units["gun"].order(Signal(tone=Tone.BAD))
    assert await stage.sounded(1) == ["bad"]


async def test_orders_are_passed_on_in_the_order_of_their_decisions(stage: Stage) -> None:
    work = stage.performer()
    async with running(work.run()):
        for orders in ((GOOD,), (BAD, ASK), (GOOD,)):
            work.later(append(stage), orders, None)
        work.later(None, (BAD,), None)
        assert await stage.sounded(5) == ["good", "bad", "ask", "good", "bad"]


@pytest.mark.parametrize("late", [0.0, 0.1, 0.149, 0.2, 0.4])
async def test_an_answer_about_identity_leaves_no_earlier_than_the_next_point_of_its_grid(
    stage: Stage, late: float
) -> None:
    work = stage.performer()
    async with running(work.run()):
        now = stage.clock.now()
        shown = Moment(now.boot, now.mono_ns - int(late * NS), now.utc_ns)
        point = shown.mono_ns + (int(late * NS) // GRID_NS + 1) * GRID_NS
        work.later(append(stage), (GOOD,), shown)
        await stage.sounded(1)
        assert stage.clock.now().mono_ns >= point


async def test_an_answer_whose_commit_is_slow_leaves_at_a_later_point(stage: Stage) -> None:
    work = stage.performer()
    async with running(work.run()):
        gate = Gate()
        held = stage.journal._writer.submit(gate)
        await gate.reached()
        shown = stage.clock.now()
        work.later(append(stage), (GOOD,), shown)
        await asyncio.to_thread(wait_until, stage.clock, shown.mono_ns + GRID_NS)
        gate.open()
        await held
        await stage.sounded(1)
        assert stage.clock.now().mono_ns >= shown.mono_ns + 2 * GRID_NS


def wait_until(clock: SystemClock, mono_ns: int) -> None:
    while clock.now().mono_ns < mono_ns:
        pass


async def test_answers_that_stood_behind_others_leave_with_them(stage: Stage) -> None:
    """A thousand wrong codes shall not keep the right one waiting for a thousand points of the grid."""
    work, now = stage.performer(), stage.clock.now()
    for step in range(20):
        work.later(None, (GOOD,), Moment(now.boot, now.mono_ns - step * NS // 1000, now.utc_ns))
    await asyncio.to_thread(wait_until, stage.clock, now.mono_ns + 2 * GRID_NS)
    async with running(work.run()):
        for _ in range(100):
            await asyncio.sleep(0)
        assert work._waiting.empty()
        await stage.sounded(20)


class Played:
    def __init__(self, at: Moment) -> None:
        self.at = at

    def now(self) -> Moment:
        return self.at


@pytest.mark.parametrize(("seconds", "reason"), [(4.0, "unknown_unit"), (6.0, "expired")])
async def test_a_pulse_whose_commit_took_too_long_is_not_given(
    stage: Stage, seconds: float, reason: str
) -> None:
    undone: asyncio.Queue[ActionDone] = asyncio.Queue()
    clock = Played(moment(0))

    def heard(_unit: str, done: ActionDone) -> bool:
        undone.put_nowait(done)
        return True

    work = Performer(stage.units, None, clock, stage.reports.append, heard)
    work.later(None, (Order("doors", OpenDoor(door=3)),), None)
    clock.at = moment(seconds)
    async with running(work.run()):
        async with asyncio.timeout(10):
            done = await undone.get()
    assert (done.ok, done.unknown, done.reason) == (False, False, reason)


async def test_too_many_decisions_without_a_commit_make_the_decider_wait(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(performer, "UNCOMMITTED", 3)
    work = stage.performer()
    gate = Gate()
    held = stage.journal._writer.submit(gate)
    await gate.reached()
    for _ in range(2):
        work.later(append(stage), (), None)
        await work.room()
    work.later(append(stage), (), None)
    waiting = asyncio.create_task(work.room())
    async with running(work.run()):
        await asyncio.wait([waiting], timeout=0)
        gate.open()
        await held
        async with asyncio.timeout(10):
            await waiting


async def test_a_tone_goes_to_whoever_the_config_names_when_the_unit_cannot_sound_it(stage: Stage) -> None:
    work = stage.performer(tones="gun")
    work.order(Order("mute", Signal(tone=Tone.GOOD)))
    work.order(Order("", Signal(tone=Tone.BAD)))
    assert await stage.sounded(2) == ["good", "bad"]
    assert not stage.reports


async def test_a_tone_that_nobody_can_sound_is_no_news(stage: Stage) -> None:
    work = stage.performer()
    work.order(Order("mute", Signal(tone=Tone.GOOD)))
    work.order(Order("", Signal(tone=Tone.GOOD)))
    assert not stage.reports


async def test_what_no_unit_can_be_asked_is_recorded(stage: Stage) -> None:
    work = stage.performer()
    work.order(Order("finger", CompareFinger(slot=1)))
    stage.scanner.unplug()
    async with asyncio.timeout(10):
        await stage.lost.wait()
    work.order(Order("gun", Trigger(pulled=True)))
    assert [(draft.subject, draft.data) for draft in stage.reports] == [
        ("finger", {"action": "CompareFinger", "reason": "unknown_unit"}),
        ("gun", {"action": "Trigger", "reason": "lost"}),
    ]
