"""How a device and its alarms are shown: a cell for each heading. No I/O."""

from collections.abc import Sequence

from agent.fleet.alarms import Alarm
from agent.fleet.sight import Sight, Watch, seconds
from agent.fleet.table import printable

WIDE = 100
"""Columns from which on there is room for everything."""
NARROW = ("DEVICE", "STATE", "VERSION", "CONFIG", "BUNDLES", "HEAD", "LAG", "FIX", "ALARM")
ALL = (
    "DEVICE",
    "STATE",
    "VERSION",
    "CONFIG",
    "BUNDLES",
    "HEAD",
    "SIGNED",
    "LAG",
    "OLDEST",
    "FIX",
    "UNITS",
    "CERT",
    "ALARM",
)

_SHORT = {"bundle/roster": "r", "bundle/grants": "g", "bundle/manifest": "m"}


def ago(then: float | None, now: float) -> str:
    """`42s`, `12m`, `3h`, `5d`; a dash where nobody knows."""
    if then is None:
        return "-"
    passed = max(0, int(now - then))
    for unit, size in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if passed >= 2 * size:
            return f"{passed // size}{unit}"
    return f"{passed}s"


def left(then: float | None, now: float) -> str:
    """As long as it is still to come; `over` once it has been."""
    if then is None:
        return "-"
    return ago(now, then) if then > now else "over"


def row(sight: Sight, now: float) -> dict[str, str]:
    """By heading."""
    cells = {
        "DEVICE": sight.device,
        "STATE": sight.state,
        "VERSION": str(sight.birth.get("version") or "-"),
        "CONFIG": _config(sight),
        "BUNDLES": _bundles(sight),
        "HEAD": _head(sight, now),
        "SIGNED": str(sight.signed),
        "LAG": "-" if sight.backlog is None else str(sight.backlog),
        "OLDEST": ago(sight.waiting, now) if sight.backlog else "-",
        "FIX": ago(sight.fix and sight.fix[2], now),
        "UNITS": _units(sight),
        "CERT": left(sight.certificate_until, now),
        "ALARM": _alarm(sight),
    }
    return {name: printable(cell) for name, cell in cells.items()}


def shown(watch: Watch, most: int) -> list[Sight]:
    """By name; where there is no room for all, those first that need somebody to look."""
    known = [sight for _, sight in sorted(watch.devices.items())]
    if len(known) > most:
        known.sort(key=lambda each: (not each.open_alarms, each.state == "online"))
    return known[:most]


def summary(watch: Watch) -> str:
    """`12 devices: 9 online, 3 offline; 4 alarms open`."""
    states = [sight.state for sight in watch.devices.values()]
    counted = ", ".join(f"{states.count(each)} {each}" for each in sorted(set(states), reverse=True))
    alarms = sum(len(sight.open_alarms) for sight in watch.devices.values())
    known = f"{len(states)} device{'s' * (len(states) != 1)}" + (f": {counted}" if states else "")
    return f"{known}; {alarms} alarm{'s' * (alarms != 1)} open"


def alarm_line(alarm: Alarm, now: float) -> tuple[str, ...]:
    """When, where, what, and about what."""
    about = "" if alarm.subject == alarm.device else alarm.subject
    over = "over: " if alarm.over else ""
    cells = (ago(seconds(alarm.at), now), alarm.device, over + alarm.text, about)
    return tuple(printable(cell) for cell in cells)


def headings(width: int) -> Sequence[str]:
    return ALL if width >= WIDE else NARROW


def _alarm(sight: Sight) -> str:
    """The newest that is open, after how many there are."""
    known = sight.open_alarms
    if not known:
        return ""
    return known[-1].text if len(known) == 1 else f"{len(known)}: {known[-1].text}"


def _config(sight: Sight) -> str:
    """The version that it reports, and what became of it unless it is kept."""
    if not sight.config:
        return "-"
    version, state = sight.config.get("version"), sight.config.get("state")
    told = "-" if version is None else str(version)
    return told if state in ("confirmed", None) else f"{told} {state}"


def _bundles(sight: Sight) -> str:
    """`r3 g1 m7`; dots while something of it is still to come."""
    facts = sight.facts()
    found = [
        f"{short}{facts['documents'][name]}" for name, short in _SHORT.items() if name in facts["documents"]
    ]
    return (" ".join(found) or "-") + ("..." if facts["complete"] is False else "")


def _head(sight: Sight, now: float) -> str:
    """The age of what it knows; the version it holds where the broker offers another."""
    facts = sight.facts()
    held, offered = facts["head"], facts["head_offered"]
    if held is None:
        return "none" if offered is not None else "-"
    if sight.knowledge_at is not None:
        return ago(sight.knowledge_at, now)
    return f"v{held}<{offered}" if offered is not None else f"v{held}"


def _units(sight: Sight) -> str:
    """How many of its units are ready."""
    states = list(sight.facts()["units"].values())
    return f"{states.count('ready')}/{len(states)}" if states else "-"
