"""One unit: a device that the config names, opened, driven, lost and reopened, for ever.

A failing device is this port's problem alone. It is reported once for each change, reopened with full
jitter between half a second and half a minute, at once when its node comes back, and the backoff begins
anew after it has been healthy for a while.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import structlog
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception_type, wait_random_exponential

from agent.clock import mono_ns
from agent.intake import Role
from agent.workflow import Draft, Lane
from drivers import driver_for
from drivers.base import ActionRefused, Driver, Emit, NoReply, Options, Unconfirmed
from drivers.port import Address, Port, PortGone, find, open_port
from drivers.readings import (
    Action,
    ActionDone,
    BoardChanged,
    CompareFinger,
    ContentChanged,
    DeviceLost,
    DeviceReady,
    DoorChanged,
    DoorState,
    FingerEnrolled,
    InputChanged,
    NoiseCounted,
    OpenDoor,
    Reading,
    Signal,
    SolenoidChanged,
    TagLeft,
    TellPeer,
)

HEALTHY_S = 10.0
NODE_POLL_S = 0.25
"""How often a waiting unit looks whether its node has come back."""
USB_POLL_S = 1.0
"""Finding a device by its USB ids walks sysfs, which costs more."""
NOISE_EVERY_S = 10.0
ORDERS = 64
"""Actions a unit keeps waiting; over it the newest is refused."""
STALE_SIGNAL_S = 1.5
"""A tone this late would be taken for the answer to something else."""
STALE_PULSE_S = 5.0
"""A door that opens this late opens for nobody: who asked has given up, or gone."""
LAST_WORDS_S = 1.0
"""Longest that a unit that is stopped waits for room to say what it still has to say."""

Node = tuple[str, int, int]
"""Path, inode and change time of a device node."""

Deliver = Callable[["Unit", Reading], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wiring:
    """How units come by their devices."""

    open: Callable[[Address, int], Awaitable[Port]]
    """An open port at this address and line speed. Raises PortGone."""
    driver: Callable[[str], Callable[[Port, Emit, Any], Driver]]
    """The driver for a kind of device."""


WIRED = Wiring(open=lambda address, baud: open_port(address, baud=baud), driver=driver_for)
"""Ports of this machine, and the drivers of ours."""

log = structlog.get_logger("unit")


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitSpec:
    """What the config says about one unit."""

    name: str
    kind: str
    role: Role
    address: Address
    baud: int
    options: Options
    expect: Mapping[str, str] | None = None
    """What the device has to tell of itself to be believed; without it, what it told first."""


class Unit:
    """Supervises one device and queues what it is asked to do."""

    def __init__(self, spec: UnitSpec, deliver: Deliver, wiring: Wiring | None = None) -> None:
        self.spec = spec
        self.lost: DeviceLost | None = DeviceLost(reason="absent", detail="not opened yet")
        """Why the unit cannot be used, or None while it can."""
        self.driver: Driver | None = None
        self._deliver, self._wiring = deliver, wiring or WIRED
        self._orders: asyncio.Queue[tuple[int, Action]] = asyncio.Queue(ORDERS)
        self._doing: Action | None = None
        self._waiting: asyncio.Future[None] | None = None
        """A comparison that waits for a finger."""
        self._pulse_waits = False
        """One pulse is queued. A second would be for somebody who sees the first door open."""
        self._unsounded = 0
        """Tones that came too late or too many to be sounded."""
        self._told: DeviceLost | None = None
        self._ready_ns: int | None = None
        self._tried: Node | None = None
        """The node at the last try to open it."""

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def ready(self) -> bool:
        return self.lost is None

    def can(self, action: Action) -> bool:
        """Whether the device is there and knows such an action."""
        return self.driver is not None and self.ready and type(action) in self.driver.performs

    def order(self, action: Action) -> str:
        """Queue an action; the reason why it will not be done, or nothing."""
        if not self.ready:
            return "lost"
        if isinstance(action, CompareFinger) and self._waiting is not None:
            # One finger is asked for at a time: whoever was asked before has been overtaken.
            self._waiting.cancel()
        if isinstance(action, OpenDoor) and self._pulse_waits:
            return "busy"
        if not self._orders.full():
            self._orders.put_nowait((mono_ns(), action))
            self._pulse_waits = self._pulse_waits or isinstance(action, OpenDoor)
            return ""
        if isinstance(action, Signal):
            # In a flood of scans nobody hears single tones; an entry for each would only feed the flood.
            self._unsounded += 1
            return ""
        return "busy"

    async def run(self) -> None:
        """For ever."""
        while True:
            async for attempt in AsyncRetrying(
                wait=wait_random_exponential(multiplier=0.5, max=30),
                retry=retry_if_exception_type((PortGone, NoReply)),
                before_sleep=self._tell_of_wait,
                sleep=self._pause,
            ):
                with attempt:
                    await self._serve()

    async def _serve(self) -> None:
        """One opening of the port. Raises unless the device was healthy for a while."""
        failure: PortGone | NoReply | None = None
        self._ready_ns = None
        self._tried = await _node(self.spec.address)
        try:
            port = await self._wiring.open(self.spec.address, self.spec.baud)
            with contextlib.closing(port):
                await self._drive(port)
        except* (PortGone, NoReply) as group:
            failure = _first(group)
        if failure is not None:
            _heed_cancellation()
            healthy = self._was_healthy()
            await self._went(failure)
            if not healthy:
                raise failure

    def _was_healthy(self) -> bool:
        return self._ready_ns is not None and (mono_ns() - self._ready_ns) / 1e9 > HEALTHY_S

    async def _drive(self, port: Port) -> None:
        driver = self._wiring.driver(self.spec.kind)(port, self._emit, self.spec.options)
        try:
            about = await self._identify(driver)
            self.driver, self.lost, self._told, self._ready_ns = driver, None, None, mono_ns()
            log.info("ready", unit=self.name, kind=self.spec.kind, port=port.path, **about)
            await self._emit(DeviceReady(port=port.path, about=about))
            async with asyncio.TaskGroup() as group:
                group.create_task(driver.run(), name=f"{self.name}: reading")
                group.create_task(self._perform(driver), name=f"{self.name}: orders")
                # In the group's own body: a group that only waits for its tasks leaves its task marked as
                # cancelled when one of them fails (until Python 3.13), and that mark means something here.
                await self._count_noise(driver)
        except asyncio.CancelledError:
            # Whoever empties the inbox may have been stopped as well.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_WORDS_S):
                    await self._leave(driver)
            raise
        except BaseException:
            await self._leave(driver)
            raise

    async def _identify(self, driver: Driver) -> Mapping[str, str]:
        try:
            return await driver.identify()
        except ActionRefused as refused:
            raise PortGone("unusable", str(refused)) from refused

    async def _leave(self, driver: Driver) -> None:
        """Account for what was begun and what is still queued: nothing of it is done by a later opening."""
        self.driver, self.lost = None, self.lost or DeviceLost(reason="unusable", detail="stopped")
        await self._report_noise(driver)
        doing, self._doing = self._doing, None
        if doing is not None:
            await self._emit(ActionDone(action=doing, ok=False, reason="outcome_unknown", unknown=True))
        self._pulse_waits = False
        while not self._orders.empty():
            _, action = self._orders.get_nowait()
            await self._emit(ActionDone(action=action, ok=False, reason="lost"))

    async def _emit(self, reading: Reading) -> None:
        await self._deliver(self, reading)

    async def _went(self, error: PortGone | NoReply) -> None:
        reason, detail = (error.reason, error.detail) if isinstance(error, PortGone) else ("deaf", str(error))
        self.lost = DeviceLost(reason=reason, detail=detail)
        # A device that is gone is absent from then on: the same loss, told once.
        still = self._told is not None and {self._told.reason, reason} <= {"gone", "absent"}
        if not still and (self._told is None or self._told.reason != reason):
            self._told = self.lost
            log.warning("lost", unit=self.name, reason=reason, detail=detail)
            await self._emit(self.lost)

    async def _perform(self, driver: Driver) -> None:
        while True:
            ordered_ns, action = await self._orders.get()
            waited_s = (mono_ns() - ordered_ns) / 1e9
            if isinstance(action, Signal) and waited_s > STALE_SIGNAL_S:
                self._unsounded += 1
                continue
            if isinstance(action, OpenDoor):
                self._pulse_waits = False
                if waited_s > STALE_PULSE_S:
                    await self._emit(ActionDone(action=action, ok=False, reason="expired"))
                    continue
            self._doing = action
            try:
                await self._do(driver, action)
            except (ActionRefused, Unconfirmed, NoReply) as failed:
                self._doing = None
                unknown = not isinstance(failed, ActionRefused)
                await self._emit(ActionDone(action=action, ok=False, reason=str(failed), unknown=unknown))
                if isinstance(failed, NoReply):
                    raise
            else:
                self._doing = None
                # A tone that sounded is no news, and there is one for every scan.
                if not isinstance(action, Signal | TellPeer):
                    await self._emit(ActionDone(action=action, ok=True))

    async def _do(self, driver: Driver, action: Action) -> None:
        if not isinstance(action, CompareFinger):
            await driver.perform(action)
            return
        self._waiting = asyncio.ensure_future(driver.perform(action))
        try:
            await self._waiting
        except asyncio.CancelledError:
            _heed_cancellation()
            raise ActionRefused("overtaken") from None
        finally:
            self._waiting = None

    async def _count_noise(self, driver: Driver) -> None:
        while True:
            await asyncio.sleep(NOISE_EVERY_S)
            await self._report_noise(driver)

    async def _report_noise(self, driver: Driver) -> None:
        counts = dict(driver.noise)
        driver.noise.clear()
        if self._unsounded:
            counts["tones_not_sounded"] = self._unsounded
        self._unsounded = 0
        if counts:
            await self._emit(NoiseCounted(counts=counts))

    async def _pause(self, seconds: float) -> None:
        """Wait, but no longer than until there is a node that was not there when we last tried."""
        address = self.spec.address
        if address.tcp:
            await asyncio.sleep(seconds)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    # First the pause: whatever a node is like, it is not tried more often than this.
                    await asyncio.sleep(USB_POLL_S if address.usb else NODE_POLL_S)
                    node = await _node(address)
                    if node is not None and node != self._tried:
                        return

    def _tell_of_wait(self, attempt: RetryCallState) -> None:
        wait = attempt.next_action.sleep if attempt.next_action else 0.0
        reason = self.lost.reason if self.lost else ""
        log.debug(
            "waiting", unit=self.name, reason=reason, attempt=attempt.attempt_number, wait_s=round(wait, 2)
        )


async def _node(address: Address) -> Node | None:
    """The node as it is now: a device that comes back has a new one, though perhaps of the same name."""
    with contextlib.suppress(OSError):
        if path := await find(address):
            about = os.stat(path)
            return path, about.st_ino, about.st_ctime_ns
    return None


def _heed_cancellation() -> None:
    """A task group whose tasks failed just when it was cancelled raises their errors and drops its own."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _first(group: BaseExceptionGroup[PortGone | NoReply]) -> PortGone | NoReply:
    first = group.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def told_by(unit: Unit, reading: Reading) -> Draft | None:
    """The entry that tells what happened to a device."""
    about: Mapping[str, Any]
    match reading:
        case DeviceReady(port=port, about=said):
            about = {"kind": unit.spec.kind, "port": port, "about": dict(said)}
            return Draft("device.ready", unit.name, about, Lane.STATE)
        case DeviceLost(reason=reason, detail=detail):
            return Draft("device.lost", unit.name, {"reason": reason, "detail": detail[:200]}, Lane.STATE)
        case NoiseCounted(counts=counts):
            return Draft("device.noise_counted", unit.name, {"counts": dict(counts)}, Lane.TELEMETRY)
        case ActionDone():
            return outcome_of(unit.name, reading)
        case BoardChanged(board=board, first_door=first, last_door=last, answers=answers):
            about = {"board": board, "doors": [first, last]}
            return Draft(f"device.board_{'ready' if answers else 'lost'}", unit.name, about, Lane.STATE)
        case DoorChanged() | ContentChanged() | SolenoidChanged() | InputChanged():
            return _told_by_door(unit.name, reading)
        case FingerEnrolled(slot=slot, ok=ok, reason=reason):
            about = {"slot": slot, "ok": ok, "reason": reason}
            return Draft("device.finger_enrolled", unit.name, about, Lane.STATE)
        case TagLeft(technology=technology) if unit.spec.role is Role.PARCEL:
            return Draft("device.tag_left", unit.name, {"technology": technology}, Lane.TELEMETRY)
    return None


