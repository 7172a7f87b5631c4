"""Rows into sealed pages for one device: what was said before stays as it is, byte for byte.

    laid = seal_all("roster", rows, recipient, epoch, before=laid, ver=8)

Which pages a device has to fetch anew is decided here: a page is sealed again only where its rows are others
than before. Secrets come in and leave as `v` alone.
"""

import hmac
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from agent import page
from agent.documents import KEY_PAGE
from agent.jws import encoded
from agent.row_seal import BadPage, bucket_of, value_of

MOST_BUCKETS = 512
"""As many pages as a signed list of 96 KiB can name."""
NAMING = 153
"""Bytes that one page takes in the signed list."""
SLACK = 4
"""A number of buckets is kept until another would be better by this factor: changing it moves every row."""


class TooManyRows(Exception):
    """More rows than the pages of a bundle can hold."""


@dataclass(frozen=True, slots=True)
class Epoch:
    """The key that the devices of one scope share until it is changed."""

    id: int
    key: bytes

    def __repr__(self) -> str:
        return f"Epoch({self.id}, ...)"


@dataclass(frozen=True, slots=True)
class Recipient:
    """A device that pages are sealed to."""

    address: str
    """`<tenant>/<device>`."""
    public: X25519PublicKey


@dataclass(frozen=True, slots=True)
class RowOf:
    """One row, and the secret that opens it."""

    kind: str
    token: bytes
    body: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"RowOf({self.kind}, ...)"


@dataclass(frozen=True, slots=True)
class LaidPage:
    """A page as it was sealed."""

    bucket: int
    ver: int
    sha256: str
    size: int
    content: str
    """A keyed digest of what is in it: tells whether it would be sealed otherwise today."""
    raw: bytes


@dataclass(frozen=True, slots=True)
class Laid:
    """All pages of a bundle, the key page first."""

    kind: str
    buckets: int
    rows: int
    pages: tuple[LaidPage, ...]

    def body(self, scope: str, as_of: int) -> dict[str, Any]:
        """What the signed list says."""
        named = ("bucket", "ver", "sha256", "size")
        return {
            "kind": self.kind,
            "scope": scope,
            "as_of": as_of,
            "buckets": self.buckets,
            "rows": self.rows,
            "pages": [{name: getattr(each, name) for name in named} for each in self.pages],
        }


def seal_all(
    kind: str, rows: Iterable[RowOf], recipient: Recipient, epoch: Epoch, *, before: Laid | None, ver: int
) -> Laid:
    """Lay the rows into buckets and seal what is new. Raises BadPage or TooManyRows."""
    lines = sorted(_lines(kind, rows, epoch).items())
    buckets = _buckets(lines, before.buckets if before else None)
    plains = {KEY_PAGE: page.write({"epoch_key": encoded(epoch.key), "epoch_id": epoch.id})}
    plains |= {bucket: _plain(each) for bucket, each in sorted(_divided(lines, buckets).items())}
    known = _known(before, buckets)
    sealed = [
        _page(kind, bucket, plain, recipient, epoch, known.get(bucket), ver)
        for bucket, plain in plains.items()
    ]
    return Laid(kind, buckets, len(lines), tuple(sealed))


def _lines(kind: str, rows: Iterable[RowOf], epoch: Epoch) -> dict[bytes, bytes]:
    """Each row as it stands in a page, by `v`."""
    lines: dict[bytes, bytes] = {}
    for row in rows:
        value = value_of(epoch.key, row.kind, row.token)
        line = {"v": encoded(value), "kind": row.kind, "body": row.body}
        page.check(kind, [line])
        if value in lines:
            raise BadPage(f"expected each {row.kind} once, got one twice")
        lines[value] = page.write(line)
    return lines


def _buckets(lines: list[tuple[bytes, bytes]], before: int | None) -> int:
    """Many small pages make a change cheap and the list that names them dear: where both cost the same."""
    total = sum(len(line) for _, line in lines)
    buckets = min(1 << round(math.log2(max(1.0, math.sqrt(total / NAMING)))), MOST_BUCKETS)
    if before is not None and before < SLACK * buckets and buckets < SLACK * before:
        buckets = before
    while not _fits(lines, buckets):
        if buckets == MOST_BUCKETS:
            raise TooManyRows(f"expected what {MOST_BUCKETS} pages can hold, got {len(lines)} rows")
        buckets *= 2
    return buckets


def _fits(lines: list[tuple[bytes, bytes]], buckets: int) -> bool:
    room = page.LIMIT - page.OVERHEAD - len(_plain([]))
    return all(sum(len(line) + 1 for line in each) <= room for each in _divided(lines, buckets).values())


def _divided(lines: list[tuple[bytes, bytes]], buckets: int) -> dict[int, list[bytes]]:
    divided: dict[int, list[bytes]] = {}
    for value, line in lines:
        divided.setdefault(bucket_of(value, buckets), []).append(line)
    return divided


def _plain(lines: list[bytes]) -> bytes:
    return b'{"rows":[' + b",".join(lines) + b"]}"


def _known(before: Laid | None, buckets: int) -> dict[int, LaidPage]:
    """Pages that may stay; none where every row has moved."""
    if before is None:
        return {}
    return {
        each.bucket: each for each in before.pages if each.bucket == KEY_PAGE or before.buckets == buckets
    }


def _page(
    kind: str, bucket: int, plain: bytes, recipient: Recipient, epoch: Epoch, known: LaidPage | None, ver: int
) -> LaidPage:
    content = hmac.digest(epoch.key, recipient.public.public_bytes_raw() + plain, "sha256").hex()
    if known is not None and known.content == content:
        return known
    raw = page.seal(plain, recipient.public, page.info(kind, recipient.address, ver))
    return LaidPage(bucket, ver, sha256(raw).hexdigest(), len(raw), content, raw)
