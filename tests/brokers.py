"""Brokers to test against, ours and a real mosquitto, behind the few words that both can play.

    @pytest.fixture(params=BROKERS)
    async def broker(request, tmp_path):
        async with broker_of(request.param, tmp_path) as broker:
            yield broker

And certificates for them, made while a test runs.
"""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from agent.mqtt import Connection, Server, Will
from simulators.broker import Broker
from tests.mosquitto import Mosquitto, free_port

PATIENCE = 15.0
"""Seconds for any one thing, on the slowest machine."""
BROKERS = ["ours", pytest.param("mosquitto", marks=pytest.mark.broker)]


class AnyBroker(Protocol):
    host: str
    port: int

    async def stop(self, *, kill: bool = False) -> None: ...

    async def start(self) -> None: ...


class Ours:
    """Without persistence to lose: sessions and retained messages survive only an orderly stop."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.host, self.port = broker.host, broker.port

    async def stop(self, *, kill: bool = False) -> None:
        if kill:
            self.broker.forget_sessions()
            self.broker.retained.clear()
        await self.broker.stop()

    async def start(self) -> None:
        await self.broker.start()


class Real:
    def __init__(self, broker: Mosquitto) -> None:
        self.broker = broker
        self.host, self.port = broker.host, broker.port

    async def stop(self, *, kill: bool = False) -> None:
        self.broker.stop(kill=kill)

    async def start(self) -> None:
        self.broker.start()


@contextlib.asynccontextmanager
async def broker_of(
    name: str,
    folder: Path,
    *,
    receive_maximum: int = 20,
    maximum_packet_size: int = 1024 * 1024,
    persistence: bool = False,
) -> AsyncIterator[AnyBroker]:
    if name == "mosquitto":
        lines = [
            f"max_inflight_messages {receive_maximum}",
            f"max_packet_size {maximum_packet_size}",
            "max_queued_messages 0",
        ]
        with Mosquitto(folder, config_lines=lines, persistence=persistence) as real:
            yield Real(real)
        return
    # A port that no outgoing connection gets: the broker may be away for a while.
    ours = Broker(port=free_port(), receive_maximum=receive_maximum, maximum_packet_size=maximum_packet_size)
    async with ours:
        yield Ours(ours)


def server(port: int, client_id: str = "van-0042", **values: Any) -> Server:
    return Server(host="127.0.0.1", port=port, client_id=client_id, **values)


@contextlib.asynccontextmanager
async def connected(
    port: int, client_id: str = "van-0042", will: Will | None = None, **values: Any
) -> AsyncIterator[Connection]:
    connection = Connection(server(port, client_id, **values), will)
    try:
        await connection.connect()
        yield connection
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def running(work: Any) -> AsyncIterator["asyncio.Task[None]"]:
    """A task for as long as the context lasts. What it raises is raised at the end."""
    task: asyncio.Task[None] = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class News:
    """Wakes those who wait for a claim to hold whenever `look` is called."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def look(self, *_: object) -> None:
        self._event.set()

    async def until(self, claim: Callable[[], object], within: float = PATIENCE) -> None:
        async with asyncio.timeout(within):
            while not claim():
                self._event.clear()
                await self._event.wait()


def join_child_watchers() -> None:
    """Wait for asyncio's own threads, one a child process, which have told us of its end and now end too."""
    for thread in threading.enumerate():
        if thread.name.startswith("asyncio-waitpid"):
            thread.join()


# -- certificates ---------------------------------------------------------------------------------

PEM = serialization.Encoding.PEM
Key = ec.EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class Pair:
    """Files of a certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """Makes certificates while a test runs."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        certificate = (
            _builder(self._name, self._name, self._key)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs=True), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), critical=False)
            .sign(self._key, hashes.SHA256())
        )
        self.file = folder / f"{name}.pem"
        self.file.write_bytes(certificate.public_bytes(PEM))

    def issue(self, name: str, *, expired: bool = False) -> Pair:
        """For a server on this host, or for a client of this name."""
        key = ec.generate_private_key(ec.SECP256R1())
        host = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        certificate = (
            _builder(_named(name), self._name, key, days=-0.5 if expired else 1.0)
            .add_extension(host, critical=False)
            .add_extension(issuer, critical=False)
            .add_extension(_usage(signs=False), critical=True)
            .sign(self._key, hashes.SHA256())
        )
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        pair.certificate.write_bytes(certificate.public_bytes(PEM))
        secret = key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        pair.key.write_bytes(secret)
        return pair

    def context(self, pair: Pair | None = None) -> ssl.SSLContext:
        """A client's: trusts this authority alone, and shows the certificate if there is one."""
        context = ssl.create_default_context(cafile=self.file)
        if pair is not None:
            context.load_cert_chain(pair.certificate, pair.key)
        return context


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _builder(subject: x509.Name, issuer: x509.Name, key: Key, days: float = 1.0) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=days))
    )


def _usage(*, signs: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs,
        crl_sign=signs,
        encipher_only=False,
        decipher_only=False,
    )
