"""A courier's morning, with no hardware: `postern demo`.

Virtual scanners, RFID and card readers, a GNSS receiver and a fingerprint module on pseudo-terminals; the
real agent reading them; a broker; and a small fleet side that receives. The network is cut and restored in
the middle. At the end everything is added up: what sounded the good tone and did not arrive is lost, and then
the exit code is not 0.

This is the one file of the simulators that knows the agent: its fleet side, to receive.
"""

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.fleet.collect import Collector
from agent.fleet.device_log import DeviceLog
from agent.mqtt import Server
from simulators.fido_card import FidoCard
from simulators.morning import BADGES, COLLEAGUE, COURIER, PIN, RELIEF, SLOT, Morning, StoryFailed, Tally
from simulators.relay import Relay
from simulators.stage import CONFIG, Devices, agent, broker, devices, log_tail, postern
from simulators.view import Scene, open_view


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    broker: tuple[str, int] | None
    plain: bool
    pace: float
    seed: int


async def play(options: Options, folder: Path) -> int:
    """The whole demo. Returns the exit code."""
    scene = Scene(title="Postern: a courier's morning")
    view, live = open_view(scene, plain=options.plain)
    tally = Tally()
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        at = await enter(devices(folder / "dev"))
        if options.broker:
            host, port = options.broker
            what = f"{host}:{port}"
        else:
            host = "127.0.0.1"
            port, what = await enter(broker(folder))
        network = await enter(Relay(host, port))
        config = folder / "postern.toml"
        config.write_text(
            CONFIG.format(state=folder / "state", host="127.0.0.1", port=network.port, dev=folder / "dev")
        )
        card = FidoCard(fingers={"index"})
        await _provision(config, at, card)

        def received(entry: dict[str, Any]) -> None:
            tally.take(entry)
            view.entry(entry["sequence"], entry["type"].removeprefix("postern."), entry["subject"])

        keys: set[str] = set()

        def told(device: DeviceLog) -> None:
            keys.update({device.state["key"]} if device.state and "key" in device.state else ())

        server = Server(host=host, port=port, client_id=f"demo-fleet-{options.seed}")
        fleet = Collector(server, received, device="van-0042", on_state=told)
        await enter(_running(fleet))
        log = folder / "agent.log"
        failure = None
        async with agent(config, log):
            morning = Morning(at, card, network, view, tally, options.seed, options.pace)
            scene.facts = lambda: _facts(at, tally, morning, what)
            with live:
                try:
                    await morning.tell()
                except StoryFailed as failed:
                    failure = str(failed)
                    view.failed()
    code = _sum_up(tally, scene.seconds, failure, log)
    return code or await _verify(folder / "state" / "journal.db", keys)


async def _verify(journal: Path, keys: set[str]) -> int:
    """Anyone with the device's public key, which it told at its birth, can check the whole record."""
    try:
        said = await postern("journal", "verify", str(journal), "--key", keys.pop() if keys else "none")
    except RuntimeError as failed:
        print(f"WRONG: {failed}")
        return 1
    print(f"verified   {said.splitlines()[0]}")
    return 0


async def _provision(config: Path, at: Devices, card: FidoCard) -> None:
    """Three drivers, as an operator would enter them: one has a template in the fingerprint module, one a
    PIN, and one makes a credential on a fingerprint card."""
    at.finger.teach(SLOT, "thumb")
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


def _sum_up(tally: Tally, seconds: float, failure: str | None, log: Path) -> int:
    refused = ", ".join(f"{count} {reason}" for reason, count in sorted(tally.refused.items())) or "none"
    print(f"\naccepted   {tally.toned.total():4}   scans that sounded the good tone")
    print(f"delivered  {(tally.toned & tally.accepted).total():4}   of them with the fleet")
    print(f"refused    {tally.refused.total():4}   {refused}")
    print(f"handed on  {tally.types['custody.handed_over']:4}   parcels")
    print(f"lost       {tally.lost:4}   in {seconds:.0f} s")
    wrong = []
    if failure:
        wrong.append(failure)
    if tally.lost:
        wrong.append(f"lost: {', '.join(tally.toned - tally.accepted)}")
    if tally.refused.total() != tally.bad_tones:
        wrong.append(f"{tally.bad_tones} bad tones, but {tally.refused.total()} refusals at the fleet")
    if extra := tally.accepted - tally.toned:
        wrong.append(f"accepted without a tone: {', '.join(extra)}")
    for line in wrong:
        print(f"WRONG: {line}")
    if wrong:
        print("the agent's last words:", *log_tail(log), sep="\n  ")
    return 1 if wrong else 0


@contextlib.asynccontextmanager
async def _running(fleet: Collector) -> AsyncIterator[None]:
    task = asyncio.create_task(fleet.run(), name="fleet")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="postern demo", description="A courier's morning on virtual devices."
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
