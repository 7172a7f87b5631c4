"""The AsyncAPI 3.0 document of everything that a device sends and hears, from the device's side.

AsyncAPI's own schemas are JSON Schema of draft 07, so what is newer is said in the older words.
"""

from typing import Any, get_args

from agent import VERSION
from agent.config_file import DEVICE_ID
from agent.documents import BundleKind
from agent.mqtt import MAXIMUM_PACKET
from agent.schema import bodies, entries, topics
from agent.schema.entry_type import Json
from agent.schema.topics import BASE, Topic

_COMPONENT = "#/components/schemas/{model}"
_MQTT = "0.2.0"
"""Version of AsyncAPI's MQTT binding."""

_INFO: Json = {
    "title": "Postern",
    "version": VERSION,
    "license": {"name": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
    "description": (
        "What an edge agent at a gate for parcels sends and hears over MQTT 5. The broker has no authority: "
        "what goes down is signed, and what goes up is hashed into a tree whose checkpoints are signed. "
        "Messages are acknowledged once what follows from them is on stable storage."
    ),
}

_SERVERS: Json = {
    "broker": {
        "host": "{host}:8883",
        "protocol": "secure-mqtt",
        "protocolVersion": "5.0",
        "description": "TLS 1.3. The name in a client's certificate is its user name and its device id.",
        "variables": {"host": {"description": "Of the fleet's broker."}},
        "security": [{"$ref": "#/components/securitySchemes/certificate"}],
        "bindings": {
            "mqtt": {
                "clientId": "the device id",
                "cleanSession": True,
                "keepAlive": 25,
                "maximumPacketSize": MAXIMUM_PACKET,
                "lastWill": {
                    "topic": f"{BASE}/up/state",
                    "qos": 1,
                    "retain": True,
                    "message": '{"online":false}',
                },
                "bindingVersion": _MQTT,
            }
        },
    }
}

_PARAMETERS: Json = {
    "device": {"description": f"The device id: {DEVICE_ID}"},
    "bundle": {"description": "Which of them.", "enum": list(get_args(BundleKind))},
    "sha256": {"description": "Hash of the sealed page in lower-case hex."},
}


def document() -> Json:
    """The whole of it."""
    all_topics = topics.topics(_COMPONENT)
    return {
        "asyncapi": "3.0.0",
        "id": "urn:postern:v1",
        "info": _INFO,
        "defaultContentType": topics.JSON,
        "servers": _SERVERS,
        "channels": {each.message: _channel(each) for each in all_topics},
        "operations": {f"{_action(each)}-{each.message}": _operation(each) for each in all_topics},
        "components": {
            "messages": {each.message: _message(each) for each in all_topics},
            "parameters": _PARAMETERS,
            "schemas": _older(_schemas()),
            "securitySchemes": {
                "certificate": {"type": "X509", "description": "Given by the fleet at enrolment."}
            },
        },
    }


def _schemas() -> Json:
    return {**topics.ENVELOPES, **entries.parts(_COMPONENT), **bodies.parts(_COMPONENT)}


def _channel(topic: Topic) -> Json:
    address = f"{BASE}/{topic.path}"
    named = [name for name in _PARAMETERS if f"{{{name}}}" in address]
    return {
        "address": address,
        "summary": topic.summary,
        "messages": {topic.message: {"$ref": f"#/components/messages/{topic.message}"}},
        "parameters": {name: {"$ref": f"#/components/parameters/{name}"} for name in named},
    }


def _action(topic: Topic) -> str:
    return "send" if topic.up else "receive"


def _operation(topic: Topic) -> Json:
    return {
        "action": _action(topic),
        "channel": {"$ref": f"#/channels/{topic.message}"},
        "summary": topic.summary,
        "messages": [{"$ref": f"#/channels/{topic.message}/messages/{topic.message}"}],
        "bindings": {"mqtt": {"qos": 1, "retain": topic.retained, "bindingVersion": _MQTT}},
    }


def _message(topic: Topic) -> Json:
    message: Json = {
        "name": topic.message,
        "summary": topic.summary,
        "contentType": topic.content_type,
        "payload": _older(topic.payload),
    }
    if topic.headers is not None:
        message["headers"] = topic.headers
    if topic.claims is not None:
        # AsyncAPI has no word for what is inside of a signature.
        claims = _COMPONENT.format(model=bodies.payload_name(topic.claims))
        message["x-jws-header"] = bodies.header(topic.claims)
        message["x-jws-payload"] = {"$ref": claims}
    return message


def _older(tree: Any) -> Any:
    """A schema of 2020-12 in the words of draft 07: a tuple's items have another name there."""
    match tree:
        case {"prefixItems": items, **rest}:
            return {**_older(rest), "items": _older(items)}
        case dict():
            return {key: _older(each) for key, each in tree.items()}
        case list():
            return [_older(each) for each in tree]
    return tree
