"""The only file that knows every room. One task group holds all that runs.

Units deliver readings; the decider takes one at a time, decides, and hands entries, state and records to the
journal without waiting; the performer waits for each commit, in order, and only then has the decision's
orders done; the uplink sends what is durable.
"""

import asyncio
import contextlib
import random
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self, TypeVar

import structlog
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent import VERSION, about, control, emergency
from agent.aging import Aging
from agent.cargo import Label
from agent.changeover import Changeover, Pace
from agent.clock import Clock, Correction, Moment, SystemClock
from agent.commands import OpenManyDoors
from agent.config import Config
from agent.custody import Workflow
from agent.decider import Decider
from agent.desk import CourierDesk, Desk
from agent.diagnostics import TOPIC
from agent.dispatches import Dispatch
from agent.documents import Document
from agent.downlink import Heard
from agent.exchange import Exchange
from agent.ferry import Ferry
from agent.health import Notifier, feed_watchdog
from agent.herald import JSON
from agent.intake import Intake, Role
from agent.inventory import Inventory
from agent.journal import Journal
from agent.jws import Signer
from agent.keystore import FOLDER, Keystore
from agent.ledger import TILE
from agent.liaison import Liaison
from agent.locker.caretaker import Caretaker
from agent.locker.codes import Codes
from agent.locker.desk import LockerDesk
from agent.locker.office import KeyedOffice
from agent.locker.workflow import LockerWorkflow
from agent.mending import Mending
from agent.mqtt import Server
from agent.performer import Performer
from agent.position import Position
from agent.provisioning import Provisioning
from agent.receipts import ROLLED_BACK
from agent.renewal import Renewal
from agent.rescue import Rescue, opened
from agent.roster import BUNDLE, Roster
from agent.row_seal import Keys
from agent.shelf import InForce, Shelf
from agent.standing import Authority
from agent.timekeeper import Timekeeper
from agent.units import Unit, Wiring
from agent.upkeep import Upkeep
from agent.uplink import Uplink
from agent.vault import Vault
from agent.workflow import Dismissed, Draft, Lane, Order
from agent.writer import JournalFailed
from drivers.readings import (
    ActionDone,
    Fix,
    InputChanged,
    PeerSaid,
    Reading,
    Signal,
    Tone,
)

if TYPE_CHECKING:
    from agent.kiosk.kiosk import Kiosk

CHECKPOINT_EVERY_S = 60.0
"""What is new is signed at least this often."""
LOOK_EVERY_S = 10.0
"""Between two looks at 256 entries each; a million is gone through in half a day."""
NTP_EVERY_S = 30.0
FAULT_PAUSE_S = 5.0
LAST_WORDS_S = 5.0
"""Deadline of each step of an orderly end."""

JOURNAL = "journal.db"
T = TypeVar("T")

log = structlog.get_logger("agent")


