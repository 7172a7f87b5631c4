"""The schema of the config file, with the settings of every kind of device.

What no schema can say, such as that a port exists, `postern check` says.
"""

from agent.config_file import File, UnitSection
from agent.intake import Role
from agent.schema.entry_type import Json
from agent.schema.models import LOCAL, definitions, document
from drivers import KINDS, driver_for


def schema() -> Json:
    """As a file of its own; TOML and JSON have the same tables."""
    options = {kind: driver_for(kind).OptionsType for kind in KINDS}
    made = definitions([File, UnitSection, *dict.fromkeys(options.values())])
    whole, common = made.pop(File.__name__), made.pop(UnitSection.__name__)
    for kind, model in options.items():
        made[f"unit-{kind}"] = _unit(kind, common, made[model.__name__])
    units = whole["properties"]["unit"]["patternProperties"]
    for name in units:
        units[name] = {"anyOf": [{"$ref": LOCAL.format(model=f"unit-{kind}")} for kind in KINDS]}
    whole["properties"]["unit"]["additionalProperties"] = False
    return document("config", "postern.toml", whole, made)


def _unit(kind: str, common: Json, own: Json) -> Json:
    """One device: what every unit has, and what is this kind's."""
    properties = {
        **common["properties"],
        **own.get("properties", {}),
        "kind": {"const": kind},
        "role": {"enum": [*Role]},
    }
    return {
        "type": "object",
        "description": own.get("description", ""),
        "required": [*common["required"], *own.get("required", ())],
        "additionalProperties": False,
        "properties": properties,
    }
