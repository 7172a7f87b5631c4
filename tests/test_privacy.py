"""What leaks: nothing that a person presented, no key, no name of theirs, anywhere that anybody could look.

A courier's morning with secrets that occur nowhere else, at the most talkative log level; then everything
that was said or written is searched for them in every form that bytes take on their way. The courier's
random reference, which does belong in the record, is searched for in the same way: it must be found, or the
search would prove nothing.
"""

import base64
import contextlib
import gzip
import json
import random
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from agent.audit.verdict import Verdict
from agent.fleet.clerk import Clerk
from agent.fleet.collect import Collector
from simulators.line import LineScanner
from simulators.r503 import template_of
from simulators.stage import CONFIG, Devices, devices, postern
from tests.audits import audit_file
from tests.broker_peer import Peers
from tests.brokers import running, server
from tests.site import DIES_WITH_US, Site
from tests.test_fleet_down import ANNA, BADGE, BORIS
from tests.test_receipts import FLEET
from tests.test_templates_end_to_end import OTHER_SLOT, van
from tests.test_templates_end_to_end import SLOT as SLOT_OF_ANNA

pytestmark = [pytest.mark.broker, pytest.mark.timeout(180)]

DEVICE = "van-0042"
COURIER, COLLEAGUE = "drv-7f3a91", "drv-b20c55"
SLOT = 7
TERMINAL = """
[unit.terminal]        # a biometric terminal that sends a token for whom it knows
kind = "line"
role = "token"
port = "{dev}/terminal"
"""


def digits(seed: random.Random, count: int) -> str:
    return "".join(seed.choice("0123456789") for _ in range(count))


