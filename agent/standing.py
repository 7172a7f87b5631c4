"""What the fleet has told, as it stands at one moment: how old it is, whom it revokes, what it announced.

Decisions get it as an argument beside the event, as they get the time. Where no root of the fleet is pinned
the operator at the device is the authority: then knowledge has no age that counts, and rows end by their
own date alone.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from agent.clock import NS, Moment
from agent.freshness import Freshness, Ladder

NEVER = float("-inf")
"""When the fleet was last heard of by a device that has its root and nothing else."""


def _nobody(_subject: str | None, _credential: bytes | None) -> bool:
    return False


def _nothing(_names: Collection[str]) -> bool:
    return False


def _no_names() -> Collection[str]:
    return ()


def _no_root() -> float | None:
    return None


def _no_manifest() -> Callable[[str], bool] | None:
    return None


def age(known_at: float, now: Moment) -> float | None:
    """The age in seconds of what was known then, as it is told; None for NEVER."""
    return None if known_at == NEVER else max(0.0, round(now.utc_ns / NS - known_at, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a decision may rest on."""

    age_s: float | None = None
    freshness: Freshness | None = None
    """None where no fleet is the authority."""
    is_revoked: Callable[[str | None, bytes | None], bool] = _nobody
    """Of a subject, of a credential (the first half of its row's `v`), or of both."""
    withdrawn: Callable[[Collection[str]], bool] = _nothing
    """Whether one of these credentials was revoked, by their names in `Verdict.credentials`."""
    announced: Callable[[str], bool] | None = None
    """Whether the manifest names a parcel; None where no manifest is held."""

    def revokes(self, *subjects: str) -> bool:
        """Whether one of these people is trusted no longer."""
        return any(self.is_revoked(subject, None) for subject in subjects)

    def expects(self, label: str) -> bool:
        """Whether a parcel was announced, as far as anybody here can know."""
        return self.announced is None or self.announced(label)


ALONE = Standing()
"""No fleet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Authority:
    """Where a standing comes from."""

    ladder: Ladder = field(default_factory=Ladder)
    knowledge_at: Callable[[], float | None] = _no_root
    """Seconds since 1970 UTC of the newest complete word of the fleet, NEVER before the first; None
    without a root."""
    listed_at: Callable[[], float | None] = _no_root
    """Seconds since 1970 UTC at which the fleet has signed the roster that is held; None without one."""
    is_revoked: Callable[[str | None, bytes | None], bool] = _nobody
    revoked_credentials: Callable[[], Collection[str]] = _no_names
    """All that are revoked, in hex: the first half of each one's `v`."""
    manifest: Callable[[], Callable[[str], bool] | None] = _no_manifest

    def standing(self, now: Moment) -> Standing:
        known_at = self.knowledge_at()
        if known_at is None:
            return Standing(is_revoked=self.is_revoked, announced=self.manifest())
        age_s = age(known_at, now)
        return Standing(
            age_s=age_s,
            freshness=self.ladder.judge(age_s, assured=now.assured),
            is_revoked=self.is_revoked,
            announced=self.manifest(),
        )
