"""An agent that is killed in the middle of a trial: before the n-th system call of a kind in one life.

    python -m tests.killed_agent CONFIG PLAN

It is the real agent, except that time-outs are played at the plan's `Pace`. Each start, also that by execve,
is a life of its own; in the one that the plan names it starts itself anew under strace, which kills it as it
is about to make the call. Names and contents of files, what the journal has committed, what has gone to the
broker and which program runs are all that a kill leaves for anybody to find: what it leaves between two such
calls is what it leaves right before the second. That a sync came or not is for power cuts to show.
"""

import json
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Self

from agent import logs
from agent.changeover import Pace
from agent.run_command import run

TRACED = "POSTERN_TEST_TRACED_LIFE"
OPENS, WRITES, RENAMES, UNLINKS = FILES = ("openat", "write", "/^rename", "/^unlink")
COMMITS, SENDS, EXEC = "fdatasync", "sendto", "execve"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """When to die, and how fast time-outs pass."""

    life: int = 0
    """From 1; 0 is to live."""
    calls: str = EXEC
    """As strace names them."""
    paths: tuple[str, ...] = ()
    """Only calls about these count; without any, all do."""
    n: int = 1
    second: float = 0.04
    """Of a document's time-out, played in so many."""
    samples: int = 10

    def save(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Self:
        tree = json.loads(path.read_text())
        return cls(**{**tree, "paths": tuple(tree["paths"])})

    def before(self, program: list[str]) -> list[str]:
        """The program's command, to be killed as planned. The tracer looks no further than its next start."""
        paths = [argument for path in self.paths for argument in ("-P", path)]
        end = [] if self.calls == EXEC else ["-b", EXEC]
        dying = ["-e", f"trace={self.calls}", "-e", f"inject={self.calls}:signal=KILL:when={self.n}"]
        strace = shutil.which("strace") or "strace"
        return [strace, "-D", "-f", "-qq", "-o", "/dev/null", *end, *paths, *dying, *program]


def main(config: str, plan_path: str) -> int:
    path = Path(plan_path)
    plan = Plan.load(path)
    lives = path.with_suffix(".lives")
    life = int(lives.read_text()) if lives.exists() else 0
    if os.environ.get(TRACED) != str(life):
        life += 1
        lives.write_text(str(life))
        if life == plan.life:
            os.environ[TRACED] = str(life)
            command = plan.before([sys.executable, *sys.orig_argv[1:]])
            os.execv(command[0], command)
    logs.configure("info", "json")
    broker = Pace().broker * 30
    return run(Path(config), pace=Pace(second=plan.second, broker=broker, samples=plan.samples))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
