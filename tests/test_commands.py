"""Which commands are carried out, how often, and for how long. Everything else is refused for a reason."""

import json
from typing import Any

import pytest

from agent import emergency
from agent.admission import FIRST, LEAP
from agent.clock import NS, Moment, Trust
from agent.commands import (
    COMMANDS,
    RANKS,
    RESEND_MOST,
    WINDOW,
    Admitted,
    Again,
    Outcome,
    Resend,
    admit,
    settled,
    unsettled,
)
from agent.documents import Role
from agent.envelope import Kind, Reason, Refused
from agent.jws import Signer
from agent.receipts import ROLLED_BACK
from agent.signed_time import Asked
from tests.authority import NOON, SELF, Authority, fresh
from tests.moments import moment

NOW = moment(0)
ARGS: dict[str, dict[str, Any]] = {
    "locate": {"unit": "scanner"},
    "log_level": {"level": "debug"},
    "diagnostics": {"lines": 10},
    "reload_bundle": {"kind": "roster"},
    "unlock_subject": {"subject": "drv-7"},
    "confirm_config": {"version": 7, "sha256": "0" * 64},
    "rotate_keys": {"keys": ["certificate"]},
    "confirm_keys": {"request": 7, "chain": []},
    "open_door": {"unit": "doors", "door": 7},
    "resend": {"first": 900, "last": 1000, "epoch": "e1"},
    "open_doors": {"unit": "doors", "doors": [1, 2, 5]},
}


@pytest.fixture
def fleet() -> Authority:
    made = Authority()
    made.signers["command"] = [fresh(), fresh(), fresh()]
    return made


class Device:
    """What remembers, as the journal does."""

    def __init__(self, fleet: Authority) -> None:
        self.fleet = fleet
        self.trusted = fleet.trusted()
        self.records: dict[str, Any] = {}
        self.asked: Asked | None = None

    def told(self, raw: bytes, now: Moment = NOW) -> Admitted | Again:
        result = admit(
            self.trusted.open(Kind.COMMAND, raw),
            self.trusted.root.body,
            SELF,
            now=now,
            asked=self.asked,
            records=self.records,
        )
        if isinstance(result, Admitted):
            self.records.update(result.records)
        return result

    def refuses(self, raw: bytes, now: Moment = NOW) -> Reason:
        before = dict(self.records)
        with pytest.raises(Refused) as refused:
            self.told(raw, now)
        assert self.records == before
        return refused.value.reason

    def command(self, name: str = "open_door", **changes: Any) -> bytes:
        """A right one, but for the changes."""
        rank, seq = COMMANDS[name][0] if name in COMMANDS else "A", changes.pop("seq", 1)
        body = {
            "class": rank,
            "name": name,
            "args": ARGS.get(name, {}),
            "operator": "op-1",
            "reason": "stuck parcel",
        }
        claims = {key: changes.pop(key) for key in ("iat", "aud", "exp_in", "jti") if key in changes}
        role = "emergency" if rank == "E" else "command"
        signers = self.fleet.signers[role][: RANKS[rank].signatures]
        by: list[Signer] = changes.pop("by", signers)
        given = {"exp_in": 60, **claims}
        return self.fleet.made(Kind.COMMAND, {**body, **changes}, seq, by, **given)


@pytest.fixture
def device(fleet: Authority) -> Device:
    return Device(fleet)


# -- classes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_admitted_as_its_class(device: Device, name: str) -> None:
    admitted = device.told(device.command(name))
    assert isinstance(admitted, Admitted)
    assert admitted.args.model_dump() == ARGS.get(name, {})
    assert admitted.told["name"] == name


@pytest.mark.parametrize("name", COMMANDS)
def test_no_command_lives_longer_than_its_class_may(device: Device, name: str) -> None:
    longest_s = RANKS[COMMANDS[name][0]].longest_s
    assert device.refuses(device.command(name, exp_in=longest_s + 1)) == Reason.NOT_PERMITTED
    assert isinstance(device.told(device.command(name, exp_in=longest_s)), Admitted)


def test_a_command_is_of_the_class_it_says_or_none(device: Device) -> None:
    assert device.refuses(device.command("open_door", **{"class": "A"})) == Reason.NOT_PERMITTED
    assert device.refuses(device.command("make_coffee")) == Reason.NOT_PERMITTED
    assert device.refuses(device.command(args={"unit": "doors"})) == Reason.SCHEMA
    assert device.refuses(device.command(args={"unit": "doors", "door": 7, "times": 50})) == Reason.SCHEMA


