"""Configs that would lock a device out, each sent to a real agent: it is back as it was, without help.

Most are refused before anything happens. What nobody can see beforehand ends with its trial. The short form
plays time-outs faster; `POSTERN_LONG=1 pytest tests/test_config_hostile.py` waits them out.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.note import SignerKey
from simulators.relay import Relay
from tests.brokers import Authority
from tests.mosquitto import Mosquitto, free_port
from tests.site import LONG
from tests.trial_bench import DEVICE, TrialBench, identity

pytestmark = [pytest.mark.broker, pytest.mark.timeout(900 if LONG else 240)]

Made = tuple[str, dict[str, Any]]


def broker(more: str) -> Callable[[TrialBench], Made]:
    return lambda bench: (bench.whole(f"\n{more}"), {})


def added(more: str, **body: Any) -> Callable[[TrialBench], Made]:
    return lambda bench: (bench.whole(more=more), body)


def receipts_key() -> str:
    return SignerKey("fleet-other", Ed25519PrivateKey.generate()).verifier.text


def text(all_of_it: str) -> Callable[[TrialBench], Made]:
    return lambda _: (all_of_it, {})


def swapped(old: str, new: str) -> Callable[[TrialBench], Made]:
    def make(bench: TrialBench) -> Made:
        whole = bench.whole()
        first, second = old.format(dev=bench.dev), new.format(dev=bench.dev)
        assert first in whole
        return whole.replace(first, second), {}

    return make


REFUSED: dict[str, tuple[Callable[[TrialBench], Made], str]] = {
    "a broker that has no address": (broker('host = "no-such-host.invalid"\nplain = true'), "broker"),
    "a port where nobody listens": (
        broker(f'host = "127.0.0.1"\nport = {free_port()}\nplain = true'),
        "broker",
    ),
    "no port": (broker('host = "127.0.0.1"\nport = 0\nplain = true'), "broker.port"),
    "a port beyond all ports": (broker('host = "127.0.0.1"\nport = 70000\nplain = true'), "broker.port"),
    "a host with a null": (broker('host = "a\\u0000b"\nplain = true'), "broker.host"),
    "no host": (broker("plain = true"), "broker.host"),
    "a keepalive of nothing": (broker('host = "127.0.0.1"\nkeepalive = 0\nplain = true'), "broker.keepalive"),
    "a certificate that is not there": (
        broker('host = "127.0.0.1"\ntls = { certificate = "/no/such", key = "/no/such" }'),
        "broker.tls.certificate",
    ),
    "a certificate without its key": (
        broker('host = "127.0.0.1"\ntls = { certificate = "/no/such" }'),
        "broker.tls",
    ),
    "authorities that are none": (broker('host = "127.0.0.1"\ntls = { ca = "/dev/null" }'), "broker.tls.ca"),
    "a password that is not there": (
        broker('host = "127.0.0.1"\nplain = true\npassword_file = "/no/such"'),
        "broker.password_file",
    ),
    "an empty password": (
        broker('host = "127.0.0.1"\nplain = true\npassword_file = "/dev/null"'),
        "broker.password_file",
    ),
    "TLS where the broker has none": (
        lambda bench: (bench.whole(f'\nhost = "127.0.0.1"\nport = {bench.broker.port}'), {}),
        "broker",
    ),
    "two units on one port": (swapped("{dev}/finger", "{dev}/gun"), "unit.gun.port"),
    "a port that is not there": (swapped("{dev}/gun", "{dev}/nothing"), "unit.gun.port"),
    "a port that is a file": (swapped("{dev}/gun", "/etc/hostname"), "unit.gun.port"),
    "a kind that is none": (swapped("em4100", "em4200"), "unit.badge.kind"),
    "a role that its kind cannot have": (added("[unit.gun.x]\n"), "unit.gun.x"),
    "nobody could log in any more": (
        swapped('kind = "r503"\nport = "{dev}/finger"', 'kind = "line"\nport = "{dev}/finger"'),
        "policy.session.sets",
    ),
    "a journal of nothing": (added("[journal]\nsize_mib = 0\n"), "journal.size_mib"),
    "entries that are kept for no time": (added("[journal]\ncustody_days = 0\n"), "journal.custody_days"),
    "sessions that end at once": (added("[custody]\nidle = 0\n"), "custody.idle"),
    "logins that end at once": (added("[custody]\nlogin = 0\n"), "custody.login"),
    "times that are no numbers": (added("[custody]\nidle = nan\n"), "custody.idle"),
    "a time without end": (added("[position]\nfresh = inf\n"), "position.fresh"),
    "nobody has to log in": (added("[custody]\nattended = false\n"), "custody.attended"),
    "a badge is enough": (added('[custody]\nsession = [["badge"]]\n'), "custody.session[0]"),
    "as many tries as one likes": (added("[identity]\nlast_try = 1000\n"), "identity.last_try"),
    "no try at all": (added("[identity]\ntries = 0\n"), "identity.tries"),
    "rosters that hold for a year": (added("[identity]\nstale_hours = 8760\n"), "identity.stale_hours"),
    "another device": (added('[device]\nid = "locker-18"\ntenant = "acme"\n'), "device.id"),
    "another tenant": (added('[device]\nid = "locker-17"\ntenant = "evil"\n'), "device.tenant"),
    "state that is elsewhere": (
        added('[device]\nid = "locker-17"\ntenant = "acme"\nstate = "/tmp/elsewhere"\n'),
        "device.state",
    ),
    "another root": (added('[trust]\nroot = "/tmp/root.jws"\n'), "trust.root"),
    "a switch that wipes": (
        added('[tamper]\nunit = "gun"\ninput = 1\nclosed = false\n'),
        "tamper",
    ),
    "receipts from anybody": (added(f'[fleet]\nkeys = ["{receipts_key()}"]\n'), "fleet.keys"),
    "no TOML": (text("= = ="), "syntax"),
    "nothing": (text(""), "broker"),
    "60,000 brackets": (text("a = " + "\n".join(["[" * 4000] * 15)), "syntax"),
    "a key of ten thousand steps": (text("\n".join(["a" + ".a" * 1900 + " = 1"] * 2)), "syntax"),
    "a number without end": (text("a = " + "9" * 4000), "a"),
    "more lines than any file": (text("\n" * 9000), "toml"),
    "a table that is a number": (text("broker = 7"), "broker"),
    "three thousand units": (
        text("[broker]\nhost = 'b'\n" + "\n".join(f"[unit.u{n}]" for n in range(3000))),
        "unit.u0.kind",
    ),
    "a format of the next age": (added("", schema="2.0"), "schema"),
    "an agent of the next age": (added("", min_agent="99.0.0"), "min_agent"),
    "no time to confirm": (added("", confirm_timeout=0), "confirm_timeout"),
    "a wish that nobody knows": (added("", force=True), "force"),
    "a gate that no unit can open": (added("", gates={"units": ["nothing"]}), "gates.units"),
}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[TrialBench]:
    async with TrialBench(tmp_path) as made:
        yield made


async def test_what_can_be_seen_beforehand_is_refused_and_nothing_is_restarted(bench: TrialBench) -> None:
    assert len(REFUSED) >= 40
    for name, (make, path) in REFUSED.items():
        whole, body = make(bench)
        end = await bench.end(await bench.push(whole, **body))
        assert end["state"] == "refused", name
        assert path in {reason["path"] for reason in end["reasons"]}, (name, end["reasons"])
        assert all(reason["expected"] and reason["found"] for reason in end["reasons"]), name
    status = await bench.reachable("device")
    assert status["config"]["last"]["state"] == "refused"
    assert len(bench.starts) == 1


async def test_a_config_over_the_cap_is_refused_unread_and_the_next_one_is_heard(bench: TrialBench) -> None:
    big = bench.oversized()
    await bench.send(big, pin=(1, "0" * 64))
    await bench.until(
        lambda: any(entry["type"] == "postern.fleet.config_refused" for entry in bench.entries), "a refusal"
    )
    await bench.reachable("device")
    assert (await bench.end(await bench.push("= = =")))["state"] == "refused"
    assert len(bench.starts) == 1


async def test_a_broker_that_lets_nobody_in_is_seen_before_the_old_one_is_left(
    bench: TrialBench, tmp_path: Path
) -> None:
    with Mosquitto(tmp_path, anonymous=False) as closed:
        sent = await bench.push(bench.whole(f'\nhost = "127.0.0.1"\nport = {closed.port}\nplain = true'))
        assert (await bench.end(sent))["reasons"][0]["path"] == "broker"
    await bench.reachable("device")
    assert len(bench.starts) == 1


@pytest.mark.parametrize("dead", ["expired", "another authority's"])
async def test_a_dead_certificate_is_seen_before_the_old_broker_is_left(
    bench: TrialBench, tmp_path: Path, dead: str
) -> None:
    folder, elsewhere = tmp_path / "tls", tmp_path / "elsewhere"
    folder.mkdir()
    elsewhere.mkdir()
    authority = Authority(folder, "authority")
    own = authority.issue("broker")
    client = authority if dead == "expired" else Authority(elsewhere, "authority")
    pair = client.issue(DEVICE, expired=dead == "expired")
    lines = [f"cafile {authority.file}", f"certfile {own.certificate}", f"keyfile {own.key}"]
    with Mosquitto(folder, config_lines=[*lines, "require_certificate true"]) as strict:
        tls = f'{{ ca = "{authority.file}", certificate = "{pair.certificate}", key = "{pair.key}" }}'
        sent = await bench.push(bench.whole(f'\nhost = "127.0.0.1"\nport = {strict.port}\ntls = {tls}'))
        end = await bench.end(sent)
    assert (end["state"], end["reasons"][0]["path"]) == ("refused", "broker")
    await bench.reachable("device")
    assert len(bench.starts) == 1


async def test_something_that_listens_and_never_answers_is_no_broker(bench: TrialBench) -> None:
    async def never(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await _.read()
        writer.close()

    listening = await asyncio.start_server(never, "127.0.0.1", free_port())
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        sent = await bench.push(bench.whole(f'\nhost = "127.0.0.1"\nport = {port}\nplain = true'))
        assert "no answer within" in (await bench.end(sent))["reasons"][0]["found"]
    await bench.reachable("device")


TRIED: dict[str, tuple[Callable[[TrialBench], Made], str]] = {
    "nobody confirms it": (added("[journal]\nsize_mib = 512\n"), "trial"),
    "ports that were swapped": (
        lambda bench: (
            bench.whole()
            .replace(f"{bench.dev}/finger", f"{bench.dev}/x")
            .replace(f"{bench.dev}/gun", f"{bench.dev}/finger")
            .replace(f"{bench.dev}/x", f"{bench.dev}/gun"),
            {},
        ),
        "gates",
    ),
    "a port that is no line": (swapped("{dev}/finger", "/dev/null"), "gates"),
    "a module that is another one": (
        added('[unit.finger.expect]\nsystem = "another"\n'),
        "gates",
    ),
}


@pytest.mark.parametrize("name", TRIED)
async def test_what_nobody_can_see_beforehand_ends_with_its_trial(bench: TrialBench, name: str) -> None:
    make, path = TRIED[name]
    whole, body = make(bench)
    end = await bench.end(await bench.push(whole, **body))
    assert (end["state"], end["reasons"][0]["path"]) == ("reverted", path)
    await bench.reachable("device")
    assert [start.source for start in bench.starts] == ["device", "trial", "device"]
    assert sum(entry["type"] == "postern.config.reverted" for entry in bench.entries) == 1


async def test_a_broker_that_is_gone_once_the_old_one_was_left_is_left_again(bench: TrialBench) -> None:
    async with Relay(to_host="127.0.0.1", to_port=bench.broker.port, port=free_port()) as relay:
        sent = await bench.push(bench.whole(f'\nhost = "127.0.0.1"\nport = {relay.port}\nplain = true'))
        await bench.until(lambda: bench.reported.get("state") == "trial" or relay.accepted, "the probe")
        await bench.until(
            lambda: any(e["type"] == "postern.config.trial_begun" for e in bench.entries), "begun"
        )
        relay.cut()
        assert (await bench.end(sent))["state"] == "reverted"
    await bench.reachable("device")


async def test_a_broker_where_the_fleet_is_not_is_left_again(bench: TrialBench, tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as other:
        bench.confirms = True
        sent = await bench.push(bench.whole(f'\nhost = "127.0.0.1"\nport = {other.port}\nplain = true'))
        end = await bench.end(sent)
    assert (end["state"], end["reasons"][0]["path"]) == ("reverted", "trial")
    await bench.reachable("device")


async def test_a_word_for_another_config_keeps_nothing(bench: TrialBench) -> None:
    sent = await bench.push(bench.whole(more="[journal]\nsize_mib = 512\n"))
    await bench.until(lambda: bench.birth.get("config", {}).get("ready") is True, "a trial that is well")
    version, digest = identity(sent)
    await bench.confirm(version, "0" * 64)
    await bench.confirm(version + 1, digest)
    assert (await bench.end(sent))["state"] == "reverted"


async def test_what_is_well_and_confirmed_is_kept_and_the_next_bad_one_ends_there(bench: TrialBench) -> None:
    bench.confirms = True
    good = await bench.push(bench.whole(more="[journal]\nsize_mib = 512\n"), confirm_timeout=3600)
    assert (await bench.end(good))["state"] == "confirmed"
    await bench.reachable("fleet")
    bench.confirms = False
    bad = await bench.push(bench.whole(more="[journal]\nsize_mib = 1024\n"))
    assert (await bench.end(bad))["state"] == "reverted"
    await bench.reachable("fleet")
    assert bench.starts[-1].config.file.journal.size_mib == 512


async def test_a_dry_run_says_what_would_change_and_changes_nothing(bench: TrialBench) -> None:
    await bench.push(bench.whole(more="[journal]\nsize_mib = 512\n"), dry_run=True)
    await bench.until(lambda: "checked" in bench.reported, "what would change")
    assert [each["path"] for each in bench.reported["checked"]["changes"]] == ["journal.size_mib"]
    await bench.push("= = =", dry_run=True)
    await bench.until(lambda: bench.reported["checked"]["refused"], "what would be refused")
    await bench.reachable("device")
    assert len(bench.starts) == 1


async def test_the_same_config_under_a_new_version_is_taken_without_a_trial(bench: TrialBench) -> None:
    assert (await bench.end(await bench.push(bench.whole())))["state"] == "confirmed"
    assert (await bench.end(await bench.push(bench.whole())))["state"] == "confirmed"
    assert len(bench.starts) == 1
    await bench.reachable("fleet")
