"""Fingerprint cards: the virtual one against the fido2 library's own client, and ours against the card."""

import asyncio
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from threading import Event
from typing import Any

import pytest
from fido2 import cbor as library_cbor
from fido2.attestation.packed import PackedAttestation
from fido2.cose import ES256, EdDSA
from fido2.ctap import CtapDevice, CtapError
from fido2.ctap2.base import Ctap2
from fido2.hid import CAPABILITY

from agent.assertion import verify
from agent.stake import b64
from drivers.readings import CardAsserted, CardFailed, CardFailure, CredentialMade
from simulators import cbor
from simulators.fido_card import EDDSA, FidoCard
from simulators.fido_card import ES256 as ES256_NUMBER
from tests.card_bench import HASH, PERSON, RP, bench, obeyed

USER = {"id": PERSON, "name": "x"}
KEYS: list[Mapping[str, Any]] = [{"type": "public-key", "alg": -8}, {"type": "public-key", "alg": -7}]
RSA: list[Mapping[str, Any]] = [{"type": "public-key", "alg": -257}]
UV = {"uv": True}
FIDO = "00 A4 04 00 08 A0 00 00 06 47 2F 00 01 00"

# -- the virtual card, asked by the library ---------------------------------------------------------


class Direct(CtapDevice):
    """The library's way to a card, without a reader: short APDUs, as its own PC/SC transport sends them."""

    def __init__(self, card: FidoCard) -> None:
        self.card = card
        self.tell(bytes.fromhex(FIDO))

    @property
    def capabilities(self) -> int:
        return CAPABILITY.CBOR

    @classmethod
    def list_devices(cls) -> Any:
        return iter(())

    def call(
        self,
        cmd: int,
        data: bytes = b"",
        event: Event | None = None,
        on_keepalive: Callable[[Any], None] | None = None,
    ) -> bytes:
        while len(data) > 250:
            assert self.tell(bytes([0x90, 0x10, 0x80, 0, 250]) + data[:250]) == b"\x90\x00"
            data = data[250:]
        said = self.tell(bytes([0x80, 0x10, 0x80, 0, len(data)]) + data + b"\x00")
        whole = said[:-2]
        while said[-2] == 0x61:
            said = self.tell(bytes([0, 0xC0, 0, 0, said[-1]]))
            whole += said[:-2]
        assert said[-2:] == b"\x90\x00"
        return whole

    def tell(self, apdu: bytes) -> bytes:
        said: list[bytes] = []
        self.card.ask(apdu, said.append)
        return said[0]


def library(card: FidoCard) -> Ctap2:
    card.touch("thumb")
    return Ctap2(Direct(card), strict_cbor=True)


def test_the_library_finds_a_card_that_verifies_its_holder() -> None:
    info = library(FidoCard()).info
    assert info.versions == ["FIDO_2_0"]
    assert info.options == {"rk": True, "up": True, "uv": True, "plat": False}
    assert library(FidoCard(fingers=set())).info.options["uv"] is False


@pytest.mark.parametrize(("algorithm", "kind"), [(ES256_NUMBER, ES256), (EDDSA, EdDSA)])
def test_the_library_believes_what_the_card_makes_and_signs(algorithm: int, kind: type[Any]) -> None:
    ctap = library(FidoCard(algorithms=(algorithm,)))
    made = ctap.make_credential(HASH, {"id": RP, "name": RP}, USER, KEYS, options={"rk": True, "uv": True})
    PackedAttestation().verify(made.att_stmt, made.auth_data, HASH)
    credential = made.auth_data.credential_data
    assert credential is not None
    assert isinstance(credential.public_key, kind)
    for counter in (1, 2):
        said = ctap.get_assertion(RP, HASH, options=UV)
        said.verify(HASH, credential.public_key)
        assert said.credential["id"] == credential.credential_id
        assert (said.auth_data.counter, said.auth_data.is_user_verified()) == (counter, True)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (lambda ctap: ctap.get_assertion("other.invalid", HASH, options=UV), CtapError.ERR.NO_CREDENTIALS),
        (
            lambda ctap: ctap.make_credential(HASH, {"id": RP}, USER, RSA),
            CtapError.ERR.UNSUPPORTED_ALGORITHM,
        ),
        (lambda ctap: ctap.send_cbor(0x02, {1: RP}), CtapError.ERR.MISSING_PARAMETER),
        (lambda ctap: ctap.send_cbor(0x09), CtapError.ERR.INVALID_COMMAND),
    ],
)
def test_the_card_declines_as_the_specification_says(wrong: Callable[[Ctap2], object], code: object) -> None:
    with pytest.raises(CtapError) as declined:
        wrong(library(FidoCard()))
    assert declined.value.code == code