class App:
    """One agent: everything it is made of, and how it runs."""

    def __init__(
        self,
        config: Config,
        clock: Clock | None = None,
        *,
        in_force: InForce | None = None,
        pace: Pace | None = None,
        wiring: Wiring | None = None,
        heard: Heard = lambda _name, _took: None,
    ) -> None:
        """To be made on the loop that it will run on. `in_force` says why it is this config; without it, it
        is that of the file at the device. `heard` is told of every document of the fleet's that was taken."""
        self.config = config
        self.clock = clock or SystemClock()
        self.notifier = Notifier()
        self.restarting = False
        """Whether `run` has ended for another to begin."""
        here = in_force or InForce(config=config, base=config, course=Shelf(config.state).course())
        file = config.file
        self.position = Position(
            fresh=file.position.fresh,
            track_every=file.position.track_every,
            track_beyond=file.position.track_beyond,
        )
        config.state.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.keystore = Keystore.of(config.state)
        self.roster = Roster(
            config.state / "roster.db",
            Keys.none() if self.keystore.wiped else Keys.load(config.state / FOLDER),
            authority=Authority(ladder=file.identity.ladder()),
            limits=file.identity.limits(),
        )
        self.journal = Journal(
            config.state / JOURNAL,
            source=config.source,
            key=self.keystore.load("device").reveal(),
            on_trouble=self._journal_trouble,
        )
        # Nothing is dropped for a config that may not stay.
        limits = (config if here.course.trial is None else here.base).limits()
        self.upkeep = Upkeep(self.journal, limits, file.device.id, self.stamp)
        self.aging = Aging(self.journal, file.device.id, lambda: self.roster.authority, self.stamp)
        self.units = {spec.name: Unit(spec, self._deliver, wiring) for spec in config.units}
        self.uplink: Uplink | None = None
        self.rescue: Rescue | None = None
        self.performer = Performer(self.units, file.custody.tones, self.clock, self.report, self._undone)
        expected = {spec.name: spec.expect for spec in config.units if spec.expect}
        self.inventory = Inventory(expected)
        self.decider = Decider(
            self._desk(),
            Intake(self.roster, self.inventory, asks_cards=config.asks_cards),
            self.journal,
            self.performer,
            clock=self.clock,
            position=self.position,
            upkeep=self.upkeep,
            house=self,
        )
        self.timekeeper = Timekeeper(
            self.clock, self.journal, file.device.id, report=self.report, heed=self.decider.heed
        )
        self.kiosk = self._kiosk()
        self.provisioning = Provisioning(
            self.roster,
            self.inventory,
            self.journal,
            self.performer.later,
            modules=[name for name, unit in self.units.items() if unit.spec.role is Role.FINGER],
            house=self,
        )
        self.vault = Vault(
            self.keystore,
            self.roster,
            self.journal,
            config.switch,
            device=file.device.id,
            house=self,
        )
        self.changeover = Changeover(here, self.journal, self.units, house=self, pace=pace)
        self.mending = Mending(self.roster.rows, self.journal, device=file.device.id, stamp=self.stamp)
        self.liaison = Liaison(
            config.root,
            config.audience,
            lambda: [each.reveal() for each in self.keystore.seals()],
            roster=self.roster,
            journal=self.journal,
            units=self.units,
            clock=self.clock,
            provision=self.provisioning.arrived,
            mend=self.mending.mend,
            house=self,
        )
        self.renewal = Renewal(config, self.keystore, self.journal, house=self)
        self.caretaker = Caretaker(self.decider, self.journal, self.units, self)
        label = Label(file.device.tenant, file.device.id)
        self.ferry = Ferry(
            config.state,
            label,
            file.ferry.carry_mib,
            post=lambda: None if self.keystore.wiped else self.liaison.post,
            report=self.report,
        )
        self.exchanges = {
            name: Exchange(config.state, label, self.ferry, unit.order)
            for name, unit in self.units.items()
            if unit.spec.role is Role.FERRY
        }
        self._heard = heard
        self._stop = asyncio.Event()
        self.trouble: str | None = None
        """Why the journal cannot be written, while it cannot."""

    def _desk(self) -> Desk:
        """A locker's where the config has compartments, a courier's everywhere else."""
        config, rules = self.config, self.config.locker_rules()
        if rules is None:
            return CourierDesk(Workflow(config.rules()))
        audience = config.audience
        signer = Signer(Ed25519PrivateKey.from_private_bytes(self.keystore.load("device").reveal()))
        codes = Codes(self.roster.rows, audience, lambda: self.liaison.trusted, lambda: self.journal.records)
        office = KeyedOffice(lambda: self.roster.rows.keys, signer, audience, config.seal_key)
        return LockerDesk(
            LockerWorkflow(rules),
            codes,
            office,
            device=self.config.file.device.id,
            locked_down=self._locked_down,
        )

    def _kiosk(self) -> "Kiosk | None":
        """The page for the locker's own screen; what it takes to serve one is loaded only then."""
        section, rules, desk = self.config.file.kiosk, self.config.locker_rules(), self.decider.desk
        if section is None or rules is None or not isinstance(desk, LockerDesk):
            return None
        from agent.kiosk.kiosk import Kiosk

        kiosk = Kiosk(section, rules.wall, state=lambda: desk.state, clock=self.clock, deliver=self._deliver)
        self.performer.shows = kiosk.saw
        return kiosk

    def _locked_down(self, at: Moment) -> bool:
        """Whether nothing opens: the fleet says so, or this journal is an older copy of itself."""
        records = self.journal.records
        return emergency.in_force(records, at) or ROLLED_BACK in records

    # -- life -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until `stop`. Raises JournalFailed when the store has failed for good."""
        sys.setswitchinterval(0.001)  # The writer thread shall not wait 5 ms for the interpreter.
        server = self.config.server()
        self.rescue = await self._open_journal()
        self.journal.failed.add_done_callback(lambda _: self._stop.set())
        self._restore()
        await self.mending.resume()
        await self.vault.resume()
        if not self.keystore.wiped:
            await self.liaison.resume()
        self.uplink = Uplink(
            self.journal,
            server,
            self.config.topic,
            birth=lambda: {**about.birth(self), **self.liaison.asked()},
            report=self.report,
            fleet=self.config.fleet_keys,
            post=self.liaison.post,
            config=self.changeover.report,
            heard=self._heard,
            request=self.renewal.request,
        )
        try:
            async with control.serve(
                self.config.state / control.SOCKET,
                {
                    "status": lambda _: self.status(),
                    "ferry": lambda _: self.ferry.look(),
                    "config_revert": self.changeover.revert,
                    **self.vault.answers(),
                    **self.caretaker.answers(),
                },
            ):
                await self._run_tasks(self.uplink)
        except* JournalFailed as failed:
            log.critical(
                "journal failed", reason=str(self.journal.failed.result()), times=len(failed.exceptions)
            )
        finally:
            await self._end()
        if self.journal.failed.done():
            raise self.journal.failed.result()

    def stop(self) -> None:
        self._stop.set()

    def restart(self) -> None:
        """End in good order; whoever runs us starts anew, with the config that is then in force."""
        self.restarting = True
        self._stop.set()

    async def visit(self, work: Callable[[Self], Awaitable[T]]) -> T:
        """What a command does in this house while no agent runs: nothing is opened but the journal."""
        self.rescue = await self._open_journal()
        self._restore()
        try:
            await self.mending.resume()
            await self.vault.resume()
            return await work(self)
        finally:
            self.decider.finish()
            await self.journal.close()
            self.roster.close()

    async def _open_journal(self) -> Rescue | None:
        return await opened(self.journal, self.config.state / JOURNAL, self.keystore.load("device").reveal())

    async def _salvage(self, rescue: Rescue) -> None:
        try:
            await rescue.complete(self.journal, self.config.file.device.id, self.stamp)
        except Exception as error:
            self.fault("salvage", error)
            return
        if self.uplink is not None:
            self.uplink.announce()

    async def _run_tasks(self, uplink: Uplink) -> None:
        self._started()
        async with asyncio.TaskGroup() as group:
            start = group.create_task
            tasks = [
                start(self.decider.run(), name="decider"),
                start(self.performer.run(), name="performer"),
                start(self._supervised("uplink", uplink.run), name="uplink"),
                start(self._supervised("clock", self._follow_time), name="clock"),
                start(self._supervised("notary", self._sign), name="notary"),
                start(self._supervised("look over", self._look_over), name="look over"),
                start(self._supervised("upkeep", self.upkeep.run), name="upkeep"),
                start(self._supervised("config", self.changeover.run), name="config"),
                start(self._supervised("roster", self._keep_roster), name="roster"),
            ]
            if self.liaison.trusted is not None:
                tasks.append(start(self._supervised("renewal", self.renewal.run), name="renewal"))
                tasks.append(start(self._supervised("aging", self.aging.run), name="aging"))
            tasks.append(start(self._supervised("ferry", self.ferry.run), name="ferry"))
            tasks += [
                start(self._supervised(f"ferry {name}", exchange.run), name=f"ferry {name}")
                for name, exchange in self.exchanges.items()
            ]
            if (watch := self.vault.watch()) is not None:
                tasks.append(start(self._supervised("tamper", watch), name="tamper"))
            if self.kiosk is not None:
                tasks.append(start(self._supervised("kiosk", self.kiosk.run), name="kiosk"))
            if self.rescue is not None:
                tasks.append(start(self._salvage(self.rescue), name="salvage"))
            tasks += [
                start(self._supervised(unit.name, unit.run), name=f"unit {unit.name}")
                for unit in self.units.values()
            ]
            if self.notifier.watchdog_s:
                checks = (self.journal.alive, self.decider.alive)
                feeding = feed_watchdog(self.notifier, checks, self.notifier.watchdog_s / 3)
                tasks.append(start(feeding, name="watchdog"))
            self.notifier.send("READY=1", f"STATUS={len(self.units)} units, journal at {self.journal.last}")
            await self._stop.wait()
            if not self.restarting:
                # Told that we stop, systemd would end whoever comes after us in this process.
                self.notifier.send("STOPPING=1")
            for task in tasks:
                task.cancel()

    async def _end(self) -> None:
        """What was read is decided and remembered; what is remembered is sent next time."""
        with contextlib.suppress(TimeoutError, JournalFailed):
            async with asyncio.timeout(LAST_WORDS_S):
                self.decider.finish()
                self.upkeep.close()
                self.timekeeper.ride()
                await self.report(Draft("agent.stopped", self.config.file.device.id, {}, Lane.STATE))
        await self.journal.close()
        self.liaison.close()
        self.roster.close()

    async def _supervised(self, name: str, run: Callable[[], Awaitable[None]]) -> None:
        """Whatever goes wrong in there is recorded, and it starts again."""
        while True:
            try:
                await run()
            except Exception as error:
                self.fault(name, error)
                await asyncio.sleep(random.uniform(0.5, 1) * FAULT_PAUSE_S)

    def fault(self, part: str, error: Exception) -> None:
        """Record what went wrong inside of us."""
        log.error("fault", part=part, error=type(error).__name__, exc_info=error)
        self.report(Draft("agent.fault", part, {"error": type(error).__name__}, Lane.STATE))

    # -- remembering ------------------------------------------------------------------------------

    def report(self, draft: Draft) -> asyncio.Future[None]:
        """An entry that no workflow decides about."""
        now, position = self.stamp()
        return self.journal.append([draft], now, position)

    def stamp(self) -> tuple[Moment, Mapping[str, Any]]:
        """Time and place of an entry that is made now."""
        now = self.clock.now()
        return now, self.position.stamp(now)

    def _restore(self) -> None:
        """Take up the state where the last run left it."""
        self.decider.restore()
        self.timekeeper.restore()

    def _started(self) -> None:
        file = self.config.file
        if not self.journal.last:
            previous = self.rescue.previous() if self.rescue else None
            self.report(Draft("journal.opened", file.device.id, {"previous": previous}, Lane.STATE))
        self.upkeep.open()
        data = {
            "version": VERSION,
            "config": about.config_digest(self),
            "units": {unit.name: unit.spec.kind for unit in self.units.values()},
            "held": self.decider.desk.held,
            "roster_age_s": self.roster.age_s(self.clock.now()),
        }
        self.report(Draft("agent.started", file.device.id, data, Lane.STATE))
        log.info("started", device=file.device.id, units=len(self.units), entries=self.journal.last)
        self.decider.start()

    def _journal_trouble(self, trouble: str | None) -> None:
        """A full disk: nothing is acknowledged until there is room again."""
        self.trouble = trouble
        if self.kiosk is not None:
            self.kiosk.trouble(there=trouble is not None)
        if trouble:
            log.error("journal cannot write", reason=trouble)
            for unit in self.units.values():
                self.performer.order(Order(unit.name, Signal(tone=Tone.BAD)))
        else:
            log.info("journal writes again")
            self.report(Draft("journal.recovered", self.config.file.device.id, {}, Lane.STATE))

    # -- readings in ------------------------------------------------------------------------------

    async def _deliver(self, unit: Unit, reading: Reading) -> None:
        """From a unit's task. Positions pass the inbox by: the newest replaces the one before."""
        now = self.clock.now()
        if isinstance(reading, Fix):
            self._moved(unit, reading, now)
            return
        if isinstance(reading, PeerSaid):
            await self.exchanges[unit.name].heard(reading)
            return
        if isinstance(reading, InputChanged):
            self.vault.saw(unit.name, reading)
        self.liaison.saw(unit.name, reading)
        await self.decider.deliver(unit, reading, now)

    def dismiss(self, event: Dismissed) -> None:
        """End sessions and logins at once."""
        self.decider.decide_on(event)

    def heed(self) -> None:
        """The fleet's word has changed: who is revoked goes off duty, and the birth says what is held."""
        self.decider.heed()
        self.renewal.look()
        self.aging.look()
        self.announce()

    def wish(self, document: Document[Any]) -> None:
        self.changeover.wish(document)

    def confirm_config(self, version: int, sha256: str) -> str:
        return self.changeover.confirm(version, sha256)

    def resend(self, epoch: str | None, first: int, last: int) -> str:
        """The fleet lacks entries; why they will not be sent again, or nothing."""
        if epoch not in (None, self.journal.epoch):
            return "another_journal"
        return "not connected yet" if self.uplink is None else self.uplink.resend(first, last)

    def status(self) -> dict[str, Any]:
        return about.status(self)

    def diagnose(self, command: str, lines: int) -> Mapping[str, Any]:
        """Send up how this device is, to whoever commanded it; what is told of it."""
        made = about.diagnostics(self, command, lines)
        pairs = (("command", command), ("content-encoding", "gzip"))
        if self.uplink is not None:
            dispatch = Dispatch(name=TOPIC, payload=made.payload, content_type=JSON, properties=pairs)
            self.uplink.dispatch(dispatch)
        return made.told

    async def rotate_keys(self, keys: Sequence[str] | None, why: str) -> tuple[int, str]:
        return await self.renewal.rotate(keys, why)

    async def confirm_keys(self, request: int, chain: Sequence[str]) -> str:
        return await self.renewal.confirm(request, chain)

    def reseal(self) -> None:
        """The keys that pages may be sealed to are others now."""
        self.liaison.reseal()

    async def sealed_to(self, secret: bytes) -> bool:
        """Whether all that is in force came in pages sealed to this key."""
        return await self.liaison.sealed_to(secret)

    def connect_with(self, server: Server) -> None:
        """The broker, and how to be let in there, from the next connection on."""
        if self.uplink is not None:
            self.uplink.connect_with(server)

    def ask_again(self) -> None:
        """Have the broker bring once more what it has retained."""
        if self.uplink is not None:
            self.uplink.ask_again()

    def online(self) -> str | None:
        """Why the broker is not there; None while it is."""
        if self.uplink is None:
            return "not connected yet"
        return None if self.uplink.online else self.uplink.reason

    def well(self, unit: str) -> bool:
        """Whether a unit is ready, and the one that is meant."""
        return unit in self.units and about.condition(self, self.units[unit]) == about.READY

    def at_work(self) -> Sequence[str]:
        """What a restart would interrupt, in words; nothing of whom."""
        return self.decider.desk.at_work()

    def settled(self, config: Config) -> None:
        """The config may stay: so may what it says of the journal."""
        self.upkeep.limits = config.limits()

    def _undone(self, unit: str, done: ActionDone) -> bool:
        self.liaison.saw(unit, done)
        return self.provisioning.undone(unit, done) or self.decider.undone(unit, done)

    def fingers(self, unit: str, reading: Reading) -> None:
        """A fingerprint module has told something of itself."""
        self.provisioning.saw(unit, reading)

    def revoked(self) -> frozenset[str]:
        """References of everybody whom the fleet has revoked."""
        return self.liaison.revoked()

    def awaits_roster(self) -> bool:
        """Whether the fleet has a list of people that is not here."""
        return self.liaison.awaits(BUNDLE)

    def seek(self, values: Sequence[bytes]) -> None:
        """Have the pages brought once more that these templates came in."""
        self.liaison.seek(values)
        if values and self.uplink is not None:
            self.uplink.ask_for_pages()

    def lease(self, unit: str, door: int, told: Mapping[str, Any]) -> str | None:
        """Have a door opened at the fleet's word, where a workflow minds it."""
        return self.decider.lease(unit, door, told)

    def lease_many(self, wanted: OpenManyDoors, told: Mapping[str, Any], until_ns: int) -> str:
        """Have many doors opened at the fleet's word, once somebody in charge is there."""
        return self.decider.lease_many(wanted, told, until_ns)

    def keeps(self, command: str) -> bool:
        """Whether a command from before the start is still being seen to."""
        return self.decider.desk.keeps(command)

    def dropped(self, order: Order) -> None:
        """Whoever waits for the outcome of an order gets one."""
        self.liaison.saw(order.unit, ActionDone(action=order.action, ok=False, reason="not_pulsed"))

    def units_changed(self) -> None:
        """A unit has come or gone: the birth message says which are there."""
        self.announce()

    def announce(self) -> None:
        """Say anew what the birth message says."""
        # What has come or gone, is believed or was taken away may be a module, or whose finger is in it.
        self.provisioning.look()
        if self.uplink is not None:
            self.uplink.announce()

    def _moved(self, unit: Unit, fix: Fix, now: Moment) -> None:
        utc_ns = self.position.agreed_utc_ns(fix, now)
        if utc_ns is not None:
            self.timekeeper.fixed(utc_ns, now)
        if self.position.moved(fix, now) and self.upkeep.admits_position():
            data = {"unit": unit.name, "speed_mps": fix.speed_mps, "satellites": fix.satellites}
            self.report(Draft("position.tracked", self.config.file.device.id, data, Lane.TELEMETRY))

    def corrected(self, correction: Correction | None) -> None:
        self.timekeeper.corrected(correction)

    async def _follow_time(self) -> None:
        while True:
            self.timekeeper.look()
            if self.liaison.asks_again():
                self.announce()
            # Somebody's time may be up.
            self.provisioning.look()
            await asyncio.sleep(NTP_EVERY_S)

    async def _keep_roster(self) -> None:
        await self.mending.run(self.liaison.refill)

    async def _sign(self) -> None:
        while True:
            await asyncio.sleep(CHECKPOINT_EVERY_S)
            self.journal.checkpoint()

    async def _look_over(self) -> None:
        """All of the journal in turn: damage in its middle is found before somebody asks for it."""
        number = 0
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.journal.look_over(number)
            number = (number + 1) % (self.journal.last // TILE + 1)
