"""`postern doors` beside a running locker and without one: what it shows, what it does, what it refuses."""

import asyncio
import contextlib
import json
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent import control
from simulators.cu16 import Cu16Bus
from tests.brokers import join_child_watchers
from tests.locker_site import LockerSite

LABEL, ID = "RB473124829DE", "s10:RB473124829DE"
UNLOCK = b"\x02\x00\x31"
"""How the frame begins that pulses the first door."""

pytestmark = [pytest.mark.broker, pytest.mark.timeout(150)]


async def doors(site: LockerSite, *words: str) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of `postern doors`; never a traceback."""
    command = [sys.executable, "-m", "agent", "doors", *words, "--config", str(site.config)]
    pipe = asyncio.subprocess.PIPE
    nothing = asyncio.subprocess.DEVNULL
    process = await asyncio.create_subprocess_exec(*command, stdin=nothing, stdout=pipe, stderr=pipe)
    out, err = await process.communicate()
    assert b"Traceback" not in err, err.decode()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def told(site: LockerSite, *words: str) -> Any:
    _, out, err = await doors(site, *words, "--json")
    assert out, err
    return json.loads(out)


async def asked(site: LockerSite, question: str, **arguments: Any) -> Any:
    """What the running agent answers the command. Raises ValueError for what it refuses."""
    return await control.ask(site.folder / "state" / control.SOCKET, question, **arguments)


async def states(site: LockerSite) -> dict[str, str]:
    return {name: each["state"] for name, each in (await asked(site, "doors"))["compartments"].items()}


async def test_status_says_of_every_compartment_what_it_is_and_who_says_so(tmp_path: Path) -> None:
    async with LockerSite(tmp_path) as site:
        await site.start()
        await site.identify()
        await site.deposit(LABEL)
        site.door("c1").force()
        await site.count("door.forced", 1)
        said = await told(site, "status")
        a1, c1 = said["compartments"]["a1"], said["compartments"]["c1"]
        assert (a1["state"], a1["sensors"]) == (
            "occupied",
            {"hook": "latched", "contact": None, "content": None},
        )
        assert (c1["state"], c1["reason"], c1["sensors"]["hook"]) == ("quarantined", "forced", "released")
        assert a1["since"] <= c1["since"]
        assert LABEL not in json.dumps(said), "what lies in a compartment is nobody's business here"
        code, table, _ = await doors(site, "status")
        assert code == 0
        assert [line.split()[:4] for line in table.splitlines()][:2] == [
            ["NAME", "SIZE", "LOCK", "STATE"],
            ["a1", "S", "bus/1", "occupied"],
        ]


async def test_a_compartment_is_taken_out_of_use_and_given_back(tmp_path: Path) -> None:
    async with LockerSite(tmp_path) as site:
        await site.start()
        for name in ("a1", "a2"):
            assert (await doors(site, "quarantine", name, "--reason", "smells"))[:2] == (
                0,
                f"{name}: quarantined\n",
            )
        await site.count("locker.compartment_quarantined", 2)
        await site.identify()
        await site.deposit(LABEL)
        assert site.of("locker.deposited")[0]["data"]["compartment"] == "b1"
        assert (await doors(site, "release", "a1", "--reason", "cleaned"))[:2] == (0, "a1: free\n")
        await site.count("locker.compartment_released", 1)
        released = site.of("locker.compartment_released")[0]["data"]
        assert (released["reason"], released["was"]) == ("cleaned", "smells")
        await site.kill_agent()
        await site.start()
        assert (await states(site))["a2"] == "quarantined"
        assert (await states(site))["a1"] == "free"


def service(name: str, verb: str, reason: object = "x") -> tuple[str, dict[str, object]]:
    return "door_service", {"compartment": name, "verb": verb, "reason": reason}


WRONG: list[tuple[tuple[str, dict[str, object]], str]] = [
    (
        ("door_history", {"compartment": "z9"}),
        "compartment: expected one of a1, a2, b1, b2, c1, c2, got 'z9'",
    ),
    (("door_history", {"compartment": "a1", "last": 0}), "last: expected 1 to 200 entries, got 0"),
    (("door_history", {"compartment": "a1", "last": 201}), "last: expected 1 to 200 entries, got 201"),
    (service("z9", "quarantine"), "compartment: expected one of a1"),
    (service("a1", "open"), "verb: expected one of quarantine, release, got 'open'"),
    (service("a1", "quarantine", " "), "reason: expected 1 to 200 printable characters"),
    (service("a1", "quarantine", "\x1b[2J"), "reason: expected 1 to 200 printable characters"),
    (service("a1", "quarantine", None), "reason: expected 1 to 200 printable characters"),
    (service("a1", "release"), "a1: expected a compartment to release, but it is not in quarantine"),
    (service("c1", "release"), "c1: expected a compartment to release, but its door is not shut"),
    (service("c1", "quarantine"), "but it is in quarantine: forced"),
    (("door_receipt", {"parcel": LABEL}), f"{ID}: expected a parcel that was deposited here, found no such"),
    (("door_receipt", {}), "parcel: expected a label, got None"),
]


async def test_what_cannot_be_done_is_one_line_and_changes_nothing(tmp_path: Path) -> None:
    async with LockerSite(tmp_path) as site:
        await site.start()
        site.door("c1").force()
        await site.count("door.forced", 1)
        before = await asked(site, "doors")
        for (question, arguments), said in WRONG:
            with pytest.raises(ValueError, match=re.escape(said)):
                await asked(site, question, **arguments)
        assert await asked(site, "doors") == before
        for words, said in (
            (("release", "a1", "--reason", "x"), "a1: expected a compartment to release"),
            (("calibrate", "bus"), "expected no running agent, found one; stop it first"),
        ):
            code, out, err = await doors(site, *words)
            assert (code, out, err.count("\n")) == (2, "", 1)
            assert said in err


async def test_a_door_that_is_being_opened_is_not_taken_out_of_use(tmp_path: Path) -> None:
    async with LockerSite(tmp_path) as site:
        await site.start()
        await site.identify()
        site.gun.scan("POSTERN:SIZE:S")
        site.gun.scan(LABEL)
        await site.opened()
        await site.ajar()
        with pytest.raises(
            ValueError, match="a1: expected a compartment to quarantine, but its door is opened"
        ):
            await asked(site, "door_service", compartment="a1", verb="quarantine", reason="x")


async def test_history_is_of_one_compartment_the_newest_last_and_holds_no_codes(tmp_path: Path) -> None:
    async with LockerSite(tmp_path) as site:
        await site.start()
        await site.identify()
        codes = await site.deposit(LABEL)
        site.door("c1").force()
        await site.count("door.forced", 1)
        said = await asked(site, "door_history", compartment="a1")
        types = [entry["type"].removeprefix("postern.") for entry in said["entries"]]
        assert (types[0], types[-1]) == ("locker.opening_intended", "locker.deposited")
        assert {"door.pulsed", "door.unlatched", "door.opened"} <= set(types)
        assert "door.forced" not in types
        assert not {"sealed", "receipt"} & set(said["entries"][-1]["data"])
        assert codes.long not in json.dumps(said)
        assert said["complete"]
        newest = await told(site, "history", "a1", "--last", "2")
        assert (newest["entries"], newest["complete"]) == (said["entries"][-2:], False)
        await site.kill_agent()
        assert (await told(site, "history", "a1"))["entries"] == said["entries"], "the same without an agent"


async def test_the_receipt_of_a_parcel_is_shown_again_by_whatever_it_is_called(tmp_path: Path) -> None:
    async with LockerSite(tmp_path) as site:
        await site.start()
        await site.identify()
        await site.deposit(LABEL)
        (deposited,) = site.of("locker.deposited")
        for name in (LABEL, ID):
            said = await asked(site, "door_receipt", parcel=name)
            assert said["receipt"] == deposited["data"]["receipt"]
            assert (said["compartment"], said["courier"]) == ("a1", "drv-1a2b3c")
        code, text, _ = await doors(site, "receipt", LABEL)
        assert code == 0
        assert text.splitlines()[-1] == deposited["data"]["receipt"]


async def test_what_would_be_wrong_is_found_without_a_pulse(tmp_path: Path) -> None:
    async with LockerSite(tmp_path) as site:
        await site.start()
        code, text, _ = await doors(site, "test")
        assert (code, text) == (0, "bus, board 0: 6 doors read\nnothing wrong\n")
        site.door("c1").force()
        await site.count("door.forced", 1)
        assert await doors(site, "test") == (
            1,
            "bus, board 0: 6 doors read\n"
            "WRONG  c1: expected shut, found open, says its hook\n"
            "WRONG  c1: expected in use, found in quarantine: forced\n"
            "2 found\n",
            "",
        )
        site.bus.boards[0].dead = True
        await site.count("locker.out_of_service", 1)
        places = {each["place"] for each in (await asked(site, "door_test"))["findings"]}
        assert {"bus", "a1", "c2"} <= places
        assert site.pulses == 0


async def test_boards_are_tested_without_an_agent_as_well(tmp_path: Path) -> None:
    async with LockerSite(tmp_path) as site:
        assert (await doors(site, "test"))[0] == 0
        for name in ("a1", "a2", "b1", "b2"):
            site.door(name).force()
        (finding,) = (await told(site, "test"))["findings"]
        assert "4 of 6 open: its polarity may be the other way round" in finding["found"]
        site.bus.boards[0].dead = True
        (finding,) = (await told(site, "test"))["findings"]
        assert finding == {
            "place": "bus",
            "expected": "an answer",
            "found": "no answer from the boards 0",
        }
        assert (site.pulses, site.bus.count(UNLOCK)) == (0, 0)


async def test_without_an_agent_the_journal_tells_and_takes_what_is_decided(tmp_path: Path) -> None:
    async with LockerSite(tmp_path) as site:
        await site.start()
        await site.identify()
        await site.deposit(LABEL)
        await site.kill_agent()
        code, table, err = await doors(site, "status")
        assert (code, err) == (0, "no agent runs: this is what its journal says\n")
        assert table.splitlines()[1].split()[3:7] == ["occupied", "-", "-", "-"]
        assert (await doors(site, "quarantine", "a2", "--reason", "cleaning"))[0] == 0
        await site.start()
        assert (await states(site))["a2"] == "quarantined"
        await site.count("locker.compartment_quarantined", 1)
        site.in_order()


# -- watching, and calibrating --------------------------------------------------------------------


@contextlib.asynccontextmanager
async def talking(site: LockerSite, *words: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A command that goes on until it is done, or not wanted any more."""
    command = [sys.executable, "-u", "-m", "agent", "doors", *words, "--config", str(site.config)]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=pipe)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()
        join_child_watchers()


