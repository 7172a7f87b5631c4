"""A whole locker: the real agent, a virtual CU16 bus, a scanner, a badge reader and a keypad.

async with LockerSite(tmp_path) as site:
    await site.start()
    codes = await site.deposit("parcel-1")
    site.gun.scan(codes.long)
"""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.fleet import notices
from agent.jws import encoded
from simulators.cu16 import Cu16Bus
from simulators.doors import Door
from simulators.line import LineScanner
from tests.site import Entry, Site

DEVICE, TENANT = "locker-12", "lab"
COURIER = "drv-1a2b3c"
BADGE, PIN = "0100a3e9ae", "20261127"

CONFIG = """\
[device]
id = "locker-12"
tenant = "lab"
state = "{{state}}"

[broker]
host = "{{host}}"
port = {{port}}
plain = true
keepalive = 5

[fleet]
seal_key = "{seal_key}"

[custody]
tones = "gun"

[unit.gun]
kind = "line"
port = "{{dev}}/gun"
commands = "honeywell"

[unit.badge]
kind = "line"
role = "badge"
port = "{{dev}}/badge"

[unit.keypad]
kind = "line"
role = "keypad"
port = "{{dev}}/keypad"

[unit.bus]
kind = "cu16"
port = "{{dev}}/bus"
poll_ms = 50
boards = [{{{{ address = 0, locks = 6 }}}}]

[locker]
ajar = 0.5
gap = 0.1
{compartments}
"""

SIZES = {"a1": "S", "a2": "S", "b1": "M", "b2": "M", "c1": "L", "c2": "L"}


@dataclass(frozen=True)
class Codes:
    """What the fleet would pass on to a recipient."""

    jti: str
    long: str
    pin: str


class LockerSite(Site):
    def __init__(
        self,
        folder: Path,
        root: bytes | None = None,
        seal: X25519PrivateKey | None = None,
        more: str = "",
    ) -> None:
        """With a root the fleet's documents are believed, and nobody identifies until a head is in force.

        `more` is put at the end of the config file.
        """
        self.seal = seal or X25519PrivateKey.generate()
        compartments = "\n".join(
            f'[locker.compartment.{name}]\nunit = "bus"\ndoor = {door}\nsize = "{size}"'
            for door, (name, size) in enumerate(SIZES.items(), 1)
        )
        key = encoded(self.seal.public_key().public_bytes_raw())
        config = CONFIG.format(seal_key=key, compartments=compartments)
        if root is not None:
            (folder / "root.jws").write_bytes(root)
            config += f'\n[trust]\nroot = "{folder / "root.jws"}"\n'
        super().__init__(folder, config=config + more, device=DEVICE)

    async def __aenter__(self) -> Self:
        await super().__aenter__()
        self.gun = self.plug(LineScanner(self.dev / "gun", speaks="honeywell"))
        self.badge = self.plug(LineScanner(self.dev / "badge"))
        self.keypad = self.plug(LineScanner(self.dev / "keypad"))
        self.bus = self.plug(Cu16Bus(self.dev / "bus", {0: 6}))
        await self.listen(self.gun.obeyed)
        self.add(COURIER, "badge", BADGE)
        self.add(COURIER, "pin", PIN)
        return self

    def add(self, subject: str, kind: str, secret: str, role: str = "driver") -> None:
        """Enter somebody's credential, as an operator would."""
        words = ("roster", "add", subject, kind, "--role", role, "--config", str(self.config))
        command = [sys.executable, "-m", "agent", *words]
        subprocess.run(command, input=secret.encode(), check=True, capture_output=True)

    def door(self, name: str) -> Door:
        return self.bus.door(0, [*SIZES].index(name) + 1)

    @property
    def pulses(self) -> int:
        return sum(door.pulses for door in self.bus.boards[0].doors)

    async def start(self) -> None:
        in_service = len(self.of("locker.in_service"))
        await self.start_agent()
        await self.ready("gun", "badge", "keypad", "bus")
        await self.count("locker.in_service", in_service + 1)

    async def identify(self) -> None:
        """Badge and PIN, unless somebody is on duty."""
        opened = len(self.of("locker.session_opened"))
        shown = len(self.of("identity.factor_shown"))
        self.badge.scan(BADGE)
        await self.count("identity.factor_shown", shown + 1)
        self.keypad.scan(PIN)
        await self.count("locker.session_opened", opened + 1)

    async def deposit(self, label: str, size: str = "S") -> Codes:
        """The courier puts a parcel in; what the fleet can read of the grant."""
        done = len(self.of("locker.deposited"))
        self.gun.scan(f"POSTERN:SIZE:{size}")
        self.gun.scan(label)
        name = await self.opened()
        self.door(name).put()
        await self.ajar()
        self.door(name).slam()
        await self.count("locker.deposited", done + 1)
        return self.codes(self.of("locker.deposited")[-1])

    async def opened(self) -> str:
        """The compartment whose door has sprung open."""
        await self.until(self._open, "an open door")
        (name,) = self._open()
        return name

    def _open(self) -> list[str]:
        return [name for name in SIZES if not self.door(name).shut]

    async def ajar(self) -> None:
        """Long enough for a hook alone to say that the door was open."""
        opened = len(self.of("door.opened"))
        await self.count("door.opened", opened + 1)

    async def collect(self, code: str, *, typed: bool = False) -> None:
        """Show a code, take the parcel, shut the door."""
        done = len(self.of("locker.collected"))
        (self.keypad if typed else self.gun).scan(code)
        name = await self.opened()
        await self.ajar()
        self.door(name).take()
        self.door(name).slam()
        await self.count("locker.collected", done + 1)

    def codes(self, deposit: Entry) -> Codes:
        """As the fleet unseals them."""
        notice = notices.read(deposit, [self.seal])
        assert notice is not None
        return Codes(notice.grant, notice.code, notice.typed)

    async def count(self, kind: str, wanted: int) -> None:
        await self.until(lambda: len(self.of(kind)) >= wanted, f"{wanted} {kind}")

    async def refused(self, wanted: int) -> str:
        """The reason of the `wanted`th refusal of a code."""
        await self.count("locker.code_refused", wanted)
        reason: str = self.of("locker.code_refused")[wanted - 1]["data"]["reason"]
        return reason
