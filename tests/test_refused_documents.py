"""Everything wrong that a broker can bring: refused by its name, told of, and nothing changed by it.

A real agent and a real mosquitto.
"""

import time
from pathlib import Path
from typing import Any

import pytest

from agent import control
from agent.admission import LEAP
from agent.envelope import CAPS, Kind
from agent.jws import encoded
from tests.authority import DAY, fresh
from tests.schemas import unlike
from tests.test_remote_doors import Locker, locker_at

pytestmark = pytest.mark.broker

NEWEST = 5
"""The version of everything that is in force."""


class Told:
    """What is in force at a device, and what else its fleet, or somebody else, could say to it."""

    def __init__(self, locker: Locker) -> None:
        self.locker, self.fleet = locker, locker.operator.fleet
        self.now = int(time.time())
        self.root = self.fleet.root(NEWEST, iat=self.now)
        self.grants = self.fleet.bundle("grants", NEWEST, iat=self.now)
        self.lists = self.fleet.revocations(NEWEST, of={"subjects": ["drv-7"]}, iat=self.now)

    def head(self, ver: int, **changes: Any) -> bytes:
        named = {"root": self.root, "bundle/grants": self.grants, "revocations": self.lists}
        return self.fleet.head(ver, changes.pop("documents", named), **{"iat": self.now, **changes})

    async def come_into_force(self) -> None:
        operator = self.locker.operator
        for name, raw in (
            ("root", self.root),
            ("revocations", self.lists),
            ("bundle/grants", self.grants),
            ("head", self.head(NEWEST)),
        ):
            await operator.tell(name, raw, retain=True)
        await operator.news.until(lambda: operator.births and operator.births[-1]["trust"]["complete"])

    def wrong(self) -> list[tuple[str, str, bytes]]:
        """Topics, the reasons that they are to be refused for, and what is told there."""
        fleet, now = self.fleet, self.now
        other: dict[str, bytes | tuple[int, str]] = {"bundle/grants": (NEWEST - 1, "0" * 64)}
        return [
            ("head", "malformed", b"nonsense"),
            ("head", "oversized", b"." * (CAPS[Kind.HEAD] + 1)),
            ("head", "wrong_type", fleet.bundle("grants", 9, by=fleet.signers["head"], iat=now)),
            ("head", "wrong_audience", self.head(6, aud="acme/locker-18")),
            ("time", "replayed", self._time_of_another_question()),
            ("head", "rolled_back", self.head(NEWEST - 1)),
            ("head", "expired", self.head(6, iat=now - 2 * DAY)),
            ("head", "mixed", self.head(NEWEST)),
            ("head", "fast_forward", self.head(2**63)),
            ("head", "unknown_key", self.head(6, by=[fresh()])),
            ("head", "bad_signature", self._signed_otherwise(self.head(6))),
            ("head", "not_yet_valid", self.head(6, iat=now + DAY)),
            ("head", "schema", self.head(6, documents={"bundle/keys": (1, "0" * 64)})),
            ("root", "below_threshold", fleet.root(6, by=fleet.roots[:1], iat=now)),
            ("root", "rolled_back", fleet.root(NEWEST - 1, iat=now)),
            ("root", "mixed", fleet.root(NEWEST, iat=now)),
            ("root", "fast_forward", fleet.root(NEWEST + LEAP + 1, iat=now)),
            ("revocations", "wrong_type", self._time_by_another()),
            ("revocations", "rolled_back", fleet.revocations(NEWEST - 1, iat=now)),
            ("bundle/grants", "mixed", fleet.bundle("grants", NEWEST, iat=now)),
            ("bundle/grants", "rolled_back", fleet.bundle("grants", NEWEST - 1, iat=now)),
            ("head", "rolled_back", self.head(6, documents=other)),
            ("bundle/roster", "not_in_head", fleet.bundle("roster", 9, iat=now)),
            ("config", "oversized", b"." * (CAPS[Kind.CONFIG] + 1)),
        ]

    def _time_by_another(self) -> bytes:
        return self.fleet.made(Kind.TIME, {}, 6, self.fleet.signers["revocations"], iat=self.now)

    def _time_of_another_question(self) -> bytes:
        return self.fleet.made(Kind.TIME, {"nonce": "A" * 22, "utc": 0}, 1, iat=self.now)

    def _signed_otherwise(self, raw: bytes) -> bytes:
        return raw.rpartition(b".")[0] + b"." + encoded(bytes(64)).encode()

    def refusals(self) -> set[tuple[str, str]]:
        kinds = ("root", "head", "bundle", "config", "revocations", "time")
        told = {kind: self.locker.site.of(f"fleet.{kind}_refused") for kind in kinds}
        return {(kind, entry["data"]["reason"]) for kind, entries in told.items() for entry in entries}

    async def state(self) -> dict[str, Any]:
        """What is believed, as `postern status` shows it."""
        status = await control.ask(self.locker.site.folder / "state" / control.SOCKET, "status")
        return {key: status["fleet"][key] for key in ("root", "head", "complete", "documents", "revoked")}


