"""What an operator sees of the devices, from their messages alone; and the command, also at a terminal."""

import asyncio
import json
import os
import pty
import signal
import sys
import termios
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.fleet import watch_rows
from agent.fleet.alarms import AGREED, ALARMS, ENDS, REFUSALS
from agent.fleet.device_log import Ranges
from agent.fleet.listener import Listener
from agent.fleet.sight import Change, Watch
from agent.fleet.watch_history import read
from tests.brokers import BROKERS, AnyBroker, News, broker_of, connected, running, server
from tests.desk import NOW, Desk, Journal
from tests.test_collect import COMMAND, DEVICE, ROOT, collecting, line

UP = f"postern/v1/{DEVICE}/up"
AT = 1_795_500_000.0
BIRTH: dict[str, Any] = {
    "online": True,
    "version": "0.3.0",
    "epoch": "e1",
    "units": {"gun": {"state": "ready"}, "badge": {"state": "lost"}},
    "trust": {"root": 1, "head": 7, "complete": True, "documents": {"bundle/roster": 3}},
}


def told(watch: Watch, what: str, tree: Any, now: float = AT) -> list[Change]:
    return watch.take(f"{UP}/{what}", json.dumps(tree).encode(), None, now)


def entries(watch: Watch, *lines: bytes, now: float = AT) -> list[Change]:
    return watch.take(f"{UP}/entries", b"\n".join(lines), None, now)


def alarm(sequence: int, kind: str, subject: str = "B7", **data: Any) -> bytes:
    return line(sequence, type=f"postern.{kind}", subject=subject, data=data)


def noted(watch: Watch, journal: Journal, now: float = AT) -> list[Change]:
    return watch.take(f"{UP}/checkpoint", journal.noted().note, None, now)


def test_a_device_is_online_by_its_birth_and_offline_by_its_will() -> None:
    watch = Watch()
    assert told(watch, "state", BIRTH) == [Change("state", DEVICE)]
    facts = watch.devices[DEVICE].facts()
    assert (facts["state"], facts["version"], facts["documents"]) == ("online", "0.3.0", {"bundle/roster": 3})
    assert facts["units"] == {"gun": "ready", "badge": "lost"}
    told(watch, "state", {"online": False})
    facts = watch.devices[DEVICE].facts()
    assert (facts["state"], facts["version"]) == ("offline", "0.3.0")


def test_until_when_its_certificate_is_good_is_seen_and_that_it_ends_is_an_alarm() -> None:
    watch = Watch()
    sight = watch.of(DEVICE)
    told(watch, "state", BIRTH)
    assert watch_rows.row(sight, AT)["CERT"] == "-"
    until = datetime.fromtimestamp(AT + 20 * 86_400, UTC).isoformat()
    told(watch, "state", {**BIRTH, "certificate": {"until": until, "state": "in_force"}})
    assert sight.facts()["certificate_until"] == AT + 20 * 86_400
    assert watch_rows.row(sight, AT)["CERT"] == "20d"
    assert watch_rows.row(sight, AT + 21 * 86_400)["CERT"] == "over"
    entries(watch, alarm(1, "keys.certificate_expiring", subject=DEVICE, until=until))
    assert [each.text for each in sight.open_alarms] == ["certificate about to expire"]
    entries(watch, alarm(2, "keys.certificate_renewed", subject=DEVICE, until=until))
    assert not sight.open_alarms


def test_what_it_has_signed_and_nobody_has_heard_is_its_backlog() -> None:
    watch, journal = Watch(), Journal().grow(10)
    told(watch, "state", BIRTH)
    noted(watch, journal)
    sight = watch.devices[DEVICE]
    assert (sight.signed, sight.backlog, sight.waiting) == (10, None, None)
    entries(watch, *journal.lines[2:6], now=AT + 5)
    assert (sight.backlog, sight.waiting) == (4, AT + 5)
    entries(watch, *journal.lines[6:], now=AT + 9)
    assert (sight.backlog, sight.waiting) == (0, None)


