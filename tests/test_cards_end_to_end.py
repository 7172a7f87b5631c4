"""Fingerprint cards from end to end: a real agent on ptys, virtual cards, a real broker, the fleet.

And the one who taps the reader's wire: whatever was recorded there, played back, opens nothing.
"""

import contextlib
import json
from base64 import urlsafe_b64decode
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import pytest
from fido2.webauthn import AuthenticatorData

from agent.assertion import public_key
from simulators.fido_card import FidoCard
from simulators.line import LineScanner
from simulators.pn532 import Pn532Reader, frame
from simulators.stage import postern
from tests.site import Entry, Site
from tests.test_privacy import forms, state_files

pytestmark = [pytest.mark.broker, pytest.mark.timeout(120)]

DEVICE = "van-0042"
ANNA, BORIS = "drv-7f3a91", "drv-c2d804"
PARCEL = "RB473124829DE"

CONFIG = """\
[device]
id = "van-0042"
tenant = "acme"
state = "{state}"

[broker]
host = "{host}"
port = {port}
plain = true

[custody]
session = [["fido2"], ["badge", "slot"], ["badge", "pin"]]
handover = [["fido2"]]
window = 0.0

[unit.gun]
kind = "line"
port = "{dev}/gun"
commands = "honeywell"

[unit.cards]
kind = "pn532"
port = "{dev}/cards"
presence_ms = 200
poll_ms = 50
"""


class Tapped(Pn532Reader):
    """A reader whose wire somebody listens to."""

    def __init__(self, name: Path) -> None:
        super().__init__(name)
        self.tape: list[tuple[bytes, bytes]] = []
        """Every command, and the frame that answered it."""

    def _answer(self, turn: int, data: bytes) -> None:
        if turn == self._turn and self.asked:
            self.tape.append((self.asked[-1], frame(data)))
        super()._answer(turn, data)


class Replay(Pn532Reader):
    """A board with a recording: it answers each command with what was recorded for one of its kind."""

    def __init__(self, name: Path, tape: list[tuple[bytes, bytes]]) -> None:
        super().__init__(name)
        # The longest of each kind: that a card was there, rather than that there was none.
        self.answers = {_kind(command): answer for command, answer in sorted(tape, key=_length)}
        self.plays = False

    def _obey(self, body: bytes) -> None:
        if not self.plays or body[1] in (0x14, 0x02, 0x32):
            super()._obey(body)
        elif (answer := self.answers.get(_kind(body[1:]))) is not None:
            self.send(answer)


def _length(recorded: tuple[bytes, bytes]) -> int:
    return len(recorded[1])


def _kind(command: bytes) -> tuple[bytes, bytes, bytes]:
    """The chip's command; of an exchange the card's instruction, and what CTAP asks for."""
    return (command[:1], command[2:6], command[7:8]) if command[0] == 0x40 else (command[:1], b"", b"")


@dataclass
class Gate:
    """The site, its reader, and what the operator has written down of each card."""

    site: Site
    reader: Pn532Reader
    gun: LineScanner
    records: dict[str, Entry] = field(default_factory=dict)

    async def enrol(self, subject: str, card: FidoCard) -> None:
        self.reader.present(card)
        card.touch("thumb")
        make = ("cards", "make", subject, "--port", str(self.reader.name), "--config", str(self.site.config))
        self.records[subject] = json.loads((await postern(*make)).splitlines()[-1])
        card.lift()
        self.reader.remove()

    async def hold(self, card: FidoCard, finger: str = "thumb") -> None:
        """Hold the card there with a finger on it, until something has come of it."""
        was = self.count()
        card.touch(finger)
        self.reader.present(card)
        await self.site.until(lambda: self.count() > was, "what comes of the card")
        card.lift()
        await self.away()

    async def away(self) -> None:
        """Take the card away, until the reader has noticed."""
        self.reader.remove()
        for _ in range(8):
            self.reader.heard.clear()
            await self.reader.heard.wait()

    def count(self) -> int:
        return len(self.site.of("custody.session_opened", "custody.handover_closed", "identity.refused"))

    async def scan(self, label: str, entry: str) -> None:
        was = len(self.site.of(entry))
        self.gun.scan(label)
        await self.site.until(lambda: len(self.site.of(entry)) > was, entry)


