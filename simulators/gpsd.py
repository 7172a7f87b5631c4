"""gpsd on a TCP port of this machine, with one receiver: enough of its protocol for a client that watches.

    async with FakeGpsd() as gpsd:
        gpsd.at(48.1173, 11.5167)
        ...  # connect to 127.0.0.1, gpsd.port

From gpsd_json(5): it greets with VERSION; `?WATCH={"enable":true,"json":true};` is answered by DEVICES and
WATCH, and from then on each epoch makes a TPV and a SKY. Objects end with CR LF and never hold null. With
`rate=0` an epoch passes only when `tick` is called.
"""

import asyncio
import contextlib
import json
from datetime import UTC, datetime, timedelta
from typing import Self

from simulators.gnss import Journey, Sky

DEVICE = "/dev/ttyACM0"
COMMAND_LIMIT = 80
"""Requests may be no longer, says the manual."""


class FakeGpsd:
    """Serves any number of clients."""

    def __init__(
        self,
        *,
        rate: float = 1.0,
        step: float | None = None,
        start: datetime | None = None,
        weeks_back: int = 0,
        release: str = "3.25",
    ) -> None:
        self.rate = rate
        self.now = start or datetime.now(UTC).replace(microsecond=0)
        self.weeks_back = weeks_back
        self.release = release
        self.sky = Sky()
        self.journey = Journey()
        self.mute = False
        """It hears, and says nothing."""
        self.split = False
        """Every byte is written by itself."""
        self.port = 0
        self.watched = asyncio.Event()
        """Somebody has asked to watch."""
        self._step = timedelta(seconds=step if step is not None else 1 / (rate or 1))
        self._watchers: set[asyncio.StreamWriter] = set()
        self._clients: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._server: asyncio.Server | None = None
        self._next: asyncio.TimerHandle | None = None

    # -- hands ------------------------------------------------------------------------------------

    def at(self, lat: float, lon: float) -> None:
        self.journey.at(lat, lon)

    def drive_to(self, lat: float, lon: float, *, over: float) -> None:
        self.journey.drive_to(lat, lon, over=over, now=self.now)

    def lose_fix(self) -> None:
        self.sky.has_fix = False

    def regain(self) -> None:
        self.sky.has_fix = True

    def tick(self) -> None:
        """One epoch."""
        self.report(self._tpv())
        self.report(self._sky())
        self.now += self._step

    def report(self, report: dict[str, object]) -> None:
        """Send an object of your own to all who watch."""
        self.say(_line(report))

    def say(self, data: bytes) -> None:
        """Send bytes, whatever they are, to all who watch."""
        for writer in self._watchers:
            self._write(writer, data)

    async def hang_up(self) -> None:
        """Close every connection, as a restart of the service does."""
        clients = dict(self._clients)
        for writer in clients.values():
            writer.close()
        await asyncio.gather(*clients)

    # -- the service ------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        if self.rate:
            self._schedule(asyncio.get_running_loop().time() + 1 / self.rate)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        if self._next is not None:
            self._next.cancel()
        self._server.close()
        await self.hang_up()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._clients[task] = writer
        self._write(
            writer, _line({"class": "VERSION", "release": self.release, "proto_major": 3, "proto_minor": 15})
        )
        with contextlib.suppress(ConnectionError):
            while request := await reader.readline():
                self._obey(writer, request.strip())
        self._watchers.discard(writer)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        del self._clients[task]

    def _obey(self, writer: asyncio.StreamWriter, request: bytes) -> None:
        if len(request) > COMMAND_LIMIT or not request.startswith(b"?WATCH={"):
            self._write(writer, _line({"class": "ERROR", "message": "Unrecognized request"}))
            return
        wish = json.loads(request.removeprefix(b"?WATCH=").rstrip(b";"))
        device = {"class": "DEVICE", "path": DEVICE, "driver": "u-blox", "bps": 9600}
        self._write(writer, _line({"class": "DEVICES", "devices": [device]}))
        self._write(writer, _line({"class": "WATCH", **wish}))
        if wish.get("enable") and wish.get("json"):
            self._watchers.add(writer)
            self.watched.set()

    def _write(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        if self.mute:
            return
        for piece in [data[i : i + 1] for i in range(len(data))] if self.split else [data]:
            writer.write(piece)

    def _schedule(self, when: float) -> None:
        self._next = asyncio.get_running_loop().call_at(when, self._on_time, when)

    def _on_time(self, when: float) -> None:
        self.tick()
        self._schedule(when + 1 / self.rate)

    def _time(self) -> str:
        told = self.now - timedelta(weeks=self.weeks_back)
        return told.strftime("%Y-%m-%dT%H:%M:%S.") + f"{told.microsecond // 1000:03d}Z"

    def _tpv(self) -> dict[str, object]:
        if not self.sky.has_fix:
            return {"class": "TPV", "device": DEVICE, "mode": 1}
        lat, lon = self.journey.position(self.now)
        return {
            "class": "TPV",
            "device": DEVICE,
            "mode": 3,
            "time": self._time(),
            "lat": round(lat, 9),
            "lon": round(lon, 9),
            "altMSL": self.sky.altitude_m,
            "speed": round(self.journey.speed(self.now), 3),
        }

    def _sky(self) -> dict[str, object]:
        satellites = [
            {"PRN": number + 1, "gnssid": 0, "el": 40.0, "az": 90.0, "ss": 38.0, "used": self.sky.has_fix}
            for number in range(self.sky.satellites)
        ]
        used = self.sky.satellites if self.sky.has_fix else 0
        hdop = self.sky.hdop if self.sky.has_fix else 99.99
        return {
            "class": "SKY",
            "device": DEVICE,
            "hdop": hdop,
            "nSat": len(satellites),
            "uSat": used,
            "satellites": satellites,
        }


def _line(report: dict[str, object]) -> bytes:
    return json.dumps(report, separators=(",", ":")).encode("ascii") + b"\r\n"
