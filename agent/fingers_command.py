"""`postern fingers`: a fingerprint module at its depot. Teach, list, forget; give it a password of its own.

The agent has to be stopped: a module's port and the journal have one holder each. What is changed here is
told to the journal, so that the agent knows the module again when it starts.
"""

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.cli import EXIT_FAILED, Mistake, ask_agent, config_option

if TYPE_CHECKING:
    from agent.app import App
    from agent.units import UnitSpec
    from drivers.r503 import R503Driver

KIND = "r503"
FINGER_WITHIN = 60.0
"""Seconds for both times that the finger is laid down."""
FACTORY = 0
"""The password that modules come with."""
COMING = ".next"
"""What the password file is called while the module may not have been told yet."""
WRONG = "wrong password"

LAY = "lay the finger on the glass; when the ring flashes, lift it, and lay it down once more"

REASONS = {
    "slot_taken": "that slot holds a finger already: forget it first, or take another",
    "fingers_differ": "the two images are not of one finger",
    "no_finger": "nobody laid a finger on the glass in time",
    "poor_image": "the finger could not be read: wipe glass and finger dry",
    "not_stored": "the module did not store it",
    "not_deleted": "the module did not delete it",
    "SetPwd: not taken": "the module did not take a new password; it wants the one it had",
    "no answer to SetPwd": "it is not known whether the module took the new password: do it once more",
}

Work = Callable[["App", "Module"], Awaitable[Mapping[str, Any]]]