def test_a_new_journal_starts_its_backlog_anew() -> None:
    watch = Watch()
    noted(watch, Journal().grow(10))
    told(watch, "state", {**BIRTH, "epoch": "e2"})
    assert watch.devices[DEVICE].signed == 0


@pytest.mark.parametrize("kind", sorted(ALARMS))
def test_what_somebody_should_look_at_is_an_alarm_once(kind: str) -> None:
    watch = Watch()
    first, second = entries(watch, alarm(1, kind, source="gps"))
    assert first.what == "entries"
    assert second.alarm is not None
    assert (second.alarm.type, second.alarm.text, second.alarm.subject) == (kind, ALARMS[kind], "B7")
    assert entries(watch, alarm(1, kind, source="gps")) == [Change("entries", DEVICE)]
    assert len(watch.alarms) == 1


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"outcome": "locked"}, "locked after failures"),
        ({"outcome": "disabled"}, "disabled after failures"),
        ({"outcome": "unknown", "reader_paused": True}, "reader rests after failures"),
        ({"outcome": "unknown"}, None),
    ],
)
def test_a_lockout_is_an_alarm_and_a_wrong_badge_is_none(data: dict[str, Any], text: str | None) -> None:
    watch = Watch()
    entries(watch, alarm(1, "identity.refused", "drv-1", **data))
    assert [each.text for each in watch.alarms] == ([text] if text else [])


@pytest.mark.parametrize("kind", ["command", "head", "bundle", "revocations", "config"])
@pytest.mark.parametrize(
    ("reason", "text"), [*REFUSALS.items(), ("expired", None), ("rolled_back", None), ("unknown_key", None)]
)
def test_a_refusal_that_hints_at_a_thief_is_an_alarm_and_one_of_every_day_is_none(
    kind: str, reason: str, text: str | None
) -> None:
    watch = Watch()
    entries(watch, alarm(1, f"fleet.{kind}_refused", DEVICE, reason=reason, detail="", times=1))
    assert [each.text for each in watch.alarms] == ([text] if text else [])


@pytest.mark.parametrize(("end", "begun"), [(end, each) for end, known in ENDS.items() for each in known])
def test_an_alarm_is_over_with_the_entry_that_ends_it_and_no_other_s(end: str, begun: str) -> None:
    watch = Watch()
    begins = {"outcome": "locked", "source": "gps"}
    entries(watch, alarm(1, begun, **begins), alarm(2, begun, "B8", **begins))
    end = "clock.disputed" if end == AGREED else end
    entries(watch, alarm(3, end))
    assert {each.subject: each.over for each in watch.alarms} == {"B7": True, "B8": False}
    assert [each["subject"] for each in watch.devices[DEVICE].facts()["alarms"]] == ["B8"]


def test_the_newest_fix_counts_with_its_age_whatever_comes_first() -> None:
    watch = Watch()
    here = {"lat": 52.5, "lon": 13.4, "age_s": 2.0}
    old = {"position": None, "last_known": {**here, "lat": 1.0}}
    entries(
        watch,
        line(2, time="2026-11-24T08:15:30Z", data={"position": here}),
        line(1, time="2026-11-24T08:10:00Z", data=old),
    )
    position = watch.devices[DEVICE].facts()["position"]
    assert (position["lat"], position["at"]) == (52.5, 1_795_508_128.0)


def test_nonsense_is_counted_and_changes_nothing() -> None:
    watch = Watch()
    told(watch, "state", BIRTH)
    before = watch.devices[DEVICE].facts()
    for what, payload in (
        ("state", b"["),
        ("state", b"[]"),
        ("checkpoint", b"x"),
        ("config", b"7"),
        ("elsewhere", b"{}"),
        ("entries", b"\xff\n{}\n"),
    ):
        watch.take(f"{UP}/{what}", payload, None, AT)
    watch.take(f"postern/v1/{DEVICE}/down/head", b"{}", None, AT)
    watch.take("postern/v1/NOT A DEVICE/up/state", b"{}", None, AT)
    assert watch.devices[DEVICE].facts() == before
    assert watch.rejected == 7


