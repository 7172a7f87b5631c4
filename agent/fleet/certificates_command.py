"""`postern fleet broker-conf` and `postern fleet certificates`: the broker's side of the fleet.

No network, but for `renew`.

Exit codes: 0 done, 2 a mistake in what was typed, in a file or with a key.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.fleet.mosquitto import Who

from agent.fleet import renew_command

EXIT_USAGE = 2
FOLDERS = {"mosquitto": "/etc/mosquitto/postern", "ejabberd": "/etc/ejabberd/postern"}
"""Where the files lie on the broker, by Debian's habits."""


def add_actions(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    conf = actions.add_parser("broker-conf", help="write what a broker needs to be the fleet's")
    conf.add_argument("--broker", choices=tuple(FOLDERS), default="mosquitto", help="(mosquitto)")
    conf.add_argument("--out", type=Path, required=True, metavar="DIR", help="put its files here")
    conf.add_argument(
        "--folder", metavar="PATH", help="where they will lie on the broker (/etc/<broker>/postern)"
    )
    conf.add_argument("--data", metavar="PATH", help="what mosquitto keeps (/var/lib/mosquitto)")
    conf.add_argument("--address", metavar="IP", help="that ejabberd listens on (::, all there are)")
    conf.add_argument("--port", type=int, default=8883)
    conf.add_argument("--connections", type=int, default=10_000)
    conf.add_argument("--collector", action="append", metavar="NAME", help="repeatable (fleet.collector)")
    conf.add_argument("--publisher", action="append", metavar="NAME", help="repeatable (fleet.publisher)")
    certificates = actions.add_parser("certificates", help="who may speak to the broker").add_subparsers(
        required=True, metavar="ACTION"
    )
    show = certificates.add_parser("show", help="all that were given")
    issue = certificates.add_parser("issue", help="key and certificate for a tool of the fleet")
    issue.add_argument("name", help="such as fleet.collector: a name that no device can have")
    issue.add_argument("--out", type=Path, required=True, metavar="DIR")
    revoke = certificates.add_parser("revoke", help="all certificates of a device or tool count no more")
    revoke.add_argument("name")
    revoke.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="the new crl.pem for the broker"
    )
    renew_command.add_action(certificates)
    for action, act in ((conf, _conf), (show, _show), (issue, _issue), (revoke, _revoke)):
        action.add_argument("--keys", type=Path, required=True, metavar="DIR")
        action.add_argument("--json", action="store_true")
        action.set_defaults(run=_guarded, act=act)


def _guarded(given: argparse.Namespace) -> int:
    from agent.fleet.keyring import KeyringError

    try:
        given.act(given)
    except (KeyringError, OSError) as error:
        print(f"postern fleet: {error}", file=sys.stderr)
        return EXIT_USAGE
    return 0


def _conf(given: argparse.Namespace) -> None:
    from agent.fleet import certificates
    from agent.fleet.keyring import KeyringError
    from agent.fleet.mosquitto import Who

    usual = Who()
    who = Who(
        collectors=tuple(given.collector or usual.collectors),
        publishers=tuple(given.publisher or usual.publishers),
    )
    for name in (*who.collectors, *who.publishers):
        if not certificates.TOOL.fullmatch(name):
            raise KeyringError(f"expected fleet. and a name of a-z, 0-9 and -, got {name!r}")
    if not 1 <= given.port <= 65_535:
        raise KeyringError(f"--port: expected 1 to 65535, got {given.port}")
    folder = _path(given.folder or FOLDERS[given.broker])
    made = (_mosquitto if given.broker == "mosquitto" else _ejabberd)(given, folder, who)
    made["ca.pem"] = (given.keys / "ca.pem").read_bytes()
    given.out.mkdir(parents=True, exist_ok=True)
    for name, content in made.items():
        (given.out / name).write_bytes(content)
    if given.json:
        print(json.dumps({"written": [str(given.out / name) for name in made], "port": given.port}))
        return
    print(f"{given.out}: take {', '.join(made)} to {folder} on the broker.")
    print("Put its own certificate beside them as broker.pem and broker.key; nothing else is in there.")


def _mosquitto(given: argparse.Namespace, folder: str, who: "Who") -> dict[str, bytes]:
    from agent.fleet import certificates
    from agent.fleet.mosquitto import Where, acl, conf

    data = _path(given.data or Where().data)
    where = Where(folder=folder, data=data, port=given.port, connections=given.connections)
    crl = certificates.crl(given.keys)
    return {"postern.conf": conf(where).encode(), "acl": acl(who).encode(), "crl.pem": crl}


def _ejabberd(given: argparse.Namespace, folder: str, who: "Who") -> dict[str, bytes]:
    from ipaddress import ip_address

    from agent.fleet import certificates
    from agent.fleet.ejabberd import Where, yml
    from agent.fleet.keyring import KeyringError

    try:
        address = str(ip_address(given.address or Where().address))
    except ValueError as error:
        raise KeyringError(f"--address: {error}") from error
    where = Where(folder=folder, address=address, port=given.port)
    known = certificates.given(given.keys).values()
    revoked = sorted({each.name for each in known} - {each.name for each in known if not each.revoked})
    return {"ejabberd.yml": yml(where, who, revoked).encode()}


def _path(text: str) -> str:
    """A path that is one word of a line of the broker's config. Raises KeyringError."""
    from agent.fleet.keyring import KeyringError

    if not text.startswith("/") or not text.isprintable() or text != text.strip():
        raise KeyringError(f"expected an absolute path, got {text!r}")
    return text.rstrip("/")


def _show(given: argparse.Namespace) -> None:
    from agent.fleet import certificates
    from agent.fleet.table import show

    known = certificates.given(given.keys)
    if given.json:
        for serial, each in known.items():
            facts = {"serial": serial, "name": each.name, "until": each.until, "revoked": each.revoked}
            print(json.dumps(facts))
        return
    rows = [(each.name, each.until, each.revoked or "", serial) for serial, each in known.items()]
    show(("NAME", "UNTIL", "REVOKED", "SERIAL"), sorted(rows))


def _issue(given: argparse.Namespace) -> None:
    from agent.fleet import certificates
    from agent.fleet.keyring import Keyring

    with Keyring(given.keys).locked():
        paths = certificates.issue_tool(given.keys, given.name, given.out)
    told = {"name": given.name, "certificate": str(paths[0]), "key": str(paths[1])}
    print(json.dumps(told) if given.json else f"{given.name}: --certificate {paths[0]} --key {paths[1]}")


def _revoke(given: argparse.Namespace) -> None:
    from agent.fleet import certificates
    from agent.fleet.keyring import Keyring

    with Keyring(given.keys).locked():
        count = certificates.revoke(given.keys, given.name)
        given.out.write_bytes(certificates.crl(given.keys))
    told = {"name": given.name, "revoked": count, "crl": str(given.out)}
    if given.json:
        print(json.dumps(told))
        return
    print(f"{given.name}: {count} revoked. Take {given.out} to the broker as its crl.pem, and restart it:")
    print("whoever is connected would stay so until then.")
