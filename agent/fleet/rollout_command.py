"""`postern fleet rollout`: a roster, grants, a manifest or a config, to a few devices first.

Exit codes: 0 done, 1 the broker was not reached, 2 a mistake in what was typed, in a file or with a key, 3 it
is halted, 4 it was aborted, 130 interrupted: `resume` goes on.
"""

import argparse
import asyncio
import getpass
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.fleet import online

if TYPE_CHECKING:
    from agent.fleet.listener import Listener
    from agent.fleet.rollout import Member, Rollout
    from agent.fleet.rollout_file import RolloutFile
    from agent.fleet.rollout_run import Answer, Give
    from agent.fleet.sight import Watch

    Work = tuple[Give, Answer]

EXIT_USAGE, EXIT_HALTED, EXIT_ABORTED = 2, 3, 4
OPTIONS = ("scope", "confirm_timeout", "require", "min_agent")
"""What is kept with the file that is rolled out."""
WITHIN_S = 60.0
"""Longest that the broker may take to bring what it has retained of all devices."""


def add_actions(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    about = "give something to a few devices first, then to more, and stop where it goes wrong"
    deeds = actions.add_parser("rollout", help=about, description=about).add_subparsers(
        required=True, metavar="ACTION"
    )
    start = deeds.add_parser("start", help="begin one, and give it out until it is done or halted")
    start.add_argument("what", choices=("roster", "grants", "manifest", "config"))
    start.add_argument("file", type=Path, help="as for `fleet push`")
    start.add_argument("--id", help="decides the order of devices, with their names; otherwise made anew")
    start.add_argument("--scope", default="all", help="only rows for these: see the column scope (all)")
    start.add_argument("--stages", type=_stages, metavar="PERCENT,...", help="1,10,50,100 unless given")
    start.add_argument(
        "--soak", type=online.seconds, default=3600.0, help="seconds from one stage to the next (3600)"
    )
    start.add_argument(
        "--patience", type=online.seconds, default=1800.0, help="seconds for a device to answer (1800)"
    )
    start.add_argument(
        "--confirm-timeout", type=int, default=600, metavar="SECONDS", help="config: as for push"
    )
    start.add_argument("--require", action="append", metavar="UNIT", help="config: as for push; repeatable")
    start.add_argument("--min-agent", default="0", metavar="VERSION", help="config: as for push")
    resume = deeds.add_parser("resume", help="go on with one that was interrupted, or halted")
    resume.add_argument("--retry", action="store_true", help="give it again to those who failed")
    for action, run in ((start, _start), (resume, _resume)):
        action.add_argument("--quiet", type=online.seconds, default=2.0, help=argparse.SUPPRESS)
        online.add_options(action, run)
    status = deeds.add_parser("status", help="how far it is")
    abort = deeds.add_parser("abort", help="give it to nobody any more; who has it keeps it")
    for action, act in ((status, _status), (abort, _abort)):
        action.add_argument("--json", action="store_true")
        action.set_defaults(run=_offline, act=act)
    for action in (start, resume, status, abort):
        action.add_argument(
            "--state", type=Path, required=True, metavar="FILE", help="where the rollout stands"
        )
    for action in (resume, abort):
        action.add_argument("--reason", help="why; a halted one needs it" if action is resume else "why")
        action.add_argument("--operator", help="who; otherwise the one who is logged in")


def _stages(text: str) -> tuple[int, ...]:
    """Percentages that rise to 100, as parts of 10,000."""
    try:
        found = tuple(round(float(each) * 100) for each in text.split(","))
    except ValueError:
        found = ()
    if not found or found[-1] != 10_000 or list(found) != sorted({*found}) or found[0] < 1:
        raise argparse.ArgumentTypeError(f"expected percentages that rise to 100, got {text!r}")
    return found


# -- start and resume -----------------------------------------------------------------------------


async def _start(given: argparse.Namespace) -> int:
    import secrets

    from agent.fleet.keyring import Keyring
    from agent.fleet.rollout import STAGES, plan
    from agent.fleet.rollout_file import RolloutFile
    from agent.fleet.rollout_sight import kinds_of
    from agent.fleet.rollout_source import confirming, digest, give, name_of
    from agent.fleet.signing import chosen

    keyring, file = Keyring(given.keys), RolloutFile(given.state)
    devices = chosen(keyring, None)
    source = {"file": str(given.file.resolve()), "sha256": digest(given.file)}
    source |= {name: getattr(given, name) for name in OPTIONS}
    with file.running():
        async with _listening(given) as (watch, listener):
            known = {name: watch.of(name) for name in devices}
            rollout = plan(
                given.id or f"r-{secrets.token_hex(4)}",
                name_of(given.what),
                {name: kinds_of(sight) for name, sight in known.items()},
                [name for name, sight in known.items() if sight.state != "online"],
                stages=given.stages or STAGES,
                soak_s=given.soak,
                patience_s=given.patience,
            )
            work = give(given, keyring, rollout.what, source), confirming(given, keyring, rollout.what)
            file.create(rollout, source)
            return await _conduct(given, file, watch, listener, work)


async def _resume(given: argparse.Namespace) -> int:
    from agent.fleet.keyring import Keyring
    from agent.fleet.rollout import State, resumed
    from agent.fleet.rollout_file import RolloutFile
    from agent.fleet.rollout_source import confirming, give

    keyring, file = Keyring(given.keys), RolloutFile(given.state)
    with file.running():
        with file.changing() as change:
            if change.rollout.state is State.HALTED:
                who, why = _who_and_why(given)
                change.rollout = resumed(change.rollout, who, why, time.time(), again=given.retry)
            what = change.rollout.what
            work = give(given, keyring, what, change.source), confirming(given, keyring, what)
        async with _listening(given) as (watch, listener):
            return await _conduct(given, file, watch, listener, work)


@asynccontextmanager
async def _listening(given: argparse.Namespace) -> "AsyncIterator[tuple[Watch, Listener]]":
    """What all devices show, kept up to date."""
    from agent.fleet.listener import Listener
    from agent.fleet.sight import Watch

    watch, server = Watch(), online.server(given)
    await Listener(server, "+", watch).once(given.quiet, WITHIN_S)
    listener = Listener(server, "+", watch)
    running = asyncio.create_task(listener.run(), name="listener")
    try:
        yield watch, listener
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


async def _conduct(
    given: argparse.Namespace, file: "RolloutFile", watch: "Watch", listener: "Listener", work: "Work"
) -> int:
    from agent.fleet.rollout_run import Conductor

    conductor = Conductor(file, watch, *work, lambda before, now: _tell(given, before, now))
    listener.told = conductor.hear
    rollout = await conductor.run()
    online.tell(given, _summary(rollout))
    return _code(rollout)


def _tell(given: argparse.Namespace, before: "Rollout", now: "Rollout") -> None:
    """One line for each device of which something is new, and for each stage."""
    if now.stage != before.stage or not any(each.given for each in before.members.values()):
        online.tell(given, {"stage": now.stage + 1, "of": len(now.stages), "devices": len(now.of_stage())})
    for name, each in now.members.items():
        old = before.members[name]
        if each.outcome is not old.outcome or each.ver != old.ver:
            facts = {"device": name, "outcome": each.outcome.value, "ver": each.ver}
            online.tell(given, {**facts, **({"reason": each.reason} if each.reason else {})})


# -- status and abort -----------------------------------------------------------------------------


def _offline(given: argparse.Namespace) -> int:
    from agent.fleet.rollout_file import BadRollout

    try:
        code: int = given.act(given)
    except BadRollout as bad:
        print(f"postern fleet: {bad}", file=sys.stderr)
        return EXIT_USAGE
    return code


def _status(given: argparse.Namespace) -> int:
    from agent.fleet.rollout_file import RolloutFile

    rollout = RolloutFile(given.state).read().rollout
    if given.json:
        print(json.dumps({**_summary(rollout), "members": {n: _told(m) for n, m in rollout.members.items()}}))
    else:
        _show(rollout)
    return _code(rollout)


def _abort(given: argparse.Namespace) -> int:
    from agent.fleet.rollout import aborted
    from agent.fleet.rollout_file import RolloutFile

    who, why = _who_and_why(given)
    with RolloutFile(given.state).changing() as change:
        change.rollout = aborted(change.rollout, who, why, time.time())
        rollout = change.rollout
    online.tell(given, _summary(rollout))
    return 0


def _who_and_why(given: argparse.Namespace) -> tuple[str, str]:
    """Raises BadRollout where nobody says why."""
    from agent.fleet.rollout_file import BadRollout

    who, why = (given.operator or getpass.getuser()).strip(), (given.reason or "").strip()
    if not who or not why:
        raise BadRollout(f"{given.state}: expected --reason, got none")
    return who, why


def _code(rollout: "Rollout") -> int:
    from agent.fleet.rollout import State

    return {State.HALTED: EXIT_HALTED, State.ABORTED: EXIT_ABORTED}.get(rollout.state, 0)


def _summary(rollout: "Rollout") -> dict[str, Any]:
    from agent.fleet.rollout import Outcome

    outcomes = [each.outcome for each in rollout.members.values()]
    return {
        "rollout": rollout.id,
        "what": rollout.what,
        "state": rollout.state.value,
        "stage": rollout.stage + 1,
        "of": len(rollout.stages),
        **{each.value: outcomes.count(each) for each in Outcome},
        "why": rollout.why,
    }


def _told(member: "Member") -> dict[str, Any]:
    return {
        "outcome": member.outcome.value,
        "canary": member.canary,
        "kinds": member.kinds,
        "given": member.given,
        "ver": member.ver,
        "reason": member.reason,
        "excused": member.excused,
    }


def _show(rollout: "Rollout") -> None:
    from agent.fleet.rollout import Outcome
    from agent.fleet.table import printable, show

    summary = _summary(rollout)
    told = f"{rollout.id}: {rollout.what}, {rollout.state}, stage {summary['stage']} of {summary['of']}"
    print(printable(f"{told}: {rollout.why}" if rollout.why else told))
    rows = []
    for number, share in enumerate(rollout.stages):
        members = replace(rollout, stage=number).of_stage().values()
        counts = [sum(each.outcome is outcome for each in members) for outcome in Outcome]
        now = ">" if number == rollout.stage else ""
        rows.append((f"{now}{number + 1}", f"{share / 100:g} %", str(len(members)), *map(str, counts)))
    show(("STAGE", "SHARE", "DEVICES", *(each.value.upper() for each in Outcome)), rows)
    failed = [(name, each) for name, each in rollout.members.items() if each.outcome is Outcome.FAILED]
    if failed:
        print()
        words = [
            (name, "canary" if each.canary else "", "excused" if each.excused else "", printable(each.reason))
            for name, each in failed
        ]
        show(("FAILED", "", "", "WHY"), words, marked=[not each.excused for _, each in failed])
    for deed in rollout.deeds:
        when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(deed.at))
        print(printable(f"{when}  {deed.what}{f' by {deed.who}' if deed.who else ''}: {deed.reason}"))
