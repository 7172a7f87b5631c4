"""The schemas describe what is really sent, kept and signed; the AsyncAPI document holds together."""

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from agent.certificate import make_key
from agent.envelope import Envelope, Kind
from agent.fleet import enrolment
from agent.jws import decoded
from agent.key_request import key_request
from agent.postbox import TOPICS
from agent.schema import bodies, entries, settings
from agent.schema.asyncapi import document
from agent.schema.topics import BASE, ENVELOPES, STATE
from agent.schema_command import MAKERS
from simulators.stage import CONFIG
from tests.authority import DAY, NOON, SELF, Authority
from tests.bundles import Press, badges
from tests.fleets import DEVICE, ceremony, csr, enrolled, request
from tests.schemas import fits, standard, validator

Json = Mapping[str, Any]
PATIENCE = 50.0


def all_schemas() -> dict[str, Json]:
    return {
        name: made for what, make in MAKERS.items() if what != "asyncapi" for name, made in make().items()
    }


# -- AsyncAPI -------------------------------------------------------------------------------------


def references(tree: Any) -> Iterator[str]:
    match tree:
        case {"$ref": str(name)}:
            yield name
        case dict():
            for each in tree.values():
                yield from references(each)
        case list():
            for each in tree:
                yield from references(each)


def found(whole: Json, reference: str) -> Any:
    """What a reference within the document points at; None for nothing."""
    at: Any = whole
    for step in reference.removeprefix("#/").split("/"):
        at = at.get(step) if isinstance(at, dict) else None
    return at


def test_the_document_is_one_by_asyncapi_s_own_schema() -> None:
    schema = validator(standard("asyncapi-3.0.0.json"))
    schema.validate(document())
    assert not schema.is_valid({**document(), "channels": {"entries": {"adress": "x"}}})


def test_whatever_the_document_refers_to_is_in_it() -> None:
    whole = document()
    names = set(references(whole))
    assert len(names) > 100
    assert not [name for name in names if found(whole, name) is None]


def test_the_document_uses_no_words_that_draft_07_has_not() -> None:
    assert not re.search(r'"(prefixItems|\$defs|unevaluated\w+|dependentRequired)"', json.dumps(document()))


def test_every_channel_has_its_parameters_and_an_operation() -> None:
    whole = document()
    for channel in whole["channels"].values():
        assert set(channel["parameters"]) == set(re.findall(r"\{(\w+)\}", channel["address"]))
    used = {operation["channel"]["$ref"] for operation in whole["operations"].values()}
    assert used == {f"#/channels/{name}" for name in whole["channels"]}


def test_every_topic_that_is_heard_is_in_the_document() -> None:
    addresses = {channel["address"] for channel in document()["channels"].values()}
    bundles = {name for name in TOPICS if name.startswith("bundle/")}
    heard = {f"{BASE}/down/{name}" for name in {*TOPICS} - bundles}
    assert heard <= addresses
    assert {f"{BASE}/down/bundle/{{bundle}}", f"{BASE}/down/page/{{sha256}}"} <= addresses
    assert set(document()["components"]["parameters"]["bundle"]["enum"]) == {
        name.removeprefix("bundle/") for name in bundles
    }
    assert f"{BASE}/down/receipt" in addresses


# -- what is signed -------------------------------------------------------------------------------


def signed() -> dict[Kind, list[bytes]]:
    """Documents of every kind that a fleet signs, as it signs them."""
    fleet, press = Authority(), Press()
    bundle = press.print(badges(range(20)))
    order = {"operator": "ops-1", "reason": "why"}
    commands = [
        {"class": "A", "name": "status", "args": {}, **order},
        {"class": "C", "name": "open_door", "args": {"unit": "wall", "door": 3}, **order},
    ]
    nonce = "A" * 22
    return {
        Kind.ROOT: [fleet.root()],
        Kind.HEAD: [fleet.head(1, {"root": fleet.root(), "bundle/roster": bundle.raw})],
        Kind.REVOCATIONS: [fleet.revocations(1, of={"subjects": ["drv-1"]})],
        Kind.BUNDLE: [bundle.raw, fleet.bundle("grants", 1)],
        Kind.COMMAND: [fleet.made(Kind.COMMAND, each, 1, exp_in=60) for each in commands],
        Kind.TIME: [fleet.made(Kind.TIME, {"nonce": nonce, "utc": NOON * 1000}, 1)],
        Kind.GRANT: [
            fleet.made(
                Kind.GRANT, {"parcel": "sscc:106141411234567897"}, 1, fleet.signers["bundle"], exp_in=DAY
            )
        ],
        Kind.ENROLMENT: [request(csr=csr(DEVICE))],
        Kind.RENEWAL: [
            key_request(SELF, 1, bytes(32), at=NOON, tls_key=make_key(), seal_key=bytes(32), levels={})
        ],
    }


@pytest.mark.parametrize(("kind", "raws"), signed().items())
def test_what_a_fleet_signs_is_as_described(kind: Kind, raws: list[bytes]) -> None:
    described = validator(bodies.documents()[f"document-{kind}"])
    for raw in raws:
        text = raw.decode()
        assert fits(ENVELOPES["Envelope"], json.loads(text) if text.startswith("{") else text)
        envelope = Envelope.parse(kind, raw)
        payload = json.loads(decoded(envelope.jws.payload))
        described.validate(payload)
        assert not described.is_valid({**payload, "body": {**payload["body"], "more": 1}})
        assert not described.is_valid({**payload, "iss": "somebody"})
        protected = text.partition(".")[0] if not text.startswith("{") else None
        if protected is not None:
            assert fits(bodies.header(kind), json.loads(decoded(protected)))


