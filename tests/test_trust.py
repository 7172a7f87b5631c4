"""A device believes what the fleet has signed, in the order that cannot be turned back."""

import json
from typing import Any

import pytest

from agent.admission import AHEAD_S, AHEAD_UNSURE_S, FIRST, LEAP
from agent.clock import Moment, Trust
from agent.envelope import Kind, Reason, Refused
from agent.jws import Signer, cosign
from agent.trust import Accepted, Trusted
from tests.authority import DAY, NOON, SELF, Authority, fresh
from tests.moments import moment

NOW = moment(60)
HASH = "0" * 64


@pytest.fixture
def fleet() -> Authority:
    return Authority()


def refusal(trusted: Trusted, kind: Kind, raw: bytes, now: Moment = NOW) -> Reason:
    before = trusted.dump()
    with pytest.raises(Refused) as refused:
        trusted.take(kind, raw, now)
    assert trusted.dump() == before
    return refused.value.reason


def after(trusted: Trusted, *documents: tuple[Kind, bytes], now: Moment = NOW) -> Trusted:
    for kind, raw in documents:
        trusted = trusted.take(kind, raw, now).trusted
    return trusted


def with_roster(fleet: Authority, ver: int = 1) -> Trusted:
    """Everything of the first head is in force."""
    roster = fleet.bundle("roster", ver)
    head = fleet.head(ver, {"bundle/roster": roster})
    return after(fleet.trusted(), (Kind.HEAD, head), (Kind.BUNDLE, roster))


def names(accepted: Accepted) -> list[str]:
    return [document.name for document in accepted.effective]


# -- the root ---------------------------------------------------------------------------------------


def test_the_first_root_must_be_signed_by_two_of_its_own_keys(fleet: Authority) -> None:
    with pytest.raises(Refused, match="below_threshold"):
        Trusted.pin(fleet.root(by=fleet.roots[:1]), SELF)
    with pytest.raises(Refused, match="unknown_key"):
        Trusted.pin(fleet.root(by=[fresh(), fresh()]), SELF)
    assert Trusted.pin(fleet.root(by=fleet.roots[1:]), SELF).root.ver == 1


def test_the_first_root_of_another_tenant_is_none(fleet: Authority) -> None:
    raw = fleet.made(Kind.ROOT, fleet.root_body(), 1, fleet.roots[:2], aud="other/*")
    with pytest.raises(Refused, match="wrong_audience"):
        Trusted.pin(raw, SELF)


def test_a_new_root_is_signed_by_two_of_the_old_and_two_of_its_own(fleet: Authority) -> None:
    trusted, old = fleet.trusted(), fleet.roots
    fleet.roots = [fresh() for _ in range(3)]
    body = fleet.root_body()
    assert refusal(trusted, Kind.ROOT, fleet.root(2)) == Reason.UNKNOWN_KEY
    assert refusal(trusted, Kind.ROOT, fleet.root(2, by=old[:2], body=body)) == Reason.UNKNOWN_KEY
    one = [*old[:2], fleet.roots[0]]
    assert refusal(trusted, Kind.ROOT, fleet.root(2, by=one)) == Reason.BELOW_THRESHOLD
    accepted = trusted.take(Kind.ROOT, fleet.root(2, by=[*old[:2], *fleet.roots[1:]]), NOW)
    assert (names(accepted), accepted.trusted.root.ver) == (["root"], 2)


def test_two_of_the_old_are_not_one_of_them_and_a_stranger(fleet: Authority) -> None:
    raw = fleet.root(2, by=[fleet.roots[0], fresh()])
    assert refusal(fleet.trusted(), Kind.ROOT, raw) == Reason.BELOW_THRESHOLD


def test_a_device_that_missed_a_root_takes_the_next_one_that_its_keys_signed(fleet: Authority) -> None:
    assert after(fleet.trusted(), (Kind.ROOT, fleet.root(7))).root.ver == 7


def test_an_older_root_is_refused_and_another_of_the_same_version_too(fleet: Authority) -> None:
    trusted = after(fleet.trusted(), (Kind.ROOT, fleet.root(3)))
    assert refusal(trusted, Kind.ROOT, fleet.root(2)) == Reason.ROLLED_BACK
    assert refusal(trusted, Kind.ROOT, fleet.root(3)) == Reason.MIXED
    assert refusal(trusted, Kind.ROOT, fleet.root(3 + LEAP + 1)) == Reason.FAST_FORWARD
    fleet.epoch = 2
    trusted = after(trusted, (Kind.ROOT, fleet.root(4)))
    fleet.epoch = 1
    assert refusal(trusted, Kind.ROOT, fleet.root(5)) == Reason.ROLLED_BACK


