"""A parcel's way over several devices, each with a journal, a clock and a key of its own, made in a test.

way = to_the_locker()
way.deliver(auditor)
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.clock import NS, rfc3339
from agent.fleet.audit import Auditor, Birth, Entries, Noted, Work
from agent.fleet.device_log import DeviceLog, Duplicate, New
from agent.ledger import Frontier, leaf_hash
from agent.note import Checkpoint, SignerKey, sign

PARCEL = "sscc:106141412345678908"
OTHER = "sscc:006141410000000418"
MORNING = 1_795_507_200
"""2026-11-24T08:00:00Z."""


@dataclass(slots=True)
class Machine:
    """One device. Its clock is `wrong_s` seconds off until it is corrected."""

    device: str
    wrong_s: float = 0.0
    trust: str = "gps"
    boot: str = "b1"
    position: dict[str, Any] | None = None
    signer: SignerKey = field(init=False)
    lines: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.signer = SignerKey(f"acme/{self.device}/e1", Ed25519PrivateKey.generate())

    def say(self, kind: str, subject: str, at_s: float, **data: Any) -> None:
        """An entry that is made at this second after MORNING."""
        sequence = len(self.lines) + 1
        entry = {
            "specversion": "1.0",
            "id": f"e1-{sequence}",
            "source": f"/postern/acme/{self.device}",
            "type": f"postern.{kind}",
            "subject": subject,
            "time": rfc3339(int((MORNING + at_s + self.wrong_s) * NS)),
            "sequence": str(sequence),
            "lane": "custody",
            "data": {
                **data,
                "clock": {
                    "boot": self.boot,
                    "mono_ns": int(at_s * NS),
                    "trust": self.trust,
                    "error_s": None if self.trust == "none" else 0.05,
                },
                "position": self.position,
                **({} if self.position else {"position_missing": "no_receiver"}),
            },
        }
        self.lines.append(json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode())

    def correct(self, at_s: float, trust: str = "gps") -> None:
        self.wrong_s, self.trust = 0.0, trust
        self.say("clock.corrected", self.device, at_s, epoch_ns=MORNING * NS)

    def work(self, size: int | None = None) -> list[Work]:
        """Birth, entries and a checkpoint over the first `size` of them."""
        log = DeviceLog(self.device)
        taken = [each for line in self.lines if isinstance(each := log.take(line), New | Duplicate)]
        covered = self.lines[:size]
        root = Frontier().append(*map(leaf_hash, covered)).root()
        note = sign(Checkpoint(self.signer.name, len(covered), root).text, self.signer)
        born = {"online": True, "epoch": "e1", "key": self.signer.verifier.text}
        return [Birth(self.device, born), Entries(self.device, taken), Noted(self.device, note)]


@dataclass(slots=True)
class Way:
    van: Machine
    colleague: Machine
    locker: Machine

    @property
    def machines(self) -> Iterable[Machine]:
        return self.van, self.colleague, self.locker

    def deliver(self, auditor: Auditor, now: float = MORNING + 86_400.0) -> None:
        for machine in self.machines:
            auditor.take(machine.work(), now)


def to_the_locker() -> Way:
    """From a van to a colleague's, whose clock is an hour behind, into a locker, and to the recipient."""
    fix = {"lat": 52.520008, "lon": 13.404954, "age_s": 0.4, "hdop": 0.9, "source": "gps"}
    van = Machine("van-0042", position=fix)
    colleague = Machine("van-0043", wrong_s=-3600.0, trust="rtc")
    locker = Machine("locker-hall-3", trust="ntp")
    van.say("custody.accepted", PARCEL, 60, unit="gun", by="drv-7f3a91")
    van.say("custody.accepted", OTHER, 61, unit="gun", by="drv-7f3a91")
    van.say("custody.offered", PARCEL, 1800, unit="gun", by="drv-7f3a91")
    to = {"kind": "driver", "ref": "drv-2c88e0", "factors": ["badge", "pin"]}
    van.say("custody.handed_over", PARCEL, 1805, **{"unit": "badge", "from": "drv-7f3a91", "to": to, "of": 1})
    colleague.say("custody.accepted", PARCEL, 1810, unit="gun", by="drv-2c88e0")
    colleague.say("custody.exception_noted", PARCEL, 1900, unit="gun", by="drv-2c88e0", exception="damaged")
    colleague.correct(2400)
    to = {"kind": "locker", "ref": "locker-hall-3", "door": "B7"}
    colleague.say(
        "custody.handed_over", PARCEL, 3000, **{"unit": "gun", "from": "drv-2c88e0", "to": to, "of": 1}
    )
    locker.say("locker.parcel_scanned", PARCEL, 2900, unit="desk")
    _opened(locker, "B7", 2910, "deposit", by="drv-2c88e0")
    put = {"compartment": "B7", "by": "drv-2c88e0", "content": "occupied", "grant": "SECRETGRANT"}
    locker.say("locker.deposited", PARCEL, 2931, sealed="SEALEDCODE", receipt="RECEIPTTEXT", **put)
    locker.say("door.forced", "B8", 3500, beside=None, parcel=OTHER)
    _opened(locker, "B7", 7200, "pickup", by=None)
    locker.say("locker.collected", PARCEL, 7221, compartment="B7", by=None, grant="g", content="empty")
    return Way(van, colleague, locker)


def _opened(locker: Machine, name: str, at_s: float, purpose: str, by: str | None) -> None:
    grant = None if by else "SECRETGRANT"
    locker.say("locker.opening_intended", name, at_s, purpose=purpose, by=by, grant=grant, parcel=PARCEL)
    locker.say("door.pulsed", name, at_s + 0.3, reason="")
    locker.say("door.opened", "C1", at_s + 0.5, evidence="hook")
    locker.say("door.opened", name, at_s + 0.9, evidence="hook")
    locker.say("door.closed", name, at_s + 20, evidence="hook")
