"""`postern fleet push config` and `postern fleet explain`: a config for devices that cannot lock them out.

Exit codes: 0 done, 1 the broker did not take it, 2 a mistake in what was typed, in a file or with a key,
4 a device refused the config, went back, or said nothing in time.
"""

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.config_command import explain_options, people_of, show
from agent.fleet import online

if TYPE_CHECKING:
    from agent.documents import Document

EXIT_NOT_KEPT = 4


def add_options(push: argparse.ArgumentParser) -> None:
    push.add_argument(
        "--dry-run", action="store_true", help="config: only have devices say what would change"
    )
    push.add_argument(
        "--confirm-timeout", type=int, default=600, metavar="SECONDS", help="config: 120 to 3600"
    )
    push.add_argument("--require", action="append", metavar="UNIT", help="config: must be ready; repeatable")
    push.add_argument("--min-agent", default="0", metavar="VERSION", help="config: oldest agent that may try")
    push.add_argument("--wait", type=online.seconds, help="config: confirm it, and wait for the outcome")


def add_actions(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    explain = actions.add_parser("explain", help="what a config would change in the last that was pushed")
    explain.add_argument("file", type=Path)
    explain.add_argument("--device", required=True)
    explain.add_argument("--keys", type=Path, required=True, metavar="DIR")
    explain_options(explain)
    explain.set_defaults(run=_explain)


async def push(given: argparse.Namespace) -> int:
    """Sign it for each device, leave it at the broker, and wait where that is asked for."""
    from dataclasses import asdict

    from agent.fleet import wishes
    from agent.fleet.delivery import deliver
    from agent.fleet.keyring import Keyring
    from agent.fleet.signing import chosen

    keyring = Keyring(given.keys)
    devices = chosen(keyring, given.device)
    text = wishes.text_in(given.file)
    for device in devices:
        wishes.config_for(text, device, keyring.tenant, str(given.file))
    body = _body(given, text)
    sent: dict[str, Document[Any]] = {}
    left = deliver(
        partial(online.leave, given), keyring, devices, lambda desk, device: desk.config(device, body)
    )
    async for device, document, published in left:
        sent[device] = document
        online.tell(given, {"device": device, "config": document.ver, **asdict(published)})
    return await _wait(given, sent) if given.wait else 0


def _body(given: argparse.Namespace, text: str) -> dict[str, Any]:
    from pydantic import ValidationError

    from agent.cli import Mistake
    from agent.envelope import told
    from agent.fleet import wishes

    try:
        return wishes.body(
            text,
            timeout_s=given.confirm_timeout,
            units=given.require,
            min_agent=given.min_agent,
            dry_run=given.dry_run,
        )
    except ValidationError as error:
        raise Mistake(f"postern fleet: {told(error)}") from error


async def _wait(given: argparse.Namespace, sent: "dict[str, Document[Any]]") -> int:
    from agent.fleet.wishes import Watch

    watch = Watch(given.keys, sent)
    async with online.connected(given) as connection:
        await watch.run(connection, given.wait)
    for device, end in watch.ends.items():
        online.tell(given, {"device": device, **end})
    for device in sorted(sent.keys() - watch.ends.keys()):
        print(f"postern fleet: no word of {device} in {given.wait:g} s", file=sys.stderr)
    good = [
        end
        for end in watch.ends.values()
        if end["state"] in ("confirmed", "checked") and not end.get("refused")
    ]
    return 0 if len(good) == len(sent) else EXIT_NOT_KEPT


def _explain(given: argparse.Namespace) -> int:
    from agent.cli import Mistake
    from agent.explain import explain
    from agent.fleet import wishes
    from agent.fleet.issued import Issued
    from agent.fleet.keyring import Keyring, KeyringError

    try:
        keyring = Keyring(given.keys)
        old = wishes.last_wish(Issued(keyring.folder), given.device, keyring.tenant)
    except KeyringError as error:
        raise Mistake(f"postern fleet: {error}") from error
    new = wishes.config_for(wishes.text_in(given.file), given.device, keyring.tenant, str(given.file))
    show(given, explain(old, new, people_of(given.roster)))
    return 0