async def line_with(process: asyncio.subprocess.Process, text: str) -> str:
    """The next line in which this stands."""
    assert process.stdout is not None
    async with asyncio.timeout(30):
        while text not in (line := (await process.stdout.readline()).decode()):
            assert line, f"ended without {text!r}"
    return line


async def test_watching_goes_on_and_says_what_has_changed(tmp_path: Path) -> None:
    async with LockerSite(tmp_path) as site:
        await site.start()
        async with talking(site, "status", "--watch") as watching:
            await line_with(watching, "c1")
            site.door("c1").force()
            line = await line_with(watching, "c1")
            assert line.split()[3:5] == ["quarantined", "released"]
            assert line.split()[-1] == "forced"
            await site.kill_agent()
            async with asyncio.timeout(30):
                assert await watching.wait() == 1


async def prompt(process: asyncio.subprocess.Process, text: str) -> str:
    """All that is said up to a prompt that ends with this."""
    assert process.stdout is not None
    async with asyncio.timeout(30):
        return (await process.stdout.readuntil(text.encode())).decode()


async def by_hand(calibrating: asyncio.subprocess.Process, bus: Cu16Bus, lock: int) -> None:
    """Somebody opens a door, perhaps the one that was asked for, and shuts it."""
    await prompt(calibrating, "open it ... ")
    bus.door(0, lock).force()
    await prompt(calibrating, "shut it ... ")
    bus.door(0, lock).slam()


