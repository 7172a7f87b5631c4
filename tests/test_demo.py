"""The quickstart: it plays to its end, and does not say that all is well when it is not."""

import asyncio
import sys
from collections import Counter
from pathlib import Path

import pytest

from simulators import demo
from simulators.broker import Broker
from simulators.morning import Tally, checked, sscc, tagged


@pytest.mark.timeout(120)
async def test_the_morning_is_told_to_its_end_and_nothing_is_lost() -> None:
    async with Broker() as broker:
        said = await play("--broker", f"127.0.0.1:{broker.port}", "--pace", "0.02", "--plain")
    assert "lost          0" in said
    assert "verified   PASS demo/van-0042/" in said


async def play(*arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "simulators.demo",
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()
    return said.decode()


WRONG = [
    (Tally(toned=Counter({"a": 1})), "lost: a"),
    (Tally(toned=Counter({"a": 2}), accepted=Counter({"a": 1})), "lost: a"),
    (Tally(accepted=Counter({"a": 1})), "accepted without a tone: a"),
    (Tally(bad_tones=1), "1 bad tones, but 0 refusals at the fleet"),
    (Tally(refused=Counter({"duplicate": 1})), "0 bad tones, but 1 refusals at the fleet"),
]


@pytest.mark.parametrize(("tally", "reason"), WRONG)
def test_a_sum_that_is_not_right_is_named_and_fails(
    tally: Tally, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo._sum_up(tally, 1.0, None, tmp_path / "agent.log") == 1
    assert f"WRONG: {reason}" in capsys.readouterr().out


def test_a_story_that_did_not_come_to_its_end_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert demo._sum_up(Tally(), 1.0, "waited for a tone", tmp_path / "agent.log") == 1
    assert "WRONG: waited for a tone" in capsys.readouterr().out


def test_a_sum_that_is_right_passes(tmp_path: Path) -> None:
    tally = Tally(toned=Counter({"a": 2}), accepted=Counter({"a": 2}))
    assert demo._sum_up(tally, 1.0, None, tmp_path / "agent.log") == 0


def test_a_journal_that_does_not_verify_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asyncio.run(demo._verify(tmp_path / "journal.db", set())) == 1
    assert "WRONG" in capsys.readouterr().out


def test_the_numbers_it_scans_are_what_they_claim_to_be() -> None:
    # The published example of the check digit's rule.
    assert checked("37613032110910342") == "376130321109103420"
    assert len(sscc(1)) == 18
    epc, number = tagged(7)
    assert (len(epc), epc[:2], len(number)) == (24, "31", 18)
