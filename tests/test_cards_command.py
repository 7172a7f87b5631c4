"""`postern cards make` and `postern roster add SUBJECT fido2`, as an operator runs them."""

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.assertion import public_key
from agent.roster import Roster
from agent.row_seal import Keys
from agent.rows import LOCAL
from agent.stake import b64
from simulators.fido_card import FidoCard
from simulators.pn532 import NumberCard, Pn532Reader
from simulators.stage import postern

SUBJECT = "drv-7f3a91"

CONFIG = """\
[device]
id = "van-0042"
tenant = "acme"
state = "{state}"

[broker]
host = "127.0.0.1"
port = 9
plain = true
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "postern.toml"
    path.write_text(CONFIG.format(state=tmp_path / "state"))
    return path


class Making:
    """A `postern cards make` that is going on."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        assert process.stdout is not None
        assert process.stderr is not None
        self.out, self.err = process.stdout, process.stderr

    async def says(self) -> str:
        async with asyncio.timeout(30):
            return (await self.err.readline()).decode().strip()

    async def ended(self) -> tuple[int, str, str]:
        async with asyncio.timeout(30):
            out, err = await self.process.communicate()
        assert self.process.returncode is not None
        return self.process.returncode, out.decode(), err.decode()


@contextlib.asynccontextmanager
async def making(config: Path, reader: Pn532Reader) -> AsyncIterator[Making]:
    at = ["--port", str(reader.name), "--config", str(config)]
    command = ["cards", "make", SUBJECT, "--role", "technician", *at]
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "agent", *command, stdout=pipe, stderr=pipe
    )
    try:
        yield Making(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()


async def test_a_credential_is_made_added_and_told_for_the_fleet(tmp_path: Path, config: Path) -> None:
    card = FidoCard()
    with Pn532Reader(tmp_path / "cards") as reader:
        reader.present(NumberCard(b"\x01\x02\x03\x04"))  # a badge is none
        async with making(config, reader) as made:
            assert await made.says() == "hold the card to the reader, and keep it there"
            reader.present(card)
            assert await made.says() == "lay the finger on the card"
            card.touch("thumb")
            code, out, err = await made.ended()
    assert (code, err) == (0, "")
    told = json.loads(out)
    (credential,) = card.credentials
    assert told["credential_id"] == b64(credential.id)
    assert SUBJECT.encode() not in credential.person, "a card that is found names nobody"
    assert {key: told[key] for key in ("kind", "subject", "rp_id", "algorithm")} == {
        "kind": "fido2",
        "subject": SUBJECT,
        "rp_id": "acme.postern.invalid",
        "algorithm": "EdDSA",
    }
    assert dict(public_key(told["public_key"])) == credential.cose()
    keys = Keys.load(tmp_path / "state" / "keys")
    with contextlib.closing(Roster(tmp_path / "state" / "roster.db", keys)) as roster:
        row = roster.rows.open(LOCAL, "fido2", credential.id)
        assert row is not None
        assert row["role"] == "technician"
    forget = ("roster", "forget", "fido2", "--config", str(config))
    assert await postern(*forget, stdin=out) == "forgotten\n"
    with pytest.raises(RuntimeError, match="no row opens with that"):
        await postern(*forget, stdin=out)
    add = ("roster", "add", SUBJECT, "fido2", "--config", str(config))
    assert "fido2 of drv-7f3a91 is good for 31 days; 1 rows" in await postern(*add, stdin=out)


async def test_a_card_that_makes_none_says_why(tmp_path: Path, config: Path) -> None:
    with Pn532Reader(tmp_path / "cards") as reader:
        async with making(config, reader) as made:
            card = FidoCard(fingers=set())
            reader.present(card)
            code, out, err = await made.ended()
    assert (code, out) == (1, "")
    assert err.splitlines()[-1].endswith(
        ": the card cannot verify its holder: a finger has to be enrolled on it first"
    )


async def test_a_port_that_is_none_is_a_mistake_and_one_that_is_not_there_a_failure(config: Path) -> None:
    make = ("cards", "make", SUBJECT, "--config", str(config), "--port")
    with pytest.raises(RuntimeError, match="--port: expected"):
        await postern(*make, "usb")
    with pytest.raises(RuntimeError, match=r"/dev/nowhere: absent"):
        await postern(*make, "/dev/nowhere")


@pytest.mark.parametrize("said", ["", "{}", "[1]", '{"credential_id": 5, "public_key": ""}', "x" * 9000])
async def test_what_is_no_card_s_record_is_a_mistake(config: Path, said: str) -> None:
    expected = "standard input: expected a JSON object with credential_id and public_key"
    with pytest.raises(RuntimeError, match=expected):
        await postern("roster", "add", SUBJECT, "fido2", "--config", str(config), stdin=said)


async def test_a_key_that_is_none_is_a_mistake(config: Path) -> None:
    said = json.dumps({"credential_id": "A" * 43, "public_key": "AAAA"})
    with pytest.raises(RuntimeError, match="expected a COSE key, got something else"):
        await postern("roster", "add", SUBJECT, "fido2", "--config", str(config), stdin=said)
