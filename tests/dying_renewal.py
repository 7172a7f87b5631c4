"""A whole renewal of a device's certificate, killed before its n-th change to a file, for every n. A program
of its own, since it forks: there must be no other thread.

    python -m tests.dying_renewal KEYS STATE CONFIG

STATE is of an enrolled device, and KEYS its fleet; the broker that CONFIG names runs. After each kill the
pair in force has to be a pair, and a life without kills has to end in the new one. Prints how many kills
there were; what went wrong is an exception.
"""

import asyncio
import contextlib
import json
import os
import shutil
import ssl
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from agent.clock import Moment, SystemClock
from agent.config import Config, parse
from agent.envelope import Envelope, Kind
from agent.fleet import renewals
from agent.fleet.keyring import Keyring
from agent.journal import Journal
from agent.keystore import Keystore
from agent.mqtt import Server
from agent.renewal import Pace, Renewal
from agent.tls_files import tls_files
from tests.brokers import News
from tests.dying_trial import dies_at

KILLED = 9
MOST = 60
MEMORY = Path("/dev/shm")


class House:
    """The old connection stands, as far as anybody asks."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.clock.observe_ntp()
        self.news = News()
        self.server: Server | None = None

    def stamp(self) -> tuple[Moment, Mapping[str, Any]]:
        return self.clock.now(), {"position": None}

    def announce(self) -> None:
        self.news.look()

    def online(self) -> str | None:
        return None

    def connect_with(self, server: Server) -> None:
        self.server = server

    def reseal(self) -> None:
        """Nobody opens pages here."""

    async def sealed_to(self, secret: bytes) -> bool:
        return False


@contextlib.asynccontextmanager
async def renewing(config: Config) -> AsyncIterator[tuple[Renewal, House, Journal]]:
    """A device's renewal at work, without the rest of an agent."""
    keystore, house = Keystore.of(config.state), House()
    journal = Journal(config.state / "journal.db", source=config.source, key=keystore.load("device").reveal())
    await journal.open()
    renewal = Renewal(config, keystore, journal, house=house, pace=Pace(again=0.01))
    running = asyncio.create_task(renewal.run())
    # What the last life has left to do is done by the first step of this one.
    await asyncio.sleep(0)
    try:
        yield renewal, house, journal
    finally:
        running.cancel()
        await asyncio.wait([running])
        await journal.close()


async def told(journal: Journal, type_: str) -> list[dict[str, Any]]:
    """The data of all entries of a type."""
    entries = [json.loads(each.line) for each in await journal.read(0, entries=100, size=10**6)]
    return [entry["data"] for entry in entries if entry["type"] == f"postern.{type_}"]


async def live(keys: Path, config: Config) -> bool:
    """Until nothing is asked for any more; asked anew where nothing ever was. Whether it was told of."""
    async with renewing(config) as (renewal, house, journal):
        if renewal.request() is None:
            await renewal.rotate(["certificate"], "command")
        while renewal.open:
            if asked := renewal.request():
                raw = renewals.answer(Keyring(keys), config.file.device.id, asked, None, operator="op-1")
                args = Envelope.parse(Kind.COMMAND, raw).claims(Kind.COMMAND).body["args"]
                assert not await renewal.confirm(args["request"], args["chain"])
            await house.news.until(lambda: not renewal.open or renewal.request())
        return bool(await told(journal, "keys.certificate_renewed"))


def forked(keys: Path, config: Config, number: int | None) -> int:
    """Exit code of a life that dies at this change, or of one that does not."""
    pid = os.fork()
    if pid == 0:
        if number is not None:
            dies_at(number, str(config.state / "tls"))
        os._exit(0 if asyncio.run(live(keys, config)) else 1)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def pair(state: Path) -> bytes:
    """The certificate in force, of which there is the key."""
    there = tls_files(state)
    assert there.certificate is not None
    ssl.create_default_context().load_cert_chain(there.certificate, there.key)
    return there.certificate.read_bytes()


def main(keys: Path, enrolled: Path, text: str, folder: Path) -> None:
    for number in range(1, MOST):
        state = folder / f"{number}"
        shutil.copytree(enrolled, state)
        (keys / "issued" / "van-0001" / "renewal.json").unlink(missing_ok=True)
        config = parse(text.replace(str(enrolled), str(state)))
        code = forked(keys, config, number)
        assert code in (0, -KILLED), code
        between = pair(state)
        if code == 0:
            sys.stdout.write(f"{number - 1}\n")
            return
        assert forked(keys, config, None) == 0
        after = pair(state)
        assert after != pair(enrolled)
        assert between in (after, pair(enrolled))
        left = {path.name for path in (state / "tls").iterdir()}
        assert left == {"pair.pem", "ca.pem"}, left
        assert (state / "tls" / "pair.pem").stat().st_mode & 0o777 == 0o600
    raise AssertionError("a renewal has an end")


if __name__ == "__main__":
    # In memory where there is room: it is the process that dies, not the disk.
    with TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as made:
        main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]).read_text(), Path(made))
