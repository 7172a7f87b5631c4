"""The quickstart: it plays to its end, and does not say that all is well when it is not."""

import asyncio
import sys
from collections import Counter
from pathlib import Path

import pytest

from simulators import demo
from simulators.broker import Broker
from simulators.evening import Doings
from simulators.morning import StoryFailed, Tally, checked, sscc, tagged
from simulators.relay import Relay
from simulators.view import Lines, Scene


@pytest.mark.timeout(120)
async def test_morning_and_evening_are_told_to_their_ends_and_nothing_is_lost() -> None:
    async with Broker() as broker:
        said = await play("--broker", f"127.0.0.1:{broker.port}", "--pace", "0.02", "--plain")
    assert said.count("lost          0") == 2
    for device in ("van-0042", "locker-0017"):
        assert f"verified          PASS demo/{device}/" in said


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
def test_a_sum_that_is_not_right_is_named(tally: Tally, reason: str) -> None:
    outcome = demo.Outcome(device=demo.VAN)
    demo._sum_up(tally, outcome)
    assert outcome.wrong == [reason]


def test_a_sum_that_is_right_has_nothing_wrong() -> None:
    outcome = demo.Outcome(device=demo.VAN)
    demo._sum_up(Tally(toned=Counter({"a": 2}), accepted=Counter({"a": 2})), outcome)
    assert not outcome.wrong


def show(folder: Path) -> demo.Show:
    scene = Scene()
    return demo.Show(
        options=demo.Options(None, True, 0.0, 1),
        folder=folder,
        scene=scene,
        view=Lines(scene),
        network=Relay("127.0.0.1", 1),
        broker=("127.0.0.1", 1),
        what="none",
    )


async def test_a_story_that_did_not_come_to_its_end_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outcome = demo.Outcome(device="locker-0017")

    async def story() -> None:
        raise StoryFailed("waited for a tone")

    await show(tmp_path).told(outcome, story)
    assert await demo._conclude(show(tmp_path), outcome) == 1
    assert "WRONG: waited for a tone" in capsys.readouterr().out


# -- the evening ----------------------------------------------------------------------------------


def doings(*entries: tuple[str, str], **hands: str) -> Doings:
    made = Doings()
    for name, what in hands.items():
        setattr(made, name, Counter(what.split()))
    for kind, subject in entries:
        made.take({"type": f"postern.{kind}", "subject": subject})
    return made


@pytest.mark.parametrize(
    ("made", "wrong"),
    [
        (doings(put="p"), "put in: {'p': 1} by hand, {} at the fleet"),
        (doings(("locker.deposited", "p")), "put in: {} by hand, {'p': 1} at the fleet"),
        (doings(("locker.collected", "q"), taken="p"), "taken out: {'p': 1} by hand, {'q': 1} at the fleet"),
        (doings(("locker.collected", "p")), "taken out: {} by hand, {'p': 1} at the fleet"),
        (doings(forced="c2"), "forced: {'c2': 1} by hand, {} at the fleet"),
        (
            doings(("door.pulsed", "a1"), ("door.pulse_unknown", "c1")),
            "0 pulses at the solenoids, 2 at the fleet",
        ),
        (doings(("locker.code_refused", "gun")), "0 bad tones, but 1 refusals at the fleet"),
    ],
)
def test_what_hands_did_and_what_the_fleet_knows_must_agree(made: Doings, wrong: str) -> None:
    assert made.wrong(pulses=0, bad_tones=0) == [wrong]


def test_only_what_did_not_arrive_is_lost() -> None:
    made = doings(("locker.deposited", "p"), ("locker.deposited", "r"), put="p q", taken="p", forced="c2")
    assert made.lost == 3
    assert (
        doings(("locker.deposited", "p"), ("door.pulsed", "a1"), put="p").wrong(pulses=1, bad_tones=0) == []
    )


def test_a_journal_that_does_not_verify_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert asyncio.run(demo._verify(tmp_path / "journal.db", set())) == 1
    assert "WRONG" in capsys.readouterr().out


def test_the_numbers_it_scans_are_what_they_claim_to_be() -> None:
    # The published example of the check digit's rule.
    assert checked("37613032110910342") == "376130321109103420"
    assert len(sscc(1)) == 18
    epc, number = tagged(7)
    assert (len(epc), epc[:2], len(number)) == (24, "31", 18)
