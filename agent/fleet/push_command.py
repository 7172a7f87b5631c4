"""`postern fleet push`, `revoke` and `head`: what devices are to know, signed and left at the broker.

Exit codes: 0 done, 1 the broker did not take it, 2 a mistake in what was typed, in a file or with a key.
"""

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from agent.fleet import config_command, online

if TYPE_CHECKING:
    from agent.fleet.keyring import Keyring


def add_actions(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    push = actions.add_parser("push", help="say what a bundle is to hold, or which config to try")
    push.add_argument("bundle", choices=("roster", "grants", "manifest", "config"))
    push.add_argument(
        "file",
        type=Path,
        help="CSV with a header, or JSON: all rows, not only the new ones; TOML of a config",
    )
    config_command.add_options(push)
    push.add_argument("--scope", default="all", help="only rows for these: see the column scope (all)")
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
    from dataclasses import asdict

    from agent.fleet import row_files
    from agent.fleet.delivery import deliver
    from agent.fleet.keyring import Keyring
    from agent.fleet.signing import chosen

    keyring = Keyring(given.keys)
    devices = chosen(keyring, given.device)
    rows = row_files.read(given.bundle, given.file, given.scope)
    left = deliver(
        partial(online.leave, given),
        keyring,
        devices,
        lambda desk, device: desk.bundle(device, given.bundle, rows, scope=given.scope),
    )
    async for device, document, published in left:
        body = document.body
        new = sum(each.ver == document.ver for each in body.pages)
        facts = {"bundle": body.kind, "ver": document.ver, "rows": body.rows, "pages": len(body.pages)}
        online.tell(given, {"device": device, **facts, "new": new, **asdict(published)})
    return None


# -- head -----------------------------------------------------------------------------------------


async def _head(given: argparse.Namespace) -> None:
    from agent.mqtt import ConnectionLost

    reached: set[str] = set()
    while given.every is not None:
        given.away = False
        try:
            await _heads(given, reached)
        except ConnectionLost as lost:
            # A head is good for a day: the broker has until then.
            print(f"postern fleet: {lost}", file=sys.stderr, flush=True)
        await asyncio.sleep(given.every)
    await _heads(given, reached)


async def _heads(given: argparse.Namespace, reached: set[str]) -> None:
    """A head for each device; for those that were `reached` before only what is new, without asking the
    broker what it has: pages come with the push that made them."""
    from dataclasses import asdict

    from agent.fleet.delivery import batches, sign
    from agent.fleet.keyring import Keyring
    from agent.fleet.publish import send_all
    from agent.fleet.signing import chosen

    keyring = Keyring(given.keys)
    devices = chosen(keyring, given.device)
    for some in batches(devices):
        signed = await asyncio.to_thread(sign, keyring, some, lambda desk, device: desk.head(device))
        fresh = {device: each.outgoing for device, each in signed.items() if device not in reached}
        known = {device: each.news for device, each in signed.items() if device in reached}
        published = await online.leave(given, fresh)
        if known:
            await online.everywhere(given, partial(send_all, messages=_each(known)))
        reached.update(some)
        for device, each in signed.items():
            facts = {"head": each.document.ver, "until": each.document.claims.exp}
            sent = {"sent": len(known[device])} if device in known else asdict(published[device])
            online.tell(given, {"device": device, **facts, **sent})
    if given.away:
        # A node lacks what it has missed: next time each is asked what it has.
        reached.clear()


def _each(news: Mapping[str, Mapping[str, bytes]]) -> list[tuple[str, str, bytes]]:
    """Device, name and message of each."""
    return [(device, *each) for device, messages in news.items() for each in messages.items()]


# -- revoke ---------------------------------------------------------------------------------------


async def _revoke(given: argparse.Namespace) -> None:
    """The revocations to everybody first: they take effect by themselves. Then the heads that name them."""
    from agent.fleet.delivery import batches, sign
    from agent.fleet.keyring import Keyring, KeyringError
    from agent.fleet.publish import send_all
    from agent.fleet.signing import Desk, chosen

    keyring = Keyring(given.keys)
    credentials = _credentials(given.credentials, keyring) if given.credentials else ()
    if not (given.subject or given.grant or credentials):
        raise KeyringError("expected --subject, --grant or --credentials, got none")
    devices = chosen(keyring, None)
    with keyring.locked():
        desk = Desk(keyring, int(time.time()))
        document = desk.revoke(subjects=given.subject, grants=given.grant, credentials=credentials)
    everybody = [(device, "revocations", document.raw) for device in devices]
    await online.everywhere(given, partial(send_all, messages=everybody))
    for some in batches(devices):
        signed = await asyncio.to_thread(sign, keyring, some, lambda desk, device: desk.head(device))
        news = _each({device: made.news for device, made in signed.items()})
        await online.everywhere(given, partial(send_all, messages=news))
    online.tell(given, {"revocations": document.ver, "devices": len(devices)})


def _credentials(path: Path, keyring: "Keyring") -> list[str]:
    """How the fleet's rows know the credentials of a file."""
    from agent.fleet import row_files
    from agent.row_seal import value_of

    epoch = keyring.epoch().key
    return [value_of(epoch, row.kind, row.token)[:16].hex() for row in row_files.read("roster", path)]