def test_a_root_does_not_expire_but_must_have_begun(fleet: Authority) -> None:
    trusted = fleet.trusted()
    assert after(trusted, (Kind.ROOT, fleet.root(2)), now=moment(9000 * DAY)).root.ver == 2
    ahead = fleet.root(2, iat=NOON + 60 + AHEAD_S + 1)
    assert refusal(trusted, Kind.ROOT, ahead) == Reason.NOT_YET_VALID


# -- other texts of the same ------------------------------------------------------------------------


def retold(raw: bytes) -> dict[str, bytes]:
    """What somebody on the way can make of an envelope without any key of the fleet's."""
    stranger = cosign(raw, fresh())
    told = {"a stranger's signature": stranger, "spaces": stranger.replace(b",", b", ")}
    if raw.startswith(b"{"):
        tree = json.loads(raw)
        first, *others = tree["signatures"]
        told["another order"] = json.dumps({**tree, "signatures": [first, *reversed(others)]}).encode()
        told["spaces"] = json.dumps(tree).encode()
    return told


WAYS = ["a stranger's signature", "spaces", "another order"]


@pytest.mark.parametrize("way", WAYS)
def test_a_root_in_another_text_keeps_no_head_out(fleet: Authority, way: str) -> None:
    """Before the head or after it, and after the true one: with an honest broker all is well again."""
    root = fleet.root(2, by=fleet.roots)
    evil = retold(root)[way]
    head = fleet.head(1, {"root": root})
    for told in ((evil, root, head), (evil, head, root), (root, evil, head), (root, head, evil)):
        trusted = fleet.trusted()
        for raw in told:
            trusted = trusted.take(Kind.HEAD if raw is head else Kind.ROOT, raw, NOW).trusted
        assert (trusted.complete, trusted.root.raw) == (True, root)
        assert raw is not evil or not trusted.reworded, "what no head will name is not even kept"


@pytest.mark.parametrize("way", WAYS[:2])
def test_revocations_in_another_text_keep_no_head_out(fleet: Authority, way: str) -> None:
    lists = fleet.revocations(1, of={"subjects": ["drv-7"]})
    evil = retold(lists)[way]
    head = fleet.head(1, {"revocations": lists})
    for told in ((evil, lists, head), (evil, head, lists), (lists, evil, head)):
        trusted = fleet.trusted()
        for raw in told:
            trusted = trusted.take(Kind.HEAD if raw is head else Kind.REVOCATIONS, raw, NOW).trusted
            assert raw is head or trusted.is_revoked("drv-7"), "what takes away waits for nothing"
        assert (trusted.complete, trusted.held["revocations"].raw) == (True, lists)


def test_what_is_known_in_another_text_is_no_news(fleet: Authority) -> None:
    root, head = fleet.root(2), fleet.head(1, {})
    lists = fleet.revocations(1)
    known = [(Kind.ROOT, root), (Kind.REVOCATIONS, lists), (Kind.HEAD, head)]
    trusted = after(fleet.trusted(), *known)
    for kind, raw in known:
        for evil in retold(raw).values():
            accepted = trusted.take(kind, evil, NOW)
            assert (accepted.records, accepted.effective) == ({}, ())


def test_another_text_is_remembered_once_the_head_names_it_and_told_of_once(fleet: Authority) -> None:
    first, lists = fleet.root(), fleet.revocations(1)
    trusted = after(Trusted.pin(first, SELF), (Kind.REVOCATIONS, retold(lists)[WAYS[0]]))
    trusted = after(trusted, (Kind.HEAD, fleet.head(1, {"revocations": lists})))
    accepted = trusted.take(Kind.REVOCATIONS, lists, NOW)
    assert (list(accepted.records), names(accepted)) == (["trust/doc/revocations"], [])
    assert Trusted.load(first, SELF, accepted.trusted.dump()) == accepted.trusted


def test_two_documents_under_one_version_are_not_one_in_two_texts(fleet: Authority) -> None:
    lists, root = fleet.revocations(1), fleet.root(2)
    trusted = after(fleet.trusted(), (Kind.REVOCATIONS, lists), (Kind.ROOT, root))
    for name, raw in (("revocations", fleet.revocations(1)), ("root", fleet.root(2))):
        assert refusal(trusted, Kind(name), raw) == Reason.MIXED
        waiting = after(trusted, (Kind.HEAD, fleet.head(1, {name: raw})))
        assert not waiting.complete
        assert refusal(waiting, Kind(name), raw) == Reason.MIXED


