"""`postern fleet certificates renew`: have one device make a new key, and give it a certificate for that.

Exit codes: 0 the device uses it, 1 the broker did not take it, the device is away or no word came in time,
2 a mistake in what was typed or with a key, 4 the device goes on with the one before.
"""

import argparse
import asyncio
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from agent.fleet import online
from agent.fleet.order_command import born

if TYPE_CHECKING:
    from agent.fleet.keyring import Keyring
    from agent.mqtt import Connection

EXIT_NOT_DONE = 4
RENEWED = "postern.keys.certificate_renewed"
REFUSED = "postern.keys.certificate_refused"


def add_action(actions: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    renew = actions.add_parser("renew", help="a new key and certificate for a device that is online")
    renew.add_argument("device")
    renew.add_argument("--operator", required=True, help="who orders it")
    renew.add_argument("--reason", default="renewal")
    renew.add_argument("--wait", type=online.seconds, default=60.0, help="seconds until it is in force (60)")
    online.add_options(renew, _renew)


async def _renew(given: argparse.Namespace) -> int:
    from agent.fleet.keyring import Keyring

    keyring = Keyring(given.keys)
    async with online.connected(given) as connection:
        state = await born(given, given.device, connection)
        try:
            async with asyncio.timeout(given.wait):
                end = await _led(given, connection, keyring, state.get("time_nonce"))
        except TimeoutError:
            print(f"postern fleet: no word of it in {given.wait:g} s; it may still come", file=sys.stderr)
            return online.EXIT_FAILED
    online.tell(given, {"device": given.device, "type": end["type"], "data": end["data"]})
    return 0 if end["type"] == RENEWED else EXIT_NOT_DONE


async def _led(
    given: argparse.Namespace, connection: "Connection", keyring: "Keyring", nonce: object
) -> Mapping[str, Any]:
    """From the order to its end: the entry that tells it. Another tool of the fleet may be quicker to give
    what is asked for; the device takes either. Raises ConnectionLost and KeyringError."""
    from agent.fleet import renewals
    from agent.fleet.keyring import KeyringError
    from agent.fleet.publish import OUTCOMES, down, entries_in

    up = f"postern/v1/{given.device}/up/"
    await connection.subscribe(f"{up}entries", f"{up}renewal")
    jti, raw = _order(given, keyring, nonce)
    await connection.publish(f"{down(given.device)}command", raw)
    request: int | None = None
    asked: bytes | None = None
    while True:
        message = await connection.receive()
        connection.acknowledge(message)
        if message.topic == f"{up}renewal":
            asked = message.payload or None
        for entry in entries_in(message) if message.topic == f"{up}entries" else ():
            data = entry.get("data", {})
            if entry.get("type") in OUTCOMES and data.get("command") == jti:
                if "request" not in data:
                    return entry
                request = data["request"]
            elif entry.get("type") in (RENEWED, REFUSED) and request and data.get("request", 0) >= request:
                return entry
        if request is None or asked is None:
            continue
        try:
            if renewals.read(keyring, given.device, asked).number >= request:
                answer = renewals.answer(keyring, given.device, asked, nonce, operator=given.operator)
                await connection.publish(f"{down(given.device)}command", answer)
        except renewals.RenewalError as error:
            raise KeyringError(str(error)) from error
        asked = None


def _order(given: argparse.Namespace, keyring: "Keyring", nonce: object) -> tuple[str, bytes]:
    """Id and bytes of the command that begins it."""
    from agent.envelope import Envelope, Kind
    from agent.fleet.signing import Order, commanded

    order = Order(
        rank="B",
        name="rotate_keys",
        args={"keys": ["certificate"]},
        operator=given.operator,
        reason=given.reason,
        nonce=nonce,
    )
    raw = commanded(keyring, given.device, order)
    return Envelope.parse(Kind.COMMAND, raw).claims(Kind.COMMAND).jti, raw
