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
    found = await asyncio.gather(*(why_not(node, within, f"{config.topic}/down/head") for node in nodes))
    wrong = [why for why in found if why is not None]
    if len(wrong) == len(nodes):
        expected = "a broker that lets this device in and hear"
        raise BadConfig(config.origin, [Mistake("broker", expected, why) for why in wrong])
    return wrong


async def why_not(node: Server, within: float, *topics: str) -> str | None:
    """Why this node does not let us in, or hear these topics, in so many seconds; None if it does."""
    connection = Connection(node)
    try:
        await connection.connect(within)
        if topics:
            await connection.subscribe(*topics)
    except ConnectionLost as lost:
        return str(lost)
    finally:
        await connection.close()
    return None