@pytest.mark.parametrize(
    "args",
    [
        {},
        {"first": 0, "last": 9},
        {"first": 9, "last": 8},
        {"first": 1, "last": 1 + RESEND_MOST},
        {"first": "1", "last": 9},
        {"first": 1, "to": 9},
    ],
)
def test_what_is_to_be_sent_again_is_bounded(device: Device, args: dict[str, Any]) -> None:
    assert device.refuses(device.command("resend", args=args)) == Reason.SCHEMA


def test_as_much_as_may_be_asked_for_is_meant_where_no_end_is_said(device: Device) -> None:
    admitted = device.told(device.command("resend", args={"first": 7}))
    assert isinstance(admitted, Admitted)
    assert isinstance(admitted.args, Resend)
    assert admitted.args.end == 6 + RESEND_MOST


@pytest.mark.parametrize("missing", [{"operator": ""}, {"reason": ""}])
def test_who_opens_a_door_says_who_and_why(device: Device, missing: dict[str, str]) -> None:
    assert device.refuses(device.command(**missing)) == Reason.NOT_PERMITTED


@pytest.mark.parametrize("aud", ["acme/*", "acme/@north"])
def test_a_door_is_opened_at_one_device_and_not_at_all_of_a_group(device: Device, aud: str) -> None:
    assert device.refuses(device.command(aud=aud)) == Reason.WRONG_AUDIENCE
    assert isinstance(device.told(device.command("status", aud=aud)), Admitted)


def test_the_key_of_the_lock_opens_nothing_and_the_key_of_doors_does_not_lock(device: Device) -> None:
    signers = device.fleet.signers
    assert device.refuses(device.command(by=signers["emergency"])) == Reason.UNKNOWN_KEY
    assert device.refuses(device.command("emergency_lock", by=signers["command"])) == Reason.UNKNOWN_KEY


def test_what_is_many_takes_two_signatures_of_two_keys(device: Device) -> None:
    one, two, three = device.fleet.signers["command"]
    stranger, emergency = fresh(), device.fleet.signers["emergency"][0]
    for signers in ([one], [one, stranger], [one, emergency]):
        assert device.refuses(device.command("open_doors", by=signers)) == Reason.BELOW_THRESHOLD
    whole = json.loads(device.command("open_doors", by=[one, two]))
    whole["signatures"] = whole["signatures"][:1] * 2
    assert device.refuses(json.dumps(whole).encode()) == Reason.MALFORMED
    for seq, signers in enumerate(([one, two], [three, one], [three, two]), 1):
        assert isinstance(device.told(device.command("open_doors", by=signers, seq=seq)), Admitted)


@pytest.mark.parametrize(
    "args",
    [
        {"doors": []},
        {"doors": [0]},
        {"doors": "some"},
        {"doors": [1, 1]},
        {"doors": list(range(1, 514))},
        {"unit": "doors"},
        {"doors": "all", "unit": "Doors!"},
    ],
)
def test_which_doors_is_said_in_one_way(device: Device, args: dict[str, Any]) -> None:
    assert device.refuses(device.command("open_doors", args=args)) == Reason.SCHEMA


@pytest.mark.parametrize("record", ["emergency", "journal"])
def test_many_doors_are_not_opened_where_one_is_not(device: Device, record: str) -> None:
    told = {"origin": "acme/locker-17/e", "size": 9, "cosigned": 99, "root": "..."}
    device.records |= emergency.locked(NOW, "c0") if record == "emergency" else {ROLLED_BACK: told}
    assert device.refuses(device.command("open_doors")) == Reason.NOT_PERMITTED


def test_a_root_can_ask_for_more_signatures_but_never_for_fewer(fleet: Authority) -> None:
    fleet.thresholds["command"] = 2
    device = Device(fleet)
    assert device.refuses(device.command(by=fleet.signers["command"][:1])) == Reason.BELOW_THRESHOLD
    assert isinstance(device.told(device.command(by=fleet.signers["command"][:2])), Admitted)


