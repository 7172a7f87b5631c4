"""What no config from afar may change: whom this device believes, how it is wiped, what it asks of people.

The bounds of single settings (lockout, staleness, pulses) are in their models and hold for every config.
These compare two: whoever can sign a config must not thereby become somebody who can sign anything, listen
in, or shut out the operator at the device. At the device itself all of it can be changed.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from agent.config import Config
from agent.mistakes import Mistake, shown

OWN = ("device", "trust", "tamper")
"""Tables that only the file at the device has: a config from afar leaves them out, or says the same."""


def completed(tree: Mapping[str, Any], here: Config) -> dict[str, Any]:
    """A config from afar with what only the file at the device says, where it is silent about it."""
    own = here.file.model_dump(include=set(OWN), exclude_none=True)
    whole: dict[str, Any] = {**own, **tree}
    fleet = whole.get("fleet", {})
    if here.file.fleet.keys and isinstance(fleet, dict):
        whole["fleet"] = {"keys": list(here.file.fleet.keys), **fleet}
    return whole


def loosened(here: Config, after: Config) -> Iterable[Mistake]:
    """What `after` would change that may only be changed at the device. `here` is what is in force."""
    for table in OWN:
        yield from _same(table, getattr(here.file, table), getattr(after.file, table))
    if after.file.broker.plain and not here.file.broker.plain:
        yield Mistake("broker.plain", "false: TLS is not turned off from afar", "true")
    ca, wanted = here.tls().ca, after.tls().ca
    if not after.file.broker.plain and ca is not None and ca != wanted:
        yield Mistake("broker.tls.ca", f"{ca}, as it is at the device", wanted or "nothing")
    if here.file.custody.attended and not after.file.custody.attended:
        yield Mistake("custody.attended", "true: nobody's proof is waived from afar", "false")
    yield from _receipts(here.file.fleet.keys, after.file.fleet.keys)


def _same(table: str, here: Any, after: Any) -> Iterable[Mistake]:
    if here == after:
        return
    if here is None or after is None:
        yield Mistake(
            table, "a table" if after is None else "nothing", "nothing" if after is None else "a table"
        )
        return
    for name, value in here.model_dump().items():
        if (found := getattr(after, name)) != value:
            path = f"{table}.{name}"
            yield Mistake(path, f"{shown(path, value)}, as it is at the device", shown(path, found))


def _receipts(here: list[str], after: list[str]) -> Iterable[Mistake]:
    """Entries are dropped on a receipt: who gives them is not settled by whoever signs configs."""
    more = set(after) - set(here)
    if more:
        yield Mistake("fleet.keys", "keys that are believed at the device", shown("keys", min(more)))
    if here and not after:
        yield Mistake("fleet.keys", "at least one of the keys that are believed at the device", "none")
