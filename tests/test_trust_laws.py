"""Whatever order two hundred signed documents arrive in, what is believed never goes back and never mixes."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from agent.clock import Moment
from agent.documents import Head
from agent.envelope import Envelope, Kind, Refused
from agent.jws import cosign
from agent.trust import BUNDLES, Trusted
from tests.authority import DAY, NOON, SELF, Authority, fresh
from tests.moments import moment

Told = tuple[Kind, bytes]
ROUNDS = 20
NOW = moment(60)


def usurped(fleet: Authority, ver: int) -> bytes:
    """A root of strangers, who have not signed it: two of those that are trusted now were made to."""
    ours, fleet.roots = fleet.roots, [fresh() for _ in range(3)]
    try:
        return fleet.root(ver, by=ours[:2])
    finally:
        fleet.roots = ours


def story() -> tuple[bytes, list[list[Told]], list[Told], set[Told]]:
    """The first root, rounds of what is told, the newest of each kind, and what is never to be believed."""
    fleet = Authority()
    first = root = fleet.root()
    rounds: list[list[Told]] = []
    newest: list[Told] = []
    never: set[Told] = set()
    before = fleet.bundle("roster", 1)
    for ver in range(1, ROUNDS + 1):
        roster, grants = fleet.bundle("roster", ver + 1), fleet.bundle("grants", 2 * ver)
        lists = fleet.revocations(ver, of={"subjects": [f"drv-{ver}"]})
        if ver % 7 == 0:
            fleet.signers["head"].append(fresh())
            root = fleet.root(1 + ver // 7)
        pins = {"root": root, "bundle/roster": roster, "bundle/grants": grants, "revocations": lists}
        head = fleet.head(2 * ver, pins)
        newest = [
            (Kind.ROOT, root),
            (Kind.HEAD, head),
            (Kind.BUNDLE, roster),
            (Kind.BUNDLE, grants),
            (Kind.REVOCATIONS, lists),
        ]
        wrong = [
            (Kind.BUNDLE, fleet.bundle("roster", ver + 1)),  # another one of the same version
            (Kind.HEAD, fleet.head(2**63 + ver, pins)),  # fast-forwarded
            (Kind.HEAD, fleet.head(2 * ver, pins, iat=NOON - 2 * DAY)),  # frozen
            (Kind.BUNDLE, fleet.bundle("grants", 2 * ver, aud="acme/locker-18")),  # of another device
            (Kind.HEAD, fleet.head(2 * ver, pins, by=[fresh()])),  # forged
            (Kind.HEAD, fleet.made(Kind.HEAD, {"documents": {}}, 2 * ver + 1, exp_in=2 * DAY)),  # would last
            (Kind.ROOT, fleet.root(900 + ver, by=fleet.roots[:1])),  # one root key of three
            (Kind.ROOT, usurped(fleet, 900 + ver)),
        ]
        never |= set(wrong)
        # Newer than the head and signed like it, but it names the roster of before: a way back for some.
        later = 1 if ver < ROUNDS else -1
        back = fleet.head(2 * ver + later, {**pins, "bundle/roster": before})
        # The same in another text: it counts, and must keep no head out that names the true one.
        same = [(Kind.ROOT, cosign(root, fresh())), (Kind.REVOCATIONS, cosign(lists, fresh()))]
        rounds.append([*newest, *wrong, (Kind.HEAD, back), *same])
        before = roster
    return first, rounds, newest, never


FIRST, ROUNDS_TOLD, NEWEST, NEVER = story()
TOLD = [each for round_ in ROUNDS_TOLD for each in round_]
HEADS = [
    Head.model_validate(Envelope.parse(Kind.HEAD, raw).claims(Kind.HEAD).body)
    for kind, raw in TOLD
    if kind is Kind.HEAD and (kind, raw) not in NEVER
]


def versions(trusted: Trusted) -> dict[str, int]:
    found = {name: document.ver for name, document in trusted.held.items()}
    return {**found, "root": trusted.root.ver, "head": trusted.head.ver if trusted.head else 0}


def one_set(trusted: Trusted) -> bool:
    """Whether some head names exactly the bundles that are in force."""
    held = {name: trusted.held[name].pin for name in BUNDLES if name in trusted.held}
    return not held or any({n: head.pin(n) for n in held} == held and len(held) == 2 for head in HEADS)


class Device(RuleBasedStateMachine):
    """A device that is told anything, in any order, again and again, and is switched off in between."""

    @initialize()
    def pinned(self) -> None:
        self.trusted = Trusted.pin(FIRST, SELF)
        self.records: dict[str, Any] = self.trusted.dump()
        self.now = NOW
        self.least = versions(self.trusted)
        self.revoked = self.trusted.revoked

    @rule(number=st.integers(0, len(TOLD) - 1))
    def told(self, number: int) -> None:
        try:
            accepted = self.trusted.take(*TOLD[number], self.now)
        except Refused:
            return
        for key, value in accepted.records.items():
            self.records.pop(key, None) if value is None else self.records.update({key: value})
        self.trusted = accepted.trusted

    @rule(number=st.integers(0, ROUNDS - 1), order=st.permutations(range(len(ROUNDS_TOLD[0]))))
    def told_a_whole_round(self, number: int, order: list[int]) -> None:
        for step in order:
            self.told(number * len(order) + step)
            self.nothing_is_mixed()

    @rule()
    def switched_off_and_on(self) -> None:
        self.trusted = Trusted.load(FIRST, SELF, self.records)

    @rule(hours=st.integers(1, 10))
    def time_passes(self, hours: int) -> None:
        mono_s = self.now.mono_ns / 1e9 + hours * 3600
        self.now = moment(mono_s) if mono_s < DAY - 3600 else self.now

    @invariant()
    def nothing_goes_back(self) -> None:
        new = versions(self.trusted)
        assert all(new.get(name, -1) >= least for name, least in self.least.items())
        assert self.trusted.revoked.subjects >= self.revoked.subjects
        self.least, self.revoked = new, self.trusted.revoked

    @invariant()
    def nothing_is_mixed(self) -> None:
        assert one_set(self.trusted)

    @invariant()
    def nothing_wrong_is_believed(self) -> None:
        believed = [self.trusted.root, *self.trusted.held.values(), *self.trusted.staged.values()]
        assert not {(document.kind, document.raw) for document in believed} & NEVER
        assert self.trusted.head is None or (Kind.HEAD, self.trusted.head.raw) not in NEVER

    @invariant()
    def everything_is_remembered(self) -> None:
        assert self.records == self.trusted.dump()


TestDevice = Device.TestCase
TestDevice.settings = settings(max_examples=40, stateful_step_count=60, deadline=None)


def told_all(trusted: Trusted, told: list[Told], now: Moment = NOW) -> Trusted:
    for kind, raw in told:
        try:
            trusted = trusted.take(kind, raw, now).trusted
        except Refused:
            continue
        assert one_set(trusted)
    return trusted


@given(st.permutations(range(len(TOLD))))
@settings(max_examples=15, deadline=None)
def test_whatever_came_before_the_newest_documents_are_believed_in_the_end(order: list[int]) -> None:
    trusted = told_all(Trusted.pin(FIRST, SELF), [TOLD[n] for n in order])
    trusted = told_all(trusted, NEWEST)
    assert trusted.complete
    assert trusted.head is not None
    assert (trusted.head.ver, trusted.held["bundle/grants"].ver) == (2 * ROUNDS, 2 * ROUNDS)
    assert len(trusted.revoked.subjects) >= 1


def test_the_story_has_two_hundred_documents_of_every_sort() -> None:
    assert len(TOLD) >= 200
    assert len(NEVER) == 8 * ROUNDS