def test_the_fleet_s_file_tells_what_was_before(tmp_path: Path) -> None:
    desk, journal = Desk(tmp_path / "fleet.db"), Journal().grow(9)
    journal.lines.append(alarm(10, "door.forced"))
    journal.grow(90)
    desk.take(journal.born(), journal.sent(*range(1, 41), *range(61, 91)), journal.noted())
    desk.take(now=NOW + 1000)
    desk.close()
    watch = Watch()
    for past in read(tmp_path / "fleet.db", None):
        watch.recall(past)
    sight = watch.devices[DEVICE]
    assert (sight.backlog, sight.signed, sight.state) == (30, 100, "unknown")
    assert sight.waiting == 1_795_508_130.123456
    assert [each.type for each in sight.open_alarms] == ["door.forced", "GAP"]
    entries(watch, *journal.lines[40:60], *journal.lines[90:])
    assert sight.backlog == 0
    assert sight.facts()["waiting_since"] is None


def test_what_was_not_heard_is_caught_up_with_from_the_fleet_s_file(tmp_path: Path) -> None:
    desk, journal, watch = Desk(tmp_path / "fleet.db"), Journal().grow(100), Watch()
    told(watch, "state", BIRTH)
    entries(watch, *journal.lines[:20], *journal.lines[80:])
    noted(watch, journal)
    sight = watch.devices[DEVICE]
    assert sight.backlog == 60
    desk.take(journal.born(), journal.sent(*range(1, 91)), journal.noted())
    desk.close()
    for past in read(tmp_path / "fleet.db", DEVICE, latest=0):
        watch.recall(past)
    assert (sight.backlog, sight.state) == (0, "online")
    assert sight.alarms == []


@given(st.lists(st.tuples(st.integers(1, 40), st.integers(0, 5)), max_size=12))
def test_spans_in_any_order_are_the_numbers_in_them(spans: list[tuple[int, int]]) -> None:
    ranges, one_by_one = Ranges.of((first, first + more) for first, more in spans), Ranges()
    for first, more in spans:
        for number in range(first, first + more + 1):
            one_by_one.add(number)
    assert ranges.spans == one_by_one.spans