def test_three_wrong_fingers_block_the_card() -> None:
    card = FidoCard()
    ctap = library(card)
    ctap.make_credential(HASH, {"id": RP}, USER, KEYS, options={"rk": True})
    codes = []
    for finger in ("toe", "toe", "toe", "thumb"):
        card.touch(finger)
        with pytest.raises(CtapError) as declined:
            ctap.get_assertion(RP, HASH, options=UV)
        codes.append(declined.value.code.name)
    assert codes == ["OPERATION_DENIED", "OPERATION_DENIED", "UV_BLOCKED", "UV_BLOCKED"]


def test_both_ways_to_write_cbor_agree() -> None:
    chance = random.Random(5)
    for _ in range(300):
        value = anything(chance, 3)
        raw = cbor.encode(value)
        assert raw == library_cbor.encode(value)
        assert cbor.decode(raw) == value == library_cbor.decode(raw)


def anything(chance: random.Random, depth: int) -> Any:
    match chance.randrange(6 if depth else 4):
        case 0:
            return chance.choice((-1, 1)) * chance.getrandbits(chance.randrange(1, 33))
        case 1:
            return chance.randbytes(chance.randrange(300))
        case 2:
            return "ä" * chance.randrange(40)
        case 3:
            return chance.random() < 0.5
        case 4:
            return [anything(chance, depth - 1) for _ in range(chance.randrange(5))]
    return {chance.choice((n, -n, f"k{n}")): anything(chance, depth - 1) for n in range(chance.randrange(5))}


@pytest.mark.parametrize(
    "raw", ["", "1801", "a2020101 01", "4201", "9f01ff", "fb00", "a141 0101", "8181818181818101"]
)
def test_cbor_that_is_not_canonical_is_none(raw: str) -> None:
    with pytest.raises(cbor.BadCbor):
        cbor.decode(bytes.fromhex(raw))


# -- our way to the card ----------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", [ES256_NUMBER, EDDSA])
@pytest.mark.parametrize("keeps_alive", [True, False])
async def test_a_card_signs_once_the_finger_is_laid_on_it(
    tmp_path: Path, algorithm: int, keeps_alive: bool
) -> None:
    async with bench(tmp_path) as at:
        card = FidoCard(algorithms=(algorithm,), keeps_alive=keeps_alive)
        made = await at.with_credential(card)
        asking = asyncio.create_task(at.asserted())
        await obeyed(at.reader, 0x40)
        assert not asking.done()
        card.touch("thumb")
        said = await asking
        assert isinstance(said, CardAsserted)
        assert said.credential_id == made.credential_id
        key = b64(made.public_key)
        assert verify(said, key=key, rp_id=RP, client_data_hash=HASH) == 1
        assert at.readings.empty(), "the card has lain there all the time: nobody came or went"


async def test_long_messages_go_in_parts_and_come_in_parts(tmp_path: Path) -> None:
    """600 characters of relying party: chained APDUs in extended frames, answers in parts."""
    rp_id = "a" * 600
    async with bench(tmp_path) as at:
        at.reader.part = 50
        card = FidoCard(algorithms=(ES256_NUMBER,))
        made = await at.with_credential(card, rp_id=rp_id)
        card.touch("thumb")
        said = await at.asserted(rp_id=rp_id)
        assert isinstance(said, CardAsserted)
        assert verify(said, key=b64(made.public_key), rp_id=rp_id, client_data_hash=HASH) == 1
        apdus = [asked[2:] for asked in at.reader.asked if asked[0] == 0x40]
        assert any(len(apdu) == 260 and apdu[0] == 0x90 for apdu in apdus), "chained, in an extended frame"
        assert any(apdu[1:2] == b"\xc0" for apdu in apdus), "GET RESPONSE"
        assert b"" in apdus, "the chip's own parts"


async def test_a_person_s_next_credential_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        card = FidoCard()
        await at.with_credential(card)
        card.touch("thumb")
        second = await at.made()
        assert isinstance(second, CredentialMade)
        assert [each.id for each in card.credentials] == [second.credential_id]


async def failure(at: Any) -> CardFailure:
    said = await at.asserted(within=0.3)
    assert isinstance(said, CardFailed)
    return said.failure


