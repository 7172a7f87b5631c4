"""What the config says about people: what an action asks of them, how long knowledge holds, what is borne.

    [policy.handover]
    sets = [["fido2"], ["badge", "slot"]]
    second_person = true

    [identity]
    grace_hours = 48

Lockout may only be stricter than what was decided, and no knowledge older than a fortnight opens anything.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from agent.freshness import HOUR_S, Ladder
from agent.lockout import BURST, BURST_PAUSE_S, FREE_TRIES, LAST_TRY, WAIT_S, Limits
from agent.mistakes import STRICT, Mistake
from agent.policy import ACTIONS, Policy, level, sound

FactorKind = Literal["badge", "fido2", "pin", "slot", "static"]
Factors = Annotated[list[FactorKind], Field(min_length=1)]
Sets = list[Factors]

USUAL: Sets = [["fido2"], ["badge", "slot"], ["badge", "pin"], ["badge", "static"]]
"""The PIN is there for who cannot or will not show a finger."""
CARD_ONLY: Sets = [["fido2"]]
BY_CARD = ("retrieve", "technician")
"""Actions that open a door with somebody's parcel behind it. What else proves a person can be recorded on its
wire and said again; these have to be given other sets on purpose."""

STALE_MOST_HOURS = 14 * 24
WAIT_MOST_S = 3600.0


class _Section(BaseModel):
    model_config = STRICT


class PolicySection(_Section):
    """What one action asks for."""

    sets: Sets | None = None
    """Each is enough; without any, those that the action has by itself."""
    second_person: bool = False
    """Another person has to prove themselves as well."""
    level: Annotated[int, Field(ge=0, le=3)] = 0
    """Sets whose best factor is below it do not count."""


class PoliciesSection(_Section):
    """An action each; the names are `agent.policy.ACTIONS`."""

    session: PolicySection = PolicySection()
    """Coming on duty with a courier's device."""
    handover: PolicySection = PolicySection()
    """Taking parcels over from another driver."""
    deposit: PolicySection = PolicySection()
    """Coming on duty at a locker, and putting parcels in."""
    retrieve: PolicySection = PolicySection()
    """Taking out what nobody collected; by itself it asks for a fingerprint card."""
    technician: PolicySection = PolicySection()
    """Opening any door of a locker, and what else a technician alone may do."""


class IdentitySection(_Section):
    """How long the fleet's word holds while it is silent, and how many failures are borne."""

    fresh_hours: Annotated[float, Field(gt=0, le=STALE_MOST_HOURS)] = 24.0
    """Age of the newest head up to which everything is allowed."""
    grace_hours: Annotated[float, Field(gt=0, le=STALE_MOST_HOURS)] = 72.0
    """... up to which a body is asked for, and a locker opens one door at a time."""
    stale_hours: Annotated[float, Field(gt=0, le=STALE_MOST_HOURS)] = 168.0
    """... up to which two persons with level 3 come on duty. Later nobody does."""
    tries: Annotated[int, Field(ge=1, le=FREE_TRIES)] = FREE_TRIES
    """Failures in a row before each further try costs a wait."""
    wait: Annotated[float, Field(ge=WAIT_S, le=WAIT_MOST_S)] = WAIT_S
    """Seconds before each further try."""
    last_try: Annotated[int, Field(ge=1, le=LAST_TRY)] = LAST_TRY
    """Failures in a row that disable until the fleet says otherwise."""
    burst: Annotated[int, Field(ge=10, le=50)] = BURST
    """Failures within ten minutes that make a reader rest."""
    pause: Annotated[float, Field(ge=BURST_PAUSE_S, le=WAIT_MOST_S)] = BURST_PAUSE_S
    """Seconds for which it rests."""

    def ladder(self) -> Ladder:
        return Ladder(
            fresh=self.fresh_hours * HOUR_S, grace=self.grace_hours * HOUR_S, stale=self.stale_hours * HOUR_S
        )

    def limits(self) -> Limits:
        return Limits(
            tries=self.tries, wait=self.wait, last_try=self.last_try, burst=self.burst, pause=self.pause
        )


def policies(section: PoliciesSection, short: Mapping[str, Sets | None]) -> dict[str, Policy]:
    """What each action asks for. `short` holds the sets that stand in the workflow's own table."""
    return {action: _policy(action, getattr(section, action), short.get(action)) for action in ACTIONS}


def mistakes(
    section: PoliciesSection, short: Mapping[str, Sets | None], identity: IdentitySection, attended: bool
) -> Iterable[Mistake]:
    """What no schema can tell."""
    for action in ACTIONS:
        own: PolicySection = getattr(section, action)
        if own.sets is not None and short.get(action) is not None:
            path = f"policy.{action}.sets"
            yield Mistake(path, "the sets of an action in one place", f"custody.{action} as well")
        path = f"policy.{action}.sets" if short.get(action) is None else f"custody.{action}"
        yield from _mistakes(path, _policy(action, own, short.get(action)), attended)
        yield from _unsound(path, own.sets if short.get(action) is None else short[action])
    if not identity.fresh_hours <= identity.grace_hours <= identity.stale_hours:
        hours = f"{identity.fresh_hours:g}, {identity.grace_hours:g}, {identity.stale_hours:g}"
        yield Mistake("identity", "fresh_hours, grace_hours and stale_hours that rise", hours)
    if identity.last_try < identity.tries:
        yield Mistake("identity.last_try", f"at least tries ({identity.tries})", str(identity.last_try))


def _policy(action: str, section: PolicySection, short: Sets | None) -> Policy:
    usual = CARD_ONLY if action in BY_CARD else USUAL
    sets = next(given for given in (short, section.sets, usual) if given is not None)
    return Policy(tuple(frozenset(each) for each in sets), section.second_person, section.level)


def _mistakes(path: str, policy: Policy, attended: bool) -> Iterable[Mistake]:
    if not policy.sets and attended:
        yield Mistake(path, "at least one set of factors", "none: nobody could ever do it")
    elif policy.sets and not policy.at(None).sets:
        best = max(map(level, policy.sets))
        yield Mistake(path, f"a set of level {policy.level}", f"none above level {best}")


def _unsound(path: str, sets: Sets | None) -> Iterable[Mistake]:
    for at, factors in enumerate(sets or ()):
        if not sound(frozenset(factors)):
            expected = "two different factors, one of them more than a badge, or a fingerprint card"
            yield Mistake(f"{path}[{at}]", expected, str(factors))