def test_a_text_that_waits_goes_with_its_document(fleet: Authority) -> None:
    """Its signer is revoked, and the head that names it comes afterwards: it is not taken up."""
    fleet.signers["revocations"].append(fresh())
    one, other = fleet.signers["revocations"]
    lists = fleet.revocations(1, by=[one])
    evil = retold(lists)[WAYS[0]]
    trusted = after(fleet.trusted(), (Kind.REVOCATIONS, evil), (Kind.REVOCATIONS, lists))
    assert trusted.reworded
    more = fleet.revocations(2, of={"keys": [one.kid]}, by=[other])
    trusted = after(trusted, (Kind.REVOCATIONS, more))
    assert not trusted.reworded


# -- heads and what they name -----------------------------------------------------------------------


def test_a_bundle_comes_into_force_once_the_head_names_it(fleet: Authority) -> None:
    roster = fleet.bundle("roster", 1)
    assert refusal(fleet.trusted(), Kind.BUNDLE, roster) == Reason.NOT_IN_HEAD
    head = fleet.trusted().take(Kind.HEAD, fleet.head(1, {"bundle/roster": roster}), NOW)
    assert (names(head), head.trusted.complete, list(head.records)) == (["head"], False, ["trust/head"])
    accepted = head.trusted.take(Kind.BUNDLE, roster, NOW)
    assert (names(accepted), accepted.trusted.complete) == (["bundle/roster"], True)
    assert list(accepted.records) == ["trust/doc/bundle/roster"]


def test_documents_of_a_head_come_into_force_together(fleet: Authority) -> None:
    roster, grants = fleet.bundle("roster", 1), fleet.bundle("grants", 1)
    head = fleet.head(1, {"bundle/roster": roster, "bundle/grants": grants})
    first = after(fleet.trusted(), (Kind.HEAD, head)).take(Kind.BUNDLE, grants, NOW)
    assert (names(first), first.records, first.trusted.complete) == ([], {}, False)
    second = first.trusted.take(Kind.BUNDLE, roster, NOW)
    assert set(names(second)) == {"bundle/roster", "bundle/grants"}


def test_what_is_known_is_taken_again_without_a_word(fleet: Authority) -> None:
    trusted = with_roster(fleet)
    assert trusted.head is not None
    known = [
        (Kind.ROOT, trusted.root.raw),
        (Kind.HEAD, trusted.head.raw),
        (Kind.BUNDLE, trusted.held["bundle/roster"].raw),
    ]
    for kind, raw in known:
        accepted = trusted.take(kind, raw, moment(99 * DAY))
        assert (accepted.trusted, accepted.records, accepted.effective) == (trusted, {}, ())


def test_an_older_or_another_document_is_refused_by_its_head(fleet: Authority) -> None:
    trusted = with_roster(fleet, 5)
    assert refusal(trusted, Kind.HEAD, fleet.head(4, {})) == Reason.ROLLED_BACK
    assert refusal(trusted, Kind.HEAD, fleet.head(5, {})) == Reason.MIXED
    assert refusal(trusted, Kind.BUNDLE, fleet.bundle("roster", 4)) == Reason.ROLLED_BACK
    assert refusal(trusted, Kind.BUNDLE, fleet.bundle("roster", 5)) == Reason.MIXED
    assert refusal(trusted, Kind.BUNDLE, fleet.bundle("roster", 6)) == Reason.NOT_IN_HEAD
    assert refusal(trusted, Kind.BUNDLE, fleet.bundle("grants", 1)) == Reason.NOT_IN_HEAD
    pinned = after(trusted, (Kind.HEAD, fleet.head(6, {"bundle/roster": (7, HASH)})))
    assert refusal(pinned, Kind.BUNDLE, fleet.bundle("roster", 6)) == Reason.ROLLED_BACK
    assert refusal(pinned, Kind.BUNDLE, fleet.bundle("roster", 7)) == Reason.MIXED


@pytest.mark.parametrize(
    ("pin", "reason"),
    [((4, HASH), Reason.ROLLED_BACK), ((5, HASH), Reason.MIXED), ((5 + LEAP + 1, HASH), Reason.FAST_FORWARD)],
)
def test_a_head_cannot_take_a_document_back(fleet: Authority, pin: tuple[int, str], reason: Reason) -> None:
    trusted = with_roster(fleet, 5)
    assert refusal(trusted, Kind.HEAD, fleet.head(6, {"bundle/roster": pin})) == reason


