"""Nobody, or one driver, may be on duty any longer: what ends, what is told of it, what stays."""

from agent.duty import Custody
from agent.workflow import Decision, Dismissed
from tests.counter import ANNA, BORIS, Counter, on_duty, on_the_table, types


def dismiss(counter: Counter, subject: str | None = None, *, forget: bool = False) -> Decision[Custody]:
    return counter.do(Dismissed(at=counter.now, reason="wiped", subject=subject, forget=forget))


def test_everybody_is_off_duty_and_the_parcels_stay_with_who_has_them() -> None:
    counter = on_duty(holding=("P1",))
    counter.badge(BORIS)
    decision = dismiss(counter)
    assert types(decision) == ["identity.login_lapsed", "custody.session_closed"]
    assert {entry.data["reason"] for entry in decision.entries} == {"wiped"}
    assert (counter.state.session, counter.state.login, counter.state.held) == (None, None, 1)
    assert counter.parcels["P1"].holder == ANNA


def test_what_lay_on_the_table_is_taken_off_it() -> None:
    counter = on_the_table("recipient", "P1", "P2")
    assert types(dismiss(counter)) == ["custody.session_closed", "custody.handover_abandoned"]
    assert not any(parcel.offered for parcel in counter.parcels.values())


def test_one_driver_goes_and_another_stays() -> None:
    counter = on_duty(ANNA, holding=("P1",))
    assert types(dismiss(counter, BORIS)) == []
    assert counter.state.session is not None
    assert types(dismiss(counter, ANNA)) == ["custody.session_closed"]


def test_of_a_driver_who_is_forgotten_no_parcel_names_them_any_more_and_each_is_told_of() -> None:
    counter = on_duty(ANNA, holding=("P1", "P2"))
    counter.login(BORIS)
    counter.scan("P3")
    decision = dismiss(counter, ANNA, forget=True)
    assert types(decision) == ["custody.untracked", "custody.untracked"]
    assert [entry.subject for entry in decision.entries] == ["P1", "P2"]
    assert ANNA not in str(decision.entries)
    assert list(counter.parcels) == ["P3"]
    assert counter.state.held == 1
    assert counter.state.session is not None


def test_dismissing_nobody_says_nothing() -> None:
    assert types(dismiss(Counter())) == []
