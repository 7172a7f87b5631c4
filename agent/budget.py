"""How often something may happen. Pure: records and a moment in, the changed record or a refusal out.

What was spent is forgotten only when it certainly was long enough ago: a reboot gives nothing back.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent import past
from agent.clock import Moment
from agent.envelope import Reason, Refused

PREFIX = "budget/"
"""Of the records: one for each class."""


@dataclass(frozen=True, slots=True)
class Budget:
    """So many within so many seconds."""

    times: int
    within_s: int


def spent(name: str, budgets: Sequence[Budget], now: Moment, records: Mapping[str, Any]) -> dict[str, Any]:
    """The record with one more spent. Raises Refused where a budget is exhausted."""
    if not budgets:
        return {}
    before = records.get(f"{PREFIX}{name}", [])
    longest_s = max(each.within_s for each in budgets)
    recent = [each for each in before if past.ago_s(each, now) < longest_s]
    for budget in budgets:
        used = sum(past.ago_s(each, now) < budget.within_s for each in recent)
        if used >= budget.times:
            detail = f"expected at most {budget.times} of class {name} in {budget.within_s} s, got one more"
            raise Refused(Reason.BUDGET, detail)
    return {f"{PREFIX}{name}": [*recent, past.record(now)]}
