"""Every type of entry that an agent can make: the catalogue.

    CATALOGUE["custody.accepted"].meaning

`postern schema entries` prints it. A test reads the source and finds each type that is named there in here.
"""

from collections.abc import Mapping

from agent.schema.agent_entries import AGENT, DEVICES, JOURNAL, UPLINK
from agent.schema.config_entries import CONFIG
from agent.schema.entry_type import EntryType
from agent.schema.fleet_entries import COMMANDS, FLEET, KEYS
from agent.schema.locker_entries import DOORS, LOCKER
from agent.schema.people_entries import CUSTODY, IDENTITY

CATALOGUE: Mapping[str, EntryType] = {
    each.type: each
    for room in (
        AGENT,
        COMMANDS,
        CONFIG,
        CUSTODY,
        DEVICES,
        DOORS,
        FLEET,
        IDENTITY,
        JOURNAL,
        KEYS,
        LOCKER,
        UPLINK,
    )
    for each in sorted(room, key=lambda each: each.type)
}
