"""The course of configs from afar, with a clock that the test has in hand."""

import json
import random
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agent.config import Config, parse
from agent.shelf import COURSE, FOLDER, InForce, Shelf, take_up
from agent.trial import CRASHES, Course, Edition, State, reason
from tests.test_explain import changed

ROOT = Path(__file__).parent.parent
BOOT, OTHER_BOOT = "boot-1", "boot-2"
UNTIL = 600
WHY = [reason("gates", "everything well in time", "not well: broker")]
FILE = """
[device]
id = "van-0042"
tenant = "acme"
state = "{state}"

[broker]
host = "here.example"
plain = true
"""


def edition(version: int, text: str = "") -> Edition:
    return Edition(version=version, sha256=f"{version:064x}", text=text)


def on_trial(course: Course = Course(), version: int = 7) -> Course:  # noqa: B008
    return course.begun(edition(version), boot=BOOT, until_ns=UNTIL, required=("gun",))


def told(course: Course) -> tuple[str, int]:
    report = course.report()
    assert report is not None
    return str(report["state"]), report["version"]


def test_a_fleet_that_never_sent_a_config_is_told_nothing() -> None:
    assert Course().report() is None


def test_a_trial_goes_on_at_its_first_start() -> None:
    course = on_trial().started(BOOT, 1)
    assert told(course) == ("trial", 7)
    assert course.trial is not None
    assert course.trial.starts == 1


def test_a_trial_that_is_confirmed_is_what_to_go_back_to() -> None:
    course = on_trial(on_trial().started(BOOT, 1).kept(), 8).started(BOOT, 2).reverted(WHY)
    assert told(course) == ("reverted", 8)
    assert course.confirmed == edition(7)


def test_a_trial_survives_two_crashes_and_ends_with_the_third() -> None:
    course = on_trial()
    for _ in range(CRASHES):
        course = course.started(BOOT, 1)
        assert told(course) == ("trial", 7)
    course = course.started(BOOT, 1)
    assert told(course) == ("reverted", 7)
    assert course.outcome is not None
    assert course.outcome.reasons[0]["path"] == "trial"
    assert course.started(BOOT, 1) == course


def test_a_trial_ends_with_another_boot_and_with_its_time() -> None:
    for course in (on_trial().started(OTHER_BOOT, 1), on_trial().started(BOOT, UNTIL)):
        assert told(course) == ("reverted", 7)
        assert course.trial is None


def test_time_does_not_begin_anew_with_a_crash() -> None:
    course = on_trial().started(BOOT, UNTIL - 1)
    assert told(course.started(BOOT, UNTIL)) == ("reverted", 7)


def test_what_something_has_come_of_is_known_and_not_tried_again() -> None:
    ends = [
        on_trial(),
        on_trial().started(OTHER_BOOT, 1),
        on_trial().started(BOOT, 1).kept(),
        Course().refused(7, edition(7).sha256, WHY),
        Course().dry(7, edition(7).sha256, {"refused": []}),
        Course().adopted(edition(7)).withdrawn(WHY),
    ]
    for course in ends:
        assert course.knows(7, edition(7).sha256)
        assert not course.knows(8, edition(8).sha256)
        assert not course.knows(7, edition(8).sha256)


def test_a_refusal_leaves_what_is_confirmed() -> None:
    course = Course().adopted(edition(7)).refused(8, edition(8).sha256, WHY)
    assert told(course) == ("refused", 8)
    assert course.confirmed == edition(7)


def test_going_back_by_hand_ends_a_trial_and_what_was_confirmed() -> None:
    course = on_trial(Course().adopted(edition(6))).withdrawn(WHY)
    assert (course.trial, course.confirmed) == (None, None)
    assert told(course) == ("reverted", 7)


def test_a_dry_run_is_told_beside_what_is_in_force() -> None:
    course = Course().adopted(edition(7)).dry(8, edition(8).sha256, {"refused": []})
    assert told(course) == ("confirmed", 7)
    report = course.report()
    assert report is not None
    assert report["checked"] == {"version": 8, "sha256": edition(8).sha256, "refused": []}


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_a_course_is_read_back_as_it_was_and_ends_no_trial_by_keeping(seed: int) -> None:
    """Random walks: nothing is confirmed but by a word, and a trial is always one restart from its end."""
    chance, course, now = random.Random(seed), Course(), 0
    for version in range(1, 60):
        now += chance.randrange(50)
        before = course
        match chance.choice(["begin", "start", "reboot", "keep", "refuse", "revert", "dry", "hand"]):
            case "begin" if course.trial is None:
                course = course.begun(edition(version), boot=BOOT, until_ns=now + 200, required=())
            case "start":
                course = course.started(BOOT, now)
            case "reboot":
                course = course.started(OTHER_BOOT, now)
                assert course.trial is None
            case "keep" if course.trial is not None:
                course = course.kept()
                assert course.confirmed == (before.trial and before.trial.edition)
                before = course
            case "refuse" if course.trial is None:
                course = course.refused(version, edition(version).sha256, WHY)
            case "revert":
                course = course.reverted(WHY)
            case "dry" if course.trial is None:
                course = course.dry(version, edition(version).sha256, {"refused": []})
            case "hand":
                course = course.withdrawn(WHY)
        assert course.confirmed in (before.confirmed, None)
        assert Course.load(json.loads(json.dumps(course.dump()))) == course