def test_a_head_cannot_take_back_what_an_earlier_head_has_named(fleet: Authority) -> None:
    trusted = after(fleet.trusted(), (Kind.HEAD, fleet.head(1, {"bundle/grants": (9, HASH)})))
    assert refusal(trusted, Kind.HEAD, fleet.head(2, {"bundle/grants": (8, HASH)})) == Reason.ROLLED_BACK


def test_a_head_cannot_go_back_to_an_old_root(fleet: Authority) -> None:
    first, second = fleet.root(1), fleet.root(2)
    trusted = after(Trusted.pin(first, SELF), (Kind.ROOT, second))
    assert refusal(trusted, Kind.HEAD, fleet.head(1, {"root": first})) == Reason.ROLLED_BACK
    assert after(trusted, (Kind.HEAD, fleet.head(1, {"root": second}))).complete


def test_a_head_that_names_a_newer_root_waits_for_it(fleet: Authority) -> None:
    second = fleet.root(2)
    trusted = after(fleet.trusted(), (Kind.HEAD, fleet.head(1, {"root": second})))
    assert not trusted.complete
    assert after(trusted, (Kind.ROOT, second)).complete


def test_a_head_lives_for_a_day_at_most(fleet: Authority) -> None:
    body: dict[str, Any] = {"documents": {}}
    assert (
        refusal(fleet.trusted(), Kind.HEAD, fleet.made(Kind.HEAD, body, 1, exp_in=DAY + 1)) == Reason.SCHEMA
    )


def test_a_head_that_leaves_a_document_out_takes_nothing_away(fleet: Authority) -> None:
    trusted = after(with_roster(fleet), (Kind.HEAD, fleet.head(2, {})))
    assert "bundle/roster" in trusted.held
    assert refusal(trusted, Kind.BUNDLE, fleet.bundle("roster", 1)) == Reason.MIXED


def test_what_was_staged_for_a_head_stays_so_for_the_next_that_names_it(fleet: Authority) -> None:
    roster, grants, newer = fleet.bundle("roster", 1), fleet.bundle("grants", 1), fleet.bundle("grants", 2)
    one = fleet.head(1, {"bundle/roster": roster, "bundle/grants": grants})
    two = fleet.head(2, {"bundle/roster": roster, "bundle/grants": newer})
    trusted = after(fleet.trusted(), (Kind.HEAD, one), (Kind.BUNDLE, roster), (Kind.HEAD, two))
    accepted = trusted.take(Kind.BUNDLE, newer, NOW)
    assert set(names(accepted)) == {"bundle/roster", "bundle/grants"}


def test_what_was_staged_for_a_head_that_the_next_does_not_name_never_comes_into_force(
    fleet: Authority,
) -> None:
    roster, grants = fleet.bundle("roster", 1), fleet.bundle("grants", 1)
    one = fleet.head(1, {"bundle/roster": roster, "bundle/grants": grants})
    trusted = after(fleet.trusted(), (Kind.HEAD, one), (Kind.BUNDLE, grants))
    accepted = trusted.take(Kind.HEAD, fleet.head(2, {}), NOW)
    assert (names(accepted), accepted.trusted.held) == (["head"], {})


def test_a_head_waits_for_its_config_as_for_everything_else(fleet: Authority) -> None:
    config = fleet.made(Kind.CONFIG, {"anything": 1}, 1)
    trusted = after(fleet.trusted(), (Kind.HEAD, fleet.head(1, {"config": config})))
    assert not trusted.complete
    assert names(trusted.take(Kind.CONFIG, config, NOW)) == ["config"]


# -- whose, for whom, when --------------------------------------------------------------------------


def test_each_kind_is_signed_by_its_own_role(fleet: Authority) -> None:
    trusted = fleet.trusted()
    for kind in (Kind.HEAD, Kind.BUNDLE, Kind.CONFIG, Kind.REVOCATIONS):
        for role, signers in fleet.signers.items():
            if role != kind:
                assert refusal(trusted, kind, fleet.made(kind, {}, 1, signers)) == Reason.UNKNOWN_KEY