def test_the_bounds_of_the_classes_are_those_that_were_decided() -> None:
    """Compiled in: nothing from afar loosens them."""
    limits = {
        rank: (each.role, each.signatures, each.longest_s, [(b.times, b.within_s) for b in each.budgets])
        for rank, each in RANKS.items()
    }
    assert limits == {
        "A": (Role.COMMAND, 1, 3600, [(60, 3600)]),
        "B": (Role.COMMAND, 1, 86_400, [(10, 3600)]),
        "C": (Role.COMMAND, 1, 120, [(3, 600), (10, 86_400)]),
        "D": (Role.COMMAND, 2, 600, []),
        "E": (Role.EMERGENCY, 1, 3600, []),
    }
    assert [rank for rank, each in RANKS.items() if each.present] == ["D"]


# -- time -------------------------------------------------------------------------------------------


def test_a_command_has_its_time(device: Device) -> None:
    raw = device.command(exp_in=120)
    assert device.refuses(raw, moment(120)) == Reason.EXPIRED
    assert device.refuses(device.command(iat=NOON + 301), moment(0)) == Reason.NOT_YET_VALID
    assert isinstance(device.told(raw, moment(119)), Admitted)


@pytest.mark.parametrize("trust", [Trust.NONE, Trust.GPS])
@pytest.mark.parametrize("off_s", [-3650 * 86_400, 0, 3650 * 86_400])
def test_who_does_not_know_the_time_takes_only_what_was_made_for_this_connection(
    device: Device, trust: Trust, off_s: int
) -> None:
    sure = moment(0, trust=trust)
    lost = Moment(sure.boot, sure.mono_ns, sure.utc_ns + off_s * NS, trust)
    assert device.refuses(device.command(), lost) == Reason.NOT_YET_VALID
    device.asked = Asked("A" * 22, 0)
    assert device.refuses(device.command(), lost) == Reason.NOT_YET_VALID
    assert device.refuses(device.command(nonce="B" * 21 + "A"), lost) == Reason.REPLAYED
    assert isinstance(device.told(device.command(nonce="A" * 22), lost), Admitted)


def test_a_nonce_lives_no_longer_than_the_class(device: Device) -> None:
    device.asked = Asked("A" * 22, 0)
    raw = device.command(nonce="A" * 22)
    assert device.refuses(raw, moment(121, trust=Trust.NONE)) == Reason.EXPIRED


def test_a_nonce_of_another_connection_is_none_whatever_the_clock(device: Device) -> None:
    assert device.refuses(device.command(nonce="A" * 22)) == Reason.REPLAYED
    device.asked = Asked("A" * 21 + "Q", 0)
    assert device.refuses(device.command(nonce="A" * 22)) == Reason.REPLAYED


# -- once -------------------------------------------------------------------------------------------


def test_the_same_command_again_is_answered_with_what_came_of_it(device: Device) -> None:
    raw = device.command()
    first = device.told(raw)
    assert isinstance(first, Admitted)
    assert device.told(raw) == Again(first.told, None)
    device.records.update(settled(first.told, Outcome.SUCCEEDED, device.records))
    assert device.told(raw) == Again(first.told, Outcome.SUCCEEDED)


def test_another_command_under_a_sequence_that_was_used_is_a_replay(device: Device) -> None:
    device.told(device.command(seq=5))
    assert device.refuses(device.command(seq=5)) == Reason.REPLAYED


def test_commands_may_overtake_each_other_within_the_window(device: Device) -> None:
    device.told(device.command("status", seq=100))
    assert isinstance(device.told(device.command("status", seq=100 - WINDOW + 1)), Admitted)
    assert device.refuses(device.command("status", seq=100 - WINDOW)) == Reason.REPLAYED
    device.told(device.command("status", seq=101))
    assert device.refuses(device.command("status", seq=100 - WINDOW + 1)) == Reason.REPLAYED


def test_a_sequence_cannot_be_driven_far_ahead(device: Device) -> None:
    """Else one command, by mistake or by a thief, would be the last that its key could give."""
    assert device.refuses(device.command("status", seq=FIRST + 1)) == Reason.FAST_FORWARD
    device.told(device.command("status", seq=7))
    for seq in (7 + LEAP + 1, 2**63, 2**64 - 1):
        assert device.refuses(device.command("status", seq=seq)) == Reason.FAST_FORWARD
    assert isinstance(device.told(device.command("status", seq=7 + LEAP)), Admitted)


def test_each_key_counts_for_itself(fleet: Authority) -> None:
    fleet.signers["command"].append(fresh())
    device = Device(fleet)
    for key in fleet.signers["command"]:
        assert isinstance(device.told(device.command("status", seq=9, by=[key])), Admitted)