@contextlib.asynccontextmanager
async def gate(
    folder: Path, cards: dict[str, FidoCard], kind: type[Pn532Reader] = Pn532Reader
) -> AsyncIterator[Gate]:
    async with Site(folder, config=CONFIG, device=DEVICE) as site:
        reader = site.plug(kind(site.dev / "cards"))
        gun = site.plug(LineScanner(site.dev / "gun", speaks="honeywell"))
        made = Gate(site, reader, gun)
        for subject, card in cards.items():
            await made.enrol(subject, card)
        reader.unplug()
        reader.plug()
        await site.start_agent()
        await site.ready("cards", "gun")
        yield made


async def test_a_card_and_a_finger_on_it_open_a_session(tmp_path: Path) -> None:
    card = FidoCard()
    async with gate(tmp_path, {ANNA: card}) as at:
        await at.hold(card, "somebody's")
        (refused,) = at.site.of("identity.refused")
        assert (refused["data"]["outcome"], refused["data"]["detail"]) == ("mismatch", "wrong_finger")
        await at.hold(card)
        (opened,) = at.site.of("custody.session_opened")
        assert (opened["subject"], opened["data"]["factors"], opened["data"]["level"]) == (ANNA, ["fido2"], 3)
        assert not at.site.of("agent.fault")
        at.site.in_order()


async def test_who_has_the_public_key_can_check_what_was_signed_without_the_device(tmp_path: Path) -> None:
    card = FidoCard()
    async with gate(tmp_path, {ANNA: card}) as at:
        await at.hold(card)
        (entry,) = at.site.of("identity.card_asserted")
        said = entry["data"]
        auth_data = AuthenticatorData(raw(said["auth_data"]))
        assert auth_data.rp_id_hash == sha256(b"acme.postern.invalid").digest()
        assert auth_data.is_user_verified()
        signed = raw(said["auth_data"]) + sha256(said["client_data"].encode()).digest()
        public_key(at.records[ANNA]["public_key"]).verify(signed, raw(said["signature"]))
        what = json.loads(said["client_data"])
        assert (what["device"], what["reader"]) == ("/postern/acme/van-0042", "cards")
        assert at.records[ANNA]["credential_id"] not in json.dumps(at.site.entries), "the id opens the row"
        logged = json.dumps(at.site.events)
        assert at.records[ANNA]["credential_id"] not in logged
        assert said["signature"] not in logged
        answered = await postern("status", "--config", str(at.site.config))
        await at.site.stop_agent()
    files = {file.name: file.read_bytes() for file in state_files(tmp_path / "state")}
    places = {"control socket": answered.encode(), **files}
    searched = list(forms("credential id", raw(at.records[ANNA]["credential_id"])))
    assert [
        f"{what} in {where}" for where, held in places.items() for what, form in searched if form in held
    ] == []
    assert ANNA.encode() in files["journal.db"], "the search has teeth"