async def test_each_wrong_document_is_refused_by_name_and_the_old_state_stays(tmp_path: Path) -> None:
    async with locker_at(tmp_path) as locker:
        await locker.start()
        told = Told(locker)
        await told.come_into_force()
        before = await told.state()
        wrong = told.wrong()
        for name, _, raw in wrong:
            await locker.operator.tell(name, raw)
        expected = {(name.partition("/")[0], reason) for name, reason, _ in wrong}
        waits = ("bundle", "not_in_head")
        await locker.site.until(lambda: told.refusals() >= expected - {waits}, "what need not wait")
        # A head that says no more than the one before: what waited for one is refused with it.
        await locker.operator.tell("head", told.head(NEWEST + 1))
        await locker.site.until(lambda: told.refusals() >= expected, "what had to")
        assert told.refusals() == expected
        assert await told.state() == {**before, "head": NEWEST + 1}
        assert not unlike(locker.site.entries)
        await locker.site.kill_agent()
        await locker.start()
        assert await told.state() == {**before, "head": NEWEST + 1}


async def test_what_grows_old_is_told_before_anybody_asks_for_a_door(tmp_path: Path) -> None:
    """A head of an hour ago, where half an hour is the most that knowledge is fresh."""
    async with locker_at(tmp_path, "\n[identity]\nfresh_hours = 0.5\n") as locker:
        locker.minded = False
        await locker.start()
        told, site = Told(locker), locker.site
        await locker.operator.tell("head", told.head(1, documents={}, iat=told.now - 3600))
        await site.until(lambda: site.of("fleet.knowledge_aged"), "the step")
        assert site.of("fleet.knowledge_aged")[0]["data"]["freshness"] == "grace"
        await locker.operator.tell("head", told.head(2, documents={}))
        await site.until(lambda: site.of("fleet.knowledge_renewed"), "the way back")
        assert not unlike(site.entries)


async def test_a_device_that_was_driven_to_the_highest_version_comes_back_with_a_new_root(
    tmp_path: Path,
) -> None:
    """A thief with the head's key, as far as one step goes, and again: killed and started in between."""
    async with locker_at(tmp_path) as locker:
        await locker.start()
        told, operator = Told(locker), locker.operator
        await told.come_into_force()
        for step in (1, 2):
            await operator.tell("head", told.head(NEWEST + step * LEAP))

        def heads() -> list[int]:
            return [entry["data"]["ver"] for entry in locker.site.of("fleet.head_accepted")]

        await locker.site.until(lambda: heads()[-1:] == [NEWEST + 2 * LEAP], "the thief's head")
        await operator.tell("head", told.head(NEWEST + 1))
        await locker.site.until(lambda: ("head", "rolled_back") in told.refusals(), "the fleet is locked out")
        await locker.site.kill_agent()
        await locker.start()
        stolen = told.head(NEWEST + 3 * LEAP)
        told.fleet.rotate("head")
        told.root = told.fleet.root(NEWEST + 1, iat=told.now)
        await operator.tell("root", told.root, retain=True)
        await operator.tell("head", stolen)
        await operator.tell("head", told.head(NEWEST + 1), retain=True)
        await locker.site.until(lambda: heads()[-1:] == [NEWEST + 1], "the fleet's head")
        assert ("head", "unknown_key") in told.refusals(), "what the thief signs now"
        assert (await told.state())["complete"]
