"""What has become of the configs that the fleet sent. Pure: a course in, a course out.

    course = course.begun(edition, boot=..., until_ns=..., required=("gun",))
    course = course.started(boot, mono_ns)      # at each start of the agent, before anything else
    course = course.kept()                      # or course.reverted([reason])

A trial ends in one of two ways: kept, by somebody who says so in time, or not. Three starts that came to
nothing, another boot and the end of its time are each the second. Whoever saves the course before acting on
it can be killed at any time.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import Any, Self

from agent.mistakes import Mistake

CRASHES = 3
"""Starts that ended in nothing, after which a trial is over."""


NOTHING: Mapping[str, Any] = {"version": None, "sha256": None, "state": None, "reasons": []}
"""What is reported before anything has come of a config."""


class State(StrEnum):
    """What the fleet is told of a config."""

    TRIAL = "trial"
    CONFIRMED = "confirmed"
    REFUSED = "refused"
    REVERTED = "reverted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Edition:
    """One config document, and where its text is."""

    version: int
    sha256: str
    """Of the envelope, in hex."""
    text: str
    """SHA-256 of the text, in hex: the name of its file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A config that runs, and that nobody has confirmed yet."""

    edition: Edition
    boot: str
    until_ns: int
    """By the monotonic clock of this boot."""
    starts: int = 0
    required: tuple[str, ...] = ()
    """Units that must be ready."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of the last document."""

    state: State
    version: int
    sha256: str
    reasons: tuple[Mapping[str, str], ...] = ()
    told: bool = False
    """Whether its entry is in the journal."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Everything that is remembered about configs from afar. What may never go back is not among it."""

    confirmed: Edition | None = None
    trial: Trial | None = None
    outcome: Outcome | None = None
    checked: Mapping[str, Any] | None = None
    """What a dry run said: `version`, `sha256`, and what would change or be refused."""
    seen: tuple[int, str] | None = None
    """Version and hash of the last document that something came of."""

    # -- what follows -----------------------------------------------------------------------------

    def begun(self, edition: Edition, *, boot: str, until_ns: int, required: Iterable[str]) -> Self:
        """A trial begins with the next start."""
        trial = Trial(edition=edition, boot=boot, until_ns=until_ns, required=tuple(required))
        return replace(self, trial=trial, outcome=None, seen=(edition.version, edition.sha256))

    def started(self, boot: str, mono_ns: int) -> Self:
        """The agent starts: the trial goes on, or is over."""
        trial = self.trial
        if trial is None:
            return self
        if trial.boot != boot:
            return self.reverted([reason("trial", "the boot it began in", "a restart of the device")])
        if trial.starts >= CRASHES:
            return self.reverted(
                [
                    reason(
                        "trial",
                        f"fewer than {CRASHES} starts that ended without an outcome",
                        f"{trial.starts}",
                    )
                ]
            )
        if mono_ns >= trial.until_ns:
            return self.reverted([reason("trial", "a confirmation in time", "none")])
        return replace(self, trial=replace(trial, starts=trial.starts + 1))

    def kept(self) -> Self:
        """The trial was confirmed and everything is well."""
        assert self.trial is not None
        return self.adopted(self.trial.edition)

    def adopted(self, edition: Edition) -> Self:
        """This config is the one to go back to from now on."""
        outcome = Outcome(state=State.CONFIRMED, version=edition.version, sha256=edition.sha256)
        seen = (edition.version, edition.sha256)
        return replace(self, confirmed=edition, trial=None, outcome=outcome, seen=seen)

    def refused(self, version: int, sha256: str, reasons: Iterable[Mapping[str, str]]) -> Self:
        """A document that changes nothing."""
        outcome = Outcome(state=State.REFUSED, version=version, sha256=sha256, reasons=tuple(reasons))
        return replace(self, outcome=outcome, seen=(version, sha256))

    def dry(self, version: int, sha256: str, found: Mapping[str, Any]) -> Self:
        """A document that was only looked at."""
        checked = {"version": version, "sha256": sha256, **found}
        return replace(self, checked=checked, seen=(version, sha256))

    def reverted(self, reasons: Iterable[Mapping[str, str]]) -> Self:
        """Back to what was in force before: a trial, or without one what was confirmed, is over."""
        edition = self.trial.edition if self.trial else self.confirmed
        if edition is None:
            return self
        outcome = Outcome(
            state=State.REVERTED, version=edition.version, sha256=edition.sha256, reasons=tuple(reasons)
        )
        return replace(self, confirmed=self.confirmed if self.trial else None, trial=None, outcome=outcome)

    def withdrawn(self, reasons: Iterable[Mapping[str, str]]) -> Self:
        """Back to the file at the device, whatever is confirmed or on trial."""
        return replace(self.reverted(reasons), confirmed=None)

    def told(self) -> Self:
        return self if self.outcome is None else replace(self, outcome=replace(self.outcome, told=True))

    # -- what others ask --------------------------------------------------------------------------

    def knows(self, version: int, sha256: str) -> bool:
        """Whether something has come of this document already, or is about to."""
        return (version, sha256) == self.seen

    @property
    def texts(self) -> frozenset[str]:
        """Files that are still needed."""
        named = [self.confirmed, self.trial.edition if self.trial else None]
        return frozenset(each.text for each in named if each is not None)

    def report(self) -> dict[str, Any] | None:
        """As the fleet is told; None where it has never sent any."""
        if self.trial is not None:
            edition = self.trial.edition
            told = {"version": edition.version, "sha256": edition.sha256, "state": State.TRIAL, "reasons": []}
        elif self.outcome is not None:
            told = {
                "version": self.outcome.version,
                "sha256": self.outcome.sha256,
                "state": self.outcome.state,
                "reasons": [dict(each) for each in self.outcome.reasons],
            }
        elif self.checked is None:
            return None
        else:
            told = dict(NOTHING)
        return told | ({"checked": dict(self.checked)} if self.checked is not None else {})

    # -- what is remembered -----------------------------------------------------------------------

    def dump(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def load(cls, tree: Mapping[str, Any]) -> Self:
        """What was dumped. Raises KeyError, TypeError or ValueError for anything else."""
        trial, outcome, confirmed = tree["trial"], tree["outcome"], tree["confirmed"]
        return cls(
            confirmed=confirmed and Edition(**confirmed),
            trial=trial
            and Trial(
                **{**trial, "edition": Edition(**trial["edition"]), "required": tuple(trial["required"])}
            ),
            outcome=outcome
            and Outcome(
                **{**outcome, "state": State(outcome["state"]), "reasons": tuple(outcome["reasons"])}
            ),
            checked=tree["checked"],
            seen=tree["seen"] and (int(tree["seen"][0]), str(tree["seen"][1])),
        )


def reason(path: str, expected: str, found: str) -> dict[str, str]:
    """Why, as a mistake in a config is told."""
    return {"path": path, "expected": expected, "found": found}


def reasons(mistakes: Iterable[Mistake]) -> list[dict[str, str]]:
    return [
        reason(each.path[:200], each.expected[:300], each.got[:200]) for each in list(mistakes)[:MISTAKES]
    ]


MISTAKES = 16
"""Of one document that are told."""
