"""What ejabberd needs to be a fleet's broker, on one node or several: its config, as text. Pure.

    yml(Where(), Who(), revoked=["van-0042"])

The same rules as for mosquitto: a certificate for everybody, each device shut in with its own topics. What
this broker cannot do, and a fleet has to know, is in `agent/fleet/README.md`.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from agent.fleet.mosquitto import Who
from agent.mqtt import MAXIMUM_PACKET

HOST = "postern"
"""ejabberd's name for the users it serves; nobody says it: a name without a host is of this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Paths on the broker's machines: the same on all of them."""

    folder: str = "/etc/ejabberd/postern"
    """Holds `ca.pem`, and the node's own `broker.pem` and `broker.key`."""
    address: str = "::"
    """To listen on."""
    port: int = 8883


def yml(where: Where, who: Who, revoked: Iterable[str] = ()) -> str:
    """`ejabberd.yml`, the whole of it, the same on every node."""
    return f"""\
# A node of the broker of a fleet of Postern devices. Made by `postern fleet broker-conf --broker ejabberd`.
#
# It is trusted with nothing: what goes down is signed, what goes up is hashed and countersigned. What it has
# to do is to carry, and to keep devices from each other.

hosts: [{HOST}]
loglevel: info

# Nobody has a password, and nobody can register: who comes has a certificate, and the name in it is theirs.
auth_method: [mnesia]
certfiles: ["{where.folder}/broker.pem", "{where.folder}/broker.key"]
c2s_cafile: "{where.folder}/ca.pem"
acme: {{auto: false}}

listen:
  -
    port: {where.port}
    ip: "{where.address}"
    module: mod_mqtt
    backlog: 1024
    tls: true
    tls_verify: true
    # What devices and fleet are made for: packets of 128 KiB.
    max_payload_size: {MAXIMUM_PACKET}

acl:
  # This broker reads no list of revoked certificates. Whose was revoked may come, and hears and says nothing.
  revoked:
{_users(revoked)}
  collector:
{_users(who.collectors)}
  publisher:
{_users(who.publishers)}

access_rules:
  everyone: [{{deny: revoked}}, {{allow: all}}]
  collector: [{{deny: revoked}}, {{allow: collector}}]
  publisher: [{{deny: revoked}}, {{allow: publisher}}]
  fleet: [{{deny: revoked}}, {{allow: collector}}, {{allow: publisher}}]

modules:
  mod_mqtt:
    # Devices: their own topics, and no others. %u is the name in the certificate, which has no + # or /.
    access_publish:
      "postern/v1/%u/up/#": everyone
      "postern/v1/+/down/receipt": collector
      "postern/v1/+/down/time": collector
      "postern/v1/+/down/root": collector
      "postern/v1/+/down/command": collector
      "postern/v1/+/down/#": publisher
    access_subscribe:
      "postern/v1/%u/down/#": everyone
      "postern/v1/+/up/#": fleet
      "postern/v1/+/down/#": publisher
    match_retained_limit: infinity
    # A collector that was to come back and did not. Beyond the queue its session ends with all that waits.
    session_expiry: 14 days
    max_queue: 100000
"""


def _users(names: Iterable[str]) -> str:
    # A list in YAML must not be empty, and no certificate has a name like this.
    return "\n".join(f"    - user: {json.dumps(f'{name}@{HOST}')}" for name in (*names, "~"))
