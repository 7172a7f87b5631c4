"""The switch at the case: when it is armed, when it is an alarm, when it is neither."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from agent.tamper import Switch, Tamper
from drivers.readings import InputChanged

OPEN, REST = InputChanged(input=3, closed=True), InputChanged(input=3, closed=False)
UNIT = "bus1"


class Case:
    """A watched switch, and what came of it."""

    def __init__(self, *, armed: bool, hold: float) -> None:
        self.armed = armed
        self.alarms = 0
        self.happened = asyncio.Event()
        switch = Switch(unit=UNIT, input=3, closed=True, hold=hold)
        self.tamper = Tamper(switch, armed=lambda: self.armed, arm=self.arm, alarm=self.alarm)

    def arm(self) -> None:
        self.armed = True
        self.happened.set()

    async def alarm(self) -> None:
        self.alarms += 1
        self.happened.set()

    async def next(self) -> None:
        async with asyncio.timeout(10):
            await self.happened.wait()
        self.happened.clear()

    async def quiet(self) -> None:
        """Until everything that was seen has been looked at."""
        for _ in range(5):
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def watched(*, armed: bool = False, hold: float = 0.01) -> AsyncIterator[Case]:
    case = Case(armed=armed, hold=hold)
    task = asyncio.create_task(case.tamper.run())
    try:
        yield case
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_it_is_armed_when_it_is_first_seen_at_rest_and_then_an_opened_case_is_an_alarm() -> None:
    async with watched() as case:
        case.tamper.saw(UNIT, REST)
        await case.next()
        assert (case.armed, case.alarms) == (True, 0)
        case.tamper.saw(UNIT, OPEN)
        await case.next()
        assert case.alarms == 1


async def test_a_case_that_is_open_while_the_device_is_fitted_is_no_alarm() -> None:
    async with watched() as case:
        case.tamper.saw(UNIT, OPEN)
        await case.quiet()
        assert (case.armed, case.alarms) == (False, 0)
        case.tamper.saw(UNIT, REST)
        await case.next()
        assert case.armed


async def test_a_case_that_was_opened_while_the_power_was_off_is_an_alarm_at_the_start() -> None:
    async with watched(armed=True) as case:
        case.tamper.saw(UNIT, InputChanged(input=3, closed=True, first=True))
        await case.next()
        assert case.alarms == 1


async def test_a_rattle_shorter_than_the_hold_is_no_alarm() -> None:
    async with watched(armed=True, hold=3600) as case:
        for _ in range(20):
            case.tamper.saw(UNIT, OPEN)
            await case.quiet()
            case.tamper.saw(UNIT, REST)
            await case.quiet()
        assert case.alarms == 0


async def test_other_inputs_and_other_units_are_not_the_case() -> None:
    async with watched(armed=True) as case:
        case.tamper.saw(UNIT, InputChanged(input=2, closed=True))
        case.tamper.saw("bus2", OPEN)
        await case.quiet()
        case.tamper.saw(UNIT, OPEN)
        await case.next()
        assert case.alarms == 1
