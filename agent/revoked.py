"""What the fleet has taken away. It only ever grows, whatever any later document leaves out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from agent.documents import Revocations
from agent.envelope import Reason, Refused

MOST = 65_536
"""Things that can be revoked on one device. They are held in memory, and told with each change."""
CREDENTIAL = 16
"""Bytes of a credential's `v` that name it."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """Names of all that is revoked for ever."""

    subjects: frozenset[str] = frozenset()
    credentials: frozenset[str] = frozenset()
    """In hex."""
    keys: frozenset[str] = frozenset()
    """Of the fleet, by kid."""
    grants: frozenset[str] = frozenset()

    def __len__(self) -> int:
        return len(self.subjects) + len(self.credentials) + len(self.keys) + len(self.grants)

    def names(self, subject: str | None, credential: bytes | None) -> bool:
        return subject in self.subjects or (
            credential is not None and credential[:CREDENTIAL].hex() in self.credentials
        )

    def merged(self, body: Revocations) -> Self:
        """With these as well. Raises Refused for more than can be held."""
        merged = type(self)(
            self.subjects | set(body.subjects),
            self.credentials | set(body.credentials),
            self.keys | set(body.keys),
            self.grants | set(body.grants),
        )
        if len(merged) > MOST:
            raise Refused(Reason.OVERSIZED, f"expected at most {MOST} revocations in all, got {len(merged)}")
        return merged

    def dump(self) -> dict[str, Any] | None:
        """As a journal record; None while nothing is revoked."""
        if not len(self):
            return None
        return {
            "subjects": sorted(self.subjects),
            "credentials": sorted(self.credentials),
            "keys": sorted(self.keys),
            "grants": sorted(self.grants),
        }

    @classmethod
    def load(cls, record: Mapping[str, Any] | None) -> Self:
        return cls(**{name: frozenset(each) for name, each in record.items()}) if record else cls()
