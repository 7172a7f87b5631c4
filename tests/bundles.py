"""Signed lists and sealed pages as the fleet makes them, for tests of what takes them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from agent.documents import Bundle, Document, read
from agent.envelope import Envelope, Kind, issue
from agent.fleet.sealing import Epoch, Laid, Recipient, RowOf, seal_all
from agent.jws import Signer

ADDRESS = "acme/van-0042"
AS_OF = 1_790_000_000


def badge(number: int) -> bytes:
    return b"badge-%06d" % number


def badges(numbers: Iterable[int], subject: str = "drv") -> list[RowOf]:
    """A badge each, of a driver of its own."""
    return [RowOf("badge", badge(number), {"subject": f"{subject}-{number}"}) for number in numbers]


@dataclass
class Press:
    """Makes one bundle after the other for one device, each as a change of the one before."""

    seal: X25519PrivateKey = field(default_factory=X25519PrivateKey.generate)
    signer: Signer = field(default_factory=lambda: Signer(Ed25519PrivateKey.generate()))
    epoch: Epoch = field(default_factory=lambda: Epoch(1, bytes(range(64, 96))))
    kind: str = "roster"
    laid: Laid | None = None
    ver: int = 0

    def print(self, rows: Iterable[RowOf], **body: Any) -> Document[Bundle]:
        self.ver += 1
        recipient = Recipient(ADDRESS, self.seal.public_key())
        self.laid = seal_all(self.kind, rows, recipient, self.epoch, before=self.laid, ver=self.ver)
        return self.signed({**self.laid.body("depot-7", AS_OF + self.ver), **body})

    def signed(self, body: Mapping[str, Any]) -> Document[Bundle]:
        raw = issue(Kind.BUNDLE, body, [self.signer], aud=ADDRESS, iat=1, exp=2**37, ver=self.ver)
        envelope = Envelope.parse(Kind.BUNDLE, raw)
        signers = envelope.signers({self.signer.kid: self.signer.public})
        return read(Kind.BUNDLE, envelope, signers, envelope.claims(Kind.BUNDLE))

    @property
    def pages(self) -> dict[str, bytes]:
        """The sealed pages of the last bundle by hash."""
        assert self.laid is not None
        return {each.sha256: each.raw for each in self.laid.pages}
