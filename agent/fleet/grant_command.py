"""`postern fleet grant` and `grants open`: codes that open a locker's doors, made and passed on. No network.

A signed code works with no sync: the locker checks the signature. What a locker has made by itself comes
sealed in its entries, and is opened here into a file for its owner alone.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segno import QRCode

    from agent.envelope import Claims
    from agent.fleet.notices import Notice

EXIT_USAGE = 2
EXIT_UNREAD = 4
"""Some codes could not be opened."""


def add_actions(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    grant = actions.add_parser("grant", help="a signed pickup code: one door, once, with no sync")
    grant.add_argument("--locker", required=True, metavar="DEVICE")
    grant.add_argument("--parcel", metavar="LABEL", help="as it is scanned, or its id: wherever it lies")
    grant.add_argument("--compartment", metavar="NAME", help="only this one")
    grant.add_argument("--hours", type=_hours, required=True, help="how long it is good")
    grant.add_argument("--qr", type=Path, metavar="FILE", help="the QR code as .svg or .png")
    grants = actions.add_parser("grants", help="the codes that lockers have made").add_subparsers(
        required=True, metavar="ACTION"
    )
    opened = grants.add_parser("open", help="the codes of all deposits, for the notices to recipients")
    opened.add_argument("--store", type=Path, required=True, help="the file that `fleet collect` keeps")
    opened.add_argument("--device", metavar="LOCKER", help="only this one")
    opened.add_argument("--out", type=Path, required=True, help="written anew, for its owner alone")
    for action, run in ((grant, _grant), (opened, _open)):
        action.add_argument("--keys", type=Path, required=True, metavar="DIR")
        action.add_argument("--json", action="store_true")
        action.set_defaults(run=_guarded, act=run)


def noted(keys: Path, path: Path) -> "Callable[[Mapping[str, Any]], None]":
    """Adds the codes of each deposit to a file, as entries come. Raises KeyringError."""
    from agent.fleet import notices
    from agent.fleet.keyring import Keyring
    from agent.row_seal import BadPage

    seals = Keyring(keys).seals()

    def note(entry: Mapping[str, Any]) -> None:
        try:
            notice = notices.read(entry, seals)
        except BadPage as bad:
            # Whoever reaches the broker can send such a thing: it is told, and changes nothing.
            _say_unread(entry, bad)
        else:
            if notice is not None:
                notices.append(path, notice)

    return note


def _guarded(given: argparse.Namespace) -> int:
    from agent.envelope import Refused
    from agent.fleet.keyring import KeyringError
    from agent.fleet.store import StoreFailed

    try:
        code: int = given.act(given)
    except (KeyringError, Refused, StoreFailed, OSError, ValueError) as error:
        print(f"postern fleet: {error}", file=sys.stderr)
        return EXIT_USAGE
    return code


def _hours(text: str) -> float:
    from agent.fleet.signing import GRANT_S

    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found <= GRANT_S // 3600:
        raise argparse.ArgumentTypeError(f"expected hours up to {GRANT_S // 3600}, got {text!r}")
    return found


# -- grant ----------------------------------------------------------------------------------------


def _grant(given: argparse.Namespace) -> int:
    from agent.envelope import Envelope, Kind
    from agent.fleet.keyring import Keyring
    from agent.fleet.signing import Desk
    from agent.labels import named

    if given.qr is not None and given.qr.suffix not in (".svg", ".png"):
        raise ValueError(f"--qr: expected a name that ends in .svg or .png, got {given.qr.name!r}")
    parcel = named(given.parcel) if given.parcel else None
    raw = Desk(Keyring(given.keys), int(time.time())).grant(
        given.locker, parcel=parcel, compartment=given.compartment, lasts=int(given.hours * 3600)
    )
    claims = Envelope.parse(Kind.GRANT, raw).claims(Kind.GRANT)
    code = _qr(raw)
    if given.qr is not None:
        _save(code, given.qr)
    _tell(given, raw.decode("ascii"), claims, code)
    return 0


def _qr(raw: bytes) -> "QRCode":
    """The least redundancy: the larger its dots, the sooner a scanner reads it off a telephone."""
    import segno

    return segno.make_qr(raw, error="l")


def _save(code: "QRCode", path: Path) -> None:
    import io

    from agent import keyfile

    image = io.BytesIO()
    code.save(image, kind=path.suffix[1:], scale=8)
    keyfile.write(path, image.getvalue())


def _tell(given: argparse.Namespace, raw: str, claims: "Claims", code: "QRCode") -> None:
    until = datetime.fromtimestamp(claims.exp, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if given.json:
        facts = {"locker": given.locker, **claims.body, "grant": claims.jti, "until": claims.exp, "code": raw}
        print(json.dumps(facts))
        return
    what = " in ".join(claims.body[name] for name in ("parcel", "compartment") if name in claims.body)
    print(f"{what} at {given.locker} until {until}; to withdraw it: fleet revoke --grant {claims.jti}")
    print(raw)
    if sys.stdout.isatty():
        code.terminal(compact=True, border=2)


# -- grants open ----------------------------------------------------------------------------------


def _open(given: argparse.Namespace) -> int:
    from agent.fleet import notices
    from agent.fleet.keyring import Keyring
    from agent.row_seal import BadPage

    seals = Keyring(given.keys).seals()
    found: list[Notice] = []
    unread = 0
    for entry in _deposits(given.store, given.device):
        try:
            notice = notices.read(entry, seals)
        except BadPage as bad:
            unread += 1
            _say_unread(entry, bad)
        else:
            found += [notice] if notice else []
    notices.write(given.out, found)
    told = {"opened": len(found), "unread": unread, "file": str(given.out)}
    print(json.dumps(told) if given.json else "  ".join(f"{name} {value}" for name, value in told.items()))
    return EXIT_UNREAD if unread else 0


def _deposits(path: Path, device: str | None) -> Iterator[dict[str, Any]]:
    from agent.fleet.notices import DEPOSITED
    from agent.fleet.store import opened

    with opened(path) as store, store.reading():
        yield from map(json.loads, store.lines_with(f'"{DEPOSITED}"'.encode(), device))


def _say_unread(entry: Mapping[str, Any], bad: Exception) -> None:
    # What a device sends does not get to steer the terminal.
    print(f"postern fleet: {str(entry.get('id'))[:80]!a}: {bad}", file=sys.stderr, flush=True)