def raw(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


async def test_the_receiving_driver_signs_for_the_parcels_on_the_table(tmp_path: Path) -> None:
    hers, his = FidoCard(), FidoCard(uid=bytes.fromhex("04aabbccddee01"))
    async with gate(tmp_path, {ANNA: hers, BORIS: his}) as at:
        await at.hold(hers)
        await at.scan(PARCEL, "custody.accepted")
        await at.scan("POSTERN:HANDOVER:DRIVER", "custody.handover_opened")
        await at.scan(PARCEL, "custody.offered")
        await at.hold(hers)
        (refused,) = at.site.of("identity.refused")
        assert refused["data"]["outcome"] == "unasked", "nobody receives what is theirs"
        await at.hold(his)
        (handed,) = at.site.of("custody.handed_over")
        assert handed["data"]["to"] == {"kind": "driver", "ref": BORIS, "factors": ["fido2"]}
        signed = [json.loads(entry["data"]["client_data"]) for entry in at.site.of("identity.card_asserted")]
        assert [(each["purpose"], bool(each["transaction"])) for each in signed] == [
            ("session", False),
            ("handover", True),
        ]


async def test_the_counter_outlives_a_kill_and_finds_the_copy(tmp_path: Path) -> None:
    card = FidoCard()
    async with gate(tmp_path, {ANNA: card}) as at:
        copy = card.cloned()
        for _ in range(2):
            await at.hold(card)
        await at.site.until(lambda: len(at.site.of("custody.session_opened")) == 2, "two sessions")
        await at.site.kill_agent()
        await at.site.start_agent()
        await at.site.ready("cards")
        await at.hold(copy)
        (alarm,) = at.site.of("identity.clone_suspected")
        assert (alarm["subject"], alarm["data"]) == (
            ANNA,
            {**alarm["data"], "unit": "cards", "counter_above": 2, "counter": 1},
        )
        await at.site.kill_agent()
        await at.site.start_agent()
        await at.site.ready("cards")
        await at.hold(card)
        assert [each["data"]["outcome"] for each in at.site.of("identity.refused")] == ["cloned"] * 2
        assert len(at.site.of("custody.session_opened")) == 2, (
            "and the genuine card is believed no more either"
        )
        assert len(at.site.of("identity.clone_suspected")) == 1


async def test_a_card_pulled_away_while_it_is_asked_is_no_try(tmp_path: Path) -> None:
    card = FidoCard()
    async with gate(tmp_path, {ANNA: card}) as at:
        at.reader.present(card)
        await at.site.until(lambda: at.site.of("identity.card_asked"), "the card to be asked")
        await at.away()
        await at.site.until(lambda: at.site.of("identity.refused"), "the failure")
        (refused,) = at.site.of("identity.refused")
        assert (refused["data"]["outcome"], refused["data"]["detail"]) == ("no_try", "gone")
        await at.hold(card)
        assert at.site.of("custody.session_opened")


async def test_a_recording_of_the_wire_opens_nothing(tmp_path: Path) -> None:
    """T1: everything that the reader ever said, said again by a board in its place, as often as one likes."""
    card = FidoCard()
    async with gate(tmp_path, {ANNA: card}, Tapped) as at:
        assert isinstance(at.reader, Tapped)
        at.reader.tape.clear()
        await at.hold(card)
        tape = [each for each in at.reader.tape if each[0][0] in (0x4A, 0x40, 0x52)]
        assert sum(command[0] == 0x40 for command, _ in tape) >= 4, "a whole conversation with the card"
        at.reader.unplug()
        await at.site.until(lambda: at.site.logged("lost"), "the reader's loss")
        for _ in range(5):
            await played_back(at, tape)
        refused = at.site.of("identity.refused")
        assert {entry["data"]["outcome"] for entry in refused} == {"forged"}
        assert {entry["data"]["detail"] for entry in refused} == {"signature"}
        assert len(at.site.of("custody.session_opened")) == 1
        assert not at.site.of("agent.fault")


async def played_back(at: Gate, tape: list[tuple[bytes, bytes]]) -> None:
    """Plug in a board with the recording, until it has been refused, and take it away again."""
    refused, ready = len(at.site.of("identity.refused")), len(at.site.logged("ready"))
    with Replay(at.reader.name, tape) as board:
        await at.site.until(lambda: len(at.site.logged("ready")) > ready, "the board in service")
        board.plays = True
        await at.site.until(lambda: len(at.site.of("identity.refused")) > refused, "the refusal")
        lost = len(at.site.logged("lost"))
    await at.site.until(lambda: len(at.site.logged("lost")) > lost, "the board's loss")