def add_commands(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add `fingers` to the `postern` command."""
    fingers = commands.add_parser("fingers", help="see to a fingerprint module, with the agent stopped")
    actions = fingers.add_subparsers(required=True, metavar="ACTION")
    listed = actions.add_parser("list", help="what a module is, which slots are taken, and by whom")
    listed.add_argument("--json", action="store_true")
    teach = actions.add_parser("teach", help="have a finger laid down twice, and stored in a slot")
    teach.add_argument("--template", type=Path, metavar="FILE", help="write it here as well, for the fleet")
    forget = actions.add_parser("forget", help="delete what a slot holds")
    password = actions.add_parser("password", help="give it a new one, made at random, in its password_file")
    for action, run in ((listed, _list), (teach, _teach), (forget, _forget), (password, _password)):
        action.add_argument("unit", help="its name in the config")
        if action in (teach, forget):
            action.add_argument("slot", type=_slot)
        config_option(action)
        action.set_defaults(run=run)


def _slot(text: str) -> int:
    if not (text.isdecimal() and len(text) <= 5 and int(text) <= 0xFFFF):
        raise argparse.ArgumentTypeError(f"expected a slot from 0 to 65535, got {text!r:.40}")
    return int(text)


# -- the module -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Module:
    """One that is open, and what it has told of itself."""

    spec: "UnitSpec"
    driver: "R503Driver"
    about: Mapping[str, str]
    said: "asyncio.Queue[Any]"


class _Failed(Exception):
    """It came to nothing, in words for the operator."""


def _at_the_module(given: argparse.Namespace, work: Work) -> Mapping[str, Any] | None:
    """What `work` has come to at the unit that is named; None, and a line for the operator, if to nothing."""

    async def opened(app: "App", spec: "UnitSpec") -> Mapping[str, Any]:
        async with _opened(spec) as module:
            return await work(app, module)

    return _beside_the_agent(given, opened)


def _beside_the_agent(
    given: argparse.Namespace, work: Callable[["App", "UnitSpec"], Awaitable[Mapping[str, Any]]]
) -> Mapping[str, Any] | None:
    """Have `work` done while no agent runs, with its journal open."""
    from agent import control
    from agent.config import load

    config = load(given.config)
    spec = next((unit for unit in config.units if unit.name == given.unit), None)
    if spec is None or spec.kind != KIND:
        known = ", ".join(unit.name for unit in config.units if unit.kind == KIND) or "(none)"
        raise Mistake(f"unit: expected one of the fingerprint modules {known}, got {given.unit!r:.40}")

    async def running(path: Path) -> Mapping[str, Any]:
        await control.ask(path, "status")
        raise Mistake(f"{given.unit}: an agent runs and holds it; stop the agent first")

    async def stopped(app: "App") -> Mapping[str, Any]:
        try:
            return await work(app, spec)
        except _Failed as failed:
            return {"failed": str(failed)}

    told = ask_agent(config, running, stopped)
    if "failed" in told:
        print(f"{given.unit}: {told['failed']}", file=sys.stderr)
        return None
    return told


@contextlib.asynccontextmanager
async def _opened(spec: "UnitSpec") -> AsyncIterator[Module]:
    """Raises _Failed, for whatever goes wrong with the module inside as well."""
    from drivers import driver_for
    from drivers.base import ActionRefused, NoReply
    from drivers.port import PortGone, open_port
    from drivers.r503 import R503Driver

    said: asyncio.Queue[Any] = asyncio.Queue()
    try:
        port = await open_port(spec.address, baud=spec.baud)
        with contextlib.closing(port):
            driver = driver_for(KIND)(port, said.put, spec.options)
            assert isinstance(driver, R503Driver)
            yield Module(spec, driver, await driver.identify(), said)
    except (PortGone, NoReply, ActionRefused) as error:
        raise _Failed(REASONS.get(str(error), str(error))) from error


# -- slots ------------------------------------------------------------------------------------------


def _list(given: argparse.Namespace) -> int:
    from agent.teaching import origins

    async def listed(app: "App", module: Module) -> Mapping[str, Any]:
        name, records = module.spec.name, app.journal.records
        taken = await module.driver.inventory() if "index" in module.about else ()
        sighting = app.inventory.sighted(name, module.about, records)
        doubts = sighting.entry.data["changes"] if sighting.entry else {}
        return {"about": dict(module.about), "slots": origins(name, taken, records), "differs": doubts}

    told = _at_the_module(given, listed)
    if told is None:
        return EXIT_FAILED
    if given.json:
        print(json.dumps(told))
        return 0
    for key, value in told["about"].items():
        print(f"{key:14} {value}")
    if "index" not in told["about"]:
        print("It cannot list its slots: what is in them is not known, and the fleet puts nothing in.")
    words = {"fleet": "from the fleet", "here": "taught here", "foreign": "put there by nobody we know"}
    for slot, whose in told["slots"].items():
        print(f"slot {slot:<9} {words[whose]}")
    for key, change in told["differs"].items():
        print(f"doubted: {key}: expected {change['expected']}, found {change['found']}")
    return 0


def _teach(given: argparse.Namespace) -> int:
    from agent.roster import BUNDLE
    from agent.teaching import is_fleets
    from drivers.readings import EnrolFinger

    async def taught(app: "App", module: Module) -> Mapping[str, Any]:
        name, slot = module.spec.name, given.slot
        if (name, slot) in app.roster.rows.slots(BUNDLE) or is_fleets(name, slot, app.journal.records):
            # A module that was exchanged and comes back may hold it still.
            raise _Failed(f"slot {slot} holds or held a finger of the fleet's: take another")
        if "index" not in module.about:
            raise _Failed("expected a module that lists its slots, got one that cannot: use its maker's tool")
        if slot >= (capacity := int(module.about["capacity"])):
            raise _Failed(f"expected a slot below {capacity}, got {slot}")
        if slot in await module.driver.inventory():
            raise _Failed(REASONS["slot_taken"])
        print(LAY, file=sys.stderr, flush=True)
        await module.driver.perform(EnrolFinger(slot=slot, within=FINGER_WITHIN))
        reason = module.said.get_nowait().reason
        await _remember(app, module, slot, taught=True, reason=reason)
        if reason:
            raise _Failed(REASONS.get(reason, reason))
        if given.template is not None:
            _write_new(given.template, await module.driver.template(slot))
        return {}

    if given.template is not None and given.template.exists():
        raise Mistake(f"--template: expected a file that is not there yet, got {given.template}")
    if _at_the_module(given, taught) is None:
        return EXIT_FAILED
    print(
        f"slot {given.slot} of {given.unit} is taught: a badge names it by --finger {given.unit}:{given.slot}"
    )
    return 0


def _forget(given: argparse.Namespace) -> int:
    from agent.roster import BUNDLE
    from drivers.readings import DeleteFinger

    async def forgotten(app: "App", module: Module) -> Mapping[str, Any]:
        name, slot = module.spec.name, given.slot
        if slot not in await module.driver.inventory():
            raise _Failed(f"slot {slot} is empty")
        await module.driver.perform(DeleteFinger(slot=slot))
        await _remember(app, module, slot, taught=False, reason="")
        return {"listed": (name, slot) in app.roster.rows.slots(BUNDLE)}

    told = _at_the_module(given, forgotten)
    if told is None:
        return EXIT_FAILED
    print(f"slot {given.slot} of {given.unit} is empty")
    if told["listed"]:
        print("The fleet says what it is to hold: the agent puts it in again.")
    return 0


async def _remember(app: "App", module: Module, slot: int, *, taught: bool, reason: str) -> None:
    """Done once it is on stable storage."""
    from agent.teaching import Change, remembered
    from agent.workflow import Draft, Lane

    name = module.spec.name
    change = Change(
        unit=name, slot=slot, taught=taught, before=module.about, after=await module.driver.identify()
    )
    kept = {} if reason else remembered(change, app.inventory, app.journal.records)
    word = "enrolled" if taught else "forgotten"
    about = {"slot": slot, "ok": not reason, "reason": reason}
    now, position = app.stamp()
    await app.journal.append([Draft(f"device.finger_{word}", name, about, Lane.STATE)], now, position, kept)
    expected = (module.spec.expect or {}).get("index")
    if expected is not None and expected != change.after.get("index"):
        print(f"the config expects another index: write {change.after.get('index')} there", file=sys.stderr)


def _write_new(path: Path, content: bytes) -> None:
    """For its owner alone: a template is personal data. Raises _Failed."""
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
    except OSError as error:
        raise _Failed(f"the finger is taught, but its template not written: {error}") from error


# -- its password -----------------------------------------------------------------------------------


def _password(given: argparse.Namespace) -> int:
    """The new password stands in a file before the module is told: if the power goes, one of two fits."""
    told = _beside_the_agent(given, lambda _, spec: _renewed(spec))
    if told is None:
        return EXIT_FAILED
    print(f"{given.unit} has a password of its own; it is in {told['file']}")
    return 0


async def _renewed(spec: "UnitSpec") -> Mapping[str, Any]:
    """The file with the new password. Finishes what was begun before. Raises _Failed."""
    from agent import keyfile
    from drivers.r503 import R503Options

    options = spec.options
    assert isinstance(options, R503Options)
    if options.password_file is None:
        raise _Failed(f"expected a password_file in [unit.{spec.name}], got none")
    file = Path(options.password_file)
    coming = file.with_name(file.name + COMING)
    candidates: list[tuple[Path | None, int]]
    candidates = [(file, _read(file))] if file.exists() else [(None, FACTORY)]
    candidates += [(coming, _read(coming))] if coming.exists() else []
    for path, password in candidates:
        try:
            async with _opened(_with(spec, password)) as module:
                if path != coming:
                    fresh = 1 + secrets.randbelow(0xFFFFFFFE)
                    _keep(coming, fresh)
                    await module.driver.set_password(fresh)
        except _Failed as failed:
            if str(failed) == WRONG and path != candidates[-1][0]:
                continue
            raise
        coming.replace(file)
        keyfile.sync_folder(file.parent)
        break
    return {"file": str(file)}


def _read(path: Path) -> int:
    from drivers.base import ActionRefused
    from drivers.r503 import password_in

    try:
        return password_in(path)
    except ActionRefused as refused:
        raise _Failed(str(refused)) from refused


def _keep(path: Path, password: int) -> None:
    from agent import keyfile

    try:
        keyfile.write(path, f"{password:08x}\n".encode())
    except OSError as error:
        raise _Failed(f"{path}: {error.strerror}; the module was not told") from error


def _with(spec: "UnitSpec", password: int) -> "UnitSpec":
    from pydantic import Secret

    options = spec.options.model_copy(update={"password": Secret(password), "password_file": None})
    return replace(spec, options=options)