def outcome_of(unit: str, done: ActionDone) -> Draft:
    """The entry that tells what became of an action."""
    action, about = done.action, {"reason": done.reason[:200]}
    if isinstance(action, OpenDoor):
        word = "pulsed" if done.ok else "pulse_unknown" if done.unknown else "not_pulsed"
        return Draft(f"door.{word}", f"{unit}/{action.door}", {"unit": unit, "door": action.door, **about})
    about = {"action": type(action).__name__, **about}
    return Draft(f"device.action_{'done' if done.ok else 'failed'}", unit, about, Lane.TELEMETRY)


def _told_by_door(
    unit: str, reading: DoorChanged | ContentChanged | SolenoidChanged | InputChanged
) -> Draft | None:
    """Every change; of what was found at first only what is not as it should be at rest: an open door.

    All the others are named by `device.ready`, in one entry instead of one for each door of a wall.
    """
    match reading:
        case InputChanged(input=number, closed=closed):
            about = {"unit": unit, "input": number, "closed": closed, "first": reading.first}
            return Draft("device.input_changed", unit, about)
        case DoorChanged(door=door, state=state, source=source):
            if reading.first and state is DoorState.CLOSED:
                return None
            about = {"unit": unit, "door": door, "state": state, "source": source, "first": reading.first}
            return Draft("door.changed", f"{unit}/{door}", about)
        case ContentChanged(door=door, occupied=occupied) if not reading.first:
            return Draft(
                "door.content_changed", f"{unit}/{door}", {"unit": unit, "door": door, "occupied": occupied}
            )
        case SolenoidChanged(door=door, energised=energised) if not reading.first or energised:
            about = {"unit": unit, "door": door, "energised": energised}
            return Draft("door.solenoid_changed", f"{unit}/{door}", about, Lane.TELEMETRY)
    return None
