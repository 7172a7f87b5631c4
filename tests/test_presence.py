"""Presence: edges out of sightings, with time as an argument."""

import doctest

from drivers import presence as module
from drivers.presence import Presence, Sighting

A, B, C = b"A", b"B", b"C"


def test_the_example_in_the_manual_is_true() -> None:
    assert doctest.testmod(module).failed == 0


def test_a_tag_arrives_once_however_often_it_is_sighted() -> None:
    presence = Presence(0.4)
    assert presence.sighted(A, 1.0) is Sighting.ARRIVED
    assert [presence.sighted(A, 1.0 + n / 20) for n in range(20)] == [Sighting.STAYED] * 20


def test_a_tag_leaves_once_when_its_time_to_absence_is_over() -> None:
    presence = Presence(0.5)
    presence.sighted(A, 1.0)
    assert presence.leave(1.25) == []
    assert presence.leave(1.5) == [A]
    assert presence.leave(2.0) == []


def test_every_sighting_puts_the_leaving_off() -> None:
    presence = Presence(0.5)
    presence.sighted(A, 1.0)
    presence.sighted(A, 1.25)
    assert presence.next_leave() == 1.75
    assert presence.leave(1.5) == []
    assert presence.leave(1.75) == [A]


def test_a_tag_that_has_left_arrives_again() -> None:
    presence = Presence(0.5)
    presence.sighted(A, 1.0)
    presence.leave(2.0)
    assert presence.sighted(A, 2.0) is Sighting.ARRIVED


def test_tags_leave_longest_unseen_first() -> None:
    presence = Presence(0.5)
    for uid, now in ((A, 1.0), (B, 1.1), (C, 1.2), (A, 1.3)):
        presence.sighted(uid, now)
    assert presence.leave(5.0) == [B, C, A]


def test_only_those_whose_time_is_over_leave() -> None:
    presence = Presence(0.5)
    presence.sighted(A, 1.0)
    presence.sighted(B, 1.25)
    assert presence.leave(1.5) == [A]
    assert presence.next_leave() == 1.75


def test_an_empty_field_has_nothing_to_wait_for() -> None:
    presence = Presence(0.5)
    assert presence.next_leave() is None
    assert presence.leave(1.0) == []


def test_a_full_field_refuses_the_newcomer_and_keeps_who_is_there() -> None:
    presence = Presence(0.5, capacity=2)
    presence.sighted(A, 1.0)
    presence.sighted(B, 1.0)
    assert presence.sighted(C, 1.1) is Sighting.REFUSED
    assert presence.sighted(A, 1.25) is Sighting.STAYED
    assert presence.leave(1.5) == [B]
    assert presence.sighted(C, 1.5) is Sighting.ARRIVED