def test_no_more_is_remembered_than_the_window(device: Device) -> None:
    device.records["budget/A"] = []
    for seq in range(1, 3 * WINDOW):
        device.told(device.command("status", seq=seq, exp_in=3600), moment(seq))
        device.records["budget/A"] = []
    (line,) = [each for key, each in device.records.items() if key.startswith("trust/seq/")]
    assert (line["last"], len(line["seen"])) == (3 * WINDOW - 1, WINDOW)


def test_what_has_no_outcome_is_known_at_the_next_start(device: Device) -> None:
    first, second = device.told(device.command(seq=1)), device.told(device.command("status", seq=2))
    assert isinstance(first, Admitted)
    assert isinstance(second, Admitted)
    device.records.update(settled(second.told, Outcome.SUCCEEDED, device.records))
    assert unsettled(device.records) == [first.told]


# -- budgets ----------------------------------------------------------------------------------------


def opens(device: Device, at_s: float, seq: int, boot: str = "boot-1", trust: Trust = Trust.NTP) -> bool:
    now = moment(at_s, boot, trust)
    try:
        device.told(device.command(seq=seq, iat=now.utc_ns // NS), now)
    except Refused as refused:
        if refused.reason is not Reason.BUDGET:
            raise
        return False
    return True


def test_of_fifty_right_commands_at_once_three_open(device: Device) -> None:
    assert [opens(device, 0, seq) for seq in range(1, 51)] == [True] * 3 + [False] * 47


def test_doors_open_three_times_in_ten_minutes_and_ten_times_a_day(device: Device) -> None:
    minutes = range(2 * 24 * 60)
    opened = [minute * 60 for minute in minutes if opens(device, minute * 60, minute + 1)]
    for start in opened:
        assert sum(start <= at_s < start + 600 for at_s in opened) <= 3
        assert sum(start <= at_s < start + 86_400 for at_s in opened) <= 10
    assert len(opened) == 20


def test_a_budget_that_is_spent_uses_up_no_sequence(device: Device) -> None:
    for seq in range(1, 4):
        opens(device, 0, seq)
    assert not opens(device, 590, 4)
    assert opens(device, 601, 4)


def test_a_reboot_gives_no_budget_back(device: Device) -> None:
    for seq in range(1, 4):
        opens(device, 0, seq)
    assert not opens(device, 5, 4, "boot-2")
    assert not opens(device, 599, 4, "boot-2")
    assert opens(device, 601, 4, "boot-2")


def test_a_day_that_passed_without_power_has_passed(device: Device) -> None:
    for n in range(10):
        assert opens(device, 600 * n, n + 1)
    later = Moment("boot-2", NS, NOW.utc_ns + 2 * 86_400 * NS, Trust.NTP)
    raw = device.command(seq=11, iat=later.utc_ns // NS)
    assert isinstance(device.told(raw, later), Admitted)


def test_each_class_has_its_own_budget(device: Device) -> None:
    for seq in range(1, 4):
        opens(device, 0, seq)
    assert isinstance(device.told(device.command("status", seq=4)), Admitted)


# -- what the device's own state forbids ------------------------------------------------------------


def test_while_the_emergency_lock_is_in_force_no_door_opens(device: Device) -> None:
    device.records |= emergency.locked(NOW, "x")
    assert device.refuses(device.command()) == Reason.NOT_PERMITTED
    assert isinstance(device.told(device.command("status")), Admitted)
    device.records |= emergency.released()
    assert isinstance(device.told(device.command(seq=2)), Admitted)


def test_the_emergency_lock_ends_after_a_day_and_not_by_a_reboot() -> None:
    records = emergency.locked(NOW, "x")
    assert emergency.in_force(records, moment(86_399))
    assert not emergency.in_force(records, moment(86_400))
    assert emergency.in_force(records, moment(10, "boot-2")), "civil time says ten seconds"
    later = Moment("boot-2", 10 * NS, NOW.utc_ns + 86_400 * NS, Trust.NTP)
    assert not emergency.in_force(records, later)
    unsure = Moment("boot-2", 10 * NS, NOW.utc_ns + 86_400 * NS, Trust.NONE)
    assert emergency.in_force(records, unsure), "nobody knows what time it is"
    assert not emergency.in_force({}, NOW)


def test_an_older_copy_of_the_journal_opens_no_door(device: Device) -> None:
    device.records["rolled_back"] = {"origin": "x", "size": 1}
    assert device.refuses(device.command()) == Reason.NOT_PERMITTED