async def test_polarity_is_found_door_by_door_with_no_pulse(tmp_path: Path) -> None:
    async with LockerSite(tmp_path) as site:
        wrong = site.config.read_text().replace(
            "locks = 6", 'locks = 6, polarity = "0_locked", inverted = [2]'
        )
        site.config.write_text(wrong)
        async with talking(site, "calibrate", "bus") as calibrating:
            for lock in range(1, 7):
                await by_hand(calibrating, site.bus, lock)
            said = (await line_with(calibrating, "boards = ")).strip()
            assert said == 'boards = [{ address = 0, locks = 6, polarity = "1_locked" }]'
            await line_with(calibrating, "this differs from the config: boards 0")
            assert await calibrating.wait() == 1
        assert (site.pulses, site.bus.count(UNLOCK)) == (0, 0)


async def test_a_door_is_left_out_and_one_that_is_wired_elsewhere_is_found(tmp_path: Path) -> None:
    async with LockerSite(tmp_path) as site:
        async with talking(site, "calibrate", "bus") as calibrating:
            assert calibrating.stdin is not None
            await prompt(calibrating, "open it ... ")
            calibrating.stdin.write(b"\n")
            await prompt(calibrating, "left out")
            await by_hand(calibrating, site.bus, 5)
            said = await line_with(calibrating, "WRONG")
            assert "expected the bit of lock 2 to move, found that of 5" in said
            calibrating.stdin.write(b"q\n")
            await line_with(calibrating, "not seen opened and shut: locks 1, 2, 3, 4, 5, 6")
            await line_with(calibrating, "this is as configured")
            assert await calibrating.wait() == 1
        assert site.pulses == 0
