"""A courier's morning and a locker's evening, with no hardware: `postern demo`.

Virtual scanners, RFID and card readers, a GNSS receiver, a fingerprint module and a wall of doors on
pseudo-terminals; the real agents reading them; a broker; and a small fleet side that receives. The network is
cut and restored in the middle of both. At the end everything is added up: what was accepted, put in or taken
out and did not arrive is lost, and then the exit code is not 0.

This is the one file of the simulators that knows the agent: its fleet side, to receive.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from agent.fleet import notices
from agent.fleet.answers import Answers
from agent.fleet.collect import Collector
from agent.fleet.device_log import DeviceLog
from agent.fleet.keyring import Keyring
from agent.mqtt import Server
from simulators import locker_stage
from simulators.evening import PARCELS, QR, REFUSED, Codes, Doings, Evening
from simulators.fido_card import FidoCard
from simulators.locker_stage import LOCKER, LockerDevices, locker_devices
from simulators.morning import BADGES, COLLEAGUE, COURIER, PIN, RELIEF, SLOT, Morning, StoryFailed, Tally
from simulators.relay import Relay
from simulators.stage import CONFIG, Devices, agent, broker, devices, log_tail, postern
from simulators.view import Scene, View, open_view

T = TypeVar("T")

VAN = "van-0042"
PASSPHRASE = "this demo keeps no secrets"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    broker: tuple[str, int] | None
    plain: bool
    pace: float
    seed: int


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a part of the story has come to."""

    device: str
    sums: list[tuple[str, int, str]] = field(default_factory=list)
    """What was counted, how often, and what that is."""
    wrong: list[str] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    """Public keys that the device has told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Show:
    """What both parts of the demo have in common."""

    options: Options
    folder: Path
    scene: Scene
    view: View
    network: Relay
    broker: tuple[str, int]
    what: str
    """Which broker that is, for people."""

    def state(self, device: str) -> Path:
        return self.folder / device

    def log(self, device: str) -> Path:
        return self.folder / f"{device}.log"

    def config(self, device: str, text: str, **more: str) -> Path:
        """The config file of a device, written."""
        path = self.folder / f"{device}.toml"
        where = {"state": self.state(device), "dev": self.folder / "dev" / device}
        path.write_text(text.format(host="127.0.0.1", port=self.network.port, **where, **more))
        return path

    @asynccontextmanager
    async def heard(
        self, outcome: Outcome, take: Callable[[dict[str, Any]], object], fleet: Path | None = None
    ) -> AsyncIterator[None]:
        """The fleet hears a device, and tells it the time if it has keys to sign that with."""

        def received(entry: dict[str, Any]) -> None:
            take(entry)
            self.view.entry(entry["sequence"], entry["type"].removeprefix("postern."), entry["subject"])

        def told(log: DeviceLog) -> None:
            outcome.keys.update({log.state["key"]} if log.state and "key" in log.state else ())

        host, port = self.broker
        client = f"demo-{outcome.device}-{self.options.seed}"
        server = Server(host=host, port=port, client_id=client)
        answer: Any = Answers(fleet) if fleet else lambda _device, _birth: ()
        collector = Collector(server, received, device=outcome.device, on_state=told, answer=answer)
        async with _started(collector.run()):
            yield

    async def told(self, outcome: Outcome, story: Callable[[], Awaitable[None]]) -> None:
        """Tell a part of the story; whatever is in its way is wrong."""
        try:
            await story()
        except StoryFailed as failed:
            outcome.wrong.append(str(failed))
            self.view.failed()


async def play(options: Options, folder: Path) -> int:
    """The whole demo. Returns the exit code."""
    scene = Scene(title="Postern: a courier's morning, a locker's evening")
    view, live = open_view(scene, plain=options.plain)
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        if options.broker:
            at, what = options.broker, ":".join(map(str, options.broker))
        else:
            port, what = await enter(broker(folder))
            at = ("127.0.0.1", port)
        network = await enter(Relay(*at))
        show = Show(
            options=options, folder=folder, scene=scene, view=view, network=network, broker=at, what=what
        )
        van = await enter(devices(folder / "dev" / VAN))
        wall = await enter(locker_devices(folder / "dev" / LOCKER))
        card = FidoCard(fingers={"index"})
        await _provision(show.config(VAN, CONFIG), van, card)
        # It takes some commands: the morning is told meanwhile.
        ready = await enter(_started(_enrol_locker(show)))
        with live:
            outcomes = [await _morning(show, van, card)]
            if not outcomes[0].wrong:
                outcomes.append(await _evening(show, wall, *await ready))
    return max([await _conclude(show, outcome) for outcome in outcomes])


async def _conclude(show: Show, outcome: Outcome) -> int:
    """The sums of one part, and whether its record holds. Returns the exit code."""
    print(f"\n{outcome.device}, after {show.scene.seconds:.0f} s")
    for name, count, what in outcome.sums:
        print(f"{name:10} {count:4}   {what}".rstrip())
    for line in outcome.wrong:
        print(f"WRONG: {line}")
    if outcome.wrong:
        print("the agent's last words:", *log_tail(show.log(outcome.device)), sep="\n  ")
        return 1
    return await _verify(show.state(outcome.device) / "journal.db", outcome.keys)


async def _verify(journal: Path, keys: set[str]) -> int:
    """Anyone with the device's public key, which it told at its birth, can check the whole record."""
    try:
        said = await postern("journal", "verify", str(journal), "--key", keys.pop() if keys else "none")
    except RuntimeError as failed:
        print(f"WRONG: {failed}")
        return 1
    print(f"verified          {said.splitlines()[0]}")
    return 0