def test_a_document_of_one_kind_never_passes_as_another(fleet: Authority) -> None:
    fleet.signers["head"] = fleet.signers["bundle"] = [fresh()]
    trusted = fleet.trusted()
    assert refusal(trusted, Kind.HEAD, fleet.bundle("roster", 1)) == Reason.WRONG_TYPE


def test_a_role_can_take_several(fleet: Authority) -> None:
    fleet.signers["revocations"].append(fresh())
    fleet.thresholds["revocations"] = 2
    one = fleet.revocations(1, by=fleet.signers["revocations"][:1])
    assert refusal(fleet.trusted(), Kind.REVOCATIONS, one) == Reason.BELOW_THRESHOLD
    assert after(fleet.trusted(), (Kind.REVOCATIONS, fleet.revocations(1))).held


@pytest.mark.parametrize("aud", ["acme/locker-18", "acme/@south", "acme", "*/*", "other/locker-17", "acme/@"])
def test_what_is_addressed_to_others_is_refused(fleet: Authority, aud: str) -> None:
    assert refusal(fleet.trusted(), Kind.REVOCATIONS, fleet.revocations(1, aud=aud)) == Reason.WRONG_AUDIENCE


@pytest.mark.parametrize("aud", ["acme/locker-17", "acme/@north", "acme/*"])
def test_what_is_addressed_to_this_device_or_a_group_of_it_is_taken(fleet: Authority, aud: str) -> None:
    assert after(fleet.trusted(), (Kind.REVOCATIONS, fleet.revocations(1, aud=aud))).held


def test_what_has_expired_or_not_begun_is_refused(fleet: Authority) -> None:
    trusted, head = fleet.trusted(), fleet.head(1, {})
    assert refusal(trusted, Kind.HEAD, head, moment(DAY)) == Reason.EXPIRED
    assert after(trusted, (Kind.HEAD, head), now=moment(DAY - 1)).head
    late = fleet.head(1, {}, iat=NOON + AHEAD_S + 1)
    assert refusal(trusted, Kind.HEAD, late, moment(0)) == Reason.NOT_YET_VALID
    assert after(trusted, (Kind.HEAD, late), now=moment(1)).head


@pytest.mark.parametrize("trust", [Trust.NONE, Trust.GPS])
def test_who_does_not_know_the_time_takes_what_is_up_to_seven_days_ahead(
    fleet: Authority, trust: Trust
) -> None:
    trusted, unsure = fleet.trusted(), moment(0, trust=trust)
    late = fleet.head(1, {}, iat=NOON + AHEAD_UNSURE_S + 1)
    assert refusal(trusted, Kind.HEAD, late, unsure) == Reason.NOT_YET_VALID
    assert after(trusted, (Kind.HEAD, fleet.head(1, {}, iat=NOON + AHEAD_UNSURE_S)), now=unsure).head


def test_checks_go_from_the_outside_in(fleet: Authority) -> None:
    """A document that is wrong in every way is refused for the first of them, and so on."""
    trusted = after(with_roster(fleet, 5), (Kind.HEAD, fleet.head(6, {"bundle/roster": (7, HASH)})))
    wrong: dict[str, Any] = {"body": {"kind": "roster"}, "ver": 4, "by": [fresh()], "aud": "x/y", "iat": 0}
    order: list[tuple[dict[str, Any], Reason]] = [
        ({}, Reason.UNKNOWN_KEY),
        ({"by": fleet.signers["bundle"]}, Reason.WRONG_AUDIENCE),
        ({"aud": SELF.name}, Reason.EXPIRED),
        ({"iat": NOON}, Reason.ROLLED_BACK),
        ({"ver": 8}, Reason.NOT_IN_HEAD),
        ({"ver": 7}, Reason.MIXED),
    ]
    for change, reason in order:
        wrong |= change
        assert refusal(trusted, Kind.BUNDLE, fleet.made(Kind.BUNDLE, **wrong)) == reason
    bare = fleet.made(Kind.BUNDLE, {"kind": "roster"}, 7)
    pinned = after(with_roster(fleet, 5), (Kind.HEAD, fleet.head(6, {"bundle/roster": bare})))
    assert refusal(pinned, Kind.BUNDLE, bare) == Reason.SCHEMA


# -- fast-forward, and the way back -----------------------------------------------------------------


