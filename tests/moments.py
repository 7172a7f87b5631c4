"""Time as tests play it."""

from agent.clock import NS, Moment, Trust

NOON_NS = 1_795_521_600 * NS
"""2026-11-24T12:00:00Z"""


def moment(seconds: float, boot: str = "boot-1", trust: Trust = Trust.NTP) -> Moment:
    """So many seconds after boot, which was at noon."""
    mono_ns = round(seconds * NS)
    return Moment(boot, mono_ns, NOON_NS + mono_ns, trust, 0.1)