# -- the morning ----------------------------------------------------------------------------------


async def _morning(show: Show, at: Devices, card: FidoCard) -> Outcome:
    outcome, tally = Outcome(device=VAN), Tally()
    show.scene.part = "the morning"
    async with show.heard(outcome, tally.take), agent(show.config(VAN, CONFIG), show.log(VAN)):
        morning = Morning(at, card, show.network, show.view, tally, show.options.seed, show.options.pace)
        show.scene.facts = lambda: _facts(at, tally, morning, show.what)
        await show.told(outcome, morning.tell)
    _sum_up(tally, outcome)
    return outcome


async def _provision(config: Path, at: Devices, card: FidoCard) -> None:
    """Three drivers, as an operator would enter them: one teaches a finger to the fingerprint module, one has
    a PIN, and one makes a credential on a fingerprint card."""
    laying = asyncio.create_task(at.finger.lay_down_twice("thumb"), name="a finger, twice")
    try:
        await postern("fingers", "teach", "finger", str(SLOT), "--config", str(config))
    finally:
        laying.cancel()
        await asyncio.gather(laying, return_exceptions=True)
    base = ("roster", "add", "--config", str(config))
    await postern(*base, "--finger", f"finger:{SLOT}", COURIER, "badge", stdin=BADGES[COURIER])
    await postern(*base, COLLEAGUE, "badge", stdin=BADGES[COLLEAGUE])
    await postern(*base, COLLEAGUE, "pin", stdin=PIN)
    at.cards.present(card)
    card.touch("index")
    await postern("cards", "make", RELIEF, "--port", str(at.cards.name), "--config", str(config))
    card.lift()
    at.cards.remove()


def _facts(at: Devices, tally: Tally, morning: Morning, broker: str) -> Iterable[tuple[str, str]]:
    lat, lon = at.gps.journey.position(at.gps.now)
    yield "broker", broker
    yield "network", "up" if morning.online else "CUT"
    yield "position", f"{lat:.5f} {lon:.5f}"
    yield "good tones", str(tally.toned.total())
    yield "with the fleet", str(tally.accepted.total())
    yield "not there yet", str(tally.lost)
    yield "bad tones", str(tally.bad_tones)
    yield "devices", " ".join(name if device.plugged else f"[{name}]" for name, device in at.all().items())


def _sum_up(tally: Tally, outcome: Outcome) -> None:
    refused = ", ".join(f"{count} {reason}" for reason, count in sorted(tally.refused.items())) or "none"
    outcome.sums += [
        ("accepted", tally.toned.total(), "scans that sounded the good tone"),
        ("delivered", (tally.toned & tally.accepted).total(), "of them with the fleet"),
        ("refused", tally.refused.total(), refused),
        ("handed on", tally.types["custody.handed_over"], "parcels"),
        ("lost", tally.lost, ""),
    ]
    if tally.lost:
        outcome.wrong.append(f"lost: {', '.join(tally.toned - tally.accepted)}")
    if tally.refused.total() != tally.bad_tones:
        outcome.wrong.append(
            f"{tally.bad_tones} bad tones, but {tally.refused.total()} refusals at the fleet"
        )
    if extra := tally.accepted - tally.toned:
        outcome.wrong.append(f"accepted without a tone: {', '.join(extra)}")


# -- the evening ----------------------------------------------------------------------------------