@pytest.mark.parametrize("ver", [LEAP + 2, 2**63, 2**64 - 1])
def test_a_version_far_ahead_is_refused(fleet: Authority, ver: int) -> None:
    trusted = with_roster(fleet)
    assert refusal(trusted, Kind.HEAD, fleet.head(ver, {})) == Reason.FAST_FORWARD
    assert refusal(trusted, Kind.HEAD, fleet.head(2, {"bundle/roster": (ver, HASH)})) == Reason.FAST_FORWARD
    assert after(trusted, (Kind.HEAD, fleet.head(LEAP + 1, {}))).head


def test_a_first_version_is_bounded_too(fleet: Authority) -> None:
    assert refusal(fleet.trusted(), Kind.HEAD, fleet.head(FIRST + 1, {})) == Reason.FAST_FORWARD
    assert after(fleet.trusted(), (Kind.HEAD, fleet.head(FIRST, {}))).head


def driven_to_the_end(fleet: Authority) -> Trusted:
    """A thief with the head's key has gone as far as versions go."""
    trusted = with_roster(fleet)
    roster = trusted.held["bundle/roster"].raw
    return after(trusted, (Kind.HEAD, fleet.head(1 + LEAP, {"bundle/roster": roster})))


def test_after_a_new_root_the_head_of_a_thief_is_forgotten_and_versions_start_anew(fleet: Authority) -> None:
    trusted = driven_to_the_end(fleet)
    old = fleet.head(2, {"bundle/roster": trusted.held["bundle/roster"].raw})
    fleet.rotate("head")
    accepted = trusted.take(Kind.ROOT, fleet.root(2, iat=NOON + 10), NOW)
    assert (accepted.trusted.head, accepted.trusted.complete) == (None, False)
    assert accepted.records["trust/head"] is None
    assert "bundle/roster" in accepted.trusted.held, "another key signed that"
    recovered = after(accepted.trusted, (Kind.HEAD, fleet.head(1, {}, iat=NOON + 10)))
    assert recovered.head is not None
    assert recovered.head.ver == 1
    assert refusal(recovered, Kind.HEAD, old) == Reason.UNKNOWN_KEY


def test_a_new_epoch_starts_all_versions_anew_but_revives_nothing(fleet: Authority) -> None:
    trusted = driven_to_the_end(fleet)
    trusted = after(trusted, (Kind.REVOCATIONS, fleet.revocations(9, of={"subjects": ["drv-7"]})))
    old = fleet.head(2, {})
    fleet.epoch = 2
    accepted = trusted.take(Kind.ROOT, fleet.root(2, iat=NOON + 10), NOW)
    assert set(accepted.forgotten) == {"bundle/roster", "revocations"}
    assert accepted.trusted.is_revoked("drv-7"), "revoked is revoked"
    assert refusal(accepted.trusted, Kind.HEAD, old) == Reason.ROLLED_BACK, (
        "the key is good, but it is of before"
    )
    assert after(accepted.trusted, (Kind.HEAD, fleet.head(1, {}, iat=NOON + 10))).head
    lists = fleet.revocations(1, iat=NOON + 10)
    assert after(accepted.trusted, (Kind.REVOCATIONS, lists)).is_revoked("drv-7")


def test_after_a_new_epoch_nothing_of_before_is_the_first_of_its_name(fleet: Authority) -> None:
    """A device that has never heard of what is brought to it now, with a version the fleet starts below."""
    old, trusted = fleet.revocations(9), fleet.trusted()
    fleet.epoch = 2
    trusted = after(trusted, (Kind.ROOT, fleet.root(2, iat=NOON + 10)))
    assert refusal(trusted, Kind.REVOCATIONS, old) == Reason.ROLLED_BACK
    assert after(trusted, (Kind.REVOCATIONS, fleet.revocations(1, iat=NOON + 10))).held


def test_a_new_epoch_ends_a_wait_for_what_is_of_the_future(fleet: Authority) -> None:
    """A thief of the key that revokes has dated it as late as a device without a clock will take it."""
    unsure = moment(60, trust=Trust.NONE)
    trusted = with_roster(fleet)
    stolen = fleet.signers["head"][0].kid
    late = fleet.revocations(1, of={"keys": [stolen]}, iat=NOON + 6 * DAY)
    trusted = after(trusted, (Kind.REVOCATIONS, late), now=unsure)
    fleet.rotate("head", "revocations")
    trusted = after(trusted, (Kind.ROOT, fleet.root(2, iat=NOON + 10)))
    assert refusal(trusted, Kind.HEAD, fleet.head(2, {}, iat=NOON + 20)) == Reason.ROLLED_BACK
    fleet.epoch = 2
    trusted = after(trusted, (Kind.ROOT, fleet.root(3, iat=NOON + 20)))
    assert after(trusted, (Kind.HEAD, fleet.head(2, {}, iat=NOON + 20))).head