@dataclass
class Canaries:
    """Secrets of one morning, by what they are."""

    seed: random.Random
    badge: str = ""
    colleague: str = ""
    stranger: str = ""
    """A badge that nobody here has."""
    pin: str = ""
    wrong_pin: str = ""
    token: str = ""
    """What a biometric terminal sends for somebody who is not known here."""
    code: str = ""
    """What a recipient types."""
    finger: str = ""
    """What the fingerprint module holds as a template: simulated, so any bytes will do."""
    keys: dict[str, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.badge, self.colleague, self.stranger = (self.seed.randbytes(5).hex() for _ in range(3))
        self.pin, self.wrong_pin, self.code = (digits(self.seed, 12) for _ in range(3))
        self.token = self.seed.randbytes(16).hex()
        self.finger = f"template-{self.seed.randbytes(12).hex()}"

    def secrets(self) -> Iterator[tuple[str, bytes]]:
        """Every form in which one of them could be found, with its name."""
        for name in ("badge", "colleague", "stranger", "pin", "wrong_pin", "token", "code", "finger"):
            yield from forms(name, getattr(self, name).encode())
        for name in ("badge", "colleague", "stranger"):
            number = bytes.fromhex(getattr(self, name))
            yield from forms(f"{name} number", number)
            yield f"{name} in decimal", str(int.from_bytes(number, "big")).encode()
        for name, key in self.keys.items():
            yield from forms(f"key {name}", key)


def forms(name: str, value: bytes) -> Iterator[tuple[str, bytes]]:
    yield name, value
    yield f"{name} in hex", value.hex().encode()
    yield f"{name} in capital hex", value.hex().upper().encode()
    yield f"{name} in capitals", value.upper()
    yield f"{name} in base64", base64.b64encode(value).rstrip(b"=")
    yield f"{name} in base64url", base64.urlsafe_b64encode(value).rstrip(b"=")
    yield f"{name} as Python shows it", repr(value)[2:-1].encode()


class Talkative(Site):
    """An agent that logs all it can, and whose standard output is kept."""

    def command(self) -> list[str]:
        to = str(self.folder / "stdout")
        agent = [sys.executable, "-m", "agent", "--log-level", "debug", "--log-format", "json"]
        keep = ["sh", "-c", 'exec "$@" >>"$0"', to]
        return [*DIES_WITH_US, *keep, *agent, "run", "--config", str(self.config)]


@contextlib.asynccontextmanager
async def place(folder: Path, canaries: Canaries) -> AsyncIterator[tuple[Talkative, Devices, LineScanner]]:
    async with Talkative(folder, config=CONFIG + TERMINAL, device=DEVICE) as site, devices(site.dev) as at:
        for device in (at.gun, at.desk):
            await site.listen(device.obeyed)
        at.finger.teach(SLOT, canaries.finger)
        terminal = site.plug(LineScanner(site.dev / "terminal"))
        add = ("roster", "add", "--config", str(site.config))
        await postern(*add, "--finger", f"finger:{SLOT}", COURIER, "badge", stdin=canaries.badge)
        await postern(*add, COURIER, "pin", stdin=canaries.pin)
        await postern(*add, COLLEAGUE, "badge", stdin=canaries.colleague)
        await postern(*add, COLLEAGUE, "pin", stdin=canaries.pin)
        yield site, at, terminal
        await site.kill_agent()


async def work(site: Site, at: Devices, terminal: LineScanner, canaries: Canaries) -> None:
    """Nobody's token and badge, a wrong PIN, a colleague by PIN, a courier by finger, a handover by code."""

    async def count(kind: str, wanted: int) -> None:
        await site.until(lambda: len(site.of(kind)) >= wanted, f"{wanted} {kind}")

    await site.start_agent()
    await site.ready("gun", "desk", "badge", "finger", "keypad", "terminal")
    terminal.scan(canaries.token)
    await count("identity.refused", 1)
    at.badge.present(canaries.stranger)
    await count("identity.refused", 2)
    at.badge.remove()
    at.badge.present(canaries.colleague)
    await count("identity.factor_shown", 1)
    at.keypad.scan(canaries.wrong_pin)
    await count("identity.refused", 3)
    at.keypad.scan(canaries.pin)
    await count("custody.session_opened", 1)
    at.badge.remove()
    at.gun.scan("POSTERN:END")
    await count("custody.session_closed", 1)
    at.finger.touch(canaries.finger)
    at.badge.present(canaries.badge)
    await count("custody.session_opened", 2)
    at.badge.remove()
    at.finger.lift()
    at.desk.scan("RB473124829DE")
    await count("custody.accepted", 1)
    at.gun.scan("POSTERN:HANDOVER:RECIPIENT")
    await count("custody.handover_opened", 1)
    at.gun.scan("RB473124829DE")
    await count("custody.offered", 1)
    at.keypad.scan(canaries.code)
    await count("custody.handover_closed", 1)


async def ask(site: Site, *words: str) -> str:
    return await postern(*words, "--config", str(site.config))


@contextlib.asynccontextmanager
async def overheard(site: Site) -> AsyncIterator[list[bytes]]:
    """Everything that passes the broker, topics as well."""
    async with Peers(site.broker.port) as peers:
        peer = await peers.connected("eavesdropper")
        await peer.subscribe("#")
        heard: list[bytes] = []

        async def listen() -> None:
            while True:
                message = await peer.message()
                payload = bytes(message.payload)
                packed = payload.startswith(b"\x1f\x8b")
                heard.extend((message.topic.encode(), gzip.decompress(payload) if packed else payload))
                site.look()

        async with running(listen()):
            yield heard


async def test_no_secret_of_a_morning_is_found_anywhere(tmp_path: Path) -> None:
    canaries = Canaries(random.Random(22))
    async with (
        place(tmp_path, canaries) as (site, at, terminal),
        Clerk(tmp_path / "fleet.db", FLEET) as clerk,
    ):
        books = Collector(server(site.broker.port, "books"), lambda _: None, clerk=clerk)
        async with running(books.run()), overheard(site) as heard:
            await books.online.wait()
            await work(site, at, terminal, canaries)
            last = json.dumps(site.entries[-1]["id"]).encode()
            await site.until(
                lambda: any(last in each for each in heard), "the last entry at the eavesdropper"
            )
            answers = [await ask(site, "status"), await ask(site, "identity", "export", COURIER)]
            logged = b"\n".join(json.dumps(event).encode() for event in site.events)
            await site.stop_agent()
    keys = tmp_path / "state" / "keys"
    canaries.keys = {file.name: file.read_bytes() for file in keys.iterdir()}
    assert set(canaries.keys) >= {"device", "pepper", "epoch"}
    places = {
        "log": logged,
        "standard output": (tmp_path / "stdout").read_bytes(),
        "control socket": "\n".join(answers).encode(),
        "broker": b"\n".join(heard),
        **{file.name: file.read_bytes() for file in state_files(tmp_path)},
    }
    leaks = [
        f"{what} in {where}"
        for what, form in canaries.secrets()
        for where, said in places.items()
        if form in said
    ]
    assert leaks == []
    # The search has teeth: what belongs in the record is found in each of the places that hold it.
    there = {where for where, said in places.items() if COURIER.encode() in said}
    assert there >= {"broker", "control socket", "journal.db", "fleet.db"}
    assert b'"level": "info"' in logged


def state_files(folder: Path) -> Iterator[Path]:
    """Everything that agent and fleet have left, the key files themselves excepted."""
    for file in folder.rglob("*"):
        if file.is_file() and file.parent.name != "keys" and file.name != "stdout":
            yield file


async def test_a_driver_who_is_erased_leaves_a_reference_in_past_entries_and_nothing_else(
    tmp_path: Path,
) -> None:
    canaries = Canaries(random.Random(23))
    async with place(tmp_path, canaries) as (site, at, terminal):
        await work(site, at, terminal, canaries)
        at.desk.scan("1Z5R89390357567127")
        await site.until(lambda: len(site.of("custody.accepted")) == 2, "a parcel on their name")
        exported = json.loads(await ask(site, "identity", "export", COURIER))
        key = json.loads(await ask(site, "status"))["key"]
        assert (exported["rows"], set(exported["records"]) >= {"custody"}) == (2, True)
        named = [entry["sequence"] for entry in exported["entries"]]
        assert named == [entry["sequence"] for entry in site.entries if COURIER in json.dumps(entry)]
        said = await ask(site, "identity", "erase", COURIER)
        assert said.startswith("erased: 2 rows, ")
        await site.until(lambda: site.of("identity.erased"), "the erasure at the fleet")
        (erased,) = site.of("identity.erased")
        assert [entry["subject"] for entry in site.of("custody.untracked")] == ["ups:1Z5R89390357567127"]
        before = len(site.of("identity.refused"))
        at.badge.present(canaries.badge)
        await site.until(lambda: len(site.of("identity.refused")) > before, "a badge that nobody has")
        assert site.of("identity.refused")[-1]["data"]["subject_ref"] is None
        exported = json.loads(await ask(site, "identity", "export", COURIER))
        assert (exported["rows"], exported["records"], exported["erased"]) == (0, {}, True)
        later = [entry for entry in site.entries if int(entry["sequence"]) >= int(erased["sequence"])]
        assert COURIER not in json.dumps(later)
        await site.stop_agent()
    state = tmp_path / "state"
    assert audit_file(state / "journal.db", key).verdict is Verdict.PASS
    assert [file.name for file in state_files(state) if COURIER.encode() in file.read_bytes()] == [
        "journal.db"
    ]


async def test_what_a_stopped_device_holds_of_a_driver_is_shown_as_well(tmp_path: Path) -> None:
    canaries = Canaries(random.Random(24))
    async with place(tmp_path, canaries) as (site, at, terminal):
        await work(site, at, terminal, canaries)
        running_told = json.loads(await ask(site, "identity", "export", COURIER))
        await site.stop_agent()
        stopped_told = json.loads(await ask(site, "identity", "export", COURIER))
        assert stopped_told["entries"] == running_told["entries"]
        assert stopped_told["rows"] == 2
        nobody: Mapping[str, Any] = json.loads(await ask(site, "identity", "export", "drv-nobody"))
        assert (nobody["rows"], nobody["records"], nobody["entries"]) == (0, {}, [])


# -- templates that the fleet provisions ----------------------------------------------------------


def pieces(template: bytes) -> Iterator[tuple[str, bytes]]:
    """Where a template is found if only a part of it is: cut where base64 is cut."""
    for start in range(0, len(template) - 24, 192):
        yield from forms(f"template from byte {start}", template[start : start + 24])


async def test_no_template_of_the_fleet_is_found_anywhere_but_in_its_module(tmp_path: Path) -> None:
    """Stored, compared, deleted, and fetched again for a module that came in place of another."""
    async with van(tmp_path, Talkative) as made, overheard(made.site) as heard:
        await made.push((ANNA, SLOT_OF_ANNA), (BORIS, OTHER_SLOT))
        await made.heard("identity.template_stored", 2)
        await made.log_in(BADGE, ANNA)
        await made.swap()
        await made.heard("identity.template_stored", 4)
        await made.fleet.online("revoke", "--subject", ANNA)
        await made.heard("identity.template_deleted")
        await ask(made.site, "identity", "erase", BORIS)
        await made.heard("identity.template_deleted", 2)
        assert made.module.templates == {}
        said = await ask(made.site, "status")
        logged = b"\n".join(json.dumps(event).encode() for event in made.site.events)
        await made.site.stop_agent()
    searched = [*pieces(template_of(ANNA)), *pieces(template_of(BORIS))]
    places = {
        "log": logged,
        "standard output": (tmp_path / "stdout").read_bytes(),
        "control socket": said.encode(),
        "broker": b"\n".join(heard),
        **{file.name: file.read_bytes() for file in state_files(tmp_path / "state")},
        **{f"issued {file.name}": file.read_bytes() for file in state_files(tmp_path / "keys" / "issued")},
    }
    assert [
        f"{what} in {where}" for what, form in searched for where, held in places.items() if form in held
    ] == []
    # The search has teeth: it finds what the operator holds, and the reference that belongs in the record.
    assert any(form in (tmp_path / f"{ANNA}.tpl").read_bytes() for _, form in searched)
    assert {"broker", "journal.db"} <= {where for where, held in places.items() if ANNA.encode() in held}
    assert ANNA.encode() not in places["roster.db"]
    assert b"page/" in places["broker"]
