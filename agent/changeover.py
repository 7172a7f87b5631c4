"""Takes configs from afar: looks at each, says what it would change, tries it, and keeps it or goes back.

    document -> read, checked, explained -> tried at the new broker -> nobody at work -> course saved
             -> the agent starts anew
    trial    -> gates green and a signed word over the new connection -> kept
    else     -> the agent starts anew as it was

Everything that lasts is in the course. Whatever ends a trial early ends in what was in force before.
"""

import asyncio
import faulthandler
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog

from agent.clock import NS, Moment
from agent.config import Config
from agent.desired import Desired, candidate, fitting, read, required
from agent.documents import Document
from agent.explain import Explanation, explain
from agent.gates import Gates, Lag
from agent.journal import Journal
from agent.lull import LONGEST_BACK_S, LONGEST_S, lull
from agent.mistakes import BadConfig, Mistake
from agent.probe import connects_otherwise, probe
from agent.shelf import InForce, Shelf
from agent.trial import NOTHING, Edition, Outcome, State, Trial, reason, reasons
from agent.units import Unit
from agent.workflow import Draft

LOOK_S = 0.2
BY_HAND = reason("operator", "the config to stay", "somebody at the device went back")
EFFECTS = 64
"""Effects and changes of one config that are told."""

log = structlog.get_logger("config")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How long things may take, in seconds."""

    second: float = 1.0
    """What a second of a document's time-out lasts."""
    broker: float = 120.0
    """From a start on trial to the broker's answer."""
    probe: float = 20.0
    samples: int = 100
    """Of the loop's lag."""


class House(Protocol):
    """What is needed of the app around it."""

    def stamp(self) -> tuple[Moment, Mapping[str, Any]]:
        """Time and place of an entry that is made now."""
        ...

    def announce(self) -> None:
        """Say anew how the device is."""
        ...

    def restart(self) -> None:
        """End in good order, and start with what the course says."""
        ...

    def online(self) -> str | None:
        """Why the broker is not there; None while it is."""
        ...

    def well(self, unit: str) -> bool:
        """Whether a unit is ready, and the one that is meant."""
        ...

    def settled(self, config: Config) -> None:
        """A config is no longer on trial."""
        ...

    def at_work(self) -> Sequence[str]:
        """What a restart would interrupt, in words; nothing of whom."""
        ...