def test_a_key_that_is_added_forgets_nothing(fleet: Authority) -> None:
    trusted = with_roster(fleet, 5)
    fleet.signers["head"].append(fresh())
    fleet.signers["bundle"].append(fresh())
    accepted = trusted.take(Kind.ROOT, fleet.root(2), NOW)
    assert accepted.trusted.complete
    assert accepted.forgotten == ()
    second = fleet.head(4, {}, by=fleet.signers["head"][1:])
    assert refusal(accepted.trusted, Kind.HEAD, second) == Reason.ROLLED_BACK


def test_a_role_that_takes_more_than_before_forgets_what_one_has_signed(fleet: Authority) -> None:
    trusted = with_roster(fleet)
    fleet.signers["bundle"].append(fresh())
    fleet.thresholds["bundle"] = 2
    assert trusted.take(Kind.ROOT, fleet.root(2), NOW).forgotten == ("bundle/roster",)


def test_a_stolen_bundle_key_takes_its_rows_with_it(fleet: Authority) -> None:
    trusted = with_roster(fleet)
    fleet.rotate("bundle")
    accepted = trusted.take(Kind.ROOT, fleet.root(2), NOW)
    assert accepted.forgotten == ("bundle/roster",)
    assert accepted.records["trust/doc/bundle/roster"] is None
    assert not accepted.trusted.complete


# -- revocations ------------------------------------------------------------------------------------


def test_revocations_need_no_head_and_only_ever_grow(fleet: Authority) -> None:
    one = fleet.revocations(1, of={"subjects": ["drv-7"], "grants": ["g-1"]})
    two = fleet.revocations(2, of={"credentials": [bytes(range(16)).hex()]})
    trusted = after(fleet.trusted(), (Kind.REVOCATIONS, one), (Kind.REVOCATIONS, two))
    assert trusted.is_revoked("drv-7")
    assert trusted.is_revoked(credential=bytes(range(32)))
    assert trusted.is_withdrawn("g-1")
    assert not trusted.is_revoked("drv-8", bytes(32))
    assert not trusted.is_revoked()
    assert refusal(trusted, Kind.REVOCATIONS, one) == Reason.ROLLED_BACK


def test_revocations_that_are_newer_than_the_head_are_what_it_names(fleet: Authority) -> None:
    one, two = fleet.revocations(1), fleet.revocations(2)
    trusted = after(fleet.trusted(), (Kind.REVOCATIONS, two))
    assert refusal(trusted, Kind.HEAD, fleet.head(1, {"revocations": one})) == Reason.ROLLED_BACK
    trusted = after(fleet.trusted(), (Kind.HEAD, fleet.head(1, {"revocations": one})))
    assert not trusted.complete
    assert after(trusted, (Kind.REVOCATIONS, two)).complete
    assert refusal(trusted, Kind.REVOCATIONS, fleet.revocations(1)) == Reason.MIXED


def test_a_revoked_key_signs_nothing_and_what_it_signed_is_forgotten(fleet: Authority) -> None:
    trusted = with_roster(fleet)
    stolen = fleet.signers["bundle"][0]
    fleet.signers["bundle"].append(fresh())
    trusted = after(trusted, (Kind.ROOT, fleet.root(2)))
    accepted = trusted.take(Kind.REVOCATIONS, fleet.revocations(1, of={"keys": [stolen.kid]}), NOW)
    assert accepted.forgotten == ("bundle/roster",)
    other = fleet.bundle("roster", 2, by=[stolen])
    assert refusal(accepted.trusted, Kind.BUNDLE, other) == Reason.UNKNOWN_KEY


def test_who_revokes_keys_cannot_depose_the_root(fleet: Authority) -> None:
    everyone = [each.kid for each in fleet.roots]
    trusted = after(fleet.trusted(), (Kind.REVOCATIONS, fleet.revocations(1, of={"keys": everyone})))
    assert after(trusted, (Kind.ROOT, fleet.root(2))).root.ver == 2


def test_there_is_a_bound_to_what_can_be_revoked(fleet: Authority) -> None:
    trusted = fleet.trusted()

    def many(n: int) -> dict[str, list[str]]:
        return {"credentials": [f"{n * 1800 + each:032x}" for each in range(1800)]}

    for n in range(36):
        trusted = after(trusted, (Kind.REVOCATIONS, fleet.revocations(n + 1, of=many(n))))
    assert refusal(trusted, Kind.REVOCATIONS, fleet.revocations(37, of=many(36))) == Reason.OVERSIZED


