"""What mosquitto needs to be a fleet's broker: its config and who may do what, as text. Pure.

    conf(Where()), acl(Who())

The broker keeps devices apart from each other and from the fleet's topics; it is not believed in anything
else. With the paths of Debian's package this is what lies in `systemd/mosquitto`.
"""

from dataclasses import dataclass

from agent.mqtt import MAXIMUM_PACKET, WINDOW


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Paths on the broker's machine, and how many may come."""

    folder: str = "/etc/mosquitto/postern"
    """Holds `acl`, `ca.pem`, `crl.pem`, and the broker's own `broker.pem` and `broker.key`."""
    data: str = "/var/lib/mosquitto"
    port: int = 8883
    connections: int = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """Names in the certificates of the fleet's own tools. Two that run at one time need two names."""

    collectors: tuple[str, ...] = ("fleet.collector",)
    publishers: tuple[str, ...] = ("fleet.publisher",)


def conf(where: Where) -> str:
    """`postern.conf`, to be included from `/etc/mosquitto/conf.d`."""
    return f"""\
# The broker of a fleet of Postern devices. Made by `postern fleet broker-conf`.
#
# It is trusted with nothing: what goes down is signed, what goes up is hashed and countersigned. What it has
# to do is to carry, and to keep devices from each other.

per_listener_settings false
allow_anonymous false
acl_file {where.folder}/acl

listener {where.port}
tls_version tlsv1.3
cafile {where.folder}/ca.pem
certfile {where.folder}/broker.pem
keyfile {where.folder}/broker.key
crlfile {where.folder}/crl.pem
# The name in the certificate is the user and the client id: nobody can take over somebody else's session.
require_certificate true
use_identity_as_username true
use_username_as_clientid true
max_connections {where.connections}

# What devices and fleet are made for: packets of 128 KiB, and {WINDOW} of them on their way.
max_packet_size {MAXIMUM_PACKET}
max_inflight_messages {WINDOW}
max_keepalive 600
set_tcp_nodelay true
# Beyond these, what waits for a collector that is away is dropped without a word.
max_queued_messages 100000
max_queued_bytes 1073741824
# A collector that was to come back and did not.
persistent_client_expiration 14d

# What is retained outlives a restart. What was queued in the last minute before a power cut may not: the
# collector's receipts tell each device how far the fleet really has its entries.
persistence true
persistence_location {where.data}/
autosave_interval 60

log_type error
log_type warning
log_type notice
connection_messages true
"""


def acl(who: Who) -> str:
    """`acl`: what is not named is refused. A subscription to more than that is granted, and stays silent."""
    devices = """\
# Devices: their own topics, and no others. %u is the name in the certificate, which has no + # or /.
pattern write postern/v1/%u/up/#
pattern read postern/v1/%u/down/#
"""
    collectors = [
        _user(
            name,
            "hears all devices; answers with receipts, the time, roots they missed, and signed commands",
            "read postern/v1/+/up/#",
            *(f"write postern/v1/+/down/{topic}" for topic in ("receipt", "time", "root", "command")),
        )
        for name in who.collectors
    ]
    publishers = [
        _user(
            name,
            "leaves what is signed, and looks for what is there already and what came of it",
            "read postern/v1/+/up/#",
            "readwrite postern/v1/+/down/#",
        )
        for name in who.publishers
    ]
    return "\n".join([devices, *collectors, *publishers])


def _user(name: str, what: str, *topics: str) -> str:
    return "\n".join([f"# {what}", f"user {name}", *(f"topic {topic}" for topic in topics), ""])
