"""What the config says about the kiosk.

[kiosk]
port = 8480
language = "de"
"""

from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from agent.mistakes import STRICT, Mistake

UNIT = "kiosk"
"""What entries call the page: the unit that something was typed at."""


class KioskSection(BaseModel):
    """A page for the locker's own screen."""

    model_config = STRICT

    port: Annotated[int, Field(ge=1024, le=65_535)] = 8480
    """Of this machine's loopback address; nothing is heard on any other."""
    language: Literal["en", "de", "fr", "es"] = "en"
    """What the screen returns to when nobody is there."""


def meaning(*, locker: bool, units: Iterable[str]) -> Iterable[Mistake]:
    """What no schema can tell."""
    if not locker:
        yield Mistake("kiosk", "a [locker] to be the screen of", "none")
    if UNIT in units:
        yield Mistake(f"unit.{UNIT}", "a name that the kiosk's page does not go by", repr(UNIT))