# -- what is remembered -----------------------------------------------------------------------------


def remembered(fleet: Authority, first: bytes) -> tuple[Trusted, dict[str, Any]]:
    """A state with something of everything, and the records that led to it."""
    trusted = Trusted.pin(first, SELF)
    records: dict[str, Any] = trusted.dump()
    roster, grants = fleet.bundle("roster", 3), fleet.bundle("grants", 1)
    documents = [
        (Kind.ROOT, fleet.root(2)),
        (Kind.REVOCATIONS, fleet.revocations(4, of={"subjects": ["drv-7"], "keys": ["0" * 16]})),
        (Kind.HEAD, fleet.head(2, {"bundle/roster": roster, "bundle/grants": grants})),
        (Kind.BUNDLE, roster),
        (Kind.BUNDLE, grants),
    ]
    for kind, raw in documents:
        accepted = trusted.take(kind, raw, NOW)
        trusted = accepted.trusted
        for key, value in accepted.records.items():
            records.pop(key, None) if value is None else records.update({key: value})
    return trusted, records


def test_the_records_of_every_step_add_up_to_the_state(fleet: Authority) -> None:
    first = fleet.root()
    trusted, records = remembered(fleet, first)
    assert records == trusted.dump()
    assert Trusted.load(first, SELF, records) == trusted


def test_what_is_fully_known_is_remembered_too(fleet: Authority) -> None:
    first = fleet.root()
    trusted, _ = remembered(fleet, first)
    known = trusted.known()
    assert (trusted.knowledge_at, known.knowledge_at) == (None, NOON)
    assert Trusted.load(first, SELF, known.dump()) == known
    lacking = after(known, (Kind.HEAD, fleet.head(3, {"bundle/roster": (9, HASH)}, iat=NOON + 9)))
    assert lacking.known().knowledge_at == NOON, (
        "freshness does not grow by a head whose documents are not here"
    )


def test_another_root_put_here_by_hand_starts_anew_but_revives_nobody(fleet: Authority) -> None:
    _, records = remembered(fleet, fleet.root())
    again = Trusted.load(Authority().root(), SELF, records)
    assert (again.head, again.held, again.root.ver) == (None, {}, 1)
    assert again.is_revoked("drv-7")


def test_what_is_remembered_outlives_the_file_of_the_root(fleet: Authority) -> None:
    first = fleet.root()
    trusted, records = remembered(fleet, first)
    assert Trusted.load(None, SELF, records) == trusted
    with pytest.raises(Refused, match="expected a root"):
        Trusted.load(None, SELF, {})


def test_a_document_that_can_be_read_no_more_is_brought_again_as_the_head_has_it(fleet: Authority) -> None:
    first = fleet.root()
    trusted, records = remembered(fleet, first)
    records["trust/doc/bundle/roster"]["raw"] = "rotten"
    again = Trusted.load(first, SELF, records)
    assert (again.complete, again.head) == (False, trusted.head)
    assert refusal(again, Kind.BUNDLE, fleet.bundle("roster", 2)) == Reason.ROLLED_BACK
    assert after(again, (Kind.BUNDLE, trusted.held["bundle/roster"].raw)).complete
    records["trust/head"]["raw"] = "rotten"
    with pytest.raises(Refused):
        Trusted.load(first, SELF, records)


def test_a_device_without_records_trusts_its_root_alone(fleet: Authority) -> None:
    assert Trusted.load(fleet.root(), SELF, {}).dump().keys() == {"trust/root", "trust/since"}


def test_commands_and_times_are_opened_but_not_kept(fleet: Authority) -> None:
    trusted = fleet.trusted()
    raw = fleet.made(Kind.TIME, {"nonce": "A" * 22, "utc": 1}, 1)
    assert trusted.open(Kind.TIME, raw).body.utc == 1
    assert refusal(trusted, Kind.TIME, raw) == Reason.NOT_PERMITTED
    body = {"class": "E", "name": "emergency_lock", "args": {}, "operator": "op", "reason": "theft"}
    for role in ("command", "emergency"):
        signers: list[Signer] = fleet.signers[role]
        document = trusted.open(Kind.COMMAND, fleet.made(Kind.COMMAND, body, 1, signers))
        assert document.signers == (signers[0].kid,)
