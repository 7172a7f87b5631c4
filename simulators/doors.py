"""Compartment doors with electric locks, and the hands of whoever stands before them.

A pulse draws the hook back and the spring lets the door stand open by a finger's breadth. The hook stays
back until the door is slammed. Everything a board can tell about a door is here; which of it a board does
tell, and which way round, is the board's.
"""

import time
from dataclasses import dataclass, field


@dataclass
class Door:
    """One compartment."""

    hooked: bool = True
    """The lock's hook holds."""
    shut: bool = True
    """The door is in its frame."""
    occupied: bool = False
    energised: bool = False
    """The solenoid is fed."""
    stuck: bool = False
    """The hook does not come back, whatever the solenoid does."""
    fed: list[float] = field(default_factory=list)
    """When the solenoid began to be fed, with effect or without: seconds of the monotonic clock."""

    @property
    def pulses(self) -> int:
        """How often the solenoid was fed."""
        return len(self.fed)

    # -- the board --------------------------------------------------------------------------------

    def energise(self) -> None:
        if not self.energised:
            self.fed.append(time.monotonic())
        self.energised = True
        if not self.stuck:
            self.hooked = False
            self.shut = False

    def release(self) -> None:
        self.energised = False

    def pulse(self) -> None:
        """A whole pulse, as boards that time it themselves give it."""
        self.energise()
        self.release()

    # -- hands ------------------------------------------------------------------------------------

    def open(self) -> bool:
        """Pull at the door; False if it holds."""
        if not self.hooked:
            self.shut = False
        return not self.shut

    def close(self) -> None:
        """Lean the door to, without the click: shut, and not locked."""
        self.shut = True

    def slam(self) -> None:
        self.shut = True
        self.hooked = not self.energised

    def force(self) -> None:
        """With a crowbar."""
        self.hooked = self.shut = False

    def jam(self) -> None:
        self.stuck = True

    def put(self) -> None:
        self.occupied = True

    def take(self) -> None:
        self.occupied = False
