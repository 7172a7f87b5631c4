"""What a measure yields, and the table that it becomes."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

WIDTH = 48
"""Characters of the column that names a figure."""


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on a figure, or with the unit `x` on its ratio to what stands beside it."""

    sign: str
    """`<=` or `>=`."""
    bound: float
    unit: str = "x"

    def __str__(self) -> str:
        return f"{'at most' if self.sign == '<=' else 'at least'} {shown(self.bound)}{gap(self.unit)}"

    def met_by(self, number: float) -> bool:
        return number <= self.bound if self.sign == "<=" else number >= self.bound


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One number, the raw limit of this machine beside it, and what it should reach."""

    name: str
    value: float
    unit: str
    beside: str = ""
    """What `limit` is."""
    limit: float | None = None
    target: Target | None = None

    @property
    def ratio(self) -> float | None:
        """The value in units of what stands beside it."""
        return self.value / self.limit if self.limit else None

    @property
    def met(self) -> bool | None:
        """None without a target."""
        if self.target is None:
            return None
        number = self.ratio if self.target.unit == "x" else self.value
        return number is not None and self.target.met_by(number)

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "beside": self.beside or None,
            "limit": self.limit,
            "ratio": self.ratio,
            "target": str(self.target) if self.target else None,
            "met": self.met,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """A figure that cannot be had here, and why."""

    name: str
    why: str

    def as_json(self) -> dict[str, Any]:
        return {"name": self.name, "missing": self.why}


class Broken(Exception):
    """A measure did not come to its end: something did not start, was lost or was not answered."""


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that this share of all does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)]


def shown(number: float) -> str:
    """Three digits that count, thousands apart."""
    if number >= 1000:
        return f"{number:,.0f}"
    digits = 0 if number == 0 else max(0, 2 - math.floor(math.log10(abs(number))))
    text = f"{number:.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def gap(unit: str) -> str:
    """A unit as it stands after a number."""
    return unit if unit in ("x", "/s") else f" {unit}"


def row(result: Figure | Missing) -> str:
    """One line of the table."""
    if isinstance(result, Missing):
        return f"  -       {result.name:<{WIDTH}} not measured: {result.why}"
    mark = {True: "met", False: "NOT MET", None: ""}[result.met]
    value = f"{shown(result.value)}{gap(result.unit)}"
    ratio = "" if result.ratio is None else f"{shown(result.ratio)}x"
    limit = "" if result.limit is None else f"{shown(result.limit)}{gap(result.unit)} {result.beside}"
    target = "" if result.target is None else str(result.target)
    return f"  {mark:<7} {result.name:<{WIDTH}} {value:>12}  {ratio:>7}  {target:<18} {limit}".rstrip()


def head() -> str:
    """The line above them."""
    return f"  {'':<7} {'figure':<{WIDTH}} {'value':>12}  {'ratio':>7}  {'target':<18} beside"
