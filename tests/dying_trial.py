"""A whole trial on the shelf of a device, killed before its n-th change to a file. A program of its own.

    python -m tests.dying_trial STATE TEXT N

Exit code 0 where there were fewer changes than that; SIGKILL ends it otherwise.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

from agent.config import parse
from agent.shelf import Shelf, take_up
from agent.trial import Edition

BOOT, UNTIL = "boot-1", 600
CHANGES = ("os.rename", "os.remove")


def dies_at(number: int, folder: str) -> None:
    """Files that are written, renamed and removed below the folder are counted."""
    left = number

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal left
        written = event == "open" and isinstance(arguments[2], int) and arguments[2] & os.O_WRONLY
        if (written or event in CHANGES) and str(arguments[0]).startswith(folder):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def main(file: str, wished: str, number: int) -> None:
    base = parse(Path(file).read_text(), file)
    text = Path(wished).read_text()
    shelf = Shelf(base.state)
    dies_at(number, str(base.state))
    made = Edition(version=7, sha256="7" * 64, text=shelf.keep(text))
    shelf.save(shelf.course().begun(made, boot=BOOT, until_ns=UNTIL, required=()))
    course = take_up(base, BOOT, 1).course
    shelf.save(course.kept())
    shelf.save(shelf.course().told())


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