class Changeover:
    """One document at a time."""

    def __init__(
        self,
        in_force: InForce,
        journal: Journal,
        units: Mapping[str, Unit],
        *,
        house: House,
        pace: Pace | None = None,
    ) -> None:
        self.course = in_force.course
        self._here = in_force
        self._shelf = Shelf(in_force.base.state)
        self._journal, self._units, self._house = journal, units, house
        self._pace = pace or Pace()
        self._device = in_force.config.file.device.id
        self._wished: Document[Any] | None = None
        self._waiting: Mapping[str, Any] | None = None
        """A config that is to be tried once nobody is at work, and what it waits for."""
        self._wake = asyncio.Event()
        self._lag = Lag(self._pace.samples)
        self._writing: asyncio.Future[None] | None = None
        """The entry that says that a trial goes on: done once the journal has taken it."""
        self._connected = False
        self._confirmed = False
        self._gates: Gates | None = None

    # -- what others ask --------------------------------------------------------------------------

    def wish(self, document: Document[Any]) -> None:
        """The config that the fleet wishes. It is looked at when its turn comes."""
        self._wished = document
        self._wake.set()

    def confirm(self, version: int, sha256: str) -> str:
        """The fleet says that this config may stay; why not, or nothing."""
        trial = self.course.trial
        if trial is None:
            outcome = self.course.outcome
            same = outcome is not None and (outcome.version, outcome.sha256) == (version, sha256)
            return "" if same and outcome and outcome.state is State.CONFIRMED else "no_trial"
        if (trial.edition.version, trial.edition.sha256) != (version, sha256):
            return "another_config"
        if self._house.online() is not None:
            return "not_connected"
        self._confirmed = True
        return ""

    def report(self) -> dict[str, Any] | None:
        """As `up/config` says it."""
        told = self.course.report()
        if told is None and self._waiting is None:
            return None
        told = told or dict(NOTHING)
        if self._waiting is not None:
            told |= {"waiting": dict(self._waiting)}
        if self.course.trial is not None and self._gates is not None:
            told |= {"gates": self._gates.as_json(), "ready": self._gates.green}
        return told

    def brief(self) -> dict[str, Any]:
        """As the birth message says it: whoever may confirm a trial waits for `ready`."""
        told = self.report() or {}
        names = ("version", "sha256", "state", "ready")
        return {"in_force": self._here.source, **{name: told[name] for name in names if name in told}}

    def status(self) -> dict[str, Any]:
        """For people at the device: what is in force, and why."""
        edition = self._here.edition
        return {
            "in_force": self._here.source,
            "version": edition and edition.version,
            "sha256": edition and edition.sha256,
            "file": self._here.base.origin,
            "last": self.course.report(),
        }

    def revert(self, _: Mapping[str, Any]) -> dict[str, Any]:
        """Somebody at the device wants the file at the device. Raises ValueError where it is in force."""
        if self._here.edition is None:
            raise ValueError("the file at the device is in force already")
        self._save(self.course.withdrawn([BY_HAND]))
        self._house.restart()
        return {"reverted": self._here.edition.version}

    # -- life -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """For ever: end the trial that is under way, then look at what the fleet wishes."""
        await self._tell_outcome()
        if (trial := self.course.trial) is not None:
            await self._watch(trial)
        while True:
            await self._wake.wait()
            self._wake.clear()
            document, self._wished = self._wished, None
            if document is not None and not self.course.knows(document.ver, document.sha256):
                await self._consider(document)

    # -- a document -------------------------------------------------------------------------------

    async def _consider(self, document: Document[Any]) -> None:
        here, origin = self._here.config, f"config {document.ver}"
        dry = document.claims.body.get("dry_run") is True
        try:
            desired = read(document.claims.body, origin)
            config = candidate(desired.text, here, origin)
            await asyncio.get_running_loop().run_in_executor(None, fitting, config, here, desired.gates)
            away = await probe(config, self._pace.probe) if connects_otherwise(here, config) else []
        except BadConfig as bad:
            await self._refuse(document, bad.mistakes, dry=dry)
            return
        explanation = explain(here, config)
        told = _told(explanation) | ({"brokers_away": away} if away else {})
        if desired.dry_run:
            await self._explained(document, {"refused": [], **told})
        elif not explanation.changes:
            await self._adopt(document, desired.text)
        else:
            waited = await self._wait_for_lull(document, desired.confirm_timeout)
            if not self._superseded(document):
                await self._begin(document, desired, config, {**told, **waited})

    async def _wait_for_lull(self, document: Document[Any], timeout_s: float) -> dict[str, Any]:
        """Until nobody is at work, or for as long as the trial itself may take. What that came to."""
        busy = self._house.at_work()
        if not busy:
            return {}
        longest_s = min(timeout_s, LONGEST_S)
        waits = {"at_work": list(busy), "at_most_s": longest_s}
        await self._remember("config.trial_postponed", document, waits)
        log.info("config waits", version=document.ver, **waits)
        self._waiting = {"version": document.ver, "sha256": document.sha256, **waits}
        self._house.announce()
        began = self._house.stamp()[0].mono_ns
        try:
            within = longest_s * self._pace.second
            busy = await lull(self._house.at_work, within, lambda: self._superseded(document))
        finally:
            self._waiting = None
            self._house.announce()
        waited_s = (self._house.stamp()[0].mono_ns - began) / NS
        return {"waited_s": round(waited_s, 1), "interrupts": list(busy)}

    def _superseded(self, document: Document[Any]) -> bool:
        """Whether the fleet wishes something else by now."""
        return self._wished is not None and self._wished.sha256 != document.sha256

    async def _refuse(self, document: Document[Any], mistakes: list[Mistake], *, dry: bool) -> None:
        why = reasons(mistakes)
        log.error("config refused", version=document.ver, mistakes=len(mistakes))
        if dry:
            await self._explained(document, {"refused": why, "effects": [], "changes": []})
            return
        await self._remember("config.refused", document, {"reasons": why})
        self._save(self.course.refused(document.ver, document.sha256, why).told())

    async def _explained(self, document: Document[Any], found: Mapping[str, Any]) -> None:
        await self._remember("config.explained", document, found)
        self._save(self.course.dry(document.ver, document.sha256, found))

    async def _adopt(self, document: Document[Any], text: str) -> None:
        """What runs already is what is wished: nothing has to be tried."""
        await self._remember("config.confirmed", document, {"unchanged": True})
        edition = Edition(version=document.ver, sha256=document.sha256, text=self._shelf.keep(text))
        self._save(self.course.adopted(edition).told())
        self._here = replace(self._here, course=self.course, edition=edition)

    async def _begin(
        self, document: Document[Any], desired: Desired, config: Config, told: Mapping[str, Any]
    ) -> None:
        here = self._here.config
        ready = [name for name in self._units if self._house.well(name)]
        units = required(config, here, ready, desired.gates)
        timeout_s = desired.confirm_timeout
        await self._remember(
            "config.trial_begun",
            document,
            {"confirm_timeout_s": timeout_s, "units": list(units), **told},
        )
        log.info("config on trial", version=document.ver, within_s=timeout_s, changes=len(told["changes"]))
        edition = Edition(version=document.ver, sha256=document.sha256, text=self._shelf.keep(desired.text))
        now, _ = self._house.stamp()
        until_ns = now.mono_ns + int(timeout_s * self._pace.second * NS)
        self._save(self.course.begun(edition, boot=now.boot, until_ns=until_ns, required=units))
        self._house.restart()

    # -- a trial ----------------------------------------------------------------------------------

    async def _watch(self, trial: Trial) -> None:
        """Until it is kept, or has to be given up."""
        measuring = asyncio.create_task(self._lag.measure(), name="config: lag")
        started = self._house.stamp()[0].mono_ns
        try:
            self._writing = self._remember_start(trial)
            while True:
                now = self._house.stamp()[0].mono_ns
                self._look(trial)
                if self._gates is not None and self._gates.green and self._confirmed:
                    await self._keep()
                    return
                if (why := self._given_up(trial, now, started)) is not None:
                    await self._give_up(why)
                await asyncio.sleep(min(LOOK_S, LOOK_S * self._pace.second * 10))
        finally:
            measuring.cancel()
            await asyncio.wait([measuring])

    def _remember_start(self, trial: Trial) -> asyncio.Future[None]:
        """That the journal takes it is one of the gates, and nothing that may keep us from going back."""
        now, position = self._house.stamp()
        data = {
            "version": trial.edition.version,
            "sha256": trial.edition.sha256,
            "starts": trial.starts,
            "left_s": round((trial.until_ns - now.mono_ns) / NS),
        }
        return self._journal.append([Draft("config.trial_started", self._device, data)], now, position)

    def _look(self, trial: Trial) -> None:
        online = self._house.online() is None
        self._connected = self._connected or online
        units = {name: self._house.well(name) for name in trial.required}
        gates = Gates(broker=online, units=units, journal=_done(self._writing), loop=self._lag.well)
        if gates != self._gates:
            self._gates = gates
            self._house.announce()

    def _given_up(self, trial: Trial, now: int, started: int) -> Mapping[str, str] | None:
        if not self._connected and now >= started + int(self._pace.broker * self._pace.second * NS):
            expected = f"the broker within {self._pace.broker:g} s"
            return reason("broker", expected, self._house.online() or "nothing")
        if now < trial.until_ns:
            return None
        red = ", ".join(self._gates.red) if self._gates else "everything"
        if red:
            return reason("gates", "everything well in time", f"not well: {red}")
        return reason("trial", "a confirmation in time", "none")

    async def _keep(self) -> None:
        trial = self.course.trial
        assert trial is not None
        self._save(self.course.kept())
        faulthandler.cancel_dump_traceback_later()
        self._here = replace(self._here, course=self.course)
        self._house.settled(self._here.config)
        log.info("config confirmed", version=trial.edition.version)
        await self._tell_outcome()

    async def _give_up(self, why: Mapping[str, str]) -> None:
        """Back to what was: told by the agent that starts with it."""
        log.error("config reverted", **why)
        try:
            self._save(self.course.reverted([why]))
        except OSError as error:
            # The next start sees for itself that the trial is over.
            log.error("course cannot be written", reason=str(error))
        busy = await lull(self._house.at_work, LONGEST_BACK_S * self._pace.second)
        log.info("going back", interrupts=list(busy))
        self._house.restart()
        await asyncio.Event().wait()

    # -- telling ----------------------------------------------------------------------------------

    async def _tell_outcome(self) -> None:
        """What was decided where there was no journal to tell of it."""
        outcome = self.course.outcome
        if outcome is None or outcome.told:
            return
        now, position = self._house.stamp()
        await self._journal.append([_draft(self._device, outcome)], now, position)
        self._save(self.course.told())

    async def _remember(self, what: str, document: Document[Any], data: Mapping[str, Any]) -> None:
        now, position = self._house.stamp()
        told = {"version": document.ver, "sha256": document.sha256, **data}
        await self._journal.append([Draft(what, self._device, told)], now, position)

    def _save(self, course: Any) -> None:
        """A few writes in the life of a config: the loop waits for them."""
        self._shelf.save(course)
        self.course = course
        self._house.announce()


def _done(writing: "asyncio.Future[None] | None") -> bool:
    return writing is not None and writing.done() and not writing.cancelled() and writing.exception() is None


def _draft(device: str, outcome: Outcome) -> Draft:
    data = {
        "version": outcome.version,
        "sha256": outcome.sha256,
        "reasons": [dict(each) for each in outcome.reasons],
    }
    return Draft(f"config.{outcome.state}", device, data)


def _told(explanation: Explanation) -> dict[str, Any]:
    found = explanation.as_json()
    return {"effects": found["effects"][:EFFECTS], "changes": found["changes"][:EFFECTS]}
