"""Fingerprint cards in a workflow: what they are asked, and which of their answers is one. Pure.

Workflows share this room, as they do `agent.session`. A card that has come is asked once, for what is at
stake at that moment. Its answer counts once, and only if the same is still at stake.
"""

from dataclasses import replace
from typing import TypeVar

from agent.session import ANSWER_WITHIN, Duty
from agent.stake import Asked, Stake, client_data, rp_id
from agent.workflow import CardShown, Decision, Draft, FactorShown, Lane, Order, Outcome, sound
from drivers.readings import AssertCard, Tone

CARD = "fido2"

S = TypeVar("S", bound=Duty)


def ask(state: S, event: CardShown, stake: Stake, source: str, within: float) -> Decision[S]:
    """Have the card verify its holder and sign. Whoever was asked before is not listened to any more."""
    asked = Asked(
        unit=event.unit,
        rp_id=rp_id(source),
        client_data=client_data(source, event.unit, stake, event.challenge),
        stake=stake,
        boot=event.at.boot,
        mono_ns=event.at.mono_ns,
        within=within,
    )
    data = {"unit": event.unit, "purpose": stake.purpose, "transaction": stake.transaction}
    action = AssertCard(
        rp_id=asked.rp_id, client_data_hash=asked.client_data_hash, within=within * ANSWER_WITHIN
    )
    return Decision(
        state=replace(state, asked=asked),
        entries=(Draft("identity.card_asked", event.unit, data, Lane.STATE),),
        orders=(sound(event.unit, Tone.ASK), Order(event.unit, action)),
    )


def answered(state: S, event: FactorShown, stake: Stake) -> tuple[S, FactorShown, tuple[Draft, ...]]:
    """The card's answer as it counts here, used up, and what is to be remembered of it.

    `stake` is what is to be decided now. A right answer to another question is nobody's answer.
    """
    asked, verdict = state.asked, event.verdict
    state = replace(state, asked=None)
    if verdict.granted and not (asked and asked.awaited(event.unit, event.at) and asked.stake == stake):
        verdict = replace(verdict, outcome=Outcome.UNASKED)
    told: tuple[Draft, ...] = ()
    if verdict.counters is not None:
        told = (_suspected(event),)
    elif verdict.granted and asked and verdict.assertion:
        # Whoever has the card's public key can check this without believing the device.
        data = {"unit": event.unit, "client_data": asked.client_data, **verdict.assertion}
        told = (Draft("identity.card_asserted", verdict.subject or event.unit, data),)
    return state, replace(event, verdict=verdict), told


def _suspected(event: FactorShown) -> Draft:
    """Two cards sign with one key: whose is the copy, only people can find out."""
    verdict = event.verdict
    assert verdict.counters is not None
    expected, found = verdict.counters
    data = {"unit": event.unit, "counter_above": expected, "counter": found}
    return Draft("identity.clone_suspected", verdict.subject or event.unit, data)
