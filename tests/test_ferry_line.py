"""The line between two agents: its frames, and a courier's van that hands a locker what it carries for it."""

import asyncio
import json
from pathlib import Path

import pytest

from drivers.ferry import BODY_LIMIT, FerryCodec, frame
from simulators.cable import Cable
from tests.codec_law import obey
from tests.test_ferry import LOCKER, ROWS, VAN, Carried, Fleet, rows_of, seen
from tests.test_wipe import status

HELLO = b'{"tenant":"parcels","device":"van-0042"}'
VECTORS = [
    (frame(5, b""), (5, b"")),
    (frame(1, HELLO), (1, HELLO)),
    (frame(4, bytes(range(256))), (4, bytes(range(256)))),
]


def test_the_frames_obey_the_law_of_codecs() -> None:
    obey(
        FerryCodec,
        VECTORS,
        checksummed=True,
        limit=FerryCodec.LIMIT,
        over_long=b"\xf3\x1e\x04" + (BODY_LIMIT + 1).to_bytes(2, "big") + bytes(BODY_LIMIT + 3),
    )


def test_a_frame_is_written_as_it_is_described() -> None:
    assert frame(2, b"ab") == bytes.fromhex("f31e0200026162") + frame(2, b"ab")[-2:]
    with pytest.raises(ValueError, match="expected at most 1000 bytes, got 1001"):
        frame(4, bytes(BODY_LIMIT + 1))


@pytest.fixture
def fleet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Fleet:
    return Fleet(tmp_path, capsys)


@pytest.fixture
def locker(tmp_path: Path, fleet: Fleet) -> Carried:
    made = Carried(tmp_path / "locker", LOCKER, line(tmp_path / "far"))
    fleet.enrol(made)
    return made


@pytest.fixture
def van(tmp_path: Path, fleet: Fleet, locker: Carried) -> Carried:
    """With a cargo for the locker on board."""
    made = Carried(tmp_path / "van", VAN, line(tmp_path / "near"))
    fleet.roster(LOCKER)
    assert made.ferry("import", fleet.cargo(LOCKER))[0] == 0
    return made


def line(port: Path) -> str:
    return f'[unit.line]\nkind = "ferry"\nport = "{port}"\n'


def handed_over(van: Carried, locker: Carried) -> None:
    """Both run until the locker has said that it has it all, and the van has let go of it."""
    with van.agent() as carrier, locker.agent() as taker:
        for process, outcome in ((taker, "unloaded"), (carrier, "handed over")):
            assert process.stderr is not None
            for said in process.stderr:
                event = json.loads(said)
                if outcome in (event.get("outcome"), event["event"]):
                    break
        assert status(locker)["fleet"]["lacking"] == 0
        assert status(van)["on_board"] == {}


@pytest.mark.timeout(120)
async def test_a_van_at_a_locker_hands_over_what_it_carries_for_it(
    tmp_path: Path, van: Carried, locker: Carried
) -> None:
    with Cable(tmp_path / "near", tmp_path / "far"):
        await asyncio.to_thread(handed_over, van, locker)
    assert rows_of(locker) == ROWS
    assert rows_of(van) == 0
    assert {entry["via"] for entry in seen(locker, "fleet.head_accepted")} == {"ferry"}
    assert seen(van, "ferry.handed_over")[0]["device"] == LOCKER
    assert [entry for entry in seen(van, "device.action_done") if "TellPeer" in str(entry)] == []


@pytest.mark.timeout(120)
async def test_a_bad_line_costs_time_and_nothing_else(tmp_path: Path, van: Carried, locker: Carried) -> None:
    with Cable(tmp_path / "near", tmp_path / "far") as cable:
        for end in (cable.near, cable.far):
            end.faults.garbage = b"\xf3noise"
            end.faults.flip_next, end.faults.halve_next, end.faults.twice_next = 2, 2, 3
        await asyncio.to_thread(handed_over, van, locker)
    assert rows_of(locker) == ROWS
    assert len(seen(locker, "ferry.unloaded")) == 1


@pytest.mark.timeout(120)
async def test_a_locker_that_cannot_use_it_leaves_it_with_the_van(
    tmp_path: Path, van: Carried, locker: Carried
) -> None:
    """Nobody enrolled it: there is no root that could vouch for anything."""
    (locker.state / "root.jws").unlink()

    def refused() -> None:
        with van.agent(), locker.agent() as taker:
            assert taker.stderr is not None
            for said in taker.stderr:
                if json.loads(said).get("outcome") == "refused":
                    break
            assert set(status(van)["on_board"]) == {LOCKER}

    with Cable(tmp_path / "near", tmp_path / "far"):
        await asyncio.to_thread(refused)
    assert seen(locker, "ferry.refused")[0]["reason"] == "no root was put here that could vouch for it"
