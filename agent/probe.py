"""Tries the broker of a config that is not in force, while the connection of the one that is stands."""

import asyncio

from agent.config import Config
from agent.mistakes import BadConfig, Mistake
from agent.mqtt import Connection, ConnectionLost, Server


def connects_otherwise(here: Config, config: Config) -> bool:
    return (here.file.broker, here.tls()) != (config.file.broker, config.tls())


async def probe(config: Config, within: float) -> list[str]:
    """The broker that is to be lets this device in and hear. `within` seconds, all nodes at one time.

    One node is enough, so that another may be away for the moment: why those are that are. Raises BadConfig
    with what each of them says where none is there.
    """
    nodes = config.server().nodes()
    found = await asyncio.gather(*(_why_not(node, f"{config.topic}/down/head", within) for node in nodes))
    wrong = [why for why in found if why is not None]
    if len(wrong) == len(nodes):
        expected = "a broker that lets this device in and hear"
        raise BadConfig(config.origin, [Mistake("broker", expected, why) for why in wrong])
    return wrong


async def _why_not(node: Server, topic: str, within: float) -> str | None:
    connection = Connection(node)
    try:
        await connection.connect(within)
        await connection.subscribe(topic)
    except ConnectionLost as lost:
        return str(lost)
    finally:
        await connection.close()
    return None
