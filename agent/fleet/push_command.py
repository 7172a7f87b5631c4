"""`postern fleet push`, `revoke` and `head`: what devices are to know, signed and left at the broker.

Exit codes: 0 done, 1 the broker did not take it, 2 a mistake in what was typed, in a file or with a key.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.fleet import config_command, online

if TYPE_CHECKING:
    from agent.fleet.keyring import Keyring
    from agent.mqtt import Connection


def add_actions(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    push = actions.add_parser("push", help="say what a bundle is to hold, or which config to try")
    push.add_argument("bundle", choices=("roster", "grants", "manifest", "config"))
    push.add_argument(
        "file",
        type=Path,
        help="CSV with a header, or JSON: all rows, not only the new ones; TOML of a config",
    )
    config_command.add_options(push)
    push.add_argument("--scope", default="all", help="whom the rows are for, for people to read")
    head = actions.add_parser("head", help="tell devices what is current, for a day")
    head.add_argument("--every", type=online.seconds, help="again and again, in seconds, until interrupted")
    revoke = actions.add_parser("revoke", help="take drivers, credentials or grants away for ever")
    revoke.add_argument("--subject", action="append", default=[], help="a driver's reference; repeatable")
    revoke.add_argument("--grant", action="append", default=[], help="a grant's id; repeatable")
    revoke.add_argument("--credentials", type=Path, help="a roster file: the credentials in it")
    for action, run in ((push, _push), (head, _head), (revoke, _revoke)):
        online.add_options(action, run)
    for action in (push, head):
        to = action.add_mutually_exclusive_group(required=True)
        to.add_argument("--device")
        to.add_argument("--all", action="store_true")


# -- push -----------------------------------------------------------------------------------------


async def _push(given: argparse.Namespace) -> int | None:
    if given.bundle == "config":
        return await config_command.push(given)
    from agent.fleet import row_files
    from agent.fleet.keyring import Keyring
    from agent.fleet.signing import Desk, chosen

    keyring = Keyring(given.keys)
    devices = chosen(keyring, given.device)
    rows = row_files.read(given.bundle, given.file)
    for device in devices:
        with keyring.locked():
            desk = Desk(keyring, int(time.time()))
            document = desk.bundle(device, given.bundle, rows, scope=given.scope)
            desk.head(device)
            outgoing = desk.outgoing(device)
        body = document.body
        new = sum(each.ver == document.ver for each in body.pages)
        facts = {
            "bundle": body.kind,
            "ver": document.ver,
            "rows": body.rows,
            "pages": len(body.pages),
            "new": new,
        }
        await _reconcile(given, device, outgoing, facts)
    return None


async def _reconcile(
    given: argparse.Namespace, device: str, outgoing: Mapping[str, bytes], facts: Mapping[str, Any]
) -> None:
    from dataclasses import asdict

    from agent.fleet.publish import reconcile

    published = await online.everywhere(given, lambda node: reconcile(node, device, outgoing))
    online.tell(given, {"device": device, **facts, **asdict(published)})


# -- head -----------------------------------------------------------------------------------------


async def _head(given: argparse.Namespace) -> None:
    from agent.mqtt import ConnectionLost

    sent: dict[str, Mapping[str, bytes]] = {}
    while given.every is not None:
        try:
            await _heads(given, sent)
        except ConnectionLost as lost:
            # A head is good for a day: the broker has until then.
            print(f"postern fleet: {lost}", file=sys.stderr, flush=True)
        await asyncio.sleep(given.every)
    await _heads(given, sent)


async def _heads(given: argparse.Namespace, sent: dict[str, Mapping[str, bytes]]) -> None:
    """A head for each device, and whatever else has changed since `sent`."""
    from agent.fleet.keyring import Keyring
    from agent.fleet.signing import Desk, chosen

    keyring = Keyring(given.keys)
    for device in chosen(keyring, given.device):
        with keyring.locked():
            desk = Desk(keyring, int(time.time()))
            document = desk.head(device)
            outgoing = desk.outgoing(device)
        facts = {"head": document.ver, "until": document.claims.exp}
        if device in sent:
            await _send_news(given, device, sent[device], outgoing, facts)
        else:
            await _reconcile(given, device, outgoing, facts)
        sent[device] = _without_pages(outgoing)


async def _send_news(
    given: argparse.Namespace,
    device: str,
    before: Mapping[str, bytes],
    outgoing: Mapping[str, bytes],
    facts: Mapping[str, Any],
) -> None:
    """What has changed since we were last here; pages come with the push that made them."""
    from agent.fleet.publish import send

    news = {name: raw for name, raw in _without_pages(outgoing).items() if before.get(name) != raw}
    await online.everywhere(given, lambda node: send(node, device, news))
    online.tell(given, {"device": device, **facts, "sent": len(news)})


def _without_pages(outgoing: Mapping[str, bytes]) -> dict[str, bytes]:
    from agent.fleet.publish import PAGES

    return {name: raw for name, raw in outgoing.items() if not name.startswith(PAGES)}


# -- revoke ---------------------------------------------------------------------------------------


async def _revoke(given: argparse.Namespace) -> None:
    """The revocations to everybody first: they take effect by themselves. Then the heads that name them."""
    from agent.fleet.keyring import Keyring, KeyringError
    from agent.fleet.publish import send
    from agent.fleet.signing import Desk, chosen

    keyring = Keyring(given.keys)
    credentials = _credentials(given.credentials, keyring) if given.credentials else ()
    if not (given.subject or given.grant or credentials):
        raise KeyringError("expected --subject, --grant or --credentials, got none")
    devices = chosen(keyring, None)
    with keyring.locked():
        desk = Desk(keyring, int(time.time()))
        document = desk.revoke(subjects=given.subject, grants=given.grant, credentials=credentials)

    async def spread(connection: "Connection") -> None:
        for device in devices:
            await send(connection, device, {"revocations": document.raw})
        for device in devices:
            if device not in heads:
                with keyring.locked():
                    desk.head(device)
                    heads[device] = _without_pages(desk.outgoing(device))
            await send(connection, device, heads[device])

    heads: dict[str, Mapping[str, bytes]] = {}
    await online.everywhere(given, spread)
    online.tell(given, {"revocations": document.ver, "devices": len(devices)})


def _credentials(path: Path, keyring: "Keyring") -> list[str]:
    """How the fleet's rows know the credentials of a file."""
    from agent.fleet import row_files
    from agent.rows import value_of

    epoch = keyring.epoch().key
    return [value_of(epoch, row.kind, row.token)[:16].hex() for row in row_files.read("roster", path)]