async def test_every_way_to_fail_has_its_word(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        assert await failure(at) is CardFailure.GONE
        card = FidoCard()
        at.reader.present(card)
        await at.arrived()
        card.touch("thumb")
        assert await failure(at) is CardFailure.NO_CREDENTIAL
        await at.made()
        card.lift()
        assert await failure(at) is CardFailure.NO_FINGER
        card.touch("toe")
        failed = [await failure(at) for _ in range(3)]
        assert failed == [CardFailure.WRONG_FINGER, CardFailure.WRONG_FINGER, CardFailure.BLOCKED]


async def test_a_card_that_nobody_touched_is_told_that_nobody_waits_any_longer(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        card = FidoCard()
        await at.with_credential(card)
        assert await failure(at) is CardFailure.NO_FINGER
        exchanges = [asked[2:] for asked in at.reader.asked if asked[0] == 0x40]
        assert exchanges[-1][:4] == bytes.fromhex("80 11 11 00"), "NFCCTAP_GETRESPONSE with P1 11: cancel"


async def test_a_card_that_waits_silently_for_a_finger_costs_its_time_and_not_the_reader(
    tmp_path: Path,
) -> None:
    async with bench(tmp_path) as at:
        card = FidoCard(keeps_alive=False)
        await at.with_credential(card)
        assert await failure(at) is CardFailure.NO_FINGER
        card.touch("thumb")
        assert isinstance(await at.asserted(), CardAsserted)
        assert not at.running.done()


async def test_a_card_without_a_finger_or_without_ctap2_is_unfit(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        at.reader.present(FidoCard(fingers=set()))
        await at.arrived()
        assert await failure(at) is CardFailure.UNFIT
        assert await at.made() == CardFailed(failure=CardFailure.UNFIT)


async def test_a_full_card_has_no_room(tmp_path: Path) -> None:
    async with bench(tmp_path) as at:
        card = FidoCard(room=0)
        at.reader.present(card)
        await at.arrived()
        card.touch("thumb")
        assert await at.made() == CardFailed(failure=CardFailure.NO_CREDENTIAL)


async def test_a_card_pulled_away_while_it_waits_for_the_finger_is_gone(tmp_path: Path) -> None:
    for keeps_alive in (True, False):
        folder = tmp_path / str(keeps_alive)
        folder.mkdir()
        async with bench(folder) as at:
            card = FidoCard(keeps_alive=keeps_alive)
            await at.with_credential(card)
            asking = asyncio.create_task(at.asserted())
            for _ in range(3):
                await obeyed(at.reader, 0x40)
            at.reader.remove()
            assert await asking == CardFailed(failure=CardFailure.GONE)
            assert (await at.left()).uid == card.uid
            assert not at.running.done()


@pytest.mark.parametrize("exchange", range(1, 6))
async def test_a_card_pulled_away_in_any_exchange_costs_the_answer_and_not_the_reader(
    tmp_path: Path, exchange: int
) -> None:
    async with bench(tmp_path) as at:
        card = FidoCard()
        await at.with_credential(card)
        asking = asyncio.create_task(at.asserted())
        for _ in range(exchange - 1):
            await obeyed(at.reader, 0x40)
        at.reader.pull_at(0x40)
        assert await asking == CardFailed(failure=CardFailure.GONE)
        await at.left()
        at.reader.present(card)
        assert (await at.arrived()).uid == card.uid


async def test_nonsense_from_a_card_is_a_failure_and_never_more(tmp_path: Path) -> None:
    """Whatever a card answers, the reader goes on: bytes at random, and right answers that are bent."""
    chance = random.Random(11)
    async with bench(tmp_path) as at:
        card = BentCard(chance)
        await at.with_credential(card)
        card.touch("thumb")
        for _ in range(120):
            card.bends = True
            said = await at.asserted(within=0.3)
            assert isinstance(said, CardAsserted | CardFailed)
            assert not at.running.done()
        card.bends = False
        assert isinstance(await at.asserted(), CardAsserted)


class BentCard(FidoCard):
    """Its answers to what comes after SELECT are bent in one place, or made up."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self.chance = chance
        self.bends = False

    def ask(self, apdu: bytes, answer: Callable[[bytes], None]) -> None:
        super().ask(apdu, lambda said: answer(self._bent(said) if self.bends and apdu[0] else said))

    def _bent(self, said: bytes) -> bytes:
        match self.chance.randrange(4):
            case 0:
                return b"\x00" + self.chance.randbytes(self.chance.randrange(60)) + b"\x90\x00"
            case 1:
                return b"\x00" + self.chance.choice((b"\x81", b"\xa1")) * 250 + b"\x90\x00"
            case 2:
                return self.chance.randbytes(self.chance.randrange(4))
        at = self.chance.randrange(len(said))
        return said[:at] + bytes([said[at] ^ 1 << self.chance.randrange(8)]) + said[at + 1 :]
