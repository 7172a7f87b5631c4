"""Which broker the fleet's commands talk to: the options that all of them have."""

import argparse
import secrets
import ssl
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agent.mqtt import Server

PORT, PLAIN_PORT = 8883, 1883


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--host",
        required=True,
        action="append",
        metavar="HOST[:PORT]",
        help="of the broker; again for each further node of a cluster",
    )
    parser.add_argument("--port", type=int, help=f"{PORT}, or {PLAIN_PORT} with --plain")
    parser.add_argument("--plain", action="store_true", help="without TLS")
    parser.add_argument("--ca", type=Path, help="certificates that may vouch for the broker (the system's)")
    parser.add_argument("--certificate", type=Path, help="our own certificate, with --key")
    parser.add_argument("--key", type=Path)
    parser.add_argument("--username")
    parser.add_argument("--password-file", type=Path, help="its first line is the password")
    parser.add_argument("--client-id", help="otherwise random")


def server(given: argparse.Namespace, name: str, *, keep: int = 0) -> "Server":
    """Raises OSError, ValueError or IndexError for files that cannot be used.

    `name` stands before a random client id, or is one if the broker is to `keep` a session (seconds).
    """
    from agent.mqtt import Server
    from agent.mqtt_words import node

    port = given.port or (PLAIN_PORT if given.plain else PORT)
    (first, port), *others = (node(text, port) for text in given.host)
    password = given.password_file.read_text().splitlines()[0] if given.password_file else None
    return Server(
        host=first,
        port=port,
        others=tuple(others),
        client_id=given.client_id or (name if keep else f"{name}-{secrets.token_hex(4)}"),
        username=given.username,
        password=password,
        tls=None if given.plain else _tls(given),
        session_expiry=keep,
    )


def _tls(given: argparse.Namespace) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=given.ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if given.certificate:
        context.load_cert_chain(given.certificate, given.key)
    return context
