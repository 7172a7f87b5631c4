"""A config as the fleet wishes it: the body of a `config` document, and whether it could be used here.

Pure but for looking at which files and ports exist: nothing is opened, and nothing in force is touched. What
is wrong is told as for the file at the device: the path, what was expected there, and what was found.
"""

import os
import re
import stat
from collections.abc import Iterable, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, Field, StringConstraints

from agent import VERSION
from agent.bounds import completed, loosened
from agent.config import Config, check, tree_of
from agent.config_file import UNIT_NAME
from agent.explain import readable
from agent.mistakes import STRICT, BadConfig, Mistake, shown, validate

MAJOR = 1
SCHEMA = f"{MAJOR}.0"
TIMEOUT_S, LEAST_TIMEOUT_S, MOST_TIMEOUT_S = 600, 120, 3600
"""Within which a trial must be confirmed, where the document says nothing; and its bounds."""

Version = Annotated[str, StringConstraints(pattern=r"^\d{1,6}(\.\d{1,6}){0,2}$")]


class Gates(BaseModel):
    """What must be well before a config is kept, beside the connection and the journal."""

    model_config = STRICT

    units: list[Annotated[str, StringConstraints(pattern=UNIT_NAME)]] | None = None
    """Units that must be ready; without it all but those that were absent before, on the same port."""


class Desired(BaseModel):
    """The body of a `config` document."""

    model_config = STRICT

    schema_: Annotated[str, Field(alias="schema", pattern=r"^\d{1,3}\.\d{1,3}$")]
    toml: Annotated[list[str], Field(max_length=8192)]
    """The lines of the whole file: strings in documents are short."""
    min_agent: Version = "0"
    confirm_timeout: Annotated[int, Field(ge=LEAST_TIMEOUT_S, le=MOST_TIMEOUT_S)] = TIMEOUT_S
    """Seconds."""
    gates: Gates = Gates()
    dry_run: bool = False
    """Only say what would change."""

    @property
    def text(self) -> str:
        return "\n".join(self.toml)


def read(body: Mapping[str, Any], origin: str) -> Desired:
    """The body of a document that is trusted. Raises BadConfig."""
    given = body.get("schema")
    if isinstance(given, str) and re.match(r"\d+\.", given) and int(given.partition(".")[0][:4]) != MAJOR:
        raise BadConfig(origin, [Mistake("schema", f"{MAJOR}.x", shown("schema", given))])
    mistakes: list[Mistake] = []
    desired = validate(Desired, body, (), mistakes)
    if desired is None:
        raise BadConfig(origin, mistakes)
    if _numbers(desired.min_agent) > _numbers(VERSION):
        raise BadConfig(origin, [Mistake("min_agent", f"at most {VERSION}", desired.min_agent)])
    return desired


def candidate(text: str, here: Config, origin: str) -> Config:
    """The config in a text from afar: schema, meaning, and what it may not change. Raises BadConfig."""
    config = check(completed(tree_of(text, origin), here), origin)
    mistakes = list(loosened(here, config))
    if mistakes:
        raise BadConfig(origin, mistakes)
    return config


def fitting(config: Config, here: Config, gates: Gates) -> None:
    """Whether a candidate can be used as this device is now. Raises BadConfig."""
    mistakes: list[Mistake] = [
        *_ports(config, here),
        *_gates(config, gates),
        *_factors(config, here),
    ]
    try:
        config.server()
    except BadConfig as bad:
        mistakes += bad.mistakes
    if mistakes:
        raise BadConfig(config.origin, mistakes)


def required(config: Config, here: Config, ready: Iterable[str], gates: Gates) -> tuple[str, ...]:
    """Units that must be ready before the candidate is kept. `ready` are those that are ready now."""
    if gates.units is not None:
        return tuple(gates.units)
    before = {unit.name: unit for unit in here.units}
    well = set(ready)
    return tuple(unit.name for unit in config.units if unit.name in well or before.get(unit.name) != unit)


def _ports(config: Config, here: Config) -> Iterable[Mistake]:
    """A port that is as it was may be absent: it is no worse than before."""
    known = {unit.address.text for unit in here.units}
    for unit in config.units:
        path = f"unit.{unit.name}.port"
        if unit.address.tcp is not None or unit.address.text in known:
            continue
        node = unit.address.find()
        if node is None:
            yield Mistake(path, "a port that is there", f"{unit.address.text}, which is not")
        elif not stat.S_ISCHR(os.stat(node).st_mode):
            yield Mistake(path, "a character device", unit.address.text)


def _gates(config: Config, gates: Gates) -> Iterable[Mistake]:
    known = {unit.name for unit in config.units}
    for name in gates.units or ():
        if name not in known:
            yield Mistake("gates.units", f"units of this config ({', '.join(sorted(known)) or 'none'})", name)


def _factors(config: Config, here: Config) -> Iterable[Mistake]:
    """Nobody could prove anything any more: what was possible before must not be lost by mistake."""
    for action in config.actions:
        before, after = here.policies()[action], config.policies()[action]
        if not after.sets or not any(factors <= readable(here) for factors in before.sets):
            continue
        if not any(factors <= readable(config) for factors in after.at(None).sets):
            found = ", ".join(sorted(readable(config))) or "none"
            yield Mistake(
                f"policy.{action}.sets", "a set whose factors the units can read", f"units for {found}"
            )


def _numbers(version: str) -> tuple[int, ...]:
    found = [int(each) for each in re.findall(r"\d+", version)[:3]]
    return tuple(found + [0] * (3 - len(found)))
