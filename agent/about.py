"""What an agent says of itself: the birth message, and `postern status`. Nothing secret, nothing personal."""

from hashlib import sha256
from typing import TYPE_CHECKING, Any

from agent import VERSION
from agent.diagnostics import Bundle, bundle, machine
from agent.logs import recent
from agent.receipts import ROLLED_BACK
from agent.units import Unit

if TYPE_CHECKING:
    from agent.app import App

READY = "ready"


def birth(app: "App") -> dict[str, Any]:
    """What the fleet is told at every connection, and when it changes."""
    units = {
        unit.name: {"kind": unit.spec.kind, "role": unit.spec.role, "state": condition(app, unit)}
        for unit in app.units.values()
    }
    return {
        "online": True,
        "device": app.config.file.device.id,
        "version": VERSION,
        "epoch": app.journal.epoch,
        "key": app.journal.notary.verifier.text if app.journal.notary else None,
        "units": units,
        "config": app.changeover.brief(),
        "certificate": app.renewal.status(),
        **app.vault.status(),
        **app.liaison.birth(),
    }


def status(app: "App") -> dict[str, Any]:
    """What whoever is at the device may know on top."""
    desk, now = app.decider.desk, app.clock.now()
    session = desk.duty.session
    return {
        **birth(app),
        "journal": _journal(app),
        "uplink": _uplink(app),
        "session": session and {"driver": session.driver, "held": desk.held},
        "knowledge": {
            "age_s": app.roster.age_s(now),
            "freshness": app.roster.authority.standing(now).freshness,
            "rows_until": app.roster.listed_until(),
        },
        "fleet": app.liaison.report(),
        "config": app.changeover.status(),
        "on_board": app.ferry.on_board(),
        "templates": app.provisioning.status(),
        **desk.told(),
        **({"kiosk": app.kiosk.status()} if app.kiosk else {}),
        "position": dict(app.position.stamp(now)),
        "clock": {"trust": now.trust, "error_s": now.error_s},
    }


def diagnostics(app: "App", command: str, lines: int) -> Bundle:
    """What somebody far away needs to see, with so many lines of the log at most."""
    log = recent()
    here = machine(app.config.state, config_digest(app))
    return bundle(app.config.file.device.id, command, status(app), here, log[max(0, len(log) - lines) :])


def config_digest(app: "App") -> str:
    """Tells one config from another."""
    return sha256(app.config.file.model_dump_json().encode()).hexdigest()


def condition(app: "App", unit: Unit) -> str:
    """Whether a unit is ready and the one that is meant, or why not."""
    if unit.lost is not None:
        return unit.lost.reason
    return "doubted" if app.inventory.doubts(unit.name) else READY


def _journal(app: "App") -> dict[str, Any]:
    journal = app.journal
    return {
        "last": journal.last,
        "epoch": journal.epoch,
        "trouble": app.trouble,
        "used": journal.used,
        "level": app.upkeep.level.name.lower(),
        "rolled_back": journal.records.get(ROLLED_BACK),
    }


def _uplink(app: "App") -> dict[str, Any] | None:
    uplink = app.uplink
    if uplink is None:
        return None
    return {
        "online": uplink.online,
        "reason": uplink.reason,
        "backlog": uplink.backlog,
        "lanes": uplink.lanes,
    }