async def _enrol_locker(show: Show) -> tuple[Path, Path, Codes]:
    """The fleet's ceremony, a locker that believes it, and a code for a parcel that is still on its way."""
    keys, request, welcome = show.folder / "keys", show.folder / "request", show.folder / "welcome"
    secret = show.folder / "passphrase"
    secret.write_text(PASSPHRASE)

    async def fleet(*words: object) -> Any:
        said = await postern(*_QUIET, "fleet", *map(str, words), "--keys", str(keys), "--json")
        return json.loads(next(line for line in said.splitlines() if line.startswith("{")))

    made = await fleet("keys", "init", "--tenant", "demo", "--passphrase-file", secret)
    config = show.config(LOCKER, locker_stage.CONFIG, seal_key=made["seal_key"])
    said = await postern("enrol", "--out", str(request), "--config", str(config))
    shown = next(line.strip() for line in said.splitlines() if line.startswith("  "))
    await fleet("enrol", request, "--fingerprint", shown, "--out", welcome)
    compared = ("--root-fingerprint", made["fingerprint"])
    await postern("enrol", "--accept", str(welcome), *compared, "--config", str(config))
    add = ("roster", "add", "--config", str(config), COLLEAGUE)
    await postern(*add, "badge", stdin=BADGES[COLLEAGUE])
    await postern(*add, "pin", stdin=PIN)
    host, port = show.broker
    await fleet("head", "--device", LOCKER, "--host", host, "--port", port, "--plain")
    granted = await fleet("grant", "--locker", LOCKER, "--parcel", PARCELS[QR][0], "--hours", 12)
    return config, keys, Codes(signed={QR: granted["code"]})


_QUIET = ("--log-level", "error")


async def _evening(show: Show, at: LockerDevices, config: Path, keys: Path, codes: Codes) -> Outcome:
    outcome, doings, seals = Outcome(device=LOCKER), Doings(), Keyring(keys).seals()

    def take(entry: dict[str, Any]) -> None:
        doings.take(entry)
        if (notice := notices.read(entry, seals)) is not None:
            codes.typed[notice.parcel] = notice.typed

    show.scene.part = "the evening"
    async with show.heard(outcome, take, keys), agent(config, show.log(LOCKER)):
        evening = Evening(at, show.network, show.view, doings, codes, show.options.pace)
        show.scene.facts = lambda: _locker_facts(at, doings, evening, show.what)
        await show.told(outcome, evening.tell)
    _sum_up_doors(at, doings, outcome)
    return outcome


def _locker_facts(
    at: LockerDevices, doings: Doings, evening: Evening, broker: str
) -> Iterable[tuple[str, str]]:
    yield "broker", broker
    yield "network", "up" if evening.online else "CUT"
    yield "put in", str(doings.put.total())
    yield "taken out", str(doings.taken.total())
    yield "pulses", str(at.pulses)
    yield "not there yet", str(doings.lost)
    for name in locker_stage.SIZES:
        door = at.door(name)
        yield f"door {name}", f"{'shut' if door.shut else 'OPEN'}{', a parcel inside' * door.occupied}"


def _sum_up_doors(at: LockerDevices, doings: Doings, outcome: Outcome) -> None:
    outcome.sums += [
        ("put in", doings.put.total(), "parcels, with the good tone"),
        ("taken out", doings.taken.total(), "by recipients"),
        ("pulses", at.pulses, "at the solenoids"),
        ("refused", doings.of(*REFUSED).total(), "codes, with no pulse"),
        ("alarms", doings.of("door.forced").total(), "a door that was forced"),
        ("jammed", doings.of("locker.outcome_unknown").total(), "pulses that opened nothing"),
        ("lost", doings.lost, ""),
    ]
    outcome.wrong += doings.wrong(pulses=at.pulses, bad_tones=at.gun.tones.count("bad"))


@asynccontextmanager
async def _started(work: Awaitable[T]) -> AsyncIterator[asyncio.Future[T]]:
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="postern demo", description="A courier's morning and a locker's evening on virtual devices."
    )
    parser.add_argument("--broker", metavar="HOST:PORT", help="use this MQTT 5 broker, without TLS")
    parser.add_argument("--plain", action="store_true", help="plain lines, also on a terminal")
    parser.add_argument("--pace", type=float, default=0.25, help="seconds between two scans (0.25)")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args(arguments)
    where = None
    if given.broker:
        host, _, port = given.broker.rpartition(":")
        if not host or not port.isdecimal():
            parser.error(f"--broker: expected HOST:PORT, got {given.broker!r}")
        where = (host, int(port))
    options = Options(where, given.plain, given.pace, given.seed)
    with tempfile.TemporaryDirectory(prefix="postern-demo-") as folder:
        return asyncio.run(play(options, Path(folder)))


if __name__ == "__main__":
    sys.exit(main())
