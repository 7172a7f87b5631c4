"""What happens at a locker, beside what happens at every device: doors, codes, and people in charge."""

from dataclasses import dataclass

from agent.clock import Moment
from agent.locker.grants import Grant, Refusal, Way
from agent.locker.rounds import Round


@dataclass(frozen=True, slots=True, kw_only=True)
class DoorSeen:
    """A sensor of a compartment's door says something new. What is None was not told."""

    at: Moment
    compartment: str
    latched: bool | None = None
    closed: bool | None = None
    occupied: bool | None = None
    first: bool = False
    """How it was found, not a change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoardLost:
    """The lock board of these compartments is away."""

    at: Moment
    compartments: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PulseEnded:
    """A lock board has said what became of a pulse, or never will."""

    at: Moment
    compartment: str
    ok: bool
    unknown: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantShown:
    """Somebody showed a code at the locker. Exactly one of `grant` and `refusal` is there."""

    at: Moment
    unit: str
    way: Way
    grant: Grant | None = None
    refusal: Refusal | None = None
    selector: str | None = None
    """Digest of the selector that a PIN was typed with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseGiven:
    """The fleet has a door opened. Signature, budget and operator have been checked and remembered."""

    at: Moment
    compartment: str
    command: str
    """Id of the command."""
    by: str
    operator: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundOrdered:
    """The fleet has many doors opened. Both signatures and the operator have been checked and remembered."""

    at: Moment
    round: Round


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceAsked:
    """Somebody at the device's own command line sees to a compartment."""

    at: Moment
    verb: str
    """`quarantine` or `release`."""
    compartment: str
    reason: str


LockerEvent = DoorSeen | BoardLost | PulseEnded | GrantShown | LeaseGiven | RoundOrdered | ServiceAsked
