"""How the courier's workflow answers whoever stands there: one entry, and a tone for yes or no. Pure."""

from collections.abc import Mapping
from typing import Any

from agent.duty import Custody
from agent.workflow import ControlScanned, Decision, Draft, LabelRead, Lane, Parcel, sound
from drivers.readings import Tone


def accept(
    state: Custody,
    event: LabelRead,
    type_: str,
    data: Mapping[str, Any],
    records: Mapping[str, Parcel | None] | None = None,
) -> Decision[Custody]:
    draft = Draft(type_, event.label, {"unit": event.unit, **data, "scan": event.evidence})
    return Decision(
        state=state, entries=(draft,), records=records or {}, orders=(sound(event.unit, Tone.GOOD),)
    )


def refuse(state: Custody, event: LabelRead, reason: str, **why: Any) -> Decision[Custody]:
    data = {"unit": event.unit, "reason": reason, **why, "scan": event.evidence}
    draft = Draft("custody.refused", event.label, data)
    return Decision(state=state, entries=(draft,), orders=(sound(event.unit, Tone.BAD),))


def done(state: Custody, event: ControlScanned, *entries: Draft) -> Decision[Custody]:
    return Decision(state=state, entries=entries, orders=(sound(event.unit, Tone.GOOD),))


def refuse_control(state: Custody, event: ControlScanned, reason: str) -> Decision[Custody]:
    data = {"unit": event.unit, "control": ":".join(event.words)[:64], "reason": reason}
    draft = Draft("custody.control_refused", event.unit, data, Lane.STATE)
    return Decision(state=state, entries=(draft,), orders=(sound(event.unit, Tone.BAD),))
