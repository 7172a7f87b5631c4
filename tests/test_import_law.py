"""Who may import whom, read from the syntax trees; and what starting the agent must not load."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = ("agent", "drivers", "simulators", "tests")
MAY = {
    "drivers": {"drivers"},
    "simulators": {"simulators"},
    "agent": {"agent", "drivers"},
}
EXCEPTED = {"simulators/demo.py": set(OURS) - {"tests"}}
"""The quickstart puts agent, devices and broker together."""
FLEET = "simulators/fleet/"
"""What is played there are the agents themselves: a copy of their logic would prove nothing about them. No
driver is: what is made up stands in a driver's place, and speaks in its words."""
WORDS = {"drivers.base", "drivers.port", "drivers.readings"}

MODULES = {
    "drivers/readings.py": set[str](),
    "drivers/port.py": set[str](),
    "drivers/checksums.py": set[str](),
    "drivers/base.py": {"drivers.readings"},
    "drivers/__init__.py": {"drivers.base"},
    "agent/__init__.py": set[str](),
    "agent/clock.py": set[str](),
    "agent/workflow.py": {"agent.clock", "drivers.readings"},
    "agent/freshness.py": set[str](),
    "agent/policy.py": {"agent.freshness"},
    "agent/standing.py": {"agent.clock", "agent.freshness"},
    "agent/stake.py": {"agent.clock"},
    "agent/asserting.py": {"agent.session", "agent.stake", "agent.workflow", "drivers.readings"},
    "agent/inventory.py": {"agent.templates", "agent.workflow"},
    "agent/templates.py": set[str](),
    "agent/session.py": {
        "agent.clock",
        "agent.freshness",
        "agent.policy",
        "agent.stake",
        "agent.standing",
        "agent.workflow",
        "drivers.readings",
    },
    "agent/supervision.py": {"agent.clock", "agent.session", "agent.workflow", "drivers.readings"},
    "agent/correction.py": {"agent", "agent.clock", "agent.past", "agent.workflow"},
    "agent/duty.py": {"agent.correction", "agent.session"},
    "agent/reply.py": {"agent.duty", "agent.workflow", "drivers.readings"},
    "agent/taking_back.py": {
        "agent",
        "agent.clock",
        "agent.correction",
        "agent.duty",
        "agent.reply",
        "agent.supervision",
        "agent.workflow",
        "drivers.readings",
    },
    "agent/lockout.py": {"agent.clock"},
    "agent/position.py": {"agent.clock", "drivers.readings"},
    "agent/strict_json.py": set[str](),
    "agent/jws.py": {"agent.strict_json"},
    "agent/envelope.py": {"agent.jws", "agent.strict_json"},
    "agent/documents.py": {"agent.envelope", "agent.jws"},
    "agent/admission.py": {"agent.clock", "agent.documents", "agent.envelope"},
    "agent/revoked.py": {"agent.documents", "agent.envelope"},
    "agent/trust.py": {
        "agent.admission",
        "agent.clock",
        "agent.documents",
        "agent.envelope",
        "agent.revoked",
    },
    "agent/signed_time.py": {"agent.clock", "agent.documents", "agent.envelope"},
    "agent/past.py": {"agent.clock"},
    "agent/budget.py": {"agent.clock", "agent.envelope", "agent.past"},
    "agent/emergency.py": {"agent.clock", "agent.past"},
    "agent/commands.py": {
        "agent.admission",
        "agent.budget",
        "agent.clock",
        "agent.documents",
        "agent.emergency",
        "agent.envelope",
        "agent.receipts",
        "agent.signed_time",
    },
    "agent/kiosk/view.py": {
        "agent.clock",
        "agent.locker.compartments",
        "agent.locker.doors",
        "agent.locker.turn",
        "agent.workflow",
    },
    "agent/table.py": {"agent.duty", "agent.stake", "agent.workflow", "drivers.readings"},
    "agent/custody.py": {
        "agent",
        "agent.asserting",
        "agent.clock",
        "agent.correction",
        "agent.duty",
        "agent.freshness",
        "agent.policy",
        "agent.reply",
        "agent.session",
        "agent.standing",
        "agent.supervision",
        "agent.table",
        "agent.taking_back",
        "agent.workflow",
        "drivers.readings",
    },
}
"""What the quiet rooms may import of ours, and no more."""

LATER = (
    "biip",
    "pynmeagps",
    "fido2",
    "h11",
    "segno",
    "agent.kiosk.kiosk",
    "simulators",
    "drivers.nmea",
    "drivers.r503",
    "drivers.pn532",
    "hypothesis",
    "pytest",
)
"""Loaded where the config asks for them or in tests: never by every agent."""

FILES = sorted(str(path.relative_to(ROOT)) for room in MAY for path in (ROOT / room).rglob("*.py"))


def imported(file: str) -> set[str]:
    """Our own modules among the names that a file imports."""
    return {name for name in names(file) if name.split(".")[0] in OURS}


def names(file: str) -> set[str]:
    """Full names of all modules that a file imports, wherever in it."""
    package = Path(file).parent.parts
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / file).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join((*base, *(node.module or "").split("."))).strip(".")
            whole = {f"{name}.{alias.name}" for alias in node.names}
            modules = {each for each in whole if is_module(each)}
            found.update(modules or {name})
    return found


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def test_there_is_something_to_look_at() -> None:
    assert len(FILES) > 30
    assert "drivers.readings" in imported("drivers/base.py")
    assert "agent.control" in imported("agent/app.py"), "`from agent import control` is seen too"


@pytest.mark.parametrize("file", FILES)
def test_a_room_imports_only_the_rooms_it_may(file: str) -> None:
    allowed = EXCEPTED.get(file, MAY[file.split("/")[0]])
    if file.startswith(FLEET):
        allowed = {"agent", "drivers", "simulators"}
    assert {name.split(".")[0] for name in imported(file)} <= allowed


@pytest.mark.parametrize("file", sorted(MODULES))
def test_a_quiet_room_imports_no_more_than_it_says(file: str) -> None:
    assert imported(file) <= MODULES[file]


@pytest.mark.parametrize("file", [file for file in FILES if file.startswith("simulators/")])
def test_a_simulator_is_written_from_the_manual_and_not_from_the_driver(file: str) -> None:
    assert {name for name in imported(file) if name.startswith("drivers")} <= (
        WORDS if file.startswith(FLEET) else set()
    )


def test_only_app_and_commands_know_the_app() -> None:
    """And what the app says of itself, which would have to be told of every room otherwise."""
    knows = {file for file in FILES if "agent.app" in imported(file)}
    commands = {file for file in FILES if file.startswith("agent/") and file.endswith("_command.py")}
    apart = {"agent/cli.py", "agent/__main__.py", "agent/about.py", f"{FLEET}host.py"}
    assert knows <= {*apart, *commands}


@pytest.mark.parametrize(
    "file", [file for file in FILES if not file.startswith(("simulators/", "agent/fleet/", "agent/audit/"))]
)
def test_what_is_for_people_at_a_terminal_stays_off_the_device(file: str) -> None:
    assert "rich" not in {name.split(".")[0] for name in names(file)}


def test_starting_the_agent_loads_nothing_that_the_config_did_not_ask_for() -> None:
    """A device pays in memory for what it has, not for what others may have."""
    program = f"import sys, agent.app; print([name for name in {LATER!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True, timeout=50
    )
    assert done.stdout.strip() == "[]"
