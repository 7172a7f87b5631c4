"""Credentials that were taken away while somebody was on duty with them.

The fleet names a credential by a digest under its own key (`v`). With that key whoever finds the name of a
badge or a PIN can guess what it is, so a session remembers its credentials under the device's pepper instead,
and what the fleet revokes is put under the same to be compared.
"""

from collections.abc import Collection, Iterable

from agent.row_seal import Keys

PURPOSE = "shown"


def remembered(values: Iterable[bytes], keys: Keys) -> tuple[str, ...]:
    """How credentials of these names are remembered while somebody is on duty with them."""
    return tuple(keys.digest(PURPOSE, value) for value in values)


class Withdrawn:
    """Digests of what the fleet has revoked. That only ever grows, so each is made once."""

    def __init__(self) -> None:
        self._digests: dict[str, str] = {}

    def any_of(self, shown: Collection[str], revoked: Collection[str], keys: Keys) -> bool:
        """Whether a credential that is remembered as one of these is `revoked`, named in hex."""
        if not shown or not revoked:
            return False
        for name in revoked:
            if name not in self._digests:
                (self._digests[name],) = remembered([bytes.fromhex(name)], keys)
        return not set(shown).isdisjoint(self._digests.values())
