"""`postern fleet keys` and `postern fleet enrol`: who may sign, and who is one of ours. No network.

Exit codes: 0 done, 2 a mistake in what was typed, in a file or with a key. What a new root says reaches
devices with the next `postern fleet head`.
"""

import argparse
import hmac
import json
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.fleet import asking

if TYPE_CHECKING:
    from agent.documents import Role
    from agent.fleet.enrolment import Request
    from agent.fleet.keyring import Keyring

EXIT_USAGE = 2
REQUEST_LIMIT = 64 * 1024


def add_actions(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    keys = actions.add_parser("keys", help="the keys that devices believe").add_subparsers(
        required=True, metavar="ACTION"
    )
    init = keys.add_parser("init", help="the ceremony: make all keys and the first root")
    init.add_argument("--tenant", required=True)
    show = keys.add_parser("show", help="what the root in force says")
    rotate = keys.add_parser("rotate", help="new keys beside the old ones, or a new epoch or seal key")
    rotate.add_argument(
        "role", help="a role as `keys show` names it, epoch (seals rows) or seal (opens lockers' codes)"
    )
    retire = keys.add_parser("retire", help="drop an old key, when devices have what the new one signs")
    revoke = keys.add_parser("revoke", help="take a key away at once, and put a new one in its place")
    restart = keys.add_parser(
        "restart", help="have all versions start anew: where `issued/` is lost, or versions are at their end"
    )
    for action in (retire, revoke):
        action.add_argument("kid")
    enrol = actions.add_parser("enrol", help="register a device, and answer its request")
    enrol.add_argument("request", type=Path)
    enrol.add_argument("--out", type=Path, default=Path("welcome.json"))
    enrol.add_argument("--fingerprint", help="as the device shows it; otherwise asked for")
    enrol.add_argument("--claim-file", type=Path, help="the one-time code that the device was given")
    enrol.add_argument("--broker-ca", type=Path, help="for the device: who vouches for the broker")
    enrol.add_argument("--group", action="append", default=[], help="repeatable")
    for action, run in (
        (init, _init),
        (show, _show),
        (rotate, _rotate),
        (retire, _retire),
        (revoke, _revoke),
        (restart, _restart),
        (enrol, _enrol),
    ):
        action.add_argument("--keys", type=Path, required=True, metavar="DIR")
        action.add_argument("--json", action="store_true")
        action.set_defaults(run=_guarded, act=run)
    for action in (init, rotate, retire, revoke, restart):
        asking.add_options(action)
    for action in (rotate, retire, revoke, restart):
        action.add_argument(
            "--root-key",
            type=Path,
            action="append",
            default=[],
            metavar="FILE",
            help="a root key that is kept elsewhere; repeatable",
        )


def _guarded(given: argparse.Namespace) -> int:
    from agent.enrolment import EnrolmentError
    from agent.envelope import Refused
    from agent.fleet.keyring import KeyringError

    try:
        given.act(given)
    except (KeyringError, EnrolmentError, Refused, OSError) as error:
        print(f"postern fleet: {error}", file=sys.stderr)
        return EXIT_USAGE
    return 0


def _init(given: argparse.Namespace) -> None:
    from agent.fleet.certificates import make_authority
    from agent.fleet.enrolment import DEVICE_ID
    from agent.fleet.keyring import Keyring, KeyringError

    if not DEVICE_ID.fullmatch(given.tenant):
        raise KeyringError(f"--tenant: expected 3 to 40 of a-z, 0-9 and -, got {given.tenant!r}")
    keyring = Keyring.create(given.keys, given.tenant, asking.passphrases(given))
    make_authority(given.keys, given.tenant)
    _tell(given, keyring)
    print("Keep each root-*.key and its passphrase with another person, away from here.", file=sys.stderr)


def _show(given: argparse.Namespace) -> None:
    from agent.fleet.keyring import Keyring

    _tell(given, Keyring(given.keys))


def _rotate(given: argparse.Namespace) -> None:
    from agent.documents import Role
    from agent.fleet.keyring import CEREMONY, NUMBERED, Keyring, KeyringError

    keyring = Keyring(given.keys)
    roles = [role.value for role in CEREMONY]
    if given.role in NUMBERED:
        with keyring.locked():
            keyring.renew(given.role)
    elif given.role in roles:
        role = Role(given.role)
        # A role that a root from before it was known has no keys for gets its first ones.
        fresh = len(keyring.root.kids(role)) or CEREMONY[role]
        _change(given, keyring, role, fresh=fresh, gone=_roots(keyring, role))
    else:
        raise KeyringError(f"expected one of {', '.join([*roles, *NUMBERED])}, got {given.role!r}")
    _tell(given, keyring)


def _revoke(given: argparse.Namespace) -> None:
    from agent.documents import Role
    from agent.fleet.keyring import Keyring
    from agent.fleet.signing import Desk

    keyring = Keyring(given.keys)
    role = keyring.role_of(given.kid)
    _change(given, keyring, role, fresh=1, gone=[given.kid])
    if role is not Role.ROOT:
        # Takes effect wherever it arrives, before the new root does. Only a root deposes a root.
        with keyring.locked():
            Desk(keyring, int(time.time())).revoke(keys=[given.kid])
    _tell(given, keyring)


def _retire(given: argparse.Namespace) -> None:
    from agent.fleet.keyring import Keyring

    keyring = Keyring(given.keys)
    _change(given, keyring, keyring.role_of(given.kid), gone=[given.kid])
    _tell(given, keyring)


def _restart(given: argparse.Namespace) -> None:
    from agent.fleet.keyring import Keyring

    keyring = Keyring(given.keys)
    with keyring.locked():
        keyring.restart(passphrase=asking.passphrases(given), elsewhere=given.root_key)
    _tell(given, keyring)


def _roots(keyring: "Keyring", role: "Role") -> tuple[str, ...]:
    """Root keys change places at once: what they signed is the root alone, and old and new both sign that."""
    from agent.documents import Role

    return keyring.root.kids(role) if role is Role.ROOT else ()


def _change(
    given: argparse.Namespace,
    keyring: "Keyring",
    role: "Role",
    *,
    fresh: int = 0,
    gone: Collection[str] = (),
) -> None:
    with keyring.locked():
        keyring.change(
            role,
            fresh=fresh,
            gone=gone,
            passphrase=asking.passphrases(given),
            elsewhere=given.root_key,
        )


def _tell(given: argparse.Namespace, keyring: "Keyring") -> None:
    root = keyring.root
    told: dict[str, Any] = {
        "tenant": keyring.tenant,
        "root": keyring.document.ver,
        "root_epoch": root.epoch,
        "fingerprint": keyring.fingerprint,
        "epoch": keyring.epoch().id,
        "seal_key": keyring.seal_key,
        "roles": {
            role: {"kids": keys.kids, "threshold": keys.threshold} for role, keys in root.roles.items()
        },
    }
    if given.json:
        print(json.dumps(told))
        return
    print(f"{keyring.tenant}: root {keyring.document.ver}, epoch key {told['epoch']}")
    print(f"fingerprint {keyring.fingerprint}")
    for role, keys in root.roles.items():
        print(f"  {role:12} {keys.threshold} of {len(keys.kids)}  {' '.join(keys.kids)}")
    if told["seal_key"]:
        print(f'for the configs of lockers:\n[fleet]\nseal_key = "{told["seal_key"]}"')


def _enrol(given: argparse.Namespace) -> None:
    from agent import keyfile
    from agent.enrolment import EnrolmentError
    from agent.fingerprint import groups
    from agent.fleet.enrolment import enrol, read_request
    from agent.fleet.keyring import Keyring

    keyring = Keyring(given.keys)
    with given.request.open("rb") as file:
        request = read_request(file.read(REQUEST_LIMIT).strip(), keyring.tenant)
    if given.claim_file and not _same(given.claim_file.read_text().strip(), request.claim or ""):
        raise EnrolmentError(f"{request.device}: expected the code of {given.claim_file}, got another")
    if not _same(groups(given.fingerprint or _typed(request)), request.fingerprint):
        raise EnrolmentError(f"{request.device}: expected the device's own fingerprint, got another")
    broker_ca = given.broker_ca.read_text() if given.broker_ca else None
    with keyring.locked():
        welcome = enrol(keyring, request, given.group, broker_ca)
    keyfile.write(given.out, json.dumps(welcome).encode())
    told = {"device": request.device, "welcome": str(given.out), "root_fingerprint": keyring.fingerprint}
    if given.json:
        print(json.dumps(told))
        return
    print(
        f"{request.device} is enrolled; take {given.out} to it, and this fingerprint of the root another way:"
    )
    print(keyring.fingerprint)


def _typed(request: "Request") -> str:
    """What the operator reads off the device; empty where there is nobody to ask."""
    levels = ", ".join(f"{name} in {level}" for name, level in sorted(request.levels.items()))
    print(f"{request.device} asks to be enrolled; keys: {levels or 'unknown'}", file=sys.stderr)
    print(f"fingerprint {request.fingerprint}", file=sys.stderr)
    if not sys.stdin.isatty():
        return ""
    return request.fingerprint if input("Does the device show the same? [y/N] ").strip() in ("y", "Y") else ""


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