@pytest.mark.parametrize(
    ("passed", "text"), [(0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (200_000, "2d"), (-5, "0s")]
)
def test_an_age_is_short(passed: int, text: str) -> None:
    assert watch_rows.ago(AT - passed, AT) == text


def test_where_not_all_have_room_those_come_first_that_need_somebody() -> None:
    watch = Watch()
    for name in ("van-0001", "van-0002", "van-0003"):
        watch.take(f"postern/v1/{name}/up/state", json.dumps(BIRTH).encode(), None, AT)
    fault = line(1, type="postern.door.forced", source="/postern/test/van-0003")
    watch.take("postern/v1/van-0003/up/entries", fault, None, AT)
    assert [each.device for each in watch_rows.shown(watch, 3)] == ["van-0001", "van-0002", "van-0003"]
    assert [each.device for each in watch_rows.shown(watch, 1)] == ["van-0003"]


# -- the command ----------------------------------------------------------------------------------


@pytest.fixture(params=BROKERS)
async def broker(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AnyBroker]:
    async with broker_of(request.param, tmp_path) as made:
        yield made


def at(broker: AnyBroker) -> tuple[str, ...]:
    return ("--host", "127.0.0.1", "--port", str(broker.port), "--plain")


async def test_once_shows_what_the_broker_holds(broker: AnyBroker) -> None:
    async with connected(broker.port, "a-device") as device:
        await device.publish(f"{UP}/state", json.dumps(BIRTH).encode(), retain=True)
        await device.publish(f"{UP}/checkpoint", Journal().grow(10).noted().note, retain=True)
        await device.publish(f"{UP}/config", b'{"version":4,"state":"trial"}', retain=True)
    async with collecting("--once", "--json", *at(broker), action="watch") as process:
        said, _ = await process.communicate()
    told = json.loads(said)
    assert process.returncode == 0
    assert (told["device"], told["state"], told["signed"]) == (DEVICE, "online", 10)
    assert told["config"] == {"version": 4, "state": "trial"}


async def test_each_change_is_an_object_until_interrupted(broker: AnyBroker) -> None:
    async with connected(broker.port, "a-device") as device:
        await device.publish(f"{UP}/state", json.dumps(BIRTH).encode(), retain=True)
        async with collecting("--json", *at(broker), action="watch") as process:
            assert process.stdout is not None
            assert json.loads(await process.stdout.readline())["change"] == "state"
            await device.publish(f"{UP}/entries", alarm(1, "door.forced"))
            found = [json.loads(await process.stdout.readline()) for _ in range(2)]
            process.send_signal(signal.SIGINT)
            await process.communicate()
    assert process.returncode == 0
    assert [each["change"] for each in found] == ["entries", "alarm"]
    assert found[1]["alarm"]["text"] == "door forced"


async def test_at_no_terminal_it_is_a_line_for_who_comes_and_goes_and_for_each_alarm(
    broker: AnyBroker,
) -> None:
    async with connected(broker.port, "a-device") as device:
        await device.publish(f"{UP}/state", json.dumps(BIRTH).encode(), retain=True)
        async with collecting(*at(broker), action="watch") as process:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"van-0042  online\n"
            await device.publish(f"{UP}/entries", alarm(1, "door.forced", "B\x1b7"))
            said = await process.stdout.readline()
            assert said == b"2026-11-24T08:15:30.123456Z  van-0042  door forced  B?7\n"
            process.send_signal(signal.SIGTERM)
            await process.communicate()
    assert process.returncode == 0


async def test_a_broker_that_comes_back_is_heard_again(broker: AnyBroker) -> None:
    watch, news = Watch(), News()
    listener = Listener(server(broker.port, "a-watch"), "+", watch)
    listener.told = news.look
    async with running(listener.run()):
        await news.until(lambda: listener.problem is None)
        await broker.stop()
        await news.until(lambda: listener.problem is not None)
        await broker.start()
        await news.until(lambda: listener.problem is None)
        async with connected(broker.port, "a-device") as device:
            await device.publish(f"{UP}/state", json.dumps(BIRTH).encode())
        await news.until(lambda: DEVICE in watch.devices)


async def test_a_broker_that_is_not_there_is_told_of(tmp_path: Path) -> None:
    async with broker_of("ours", tmp_path) as broker:
        gone = at(broker)
    async with collecting("--once", *gone, action="watch") as process:
        _, said = await process.communicate()
    assert process.returncode == 1
    assert said.startswith(b"postern fleet watch: ")


async def test_at_a_terminal_it_is_a_table_that_no_device_can_steer_and_q_ends_it(broker: AnyBroker) -> None:
    async with connected(broker.port, "a-device") as device:
        await device.publish(
            f"{UP}/state", json.dumps({**BIRTH, "version": "\x1b[5m1"}).encode(), retain=True
        )
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (30, 120))
        before = termios.tcgetattr(theirs)
        # Whoever runs the tests may have said how wide their own terminal is.
        environ = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", COMMAND, "fleet", "watch", *at(broker),
            stdin=theirs, stdout=theirs, stderr=theirs, cwd=ROOT, env={**environ, "TERM": "xterm"},
        )  # fmt: skip
        shown = bytearray()
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def read() -> None:
            shown.extend(os.read(ours, 65536))
            news.set()

        loop.add_reader(ours, read)
        try:
            async with asyncio.timeout(30):
                while b"?[5m1" not in shown or b"1/2" not in shown:
                    news.clear()
                    await news.wait()
                os.write(ours, b"q")
                await process.wait()
        finally:
            loop.remove_reader(ours)
            if process.returncode is None:
                process.kill()
                await process.wait()
        after = termios.tcgetattr(theirs)
        os.close(ours)
        os.close(theirs)
    assert process.returncode == 0
    assert b"\x1b[5m" not in shown
    assert after == before
