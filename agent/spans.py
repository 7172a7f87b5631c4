"""Ranges of sequences: sorted, apart, each from its first to its last."""

Span = tuple[int, int]


def join(spans: list[Span], span: Span) -> None:
    """Add a span to sorted ones that begin no later than it does."""
    if spans and span[0] <= spans[-1][1] + 1:
        spans[-1] = (spans[-1][0], max(spans[-1][1], span[1]))
    else:
        spans.append(span)


def without(spans: list[Span], others: list[Span]) -> list[Span]:
    """What of sorted spans is in none of the sorted others."""
    found: list[Span] = []
    rest = iter(others)
    other = next(rest, None)
    for first, last in spans:
        at = first
        while other is not None and other[0] <= last:
            if other[0] > at:
                found.append((at, other[0] - 1))
            at = max(at, other[1] + 1)
            if other[1] > last:
                break
            other = next(rest, None)
        if at <= last:
            found.append((at, last))
    return found
