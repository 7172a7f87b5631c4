"""What is typed while something else goes on."""

import asyncio
import contextlib
import os
import sys
import termios
import tty
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def quits_on_q(quit_: Callable[[], object]) -> Iterator[None]:
    """Calls it when `q` is typed; the terminal is as before in the end."""
    keyboard = sys.stdin.fileno()
    if not os.isatty(keyboard):
        yield
        return
    loop, before = asyncio.get_running_loop(), termios.tcgetattr(keyboard)

    def typed() -> None:
        keys = os.read(keyboard, 64)
        if not keys:
            loop.remove_reader(keyboard)
        if not keys or b"q" in keys.lower():
            quit_()

    tty.setcbreak(keyboard)
    loop.add_reader(keyboard, typed)
    try:
        yield
    finally:
        loop.remove_reader(keyboard)
        termios.tcsetattr(keyboard, termios.TCSADRAIN, before)