# -- on the shelf -------------------------------------------------------------------------------------


@pytest.fixture
def base(tmp_path: Path) -> Config:
    return parse(FILE.format(state=tmp_path), "/etc/postern/postern.toml")


def begun(base: Config, text: str, version: int = 7) -> Shelf:
    shelf = Shelf(base.state)
    shelf.save(shelf.course())
    made = edition(version, shelf.keep(text))
    shelf.save(shelf.course().begun(made, boot=BOOT, until_ns=UNTIL, required=()))
    return shelf


def text_of(base: Config, host: str = "there.example") -> str:
    return changed(FILE.format(state=base.state), "here.example", host)


def host(found: InForce) -> str:
    return found.config.file.broker.host


def test_without_a_shelf_the_file_at_the_device_is_in_force(base: Config) -> None:
    found = take_up(base, BOOT, 1)
    assert (host(found), found.source) == ("here.example", "device")
    assert not (base.state / FOLDER).exists()


def test_a_trial_is_started_and_each_start_is_counted_before_anything_runs(base: Config) -> None:
    shelf = begun(base, text_of(base))
    for start in range(1, CRASHES + 1):
        found = take_up(base, BOOT, 1)
        assert (host(found), found.source) == ("there.example", "trial")
        trial = shelf.course().trial
        assert trial is not None
        assert trial.starts == start
    found = take_up(base, BOOT, 1)
    assert (host(found), found.source) == ("here.example", "device")
    assert not list((base.state / FOLDER).glob("*.toml"))


def test_what_is_confirmed_stands_in_the_place_of_the_file(base: Config) -> None:
    shelf = begun(base, text_of(base))
    shelf.save(shelf.course().kept())
    for boot in (BOOT, OTHER_BOOT):
        found = take_up(base, boot, UNTIL + 1)
        assert (host(found), found.source) == ("there.example", "fleet")


def test_a_trial_that_ends_goes_back_to_what_was_confirmed(base: Config) -> None:
    shelf = begun(base, text_of(base))
    shelf.save(shelf.course().kept())
    begun(base, text_of(base, "elsewhere.example"), 8)
    found = take_up(base, OTHER_BOOT, 1)
    assert (host(found), found.source) == ("there.example", "fleet")
    assert told(found.course) == ("reverted", 8)


@pytest.mark.parametrize(
    "harm",
    [
        lambda path: path.unlink(),
        lambda path: path.write_text("[broker]\nhost = 'evil.example'\n"),
        lambda path: path.write_bytes(b"\xff"),
    ],
)
def test_a_text_that_is_not_as_it_was_kept_is_not_used(base: Config, harm: object) -> None:
    shelf = begun(base, text_of(base))
    shelf.save(shelf.course().kept())
    (path,) = (base.state / FOLDER).glob("*.toml")
    harm(path)  # type: ignore[operator]
    found = take_up(base, BOOT, 1)
    assert (host(found), found.source) == ("here.example", "device")
    assert told(found.course) == ("reverted", 7)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff\xfe", b'{"trial": 7}', b"[" * 100_000])
def test_a_course_that_cannot_be_read_leaves_the_file_at_the_device(base: Config, content: bytes) -> None:
    begun(base, text_of(base))
    (base.state / FOLDER / COURSE).write_bytes(content)
    assert take_up(base, BOOT, 1).source == "device"


def test_what_does_not_fit_the_file_at_the_device_any_more_is_given_up(base: Config) -> None:
    shelf = begun(base, text_of(base))
    shelf.save(shelf.course().kept())
    moved = parse(changed(FILE.format(state=base.state), "van-0042", "van-0043"))
    found = take_up(moved, BOOT, 1)
    assert found.source == "device"
    assert found.course.outcome is not None
    assert found.course.outcome.reasons[0]["path"] == "device.id"


def test_what_cannot_connect_for_want_of_a_file_is_given_up(base: Config, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("secret\n")
    text = text_of(base).replace("plain = true", f'plain = true\npassword_file = "{password}"')
    shelf = begun(base, text)
    shelf.save(shelf.course().kept())
    assert take_up(base, BOOT, 1).source == "fleet"
    password.unlink()
    found = take_up(base, BOOT, 1)
    assert found.source == "device"
    assert found.course.outcome is not None
    assert found.course.outcome.state is State.REVERTED


def test_a_kill_before_any_change_to_a_file_leaves_the_old_config_or_the_new(tmp_path: Path) -> None:
    ends = []
    for number in range(1, 100):
        state = tmp_path / str(number)
        file, wished = tmp_path / f"{number}.toml", tmp_path / "wished.toml"
        file.write_text(FILE.format(state=state))
        base = parse(file.read_text(), str(file))
        wished.write_text(text_of(base))
        command = [sys.executable, "-m", "tests.dying_trial", str(file), str(wished), str(number)]
        code = subprocess.run(command, check=False, cwd=ROOT, timeout=60).returncode
        again = take_up(base, BOOT, 2)
        assert again.source in ("device", "trial", "fleet")
        after = take_up(base, OTHER_BOOT, 1)
        assert after.source in ("device", "fleet")
        assert host(after) == ("there.example" if after.source == "fleet" else "here.example")
        ends.append(after.source)
        if code == 0:
            break
        assert code == -signal.SIGKILL
    assert ends[-1] == "fleet"
    assert ends.count("device") >= 6
    assert ends == sorted(ends), "what was confirmed once is never lost"
