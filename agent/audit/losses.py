"""Lines that are gone although the fleet has not seen them: each must be declared lost by an entry."""

from typing import Any


class Losses:
    """A mark for each sequence after the last that the fleet has `seen`."""

    def __init__(self, seen: int) -> None:
        self.seen = seen
        self._marks = bytearray()

    def lose(self, sequence: int) -> None:
        """A line of which only the hash is left. Sequences rise from call to call."""
        at = sequence - self.seen - 1
        if at >= 0:
            self._marks.extend(bytes(at - len(self._marks)))
            self._marks.append(1)

    def declare(self, data: dict[str, Any]) -> None:
        """What a `declared_loss` entry says. Nonsense declares nothing."""
        ranges = data.get("ranges")
        for pair in ranges if isinstance(ranges, list) else ():
            match pair:
                case [int(first), int(last)]:
                    self._clear(first, last)

    @property
    def undeclared(self) -> int:
        return self._marks.count(1)

    @property
    def first_undeclared(self) -> int:
        return self.seen + 1 + self._marks.index(1)

    def _clear(self, first: int, last: int) -> None:
        start = max(first - self.seen - 1, 0)
        end = min(last - self.seen, len(self._marks))
        if start < end:
            self._marks[start:end] = bytes(end - start)
