"""Bytes that nobody may read by accident: in no `repr`, no message, no log, no JSON.

>>> str(Secret(b"hunter2")), f"{Secret(b'hunter2')!r:>12}"
('Secret(...)', ' Secret(...)')
"""

import hmac
from typing import NoReturn

HIDDEN = "Secret(...)"


class Secret:
    """Shows itself only to who asks for it by name."""

    __slots__ = ("_value",)

    def __init__(self, value: bytes) -> None:
        self._value = value

    def reveal(self) -> bytes:
        return self._value

    def __repr__(self) -> str:
        return HIDDEN

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and hmac.compare_digest(self._value, other._value)

    __hash__ = None  # type: ignore[assignment]  # A key of a mapping is soon printed with it.

    def __reduce__(self) -> NoReturn:
        raise TypeError("a secret is not to be pickled")
