"""Waits for a moment in which nobody is at work: a restart takes a second or two, in which nothing is heard.

A door that is jammed open would keep a device from ever being mended, so no wait is without an end.
"""

import asyncio
from collections.abc import Callable, Sequence

LOOK_S = 0.2
LONGEST_S = 600.0
"""For a trial to begin, or its own time-out where that is shorter."""
LONGEST_BACK_S = 20.0
"""For a trial that is over: less than what a process that hangs is given."""


async def lull(
    at_work: Callable[[], Sequence[str]], within: float, enough: Callable[[], bool] = lambda: False
) -> Sequence[str]:
    """Until nobody is at work, `enough` says that it need be waited no longer, or so many seconds are over.

    Who is at work then: nobody, in the first case.
    """
    clock = asyncio.get_running_loop().time
    until = clock() + within
    # Who is at work follows from the state of a workflow, which tells nobody when it changes.
    while (busy := at_work()) and clock() < until and not enough():  # noqa: ASYNC110
        await asyncio.sleep(min(LOOK_S, within))
    return busy
