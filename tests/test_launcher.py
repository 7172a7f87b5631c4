"""The launcher, run for real in small checkouts of its own whose locks name no package: no downloads."""

import ast
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.mosquitto import BrokerFailed, Mosquitto, listens

ROOT = Path(__file__).resolve().parent.parent
LAUNCHER = ROOT / "postern"
LOCKS = ("requirements.lock", "requirements-dev.lock")
ECHO = "import os, sys; print('agent', *sys.argv[1:], 'in', os.getcwd())\n"


class Checkout:
    """As much of a checkout as the launcher looks at."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.stamp = root / ".venv" / "postern.stamp"
        for package, module, text in (
            ("agent", "__main__", ECHO),
            ("tests", "bench", "print('bench')\n"),
            ("tests", "mosquitto", ""),
        ):
            (root / package).mkdir(parents=True, exist_ok=True)
            (root / package / "__init__.py").touch()
            (root / package / f"{module}.py").write_text(text)
        for lock in LOCKS:
            (root / lock).write_text("# nothing\n")
        shutil.copy(LAUNCHER, root)

    def begin(self, *arguments: str, cwd: Path | None = None) -> subprocess.Popen[str]:
        """In a bare environment: a launcher must not live off its developer's."""
        return subprocess.Popen(
            [sys.executable, str(self.root / "postern"), *arguments],
            cwd=cwd or self.root,
            env={"HOME": str(self.root), "PATH": "/usr/bin:/bin"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: str, cwd: Path | None = None) -> tuple[int, str, str]:
        process = self.begin(*arguments, cwd=cwd)
        said, complained = process.communicate()
        return process.returncode, said, complained

    def site_packages(self) -> Path:
        (found,) = (self.root / ".venv" / "lib").glob("python3.*/site-packages")
        return found


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    checkout = Checkout(tmp_path_factory.mktemp("prepared"))
    code, _, complained = checkout.run("demo")
    assert code == 0, complained
    return checkout


@pytest.fixture
def fresh(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "checkout")


def test_the_launcher_is_executable() -> None:
    assert os.access(LAUNCHER, os.X_OK)


def test_the_launcher_needs_the_standard_library_alone() -> None:
    tree = ast.parse(LAUNCHER.read_text())
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names


@pytest.mark.parametrize("version", [(3, 9), (3, 10), (3, 14), (4, 0)])
def test_a_python_that_will_not_do_is_named_with_those_that_would(version: tuple[int, int]) -> None:
    why = runpy.run_path(str(LAUNCHER))["unsuitable"](version)
    assert "needs Python 3.11 to 3.13" in why
    assert f"is {version[0]}.{version[1]}." in why


def test_launcher_and_project_agree_on_the_python() -> None:
    launcher = runpy.run_path(str(LAUNCHER))
    (oldest, newest) = launcher["OLDEST"], launcher["NEWEST"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["requires-python"] == f">={oldest[0]}.{oldest[1]},<{newest[0]}.{newest[1] + 1}"


def test_an_older_python_can_read_the_launcher() -> None:
    ast.parse(LAUNCHER.read_text(), feature_version=(3, 8))


def test_the_command_gets_its_arguments_and_the_folder_it_was_called_from(
    prepared: Checkout, tmp_path: Path
) -> None:
    code, said, complained = prepared.run("run", "--config", "a b", cwd=tmp_path)
    assert (code, said, complained) == (0, f"agent run --config a b in {tmp_path}\n", "")


def test_a_folder_with_our_names_in_it_shadows_nothing(prepared: Checkout, tmp_path: Path) -> None:
    (tmp_path / "agent").mkdir()
    (tmp_path / "agent" / "__main__.py").write_text("print('shadow')\n")
    assert prepared.run("demo", cwd=tmp_path)[1].startswith("agent demo")


def test_help_names_the_launchers_commands_and_then_the_agents(prepared: Checkout) -> None:
    code, said, _ = prepared.run("--help")
    assert code == 0
    assert said.index("./postern test") < said.index("./postern bench") < said.index("agent --help in ")


def test_a_second_run_installs_nothing(prepared: Checkout) -> None:
    before = prepared.stamp.stat()
    pip = prepared.site_packages() / "pip"
    pip.rename(pip.with_suffix(".away"))
    try:
        code, _, complained = prepared.run("demo")
    finally:
        pip.with_suffix(".away").rename(pip)
    assert (code, complained) == (0, "")
    after = prepared.stamp.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_first_run_that_failed_is_begun_again(fresh: Checkout) -> None:
    (fresh.root / "requirements.lock").write_text("pyserial==3.5\n")
    code, _, complained = fresh.run("demo")
    assert code == 1
    assert "hash" in complained.lower()
    assert not fresh.stamp.exists()

    left_behind = fresh.site_packages() / "half.py"
    left_behind.touch()
    (fresh.root / "requirements.lock").write_text("# nothing\n")
    code, said, _ = fresh.run("demo")
    assert (code, said) == (0, f"agent demo in {fresh.root}\n")
    assert not left_behind.exists()


def test_a_first_run_that_was_killed_is_begun_again(fresh: Checkout) -> None:
    killed = fresh.begin("demo")
    assert killed.stderr is not None
    assert "installing" in killed.stderr.readline()
    killed.kill()
    killed.communicate()
    assert not fresh.stamp.exists()
    assert fresh.run("demo")[:2] == (0, f"agent demo in {fresh.root}\n")


def test_of_two_first_runs_at_once_one_installs_and_both_run(fresh: Checkout) -> None:
    both = [fresh.begin("demo"), fresh.begin("demo")]
    ends = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [said for said, _ in ends] == [f"agent demo in {fresh.root}\n"] * 2
    assert "".join(complained for _, complained in ends).count("installing") == 1


def test_tools_for_developers_are_added_only_when_they_are_asked_for(fresh: Checkout) -> None:
    assert "requirements.lock" in fresh.run("demo")[2]
    kept = fresh.site_packages() / "kept.py"
    kept.touch()
    code, said, complained = fresh.run("bench")
    assert (code, said) == (0, "bench\n")
    assert "requirements-dev.lock" in complained
    assert kept.exists()
    assert fresh.run("demo")[2] == ""


def test_a_changed_lock_makes_the_environment_anew(fresh: Checkout) -> None:
    fresh.run("demo")
    stale = fresh.site_packages() / "stale.py"
    stale.touch()
    (fresh.root / "requirements.lock").write_text("# changed\n")
    assert fresh.run("demo")[0] == 0
    assert not stale.exists()


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_package_is_pinned_and_hashed(lock: str) -> None:
    text = re.sub(r"#.*", "", (ROOT / lock).read_text()).replace("\\\n", " ")
    requirements = [line for line in text.splitlines() if line.strip()]
    assert requirements
    for requirement in requirements:
        assert re.match(r"^[a-z0-9-]+==\S+ ", requirement), requirement
        assert re.search(r"--hash=sha256:[0-9a-f]{64}\b", requirement), requirement


@pytest.mark.parametrize("lock", LOCKS)
def test_no_lock_names_a_host_or_a_place(lock: str) -> None:
    assert not re.search(r"://|--index-url|--find-links|--trusted-host| @ ", (ROOT / lock).read_text())


def pins(lock: str) -> set[str]:
    return set(re.findall(r"^[a-z0-9-]+==[^\s;]+", (ROOT / lock).read_text(), re.MULTILINE))


def test_the_developers_lock_holds_the_runtime_lock() -> None:
    assert pins("requirements.lock") < pins("requirements-dev.lock")


def test_every_runtime_dependency_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["fleet"]
    locked = {pin.partition("==")[0] for pin in pins("requirements.lock")}
    assert {re.split(r"[<>=\[; ]", each)[0] for each in wanted} <= locked


@pytest.mark.broker
def test_a_stopped_broker_comes_back_on_its_port(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker:
        first, port = broker.pid, broker.port
        broker.restart(kill=True)
        assert broker.pid != first
        assert listens(broker.pid, port)
        assert broker.log_text().count(" running") == 2


@pytest.mark.broker
def test_a_broker_whose_port_is_taken_is_refused(tmp_path: Path) -> None:
    with Mosquitto(tmp_path) as broker, pytest.raises(BrokerFailed, match="Address already in use"):
        Mosquitto(tmp_path, port=broker.port).start()
