"""Codes that the fleet signs, from its command to the door: one opening, at one locker, in one window."""

import contextlib
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent.documents import Role
from agent.envelope import CAPS, Kind, issue
from agent.fleet.enrolment import enrol, read_request
from agent.fleet.keyring import Keyring
from simulators.stage import postern
from tests.fleets import passphrase, request
from tests.locker_site import DEVICE, TENANT, LockerSite
from tests.site import written
from tests.test_collect import collecting

LABEL, ID = "RB473124829DE", "s10:RB473124829DE"
OTHER = "locker-13"

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]


@dataclass
class Fleet:
    """The keys, and the commands as an operator types them."""

    keyring: Keyring
    at: Sequence[str] = ()
    """Where the broker is."""

    @classmethod
    def begun(cls, folder: Path) -> "Fleet":
        """Two lockers are known to it."""
        keyring = Keyring.create(folder / "keys", TENANT, passphrase)
        for device in (DEVICE, OTHER):
            asked = request(device, aud=f"{TENANT}/*", tenant=TENANT)
            enrol(keyring, read_request(asked, TENANT))
        return cls(keyring)

    async def do(self, *arguments: str) -> Any:
        said = await postern(
            "--log-level", "error", "fleet", *arguments, "--keys", str(self.keyring.folder), "--json"
        )
        return json.loads(said.splitlines()[-1])

    async def grant(self, *, locker: str = DEVICE, parcel: str = LABEL, hours: float = 24.0) -> Any:
        return await self.do("grant", "--locker", locker, "--parcel", parcel, "--hours", str(hours))

    def signed(self, role: Role = Role.GRANT, **claims: Any) -> str:
        """A code of another shape than the command gives."""
        now = int(time.time())
        given = {"aud": f"{TENANT}/{DEVICE}", "iat": now, "exp": now + 3600, "ver": 1, **claims}
        return issue(
            Kind.GRANT, given.pop("body", {"parcel": ID}), self.keyring.signers(role)[:1], **given
        ).decode()


@contextlib.asynccontextmanager
async def lab(folder: Path) -> AsyncIterator[tuple[Fleet, LockerSite]]:
    """A locker that believes this fleet, has its newest word, and knows the time from it."""
    fleet = Fleet.begun(folder)
    async with LockerSite(folder, fleet.keyring.document.raw, fleet.keyring.seals()[0]) as site:
        fleet.at = ("--host", "127.0.0.1", "--port", str(site.broker.port), "--plain")
        keys = ("--keys", str(fleet.keyring.folder), "--notices", str(folder / "notices"))
        async with collecting(*fleet.at, *keys):
            await site.start()
            await site.count("clock.corrected", 1)
            await fleet.do("head", "--device", DEVICE, *fleet.at)
            await site.count("fleet.head_accepted", 1)
            yield fleet, site
            await site.kill_agent()


async def deposited(site: LockerSite) -> None:
    """A courier has left the parcel."""
    await site.identify()
    await site.deposit(LABEL)
    site.gun.scan("POSTERN:END")
    await site.count("locker.session_closed", 1)


async def test_a_code_signed_before_the_parcel_came_opens_its_door_once_in_the_dark(tmp_path: Path) -> None:
    async with lab(tmp_path) as (fleet, site):
        made = await fleet.grant()
        assert (made["parcel"], len(made["code"]) <= CAPS[Kind.GRANT] == 512) == (ID, True)
        await deposited(site)
        site.relay.cut()
        pulses = site.pulses
        site.gun.scan(made["code"])
        name = await site.opened()
        site.door(name).take()
        site.relay.restore()
        await site.ajar()
        site.door(name).slam()
        await site.count("locker.collected", 1)
        (collected,) = site.of("locker.collected")
        assert (collected["subject"], collected["data"]["grant"]) == (ID, made["grant"])
        site.gun.scan(made["code"])
        assert await site.refused(1) == "spent"
        await site.kill_agent()
        await site.start()
        site.gun.scan(made["code"])
        assert await site.refused(2) == "spent"
        assert site.pulses == pulses + 1


Code = Callable[[Fleet], Awaitable[str]]


async def elsewhere(fleet: Fleet) -> str:
    code: str = (await fleet.grant(locker=OTHER))["code"]
    return code


def now() -> int:
    return int(time.time())


WRONG: list[tuple[str, Callable[[Fleet], str], str]] = [
    ("for every locker", lambda fleet: fleet.signed(aud=f"{TENANT}/*"), "other_locker"),
    ("over", lambda fleet: fleet.signed(iat=now() - 7200, exp=now() - 3600), "expired"),
    ("to come", lambda fleet: fleet.signed(iat=now() + 3600, exp=now() + 7200), "not_yet"),
    ("not begun", lambda fleet: fleet.signed(body={"parcel": ID, "nbf": now() + 3600}), "not_yet"),
    ("signed with another key", lambda fleet: fleet.signed(Role.COMMAND), "unknown"),
    ("for nothing", lambda fleet: fleet.signed(body={}), "malformed"),
    ("changed", lambda fleet: fleet.signed()[:-8] + "AAAAAAAA", "unknown"),
    ("too long", lambda fleet: fleet.signed() + "A" * 300, "malformed"),
    ("for another parcel", lambda fleet: fleet.signed(body={"parcel": "s10:RB000000005DE"}), "nothing_here"),
    (
        "for another door",
        lambda fleet: fleet.signed(body={"parcel": ID, "compartment": "c2"}),
        "nothing_here",
    ),
]


async def test_whatever_else_is_shown_opens_nothing(tmp_path: Path) -> None:
    async with lab(tmp_path) as (fleet, site):
        await deposited(site)
        pulses = site.pulses
        site.gun.scan(await elsewhere(fleet))
        assert await site.refused(1) == "other_locker"
        for number, (what, code, reason) in enumerate(WRONG, start=2):
            site.gun.scan(code(fleet))
            assert await site.refused(number) == reason, what
        assert site.pulses == pulses
        # Answers leave on their grid, after the entry that may have reached the fleet already.
        same = ["bad"] * (1 + len(WRONG))
        await site.until(lambda: site.gun.tones[-len(same) :] == same, "the same tone for all of them")
        assert not site.of("agent.fault")


async def test_a_withdrawn_code_opens_nothing(tmp_path: Path) -> None:
    async with lab(tmp_path) as (fleet, site):
        made, kept = await fleet.grant(), await fleet.grant()
        await deposited(site)
        pulses = site.pulses
        await fleet.do("revoke", "--grant", made["grant"], *fleet.at)
        await site.count("fleet.revocations_accepted", 1)
        site.gun.scan(made["code"])
        assert await site.refused(1) == "revoked"
        assert site.pulses == pulses
        await site.collect(kept["code"])


async def test_the_codes_that_a_locker_makes_come_to_the_recipient_by_file_alone(tmp_path: Path) -> None:
    async with lab(tmp_path) as (_, site):
        await deposited(site)
        notices = tmp_path / "notices"
        await written(notices)
        assert notices.stat().st_mode & 0o777 == 0o600
        notice = json.loads(notices.read_text())
        assert (notice["locker"], notice["parcel"], notice["compartment"]) == (DEVICE, ID, "a1")
        secrets = (notice["code"].removeprefix("PICKUP:"), notice["typed"].split()[1])
        told = json.dumps([*site.entries, *site.events])
        assert not [secret for secret in secrets if secret in told]
        await site.collect(notice["typed"], typed=True)
        site.gun.scan(notice["code"])
        assert await site.refused(1) == "spent"