def test_a_command_is_described_with_its_class_and_arguments() -> None:
    fleet = Authority()
    body = {
        "class": "C",
        "name": "open_door",
        "args": {"unit": "wall", "door": 3},
        "operator": "o",
        "reason": "r",
    }
    raw = fleet.made(Kind.COMMAND, body, 1, aud=SELF.name)
    payload = json.loads(decoded(Envelope.parse(Kind.COMMAND, raw).jws.payload))
    described = validator(bodies.documents()["document-command"])
    assert described.is_valid(payload)
    for wrong in ({"class": "A"}, {"args": {"unit": "wall"}}, {"args": {"unit": "wall", "door": 0}}):
        assert not described.is_valid({**payload, "body": {**body, **wrong}})


def test_a_welcome_is_as_described(tmp_path: Path) -> None:
    welcome = enrolled(ceremony(tmp_path), csr=csr(DEVICE))
    described = validator(bodies.documents()["welcome"])
    described.validate(welcome)
    assert not described.is_valid({**welcome, "root": None})
    assert enrolment.RequestBody.__name__ in document()["components"]["schemas"]


@pytest.mark.parametrize(
    ("bundle", "row"),
    [
        ("roster", {"kind": "badge", "body": {"subject": "drv-1", "finger": ["thumb", 7]}}),
        ("grants", {"kind": "grant", "body": {"jti": "g", "locker": "l", "parcel": "p", "exp": 9}}),
        ("manifest", {"kind": "parcel", "body": {"driver": "drv-1"}}),
    ],
)
def test_a_row_is_as_described(bundle: str, row: dict[str, Any]) -> None:
    row = {"v": "A" * 43, **row}
    described = validator(bodies.rows()[f"page-{bundle}"])
    described.validate({"rows": [row]})
    assert not described.is_valid({"rows": [{**row, "v": "A" * 42}]})
    assert not described.is_valid({"rows": [{**row, "kind": "other"}]})


# -- files and messages ---------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "schema"), all_schemas().items())
def test_each_schema_is_one_and_has_a_name_of_its_own(name: str, schema: Json) -> None:
    validator(schema)
    assert schema["$id"] == f"urn:postern:schema:{name}"
    local = {reference for reference in references(schema) if reference.startswith("#/$defs/")}
    assert {reference.removeprefix("#/$defs/") for reference in local} == set(schema.get("$defs", {}))


def config(**changes: Any) -> Any:
    tree = tomllib.loads(CONFIG.format(state="/var/lib/postern", host="localhost", port=1883, dev="/dev/v"))
    return {**tree, **changes}


def test_a_config_file_is_as_described() -> None:
    described = validator(settings.schema())
    described.validate(config())
    unit = {"kind": "r503", "port": "/dev/a", "password": 7, "role": "finger"}
    assert described.is_valid(config(unit={"f": unit}))
    assert not described.is_valid(config(unit={"f": {**unit, "presence_ms": 5}}))
    assert not described.is_valid(config(unit={"F!": unit}))
    assert not described.is_valid(config(unit={"f": {**unit, "kind": "abacus"}}))
    assert not described.is_valid(config(device={"id": "A+B", "tenant": "acme"}))
    assert not described.is_valid(config(more={}))


def test_what_stands_beneath_a_setting_describes_it() -> None:
    pieces = settings.schema()["$defs"]
    assert pieces["Device"]["properties"]["id"]["pattern"]
    assert (
        pieces["PositionSection"]["properties"]["track_beyond"]["description"]
        == "Metres that count as moving."
    )


def test_the_will_and_the_shortest_birth_are_states() -> None:
    assert fits(STATE, {"online": False})
    assert not fits(STATE, {"online": True, "units": {"gun": {"kind": "ssi"}}})


def test_an_entry_is_a_cloudevent_in_the_eyes_of_its_schema() -> None:
    """CloudEvents knows strings of its own; whatever our schema lets through must be one of those."""
    theirs, ours = standard("cloudevents-1.0.json"), entries.schema()
    assert set(theirs["required"]) <= set(ours["required"])
    assert {"data_base64"}.isdisjoint(ours["properties"])


# -- the command ----------------------------------------------------------------------------------


def postern(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "agent", "schema", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def test_the_command_writes_a_file_for_each(tmp_path: Path) -> None:
    done = postern("--out", tmp_path / "made")
    assert done.returncode == 0
    there = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "made").iterdir()}
    assert there == json.loads(json.dumps({**all_schemas(), "asyncapi": document()}))


def test_the_command_prints_what_it_is_asked_for() -> None:
    assert json.loads(postern("asyncapi").stdout)["asyncapi"] == "3.0.0"
    assert set(json.loads(postern("documents").stdout)) == set(bodies.documents())


def test_the_command_shows_the_catalogue_as_a_table() -> None:
    lines = postern("entries").stdout.splitlines()
    assert lines[0].split() == ["TYPE", "SUBJECT", "LANE", "MEANING"]
    (accepted,) = [line for line in lines if line.startswith("custody.accepted ")]
    assert accepted.split(maxsplit=3)[1:] == [
        "parcel",
        "custody",
        "The parcel came into the driver's custody.",
    ]
    first = json.loads(postern("entries", "--json").stdout.splitlines()[0])
    assert first["type"] == "postern.agent.fault"


@pytest.mark.parametrize("words", [(), ("entries", "--out", "x"), ("abacus",)])
def test_the_command_says_what_it_cannot_do(words: tuple[str, ...]) -> None:
    done = postern(*words)
    assert done.returncode == 2
    assert "expected" in done.stderr or "choose" in done.stderr
